//! Reading entries, and what holds them back.

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::names;
use crate::entry::StreamKey;
use crate::outbox::{Held, Hold, Page, PageBounds, Wanted};
use crate::row::{Field, RawEntry, Row};
use crate::settlement::History;

/// What tells the stream comes first, and `data` last: a column is only read when it is asked for. The length of `data`
/// is known without reading it.
const ENTRIES: &str = "
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           octet_length(data), data
    FROM outbox WHERE position > ?1 ORDER BY position LIMIT ?2";

const DEAD_ENTRY: &str = "
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           octet_length(data), data
    FROM outbox_dead_letters WHERE position = ?1";

/// An entry that somebody deleted by hand waits for nothing.
const WAITING: &str =
    "SELECT position, tenant_id, stream_id, attempts, host_deaths, failed_at_ms, retry_at_ms, delivered_to
     FROM outbox_waiting WHERE EXISTS (SELECT 1 FROM outbox WHERE outbox.position = outbox_waiting.position)";
const PARKED: &str = "SELECT position, tenant_id, stream_id FROM outbox_dead_letters WHERE parks_stream";

/// The most bytes of `data` that are read; no guest could be given more.
const DATA_BYTES_MAX: i64 = 32 * 1024 * 1024;
/// The most bytes of any other column.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn read(
    connection: &Connection,
    after: i64,
    bounds: PageBounds,
    wanted: Wanted<'_>,
) -> rusqlite::Result<Page> {
    let mut statement = connection.prepare_cached(ENTRIES)?;
    let limit = i64::try_from(bounds.looked_at_max).unwrap_or(i64::MAX);
    let mut rows = statement.query([after, limit])?;
    let mut page = Page { entries: Vec::with_capacity(bounds.read_max.min(1_024)), ..Page::default() };
    let (mut looked_at, mut bytes) = (0, 0);
    while page.entries.len() < bounds.read_max && bytes < bounds.bytes_max {
        let Some(row) = rows.next()? else {
            page.end = looked_at < bounds.looked_at_max;
            break;
        };
        looked_at += 1;
        let position = row.get(0)?;
        page.last = Some(position);
        if wanted(position, key(row, 1)?) {
            let entry = entry(row, position)?;
            bytes += entry.data_len();
            page.entries.push(entry);
        }
    }
    Ok(page)
}

/// A dead letter as the entry that it was.
pub(super) fn dead_entry(connection: &Connection, position: i64) -> rusqlite::Result<Option<RawEntry>> {
    connection.prepare_cached(DEAD_ENTRY)?.query_row([position], |row| entry(row, position)).optional()
}

pub(super) fn held(connection: &Connection) -> rusqlite::Result<Vec<Held>> {
    let mut held = Vec::new();
    let mut waiting = connection.prepare_cached(WAITING)?;
    let mut rows = waiting.query([])?;
    while let Some(row) = rows.next()? {
        let history = History { attempts: row.get(3)?, host_deaths: row.get(4)? };
        let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let hold = Hold::Waiting { failed_at: time(row.get(5)?), retry_at: time(row.get(6)?), history };
        let delivered_to = names::from_json(row.get(7)?);
        held.push(Held { stream: key(row, 1)?, position: row.get(0)?, hold, delivered_to });
    }
    let mut parked = connection.prepare_cached(PARKED)?;
    let mut rows = parked.query([])?;
    while let Some(row) = rows.next()? {
        let (stream, position) = (key(row, 1)?, row.get(0)?);
        held.push(Held { stream, position, hold: Hold::Parked, delivered_to: Vec::new() });
    }
    Ok(held)
}

/// The stream of a row whose columns `tenant` and `tenant + 1` are its tenant and its stream id.
fn key(row: &rusqlite::Row<'_>, tenant: usize) -> rusqlite::Result<StreamKey> {
    Ok(StreamKey::of(bytes(row.get_ref(tenant)?), bytes(row.get_ref(tenant + 1)?)))
}

fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}

fn entry(row: &rusqlite::Row<'_>, position: i64) -> rusqlite::Result<RawEntry> {
    let read = Row {
        tenant_id: field(row.get_ref(1)?),
        stream_id: field(row.get_ref(2)?),
        stream_name: field(row.get_ref(3)?),
        category: field(row.get_ref(4)?),
        uuid: field(row.get_ref(5)?),
        name: field(row.get_ref(6)?),
        version: field(row.get_ref(7)?),
        created_at: field(row.get_ref(8)?),
        content_type: field(row.get_ref(9)?),
        context: field(row.get_ref(10)?),
        data: match row.get::<_, Option<i64>>(11)? {
            Some(length) if length > DATA_BYTES_MAX => Field::TooLong(length.unsigned_abs()),
            _ => value(row.get_ref(12)?),
        },
    };
    Ok(RawEntry::new(position, &read))
}

fn field(field: ValueRef<'_>) -> Field<'_> {
    match field {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if bytes.len() > TEXT_BYTES_MAX => {
            Field::TooLong(bytes.len() as u64)
        }
        field => value(field),
    }
}

fn value(value: ValueRef<'_>) -> Field<'_> {
    match value {
        ValueRef::Null => Field::Null,
        ValueRef::Integer(number) => Field::Integer(number),
        ValueRef::Real(number) => Field::Real(number),
        ValueRef::Text(bytes) => Field::Text(bytes.into()),
        ValueRef::Blob(bytes) => Field::Bytes(bytes.into()),
    }
}
