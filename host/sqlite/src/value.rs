//! Reads values from a database that anybody can write to. Each is read as what it should be, as far as possible; no
//! value is an error.

use jiff::Timestamp;
use outbox_engine::{Column, Field, Row as Columns};
use rusqlite::Row;
use rusqlite::types::ValueRef;

/// The most bytes of a text in a table of the relay's own: the relay never writes more.
pub(super) const OWN_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn field(value: ValueRef<'_>) -> Field<'_> {
    match value {
        ValueRef::Null => Field::Null,
        ValueRef::Integer(number) => Field::Integer(number),
        ValueRef::Real(number) => Field::Real(number),
        ValueRef::Text(bytes) => Field::Text(bytes.into()),
        ValueRef::Blob(bytes) => Field::Bytes(bytes.into()),
    }
}

/// These columns for a SELECT, each with its length, which SQLite knows without reading the value. A value with more
/// than `bytes_max` bytes is not read.
pub(super) fn measured(columns: &[Column], bytes_max: impl Fn(Column) -> usize) -> String {
    let measured = columns.iter().map(|column| measured_as(column.name(), bytes_max(*column)));
    measured.collect::<Vec<_>>().join(", ")
}

/// The same for one value, whatever it comes from.
pub(super) fn measured_as(value: &str, bytes_max: usize) -> String {
    format!("CASE WHEN octet_length({value}) <= {bytes_max} THEN {value} END, octet_length({value})")
}

/// How many result columns a [`measured`] row takes.
pub(super) const MEASURED_ROW: usize = 2 * Column::ALL.len();

/// Columns that were [`measured`], from result column `first` on.
pub(super) fn measured_fields<'r, const N: usize>(row: &'r Row<'_>, first: usize) -> rusqlite::Result<[Field<'r>; N]> {
    let mut fields = [const { Field::Null }; N];
    for (index, to) in fields.iter_mut().enumerate() {
        let length: Option<i64> = row.get(first + 2 * index + 1)?;
        *to = match (field(row.get_ref(first + 2 * index)?), length) {
            (Field::Null, Some(length)) => Field::TooLong(length.unsigned_abs()),
            (field, _) => field,
        };
    }
    Ok(fields)
}

/// A whole row that was [`measured`], all of its columns.
pub(super) fn measured_row<'r>(row: &'r Row<'_>, first: usize) -> rusqlite::Result<Columns<'r>> {
    measured_fields(row, first).map(Columns::of)
}

/// A text from a table of the relay's own, for a SELECT. If it is too long, only its length is read.
pub(super) fn bounded(name: &str) -> String {
    format!(
        "CASE WHEN octet_length({name}) > {OWN_BYTES_MAX} THEN '(' || octet_length({name}) || ' bytes)' ELSE {name} END"
    )
}

/// Reads a whole number; 0 if the value is none.
pub(super) fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<i64> {
    Ok(match row.get_ref(index)? {
        ValueRef::Integer(number) => number,
        ValueRef::Real(number) => number as i64,
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        ValueRef::Null | ValueRef::Blob(_) => 0,
    })
}

/// Reads a count; 0 if the value is no number, or negative.
pub(super) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    Ok(u32::try_from(number(row, index)?.max(0)).unwrap_or(u32::MAX))
}

/// Reads a time; 1970 if the value is none.
pub(super) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millisecond(number(row, index)?).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Rounds a time up to a millisecond, so that it is never earlier than requested.
pub(super) fn up_to_a_millisecond(at: Timestamp) -> i64 {
    at.as_millisecond().saturating_add(i64::from(at.subsec_nanosecond() % 1_000_000 != 0))
}

/// Reads a value as it is shown. None for NULL.
pub(super) fn optional_text(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    Ok(field(row.get_ref(index)?).shown())
}

/// Reads a value as it is shown; empty for NULL.
pub(super) fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    Ok(optional_text(row, index)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use outbox_engine::{JsonSerde, Serde, StoredData, StoredValue};
    use rusqlite::Connection;

    /// Whether the reason names JSONB.
    fn is_jsonb(bytes: &[u8]) -> bool {
        let data = StoredData { content_type: None, value: StoredValue::Bytes(bytes.to_vec()) };
        JsonSerde.deserialize(data).is_err_and(|error| error.to_string().contains("JSONB"))
    }

    #[test]
    fn what_sqlite_makes_of_json_is_known() {
        let connection = Connection::open_in_memory().unwrap();
        let long = format!("{{\"a\": [1, 2.5, null, true, \"é\"], \"b\": \"{}\"}}", "x".repeat(70_000));
        for json in ["{}", "[]", "null", "true", "1", "-1.5e3", "\"text\"", "{\"a\":{\"b\":[1,2,3]}}", &long] {
            let bytes: Vec<u8> = connection.query_row("SELECT jsonb(?1)", [json], |row| row.get(0)).unwrap();
            assert!(is_jsonb(&bytes), "{json}");
            assert!(!is_jsonb(&bytes[..bytes.len() - 1]) && !is_jsonb(&[bytes.as_slice(), &[0xff]].concat()), "{json}");
        }
    }
}
