//! Total order: all streams together are one lane, and whatever holds an entry back holds back everything behind it.

use super::lane::{Lane, Waiting};
use super::{LaneId, Lanes, Ordering};

/// The lane of every entry.
pub(super) const LANE: LaneId = LaneId(0);

impl Lanes {
    /// Makes an entry wait that the storage holds back. Entries before it may not have been tried yet: another relay may
    /// have published in another order. So the reader goes back to it, and it holds the lane only when reached.
    pub(super) fn wait_in_total_order(&mut self, id: LaneId, position: i64, waiting: Waiting) {
        let lane = self.lanes.entry(id).or_default();
        lane.waiting.insert(position, waiting);
        // What waits behind it has its turn after it, and is read again.
        lane.held_by = lane.held_by.filter(|holder| *holder < position);
        lane.missed.add(position, &mut self.missed_room);
        self.retire(id);
    }

    /// Whether there is nothing to read: everything waits for an entry to which the reader will go back.
    pub(in crate::relay) fn everything_waits(&self) -> bool {
        let waits = |lane: &Lane| lane.parked || lane.not_admitted || lane.held_by.is_some() || !lane.missed.is_empty();
        self.ordering == Ordering::Total && self.lanes.get(&LANE).is_some_and(waits)
    }

    /// Whether everything waits for an operator: a dead letter parks it.
    pub(in crate::relay) fn everything_is_parked(&self) -> bool {
        self.ordering == Ordering::Total && self.lanes.get(&LANE).is_some_and(|lane| lane.parked)
    }
}
