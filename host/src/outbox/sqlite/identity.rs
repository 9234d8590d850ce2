//! Which entry a row is: SQL functions that compare the hash of its uuid.

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::value;
use crate::row::{Column, EntryId, Field};

/// Adds `outbox_is(uuid, index, hashes)` to a connection: whether `uuid` is that of the entry number `index`, from 0, of
/// those whose [`hashes`] are given.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("outbox_is", 3, flags, |context| is(context))
}

fn is(context: &Context<'_>) -> rusqlite::Result<bool> {
    let entry = EntryId::of(0, &measured(context.get_raw(0)));
    let index: i64 = context.get(1)?;
    let hashes = context.get_raw(2).as_blob()?;
    let begin = usize::try_from(index).ok().and_then(|index| index.checked_mul(size_of::<u64>()));
    let expected = begin.and_then(|begin| hashes.get(begin..)).and_then(|rest| rest.first_chunk());
    Ok(expected == Some(&entry.uuid_hash.to_le_bytes()))
}

/// As a uuid is read: of one that is too long only its length is known.
fn measured(value: ValueRef<'_>) -> Field<'_> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if bytes.len() > Column::Uuid.bytes_max() => {
            Field::TooLong(bytes.len() as u64)
        }
        value => value::field(value),
    }
}

/// The hashes of the uuids of entries, as `outbox_is` takes them.
pub(super) fn hashes(entries: &[EntryId]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.uuid_hash.to_le_bytes()).collect()
}
