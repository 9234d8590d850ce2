//! The columns that not every table `outbox` has, the application's own among them. They are kept with a dead letter, and a
//! retry brings them back.

use outbox_engine::Column;
use rusqlite::{ToSql, Transaction, params};

use super::kept::Kept;
use super::times::TimeColumns;
use super::{table, value};

const REMOVE_DEAD_LETTER: &str = "DELETE FROM outbox_dead_letters WHERE id = ?1";
const REMOVE_COLUMNS: &str = "DELETE FROM outbox_dead_letter_columns WHERE dead_letter = ?1";
const DEAD: Kept = Kept { rows: "outbox_dead_letters", columns: "outbox_dead_letter_columns", key: "dead_letter" };

/// Removes a dead letter, with its columns.
pub(super) fn remove(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    transaction.prepare_cached(REMOVE_COLUMNS)?.execute([id])?;
    transaction.prepare_cached(REMOVE_DEAD_LETTER)?.execute([id]).map(|_| ())
}

/// Keeps the columns of the entry at `position` that not every table has with the dead letter `id`.
pub(super) fn keep(transaction: &Transaction<'_>, position: i64, id: i64) -> rusqlite::Result<()> {
    DEAD.keep(transaction, &table::other_columns(transaction)?, position, id)
}

/// What is kept of a dead letter's column, for a SELECT from `outbox_dead_letters`.
fn kept_value(name: &str) -> String {
    format!(
        "(SELECT value FROM outbox_dead_letter_columns
          WHERE dead_letter = outbox_dead_letters.id AND name = '{name}' COLLATE NOCASE)"
    )
}

/// The columns of [`Column::TIMES`] for a SELECT from `outbox_dead_letters`, as [`value::measured`] does it.
pub(super) fn measured_times() -> String {
    Column::TIMES.map(|column| value::measured_as(&kept_value(column.name()), column.bytes_max())).join(", ")
}

/// The value that is kept of a column of a dead letter, as it is shown. None if there is none.
pub(super) fn shown(transaction: &Transaction<'_>, id: i64, column: Column) -> rusqlite::Result<Option<String>> {
    let value = value::measured_as(&kept_value(column.name()), column.bytes_max());
    transaction.query_row(&format!("SELECT {value} FROM outbox_dead_letters WHERE id = ?1"), [id], |row| {
        let [value] = value::measured_fields(row, 0)?;
        Ok(value.shown())
    })
}

/// Replaces the value that is kept of a column.
pub(super) fn replace(
    transaction: &Transaction<'_>,
    id: i64,
    column: Column,
    value: impl ToSql,
) -> rusqlite::Result<()> {
    let there = table::names_of(transaction)?;
    let Some(name) = there.iter().find(|name| name.eq_ignore_ascii_case(column.name())) else { return Ok(()) };
    let sql = "INSERT OR REPLACE INTO outbox_dead_letter_columns (dead_letter, name, value) VALUES (?1, ?2, ?3)";
    transaction.execute(sql, params![id, name, value]).map(|_| ())
}

/// Puts the dead letter `id` back into the outbox, at `position`, or at the next position if that is None. Returns its
/// position.
pub(super) fn put_back(transaction: &Transaction<'_>, id: i64, position: Option<i64>) -> rusqlite::Result<i64> {
    // Its times are among the columns that are kept beside it.
    DEAD.put_back(transaction, id, position, TimeColumns::default(), &table::other_columns(transaction)?)
}
