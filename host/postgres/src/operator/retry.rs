//! Puts dead letters back into the outbox.

use outbox_engine::EXPIRED;
use outbox_engine::outbox::operator::{Act, Retried, Selection};

use super::attempts;
use super::audit::audit;
use super::dead_letters::{self, DeadId, selected_ids};
use crate::error::Fault;
use crate::link::Link;
use crate::page;
use crate::value;

/// An operator who retries what expired wants it delivered all the same.
const EXPIRED_AT: &str =
    "SELECT expires_at FROM outbox_dead_letters WHERE id = $1 AND outcome = $2 AND expires_at IS NOT NULL";
const PUT_BACK: &str = "
    INSERT INTO outbox (position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type,
                        context, publish_after, expires_at, data, data_bytes)
    OVERRIDING SYSTEM VALUE
    SELECT coalesce($2, nextval('outbox_position_seq')), tenant_id, stream_id, stream_name, category, uuid, name, version,
           created_at, content_type, context, publish_after, CASE WHEN outcome <> $3 THEN expires_at END, data, data_bytes
    FROM outbox_dead_letters WHERE id = $1 RETURNING position, share";
/// The entry is due at once, and keeps the records of its attempts.
const WAIT_FOR_NOTHING: &str = "
    INSERT INTO outbox_waiting (share, position, uuid, tenant_id, stream_id, attempts, host_deaths, failed_at_ms,
                                retry_at_ms, reason, delivered_to)
    SELECT $4, $3, uuid, tenant_id, stream_id, 0, 0, $2, $2, 'retried by hand', delivered_to
    FROM outbox_dead_letters WHERE id = $1
    ON CONFLICT (position, share) DO UPDATE
    SET uuid = excluded.uuid, tenant_id = excluded.tenant_id, stream_id = excluded.stream_id, attempts = 0, host_deaths = 0,
        failed_at_ms = excluded.failed_at_ms, retry_at_ms = excluded.retry_at_ms, reason = excluded.reason,
        delivered_to = excluded.delivered_to, undeletable = false";

/// Puts each dead letter back. If the application's table refuses one, it stays, and the others are put back all the same.
pub(super) fn retry_each(link: &mut Link, selection: &Selection, by: &Act) -> Result<Retried, Fault> {
    let mut retried = Retried::default();
    for dead in selected_ids(link, selection)? {
        link.script("SAVEPOINT retry")?;
        match retry(link, dead, by) {
            Err(fault) if fault.is_constraint() => {
                link.script("ROLLBACK TO retry")?;
                retried.refused.get_or_insert((dead.position, fault.text()));
            }
            result => retried.positions.extend(result?),
        }
        link.script("RELEASE retry")?;
    }
    Ok(retried)
}

/// Puts one back. Returns its position, or None if somebody has put it back by hand.
fn retry(link: &mut Link, dead: DeadId, by: &Act) -> Result<Option<i64>, Fault> {
    let DeadId { id, position } = dead;
    let there = page::find(link, &[position])?;
    let own = link.first("SELECT uuid FROM outbox_dead_letters WHERE id = $1", &[&id])?;
    let own: Option<uuid::Uuid> = own.map_or(Ok(None), |row| row.try_get(0))?;
    if there.iter().any(|(_, _, uuid)| Some(*uuid) == own) {
        return Ok(None);
    }
    let expired = link.first(EXPIRED_AT, &[&id, &EXPIRED])?;
    let expired_at = expired.map(|row| value::time(&row, 0)).transpose()?.and_then(|time| time.shown());
    let place = there.is_empty().then_some(position);
    let Some(row) = link.first(PUT_BACK, &[&id, &place, &EXPIRED])? else { return Ok(None) };
    let (put_back, share): (i64, i16) = (row.try_get(0)?, row.try_get(1)?);
    let detail = Retried::detail(position, put_back, expired_at);
    audit(link, dead, "retry", &detail, by)?;
    link.execute(WAIT_FOR_NOTHING, &[&id, &by.at.as_millisecond(), &put_back, &share])?;
    if put_back != position {
        attempts::move_to(link, id, put_back)?;
    }
    dead_letters::remove(link, id)?;
    Ok(Some(put_back))
}
