//! Entries that a route drops: removed without a call. They have no part in the order: nothing is called, so nothing can
//! overtake or be overtaken.

use std::collections::HashSet;
use std::time::Instant;

use super::session::Session;
use crate::outbox::Settled;
use crate::raw::{EntryId, RawEntry};

/// The dropped entries whose removal is not committed.
#[derive(Debug, Default)]
pub(super) struct Dropping(HashSet<EntryId>);

impl Dropping {
    /// Whether this entry, whose removal is committed, was dropped.
    pub(super) fn take(&mut self, entry: EntryId) -> bool {
        !self.0.is_empty() && self.0.remove(&entry)
    }
}

impl Session<'_> {
    /// Settles an entry that was read, and that this route drops.
    pub(super) fn drop_entry(&mut self, entry: &RawEntry, route: usize) {
        self.log.dropped_by(route, entry.position);
        let (lane, tried_before) = self.lanes.drop_entry(entry);
        self.dropping.0.insert(entry.id());
        self.await_commit(lane, Settled::Delivered { entry: entry.id(), tried_before }, Instant::now());
    }
}
