//! The entries of a lane that the reader has passed over.

use std::collections::VecDeque;
use std::time::Instant;

use super::shares::has_share;
use super::{EntryId, LaneId, Lanes};
use crate::stream::{StreamKey, TenantKey};

/// The most positions that one lane remembers.
const LANE_MISSED_MAX: usize = 1_000;

/// The positions that were passed over, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// In order.
    positions: VecDeque<i64>,
    /// From this position on, entries were passed over that are not remembered.
    beyond: Option<i64>,
}

impl Missed {
    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.beyond.is_none()
    }

    fn first(&self) -> Option<i64> {
        self.positions.front().copied().or(self.beyond)
    }

    /// Whether something before this position was passed over.
    pub(super) fn has_before(&self, position: i64) -> bool {
        self.first().is_some_and(|first| first < position)
    }

    /// Remembers a position; `room` is how many more may be remembered, of all lanes.
    pub(super) fn add(&mut self, position: i64, room: &mut usize) {
        if self.beyond.is_some_and(|beyond| position >= beyond) {
            return;
        }
        let Err(at) = self.positions.binary_search(&position) else { return };
        self.positions.insert(at, position);
        if self.positions.len() <= LANE_MISSED_MAX && *room > 0 {
            *room -= 1;
        } else {
            // The last one, so that those that are remembered are the first.
            self.beyond = self.positions.pop_back();
        }
    }

    /// Forgets all of them, and returns the first.
    pub(super) fn forget(&mut self, room: &mut usize) -> Option<i64> {
        let first = self.first();
        self.take(usize::MAX, room);
        self.beyond = None;
        first
    }

    /// Takes the first positions, at most `max`.
    fn take(&mut self, max: usize, room: &mut usize) -> Vec<i64> {
        let taken: Vec<i64> = self.positions.drain(..max.min(self.positions.len())).collect();
        *room += taken.len();
        taken
    }

    /// If no position is remembered, forgets the others, and returns the position from which they are to be read. With
    /// `all`, those that are remembered are among the others.
    pub(super) fn only_beyond(&mut self, all: bool, room: &mut usize) -> Option<i64> {
        let first = self.first();
        if all {
            self.take(usize::MAX, room);
            self.beyond = first;
        }
        self.beyond.take_if(|_| self.positions.is_empty())
    }
}

impl Lanes {
    /// The next lane that may go on, and the first positions of it that were passed over, at most `max`. After them, call
    /// [`missed_read`](Self::missed_read).
    pub(in crate::relay) fn next_missed(&mut self, max: usize) -> Option<(LaneId, Vec<i64>)> {
        loop {
            let (tenant, id) = self.next_recalled()?;
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.recalled = false;
            // Something may hold it since then: it is recalled again when that is over.
            if lane.is_active() || !lane.is_free() || lane.held_by.is_some() {
                continue;
            }
            let positions = lane.missed.take(max.max(1), &mut self.missed_room);
            self.recalled.charge(tenant, positions.len() as u64);
            return Some((id, positions));
        }
    }

    /// The next lane that was recalled, and whose tenant may have more in memory.
    fn next_recalled(&mut self) -> Option<(TenantKey, LaneId)> {
        let Self { recalled, shares, in_memory, .. } = self;
        recalled.pop(|tenant| has_share(shares, in_memory, tenant))
    }

    /// Whether an entry that was passed over may go now.
    pub(in crate::relay) fn wants_missed(&mut self, entry: EntryId, stream: StreamKey, now: Instant) -> bool {
        let id = self.id(stream, entry.position);
        // One of those that were read with it may have to wait after all.
        let is_behind = self.lanes.get(&id).is_some_and(|lane| lane.missed.has_before(entry.position));
        self.may_go(id, entry, is_behind, now)
    }

    /// Takes in that the positions of [`next_missed`](Self::next_missed) were read, except `rest`.
    pub(in crate::relay) fn missed_read(&mut self, id: LaneId, rest: &[i64]) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            rest.iter().for_each(|position| lane.missed.add(*position, &mut self.missed_room));
        }
        self.page_ended();
        self.retire(id);
    }

    /// Whether some entry that was passed over is to be read.
    pub(in crate::relay) fn has_missed(&self) -> bool {
        self.recalled.any(|tenant| has_share(&self.shares, &self.in_memory, tenant)) || self.rewind.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_positions_are_remembered_in_order_and_the_others_as_one() {
        let (mut missed, mut room) = (Missed::default(), 3);
        [7, 3, 7, 9, 5].into_iter().for_each(|position| missed.add(position, &mut room));
        assert_eq!((missed.positions.clone(), missed.beyond, room), ([3, 5, 7].into(), Some(9), 0));
        missed.add(1, &mut room);
        assert_eq!((missed.positions.clone(), missed.beyond), ([1, 3, 5].into(), Some(7)));
        missed.add(8, &mut room);
        assert_eq!(missed.only_beyond(false, &mut room), None, "those before it come first");
        assert_eq!((missed.take(2, &mut room), room, missed.first()), (vec![1, 3], 2, Some(5)));
        missed.add(6, &mut room);
        assert_eq!((missed.take(9, &mut room), room), (vec![5, 6], 3));
        assert_eq!((missed.only_beyond(false, &mut room), missed.is_empty()), (Some(7), true));
        [4, 2].into_iter().for_each(|position| missed.add(position, &mut room));
        assert_eq!((missed.only_beyond(true, &mut room), missed.is_empty(), room), (Some(2), true, 3));
    }

    #[test]
    fn one_lane_remembers_no_more_than_its_part() {
        let (mut missed, mut room) = (Missed::default(), usize::MAX);
        (0..5_000).for_each(|position| missed.add(position, &mut room));
        assert_eq!((missed.positions.len(), missed.beyond), (LANE_MISSED_MAX, Some(LANE_MISSED_MAX as i64)));
        assert_eq!(room, usize::MAX - LANE_MISSED_MAX);
    }
}
