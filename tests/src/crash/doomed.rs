//! A storage and a publisher that pass everything on, and pass the named points on the way.

use std::sync::Arc;

use outbox_host::outbox::{BroughtBack, Drain, OutboxStorageStrategy, Page, PageBounds, Settled, StorageError, Wanted};
use outbox_host::{Attempt, BoxFuture, Publisher, Recorded, Timestamp};

use super::point::{Doom, Point, die};
use crate::passing_on::{DrainedThrough, Passing, PassingOn};

/// A storage that passes the points around reading, marking and settling.
pub fn doomed<S: OutboxStorageStrategy>(inner: S, doom: Arc<Doom>) -> impl OutboxStorageStrategy {
    DrainedThrough { inner, wrap: through(doom) }
}

fn through(doom: Arc<Doom>) -> impl for<'a> Fn(Box<dyn Drain + 'a>) -> Box<dyn Drain + 'a> + Send + Sync {
    move |inner| Box::new(Passing(DoomedDrain { inner, doom: doom.clone() }))
}

struct DoomedDrain<'a> {
    inner: Box<dyn Drain + 'a>,
    doom: Arc<Doom>,
}

impl PassingOn for DoomedDrain<'_> {
    fn inner(&self) -> &dyn Drain {
        self.inner.as_ref()
    }

    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        let page = self.inner.next_page(bounds, wanted)?;
        if !page.entries.is_empty() {
            self.doom.pass(Point::Claimed);
        }
        Ok(page)
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        self.doom.pass(Point::BeforeCommit);
        let found = self.inner.settle(settled)?;
        self.doom.pass(Point::Committed);
        Ok(found)
    }

    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        self.doom.pass(Point::BeforeBringBack);
        let brought_back = self.inner.bring_back(due_by, until, max)?;
        self.doom.pass(Point::BroughtBack);
        Ok(brought_back)
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        self.doom.pass(Point::BeforeMark);
        self.inner.mark(slot, positions);
        self.doom.pass(Point::Marked);
    }

    fn clear(&self) {
        self.doom.pass(Point::BeforeClear);
        self.inner.clear();
        self.doom.pass(Point::Cleared);
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

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            self.doom.pass(Point::BeforePublish);
            if events.iter().any(|event| self.killer.as_ref() == Some(&event.wrapped_event.name)) {
                die();
            }
            let attempts = self.inner.publish_batch(events).await;
            self.doom.pass(Point::Published);
            attempts
        })
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }
}
