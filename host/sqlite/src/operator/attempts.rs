//! The records of the attempts to deliver an entry.

use std::sync::LazyLock;

use outbox_engine::outbox::operator::AttemptRecord;
use outbox_engine::{Column, Row as Columns};
use rusqlite::{Connection, Transaction};

use crate::value::{self, bounded, measured};

static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    let [outcome, reason, digest, stderr, publisher] =
        ["outcome", "reason", "digest", "stderr", "publisher"].map(bounded);
    let uuid = measured(&[Column::Uuid], Column::bytes_max);
    format!(
        "SELECT attempt, at_ms, {outcome}, {reason}, {digest}, {stderr}, given_back IS TRUE, {publisher}, {uuid}
         FROM outbox_attempts WHERE position = ?1 ORDER BY id"
    )
});

const MOVE: &str = "
    UPDATE outbox_attempts SET position = ?2 WHERE id IN (
      SELECT made.id FROM outbox_attempts AS made
      JOIN outbox_dead_letters AS dead ON made.position = dead.position AND made.uuid IS dead.uuid WHERE dead.id = ?1)";
const FORGET: &str = "
    DELETE FROM outbox_attempts WHERE id IN (
      SELECT made.id FROM outbox_attempts AS made
      JOIN outbox_dead_letters AS dead ON made.position = dead.position AND made.uuid IS dead.uuid WHERE dead.id = ?1)";

/// Moves the attempts of this dead letter to another position.
pub(super) fn move_to(transaction: &Transaction<'_>, dead: i64, position: i64) -> rusqlite::Result<()> {
    transaction.prepare_cached(MOVE)?.execute([dead, position]).map(|_| ())
}

/// Deletes the attempts of this dead letter.
pub(super) fn forget(transaction: &Transaction<'_>, dead: i64) -> rusqlite::Result<()> {
    transaction.prepare_cached(FORGET)?.execute([dead]).map(|_| ())
}

pub(super) fn attempts(connection: &Connection, position: i64) -> rusqlite::Result<Vec<AttemptRecord>> {
    let mut statement = connection.prepare_cached(&ATTEMPTS)?;
    let rows = statement.query_map([position], |row| {
        let [uuid] = value::measured_fields(row, 8)?;
        Ok(AttemptRecord {
            uuid: Columns { uuid, ..Columns::default() }.shown(Column::Uuid).unwrap_or_default(),
            attempt: value::count(row, 0)?,
            at: value::time(row, 1)?,
            outcome: value::text(row, 2)?,
            reason: value::text(row, 3)?,
            digest: value::optional_text(row, 4)?,
            stderr: value::text(row, 5)?,
            given_back: row.get(6)?,
            publisher: value::optional_text(row, 7)?,
        })
    })?;
    rows.collect()
}
