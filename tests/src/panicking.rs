//! A storage of which one part panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outbox_host::outbox::{
    Deployments, Drain, Operator, OutboxStorageStrategy, Page, PageBounds, Settled, Status, StorageError, Wanted, Watch,
};
use outbox_host::{JsonSerde, NewEvent, Payload, Serde, SerdeError, StoredData};

use crate::passing_on::{Passing, PassingOn};

/// Which part of it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The session's own, which reads.
    Read,
    /// The acker's.
    Settle,
    /// The syncer's.
    Sync,
    /// The watch's.
    Watch,
    /// That of the thread which follows the versions of publishers.
    Deployments,
}

/// A storage that passes everything on, and panics once.
pub struct Panicking<S> {
    /// The storage.
    pub inner: S,
    /// The part that panics.
    pub part: Part,
    /// Whether it has.
    pub has_panicked: AtomicBool,
}

struct PanickingDrain<'a, S> {
    inner: Box<dyn Drain + 'a>,
    of: &'a Panicking<S>,
}

impl<S: Send + Sync> PassingOn for PanickingDrain<'_, S> {
    fn inner(&self) -> &dyn Drain {
        self.inner.as_ref()
    }

    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.of.pass(Part::Read);
        self.inner.next_page(bounds, wanted)
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        self.of.pass(Part::Settle);
        self.inner.settle(settled)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.of.pass(Part::Sync);
        self.inner.sync()
    }
}

impl<S> Panicking<S> {
    fn pass(&self, part: Part) {
        if self.part == part && !self.has_panicked.swap(true, Ordering::SeqCst) {
            panic!("nobody foresaw this");
        }
    }
}

impl<S: OutboxStorageStrategy> OutboxStorageStrategy for Panicking<S> {
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        self.inner.append(events)
    }

    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError> {
        Ok(Box::new(Passing(PanickingDrain { inner: self.inner.drain()?, of: self })))
    }

    fn status(&self) -> Result<Status, StorageError> {
        self.inner.status()
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        let panics = self.part == Part::Watch && !self.has_panicked.swap(true, Ordering::SeqCst);
        if panics { Ok(Box::new(PanickingWatch)) } else { self.inner.watch() }
    }

    fn operator(&self) -> &dyn Operator {
        self.inner.operator()
    }

    /// Called by the thread that keeps the publishers up, each time that something has changed.
    fn deployments(&self) -> &dyn Deployments {
        if std::thread::current().name() == Some("outbox-maintain") {
            self.pass(Part::Deployments);
        }
        self.inner.deployments()
    }
}

/// Decodes, on the threads of the callers, and panics once.
#[derive(Clone, Default)]
pub struct PanickingSerde {
    /// Whether it has.
    pub has_panicked: Arc<AtomicBool>,
}

impl Serde for PanickingSerde {
    fn serialize(&self, data: &Payload) -> Result<StoredData, SerdeError> {
        JsonSerde.serialize(data)
    }

    fn deserialize(&self, data: StoredData) -> Result<Payload, SerdeError> {
        assert!(self.has_panicked.swap(true, Ordering::SeqCst), "nobody foresaw this");
        JsonSerde.deserialize(data)
    }
}

struct PanickingWatch;

impl Watch for PanickingWatch {
    fn wait(&mut self, _: Duration) -> bool {
        panic!("nobody foresaw this")
    }
}
