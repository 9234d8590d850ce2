//! The errors of storages.

use std::path::PathBuf;
use std::time::Duration;

/// Why the outbox could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no such file.
    #[error("there is no database {}", .0.display())]
    Missing(PathBuf),
    /// The file is something else.
    #[error("{} is not a SQLite database", .0.display())]
    NotADatabase(PathBuf),
    /// The database has no outbox.
    #[error("{path} has no outbox: run `outbox init --db {path}` first", path = .0.display())]
    NotInitialised(PathBuf),
    /// The outbox was made by a newer version.
    #[error(
        "the outbox in {path} has schema version {found}, and this program knows versions up to {supported}: \
         use a newer one",
        path = path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest known one.
        supported: i64,
    },
    /// The outbox was made by an older version.
    #[error(
        "the outbox in {path} has schema version {found}, and this program needs version {supported}: \
         run `outbox init --db {path}` to upgrade it",
        path = path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The one that is needed.
        supported: i64,
    },
    /// There is a table `outbox` that is not ours.
    #[error("{path} has a table `outbox` of another shape: {reason}", path = path.display())]
    ForeignTable {
        /// The database.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// Somebody else drains this outbox.
    #[error("{by} is at work on this outbox: only one drains it at a time")]
    Leased {
        /// Who, as far as known.
        by: String,
    },
    /// Somebody else has been writing for too long.
    #[error("the database is locked: another program has been writing to it for longer than {}", humane(*.0))]
    Busy(Duration),
    /// There is no room left.
    #[error("the disk is full")]
    Full,
    /// The database, or its lock file, was removed or replaced.
    #[error("{0}")]
    Replaced(String),
    /// An event cannot be stored.
    #[error("event {index}: {reason}")]
    Invalid {
        /// Which of the events, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The request cannot be done now. The text says why, and what can be done instead.
    #[error("{0}")]
    Declined(String),
    /// The bytes of a publisher are no longer what they were when they were stored.
    #[error(
        "the module {digest} is damaged: its bytes have the digest {found} now. Deploy the file again to mend it, or \
         restore the database from a backup"
    )]
    DamagedModule {
        /// The digest that it was stored with.
        digest: String,
        /// The digest of what is there.
        found: String,
    },
    /// The database refuses it, and will refuse it again, because of a constraint, a trigger, or a table that somebody
    /// changed.
    #[error(
        "the database refuses to {doing}: {cause}. Look for triggers, constraints and foreign keys on the table `outbox` \
         (`outbox init` names them), and for tables that were changed"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why it was refused.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database's file is damaged.
    #[error(
        "cannot {doing}: the database {path} is damaged ({cause}). Stop its programs, look at it with \
         `sqlite3 {path} 'PRAGMA integrity_check'`, and restore it from a backup or with `.recover`",
        path = path.display()
    )]
    Damaged {
        /// What was being done.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part of the relay panicked.
    #[error("the relay's {part} panicked: {reason}. The session begins anew; please report this")]
    Panicked {
        /// Which part.
        part: &'static str,
        /// What it said.
        reason: String,
    },
    /// Entries were delivered or set aside, but the database refuses to record that.
    #[error("{count} entries cannot be settled, the first of them at position {position}: {cause}")]
    Unsettled {
        /// How many.
        count: usize,
        /// The position of the first.
        position: i64,
        /// Why, in words.
        cause: String,
    },
    /// Anything else.
    #[error("cannot {doing}: {cause}")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn humane(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

impl StorageError {
    /// Whether the error is transient: the same call may succeed later, because the database was busy, or the disk
    /// full.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Full | Self::Other { .. })
    }

    /// Whether the storage refuses this, and would refuse it again. The cause is then an entry, or the state of the
    /// tables.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Damaged { .. })
    }

    /// Whether somebody else drains the outbox.
    pub fn is_leased(&self) -> bool {
        matches!(self, Self::Leased { .. })
    }

    /// Whether the outbox is no longer where it was.
    pub fn is_replaced(&self) -> bool {
        matches!(self, Self::Replaced(_))
    }
}
