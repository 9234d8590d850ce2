//! Connections as the outbox needs them, and what their errors mean.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::outbox::StorageError;

/// How many pages the WAL grows by before a commit moves them into the database. More than SQLite's 1,000, since a
/// relay's commits touch the same pages again and again: 4,000 are 16 MB.
const CHECKPOINT_PAGES: u32 = 4_000;

/// Opens an existing database for reading and writing.
pub(super) fn open(path: &Path, busy_patience: Duration) -> Result<Connection, StorageError> {
    if !path.is_file() {
        return Err(StorageError::Missing(path.to_owned()));
    }
    open_with(path, busy_patience, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Opens a database, or creates it.
pub(super) fn create(path: &Path, busy_patience: Duration) -> Result<Connection, StorageError> {
    open_with(path, busy_patience, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
}

fn open_with(path: &Path, busy_patience: Duration, flags: OpenFlags) -> Result<Connection, StorageError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let configured = Connection::open_with_flags(path, flags).and_then(|mut connection| {
        wait_when_busy(&mut connection, busy_patience)?;
        connection.set_prepared_statement_cache_capacity(64);
        // FULL: what was reported as settled stays so across a power cut. One fsync serves a whole group.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // The first read of the file: tells whether it is a database at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    configured.map_err(error("open the database", path.to_owned(), busy_patience))
}

/// SQLite's own handler waits up to 100 ms at a time, and starves beside a busy writer. This one looks every 50 µs at
/// first, and every millisecond in the end.
fn wait_when_busy(connection: &mut Connection, patience: Duration) -> rusqlite::Result<()> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |turn: i32| {
        if turn == 0 {
            since = Instant::now();
        }
        let turn = u32::try_from(turn).unwrap_or(u32::MAX);
        std::thread::sleep(
            Duration::from_micros(50).saturating_mul(turn.saturating_add(1)).min(Duration::from_millis(1)),
        );
        since.elapsed() < patience
    }))
}

/// What an error of SQLite's means to the user.
pub(super) fn error(
    doing: &'static str,
    path: PathBuf,
    busy_patience: Duration,
) -> impl Fn(rusqlite::Error) -> StorageError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StorageError::NotADatabase(path.clone()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StorageError::Busy(busy_patience),
        Some(ErrorCode::DiskFull) => StorageError::Full,
        _ => StorageError::Other { doing, cause: Box::new(without_statement(error)) },
    }
}

/// A whole script may be quoted in an error, which says nothing to the user.
fn without_statement(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqlInputError { error, msg, .. } => rusqlite::Error::SqliteFailure(error, Some(msg)),
        error => error,
    }
}
