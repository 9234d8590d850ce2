//! No outbox: it drops what is appended, and publishes nothing.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::deployments::{CanaryShare, Counts, Deployed, Deployments, PublisherVersion, RolledBack, unknown};
use super::operator::{Act, AttemptRecord, AuditRecord, DeadLetter, Operator, Pruned, Retention, Selection};
use super::{
    BroughtBack, Drain, Held, OutboxStorageStrategy, Page, PageBounds, RelayState, Settled, Status, StorageError,
    Wanted, Watch,
};
use crate::new_event::NewEvent;
use crate::raw::RawEntry;
use crate::row::{Column, Field};
use crate::serde::StoredData;

/// The strategy for an application without an outbox, for example in a test environment. It takes every event and keeps
/// none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoOutbox;

impl OutboxStorageStrategy for NoOutbox {
    fn append(&self, _: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        Ok(Vec::new())
    }

    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError> {
        Ok(Box::new(Self))
    }

    fn status(&self) -> Result<Status, StorageError> {
        Ok(Status::default())
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        Ok(Box::new(Self))
    }

    fn operator(&self) -> &dyn Operator {
        self
    }

    fn deployments(&self) -> &dyn Deployments {
        self
    }
}

impl Drain for NoOutbox {
    fn next_page(&self, _: PageBounds, _: Wanted<'_>) -> Result<Page, StorageError> {
        Ok(Page { end: true, ..Page::default() })
    }

    fn look_back(&self, _: PageBounds, _: Instant, _: Wanted<'_>) -> Result<Page, StorageError> {
        Ok(Page { end: true, ..Page::default() })
    }

    fn look_back_at(&self) -> Option<Instant> {
        None
    }

    fn rewind(&self, _: i64) {}

    fn changed(&self, _: bool) {}

    fn must_reload(&self) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn entries_at(&self, positions: &[i64], _: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        Ok(vec![None; positions.len()])
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        Ok(Vec::new())
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        Ok(settled.len())
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        Ok(None)
    }

    fn bring_back(&self, _: Timestamp, _: Timestamp, _: usize) -> Result<BroughtBack, StorageError> {
        Ok(BroughtBack::default())
    }

    fn settle_max(&self) -> usize {
        usize::MAX
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn mark(&self, _: usize, _: &[i64]) {}

    fn interrupted(&self) -> Vec<i64> {
        Vec::new()
    }

    fn clear(&self) {}

    fn show(&self, _: &RelayState) {}

    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Watch for NoOutbox {
    fn wait(&mut self, patience: Duration) -> bool {
        std::thread::park_timeout(patience);
        false
    }
}

impl Operator for NoOutbox {
    fn entry(&self, _: i64) -> Result<Option<RawEntry>, StorageError> {
        Ok(None)
    }

    fn dead_letters(&self, _: &Selection, _: usize) -> Result<Vec<DeadLetter>, StorageError> {
        Ok(Vec::new())
    }

    fn dead_letter(&self, _: &Selection) -> Result<Option<DeadLetter>, StorageError> {
        Ok(None)
    }

    fn dead_entry(&self, _: i64) -> Result<Option<RawEntry>, StorageError> {
        Ok(None)
    }

    fn attempts(&self, _: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        Ok(Vec::new())
    }

    fn retry_dead_letters(&self, _: &Selection, _: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(Vec::new())
    }

    fn discard_dead_letters(&self, _: &Selection, _: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(Vec::new())
    }

    fn mend_dead_letter(&self, _: i64, _: &[(Column, Field<'_>)], _: &Act) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn audit(&self, _: usize) -> Result<Vec<AuditRecord>, StorageError> {
        Ok(Vec::new())
    }

    fn prune(&self, _: &Retention, _: &Act, _: usize, _: bool) -> Result<Pruned, StorageError> {
        Ok(Pruned::default())
    }
}

impl Deployments for NoOutbox {
    fn deploy(
        &self,
        publisher: &str,
        _: &[u8],
        _: Option<CanaryShare>,
        _: &str,
        _: &Act,
    ) -> Result<Deployed, StorageError> {
        Err(StorageError::Declined(format!("there is no outbox that {publisher} could be kept in")))
    }

    fn versions(&self, _: Option<&str>) -> Result<Vec<PublisherVersion>, StorageError> {
        Ok(Vec::new())
    }

    fn module(&self, _: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(None)
    }

    fn rollback(&self, publisher: &str, _: Option<u32>, _: &Act) -> Result<RolledBack, StorageError> {
        Err(unknown(publisher, &[]))
    }

    fn remove(&self, publisher: &str, _: Option<u32>, _: &Act) -> Result<u32, StorageError> {
        Err(unknown(publisher, &[]))
    }

    fn begin_activation(&self, _: &str, _: u32) -> Result<Option<u32>, StorageError> {
        Ok(None)
    }

    fn activated(&self, _: &str, _: u32, _: Timestamp) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn canary_started(&self, _: &str, _: u32, _: Timestamp) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn refused(&self, _: &str, _: u32, _: &str) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn activation_given_up(&self, _: &str, _: u32) -> Result<(), StorageError> {
        Ok(())
    }

    fn give_back(&self, _: &str, _: &str) -> Result<(), StorageError> {
        Ok(())
    }

    fn count(&self, _: &str, _: u32, _: Counts) -> Result<(), StorageError> {
        Ok(())
    }

    fn registry_generation(&self) -> Result<u64, StorageError> {
        Ok(0)
    }
}
