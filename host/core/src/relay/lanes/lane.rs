//! One lane: which of its entries are queued, under way, passed over and held.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::missed::Missed;
use crate::publishers::PublisherSet;
use crate::raw::EntryId;
use crate::relay::job::{Claim, Load};
use crate::settlement::History;
use crate::stream::TenantKey;

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The tenant of its entries, as far as it is known and matters.
    pub(super) tenant: TenantKey,
    pub(super) queue: VecDeque<Claim>,
    /// If some entry of it waits: the entries that the reader wants and that were not pushed yet.
    pub(super) coming: Vec<i64>,
    pub(super) running: bool,
    /// What its running job has taken.
    pub(super) load: Load,
    /// The publishers that its running job calls.
    pub(super) legs: PublisherSet,
    /// Its next entry waits for a publisher.
    pub(super) not_admitted: bool,
    /// The publishers for whose rate limits it has taken a token in advance.
    pub(super) paid: PublisherSet,
    /// Settled entries whose commit is awaited.
    pub(super) unacked: usize,
    /// A dead letter holds it.
    pub(super) parked: bool,
    /// The waiting entry that holds it. Only this entry is read, by its position, and is published as a job of its own.
    pub(super) held_by: Option<i64>,
    /// Its waiting entries.
    pub(super) waiting: BTreeMap<i64, Waiting>,
    /// The entries that were passed over.
    pub(super) missed: Missed,
    /// They are to be read.
    pub(super) recalled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) uuid_hash: u64,
    pub(super) due: Instant,
    pub(super) history: History,
    pub(super) delivered: PublisherSet,
    pub(super) on_record: bool,
    pub(super) alone: bool,
    /// It is not due yet; it did not fail.
    pub(super) delayed: bool,
}

impl Lane {
    pub(super) fn is_active(&self) -> bool {
        self.running || self.unacked > 0 || !self.queue.is_empty() || !self.coming.is_empty()
    }

    /// Whether some of its entries are in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        self.running || !self.queue.is_empty()
    }

    /// What is known of this entry, if it waits.
    pub(super) fn waiting_as(&self, entry: EntryId) -> Option<Waiting> {
        self.waiting.get(&entry.position).filter(|waiting| waiting.uuid_hash == entry.uuid_hash).copied()
    }

    /// If another entry waited at this entry's position, that one is gone: forget it.
    pub(super) fn forget_predecessor(&mut self, entry: EntryId) {
        if self.waiting.contains_key(&entry.position) && self.waiting_as(entry).is_none() {
            self.waiting.remove(&entry.position);
            self.held_by = self.held_by.filter(|holder| *holder != entry.position);
        }
    }

    pub(super) fn waits_alone_before(&self, position: i64) -> bool {
        self.waiting.range(..position).any(|(_, waiting)| waiting.alone)
    }

    /// Whether nothing of it is known that matters.
    pub(super) fn is_forgettable(&self) -> bool {
        !self.is_active() && !self.parked && !self.not_admitted && self.waiting.is_empty() && self.missed.is_empty()
    }

    pub(super) fn is_free(&self) -> bool {
        !self.running && !self.parked && !self.not_admitted
    }
}
