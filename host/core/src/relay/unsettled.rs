//! Entries that were delivered or set aside, but that the storage refuses to settle. They are tried again from time to
//! time, are not published again, and are always reported.

use std::time::{Duration, Instant};

use super::group::Refused;
use crate::outbox::{Fate, Settled, StorageError};
use crate::raw::EntryId;

/// With this many such entries, nothing more is published.
const UNSETTLED_MAX: usize = 1_000;
/// How often they are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The settlements that were refused.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    settled: Vec<Settled>,
    reason: String,
    try_at: Option<Instant>,
}

impl Unsettled {
    /// Takes in an entry that was delivered and is still there: it is removed if that is possible now.
    pub(super) fn found(&mut self, entry: EntryId, now: Instant) {
        self.settled.push(Settled::Delivered { entry, tried_before: true });
        self.try_at = Some(now);
    }

    pub(super) fn refused(&mut self, refused: Vec<Refused>, now: Instant) {
        for Refused { settled, reason } in refused {
            self.reason = reason;
            self.settled.push(settled);
        }
        self.try_at = Some(now + TRY_AGAIN).filter(|_| !self.settled.is_empty());
    }

    /// The settlements to try again now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<Settled>> {
        self.try_at.take_if(|at| now >= *at)?;
        Some(std::mem::take(&mut self.settled))
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.try_at
    }

    /// Whether so many are refused that nothing more may be published.
    pub(super) fn is_full(&self) -> bool {
        self.settled.len() >= UNSETTLED_MAX
    }

    /// An error that describes them. None if there are none.
    pub(super) fn error(&self) -> Option<StorageError> {
        let position = self.settled.first()?.entry().position;
        Some(StorageError::Unsettled { count: self.settled.len(), position, cause: self.reason.clone() })
    }
}

/// Whether an entry whose settlement was refused must not be read again. An entry that waits for a retry may be read.
pub(super) fn is_done_with(settled: &Settled) -> bool {
    match settled {
        Settled::Failed(failed) => matches!(failed.fate, Fate::DeadLetter { .. }),
        Settled::Delivered { .. } | Settled::Undeletable { .. } => true,
        Settled::Vanished { .. } | Settled::PutOff { .. } => false,
    }
}
