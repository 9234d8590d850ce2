//! The errors of storages.

use std::time::Duration;

/// Why the outbox could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no outbox that this program can work with. The storage's own error says why, and what to do.
    #[error(transparent)]
    Unusable(Box<dyn std::error::Error + Send + Sync>),
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
    /// The storage refuses it, and will refuse it again: because of a constraint or a trigger, a table that somebody
    /// changed, or damage. The storage's own error says why, and what to do.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
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
        matches!(self, Self::Refused(_))
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
