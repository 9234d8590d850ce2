//! Puts dead letters back into the outbox.

use outbox_engine::outbox::operator::{Act, Retried, Selection};
use outbox_engine::{Column, EXPIRED};
use rusqlite::types::Null;
use rusqlite::{ErrorCode, Transaction, params};

use super::attempts;
use super::audit::audit;
use super::dead_letters::{DeadId, selected_ids};
use crate::dead_columns;

/// Who has the place of a dead letter now.
const NOBODYS: i64 = 0;
const ITS_OWN: i64 = 1;
const PLACE: &str = "
    SELECT coalesce(max(1 + (outbox.uuid IS NOT dead.uuid)), 0)
    FROM outbox_dead_letters AS dead JOIN outbox ON outbox.position = dead.position WHERE dead.id = ?1";
/// The entry is due at once, and keeps the records of its attempts.
const WAIT_FOR_NOTHING: &str = "
    INSERT OR REPLACE INTO outbox_waiting (position, uuid, tenant_id, stream_id, attempts, host_deaths, failed_at_ms,
                                           retry_at_ms, reason, delivered_to)
    SELECT ?3, uuid, tenant_id, stream_id, 0, 0, ?2, ?2, 'retried by hand', delivered_to
    FROM outbox_dead_letters WHERE id = ?1";

/// Puts each dead letter back. If the application's table refuses one, it stays, and the others are put back all the
/// same.
pub(super) fn retry_each(transaction: &Transaction<'_>, selection: &Selection, by: &Act) -> rusqlite::Result<Retried> {
    let mut retried = Retried::default();
    for dead in selected_ids(transaction, selection)? {
        transaction.execute_batch("SAVEPOINT retry")?;
        match retry(transaction, dead, by) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                transaction.execute_batch("ROLLBACK TO retry")?;
                retried.refused.get_or_insert((dead.position, error.to_string()));
            }
            result => retried.positions.extend(result?),
        }
        transaction.execute_batch("RELEASE retry")?;
    }
    Ok(retried)
}

/// When a dead letter expired. None if it did not die of that.
fn expired_at(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<String>> {
    let expired = transaction
        .prepare_cached("SELECT 1 FROM outbox_dead_letters WHERE id = ?1 AND outcome = ?2")?
        .exists(params![id, EXPIRED])?;
    if expired { dead_columns::shown(transaction, id, Column::ExpiresAt) } else { Ok(None) }
}

/// Puts one back. Returns its position, or None if somebody has put it back by hand.
fn retry(transaction: &Transaction<'_>, dead: DeadId, by: &Act) -> rusqlite::Result<Option<i64>> {
    let DeadId { id, position } = dead;
    let place: i64 = transaction.prepare_cached(PLACE)?.query_row([id], |row| row.get(0))?;
    if place == ITS_OWN {
        return Ok(None);
    }
    // An operator who retries it wants it delivered all the same.
    let expired_at = expired_at(transaction, id)?;
    if expired_at.is_some() {
        dead_columns::replace(transaction, id, Column::ExpiresAt, Null)?;
    }
    let put_back = dead_columns::put_back(transaction, id, (place == NOBODYS).then_some(position))?;
    let detail = Retried::detail(position, put_back, expired_at);
    audit(transaction, dead, "retry", &detail, by)?;
    transaction.prepare_cached(WAIT_FOR_NOTHING)?.execute(params![id, by.at.as_millisecond(), put_back])?;
    if put_back != position {
        attempts::move_to(transaction, id, put_back)?;
    }
    dead_columns::remove(transaction, id)?;
    Ok(Some(put_back))
}
