//! Reads an outbox without changing it. This works for users who may only read, and also if the files are missing that
//! SQLite makes beside an open database.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use outbox_engine::StorageError;

use super::access::Access;
use super::connection::canonical;
use super::doubt::Doubt;
use super::{BUSY_PATIENCE, SqliteOutbox, beside, permissions};

/// How often a look is tried while others open and close the database.
const TRIES: u32 = 20;
/// If a file was written longer ago than this, another write gives it another time: the clocks of file systems go in
/// steps of at most 10 ms.
const CLOCK_STEP: Duration = Duration::from_millis(20);

impl SqliteOutbox {
    /// Opens an outbox and reads it. This works for users who may only read the file, beside a relay and other writers,
    /// and when nobody has the database open. In the last case `read` is called again if somebody has written
    /// meanwhile. No file stays behind that another user could not write to.
    ///
    /// ```
    /// use outbox_sqlite::{OutboxStorageStrategy, SqliteOutbox, StorageError};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let file = folder.path().join("app.db");
    /// SqliteOutbox::init(&file)?;
    /// let status = SqliteOutbox::look::<_, StorageError>(&file, |outbox| outbox.status())?;
    /// assert_eq!(status.pending, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and those of `read`.
    pub fn look<T, E: From<StorageError>>(path: &Path, mut read: impl FnMut(&Self) -> Result<T, E>) -> Result<T, E> {
        let path = canonical(path)?;
        let mut in_the_way = None;
        for _ in 0..TRIES {
            let way = Way::to(&path);
            match Self::open_as(&path, BUSY_PATIENCE, way.access(), Doubt::default()) {
                Ok(outbox) => {
                    let result = read(&outbox);
                    if way.was_right(&path) {
                        return result;
                    }
                }
                // Others may just be making or removing the files that they share.
                Err(error) if matches!(way, Way::BesideOthers) => {
                    in_the_way = Some(error);
                    std::thread::sleep(CLOCK_STEP);
                }
                Err(error) if way.was_right(&path) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Err(in_the_way.unwrap_or_else(busy).into())
    }
}

fn busy() -> StorageError {
    let cause = "other programs open it, write and close it all the time, and this user may only read it: try again, or as \
                 a user that may write to it";
    StorageError::Other { doing: "read the database", cause: cause.into() }
}

/// How this user can read a database now.
enum Way {
    /// As a user who may write.
    Ordinary,
    /// Somebody has it open, or was killed while it was open: the WAL has to be read too.
    BesideOthers,
    /// Nobody has it open: the file alone contains everything. No lock can keep others from writing to it, so it must
    /// be unchanged afterwards.
    Still(Option<Look>),
}

impl Way {
    fn to(database: &Path) -> Self {
        if permissions::denial(database, Access::Write).is_none() || fs::metadata(database).is_err() {
            Self::Ordinary
        } else if is_open(database) {
            Self::BesideOthers
        } else {
            Self::Still(Look::at_rest(database))
        }
    }

    fn access(&self) -> Access {
        match self {
            Self::Ordinary => Access::Write,
            Self::BesideOthers => Access::Read,
            Self::Still(_) => Access::Still,
        }
    }

    /// Whether reading this way was right: nothing has changed meanwhile that it could not see.
    fn was_right(&self, database: &Path) -> bool {
        match self {
            Self::Ordinary | Self::BesideOthers => true,
            Self::Still(before) => !is_open(database) && before.is_some() && *before == Look::at(database),
        }
    }
}

/// Whether a file beside the database contains more than the database does. A process that was killed before it wrote
/// anything leaves only an empty WAL.
fn is_open(database: &Path) -> bool {
    let length = |ending| fs::symlink_metadata(beside::path(database, ending)).ok().map(|file| file.len());
    let wal = length(beside::WAL);
    wal.is_some_and(|bytes| bytes > 0)
        || wal.is_some() && length(beside::SHM).is_some()
        || length(beside::JOURNAL).is_some()
}

/// What can be seen of a file without opening it. Closing the file would drop this process's locks on it.
#[derive(PartialEq, Eq)]
struct Look {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }

    fn of(found: &Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// A look that shows any later write. None while somebody writes.
    fn at_rest(path: &Path) -> Option<Self> {
        for _ in 0..TRIES {
            let found = fs::metadata(path).ok()?;
            // None if the time of its last write is in the future.
            let age = found.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_none_or(|age| age >= CLOCK_STEP) {
                return Some(Self::of(&found));
            }
            std::thread::sleep(CLOCK_STEP);
        }
        None
    }
}
