//! Draining an outbox in SQLite: one process has all of it.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Instant;

use jiff::Timestamp;
use outbox_engine::RawEntry;
use outbox_engine::outbox::{
    BroughtBack, Drain, Held, Operator, Page, PageBounds, ReadRanges, ReadTenants, Reading, RelayState, Settled, Share,
    Shares, Slice, StorageError, TenantName, Wanted, entries_one_by_one,
};
use outbox_engine::text::shown;
use parking_lot::Mutex;

use super::lease::FileLease;
use super::{SqliteOutbox, delayed, page, schema, table, tenants};

/// The right to drain an outbox, which the lock on a file beside its database gives.
pub(super) struct SqliteDrain<'a> {
    outbox: &'a SqliteOutbox,
    lease: FileLease,
    reading: Mutex<Reading>,
}

impl<'a> SqliteDrain<'a> {
    pub(super) fn take(outbox: &'a SqliteOutbox) -> Result<Self, StorageError> {
        let lease = FileLease::take(&outbox.path)?;
        outbox.reopen()?;
        for warning in table::warnings(&outbox.reader()).map_err(outbox.error("look at the table outbox"))? {
            tracing::warn!("{}", shown(warning));
        }
        let lease = lease.opened(&outbox.path)?;
        let reading = Mutex::new(Reading::new(outbox.generation()?, Instant::now()));
        Ok(Self { outbox, lease, reading })
    }
}

impl SqliteOutbox {
    fn read_range(
        &self,
        tenant: Option<&TenantName>,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, StorageError> {
        let (reader, failed) = (self.reader(), self.error("read the outbox"));
        let times = self.time_columns(&reader).map_err(&failed)?;
        page::read(&reader, times, tenant, range, bounds, wanted).map_err(failed)
    }
}

impl ReadRanges for SqliteOutbox {
    fn range(&self, range: RangeInclusive<i64>, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Slice, StorageError> {
        self.read_range(None, range, bounds, wanted)
    }

    fn generation(&self) -> Result<u64, StorageError> {
        schema::state(&self.reader()).map_err(self.error("read the outbox's generation"))
    }
}

impl ReadTenants for SqliteOutbox {
    fn knows_tenants(&self) -> Result<bool, StorageError> {
        tenants::has_index(&self.reader()).map_err(self.error("look for the index of tenants"))
    }

    fn tenant_after(&self, tenant: Option<&TenantName>) -> Result<Option<TenantName>, StorageError> {
        tenants::after(&self.reader(), tenant).map_err(self.error("list the outbox's tenants"))
    }

    fn tenants_from(&self, position: i64, max: usize) -> Result<Vec<(i64, TenantName)>, StorageError> {
        tenants::from(&self.reader(), position, max).map_err(self.error("read the tenants of new entries"))
    }

    fn last_position(&self) -> Result<Option<i64>, StorageError> {
        tenants::last_position(&self.reader()).map_err(self.error("read the last position"))
    }

    fn range_of(
        &self,
        tenant: &TenantName,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, StorageError> {
        self.read_range(Some(tenant), range, bounds, wanted)
    }
}

impl Drain for SqliteDrain<'_> {
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
        let generation = self.outbox.generation()?;
        Ok(self.reading.lock().must_reload(generation))
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        entries_one_by_one(positions, bytes_max, |position| self.outbox.entry(position))
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        page::held(&self.outbox.reader()).map_err(self.outbox.error("read what waits in the outbox"))
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        let has_written = self.outbox.has_written.swap(false, Ordering::Relaxed);
        self.outbox.settling_connection().settle(settled, has_written, || self.lease.check())
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        delayed::next(&self.outbox.reader()).map_err(self.outbox.error("read what is put off"))
    }

    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        let has_written = self.outbox.has_written.swap(false, Ordering::Relaxed);
        let mut settling_connection = self.outbox.settling_connection();
        settling_connection.bring_back((due_by, until), max, has_written, || self.lease.check())
    }

    fn settle_max(&self) -> usize {
        self.outbox.settling_connection().settle_max()
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.outbox.make_durable()
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        self.lease.mark(slot, positions);
    }

    fn interrupted(&self) -> Vec<i64> {
        self.lease.interrupted()
    }

    fn clear(&self) {
        self.lease.clear();
    }

    fn show(&self, state: &RelayState) {
        self.lease.show(state);
    }

    fn check(&self) -> Result<(), StorageError> {
        self.lease.check()
    }
}
