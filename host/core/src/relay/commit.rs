//! The session's part in committing: which settled entries go to the acker together, and what follows when they are
//! durable.

use std::time::{Duration, Instant};

use super::channels::Channels;
use super::group::{Group, Order};
use super::job::LaneId;
use super::session::{ORDERS_MAX, Session};
use crate::outbox::Settled;

/// A group is committed when it has this many entries, or is this old, or when nothing else is under way.
const GROUP_MAX: usize = 1_000;
pub(super) const GROUP_AGE_MAX: Duration = Duration::from_millis(5);

impl Session<'_> {
    pub(super) fn await_commit(&mut self, lane: LaneId, settled: Settled, now: Instant) {
        self.give_back.settled += 1;
        self.group.since.get_or_insert(now);
        self.group.lanes.push(lane);
        self.group.settled.push(settled);
    }

    /// Hands the group over when it is large or old enough, or when nothing under way could join it.
    pub(super) fn commit_what_is_settled(&mut self, channels: &Channels, now: Instant) {
        let Some(since) = self.group.since else { return };
        let idle = self.lanes.running() == 0;
        let full = self.group.settled.len() >= GROUP_MAX || now.duration_since(since) >= GROUP_AGE_MAX;
        if (idle || full) && self.orders_out < ORDERS_MAX {
            self.orders_out += 1;
            let _ = channels.orders.try_send(Order::Commit(std::mem::take(&mut self.group)));
        }
    }

    pub(super) fn committed(&mut self, group: Group) {
        self.orders_out -= 1;
        let Group { lanes, settled, mut refused, .. } = group;
        let is_refused = |entry| refused.iter().any(|refused| refused.settled.entry() == entry);
        for (lane, settled) in lanes.into_iter().zip(settled) {
            let is_removed = matches!(settled, Settled::Delivered { .. }) && !is_refused(settled.entry());
            let was_dropped = self.dropping.take(settled.entry());
            self.report.dropped += u64::from(is_removed && was_dropped);
            self.report.published += u64::from(is_removed && !was_dropped);
            self.give_back.committed += 1;
            self.lanes.committed(lane, settled.entry());
            if let Settled::PutOff { entry, until } = settled {
                self.put_off(lane, entry, until, refused.iter().find(|refused| refused.settled.entry() == entry));
            }
        }
        self.not_degraded();
        refused.retain(|refused| !matches!(refused.settled, Settled::PutOff { .. }));
        self.refused(refused);
    }
}
