//! Changes values of a dead letter.

use outbox_engine::outbox::operator::Act;
use outbox_engine::{Column, Field};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Transaction, params};

use super::audit::audit;
use super::dead_letters::DeadId;
use crate::dead_columns;
use crate::value::{self, measured};

pub(super) fn mend(
    transaction: &Transaction<'_>,
    dead: DeadId,
    changes: &[(Column, Field<'_>)],
    by: &Act,
) -> rusqlite::Result<()> {
    for (column, new) in changes {
        // The old value is recorded: an edit must not lose what the application wrote.
        let name = column.name();
        if Column::TIMES.contains(column) {
            mend_time(transaction, dead, *column, new, by)?;
            continue;
        }
        let sql = measured(&[*column], Column::bytes_max);
        let sql = format!("SELECT {sql} FROM outbox_dead_letters WHERE id = ?1");
        let old = transaction.query_row(&sql, [dead.id], |row| {
            let [old] = value::measured_fields(row, 0)?;
            Ok((old != *new).then(|| old.shown().unwrap_or_default()))
        })?;
        if let Some(old) = old {
            audit(transaction, dead, "edit", &format!("{name} was: {old}"), by)?;
        }
        if *column == Column::Uuid {
            // The records of its attempts stay with it.
            let of_attempts = "UPDATE outbox_attempts SET uuid = ?2 WHERE position = ?3
                               AND uuid IS (SELECT uuid FROM outbox_dead_letters WHERE id = ?1)";
            let new = ToSqlOutput::Borrowed(stored(new));
            transaction.execute(of_attempts, params![dead.id, new, dead.position])?;
        }
        let update = format!("UPDATE outbox_dead_letters SET {name} = ?2 WHERE id = ?1");
        transaction.execute(&update, params![dead.id, ToSqlOutput::Borrowed(stored(new))])?;
    }
    Ok(())
}

/// Changes a column that is kept beside the dead letter.
fn mend_time(
    transaction: &Transaction<'_>,
    dead: DeadId,
    column: Column,
    new: &Field<'_>,
    by: &Act,
) -> rusqlite::Result<()> {
    let old = dead_columns::shown(transaction, dead.id, column)?;
    if old != new.shown() {
        let detail = format!("{} was: {}", column.name(), old.unwrap_or_default());
        audit(transaction, dead, "edit", &detail, by)?;
    }
    dead_columns::replace(transaction, dead.id, column, ToSqlOutput::Borrowed(stored(new)))
}

fn stored<'f>(field: &'f Field<'_>) -> ValueRef<'f> {
    match field {
        // A value that was only measured is never written.
        Field::Null | Field::TooLong(_) => ValueRef::Null,
        Field::Integer(number) => ValueRef::Integer(*number),
        Field::Real(number) => ValueRef::Real(*number),
        Field::Text(bytes) => ValueRef::Text(bytes),
        Field::Bytes(bytes) => ValueRef::Blob(bytes),
    }
}
