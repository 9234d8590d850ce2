//! A storage that passes everything on to another, so that tests change only what they look at.

use std::time::Instant;

use outbox_host::outbox::{
    BroughtBack, Deployments, Drain, Held, Operator, OutboxStorageStrategy, Page, PageBounds, RelayState, Settled,
    Status, StorageError, Wanted, Watch,
};
use outbox_host::{NewEvent, RawEntry, StoredData, Timestamp};

/// A storage whose relays drain it through something of a test's own.
pub struct DrainedThrough<S, W> {
    /// The storage.
    pub inner: S,
    /// Makes what the relays get of what the storage gives.
    pub wrap: W,
}

impl<S: OutboxStorageStrategy, W> OutboxStorageStrategy for DrainedThrough<S, W>
where
    W: for<'a> Fn(Box<dyn Drain + 'a>) -> Box<dyn Drain + 'a> + Send + Sync,
{
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        self.inner.append(events)
    }

    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError> {
        self.inner.drain().map(&self.wrap)
    }

    fn status(&self) -> Result<Status, StorageError> {
        self.inner.status()
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        self.inner.watch()
    }

    fn operator(&self) -> &dyn Operator {
        self.inner.operator()
    }

    fn deployments(&self) -> &dyn Deployments {
        self.inner.deployments()
    }
}

/// A share of an outbox that passes everything on to [`inner`](Self::inner). What a test changes, it defines itself.
pub trait PassingOn: Send + Sync {
    /// The share.
    fn inner(&self) -> &dyn Drain;

    /// See [`Drain::next_page`].
    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.inner().next_page(bounds, wanted)
    }

    /// See [`Drain::entries_at`].
    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        self.inner().entries_at(positions, bytes_max)
    }

    /// See [`Drain::settle`].
    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        self.inner().settle(settled)
    }

    /// See [`Drain::bring_back`].
    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        self.inner().bring_back(due_by, until, max)
    }

    /// See [`Drain::sync`].
    fn sync(&self) -> Result<(), StorageError> {
        self.inner().sync()
    }

    /// See [`Drain::mark`].
    fn mark(&self, slot: usize, positions: &[i64]) {
        self.inner().mark(slot, positions);
    }

    /// See [`Drain::clear`].
    fn clear(&self) {
        self.inner().clear();
    }
}

/// Such a share, as a [`Drain`].
pub struct Passing<T>(pub T);

impl<T: PassingOn> Drain for Passing<T> {
    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.0.next_page(bounds, wanted)
    }

    fn look_back(&self, bounds: PageBounds, now: Instant, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.0.inner().look_back(bounds, now, wanted)
    }

    fn look_back_at(&self) -> Option<Instant> {
        self.0.inner().look_back_at()
    }

    fn rewind(&self, position: i64) {
        self.0.inner().rewind(position);
    }

    fn changed(&self, knows_nothing: bool) {
        self.0.inner().changed(knows_nothing);
    }

    fn must_reload(&self) -> Result<bool, StorageError> {
        self.0.inner().must_reload()
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        self.0.entries_at(positions, bytes_max)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        self.0.inner().held()
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        self.0.settle(settled)
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        self.0.inner().next_put_off()
    }

    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        self.0.bring_back(due_by, until, max)
    }

    fn settle_max(&self) -> usize {
        self.0.inner().settle_max()
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.0.sync()
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        self.0.mark(slot, positions);
    }

    fn interrupted(&self) -> Vec<i64> {
        self.0.inner().interrupted()
    }

    fn clear(&self) {
        self.0.clear();
    }

    fn show(&self, state: &RelayState) {
        self.0.inner().show(state);
    }

    fn check(&self) -> Result<(), StorageError> {
        self.0.inner().check()
    }
}
