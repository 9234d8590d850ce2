//! Values of PostgreSQL as the engine's, and back.

use std::error::Error;

use jiff::Timestamp;
use outbox_engine::{Column, Field, Row as Columns};
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use uuid::Uuid;

use super::error::Fault;

/// PostgreSQL counts microseconds from the start of the year 2000.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// A `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(i64);

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

impl ToSql for Time {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time.as_microsecond().saturating_sub(EPOCH_MICROSECONDS))
    }
}

impl Time {
    /// As the engine reads it: RFC 3339. A time that no calendar has is shown as PostgreSQL calls it.
    fn field(self) -> Field<'static> {
        let time = self.0.checked_add(EPOCH_MICROSECONDS).map(Timestamp::from_microsecond);
        let text = match (time, self.0) {
            (Some(Ok(time)), _) => time.to_string(),
            (_, i64::MIN) => "-infinity".into(),
            (_, i64::MAX) => "infinity".into(),
            _ => "a time out of range".into(),
        };
        text.into()
    }
}

/// The columns of an entry or a dead letter that identify it and its stream come first, those of [`REST`] last.
pub(super) const REST: &str = "stream_name, category, name, version, created_at, content_type, context, publish_after, expires_at, data, data_bytes";

pub(super) fn uuid(uuid: Option<Uuid>) -> Field<'static> {
    uuid.map_or(Field::Null, |uuid| uuid.to_string().into())
}

fn text<'r>(row: &'r Row, column: usize) -> Result<Field<'r>, Fault> {
    Ok(row.try_get::<_, Option<&str>>(column)?.into())
}

pub(super) fn time(row: &Row, column: usize) -> Result<Field<'static>, Fault> {
    Ok(row.try_get::<_, Option<Time>>(column)?.map_or(Field::Null, Time::field))
}

/// The columns of [`REST`], from result column `first` on.
pub(super) fn rest<'r>(
    row: &'r Row,
    first: usize,
    tenant_id: &'r str,
    stream_id: &'r str,
    uuid: Field<'r>,
) -> Result<Columns<'r>, Fault> {
    let data = match row.try_get::<_, Option<&str>>(first + 9)? {
        Some(text) => text.into(),
        None => row.try_get::<_, Option<&[u8]>>(first + 10)?.map_or(Field::Null, |bytes| Field::Bytes(bytes.into())),
    };
    Ok(Columns {
        tenant_id: tenant_id.into(),
        stream_id: stream_id.into(),
        stream_name: text(row, first)?,
        category: text(row, first + 1)?,
        uuid,
        name: text(row, first + 2)?,
        version: row.try_get::<_, Option<i64>>(first + 3)?.map_or(Field::Null, Field::Integer),
        created_at: time(row, first + 4)?,
        content_type: text(row, first + 5)?,
        context: text(row, first + 6)?,
        data,
        publish_after: time(row, first + 7)?,
        expires_at: time(row, first + 8)?,
    })
}

/// The columns of a SELECT that reads a whole row, each with its length, and no value that is longer than `bytes_max` says:
/// [`measured_row`] reads them.
pub(super) fn measured(bytes_max: impl Fn(Column) -> usize) -> String {
    let bounded = |column: &str, max: usize| {
        format!("CASE WHEN octet_length({column}) <= {max} THEN {column} END, octet_length({column})")
    };
    let texts = [
        Column::TenantId,
        Column::StreamId,
        Column::StreamName,
        Column::Category,
        Column::Name,
        Column::ContentType,
        Column::Context,
        Column::Data,
    ];
    let texts: Vec<String> = texts.iter().map(|column| bounded(column.name(), bytes_max(*column))).collect();
    let bytes = bounded("data_bytes", bytes_max(Column::Data));
    format!("{}, {bytes}, uuid, version, created_at, publish_after, expires_at", texts.join(", "))
}

/// How many result columns [`measured`] makes.
pub(super) const MEASURED: usize = 23;

/// A row of a SELECT of [`measured`], from result column 0 on.
pub(super) fn measured_row(row: &Row) -> Result<Columns<'_>, Fault> {
    let text = |index: usize| -> Result<Field<'_>, Fault> {
        let length: Option<i32> = row.try_get(index * 2 + 1)?;
        Ok(match (row.try_get::<_, Option<&str>>(index * 2)?, length) {
            (Some(text), _) => text.into(),
            (None, Some(length)) => Field::TooLong(u64::from(length.unsigned_abs())),
            (None, None) => Field::Null,
        })
    };
    let bytes = match (row.try_get::<_, Option<&[u8]>>(16)?, row.try_get::<_, Option<i32>>(17)?) {
        (Some(bytes), _) => Field::Bytes(bytes.into()),
        (None, Some(length)) => Field::TooLong(u64::from(length.unsigned_abs())),
        (None, None) => Field::Null,
    };
    Ok(Columns {
        tenant_id: text(0)?,
        stream_id: text(1)?,
        stream_name: text(2)?,
        category: text(3)?,
        name: text(4)?,
        content_type: text(5)?,
        context: text(6)?,
        data: match text(7)? {
            Field::Null => bytes,
            text => text,
        },
        uuid: uuid(row.try_get(18)?),
        version: row.try_get::<_, Option<i64>>(19)?.map_or(Field::Null, Field::Integer),
        created_at: time(row, 20)?,
        publish_after: time(row, 21)?,
        expires_at: time(row, 22)?,
    })
}

/// A count that is kept as a `bigint`.
pub(super) fn count(row: &Row, column: usize) -> Result<u32, Fault> {
    Ok(u32::try_from(row.try_get::<_, i64>(column)?.max(0)).unwrap_or(u32::MAX))
}

/// A number that is never negative.
pub(super) fn number(row: &Row, column: usize) -> Result<u64, Fault> {
    Ok(row.try_get::<_, Option<i64>>(column)?.unwrap_or(0).max(0).unsigned_abs())
}

/// A time that is kept in milliseconds.
pub(super) fn at(row: &Row, column: usize) -> Result<Timestamp, Fault> {
    Ok(at_ms(row.try_get(column)?))
}

pub(super) fn at_ms(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Rounds a time up to a millisecond, so that it is never earlier than requested.
pub(super) fn up_to_a_millisecond(at: Timestamp) -> i64 {
    at.as_millisecond().saturating_add(i64::from(at.subsec_nanosecond() % 1_000_000 != 0))
}
