//! Which lane is next, and what its job takes.

use std::time::Instant;

use super::{Admission, Claim, Job, LaneId, Lanes, Load, PublisherSet, TenantKey, may_hand_over};

impl Lanes {
    /// The next job, if one may start now. If a lane's next entry goes to a publisher that may not be called, the lane
    /// waits for that publisher, and its queue is dropped, since it would keep other lanes from being read.
    pub(in crate::relay) fn next_job(&mut self, admission: Admission, now: Instant) -> Option<Job> {
        while let Some(id) = self.ready_alone.front().copied()
            && (!self.is_ready(id) || self.is_not_admitted(id, admission.refused))
        {
            self.ready_alone.pop_front();
        }
        if self.running_alone || (self.running > 0 && !self.ready_alone.is_empty()) {
            return None;
        }
        let alone = self.ready_alone.pop_front();
        self.running_alone = alone.is_some();
        let (id, most) = match alone {
            Some(id) => (id, 1),
            None => self.next_ready(admission.refused, now)?,
        };
        let first = self.lanes.get(&id)?.queue.front()?;
        let legs = first.known.legs();
        let alone = self.running_alone || legs.meets(admission.probed) || first.known.alone;
        let most = most.min(self.job_max(legs));
        let others = if alone || legs.len() > 1 { 0 } else { most.saturating_sub(1) };
        let goes_along =
            |claim: &&Claim| claim.known.legs() == legs && !claim.known.alone && self.share_limits(legs, first, claim);
        let queue = &self.lanes.get(&id)?.queue;
        let entries = 1 + queue.iter().skip(1).take(others).take_while(goes_along).count();
        let lane = self.lanes.get_mut(&id)?;
        let claims: Vec<Claim> = lane.queue.drain(..entries).collect();
        (lane.running, lane.load, lane.legs) = (true, Load::of(&claims), legs);
        self.running += 1;
        self.count_running(legs, 1);
        self.take_tokens(id, legs, &claims, now);
        self.take_turn(id, legs, claims.len(), now);
        Some(Job { lane: id, claims, legs, alone })
    }

    /// The next lane whose entries may be published beside others, and how many of them.
    fn next_ready(&mut self, refused: PublisherSet, now: Instant) -> Option<(LaneId, usize)> {
        loop {
            let id = self.next_throttled(now).or_else(|| self.next_in_turn())?;
            if self.is_ready(id)
                && !self.is_not_admitted(id, refused)
                && let Some(most) = self.may_take(id, now)
            {
                return Some((id, most));
            }
        }
    }

    /// The next of the lanes that are ready.
    fn next_in_turn(&mut self) -> Option<LaneId> {
        let Self { ready, shares, throttle, running_for, .. } = self;
        ready.pop(|legs| may_hand_over(shares, legs) && throttle.is_open(legs, running_for))
    }

    /// Whether a job of this lane can start. Since it became ready, its entries may have gone, or it may have started.
    fn is_ready(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| !lane.running && !lane.queue.is_empty())
    }

    /// Charges the lane's tenant for a job, if tenants have turns.
    fn take_turn(&mut self, id: LaneId, legs: PublisherSet, entries: usize, now: Instant) {
        if let Some(shares) = &mut self.shares {
            let tenant = self.lanes.get(&id).map_or(TenantKey::default(), |lane| lane.tenant);
            self.ready.charge(tenant, legs, shares.cost(tenant, entries));
            shares.handed_over(id, legs, entries, now);
        }
    }
}
