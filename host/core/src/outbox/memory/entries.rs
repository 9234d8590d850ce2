//! The entries of an outbox in memory, by their positions and by their tenants.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, RangeInclusive};

use crate::outbox::TenantName;
use crate::raw::RawEntry;
use crate::stream::tenant_name;

/// By position; also by tenant.
#[derive(Default)]
pub(super) struct Entries {
    all: BTreeMap<i64, RawEntry>,
    tenants: BTreeMap<TenantName, BTreeSet<i64>>,
}

impl Deref for Entries {
    type Target = BTreeMap<i64, RawEntry>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Entries {
    /// Puts an entry in its place. It replaces another there.
    pub(super) fn insert(&mut self, entry: RawEntry) {
        let position = entry.position;
        self.remove(&position);
        self.tenants.entry(name(&entry)).or_default().insert(position);
        self.all.insert(position, entry);
    }

    pub(super) fn remove(&mut self, position: &i64) -> Option<RawEntry> {
        let removed = self.all.remove(position)?;
        let tenant = name(&removed);
        if let Some(positions) = self.tenants.get_mut(&tenant) {
            positions.remove(position);
            if positions.is_empty() {
                self.tenants.remove(&tenant);
            }
        }
        Some(removed)
    }

    /// The tenants, in the order of their names.
    pub(super) fn tenants(&self) -> &BTreeMap<TenantName, BTreeSet<i64>> {
        &self.tenants
    }

    /// The entries of a tenant in this range.
    pub(super) fn of(&self, tenant: &TenantName, range: RangeInclusive<i64>) -> impl Iterator<Item = &RawEntry> {
        let positions = self.tenants.get(tenant).into_iter().flat_map(move |positions| positions.range(range.clone()));
        positions.filter_map(|position| self.all.get(position))
    }
}

/// The name of an entry's tenant.
pub(super) fn name(entry: &RawEntry) -> TenantName {
    tenant_name(&entry.row().tenant_id).as_bytes().into()
}
