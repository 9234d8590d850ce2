//! Reading entries, and what holds them back.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use outbox_engine::outbox::{Held, Hold, PageBounds, Slice, TenantName, Wanted};
use outbox_engine::{Column, EntryId, Field, History, RawEntry, Row, StreamKey, TenantKey};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Rows, Statement};

use super::times::{self, TimeColumns};
use super::value::{self, measured};
use super::{dead_columns, names, tenants};

/// The columns after the position are in the order of [`Column::ALL`]; then come those of [`Column::TIMES`].
static ENTRIES: LazyLock<[String; 4]> = LazyLock::new(|| TimeColumns::each(|times| entries(times, FROM_ALL)));
/// The same of one tenant.
pub(super) static ENTRIES_OF: LazyLock<[String; 4]> =
    LazyLock::new(|| TimeColumns::each(|times| entries(times, &from_tenant())));
/// Where the times are among the columns of an entry.
const TIMES: usize = 1 + Column::ALL.len();

fn entries(times: TimeColumns, from: &str) -> String {
    format!(
        "SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type,
                context, data, {}
         {from} ORDER BY position LIMIT ?3",
        times.names()
    )
}

const FROM_ALL: &str = "FROM outbox WHERE position BETWEEN ?1 AND ?2";

fn from_tenant() -> String {
    let (index, name) = (tenants::INDEX, tenants::NAME);
    format!("FROM outbox INDEXED BY {index} WHERE {name} = ?4 AND position BETWEEN ?1 AND ?2")
}

/// The indices of the columns that identify the entry and its stream: `tenant_id`, `stream_id` and `uuid`.
const KEY: [usize; 3] = [0, 1, 4];
/// The indices of the other columns.
const REST: [usize; 8] = [2, 3, 5, 6, 7, 8, 9, 10];

/// The next entry: reads only as much of it as is needed to decide whether it is wanted.
static NEXT_KEY: LazyLock<String> = LazyLock::new(|| next_key(FROM_ALL));
/// The same of one tenant.
pub(super) static NEXT_KEY_OF: LazyLock<String> = LazyLock::new(|| next_key(&from_tenant()));

fn next_key(from: &str) -> String {
    format!("SELECT position, {}, {} {from} ORDER BY position LIMIT ?3", measured_key(), measured_uuid())
}

static ENTRY: LazyLock<[String; 4]> = LazyLock::new(|| {
    TimeColumns::each(|times| {
        format!("SELECT {}, {} FROM outbox WHERE position = ?1", measured_whole(), times.measured())
    })
});
static DEAD_ENTRY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, {} FROM outbox_dead_letters WHERE position = ?1 ORDER BY id LIMIT 1",
        measured_whole(),
        dead_columns::measured_times()
    )
});

/// If somebody has deleted a waiting entry by hand, it no longer waits. Another entry that has its position now does
/// not inherit the wait.
static WAITING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT position, {}, attempts, host_deaths, failed_at_ms, retry_at_ms, {}, undeletable IS TRUE, {}
         FROM outbox_waiting WHERE EXISTS (SELECT 1 FROM outbox WHERE outbox.position = outbox_waiting.position
                                                                 AND outbox.uuid IS outbox_waiting.uuid)",
        measured_key(),
        value::bounded("delivered_to"),
        measured_uuid()
    )
});
static PARKED: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT position, {}, {} FROM outbox_dead_letters WHERE parks_stream", measured_key(), measured_uuid())
});

fn measured_uuid() -> String {
    measured(&[Column::Uuid], Column::bytes_max)
}

/// The columns that name an entry's stream.
pub(super) fn measured_key() -> String {
    measured(&[Column::TenantId, Column::StreamId], Column::bytes_max)
}

fn measured_whole() -> String {
    measured(&Column::ALL, Column::bytes_max)
}

