//! Removes old records.

use jiff::Timestamp;
use outbox_engine::outbox::operator::{Act, Pruned, Retention};

use super::{attempts, audit, dead_letters};
use crate::error::Fault;
use crate::link::Link;

/// What counts as old. A dead letter that parks its stream stays, since pruning it would release the stream without an
/// operator's act. A dead letter's attempts are pruned with it; the attempts of an entry that is still there are pruned
/// by their own age.
const OLD_DEAD_LETTERS: &str = "FROM outbox_dead_letters WHERE died_at_ms < $1 AND NOT parks_stream";
const OLD_ATTEMPTS: &str = "FROM outbox_attempts AS made WHERE at_ms < $1 AND NOT EXISTS (
       SELECT 1 FROM outbox_dead_letters AS dead WHERE dead.position = made.position AND dead.uuid = made.uuid)";
const OLD_AUDIT: &str = "FROM outbox_audit WHERE at_ms < $1";

/// The time before which a record is old. None if records never get old.
fn cutoff(keep: Option<std::time::Duration>, now: Timestamp) -> Option<i64> {
    let keep_ms = i64::try_from(keep?.as_millis()).unwrap_or(i64::MAX);
    Some(now.as_millisecond().saturating_sub(keep_ms))
}

pub(super) fn prunable(link: &mut Link, retention: &Retention, now: Timestamp) -> Result<Pruned, Fault> {
    let mut count = |keep, old: &str| -> Result<u64, Fault> {
        let Some(before) = cutoff(keep, now) else { return Ok(0) };
        let row = link.first(&format!("SELECT count(*) {old}"), &[&before])?;
        Ok(row.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?.unsigned_abs())
    };
    Ok(Pruned {
        dead_letters: count(retention.dead_letters, OLD_DEAD_LETTERS)?,
        attempts: count(retention.attempts, OLD_ATTEMPTS)?,
        audit: count(retention.audit, OLD_AUDIT)?,
    })
}

pub(super) fn prune(link: &mut Link, retention: &Retention, by: &Act, limit: usize) -> Result<Pruned, Fault> {
    link.transaction(|link| {
        let mut pruned = Pruned::default();
        if let Some(before) = cutoff(retention.dead_letters, by.at) {
            for id in old_ones(link, OLD_DEAD_LETTERS, before, limit)? {
                attempts::forget(link, id)?;
                dead_letters::remove(link, id)?;
                pruned.dead_letters += 1;
            }
        }
        if let Some(before) = cutoff(retention.attempts, by.at) {
            let old = old_ones(link, OLD_ATTEMPTS, before, limit)?;
            pruned.attempts += link.execute("DELETE FROM outbox_attempts WHERE id = ANY ($1)", &[&old])?;
        }
        if let Some(before) = cutoff(retention.audit, by.at) {
            let old = old_ones(link, OLD_AUDIT, before, limit)?;
            pruned.audit += link.execute("DELETE FROM outbox_audit WHERE id = ANY ($1)", &[&old])?;
        }
        if pruned.dead_letters > 0 {
            audit::record(link, "prune", &format!("{} dead letters", pruned.dead_letters), by)?;
        }
        Ok(pruned)
    })
}

fn old_ones(link: &mut Link, old: &str, before: i64, limit: usize) -> Result<Vec<i64>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut ids = Vec::new();
    for row in link.query(&format!("SELECT id {old} LIMIT $2"), &[&before, &limit])? {
        ids.push(row.try_get(0)?);
    }
    Ok(ids)
}
