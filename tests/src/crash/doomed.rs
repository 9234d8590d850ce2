//! A storage and a publisher that pass everything on, and pass the named points on the way.

use std::ops::RangeInclusive;
use std::sync::Arc;

use outbox_host::outbox::{
    Deployments, Held, Lease, Operator, OutboxStorageStrategy, Page, PageBounds, RelayState, Settled, Status,
    StorageError, Wanted, Watch,
};
use outbox_host::{Attempt, BoxFuture, NewEvent, Publisher, Recorded, StoredData};

use super::point::{Doom, Point, die};

/// A storage that passes the points around reading, marking and settling.
pub struct DoomedOutbox<S> {
    pub inner: S,
    pub doom: Arc<Doom>,
}

impl<S: OutboxStorageStrategy> OutboxStorageStrategy for DoomedOutbox<S> {
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        self.inner.append(events)
    }

    fn lease(&self) -> Result<Box<dyn Lease>, StorageError> {
        Ok(Box::new(DoomedLease { inner: self.inner.lease()?, doom: self.doom.clone() }))
    }

    fn entries(
        &self,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        let page = self.inner.entries(range, bounds, wanted)?;
        if !page.entries.is_empty() {
            self.doom.pass(Point::Claimed);
        }
        Ok(page)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        self.inner.held()
    }

    fn settle_max(&self) -> usize {
        self.inner.settle_max()
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        self.doom.pass(Point::BeforeCommit);
        let found = self.inner.settle(settled)?;
        self.doom.pass(Point::Committed);
        Ok(found)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.inner.sync()
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

struct DoomedLease {
    inner: Box<dyn Lease>,
    doom: Arc<Doom>,
}

impl Lease for DoomedLease {
    fn mark(&self, slot: usize, positions: &[i64]) {
        self.doom.pass(Point::BeforeMark);
        self.inner.mark(slot, positions);
        self.doom.pass(Point::Marked);
    }

    fn interrupted(&self) -> Vec<i64> {
        self.inner.interrupted()
    }

    fn clear(&self) {
        self.doom.pass(Point::BeforeClear);
        self.inner.clear();
        self.doom.pass(Point::Cleared);
    }

    fn show(&self, state: &RelayState) {
        self.inner.show(state);
    }

    fn check(&self) -> Result<(), StorageError> {
        self.inner.check()
    }
}

/// A publisher that passes the points around a call, and in which events of one name kill the process.
pub struct DoomedPublisher<P> {
    pub inner: P,
    pub doom: Arc<Doom>,
    /// The name of events that kill.
    pub killer: Option<String>,
}

impl<P: Publisher> Publisher for DoomedPublisher<P> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            self.doom.pass(Point::BeforePublish);
            if self.killer.as_ref() == Some(&event.wrapped_event.name) {
                die();
            }
            let attempt = self.inner.publish(event).await;
            self.doom.pass(Point::Published);
            attempt
        })
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }
}
