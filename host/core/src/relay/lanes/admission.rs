//! Lanes whose next entry goes to a publisher that takes none now: it may not be called, or has no room. Such a lane keeps
//! nothing in memory, since that would keep other lanes from being read.

use std::collections::VecDeque;

use super::turns::Turns;
use super::{Admission, Claim, EntryId, LaneId, Lanes, PublisherSet};
use crate::relay::job::Load;
use crate::stream::TenantKey;

/// A publisher that has room again lets in this part of its room in lanes at a time: a lane may have many entries.
const LANES_SHARE: usize = 8;

/// The lanes that wait for a publisher.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// In the order in which they came.
    fresh: Turns<Waiter>,
    /// Those whose entries were probes that failed.
    probed: VecDeque<Waiter>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) lane: LaneId,
    pub(super) tenant: TenantKey,
    /// The publishers of its next entry.
    legs: PublisherSet,
    position: i64,
}

impl Waiters {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.fresh.iter().chain(&self.probed)
    }

    /// The next one to be a probe: one that has not been a probe yet, so that new events need not wait until all those
    /// that fail have had a turn.
    fn next_probe(&mut self) -> Option<Waiter> {
        self.next_fresh(|_| true).or_else(|| self.probed.pop_front())
    }

    /// The next one to go on, of those tenants that may, in the order of their positions: otherwise the probes that failed
    /// would all be the last.
    fn next(&mut self, may: impl Fn(TenantKey) -> bool) -> Option<Waiter> {
        if !self.probed.is_empty() {
            self.probed.drain(..).for_each(|waiter| self.fresh.push(waiter.tenant, waiter));
            self.fresh.sort_by_key(|waiter| waiter.position);
        }
        self.next_fresh(may)
    }

    fn next_fresh(&mut self, may: impl Fn(TenantKey) -> bool) -> Option<Waiter> {
        let (tenant, waiter) = self.fresh.pop(may)?;
        self.fresh.charge(tenant, 1);
        Some(waiter)
    }
}

impl Lanes {
    /// Whether the lane's next entry goes to one of these publishers. If so, the lane waits from now on.
    pub(super) fn is_not_admitted(&mut self, id: LaneId, refused: PublisherSet) -> bool {
        let Some(lane) = self.lanes.get_mut(&id) else { return false };
        let Some(next) = lane.queue.front().filter(|next| next.known.legs().meets(refused)) else { return false };
        let (tenant, legs, position) = (lane.tenant, next.known.legs(), next.known.id.position);
        let waiter = Waiter { lane: id, tenant, legs, position };
        lane.not_admitted = true;
        self.drop_unread(id);
        self.wait_for(waiter, refused);
        true
    }

