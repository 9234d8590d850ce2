//! Identifies an entry's row: an SQL function compares the hash of the row's uuid.

use outbox_engine::{Column, EntryId, Field};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};

use super::value;

/// Adds `outbox_is(uuid, length, hash)` to a connection: whether `uuid` has this [`hash`]. `uuid` is NULL if it is too
/// long to be read.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("outbox_is", 3, flags, |context| is(context))
}

/// The condition that a row is the entry with position `?1` and with `?2` as the [`hash`] of its uuid.
pub(super) fn is_it() -> String {
    format!("position = ?1 AND outbox_is({}, ?2)", value::measured(&[Column::Uuid], Column::bytes_max))
}

fn is(context: &Context<'_>) -> rusqlite::Result<bool> {
    let uuid = match (value::field(context.get_raw(0)), context.get(1)?) {
        (Field::Null, Some(length)) => Field::TooLong(i64::unsigned_abs(length)),
        (uuid, _) => uuid,
    };
    Ok(hash(EntryId::of(0, &uuid)) == context.get::<i64>(2)?)
}

/// The hash of an entry's uuid, as `outbox_is` takes it.
pub(super) fn hash(entry: EntryId) -> i64 {
    entry.uuid_hash.cast_signed()
}
