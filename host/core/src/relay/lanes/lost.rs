//! Finds lanes that nothing will wake again. There should be none: this is the watchdog over the lanes' own accounts, since
//! a lane that is forgotten stands still, and nothing else would look wrong.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::admission::Waiters;
use super::{LaneId, Lanes};

impl Lanes {
    /// Wakes the lanes that wait for nothing: nothing of them is under way, and the entry that holds them has no timer,
    /// or the reader was never sent back to what it has passed over. Returns how many there were.
    pub(in crate::relay) fn wake_lost(&mut self) -> usize {
        let armed: HashSet<LaneId> = (self.timers.iter().map(|Reverse(timer)| timer).chain(self.overdue.iter()))
            .filter(|(due, position, id)| {
                let holder = self.lanes.get(id).filter(|lane| lane.held_by == Some(*position));
                holder.is_some_and(|lane| lane.waiting.get(position).is_some_and(|waiting| waiting.due == *due))
            })
            .map(|(.., id)| *id)
            .collect();
        let waiting = self.waiting_for.iter().flat_map(Waiters::iter).map(|waiter| waiter.lane);
        let queued: HashSet<LaneId> = waiting.chain(self.throttle.unkept()).collect();
        let recalled: HashSet<LaneId> = self.recalled.iter().copied().collect();
        let lost: Vec<LaneId> = (self.lanes.iter())
            .filter(|(id, lane)| {
                let waits = lane.parked || (lane.not_admitted && queued.contains(id));
                let forgotten = match lane.held_by {
                    Some(_) => !armed.contains(id),
                    None => !lane.missed.is_empty() && !recalled.contains(id),
                };
                !lane.is_active() && !waits && forgotten
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &lost {
            if let Some(lane) = self.lanes.get_mut(id) {
                (lane.not_admitted, lane.recalled) = (false, false);
            }
            self.retire(*id);
        }
        self.forget_unused_tokens();
        lost.len()
    }
}
