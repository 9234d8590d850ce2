//! Opens connections as the outbox needs them, and translates their errors.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outbox_engine::StorageError;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::access::Access;
use super::error::SqliteError;
use super::{beside, identity, permissions};

/// A commit makes a checkpoint when the WAL has this many pages. This is more than SQLite's 1,000, since a relay's
/// commits touch the same pages again and again: 4,000 pages are 16 MB.
const CHECKPOINT_PAGES: u32 = 4_000;

/// The path of the file itself, with links resolved.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, StorageError> {
    fs::canonicalize(path).or_else(|error| match error.kind() {
        // The file may exist. Opening it reports which folder is closed.
        ErrorKind::PermissionDenied => Ok(path.to_owned()),
        _ => Err(SqliteError::Missing(path.to_owned()).into()),
    })
}

/// How often, and at which intervals, to try again to open a file that may not be opened: SQLite running as root first
/// makes a file, and then gives it to the database's owner.
const GIVEN_TRIES: u32 = 5;
const GIVEN_PAUSE: Duration = Duration::from_millis(5);

/// Opens an existing database for reading and writing.
pub(super) fn open(path: &Path, busy_patience: Duration) -> Result<Connection, StorageError> {
    open_as(path, busy_patience, Access::Write)
}

/// Opens an existing database.
pub(super) fn open_as(path: &Path, busy_patience: Duration, access: Access) -> Result<Connection, StorageError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        // If it may not even be looked at, `open_permitted` reports that.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        _ => return Err(SqliteError::Missing(path.to_owned()).into()),
    }
    for _ in 0..GIVEN_TRIES {
        match open_permitted(path, busy_patience, access) {
            Err(StorageError::Other { .. }) => std::thread::sleep(GIVEN_PAUSE),
            opened => return opened,
        }
    }
    open_permitted(path, busy_patience, access)
}

fn open_permitted(path: &Path, busy_patience: Duration, access: Access) -> Result<Connection, StorageError> {
    match permissions::denial(path, access) {
        Some(denial) => Err(StorageError::Other { doing: OPEN, cause: denial.into() }),
        None => open_with(path, busy_patience, access, OpenFlags::empty()),
    }
}

/// Opens a database for reading and writing, or creates it.
pub(super) fn create(path: &Path, busy_patience: Duration) -> Result<Connection, StorageError> {
    open_with(path, busy_patience, Access::Write, OpenFlags::SQLITE_OPEN_CREATE)
}

const OPEN: &str = "open the database";

fn open_with(
    path: &Path,
    busy_patience: Duration,
    access: Access,
    flags: OpenFlags,
) -> Result<Connection, StorageError> {
    beside::check(path).map_err(|error| StorageError::Other { doing: OPEN, cause: Box::new(error) })?;
    let (name, flags) = match access {
        Access::Write => (path.to_owned(), flags | OpenFlags::SQLITE_OPEN_READ_WRITE),
        Access::Read => (uri(path, "readonly_shm"), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI),
        Access::Still => (uri(path, "immutable"), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI),
    };
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let configured = Connection::open_with_flags(name, flags).and_then(|mut connection| {
        wait_when_busy(&mut connection, busy_patience)?;
        connection.set_prepared_statement_cache_capacity(64);
        // FULL: what was committed survives a power cut. One fsync serves a whole group.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // SQLite's default: if an application has a foreign key on the outbox, the application has to keep it.
        connection.pragma_update(None, "foreign_keys", "OFF")?;
        identity::add_functions(&connection)?;
        // The first read of the file shows whether it is a database at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    configured.map_err(error(OPEN, path.to_owned(), busy_patience))
}

/// A file's path with a setting, as a URI for SQLite.
fn uri(path: &Path, setting: &str) -> PathBuf {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    format!("{uri}?{setting}=1").into()
}

/// Installs a busy handler. SQLite's own handler waits up to 100 ms at a time, and starves beside a busy writer. This
/// one looks again after 50 µs at first, and after 1 ms at most.
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

/// Makes the database use the WAL, which needs the whole file for a moment. SQLite does not call the busy handler for
/// this: if another connection does the same, it gives up at once.
pub(super) fn use_wal(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let since = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && since.elapsed() < patience => std::thread::sleep(WAL_PAUSE),
            done => return done,
        }
    }
}

/// The pause between two tries to switch to the WAL.
const WAL_PAUSE: Duration = Duration::from_millis(1);

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What an error of SQLite's means to the user.
pub(super) fn error(
    doing: &'static str,
    path: PathBuf,
    busy_patience: Duration,
) -> impl Fn(rusqlite::Error) -> StorageError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => SqliteError::NotADatabase(path.clone()).into(),
        _ if is_busy(&error) => StorageError::Busy(busy_patience),
        Some(ErrorCode::DiskFull) => StorageError::Full,
        // SQLite reports neither which of its files it could not open, nor the owner.
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            let denial = permissions::denial(&path, Access::Write);
            let denial = denial.map_or_else(String::new, |denial| format!(": {denial}"));
            StorageError::Other { doing, cause: format!("{}{denial}", without_statement(error)).into() }
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            SqliteError::Damaged { doing, path: path.clone(), cause: without_statement(error) }.into()
        }
        _ if is_refusal(&error) => SqliteError::Refused { doing, cause: without_statement(error) }.into(),
        _ => StorageError::Other { doing, cause: Box::new(without_statement(error)) },
    }
}

/// Whether SQLite will refuse again. A missing table or column is no refusal, since it may come back: tools that change
/// tables remove them and make them again.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::Unknown) => {
            let reason = error.to_string();
            !["no such table", "no such column", "has no column"].iter().any(|passing| reason.contains(passing))
        }
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::AuthorizationForStatementDenied,
        ) => true,
        _ => false,
    }
}

/// Removes the statement from an error: it may be a whole script, which tells the user nothing.
fn without_statement(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqlInputError { error, msg, .. } => rusqlite::Error::SqliteFailure(error, Some(msg)),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_file_can_stand_in_a_uri() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("50% off? #1 & more \u{fc}.db");
        let made = create(&path, Duration::ZERO).unwrap();
        made.execute_batch("CREATE TABLE rows (it)").unwrap();
        drop(made);
        for access in [Access::Read, Access::Still] {
            let connection = open_as(&path, Duration::ZERO, access).unwrap();
            assert_eq!(connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)), Ok(0));
            assert!(connection.execute_batch("INSERT INTO rows VALUES (1)").is_err());
        }
    }
}