/// Reads the entries in this range; with a tenant, its entries alone.
pub(super) fn read(
    connection: &Connection,
    times: TimeColumns,
    tenant: Option<&TenantName>,
    range: RangeInclusive<i64>,
    bounds: PageBounds,
    wanted: Wanted<'_>,
) -> rusqlite::Result<Slice> {
    // Most rows are small, and measuring each of their columns would add a tenth to the cost of reading. So SQLite
    // itself refuses large values before it reads them. A row with such a value is then measured, and read alone.
    let _bound = LengthBound::new(connection, Column::Name.bytes_max())?;
    let slice = Slice { entries: Vec::with_capacity(bounds.read_max.min(1_024)), ..Slice::default() };
    let (next, last) = (Some(*range.start()).filter(|_| !range.is_empty()), *range.end());
    let mut reading = Reading { connection, times, tenant, bounds, wanted, slice, next, last, looked_at: 0, bytes: 0 };
    loop {
        match reading.small_rows() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => reading.large_row()?,
            read => return read.map(|()| reading.slice),
        }
    }
}

struct Reading<'a> {
    connection: &'a Connection,
    times: TimeColumns,
    tenant: Option<&'a TenantName>,
    bounds: PageBounds,
    wanted: Wanted<'a>,
    slice: Slice,
    /// The position from which to read on. None after the last possible position.
    next: Option<i64>,
    /// The last position to look at.
    last: i64,
    looked_at: usize,
    bytes: usize,
}

impl Reading<'_> {
    /// Reads up to the end, the bounds, or a large row, which is an error.
    fn small_rows(&mut self) -> rusqlite::Result<()> {
        let Some(next) = self.next else {
            self.slice.end = true;
            return Ok(());
        };
        let rest = i64::try_from(self.bounds.looked_at_max.saturating_sub(self.looked_at)).unwrap_or(i64::MAX);
        let sql = self.times.choose(if self.tenant.is_some() { &ENTRIES_OF } else { &ENTRIES });
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = query(&mut statement, (next, self.last, rest), self.tenant)?;
        while self.has_room() {
            let Some(row) = rows.next()? else {
                self.slice.end = self.looked_at < self.bounds.looked_at_max;
                break;
            };
            let position = row.get(0)?;
            let mut columns = [const { Field::Null }; Column::ALL.len()];
            read_columns(row, &mut columns, KEY)?;
            let [tenant, stream, uuid] = KEY.map(|column| &columns[column]);
            let (entry, stream) = (EntryId::of(position, uuid), StreamKey::of_entry(position, tenant, stream));
            if self.looks_at(entry, stream) {
                read_columns(row, &mut columns, REST)?;
                let columns = Row::of(columns);
                let columns = if self.times.has_any() { times::read(row, TIMES, columns)? } else { columns };
                self.read(RawEntry::known(entry, stream, &columns));
            }
        }
        Ok(())
    }

    /// Reads the next row; measures each column before it reads it.
    fn large_row(&mut self) -> rusqlite::Result<()> {
        let _bound = LengthBound::new(self.connection, usize::MAX)?;
        let Some(next) = self.next else { return Ok(()) };
        let sql = if self.tenant.is_some() { &NEXT_KEY_OF } else { &NEXT_KEY };
        let mut next_key = self.connection.prepare_cached(sql)?;
        let mut rows = query(&mut next_key, (next, self.last, 1), self.tenant)?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let (position, [tenant, stream, uuid]) = (row.get(0)?, value::measured_fields(row, 1)?);
        let stream = StreamKey::of_entry(position, &tenant, &stream);
        if self.looks_at(EntryId::of(position, &uuid), stream) {
            let entry = entry_at(self.connection, self.times, position)?;
            entry.into_iter().for_each(|entry| self.read(entry));
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.slice.entries.len() < self.bounds.read_max && self.bytes < self.bounds.bytes_max
    }

    fn looks_at(&mut self, entry: EntryId, stream: StreamKey) -> bool {
        self.looked_at += 1;
        self.slice.last = Some(entry.position);
        self.next = entry.position.checked_add(1);
        (self.wanted)(entry, stream)
    }

    fn read(&mut self, entry: RawEntry) {
        self.bytes += entry.bytes();
        self.slice.entries.push(entry);
    }
}

