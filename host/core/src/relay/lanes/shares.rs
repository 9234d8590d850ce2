//! What each tenant may have in memory, if tenants have turns: of each publisher's part no more than is still free. So one
//! tenant alone has half of it, and whoever comes later finds room.
//!
//! A tenant that has its share of a publisher's part is not read on. If the publisher stays slow, its entries for that
//! publisher are passed over, and it is read on for the others: as in [`bulkheads`](super::super::bulkheads), but for this
//! tenant alone.

use std::collections::HashMap;
use std::time::Instant;

use super::in_memory::InMemory;
use super::pace::Pace;
use super::ready::Ready;
use super::{JOB_MAX, LaneId, Lanes, PublisherSet};
use crate::outbox::Share;
use crate::raw::RawEntry;
use crate::relay::bulkheads::{PATIENCE, part_of};
use crate::relay::job::Load;
use crate::relay::options::TENANT_WEIGHT_MAX;
use crate::stream::TenantKey;

/// What an entry of a tenant with weight 1 puts the tenant's next turn off by.
pub(super) const ENTRY_COST: u64 = 1_000_000;

/// The rules of turns.
#[derive(Debug)]
pub(in crate::relay) struct Shares {
    /// Of those tenants whose weight is not 1.
    weights: HashMap<TenantKey, u32>,
    /// How each publisher works.
    paces: Vec<Pace>,
    /// Each publisher's part.
    max: Load,
    /// Whether entries may be passed over. A pass reads everything once, and a single publisher has no others.
    passes_over: bool,
    used_up: HashMap<(TenantKey, usize), UsedUp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UsedUp {
    Since(Instant),
    /// Its entries for that publisher are passed over, until it has half of its share.
    PassedOver,
}

impl Shares {
    pub(in crate::relay) fn new(weights: HashMap<TenantKey, u32>, paces: Vec<Pace>, in_pass: bool) -> Self {
        let (max, passes_over) = (part_of(paces.len()), !in_pass && paces.len() > 1);
        Self { weights, paces, max, passes_over, used_up: HashMap::new() }
    }

    #[cfg(test)]
    pub(super) fn with_part(self, max: Load) -> Self {
        Self { max, ..self }
    }

    fn weight(&self, tenant: TenantKey) -> u32 {
        self.weights.get(&tenant).copied().unwrap_or(1).clamp(1, TENANT_WEIGHT_MAX)
    }

    /// What so many entries put a tenant's next turn off by.
    pub(super) fn cost(&self, tenant: TenantKey, entries: usize) -> u64 {
        ENTRY_COST.saturating_mul(entries as u64) / u64::from(self.weight(tenant))
    }

    fn is_passed_over(&self, tenant: TenantKey, leg: usize) -> bool {
        self.used_up.get(&(tenant, leg)) == Some(&UsedUp::PassedOver)
    }

    /// What a tenant may have read now.
    pub(super) fn share(&self, in_memory: &InMemory, tenant: TenantKey) -> Share {
        let mut room = usize::MAX;
        let has = in_memory.of_tenant(tenant);
        for leg in 0..self.paces.len() {
            let free = self.free(in_memory.of_leg(leg));
            match has.iter().find(|(of, _)| *of == leg) {
                Some(_) if self.is_passed_over(tenant, leg) => {}
                Some((_, load)) if load.entries >= free.entries || load.bytes >= free.bytes => room = 0,
                Some((_, load)) => room = room.min((free.entries - load.entries).div_ceil(2)),
                // All entries of a page may go to one publisher. What goes to one without room is passed over.
                None if free.entries > 0 => room = room.min(free.entries.div_ceil(2)),
                None => {}
            }
        }
        Share { room, weight: self.weight(tenant) }
    }

    /// The publishers whose entries of this tenant are passed over.
    pub(super) fn passed_over(&self, tenant: TenantKey) -> PublisherSet {
        if self.used_up.is_empty() {
            return PublisherSet::NONE;
        }
        let legs = (0..self.paces.len()).filter(|leg| self.is_passed_over(tenant, *leg));
        legs.fold(PublisherSet::NONE, |legs, leg| legs | PublisherSet::one(leg))
    }

    /// Takes in which tenants have their shares for how long.
    fn update(&mut self, in_memory: &InMemory, now: Instant) {
        let mut used_up = HashMap::new();
        let all =
            in_memory.tenants().flat_map(|(tenant, loads)| loads.iter().map(move |(leg, load)| (tenant, *leg, load)));
        for (tenant, leg, load) in all {
            let free = self.free(in_memory.of_leg(leg));
            let is_used_up = load.entries >= free.entries || load.bytes >= free.bytes;
            let is_half_free = load.entries <= free.entries / 2 && load.bytes <= free.bytes / 2;
            let next = match self.used_up.get(&(tenant, leg)) {
                Some(UsedUp::PassedOver) => Some(UsedUp::PassedOver).filter(|_| !is_half_free),
                Some(UsedUp::Since(since)) if is_used_up && now >= *since + PATIENCE => Some(UsedUp::PassedOver),
                Some(since) => Some(*since).filter(|_| is_used_up),
                None => Some(UsedUp::Since(now)).filter(|_| is_used_up),
            };
            used_up.extend(next.map(|next| ((tenant, leg), next)));
        }
        self.used_up = used_up;
    }

