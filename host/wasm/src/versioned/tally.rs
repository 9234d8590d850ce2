//! The outcomes of a version's calls, counted while they are made.

use std::sync::atomic::{AtomicU64, Ordering};

use outbox_engine::Outcome;
use outbox_engine::outbox::Counts;

/// Counts that several calls add to at once.
#[derive(Default)]
pub(super) struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
    trapped: AtomicU64,
}

impl Tally {
    pub(super) fn add(&self, counts: Counts) {
        for (sum, more) in self.sums().into_iter().zip([counts.delivered, counts.failed, counts.trapped]) {
            if more > 0 {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn read(&self) -> Counts {
        let [delivered, failed, trapped] = self.sums().map(|sum| sum.load(Ordering::Relaxed));
        Counts { delivered, failed, trapped }
    }

    /// Reads the counts, and begins again at zero.
    pub(super) fn take(&self) -> Counts {
        let [delivered, failed, trapped] = self.sums().map(|sum| sum.swap(0, Ordering::Relaxed));
        Counts { delivered, failed, trapped }
    }

    fn sums(&self) -> [&AtomicU64; 3] {
        [&self.delivered, &self.failed, &self.trapped]
    }
}

/// One call, by its outcome.
pub(super) fn one(outcome: &Outcome) -> Counts {
    let (delivered, failed, trapped) = match outcome {
        Outcome::Delivered => (1, 0, 0),
        Outcome::Trapped { .. } | Outcome::TimedOut { .. } | Outcome::LimitExceeded { .. } => (0, 0, 1),
        _ => (0, 1, 0),
    };
    Counts { delivered, failed, trapped }
}