fn query<'s>(
    statement: &'s mut Statement<'_>,
    (next, last, most): (i64, i64, i64),
    tenant: Option<&TenantName>,
) -> rusqlite::Result<Rows<'s>> {
    match tenant {
        None => statement.query((next, last, most)),
        Some(tenant) => statement.query((next, last, most, tenants::text(tenant))),
    }
}

/// Reads these columns of a row of [`ENTRIES`].
fn read_columns<'r, const N: usize>(
    row: &'r rusqlite::Row<'_>,
    columns: &mut [Field<'r>; Column::ALL.len()],
    which: [usize; N],
) -> rusqlite::Result<()> {
    for column in which {
        columns[column] = value::field(row.get_ref(1 + column)?);
    }
    Ok(())
}

/// Limits how many bytes of a value SQLite reads, until this is dropped.
pub(super) struct LengthBound<'a> {
    connection: &'a Connection,
    before: i32,
}

impl<'a> LengthBound<'a> {
    pub(super) fn new(connection: &'a Connection, bytes_max: usize) -> rusqlite::Result<Self> {
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX);
        let before = connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes_max)?;
        Ok(Self { connection, before })
    }
}

impl Drop for LengthBound<'_> {
    fn drop(&mut self) {
        let _ = self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, self.before);
    }
}

/// The entry at this position.
pub(super) fn entry_at(
    connection: &Connection,
    times: TimeColumns,
    position: i64,
) -> rusqlite::Result<Option<RawEntry>> {
    entry(connection, times.choose(&ENTRY), position)
}

/// A dead letter as the entry that it was.
pub(super) fn dead_entry(connection: &Connection, position: i64) -> rusqlite::Result<Option<RawEntry>> {
    entry(connection, &DEAD_ENTRY, position)
}

fn entry(connection: &Connection, sql: &str, position: i64) -> rusqlite::Result<Option<RawEntry>> {
    let entry = |row: &rusqlite::Row<'_>| {
        let columns = times::read_measured(row, value::MEASURED_ROW, value::measured_row(row, 0)?)?;
        Ok(RawEntry::new(position, &columns))
    };
    connection.prepare_cached(sql)?.query_row([position], entry).optional()
}

pub(super) fn held(connection: &Connection) -> rusqlite::Result<Vec<Held>> {
    let mut held = Vec::new();
    let mut waiting = connection.prepare_cached(&WAITING)?;
    let mut rows = waiting.query([])?;
    while let Some(row) = rows.next()? {
        let history = History { attempts: value::count(row, 5)?, host_deaths: value::count(row, 6)? };
        let hold = match row.get(10)? {
            true => Hold::Delivered,
            false => Hold::Waiting { failed_at: value::time(row, 7)?, retry_at: value::time(row, 8)?, history },
        };
        let delivered_to = names::from_json(value::field(row.get_ref(9)?).text());
        let ([tenant, stream], [uuid]) = (value::measured_fields(row, 1)?, value::measured_fields(row, 11)?);
        let entry = EntryId::of(row.get(0)?, &uuid);
        let (stream, tenant) = (StreamKey::of_entry(entry.position, &tenant, &stream), TenantKey::of_entry(&tenant));
        held.push(Held { stream, tenant, entry, hold, delivered_to });
    }
    let mut parked = connection.prepare_cached(&PARKED)?;
    let mut rows = parked.query([])?;
    while let Some(row) = rows.next()? {
        let [tenant, stream, uuid] = value::measured_fields(row, 1)?;
        // A dead letter whose stream cannot be determined parks none.
        if let Some(stream) = StreamKey::told(&tenant, &stream) {
            let entry = EntryId::of(value::number(row, 0)?, &uuid);
            let tenant = TenantKey::of_entry(&tenant);
            held.push(Held { stream, tenant, entry, hold: Hold::Parked, delivered_to: Vec::new() });
        }
    }
    Ok(held)
}
