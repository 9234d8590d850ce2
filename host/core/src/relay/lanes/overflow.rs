//! Streams beyond those that may wait for a publisher as lanes. A lane takes some hundred bytes; of these streams only their
//! numbers are kept, and the position from which the reader has to read again.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::{LaneHasher, LaneId, Lanes, PublisherSet};

/// The most lanes that wait for publishers, of all publishers; each has an equal part.
const WAITING_MAX: usize = 400_000;
/// The most streams beyond them, of all publishers: some 70 MB. With more, nothing more is read.
const STREAMS_MAX: usize = 4_000_000;

/// The streams of a publisher whose entries the reader passes over, wherever they go.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    streams: HashSet<LaneId, BuildHasherDefault<LaneHasher>>,
    /// The first position that was passed over. None if there is no stream.
    from: Option<i64>,
}

/// The overflow of each publisher.
#[derive(Debug, Default)]
pub(super) struct Overflows {
    legs: Vec<Overflow>,
    /// Those that have one.
    filled: PublisherSet,
}

impl Overflows {
    /// Whether this entry has to be passed over, since its stream waits without a lane. Takes in its position.
    pub(super) fn passes_over(&mut self, id: LaneId, position: i64) -> bool {
        let mut legs = self.filled.iter().filter(|leg| self.legs.get(*leg).is_some_and(|it| it.streams.contains(&id)));
        let Some(leg) = legs.next() else { return false };
        self.add(leg, id, position);
        true
    }

    fn add(&mut self, leg: usize, id: LaneId, position: i64) {
        if self.legs.len() <= leg {
            self.legs.resize_with(leg + 1, Overflow::default);
        }
        let Some(overflow) = self.legs.get_mut(leg) else { return };
        overflow.streams.insert(id);
        overflow.from = Some(overflow.from.map_or(position, |from| from.min(position)));
        self.filled = self.filled | PublisherSet::one(leg);
    }

    /// Forgets the streams of a publisher, and returns the position from which they are to be read again.
    fn take(&mut self, leg: usize) -> Option<i64> {
        self.filled = self.filled.without(PublisherSet::one(leg));
        std::mem::take(self.legs.get_mut(leg)?).from
    }

    fn len(&self) -> usize {
        self.legs.iter().map(|overflow| overflow.streams.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }
}

/// How many lanes may wait for each of so many publishers.
pub(super) fn waiting_max(publishers: usize) -> usize {
    WAITING_MAX / publishers.max(1)
}

impl Lanes {
    /// Has a stream wait for this publisher without a lane, if there are too many lanes that wait for it, and nothing of
    /// the lane is known but what was passed over. Returns whether it does.
    pub(super) fn overflows(&mut self, id: LaneId, leg: usize) -> bool {
        if self.ordering == super::Ordering::Total || self.waiting_lanes(leg) < self.waiting_max {
            return false;
        }
        let is_simple = |lane: &&mut super::Lane| !lane.is_active() && !lane.parked && lane.waiting.is_empty();
        let Some(lane) = self.lanes.get_mut(&id).filter(is_simple) else { return false };
        let Some(first) = lane.missed.forget(&mut self.missed_room) else { return false };
        self.lanes.remove(&id);
        self.overflow.add(leg, id, first);
        true
    }

    /// Has the reader go back for the streams without a lane of publishers for which lanes may wait again.
    pub(super) fn recall_overflow(&mut self, refused: PublisherSet) {
        for leg in self.overflow.filled.without(refused).iter() {
            if self.waiting_lanes(leg) <= self.waiting_max / 2
                && let Some(from) = self.overflow.take(leg)
            {
                self.rewind = Some(self.rewind.map_or(from, |rewind| rewind.min(from)));
            }
        }
    }

    /// Whether so many streams wait that nothing more can be remembered.
    pub(in crate::relay) fn too_many_wait(&self) -> bool {
        !self.overflow.is_empty() && self.overflow.len() >= STREAMS_MAX
    }
}
