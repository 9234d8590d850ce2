//! Changes values of a dead letter.

use outbox_engine::outbox::operator::Act;
use outbox_engine::{Column, Field, StorageError};

use super::audit::audit;
use super::dead_letters::DeadId;
use crate::error::Fault;
use crate::link::Link;
use crate::value;

pub(super) fn mend(link: &mut Link, dead: DeadId, changes: &[(Column, Field<'_>)], by: &Act) -> Result<(), Fault> {
    let whole = format!("SELECT {} FROM outbox_dead_letters WHERE id = $1", value::measured(Column::bytes_max));
    for (column, new) in changes {
        // The old value is recorded: an edit must not lose what the application wrote.
        let name = column.name();
        let Some(row) = link.first(&whole, &[&dead.id])? else { continue };
        let old = value::measured_row(&row)?.field(*column).clone().into_owned();
        if old != *new {
            audit(link, dead, "edit", &format!("{name} was: {}", old.shown().unwrap_or_default()), by)?;
        }
        if *column == Column::Uuid {
            // The records of its attempts stay with it.
            let of_attempts = "UPDATE outbox_attempts made SET uuid = $2::text::uuid FROM outbox_dead_letters dead
                               WHERE dead.id = $1 AND made.position = dead.position AND made.uuid = dead.uuid";
            link.execute(of_attempts, &[&dead.id, &text(*column, new)?])?;
        }
        if *column == Column::Data {
            set_data(link, dead.id, new)?;
            continue;
        }
        let update = format!("UPDATE outbox_dead_letters SET {name} = $2::text::{} WHERE id = $1", kind(*column));
        link.execute(&update, &[&dead.id, &text(*column, new)?])?;
    }
    Ok(())
}

/// The type of a column.
fn kind(column: Column) -> &'static str {
    match column {
        Column::Uuid => "uuid",
        Column::Version => "bigint",
        Column::CreatedAt | Column::PublishAfter | Column::ExpiresAt => "timestamptz",
        _ => "text",
    }
}

fn set_data(link: &mut Link, id: i64, new: &Field<'_>) -> Result<(), Fault> {
    let (text, bytes) = match new {
        Field::Bytes(bytes) => (None, Some(bytes.as_ref())),
        other => (text(Column::Data, other)?, None),
    };
    let sql = "UPDATE outbox_dead_letters SET data = $2, data_bytes = $3 WHERE id = $1";
    link.execute(sql, &[&id, &text, &bytes]).map(|_| ())
}

/// A value as text. PostgreSQL makes of it what the column has.
fn text(column: Column, field: &Field<'_>) -> Result<Option<String>, StorageError> {
    match field {
        // A value that was only measured is never written.
        Field::Null | Field::TooLong(_) => Ok(None),
        Field::Integer(number) => Ok(Some(number.to_string())),
        Field::Real(number) => Ok(Some(number.to_string())),
        Field::Text(bytes) | Field::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(Some(text.to_owned())),
            _ => Err(StorageError::Declined(format!("{} must be text in UTF-8, without NUL", column.name()))),
        },
    }
}
