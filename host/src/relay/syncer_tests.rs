use std::sync::Mutex;

use super::*;
use crate::outbox::{
    Held, Lease, MemoryOutbox, Operator, OutboxStorageStrategy, Page, PageBounds, Registry, Settled, Status,
    StorageError, Wanted, Watch,
};
use crate::recorded::NewEvent;
use crate::serde::StoredData;

/// Answers its syncs with these results, the last first, and then with success.
struct Syncs(MemoryOutbox, Mutex<Vec<Result<(), StorageError>>>, Mutex<usize>);

impl OutboxStorageStrategy for Syncs {
    fn sync(&self) -> Result<(), StorageError> {
        *self.2.lock().unwrap() += 1;
        self.1.lock().unwrap().pop().unwrap_or(Ok(()))
    }

    fn settle_max(&self) -> usize {
        self.0.settle_max()
    }

    fn settle(&self, settled: &[Settled]) -> Result<(), StorageError> {
        self.0.settle(settled)
    }

    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        self.0.append(events)
    }

    fn lease(&self) -> Result<Box<dyn Lease>, StorageError> {
        self.0.lease()
    }

    fn entries(&self, after: i64, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.0.entries(after, bounds, wanted)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        self.0.held()
    }

    fn status(&self) -> Result<Status, StorageError> {
        self.0.status()
    }

    fn generation(&self) -> Result<u64, StorageError> {
        self.0.generation()
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        self.0.watch()
    }

    fn operator(&self) -> &dyn Operator {
        self.0.operator()
    }

    fn registry(&self) -> &dyn Registry {
        self.0.registry()
    }
}

/// What is reported of two groups, the first of them in pieces, and how many syncs that took.
fn reported(syncs: Vec<Result<(), StorageError>>, given_up: bool) -> (Vec<Message>, usize) {
    let outbox = Syncs(MemoryOutbox::default(), Mutex::new(syncs), Mutex::new(0));
    let (committed, to_sync) = crossbeam_channel::unbounded();
    for message in [None, Some(Group::default()), Some(Group::default())] {
        committed.send(message).unwrap();
    }
    drop(committed);
    let (give_up, all_given_up) = crossbeam_channel::bounded(0);
    let give_up = Some(give_up).filter(|_| !given_up);
    let (results, told) = crossbeam_channel::unbounded();
    run(&outbox, &to_sync, &all_given_up, &results);
    drop(give_up);
    (told.try_iter().collect(), *outbox.2.lock().unwrap())
}

#[test]
fn one_sync_serves_all_that_was_committed_before_it() {
    let (told, syncs) = reported(Vec::new(), false);
    assert!(matches!(told.as_slice(), [Message::Committed(_), Message::Committed(_)]), "{told:?}");
    assert_eq!(syncs, 1);
}

#[test]
fn nothing_is_reported_as_committed_until_a_sync_has_succeeded() {
    let (told, syncs) = reported(vec![Err(StorageError::Full), Err(StorageError::Full)], false);
    use Message::{Committed, NotCommitted};
    assert!(matches!(told.as_slice(), [NotCommitted(_), NotCommitted(_), Committed(_), Committed(_)]), "{told:?}");
    assert_eq!(syncs, 3);
}

#[test]
fn a_relay_that_gives_up_reports_nothing_as_committed() {
    let (told, syncs) = reported(vec![Err(StorageError::Full)], true);
    assert!(matches!(told.as_slice(), [Message::NotCommitted(_), Message::GaveUp, Message::GaveUp]), "{told:?}");
    assert_eq!(syncs, 1);
}
