//! Settling entries: each change of an entry's state is one guarded statement.

use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::outbox::{Failed, Fate, Settled};
use outbox_engine::{Attempt, Column, EntryId, Outcome};
use rusqlite::{ErrorCode, OptionalExtension, Row, Transaction, params};

use super::delayed::PutOff;
use super::{dead_columns, identity, names, page, value};

/// This statement has no condition on the uuid: with one, SQLite would keep a copy of each page that it changes.
const DELIVERED: &str = "DELETE FROM outbox WHERE position BETWEEN ?1 AND ?2";
/// The rows of a run of entries.
const RUN: &str = "SELECT position, uuid FROM outbox WHERE position BETWEEN ?1 AND ?2 ORDER BY position";
/// The same, measured, for uuids that may be too long to be read.
static MEASURED_RUN: LazyLock<String> = LazyLock::new(|| {
    let uuid = value::measured(&[Column::Uuid], Column::bytes_max);
    format!("SELECT position, {uuid} FROM outbox WHERE position BETWEEN ?1 AND ?2 ORDER BY position")
});
const STILL_THERE: &str = "SELECT position FROM outbox WHERE position BETWEEN ?1 AND ?2 LIMIT 1";
static NO_LONGER_WAITING: LazyLock<String> =
    LazyLock::new(|| format!("DELETE FROM outbox_waiting WHERE {}", identity::is_it()));
static FORGET_ATTEMPTS: LazyLock<String> =
    LazyLock::new(|| format!("DELETE FROM outbox_attempts WHERE {}", identity::is_it()));
static IS_THERE: LazyLock<String> = LazyLock::new(|| format!("SELECT 1 FROM outbox WHERE {}", identity::is_it()));

const RECORD_ATTEMPT: &str = "
    INSERT INTO outbox_attempts (position, uuid, attempt, at_ms, outcome, reason, digest, stderr, publisher)
    SELECT position, uuid, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM outbox WHERE position = ?1";

const WAIT: &str = "
    INSERT INTO outbox_waiting (position, uuid, tenant_id, stream_id, attempts, host_deaths, failed_at_ms, retry_at_ms,
                                reason, delivered_to, undeletable)
    SELECT position, uuid, tenant_id, stream_id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM outbox WHERE position = ?1
    ON CONFLICT (position) DO UPDATE SET uuid = excluded.uuid, tenant_id = excluded.tenant_id,
                                         stream_id = excluded.stream_id, attempts = excluded.attempts,
                                         host_deaths = excluded.host_deaths, failed_at_ms = excluded.failed_at_ms,
                                         retry_at_ms = excluded.retry_at_ms, reason = excluded.reason,
                                         delivered_to = excluded.delivered_to, undeletable = excluded.undeletable";

const BURY: &str = "
    INSERT INTO outbox_dead_letters (position, tenant_id, stream_id, stream_name, category, uuid, name, version,
                                     created_at, content_type, context, data, attempts, outcome, reason, died_at_ms,
                                     parks_stream, delivered_to)
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           data, ?2, ?3, ?4, ?5, ?6, ?7
    FROM outbox WHERE position = ?1";

/// Settles entries, and returns how many of them were there.
pub(super) fn settle(transaction: &Transaction<'_>, settled: &[Settled]) -> rusqlite::Result<usize> {
    let mut gone: Vec<EntryId> = Vec::with_capacity(settled.len());
    let (mut found, mut put_off) = (0, None);
    for entry in settled {
        match entry {
            Settled::Delivered { entry, tried_before } => {
                gone.push(*entry);
                if *tried_before {
                    forget(transaction, *entry)?;
                }
            }
            Settled::Failed(failed) => found += settle_failed(transaction, failed)?,
            Settled::Undeletable { entry, at, reason } => found += keep(transaction, *entry, *at, reason)?,
            Settled::PutOff { entry, until } => {
                let put_off = match &mut put_off {
                    Some(put_off) => put_off,
                    none => none.insert(PutOff::new(transaction)?),
                };
                if put_off.copy(*entry, *until)? {
                    gone.push(*entry);
                }
            }
            Settled::Vanished { entry } => {
                forget(transaction, *entry)?;
                found += 1;
            }
        }
    }
    gone.sort_unstable();
    for run in gone.chunk_by(|a, b| a.position.checked_add(1) == Some(b.position)) {
        found += delete(transaction, run)?;
    }
    Ok(found)
}

/// Deletes entries with consecutive positions, and returns how many were there. If another entry has such a position
/// now, it stays.
fn delete(transaction: &Transaction<'_>, run: &[EntryId]) -> rusqlite::Result<usize> {
    let there = match there(transaction, run) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => measured_there(transaction, run)?,
        there => there?,
    };
    for run in there.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            delete_all(transaction, *first, *last, run.len())?;
        }
    }
    Ok(there.len())
}

