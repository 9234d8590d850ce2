//! Gives back the attempts that withdrawn canaries have used up. It waits until no call of that publisher is under way and
//! all that was settled before is committed, so that nothing is written with the old numbers afterwards. Meanwhile the
//! publisher gets no entry; the others go on.

use std::time::Instant;

use super::session::Session;
use crate::outbox::StorageError;
use crate::publisher::Withdrawn;
use crate::publishers::PublisherSet;

/// The canaries whose attempts are to be given back.
#[derive(Debug, Default)]
pub(super) struct GiveBack {
    /// Each with the number of its publisher.
    pub(super) withdrawn: Vec<(usize, Withdrawn)>,
    /// How many entries were settled when the last call of these publishers had ended. None while some are under way.
    after: Option<u64>,
    /// How many entries were settled, and how many of them are committed.
    pub(super) settled: u64,
    pub(super) committed: u64,
}

impl GiveBack {
    /// The publishers that get no entry until it is done.
    pub(super) fn legs(&self) -> PublisherSet {
        self.withdrawn.iter().fold(PublisherSet::NONE, |legs, (leg, _)| legs | PublisherSet::one(*leg))
    }

    /// Whether all that the publishers have answered is committed.
    fn is_due(&mut self, is_running: impl Fn(usize) -> bool) -> bool {
        if self.legs().iter().any(is_running) {
            self.after = None;
            return false;
        }
        self.committed >= *self.after.get_or_insert(self.settled)
    }
}

impl Session<'_> {
    /// The publishers whose entries the reader passes over.
    pub(super) fn full(&self) -> PublisherSet {
        self.bulkheads.full() | self.give_back.legs()
    }

    /// Gives the attempts back, if it is time for that.
    pub(super) fn give_back_when_committed(&mut self, now: Instant) -> Result<(), StorageError> {
        if self.give_back.withdrawn.is_empty() || !self.give_back.is_due(|leg| self.lanes.is_running_for(leg)) {
            return Ok(());
        }
        while let Some((_, withdrawn)) = self.give_back.withdrawn.last() {
            self.context.strategy.deployments().give_back(&withdrawn.publisher, &withdrawn.digest)?;
            self.give_back.withdrawn.pop();
        }
        self.give_back.after = None;
        self.reconcile_at = Some(now);
        Ok(())
    }
}
