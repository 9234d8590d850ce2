//! Values of a database that anybody can write to: each is read as what it is meant to be, as far as it can be, and none
//! is an error, whatever stands there.

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::row::{Column, Field, Row as Columns};

/// The most bytes of a text in a table of the relay's own: none of its writes more.
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

/// These columns for a SELECT, each with its length, which SQLite knows without reading the value. What has more than
/// `bytes_max` bytes is not read.
pub(super) fn measured(columns: &[Column], bytes_max: impl Fn(Column) -> usize) -> String {
    let measured = columns.iter().map(|column| {
        let (name, bytes_max) = (column.name(), bytes_max(*column));
        format!("CASE WHEN octet_length({name}) <= {bytes_max} THEN {name} END, octet_length({name})")
    });
    measured.collect::<Vec<_>>().join(", ")
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

/// A text of a table of the relay's own for a SELECT: of one that is too long only its length is told.
pub(super) fn bounded(name: &str) -> String {
    format!(
        "CASE WHEN octet_length({name}) > {OWN_BYTES_MAX} THEN '(' || octet_length({name}) || ' bytes)' ELSE {name} END"
    )
}

/// As a whole number; 0 for what is none.
pub(super) fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<i64> {
    Ok(match row.get_ref(index)? {
        ValueRef::Integer(number) => number,
        ValueRef::Real(number) => number as i64,
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        ValueRef::Null | ValueRef::Blob(_) => 0,
    })
}

/// As a number of things; 0 for what is none, or less.
pub(super) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    Ok(u32::try_from(number(row, index)?.max(0)).unwrap_or(u32::MAX))
}

/// As a time; 1970 for what is none.
pub(super) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millisecond(number(row, index)?).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// As it is shown; none for NULL.
pub(super) fn optional_text(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    Ok(field(row.get_ref(index)?).shown())
}

/// As it is shown; empty for NULL.
pub(super) fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    Ok(optional_text(row, index)?.unwrap_or_default())
}
