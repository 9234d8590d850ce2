//! Connections as the outbox needs them, and what their errors mean.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outbox_engine::StorageError;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::access::Access;
use super::{beside, identity, permissions};

/// How many pages the WAL grows by before a commit moves them into the database. More than SQLite's 1,000, since a
/// relay's commits touch the same pages again and again: 4,000 are 16 MB.
const CHECKPOINT_PAGES: u32 = 4_000;

/// The file itself, where links lead to it.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, StorageError> {
    fs::canonicalize(path).or_else(|error| match error.kind() {
        // It may be there: opening it tells which folder is closed.
        ErrorKind::PermissionDenied => Ok(path.to_owned()),
        _ => Err(StorageError::Missing(path.to_owned())),
    })
}

/// How often, and how long apart, it is tried to open what may not be opened: root's SQLite makes a file, and then gives it
/// to whom the database belongs to.
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
        // What may not even be looked at is told below.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        _ => return Err(StorageError::Missing(path.to_owned())),
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
        // FULL: what was reported as settled stays so across a power cut. One fsync serves a whole group.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // As SQLite has it unless a program asks: an application's foreign key on the outbox is the application's to keep.
        connection.pragma_update(None, "foreign_keys", "OFF")?;
        identity::add_functions(&connection)?;
        // The first read of the file: tells whether it is a database at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    configured.map_err(error(OPEN, path.to_owned(), busy_patience))
}

/// A file with a setting, as SQLite writes it.
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

/// Has the database use the WAL. That needs the whole file for a moment. SQLite does not ask the busy handler then: if
/// another connection is about to do the same, it gives up at once.
pub(super) fn use_wal(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let since = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && since.elapsed() < patience => std::thread::sleep(WAL_PAUSE),
            done => return done,
        }
    }
}

/// How long after a refusal the WAL is asked for again.
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
        Some(ErrorCode::NotADatabase) => StorageError::NotADatabase(path.clone()),
        _ if is_busy(&error) => StorageError::Busy(busy_patience),
        Some(ErrorCode::DiskFull) => StorageError::Full,
        // SQLite does not say which of its files it is about, nor whose that is.
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            let denial = permissions::denial(&path, Access::Write);
            let denial = denial.map_or_else(String::new, |denial| format!(": {denial}"));
            StorageError::Other { doing, cause: format!("{}{denial}", without_statement(error)).into() }
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            StorageError::Damaged { doing, path: path.clone(), cause: Box::new(without_statement(error)) }
        }
        _ if is_refusal(&error) => StorageError::Refused { doing, cause: Box::new(without_statement(error)) },
        _ => StorageError::Other { doing, cause: Box::new(without_statement(error)) },
    }
}

/// Whether SQLite will say the same when it is asked again. A table or a column that is missing may be on its way: tools
/// that change tables remove them and make them again.
fn is_refusal(error: &rusqlite::Error) -> bool {
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

/// A whole script may be quoted in an error, which says nothing to the user.
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
