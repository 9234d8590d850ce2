//! A storage in memory for tests of settling: it records what it should do, and fails as it is configured.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::new_event::NewEvent;
use crate::outbox::{
    Deployments, Held, Lease, MemoryOutbox, Operator, OutboxStorageStrategy, Page, PageBounds, Settled, Status,
    StorageError, Wanted, Watch,
};
use crate::serde::StoredData;

#[derive(Default)]
pub(super) struct Faulty {
    pub(super) inner: MemoryOutbox,
    /// The entries of each call of `settle`; the second call fails.
    pub(super) settled: Mutex<Vec<Vec<i64>>>,
    /// The entry that it refuses to remove.
    pub(super) refused: Option<i64>,
    /// How many syncs fail before one succeeds.
    pub(super) failing_syncs: usize,
    pub(super) syncs: AtomicUsize,
}

impl OutboxStorageStrategy for Faulty {
    fn settle_max(&self) -> usize {
        2
    }

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
            return Err(StorageError::Refused { doing: "settle", cause: "no such function: app".into() });
        }
        self.inner.settle(settled)
    }

    fn sync(&self) -> Result<(), StorageError> {
        let earlier = self.syncs.fetch_add(1, Ordering::Relaxed);
        if earlier < self.failing_syncs { Err(StorageError::Full) } else { self.inner.sync() }
    }

    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        self.inner.append(events)
    }

    fn lease(&self) -> Result<Box<dyn Lease>, StorageError> {
        self.inner.lease()
    }

    fn entries(
        &self,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        self.inner.entries(range, bounds, wanted)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        self.inner.held()
    }

    fn status(&self) -> Result<Status, StorageError> {
        self.inner.status()
    }

    fn generation(&self) -> Result<u64, StorageError> {
        self.inner.generation()
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
