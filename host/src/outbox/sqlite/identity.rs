//! Which entry a row is: an SQL function that compares the hash of its uuid.

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};

use super::value;
use crate::row::{Column, EntryId, Field};

/// Adds `outbox_is(uuid, length, index, hashes)` to a connection: whether `uuid`, which is NULL where it is too long to be
/// read, is that of the entry number `index`, from 0, of those whose [`hashes`] are given.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("outbox_is", 4, flags, |context| is(context))
}

/// The condition that a row is the entry number `index` of those whose hashes are the parameter `hashes`.
pub(super) fn condition(index: &str, hashes: &str) -> String {
    format!("outbox_is({}, {index}, {hashes})", value::measured(&[Column::Uuid], Column::bytes_max))
}

fn is(context: &Context<'_>) -> rusqlite::Result<bool> {
    let uuid = match (value::field(context.get_raw(0)), context.get(1)?) {
        (Field::Null, Some(length)) => Field::TooLong(i64::unsigned_abs(length)),
        (uuid, _) => uuid,
    };
    let index: i64 = context.get(2)?;
    let hashes = context.get_raw(3).as_blob()?;
    let begin = usize::try_from(index).ok().and_then(|index| index.checked_mul(size_of::<u64>()));
    let expected = begin.and_then(|begin| hashes.get(begin..)).and_then(|rest| rest.first_chunk());
    Ok(expected == Some(&EntryId::of(0, &uuid).uuid_hash.to_le_bytes()))
}

/// The hashes of the uuids of entries, as `outbox_is` takes them.
pub(super) fn hashes(entries: &[EntryId]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.uuid_hash.to_le_bytes()).collect()
}