    // --- what is handed over -----------------------------------------------------------------------------------

    fn may_hand_over(&self, legs: PublisherSet) -> bool {
        legs.iter().filter_map(|leg| self.paces.get(leg)).all(Pace::has_room)
    }

    fn job_max(&self, legs: PublisherSet) -> usize {
        let paces = legs.iter().filter_map(|leg| self.paces.get(leg));
        paces.map(Pace::job_max).min().unwrap_or(JOB_MAX)
    }

    pub(super) fn handed_over(&mut self, id: LaneId, legs: PublisherSet, entries: usize, now: Instant) {
        for leg in legs.iter() {
            self.paces.get_mut(leg).into_iter().for_each(|pace| pace.begun(id, entries, now));
        }
    }

    fn free(&self, of_leg: Load) -> Load {
        let Load { entries, bytes } = self.max;
        Load { entries: entries.saturating_sub(of_leg.entries), bytes: bytes.saturating_sub(of_leg.bytes) }
    }
}

/// Whether a tenant may have more in memory.
pub(super) fn has_share(shares: &Option<Shares>, in_memory: &InMemory, tenant: TenantKey) -> bool {
    shares.as_ref().is_none_or(|shares| shares.share(in_memory, tenant).room > 0)
}

/// Whether more may be handed over to all of these publishers.
pub(super) fn may_hand_over(shares: &Option<Shares>, legs: PublisherSet) -> bool {
    shares.as_ref().is_none_or(|shares| shares.may_hand_over(legs))
}

impl Lanes {
    /// Gives tenants turns.
    pub(in crate::relay) fn with_turns(mut self, shares: Shares) -> Self {
        self.in_memory.know_tenants();
        (self.ready, self.shares) = (Ready::InTurns(Vec::new()), Some(shares));
        self
    }

    /// What a tenant may have read now.
    pub(in crate::relay) fn share(&self, tenant: TenantKey) -> Share {
        self.shares.as_ref().map_or(Share::ALL, |shares| shares.share(&self.in_memory, tenant))
    }

    /// The most entries of a job for these publishers.
    pub(super) fn job_max(&self, legs: PublisherSet) -> usize {
        self.shares.as_ref().map_or(JOB_MAX, |shares| shares.job_max(legs))
    }

    /// The tenant of an entry, if tenants have turns.
    pub(super) fn tenant(&self, entry: &RawEntry) -> TenantKey {
        if self.shares.is_some() { entry.tenant_key() } else { TenantKey::default() }
    }

    /// The publishers whose entries of this tenant are passed over.
    pub(super) fn passed_over(&self, tenant: TenantKey) -> PublisherSet {
        self.shares.as_ref().map_or(PublisherSet::NONE, |shares| shares.passed_over(tenant))
    }

    /// Takes in which tenants have their shares for how long.
    pub(in crate::relay) fn update_shares(&mut self, now: Instant) {
        if let Some(shares) = self.shares.as_mut().filter(|shares| shares.passes_over) {
            shares.update(&self.in_memory, now);
        }
    }

    /// When a tenant has waited for its share for long enough.
    pub(in crate::relay) fn shares_wake_at(&self) -> Option<Instant> {
        let shares = self.shares.as_ref().filter(|shares| shares.passes_over)?;
        let since = shares.used_up.values().filter_map(|used_up| match used_up {
            UsedUp::Since(since) => Some(*since + PATIENCE),
            UsedUp::PassedOver => None,
        });
        since.min()
    }

    /// Takes in how many entries a call of each publisher may have.
    pub(in crate::relay) fn set_calls(&mut self, call: impl Fn(usize) -> usize) {
        let paces = self.shares.iter_mut().flat_map(|shares| &mut shares.paces);
        paces.enumerate().for_each(|(leg, pace)| pace.set_call(call(leg)));
    }

    /// Notes that one of these publishers has done with a job of this lane.
    pub(in crate::relay) fn done(&mut self, id: LaneId, legs: PublisherSet, now: Instant) {
        let Some(shares) = &mut self.shares else { return };
        let entries = self.lanes.get(&id).map_or(0, |lane| lane.load.entries);
        for leg in legs.iter() {
            shares.paces.get_mut(leg).into_iter().for_each(|pace| pace.ended(id, entries, now));
        }
    }
}