    /// Passes over an entry that was read: one of its publishers has no room.
    pub(super) fn turn_away(&mut self, id: LaneId, claim: &Claim) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let (position, legs) = (claim.known.id.position, claim.known.legs());
        if lane.held_by != Some(position) {
            lane.missed.add(position, &mut self.missed_room);
        }
        // Later entries that are queued would overtake it.
        if lane.queue.front().is_some_and(|next| next.known.id.position > position) {
            self.drop_unread(id);
        }
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        // While something of the lane is under way, this entry is read again after it.
        if !lane.running && lane.unacked == 0 && lane.queue.is_empty() && !lane.not_admitted {
            lane.not_admitted = true;
            let tenant = lane.tenant;
            self.wait_for(Waiter { lane: id, tenant, legs, position }, legs);
        }
    }

    /// Notes that an entry of a running job was not tried after all, since these publishers are not available: its lane
    /// waits for them, behind those that wait already. So each has its turn to be the probe.
    pub(in crate::relay) fn turned_away(&mut self, id: LaneId, entry: EntryId, legs: PublisherSet) {
        // Nobody was called who is down: of several publishers one was left alone.
        if legs.is_empty() {
            return self.released(id, entry);
        }
        self.in_flight.remove(&entry);
        let lane = self.lanes.entry(id).or_default();
        if lane.held_by != Some(entry.position) {
            lane.missed.add(entry.position, &mut self.missed_room);
        }
        if !std::mem::replace(&mut lane.not_admitted, true) {
            let waiter = Waiter { lane: id, tenant: lane.tenant, legs, position: entry.position };
            let waiters = legs.iter().next().and_then(|leg| self.waiters(leg));
            waiters.into_iter().for_each(|waiters| waiters.probed.push_back(waiter));
        }
    }

    /// Has a lane wait for the first of its publishers that takes nothing now.
    fn wait_for(&mut self, waiter: Waiter, refused: PublisherSet) {
        let Some(leg) = waiter.legs.both(refused).iter().next() else { return };
        if !self.overflows(waiter.lane, leg) {
            self.waiters(leg).into_iter().for_each(|waiters| waiters.fresh.push(waiter.tenant, waiter));
        }
    }

    /// The lanes that wait for this publisher.
    fn waiters(&mut self, leg: usize) -> Option<&mut Waiters> {
        if self.waiting_for.len() <= leg {
            self.waiting_for.resize_with(leg + 1, Waiters::default);
        }
        self.waiting_for.get_mut(leg)
    }

    /// Drops the queue of a lane, to be read again.
    pub(super) fn drop_unread(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        for claim in std::mem::take(&mut lane.queue) {
            let (known, load) = (claim.known, Load::of([&claim]));
            if lane.held_by != Some(known.id.position) {
                lane.missed.add(known.id.position, &mut self.missed_room);
            }
            self.in_flight.remove(&known.id);
            self.in_memory.remove(lane.tenant, known.legs(), load);
        }
    }

    /// Lets lanes go on whose publishers may be called and have room, in the order in which they came: of a publisher
    /// that is to be probed one, of another as many as `room` says it has room for, or a few more.
    pub(in crate::relay) fn admit(&mut self, admission: Admission, full: PublisherSet, room: impl Fn(usize) -> usize) {
        let refused = admission.refused | full;
        for leg in 0..self.waiting_for.len() {
            if PublisherSet::one(leg).meets(refused) || self.throttle.stands_still(leg) {
                continue;
            }
            let is_probed = PublisherSet::one(leg).meets(admission.probed);
            let lanes =
                if is_probed { usize::from(!self.is_running_for(leg)) } else { room(leg).div_ceil(LANES_SHARE) };
            for _ in 0..lanes {
                let Some(waiter) = self.next_waiter(leg, is_probed) else { break };
                if waiter.legs.meets(refused) {
                    self.wait_for(waiter, refused);
                } else if let Some(lane) = self.lanes.get_mut(&waiter.lane) {
                    lane.not_admitted = false;
                    self.retire(waiter.lane);
                }
            }
        }
        self.recall_overflow(refused);
    }

    /// The next lane that waits for this publisher, and whose tenant may have more in memory for it.
    fn next_waiter(&mut self, leg: usize, is_probed: bool) -> Option<Waiter> {
        let Self { waiting_for, shares, .. } = self;
        let passed_over = |tenant| shares.as_ref().map_or(PublisherSet::NONE, |shares| shares.passed_over(tenant));
        let waiters = waiting_for.get_mut(leg)?;
        match is_probed {
            true => waiters.next_probe(),
            false => waiters.next(|tenant| !passed_over(tenant).meets(PublisherSet::one(leg))),
        }
    }

    /// How many lanes wait for this publisher, and keep nothing in memory.
    pub(super) fn waiting_lanes(&self, leg: usize) -> usize {
        let waiters = self.waiting_for.get(leg).map_or(0, |waiters| waiters.fresh.len() + waiters.probed.len());
        waiters + self.throttle.unkept_len(leg)
    }

    /// Whether a job that calls this publisher is under way.
    pub(in crate::relay) fn is_running_for(&self, leg: usize) -> bool {
        self.running_for.get(leg).is_some_and(|running| *running > 0)
    }

    pub(super) fn count_running(&mut self, legs: PublisherSet, change: i16) {
        for leg in legs.iter() {
            if let Some(running) = self.running_for.get_mut(leg) {
                *running = running.saturating_add_signed(change);
            }
        }
    }
}
