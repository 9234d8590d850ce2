//! A share of an outbox in memory for tests of settling: it records what it should do, and fails as it is configured.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jiff::Timestamp;

use crate::outbox::{BroughtBack, Drain, Held, Page, PageBounds, RelayState, Settled, StorageError, Wanted};
use crate::raw::RawEntry;

pub(super) struct Faulty<'a> {
    pub(super) inner: Box<dyn Drain + 'a>,
    /// The entries of each call of `settle`; the second call fails.
    pub(super) settled: Mutex<Vec<Vec<i64>>>,
    /// The entry that it refuses to remove.
    pub(super) refused: Option<i64>,
    /// How many syncs fail before one succeeds.
    pub(super) failing_syncs: usize,
    pub(super) syncs: AtomicUsize,
    /// What was marked, in any slot.
    pub(super) marks: Mutex<Vec<Vec<i64>>>,
}

impl<'a> Faulty<'a> {
    pub(super) fn new(inner: Box<dyn Drain + 'a>) -> Self {
        let (settled, marks, syncs) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        Self { inner, settled, refused: None, failing_syncs: 0, syncs, marks }
    }
}

impl Drain for Faulty<'_> {
    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        let mut calls = self.settled.lock().unwrap();
        calls.push(settled.iter().map(|settled| settled.entry().position).collect());
        if calls.len() == 2 {
            return Err(StorageError::Full);
        }
        let refuses = |settled: &Settled| match settled {
            Settled::Delivered { entry, .. } => self.refused == Some(entry.position),
            _ => false,
        };
        if settled.iter().any(refuses) {
            return Err(StorageError::Refused("cannot settle: no such function: app".into()));
        }
        self.inner.settle(settled)
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        self.inner.next_put_off()
    }

    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        self.inner.bring_back(due_by, until, max)
    }

    fn settle_max(&self) -> usize {
        2
    }

    fn sync(&self) -> Result<(), StorageError> {
        let earlier = self.syncs.fetch_add(1, Ordering::Relaxed);
        if earlier < self.failing_syncs { Err(StorageError::Full) } else { self.inner.sync() }
    }

    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.inner.next_page(bounds, wanted)
    }

    fn look_back(&self, bounds: PageBounds, now: Instant, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.inner.look_back(bounds, now, wanted)
    }

    fn look_back_at(&self) -> Option<Instant> {
        self.inner.look_back_at()
    }

    fn rewind(&self, position: i64) {
        self.inner.rewind(position);
    }

    fn changed(&self, knows_nothing: bool) {
        self.inner.changed(knows_nothing);
    }

    fn must_reload(&self) -> Result<bool, StorageError> {
        self.inner.must_reload()
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        self.inner.entries_at(positions, bytes_max)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        self.inner.held()
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        self.marks.lock().unwrap().push(positions.to_owned());
        self.inner.mark(slot, positions);
    }

    fn interrupted(&self) -> Vec<i64> {
        self.inner.interrupted()
    }

    fn clear(&self) {
        self.inner.clear();
    }

    fn show(&self, state: &RelayState) {
        self.inner.show(state);
    }

    fn check(&self) -> Result<(), StorageError> {
        self.inner.check()
    }
}
