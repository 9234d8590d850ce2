//! Draining an outbox in memory.

use std::ops::{Bound, RangeInclusive};
use std::time::Instant;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{MemoryOutbox, entries};
use crate::outbox::{
    BroughtBack, Drain, Held, Page, PageBounds, ReadRanges, ReadTenants, Reading, RelayState, Settled, Share, Shares,
    Slice, StorageError, TenantName, Wanted, entries_one_by_one,
};
use crate::raw::RawEntry;

/// Only one of an outbox's drains is there at a time.
pub(super) struct MemoryDrain<'a> {
    outbox: &'a MemoryOutbox,
    reading: Mutex<Reading>,
}

impl<'a> MemoryDrain<'a> {
    pub(super) fn take(outbox: &'a MemoryOutbox) -> Result<Self, StorageError> {
        let mut kept = outbox.kept();
        if std::mem::replace(&mut kept.leased, true) {
            return Err(StorageError::Leased { by: "another relay".into() });
        }
        Ok(Self { outbox, reading: Mutex::new(Reading::new(kept.generation, Instant::now())) })
    }
}

impl ReadRanges for MemoryOutbox {
    fn range(&self, range: RangeInclusive<i64>, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Slice, StorageError> {
        let kept = self.kept();
        if range.is_empty() {
            return Ok(Slice { end: true, ..Slice::default() });
        }
        Ok(slice(kept.entries.range(range).map(|(_, entry)| entry), bounds, wanted))
    }

    fn generation(&self) -> Result<u64, StorageError> {
        Ok(self.kept().generation)
    }
}

impl ReadTenants for MemoryOutbox {
    fn knows_tenants(&self) -> Result<bool, StorageError> {
        Ok(true)
    }

    fn tenant_after(&self, tenant: Option<&TenantName>) -> Result<Option<TenantName>, StorageError> {
        let after = tenant.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = self.kept();
        let next = kept.entries.tenants().range::<TenantName, _>((after, Bound::Unbounded)).next();
        Ok(next.map(|(tenant, _)| tenant.clone()))
    }

    fn tenants_from(&self, position: i64, max: usize) -> Result<Vec<(i64, TenantName)>, StorageError> {
        let kept = self.kept();
        let entries = kept.entries.range(position..).take(max);
        Ok(entries.map(|(position, entry)| (*position, entries::name(entry))).collect())
    }

    fn last_position(&self) -> Result<Option<i64>, StorageError> {
        Ok(self.kept().entries.last_key_value().map(|(position, _)| *position))
    }

    fn range_of(
        &self,
        tenant: &TenantName,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, StorageError> {
        if range.is_empty() {
            return Ok(Slice { end: true, ..Slice::default() });
        }
        Ok(slice(self.kept().entries.of(tenant, range), bounds, wanted))
    }
}

/// As many of these as the bounds allow.
fn slice<'e>(entries: impl Iterator<Item = &'e RawEntry>, bounds: PageBounds, wanted: Wanted<'_>) -> Slice {
    let mut rest = entries.take(bounds.looked_at_max);
    let mut slice = Slice::default();
    let (mut looked_at, mut bytes) = (0, 0);
    while slice.entries.len() < bounds.read_max && bytes < bounds.bytes_max {
        let Some(entry) = rest.next() else {
            slice.end = looked_at < bounds.looked_at_max;
            break;
        };
        looked_at += 1;
        slice.last = Some(entry.position);
        if wanted(entry.id(), entry.stream_key()) {
            bytes += entry.bytes();
            slice.entries.push(entry.clone());
        }
    }
    slice
}

impl Drain for MemoryDrain<'_> {
    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.next_page_in_turns(bounds, &mut |_| Share::ALL, wanted)
    }

    fn take_turns(&self, begin: f64) -> Result<bool, StorageError> {
        self.reading.lock().take_turns(self.outbox, begin, Instant::now())
    }

    fn next_page_in_turns(
        &self,
        bounds: PageBounds,
        shares: Shares<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        self.reading.lock().next_page(self.outbox, bounds, shares, wanted)
    }

    fn look_back(&self, bounds: PageBounds, now: Instant, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.reading.lock().look_back(self.outbox, bounds, now, wanted)
    }

    fn look_back_at(&self) -> Option<Instant> {
        Some(self.reading.lock().look_back_at())
    }

    fn rewind(&self, position: i64) {
        self.reading.lock().rewind(position);
    }

    fn changed(&self, knows_nothing: bool) {
        self.reading.lock().changed(knows_nothing);
    }

    fn must_reload(&self) -> Result<bool, StorageError> {
        Ok(self.reading.lock().must_reload(self.outbox.generation()?))
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        entries_one_by_one(positions, bytes_max, |position| Ok(self.outbox.kept().entries.get(&position).cloned()))
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        Ok(self.outbox.kept().held())
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        Ok(self.outbox.change(|kept| settled.iter().filter(|settled| kept.settle(settled)).count()))
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        Ok(self.outbox.kept().next_put_off())
    }

    fn bring_back(&self, _due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        Ok(self.outbox.change(|kept| kept.bring_back(until, max)))
    }

    fn settle_max(&self) -> usize {
        usize::MAX
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        self.outbox.kept().calls.insert(slot, positions.to_vec());
    }

    fn interrupted(&self) -> Vec<i64> {
        let mut positions: Vec<i64> = self.outbox.kept().calls.values().flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    fn clear(&self) {
        self.outbox.kept().calls.clear();
    }

    fn show(&self, state: &RelayState) {
        self.outbox.kept().state = Some(state.clone());
    }

    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for MemoryDrain<'_> {
    fn drop(&mut self) {
        self.outbox.kept().leased = false;
    }
}
