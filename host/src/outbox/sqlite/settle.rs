//! Settling entries: each change of an entry's state is one guarded statement.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::names;
use crate::outbox::{Failed, Fate, Settled};
use crate::publisher::{Attempt, Outcome};

const DELIVERED: &str = "DELETE FROM outbox WHERE position BETWEEN ?1 AND ?2";
const NO_LONGER_WAITING: &str = "DELETE FROM outbox_waiting WHERE position = ?1";
const FORGET_ATTEMPTS: &str = "DELETE FROM outbox_attempts WHERE position = ?1";

const RECORD_ATTEMPT: &str = "
    INSERT INTO outbox_attempts (position, attempt, at_ms, outcome, reason, digest, stderr, publisher)
    SELECT position, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM outbox WHERE position = ?1";

const WAIT: &str = "
    INSERT INTO outbox_waiting (position, tenant_id, stream_id, attempts, host_deaths, failed_at_ms, retry_at_ms, reason,
                                delivered_to)
    SELECT position, tenant_id, stream_id, ?2, ?3, ?4, ?5, ?6, ?7 FROM outbox WHERE position = ?1
    ON CONFLICT (position) DO UPDATE SET attempts = excluded.attempts, host_deaths = excluded.host_deaths,
                                         failed_at_ms = excluded.failed_at_ms,
                                         retry_at_ms = excluded.retry_at_ms, reason = excluded.reason,
                                         delivered_to = excluded.delivered_to";

const BURY: &str = "
    INSERT INTO outbox_dead_letters (position, tenant_id, stream_id, stream_name, category, uuid, name, version,
                                     created_at, content_type, context, data, attempts, outcome, reason, died_at_ms,
                                     parks_stream, delivered_to)
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           data, ?2, ?3, ?4, ?5, ?6, ?7
    FROM outbox WHERE position = ?1";

/// Settles all of them, and returns how long the write lock was held.
pub(super) fn settle(connection: &mut Connection, settled: &[Settled]) -> rusqlite::Result<Duration> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let held_since = Instant::now();
    let mut delivered: Vec<i64> = Vec::with_capacity(settled.len());
    for entry in settled {
        match entry {
            Settled::Delivered { position, tried_before } => {
                delivered.push(*position);
                if *tried_before {
                    transaction.prepare_cached(NO_LONGER_WAITING)?.execute([position])?;
                    transaction.prepare_cached(FORGET_ATTEMPTS)?.execute([position])?;
                }
            }
            Settled::Failed(failed) => settle_failed(&transaction, failed)?,
        }
    }
    delivered.sort_unstable();
    let mut delete = transaction.prepare_cached(DELIVERED)?;
    for run in delivered.chunk_by(|a, b| *b <= a.saturating_add(1)) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            delete.execute([first, last])?;
        }
    }
    drop(delete);
    transaction.commit()?;
    Ok(held_since.elapsed())
}

fn settle_failed(transaction: &Transaction<'_>, failed: &Failed) -> rusqlite::Result<()> {
    let (position, attempts, outcome) = (failed.position, failed.history.attempts, failed.attempt.outcome.name());
    let reason = failed.attempt.outcome.reason();
    let at_ms = failed.at.as_millisecond();
    for Attempt { outcome, publisher, digest, stderr, .. } in std::iter::once(&failed.attempt).chain(&failed.others) {
        // It used up no attempt, and may be told again and again.
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
            let (deaths, retry_at_ms) = (failed.history.host_deaths, up_to_a_millisecond(at));
            let wait = params![position, attempts, deaths, at_ms, retry_at_ms, reason, delivered_to];
            transaction.prepare_cached(WAIT)?.execute(wait)?;
        }
        Fate::DeadLetter { park } => {
            let bury = params![position, attempts, outcome, reason, at_ms, park, delivered_to];
            transaction.prepare_cached(BURY)?.execute(bury)?;
            transaction.prepare_cached(DELIVERED)?.execute([position, position])?;
            transaction.prepare_cached(NO_LONGER_WAITING)?.execute([position])?;
        }
    }
    Ok(())
}

/// Never earlier than it was said to be.
fn up_to_a_millisecond(at: Timestamp) -> i64 {
    at.as_millisecond().saturating_add(i64::from(at.subsec_nanosecond() % 1_000_000 != 0))
}
