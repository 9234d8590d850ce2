//! The columns that an application's own table `outbox` has beside ours. They are kept with a dead letter, and a retry
//! brings them back.

use outbox_engine::Column;
use rusqlite::{Connection, ToSql, Transaction, params};

use super::{table, value};

const REMOVE_DEAD_LETTER: &str = "DELETE FROM outbox_dead_letters WHERE id = ?1";
const REMOVE_COLUMNS: &str = "DELETE FROM outbox_dead_letter_columns WHERE dead_letter = ?1";
const NAMES: &str = "SELECT name FROM outbox_dead_letter_columns WHERE dead_letter = ?1 ORDER BY name";

/// Removes a dead letter, with its columns.
pub(super) fn remove(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    transaction.prepare_cached(REMOVE_COLUMNS)?.execute([id])?;
    transaction.prepare_cached(REMOVE_DEAD_LETTER)?.execute([id]).map(|_| ())
}

/// Keeps the application's columns of the entry at `position` with the dead letter `id`.
pub(super) fn keep(transaction: &Transaction<'_>, position: i64, id: i64) -> rusqlite::Result<()> {
    for name in table::other_columns(transaction)? {
        let sql = format!(
            "INSERT INTO outbox_dead_letter_columns SELECT ?2, ?3, {column} FROM outbox WHERE position = ?1",
            column = quoted(&name)
        );
        transaction.prepare_cached(&sql)?.execute(params![position, id, name])?;
    }
    Ok(())
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
    let kept = kept(transaction, id)?;
    let names: String = kept.iter().map(|name| format!(", {}", quoted(name))).collect();
    let values: String = (0..kept.len())
        .map(|index| {
            let value = "SELECT value FROM outbox_dead_letter_columns AS kept WHERE kept.dead_letter = dead.id";
            format!(", ({value} AND kept.name = ?{})", index + 3)
        })
        .collect();
    let sql = format!(
        "INSERT INTO outbox (position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                             content_type, context, data{names})
         SELECT ?2, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
                data{values}
         FROM outbox_dead_letters AS dead WHERE id = ?1"
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, id)?;
    statement.raw_bind_parameter(2, position)?;
    for (index, name) in kept.iter().enumerate() {
        statement.raw_bind_parameter(index + 3, name)?;
    }
    statement.raw_execute()?;
    Ok(position.unwrap_or_else(|| transaction.last_insert_rowid()))
}

/// The columns that are kept with a dead letter, and that the table still has.
fn kept(connection: &Connection, id: i64) -> rusqlite::Result<Vec<String>> {
    let there = table::other_columns(connection)?;
    let mut statement = connection.prepare_cached(NAMES)?;
    let names = statement.query_map([id], |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned)))?;
    // Skips what somebody else has written there and is no name.
    let names = names.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    Ok(names.filter(|name| there.contains(name)).collect())
}

/// A name quoted for SQL, whatever it contains.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
