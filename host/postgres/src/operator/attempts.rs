//! The records of the attempts to deliver an entry.

use outbox_engine::outbox::operator::AttemptRecord;
use uuid::Uuid;

use crate::error::Fault;
use crate::link::Link;
use crate::value;

const ATTEMPTS: &str = "
    SELECT attempt, at_ms, outcome, reason, digest, stderr, given_back, publisher, uuid
    FROM outbox_attempts WHERE position = $1 ORDER BY id";
const MOVE: &str = "
    UPDATE outbox_attempts made SET position = $2 FROM outbox_dead_letters dead
    WHERE dead.id = $1 AND made.position = dead.position AND made.uuid = dead.uuid";
const FORGET: &str = "
    DELETE FROM outbox_attempts made USING outbox_dead_letters dead
    WHERE dead.id = $1 AND made.position = dead.position AND made.uuid = dead.uuid";

/// Moves the attempts of this dead letter to another position.
pub(super) fn move_to(link: &mut Link, dead: i64, position: i64) -> Result<(), Fault> {
    link.execute(MOVE, &[&dead, &position]).map(|_| ())
}

/// Deletes the attempts of this dead letter.
pub(super) fn forget(link: &mut Link, dead: i64) -> Result<(), Fault> {
    link.execute(FORGET, &[&dead]).map(|_| ())
}

pub(super) fn attempts(link: &mut Link, position: i64) -> Result<Vec<AttemptRecord>, Fault> {
    let mut attempts = Vec::new();
    for row in link.query(ATTEMPTS, &[&position])? {
        attempts.push(AttemptRecord {
            uuid: row.try_get::<_, Uuid>(8)?.to_string(),
            attempt: value::count(&row, 0)?,
            at: value::at(&row, 1)?,
            outcome: row.try_get(2)?,
            reason: row.try_get(3)?,
            digest: row.try_get(4)?,
            stderr: row.try_get(5)?,
            given_back: row.try_get(6)?,
            publisher: row.try_get(7)?,
        });
    }
    Ok(attempts)
}
