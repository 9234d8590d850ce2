//! How much is in memory of what was read and is not published yet: in all, for each publisher, and, if tenants have turns,
//! of each tenant.

use std::collections::HashMap;

use super::{NO_PUBLISHER, PublisherSet};
use crate::relay::job::Load;
use crate::stream::TenantKey;

#[derive(Debug)]
pub(super) struct InMemory {
    all: Load,
    /// The last is for entries that go to no publisher.
    of_legs: [Load; NO_PUBLISHER + 1],
    /// Those that have something in memory, and how much for which publisher. None if tenants have no turns.
    tenants: Option<HashMap<TenantKey, Vec<(usize, Load)>>>,
}

impl InMemory {
    pub(super) fn new() -> Self {
        Self { all: Load::default(), of_legs: [Load::default(); NO_PUBLISHER + 1], tenants: None }
    }

    /// Knows from now on what each tenant has.
    pub(super) fn know_tenants(&mut self) {
        self.tenants = Some(HashMap::new());
    }

    pub(super) fn all(&self) -> Load {
        self.all
    }

    pub(super) fn of_leg(&self, leg: usize) -> Load {
        self.of_legs.get(leg).copied().unwrap_or_default()
    }

    /// How much a tenant has, for each publisher for which it has something.
    pub(super) fn of_tenant(&self, tenant: TenantKey) -> &[(usize, Load)] {
        self.tenants.as_ref().and_then(|tenants| tenants.get(&tenant)).map_or(&[], Vec::as_slice)
    }

    /// The tenants that have something, and how much.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (TenantKey, &[(usize, Load)])> {
        self.tenants.iter().flatten().map(|(tenant, loads)| (*tenant, loads.as_slice()))
    }

    pub(super) fn add(&mut self, tenant: TenantKey, legs: PublisherSet, load: Load) {
        self.all.join(load);
        self.each_leg(legs, |of_leg| of_leg.join(load));
        let Some(tenants) = &mut self.tenants else { return };
        let loads = tenants.entry(tenant).or_default();
        for leg in legs.iter() {
            match loads.iter_mut().find(|(of, _)| *of == leg) {
                Some((_, of_leg)) => of_leg.join(load),
                None => loads.push((leg, load)),
            }
        }
        if loads.is_empty() {
            tenants.remove(&tenant);
        }
    }

    pub(super) fn remove(&mut self, tenant: TenantKey, legs: PublisherSet, load: Load) {
        self.all.remove(load);
        self.each_leg(legs, |of_leg| of_leg.remove(load));
        let Some(loads) = self.tenants.as_mut().and_then(|tenants| tenants.get_mut(&tenant)) else { return };
        for leg in legs.iter() {
            loads.iter_mut().filter(|(of, _)| *of == leg).for_each(|(_, of_leg)| of_leg.remove(load));
        }
        loads.retain(|(_, of_leg)| *of_leg != Load::default());
        if loads.is_empty()
            && let Some(tenants) = &mut self.tenants
        {
            tenants.remove(&tenant);
        }
    }

    fn each_leg(&mut self, legs: PublisherSet, mut change: impl FnMut(&mut Load)) {
        match legs.is_empty() {
            true => self.of_legs.last_mut().into_iter().for_each(change),
            false => legs.iter().for_each(|leg| self.of_legs.get_mut(leg).into_iter().for_each(&mut change)),
        }
    }
}
