//! What the storage refuses to settle, though it was delivered or set aside: it is tried again from time to time, is not
//! published again, and is never silent.

use std::time::{Duration, Instant};

use super::acker::Refused;
use crate::outbox::{Fate, Settled, StorageError};
use crate::raw::EntryId;

/// How many such entries there may be until no more is published.
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
    /// An entry that was found to be delivered and still there is to be removed, if that is possible by now.
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

    /// What is to be tried again now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<Settled>> {
        self.try_at.take_if(|at| now >= *at)?;
        Some(std::mem::take(&mut self.settled))
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.try_at
    }

    /// Whether so much is refused that nothing more is to be published.
    pub(super) fn is_full(&self) -> bool {
        self.settled.len() >= UNSETTLED_MAX
    }

    /// What there is to say about them, if there are any.
    pub(super) fn error(&self) -> Option<StorageError> {
        let position = self.settled.first()?.entry().position;
        Some(StorageError::Unsettled { count: self.settled.len(), position, cause: self.reason.clone() })
    }
}

/// Whether an entry whose settlement is refused must not be read again: one that waits for a retry may.
pub(super) fn is_done_with(settled: &Settled) -> bool {
    match settled {
        Settled::Failed(failed) => matches!(failed.fate, Fate::DeadLetter { .. }),
        Settled::Delivered { .. } | Settled::Undeletable { .. } => true,
        Settled::Vanished { .. } => false,
    }
}
