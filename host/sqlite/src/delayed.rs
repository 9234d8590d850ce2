//! Entries that are put off: they leave the table `outbox` for `outbox_delayed`, and come back shortly before they are due.
//! Each is in one of the two tables, since a single transaction moves it.

use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::outbox::BroughtBack;
use outbox_engine::{Column, EntryId, StreamKey};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::kept::{COLUMNS, Kept};
use super::times::TimeColumns;
use super::{connection, identity, page, table, value};

/// How soon an entry is tried again that the table outbox refuses.
const AGAIN_MS: i64 = 10_000;
/// The most characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1_000;

const DELAYED: Kept = Kept { rows: "outbox_delayed", columns: "outbox_delayed_columns", key: "delayed" };

static PUT_OFF: LazyLock<[String; 4]> = LazyLock::new(|| {
    TimeColumns::each(|times| {
        format!(
            "INSERT INTO outbox_delayed (position, {COLUMNS}, publish_after, expires_at, due_ms, wake_ms)
             SELECT position, {COLUMNS}, {}, ?3, ?3 FROM outbox WHERE {}",
            times.names(),
            identity::is_it()
        )
    })
});
static DUE: LazyLock<String> = LazyLock::new(|| {
    let (key, uuid) = (page::measured_key(), value::measured(&[Column::Uuid], Column::bytes_max));
    format!(
        "SELECT id, position, due_ms, {key}, {uuid} FROM outbox_delayed
         WHERE wake_ms <= ?1 ORDER BY wake_ms, position LIMIT ?2"
    )
});
/// What is no number is never due: somebody else has written it.
const NEXT: &str = "SELECT wake_ms FROM outbox_delayed WHERE wake_ms <= 9223372036854775807 ORDER BY wake_ms LIMIT 1";
const NEXT_DUE: &str = "SELECT due_ms FROM outbox_delayed ORDER BY wake_ms LIMIT 1";
const COUNT: &str = "SELECT count(*) FROM outbox_delayed";
const GONE: &str = "DELETE FROM outbox_delayed WHERE id = ?1";
const DEFER: &str = "UPDATE outbox_delayed SET wake_ms = ?2, refused = ?3 WHERE id = ?1";
const PLACE: &str = "
    SELECT coalesce(max(1 + (outbox.uuid IS NOT delayed.uuid)), 0)
    FROM outbox_delayed AS delayed JOIN outbox ON outbox.position = delayed.position WHERE delayed.id = ?1";
/// Who has the place of an entry now.
const NOBODYS: i64 = 0;
const ITS_OWN: i64 = 1;

/// Puts entries off that are in the table outbox.
pub(super) struct PutOff<'t> {
    transaction: &'t Transaction<'t>,
    times: TimeColumns,
    others: Vec<String>,
}

impl<'t> PutOff<'t> {
    pub(super) fn new(transaction: &'t Transaction<'t>) -> rusqlite::Result<Self> {
        Ok(Self { transaction, times: TimeColumns::of(transaction)?, others: others(transaction)? })
    }

    /// Copies an entry, and returns whether it was there.
    pub(super) fn copy(&self, entry: EntryId, until: Timestamp) -> rusqlite::Result<bool> {
        let which = params![entry.position, identity::hash(entry), value::up_to_a_millisecond(until)];
        if self.transaction.prepare_cached(self.times.choose(&PUT_OFF))?.execute(which)? == 0 {
            return Ok(false);
        }
        let id = self.transaction.last_insert_rowid();
        DELAYED.keep(self.transaction, &self.others, entry.position, id)?;
        Ok(true)
    }
}

/// The columns of the application's own.
fn others(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let is_time = |name: &String| Column::TIMES.iter().any(|column| name.eq_ignore_ascii_case(column.name()));
    Ok(table::other_columns(connection)?.into_iter().filter(|name| !is_time(name)).collect())
}

pub(super) fn next(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    connection.prepare_cached(NEXT)?.query_row([], |row| value::time(row, 0)).optional()
}

/// How many there are, and when the first is due.
pub(super) fn status(connection: &Connection) -> rusqlite::Result<(u64, Option<Timestamp>)> {
    let count: i64 = connection.query_row(COUNT, [], |row| row.get(0))?;
    Ok((count.unsigned_abs(), connection.query_row(NEXT_DUE, [], |row| value::time(row, 0)).optional()?))
}

/// An entry that is due.
struct Due {
    id: i64,
    position: i64,
    due: Timestamp,
    stream: StreamKey,
    entry: EntryId,
}

fn due(transaction: &Transaction<'_>, until: Timestamp, max: usize) -> rusqlite::Result<Vec<Due>> {
    let mut statement = transaction.prepare_cached(&DUE)?;
    let bounds = [until.as_millisecond(), i64::try_from(max).unwrap_or(i64::MAX)];
    let rows = statement.query_map(bounds, |row| {
        let [tenant, stream, uuid] = value::measured_fields(row, 3)?;
        let (id, position) = (row.get(0)?, value::number(row, 1)?);
        let (stream, entry) = (StreamKey::of_entry(position, &tenant, &stream), EntryId::of(position, &uuid));
        Ok(Due { id, position, due: value::time(row, 2)?, stream, entry })
    })?;
    rows.collect()
}

/// Brings back what is due, and commits that. What the table outbox refuses stays, and is tried again later.
pub(super) fn bring_back(
    transaction: Transaction<'_>,
    (due_by, until): (Timestamp, Timestamp),
    max: usize,
) -> rusqlite::Result<BroughtBack> {
    let times = TimeColumns::of(&transaction)?;
    // Without the column, the outbox would not say that an entry is not due yet.
    let until = if times.has(Column::PublishAfter) { until } else { until.min(due_by) };
    let (others, mut brought_back) = (others(&transaction)?, BroughtBack::default());
    for due in due(&transaction, until, max)? {
        transaction.execute_batch("SAVEPOINT bring_back")?;
        match bring_one_back(&transaction, &due, times, &others) {
            Err(error) if connection::is_refusal(&error) => {
                let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
                let again = params![due.id, due_by.as_millisecond().saturating_add(AGAIN_MS), reason];
                if transaction.is_autocommit() {
                    // A trigger has rolled back all of it. The others come with the next call.
                    transaction.execute(DEFER, again)?;
                    let refused = vec![(due.position, reason)];
                    return Ok(BroughtBack { entries: Vec::new(), refused, next: next(&transaction)? });
                }
                transaction.execute_batch("ROLLBACK TO bring_back")?;
                transaction.execute(DEFER, again)?;
                brought_back.refused.push((due.position, reason));
            }
            entry => brought_back.entries.extend(entry?.map(|entry| (due.stream, entry, due.due))),
        }
        transaction.execute_batch("RELEASE bring_back")?;
    }
    brought_back.next = next(&transaction)?;
    transaction.commit()?;
    Ok(brought_back)
}

/// Returns which entry it is now. None if it is in the outbox already: somebody has put it there.
fn bring_one_back(
    transaction: &Transaction<'_>,
    due: &Due,
    times: TimeColumns,
    others: &[String],
) -> rusqlite::Result<Option<EntryId>> {
    let place: i64 = transaction.prepare_cached(PLACE)?.query_row([due.id], |row| row.get(0))?;
    let mut entry = None;
    if place != ITS_OWN {
        let position = (place == NOBODYS).then_some(due.position);
        let position = DELAYED.put_back(transaction, due.id, position, times, others)?;
        entry = Some(EntryId { position, ..due.entry });
    }
    transaction.prepare_cached(GONE)?.execute([due.id])?;
    Ok(entry)
}
