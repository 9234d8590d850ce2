//! Stores the counts of the versions' calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outbox_engine::outbox::{Counts, Deployments, StorageError};

use super::at_work::{AtWork, Loaded};

/// How often the counts of the versions are stored.
pub(super) const COUNT_PAUSE: Duration = Duration::from_secs(1);

/// Stores what the versions have counted since the last time.
#[derive(Default)]
pub(super) struct Counting {
    counted_at: Option<Instant>,
    /// Versions that are no longer at work, but whose last calls are not counted yet.
    leaving: Vec<Arc<Loaded>>,
}

impl Counting {
    /// Keeps the versions that leave until their last calls are counted.
    pub(super) fn swapped(&mut self, before: &AtWork, next: &AtWork) {
        self.leaving.extend(before.versions().filter(|loaded| !next.has(loaded)).cloned());
    }

    pub(super) fn count_when_due(
        &mut self,
        name: &str,
        at_work: &AtWork,
        deployments: &dyn Deployments,
    ) -> Result<(), StorageError> {
        if self.counted_at.is_some_and(|at| at.elapsed() < COUNT_PAUSE) {
            return Ok(());
        }
        self.count(name, at_work, deployments)
    }

    /// Stores the counts of the versions since the last time.
    pub(super) fn count(
        &mut self,
        name: &str,
        at_work: &AtWork,
        deployments: &dyn Deployments,
    ) -> Result<(), StorageError> {
        self.counted_at = Some(Instant::now());
        for loaded in at_work.versions().chain(&self.leaving) {
            let counts = loaded.calls.take();
            if counts != Counts::default()
                && let Err(error) = deployments.count(name, loaded.version, counts)
            {
                loaded.calls.add(counts);
                return Err(error);
            }
        }
        // A version is dropped from the list once nothing else holds it, and its last calls are counted.
        self.leaving.retain(|loaded| Arc::strong_count(loaded) > 1 || loaded.calls.read() != Counts::default());
        Ok(())
    }
}
