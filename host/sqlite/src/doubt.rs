//! Records whether the disk may lack a part of the WAL. After a failed sync, a system may count as written what it
//! failed to write, and a later sync succeeds without it. After a power cut, the WAL would end where that part is
//! missing, whoever wrote what follows. So the whole WAL has to be written again before anything counts as committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::ffi;

/// Shared by everything that syncs: this outbox, and SQLite in its commits and checkpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    raised: AtomicU64,
    /// How many of them are settled: those raised before the WAL was written again.
    settled: AtomicU64,
}

/// A doubt to be settled, together with all doubts before it.
pub(super) struct Raised(u64);

impl Doubt {
    pub(super) fn raise(&self) {
        self.0.raised.fetch_add(1, Ordering::SeqCst);
    }

    /// Raises the doubt if one of SQLite's own syncs has failed. It may have been a sync of the database file, which a
    /// checkpoint writes again: then the WAL is written again needlessly.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC) {
            self.raise();
        }
    }

    /// The last doubt. None if all doubts are settled.
    pub(super) fn raised(&self) -> Option<Raised> {
        let raised = self.0.raised.load(Ordering::SeqCst);
        (raised > self.0.settled.load(Ordering::SeqCst)).then_some(Raised(raised))
    }

    pub(super) fn settle(&self, raised: &Raised) {
        self.0.settled.fetch_max(raised.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_meanwhile_is_not_settled() {
        let doubt = Doubt::default();
        assert!(doubt.raised().is_none());
        doubt.raise();
        let first = doubt.raised().unwrap();
        doubt.raise();
        doubt.settle(&first);
        let second = doubt.raised().unwrap();
        doubt.settle(&second);
        assert!(doubt.raised().is_none());
    }
}
