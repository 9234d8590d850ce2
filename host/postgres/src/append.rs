//! Appending events, in the application's own transaction or in one of the outbox's.

use jiff::Timestamp;
use outbox_engine::{JsonSerde, NewEvent, Serde, StorageError, StoredData, StoredValue};
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::error::Fault;
use super::link::{Link, quoted};
use super::value::Time;

/// The most events that one statement inserts.
const EVENTS_MAX: usize = 1_000;

const COLUMNS: &str =
    "tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
                       publish_after, expires_at, data, data_bytes";

/// The sequence gives positions in the order of the rows.
fn insert_all() -> String {
    format!(
        "INSERT INTO outbox ({COLUMNS})
         SELECT {COLUMNS} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::bigint[],
                                      $8::timestamptz[], $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[],
                                      $13::text[], $14::bytea[]) WITH ORDINALITY
                         AS event ({COLUMNS}, number)
         ORDER BY number RETURNING position"
    )
}

/// Appends an event within the application's own transaction, and returns its position. Event and data are then both
/// committed, or neither is.
///
/// `transaction` may be a [`tokio_postgres::Transaction`], or a client within a transaction. `schema` is the outbox's.
///
/// ```no_run
/// use outbox_postgres::{NewEvent, StreamId, tokio_postgres};
///
/// # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let tx = client.transaction().await?;
/// tx.execute("INSERT INTO orders (id) VALUES (42)", &[]).await?;
/// let event = NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#);
/// outbox_postgres::append(&tx, "public", &event).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`StorageError::Invalid`] for an event that no publisher could be given; else PostgreSQL's error. The caller rolls the
/// transaction back.
pub async fn append(
    transaction: &(impl GenericClient + Sync),
    schema: &str,
    event: &NewEvent,
) -> Result<i64, StorageError> {
    let invalid = |reason| StorageError::Invalid { index: 0, reason };
    let data = JsonSerde.serialize(&event.data).map_err(|error| invalid(error.to_string()))?;
    event.check().map_err(invalid)?;
    check(0, event, &data)?;
    let failed = |error| super::error::error("append an event", std::time::Duration::ZERO)(Fault::Postgres(error));
    let sql = format!(
        "INSERT INTO {}.outbox ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         RETURNING position",
        quoted(schema)
    );
    let row = Values::of(event, &data);
    let row = transaction
        .query_one(
            &sql,
            &[
                &row.tenant_id,
                &row.stream_id,
                &row.stream_name,
                &row.category,
                &row.uuid,
                &row.name,
                &row.version,
                &row.created_at,
                &row.content_type,
                &row.context,
                &row.publish_after,
                &row.expires_at,
                &row.data,
                &row.data_bytes,
            ],
        )
        .await
        .map_err(failed)?;
    row.try_get(0).map_err(failed)
}

pub(super) fn append_all(link: &mut Link, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, Fault> {
    for (index, (event, data)) in events.iter().enumerate() {
        check(index, event, data)?;
    }
    let mut positions = Vec::with_capacity(events.len());
    if events.len() <= EVENTS_MAX {
        insert(link, events, &mut positions)?;
    } else {
        link.transaction(|link| events.chunks(EVENTS_MAX).try_for_each(|some| insert(link, some, &mut positions)))?;
    }
    Ok(positions)
}

/// PostgreSQL's texts have no NUL character.
fn check(index: usize, event: &NewEvent, data: &StoredData) -> Result<(), StorageError> {
    let Values { tenant_id, stream_id, stream_name, category, name, content_type, context, data, .. } =
        Values::of(event, data);
    let texts = [
        ("tenant_id", Some(tenant_id)),
        ("stream_id", Some(stream_id)),
        ("stream_name", stream_name),
        ("category", category),
        ("name", Some(name)),
        ("content_type", content_type),
        ("context", Some(context)),
        ("data", data),
    ];
    let with_nul = texts.iter().find(|(_, text)| text.is_some_and(|text| text.contains('\0')));
    with_nul.map_or(Ok(()), |(column, _)| {
        let reason = format!("{column}: it contains a NUL character, which PostgreSQL cannot keep in a text");
        Err(StorageError::Invalid { index, reason })
    })
}

/// An event as a row.
struct Values<'e> {
    tenant_id: &'e str,
    stream_id: &'e str,
    stream_name: Option<&'e str>,
    category: Option<&'e str>,
    uuid: Uuid,
    name: &'e str,
    version: Option<i64>,
    created_at: Time,
    content_type: Option<&'e str>,
    context: &'e str,
    publish_after: Option<Time>,
    expires_at: Option<Time>,
    data: Option<&'e str>,
    data_bytes: Option<&'e [u8]>,
}

impl<'e> Values<'e> {
    fn of(event: &'e NewEvent, data: &'e StoredData) -> Self {
        let (text, bytes) = match &data.value {
            StoredValue::Text(text) => (Some(text.as_str()), None),
            StoredValue::Bytes(bytes) => (None, Some(bytes.as_slice())),
        };
        Self {
            tenant_id: event.stored_tenant(),
            stream_id: &event.stream_id.id,
            stream_name: event.stream_id.name.as_deref(),
            category: event.stream_id.category.as_deref(),
            uuid: event.uuid.unwrap_or_else(Uuid::new_v4),
            name: &event.name,
            version: event.version.map(|version| i64::try_from(version).unwrap_or(i64::MAX)),
            created_at: event.created_at.unwrap_or_else(Timestamp::now).into(),
            content_type: data.content_type.as_deref(),
            context: event.stored_context(),
            publish_after: event.publish_after.map(Into::into),
            expires_at: event.expires_at.map(Into::into),
            data: text,
            data_bytes: bytes,
        }
    }
}

fn insert(link: &mut Link, events: &[(NewEvent, StoredData)], positions: &mut Vec<i64>) -> Result<(), Fault> {
    let rows: Vec<Values<'_>> = events.iter().map(|(event, data)| Values::of(event, data)).collect();
    macro_rules! column {
        ($name:ident) => {
            &rows.iter().map(|row| row.$name).collect::<Vec<_>>()
        };
    }
    let given = link.query(
        &insert_all(),
        &[
            column!(tenant_id),
            column!(stream_id),
            column!(stream_name),
            column!(category),
            column!(uuid),
            column!(name),
            column!(version),
            column!(created_at),
            column!(content_type),
            column!(context),
            column!(publish_after),
            column!(expires_at),
            column!(data),
            column!(data_bytes),
        ],
    )?;
    for row in given {
        positions.push(row.try_get(0)?);
    }
    Ok(())
}
