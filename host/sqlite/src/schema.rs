//! The tables, and their versions.

use std::path::Path;
use std::time::Duration;

use outbox_engine::text::shown;
use outbox_engine::{Column, StorageError};
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Transaction, TransactionBehavior, params};

use super::error::SqliteError;
use super::times::{self, TimeColumns};
use super::{beside, connection, table, value};

/// The version of the tables that this program works with.
pub const SCHEMA_VERSION: i64 = 4;

/// The table that applications append to. It is made if it is missing: somebody may have dropped it.
const OUTBOX: &str = include_str!("outbox.sql");

/// The scripts that upgrade version n - 1 to version n, from n = 1 on.
const STEPS: [&str; 4] =
    [include_str!("schema.sql"), include_str!("schema2.sql"), include_str!("schema3.sql"), include_str!("schema4.sql")];

/// What [`SqliteOutbox::init`](super::SqliteOutbox::init) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// The version that was there before; 0 if there was none.
    pub before: i64,
    /// The version that is there now.
    pub now: i64,
    /// Sentences about what in the table `outbox` may hinder the relay, and what to do.
    pub warnings: Vec<String>,
    /// The statements that would add the columns which this table `outbox` has not, and need not have.
    pub addable: Vec<String>,
}

pub(super) fn init(path: &Path, busy_patience: Duration, add_columns: bool) -> Result<Initialised, StorageError> {
    if !path.exists() {
        // If it cannot be made here, SQLite makes it, or reports why it cannot.
        let _ = beside::make_database(path);
    }
    // If this fails, an empty file may stay. It is not removed: another program may have begun to use it.
    let mut connection = connection::create(path, busy_patience)?;
    upgrade(&mut connection, path, busy_patience, add_columns)
}

fn upgrade(
    connection: &mut Connection,
    path: &Path,
    busy_patience: Duration,
    add_columns: bool,
) -> Result<Initialised, StorageError> {
    let failed = connection::error("make the outbox's tables", path.to_owned(), busy_patience);
    let found = version(connection).map_err(&failed)?;
    check_not_newer(found, path)?;
    table::check(connection, path, &failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    // Read again, now that nobody else can write.
    let before = version(&transaction).map_err(&failed)?;
    check_not_newer(before, path)?;
    transaction.execute_batch(OUTBOX).map_err(&failed)?;
    let mut addable = addable(&transaction).map_err(&failed)?;
    if add_columns {
        std::mem::take(&mut addable).iter().try_for_each(|sql| transaction.execute_batch(sql)).map_err(&failed)?;
    }
    for (step, sql) in (1..).zip(STEPS).filter(|(step, _)| *step > before) {
        transaction.execute_batch(sql).map_err(&failed)?;
        transaction
            .execute("UPDATE outbox_meta SET value = ?1 WHERE key = 'schema_version'", [step])
            .map_err(&failed)?;
    }
    transaction.commit().map_err(&failed)?;
    // The file keeps this setting: every program that opens it from now on uses the WAL. This step comes last, since no
    // rollback undoes it.
    connection::use_wal(connection, busy_patience).map_err(&failed)?;
    let warnings = table::warnings(connection).map_err(&failed)?;
    Ok(Initialised { before, now: SCHEMA_VERSION, warnings, addable })
}

fn addable(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let there = TimeColumns::of(connection)?;
    Ok(Column::TIMES.into_iter().filter(|column| !there.has(*column)).map(times::add).collect())
}

/// Whether this program can work with the outbox in this database.
pub(super) fn check(connection: &Connection, path: &Path, busy_patience: Duration) -> Result<(), StorageError> {
    let failed = connection::error("read the outbox's version", path.to_owned(), busy_patience);
    let found = version(connection).map_err(&failed)?;
    check_not_newer(found, path)?;
    let has_table = table::check(connection, path, &failed)?;
    match found {
        SCHEMA_VERSION if has_table => check_wal(connection, path, busy_patience, &failed),
        0 | SCHEMA_VERSION => Err(SqliteError::NotInitialised(path.to_owned()).into()),
        found => Err(SqliteError::Older { path: path.to_owned(), found, supported: SCHEMA_VERSION }.into()),
    }
}

/// Raised by each act of an operator on entries and dead letters.
pub(super) const GENERATION: &str = "generation";
/// Raised by each change of a version of a publisher.
pub(super) const REGISTRY_GENERATION: &str = "registry_generation";

/// One of the two numbers above; 0 if the value is no number.
pub(super) fn generation(connection: &Connection, key: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM outbox_meta WHERE key = ?1";
    let generation = connection.prepare_cached(sql)?.query_row([key], |row| value::number(row, 0)).optional()?;
    Ok(generation.unwrap_or(0).cast_unsigned())
}

/// A number that differs after each act of an operator, and after the database was restored or its tables were changed,
/// which SQLite counts.
pub(super) fn state(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(generation(connection, GENERATION)? ^ changes(connection)?.cast_unsigned().rotate_left(32))
}

/// SQLite's own count of changes of tables.
pub(super) fn changes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

/// Raises the number. It differs from the old value, whatever that was.
pub(super) fn raise(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<()> {
    let next = generation(transaction, key)?.wrapping_add(1).cast_signed();
    transaction
        .execute("INSERT OR REPLACE INTO outbox_meta (key, value) VALUES (?1, ?2)", params![key, next])
        .map(|_| ())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'outbox_meta'";
    if connection.query_row(sql, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    let sql = "SELECT value FROM outbox_meta WHERE key = 'schema_version'";
    let version = connection.query_row(sql, [], |row| Ok(row.get_ref(0)?.as_i64().unwrap_or(NO_VERSION))).optional()?;
    Ok(version.unwrap_or(NO_VERSION))
}

/// Stands for a value that is no version: somebody else has written it.
const NO_VERSION: i64 = -1;

fn check_not_newer(found: i64, path: &Path) -> Result<(), StorageError> {
    if found < 0 {
        return Err(StorageError::Declined(format!(
            "the table outbox_meta in {0} no longer tells the outbox's schema version: restore it from a backup, or, where it \
             was {SCHEMA_VERSION}, with UPDATE outbox_meta SET value = {SCHEMA_VERSION} WHERE key = 'schema_version'",
            path.display()
        )));
    }
    if found > SCHEMA_VERSION {
        return Err(SqliteError::Newer { path: path.to_owned(), found, supported: SCHEMA_VERSION }.into());
    }
    Ok(())
}

/// Checks that the database still uses the WAL, and sets it again if somebody has changed that: without the WAL,
/// readers and writers block each other. A user who may only read leaves it as it is.
fn check_wal(
    connection: &Connection,
    path: &Path,
    busy_patience: Duration,
    failed: &dyn Fn(rusqlite::Error) -> StorageError,
) -> Result<(), StorageError> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(failed)?;
    if mode.eq_ignore_ascii_case("wal") || connection.is_readonly(MAIN_DB).map_err(failed)? {
        return Ok(());
    }
    let path = shown(path.display());
    tracing::warn!("{path} has journal mode {}: setting it to WAL, which the outbox needs", shown(mode));
    connection::use_wal(connection, busy_patience).map_err(failed)
}
