//! Looking at an outbox without changing it: also as a user who may only read, and where there are none of the files that
//! SQLite makes beside a database while it is open.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use outbox_engine::StorageError;

use super::access::Access;
use super::connection::canonical;
use super::doubt::Doubt;
use super::{BUSY_PATIENCE, SqliteOutbox, beside, permissions};

/// How often a look is tried, where others open and close the database meanwhile.
const TRIES: u32 = 20;
/// How long ago a file has to have been written for another write to give it another time: clocks of file systems go in
/// steps, of at most 10 ms.
const CLOCK_STEP: Duration = Duration::from_millis(20);

impl SqliteOutbox {
    /// Opens an outbox to read it, and reads. It works for who may only read the file, beside a relay and other writers,
    /// and where nobody has the database open; then `read` may be called again, when somebody has written meanwhile. It
    /// leaves no file behind that another user could not write to.
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
                // Others may be about to make the files that they share, or to remove them.
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

/// How a database can be read by this user, as things are.
enum Way {
    /// As anybody who may write.
    Ordinary,
    /// Somebody has it open, or has left it so: what is in the WAL has to be read too.
    BesideOthers,
    /// Nobody has it open: the file is all there is, and no lock can be taken that keeps others from writing to it. So it
    /// has to be the same afterwards.
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

    /// Whether what was read this way is what was there.
    fn was_right(&self, database: &Path) -> bool {
        match self {
            Self::Ordinary | Self::BesideOthers => true,
            Self::Still(before) => !is_open(database) && before.is_some() && *before == Look::at(database),
        }
    }
}

/// Whether there is a file beside a database that says more than it does. An empty WAL alone is what a process left that
/// was killed before it wrote anything.
fn is_open(database: &Path) -> bool {
    let length = |ending| fs::symlink_metadata(beside::path(database, ending)).ok().map(|file| file.len());
    let wal = length(beside::WAL);
    wal.is_some_and(|bytes| bytes > 0)
        || wal.is_some() && length(beside::SHM).is_some()
        || length(beside::JOURNAL).is_some()
}

/// What can be seen of a file without opening it: that would take this process's locks of it away when it is closed.
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

    /// A look after which any write can be seen; none while somebody writes.
    fn at_rest(path: &Path) -> Option<Self> {
        for _ in 0..TRIES {
            let found = fs::metadata(path).ok()?;
            // None where it was written at a time that is still to come.
            let age = found.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_none_or(|age| age >= CLOCK_STEP) {
                return Some(Self::of(&found));
            }
            std::thread::sleep(CLOCK_STEP);
        }
        None
    }
}
