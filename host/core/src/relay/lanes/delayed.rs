//! Entries that may not be published yet: they wait beside their lane, or hold it.

use std::cmp::Reverse;
use std::time::Instant;

use super::lane::Waiting;
use super::{EntryId, History, LaneId, Lanes, PublisherSet};
use crate::stream::StreamKey;

impl Lanes {
    /// Whether something is known of this entry beside its row: attempts of it, for example. Then it has to stay in its
    /// lane.
    pub(in crate::relay) fn knows(&self, stream: StreamKey, entry: EntryId) -> bool {
        self.lanes.get(&self.id(stream, entry.position)).is_some_and(|lane| lane.waiting_as(entry).is_some())
    }

    /// Has an entry wait beside its lane that was brought back. None if it is read already: the reader may have been faster.
    pub(in crate::relay) fn come_back(&mut self, stream: StreamKey, entry: EntryId) -> Option<LaneId> {
        let is_new = !self.in_flight.contains(&entry) && self.unreached.insert(entry);
        is_new.then(|| self.wait_beside(stream, entry))
    }

    /// Has an entry wait beside its lane that was read. The lane goes on: the entry is not read again until
    /// [`wake`](Self::wake) is called.
    pub(in crate::relay) fn wait_beside(&mut self, stream: StreamKey, entry: EntryId) -> LaneId {
        let id = self.id(stream, entry.position);
        self.in_flight.insert(entry);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.coming.retain(|coming| *coming != entry.position);
        }
        id
    }

    /// Keeps an entry from being read that was taken out of its lane, and stays in the outbox all the same.
    pub(in crate::relay) fn keep_apart(&mut self, entry: EntryId) {
        self.in_flight.insert(entry);
    }

    /// The entry may go now. It is read again, in its turn.
    pub(in crate::relay) fn wake(&mut self, id: LaneId, entry: EntryId) {
        if self.unreached.remove(&entry) {
            // There may be others of its stream before it that nobody has read. The reader comes to them in their order.
            self.in_flight.remove(&entry);
            return;
        }
        self.released(id, entry);
        self.retire(id);
    }

    /// Has an entry that was read hold its lane until `due`, once those before it are gone.
    pub(in crate::relay) fn hold_delayed(&mut self, stream: StreamKey, entry: EntryId, due: Instant) {
        let (id, position) = (self.id(stream, entry.position), entry.position);
        let lane = self.lanes.entry(id).or_default();
        lane.coming.retain(|coming| *coming != position);
        // Earlier ones of its stream are to be read first.
        if !self.overflow.is_empty() && lane.held_by != Some(position) && self.overflow.passes_over(id, position) {
            return;
        }
        let (history, delivered, uuid_hash) = (History::default(), PublisherSet::NONE, entry.uuid_hash);
        let new = Waiting { uuid_hash, due, history, delivered, on_record: false, alone: false, delayed: true };
        let waiting = Waiting { due, delayed: true, ..lane.waiting_as(entry).unwrap_or(new) };
        lane.waiting.insert(position, waiting);
        self.holds_delayed = true;
        let is_first = lane.held_by.is_none() && lane.missed.is_empty() && lane.is_free() && !lane.is_active();
        if is_first || lane.held_by == Some(position) {
            lane.held_by = Some(position);
            self.timers.push(Reverse((due, position, id)));
        } else {
            lane.missed.add(position, &mut self.missed_room);
        }
    }

    /// The clock was set: every entry that holds its lane until it is due is looked at again.
    pub(in crate::relay) fn look_at_delayed(&mut self, now: Instant) {
        if !std::mem::take(&mut self.holds_delayed) {
            return;
        }
        for (id, lane) in &mut self.lanes {
            for (position, waiting) in lane.waiting.iter_mut().filter(|(_, waiting)| waiting.delayed) {
                self.holds_delayed = true;
                waiting.due = waiting.due.min(now);
                if lane.held_by == Some(*position) {
                    self.timers.push(Reverse((waiting.due, *position, *id)));
                }
            }
        }
    }
}
