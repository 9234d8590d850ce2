//! Removes old records.

use jiff::Timestamp;
use outbox_engine::outbox::operator::{Act, Pruned, Retention};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::attempts;
use crate::dead_columns;

const AUDIT_PRUNE: &str = "INSERT INTO outbox_audit (at_ms, who, act, detail) VALUES (?1, ?2, 'prune', ?3)";

/// What counts as old. A dead letter that parks its stream stays, since pruning it would release the stream without an
/// operator's act. A dead letter's attempts are pruned with it; the attempts of an entry that is still there are pruned
/// by their own age.
const OLD_DEAD_LETTERS: &str = "FROM outbox_dead_letters WHERE died_at_ms < ?1 AND NOT parks_stream";
const OLD_ATTEMPTS: &str = "FROM outbox_attempts AS made WHERE at_ms < ?1 AND NOT EXISTS (
       SELECT 1 FROM outbox_dead_letters AS dead WHERE dead.position = made.position AND dead.uuid IS made.uuid)";
const OLD_AUDIT: &str = "FROM outbox_audit WHERE at_ms < ?1";

/// The time before which a record is old. None if records never get old.
fn cutoff(keep: Option<std::time::Duration>, now: Timestamp) -> Option<i64> {
    let keep_ms = i64::try_from(keep?.as_millis()).unwrap_or(i64::MAX);
    Some(now.as_millisecond().saturating_sub(keep_ms))
}

pub(super) fn prunable(connection: &Connection, retention: &Retention, now: Timestamp) -> rusqlite::Result<Pruned> {
    let count = |keep, old: &str| match cutoff(keep, now) {
        Some(before) => connection
            .query_row(&format!("SELECT count(*) {old}"), [before], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs),
        None => Ok(0),
    };
    Ok(Pruned {
        dead_letters: count(retention.dead_letters, OLD_DEAD_LETTERS)?,
        attempts: count(retention.attempts, OLD_ATTEMPTS)?,
        audit: count(retention.audit, OLD_AUDIT)?,
    })
}

pub(super) fn prune(
    connection: &mut Connection,
    retention: &Retention,
    by: &Act,
    limit: usize,
) -> rusqlite::Result<Pruned> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut pruned = Pruned::default();
    if let Some(before) = cutoff(retention.dead_letters, by.at) {
        for id in old_ones(&transaction, OLD_DEAD_LETTERS, before, limit)? {
            attempts::forget(&transaction, id)?;
            dead_columns::remove(&transaction, id)?;
            pruned.dead_letters += 1;
        }
    }
    if let Some(before) = cutoff(retention.attempts, by.at) {
        for id in old_ones(&transaction, OLD_ATTEMPTS, before, limit)? {
            pruned.attempts +=
                transaction.prepare_cached("DELETE FROM outbox_attempts WHERE id = ?1")?.execute([id])? as u64;
        }
    }
    if let Some(before) = cutoff(retention.audit, by.at) {
        for id in old_ones(&transaction, OLD_AUDIT, before, limit)? {
            pruned.audit += transaction.prepare_cached("DELETE FROM outbox_audit WHERE id = ?1")?.execute([id])? as u64;
        }
    }
    if pruned.dead_letters > 0 {
        let detail = format!("{} dead letters", pruned.dead_letters);
        transaction.execute(AUDIT_PRUNE, params![by.at.as_millisecond(), by.who, detail])?;
    }
    transaction.commit()?;
    Ok(pruned)
}

fn old_ones(transaction: &Transaction<'_>, old: &str, before: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    let sql = format!("SELECT id {old} LIMIT ?2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    transaction.prepare_cached(&sql)?.query_map([before, limit], |row| row.get(0))?.collect()
}
