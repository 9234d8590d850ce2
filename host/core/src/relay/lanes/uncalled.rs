//! Takes an entry out of its lane that is settled without a call.

use super::{LaneId, Lanes};
use crate::raw::RawEntry;

impl Lanes {
    /// Notes that an entry that was read is settled without a job, and awaits its commit. Returns its lane, and whether
    /// attempts of it are on record: it may have waited for a publisher that it went to before.
    pub(in crate::relay) fn settle_uncalled(&mut self, entry: &RawEntry) -> (LaneId, bool) {
        let (lane, id) = (self.id(entry.stream_key(), entry.position), entry.id());
        let waiting = self.lanes.get(&lane).and_then(|lane| lane.waiting_as(id));
        self.in_flight.insert(id);
        self.lanes.entry(lane).or_default().coming.retain(|coming| *coming != id.position);
        self.settled(lane, id);
        (lane, waiting.is_some_and(|waiting| waiting.on_record))
    }
}
