//! Appending events, in the application's own transaction or in one of the outbox's.

use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::{JsonSerde, NewEvent, Serde, StorageError, StoredData, StoredValue};
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::times::{self, TimeColumns};

const INSERT: &str = "
    INSERT INTO outbox (tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type,
                        context, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
/// The same for an event with times. The table need not have their columns, so only those are named that it needs.
static INSERT_TIMES: LazyLock<[String; 4]> = LazyLock::new(|| {
    TimeColumns::each(|times| {
        let (names, values) = times.selected_after(12);
        INSERT.replacen("data)", &format!("data{names})"), 1).replacen("?11)", &format!("?11{values})"), 1)
    })
});

/// Appends an event within the application's own transaction, and returns its position. Event and data are then both
/// committed, or neither is.
///
/// `transaction` may be a `&rusqlite::Transaction`.
///
/// ```
/// use outbox_sqlite::rusqlite::Connection;
/// use outbox_sqlite::{NewEvent, SqliteOutbox, StreamId};
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("app.db");
/// SqliteOutbox::init(&file)?;
///
/// let mut db = Connection::open(&file)?;
/// db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)", [])?;
/// let tx = db.transaction()?;
/// tx.execute("INSERT INTO orders (id) VALUES (42)", [])?;
/// let event = NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#);
/// let position = outbox_sqlite::append(&tx, &event)?;
/// tx.commit()?;
/// assert_eq!(position, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`StorageError::Invalid`] for an event that no publisher could be given; else SQLite's error. The caller rolls the
/// transaction back.
pub fn append(transaction: &Connection, event: &NewEvent) -> Result<i64, StorageError> {
    let invalid = |reason| StorageError::Invalid { index: 0, reason };
    let data = JsonSerde.serialize(&event.data).map_err(|error| invalid(error.to_string()))?;
    event.check().map_err(invalid)?;
    let failed = |error| StorageError::Other { doing: "append an event", cause: Box::new(error) };
    check_times(transaction, [event].into_iter(), failed)?;
    insert(transaction, event, &data).map_err(failed)
}

/// Appends an event, as [`append`] does, if the filterer wants it in the outbox. Returns its position. None if the
/// filterer refuses it.
///
/// ```
/// # use outbox_sqlite::rusqlite::Connection;
/// # use outbox_sqlite::{NewEvent, SqliteOutbox, StreamId};
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("app.db");
/// # SqliteOutbox::init(&file)?;
/// # let db = Connection::open(&file)?;
/// let no_drafts = |event: &NewEvent| !event.name.starts_with("draft.");
/// let event = NewEvent::json(StreamId::new("order-42"), "draft.saved", "{}");
/// assert_eq!(outbox_sqlite::append_if(&db, &event, no_drafts)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`append`].
pub fn append_if(
    transaction: &Connection,
    event: &NewEvent,
    filterer: impl Fn(&NewEvent) -> bool,
) -> Result<Option<i64>, StorageError> {
    filterer(event).then(|| append(transaction, event)).transpose()
}

pub(super) fn append_all(
    connection: &mut Connection,
    events: &[(NewEvent, StoredData)],
    failed: impl Fn(rusqlite::Error) -> StorageError,
) -> Result<Vec<i64>, StorageError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    check_times(&transaction, events.iter().map(|(event, _)| event), &failed)?;
    let positions = events.iter().map(|(event, data)| insert(&transaction, event, data)).collect::<Result<_, _>>();
    let positions = positions.map_err(&failed)?;
    transaction.commit().map_err(failed)?;
    Ok(positions)
}

/// Whether the table has the columns for the times of these events. Most have none.
fn check_times<'e>(
    connection: &Connection,
    mut events: impl Iterator<Item = &'e NewEvent>,
    failed: impl FnOnce(rusqlite::Error) -> StorageError,
) -> Result<(), StorageError> {
    let Some(first) = events.find(|event| event.has_times()) else { return Ok(()) };
    let there = TimeColumns::of(connection).map_err(failed)?;
    let missing = std::iter::once(first).chain(events).find_map(|event| there.first_missing(wanted(event)));
    missing.map_or(Ok(()), |column| Err(times::missing(column)))
}

/// The columns that an event needs.
fn wanted(event: &NewEvent) -> TimeColumns {
    TimeColumns::new(event.publish_after.is_some(), event.expires_at.is_some())
}

fn insert(connection: &Connection, event: &NewEvent, data: &StoredData) -> rusqlite::Result<i64> {
    let (text, bytes) = match &data.value {
        StoredValue::Text(text) => (Some(text), None),
        StoredValue::Bytes(bytes) => (None, Some(bytes)),
    };
    let value: &dyn rusqlite::ToSql = if text.is_some() { &text } else { &bytes };
    let wanted = wanted(event);
    let sql = if wanted.has_any() { wanted.choose(&INSERT_TIMES) } else { INSERT };
    let mut statement = connection.prepare_cached(sql)?;
    let columns = params![
        event.stored_tenant(),
        event.stream_id.id,
        event.stream_id.name,
        event.stream_id.category,
        event.uuid.unwrap_or_else(Uuid::new_v4).to_string(),
        event.name,
        event.version.map(|version| i64::try_from(version).unwrap_or(i64::MAX)),
        event.created_at.unwrap_or_else(Timestamp::now).to_string(),
        data.content_type,
        event.stored_context(),
        value,
    ];
    (1..).zip(columns).try_for_each(|(index, value)| statement.raw_bind_parameter(index, value))?;
    let times = [event.publish_after, event.expires_at].into_iter().flatten();
    (12..).zip(times).try_for_each(|(index, time)| statement.raw_bind_parameter(index, time.to_string()))?;
    statement.raw_execute()?;
    Ok(connection.last_insert_rowid())
}
