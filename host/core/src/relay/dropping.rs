//! Entries that a route drops: removed without a call. They have no part in the order: nothing is called, so nothing can
//! overtake or be overtaken.

use std::collections::HashSet;

use crate::raw::EntryId;

/// The dropped entries whose removal is not committed.
#[derive(Debug, Default)]
pub(super) struct Dropping(HashSet<EntryId>);

impl Dropping {
    pub(super) fn insert(&mut self, entry: EntryId) {
        self.0.insert(entry);
    }

    /// Whether this entry, whose removal is committed, was dropped.
    pub(super) fn take(&mut self, entry: EntryId) -> bool {
        !self.0.is_empty() && self.0.remove(&entry)
    }
}