/// The positions of the entries of a run that are there.
fn there(transaction: &Transaction<'_>, run: &[EntryId]) -> rusqlite::Result<Vec<i64>> {
    let _bound = page::LengthBound::new(transaction, Column::Uuid.bytes_max())?;
    matching(transaction, RUN, run, |row| Ok(EntryId::of(row.get(0)?, &value::field(row.get_ref(1)?))))
}

fn measured_there(transaction: &Transaction<'_>, run: &[EntryId]) -> rusqlite::Result<Vec<i64>> {
    matching(transaction, &MEASURED_RUN, run, |row| {
        let [uuid] = value::measured_fields(row, 1)?;
        Ok(EntryId::of(row.get(0)?, &uuid))
    })
}

fn matching(
    transaction: &Transaction<'_>,
    sql: &str,
    run: &[EntryId],
    entry: impl Fn(&Row<'_>) -> rusqlite::Result<EntryId>,
) -> rusqlite::Result<Vec<i64>> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Vec::new()) };
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([first.position, last.position])?;
    let (mut there, mut expected) = (Vec::with_capacity(run.len()), run.iter());
    while let Some(row) = rows.next()? {
        let found = entry(row)?;
        if expected.find(|entry| entry.position == found.position) == Some(&found) {
            there.push(found.position);
        }
    }
    Ok(there)
}

/// Deletes the rows at these positions, which are this many entries.
fn delete_all(transaction: &Transaction<'_>, first: i64, last: i64, entries: usize) -> rusqlite::Result<()> {
    if transaction.prepare_cached(DELIVERED)?.execute([first, last])? < entries {
        let kept: Option<i64> =
            transaction.prepare_cached(STILL_THERE)?.query_row([first, last], |row| row.get(0)).optional()?;
        if let Some(position) = kept {
            return Err(refused(format!("a trigger on the table outbox keeps the entry at position {position}")));
        }
    }
    Ok(())
}

fn refused(reason: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER), Some(reason))
}

/// Deletes the records of an entry's attempts.
fn forget(transaction: &Transaction<'_>, entry: EntryId) -> rusqlite::Result<()> {
    let which = params![entry.position, identity::hash(entry)];
    transaction.prepare_cached(&NO_LONGER_WAITING)?.execute(which)?;
    transaction.prepare_cached(&FORGET_ATTEMPTS)?.execute(which).map(|_| ())
}

fn is_there(transaction: &Transaction<'_>, entry: EntryId) -> rusqlite::Result<bool> {
    let which = params![entry.position, identity::hash(entry)];
    transaction.prepare_cached(&IS_THERE)?.exists(which)
}

/// Records that an entry was delivered, but cannot be removed: it stays.
fn keep(transaction: &Transaction<'_>, entry: EntryId, at: Timestamp, reason: &str) -> rusqlite::Result<usize> {
    let at_ms = at.as_millisecond();
    let wait = params![entry.position, 0, 0, at_ms, at_ms, reason, None::<String>, true];
    if is_there(transaction, entry)? { transaction.prepare_cached(WAIT)?.execute(wait) } else { Ok(0) }
}

fn settle_failed(transaction: &Transaction<'_>, failed: &Failed) -> rusqlite::Result<usize> {
    let (entry, attempts, outcome) = (failed.entry, failed.history.attempts, failed.attempt.outcome.name());
    let position = entry.position;
    if !is_there(transaction, entry)? {
        return Ok(0);
    }
    let reason = failed.attempt.outcome.reason();
    let at_ms = failed.at.as_millisecond();
    for Attempt { outcome, publisher, digest, stderr, .. } in std::iter::once(&failed.attempt).chain(&failed.others) {
        // It used up no attempt, and may be reported again and again.
        if matches!(outcome, Outcome::Unavailable { .. }) {
            continue;
        }
        let (outcome, reason, digest, publisher) =
            (outcome.name(), outcome.reason(), digest.as_deref(), publisher.as_deref());
        let record = params![position, attempts, at_ms, outcome, reason, digest, stderr, publisher];
        transaction.prepare_cached(RECORD_ATTEMPT)?.execute(record)?;
    }
    let delivered_to = names::to_json(&failed.delivered_to);
    match failed.fate {
        Fate::Retry { at } => {
            let (deaths, retry_at_ms) = (failed.history.host_deaths, value::up_to_a_millisecond(at));
            let wait = params![position, attempts, deaths, at_ms, retry_at_ms, reason, delivered_to, false];
            transaction.prepare_cached(WAIT)?.execute(wait)
        }
        Fate::DeadLetter { park } => {
            let which = params![position, identity::hash(entry)];
            let bury = params![position, attempts, outcome, reason, at_ms, park, delivered_to];
            transaction.prepare_cached(BURY)?.execute(bury)?;
            dead_columns::keep(transaction, position, transaction.last_insert_rowid())?;
            transaction.prepare_cached(&NO_LONGER_WAITING)?.execute(which)?;
            delete(transaction, &[entry])
        }
    }
}
