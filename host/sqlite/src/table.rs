//! Checks the table `outbox`, which an application may have made: whether the relay can work with it, and what may
//! hinder the relay.

use std::path::Path;

use outbox_engine::{Column as Times, StorageError};
use rusqlite::{Connection, OptionalExtension};

use super::error::SqliteError;

/// The columns that an entry needs. A table with these columns may serve as the outbox, whoever made it.
const COLUMNS: [&str; 12] = [
    "position",
    "tenant_id",
    "stream_id",
    "stream_name",
    "category",
    "uuid",
    "name",
    "version",
    "created_at",
    "content_type",
    "context",
    "data",
];
/// The advice about columns without a default.
const LEFT_OUT: &str = "such a column needs a default, or every program that appends has to fill it";

/// `hidden` is 0 for a column that can be written; 2 and 3 stand for generated columns.
const COLUMN_LIST: &str = "
    SELECT name, pk, upper(type), hidden, \"notnull\" AND dflt_value IS NULL FROM pragma_table_xinfo('outbox')";
const SQL: &str = "SELECT coalesce(sql, '') FROM sqlite_schema WHERE type = 'table' AND lower(name) = 'outbox'";
const TRIGGERS: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = 'outbox' ORDER BY 1";
const REFERENCES: &str = "
    SELECT tables.name FROM sqlite_schema AS tables, pragma_foreign_key_list(tables.name) AS keys
    WHERE tables.type = 'table' AND lower(keys.\"table\") = 'outbox' GROUP BY 1 ORDER BY 1";

struct Column {
    name: String,
    key: i64,
    kind: String,
    hidden: i64,
    required: bool,
}

/// Checks that an existing table `outbox` can be used. Returns whether there is one.
pub(super) fn check(
    connection: &Connection,
    path: &Path,
    failed: &dyn Fn(rusqlite::Error) -> StorageError,
) -> Result<bool, StorageError> {
    let columns = columns(connection).map_err(failed)?;
    if columns.is_empty() {
        return Ok(false);
    }
    match fault(&columns) {
        Some(reason) => Err(SqliteError::ForeignTable { path: path.to_owned(), reason }.into()),
        None => Ok(true),
    }
}

fn fault(columns: &[Column]) -> Option<String> {
    let times = Times::TIMES.map(Times::name);
    for expected in COLUMNS.into_iter().chain(times) {
        let Some(column) = columns.iter().find(|column| column.is(expected)) else {
            if times.contains(&expected) {
                continue;
            }
            return Some(format!("it has no column `{expected}`"));
        };
        if column.hidden != 0 {
            return Some(format!("its column `{expected}` is a generated one: the relay has to be able to write it"));
        }
    }
    let keys: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    match keys.as_slice() {
        [key] if key.is("position") && key.kind == "INTEGER" => None,
        [_, _, ..] => {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            Some(format!(
                "its primary key is made of several columns ({}): make `position INTEGER PRIMARY KEY AUTOINCREMENT` the only \
                 one, and a UNIQUE constraint of the others",
                names.join(", ")
            ))
        }
        _ => Some("`position` is not its INTEGER PRIMARY KEY".into()),
    }
}

/// The names of the table's columns.
pub(super) fn names_of(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    Ok(columns(connection)?.into_iter().map(|column| column.name).collect())
}

/// The columns that the table has beside those that it must have, and that can be written.
pub(super) fn other_columns(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let others = columns(connection)?.into_iter().filter(|column| column.hidden == 0 && !column.is_ours());
    Ok(others.map(|column| column.name).collect())
}

/// What may hinder the relay, and what to do about it.
pub(super) fn warnings(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut warnings = Vec::new();
    let sql: String = connection.query_row(SQL, [], |row| row.get(0)).optional()?.unwrap_or_default();
    if !sql.to_ascii_uppercase().contains("AUTOINCREMENT") {
        warnings.push(
            "the table outbox has no AUTOINCREMENT: SQLite gives the positions of removed entries again. The relay tells \
             such entries apart by their uuids; make `position INTEGER PRIMARY KEY AUTOINCREMENT`, so that positions say \
             what came first"
                .into(),
        );
    }
    let names: Vec<String> = names(connection, TRIGGERS)?;
    if !names.is_empty() {
        warnings.push(format!(
            "the table outbox has triggers ({}): one that refuses or fails keeps entries from being removed, and from being \
             published a second time; one that needs a function of the application's own fails in the relay",
            names.join(", ")
        ));
    }
    let references = self::names(connection, REFERENCES)?;
    if !references.is_empty() {
        warnings.push(format!(
            "foreign keys of other tables point at the table outbox ({}): entries are removed once they are published, and \
             rows that point at them then point at nothing. Keep the uuid in place of such a key",
            references.join(", ")
        ));
    }
    let required: Vec<String> = columns(connection)?
        .into_iter()
        .filter(|column| column.required && column.hidden == 0 && !column.is_ours())
        .map(|column| column.name)
        .collect();
    if !required.is_empty() {
        warnings.push(format!(
            "the table outbox has columns of its own that must not be NULL ({}): {LEFT_OUT}. They are kept with a dead \
             letter, and come back with it",
            required.join(", ")
        ));
    }
    Ok(warnings)
}

fn names(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn columns(connection: &Connection) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare_cached(COLUMN_LIST)?;
    let rows = statement.query_map([], |row| {
        Ok(Column {
            name: row.get(0)?,
            key: row.get(1)?,
            kind: row.get(2)?,
            hidden: row.get(3)?,
            required: row.get(4)?,
        })
    })?;
    rows.collect()
}

impl Column {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn is_ours(&self) -> bool {
        COLUMNS.iter().any(|ours| self.is(ours))
    }
}
