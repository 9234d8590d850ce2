use std::sync::Mutex;

use super::*;
use crate::outbox::{Held, MemoryOutbox, Operator, Page, PageBounds, Registry, Status, StorageError, Wanted, Watch};
use crate::recorded::NewEvent;
use crate::serde::StoredData;

/// Settles two entries at a time, and cannot settle the second two at first. It keeps what it was to settle.
#[derive(Default)]
struct TwoAtOnce(MemoryOutbox, Mutex<Vec<Vec<i64>>>);

impl OutboxStorageStrategy for TwoAtOnce {
    fn settle_max(&self) -> usize {
        2
    }

    fn settle(&self, settled: &[Settled]) -> Result<(), StorageError> {
        let mut calls = self.1.lock().unwrap();
        calls.push(settled.iter().map(Settled::position).collect());
        if calls.len() == 2 { Err(StorageError::Full) } else { self.0.settle(settled) }
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.0.sync()
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

#[test]
fn a_group_is_settled_in_pieces_and_after_a_failure_goes_on_where_it_was() {
    let outbox = TwoAtOnce::default();
    let lease = outbox.lease().unwrap();
    let settled = (1..=5).map(|position| Settled::Delivered { position, tried_before: false }).collect();
    let (order, orders) = crossbeam_channel::unbounded();
    let (_give_up, given_up) = crossbeam_channel::bounded(0);
    let (results, told) = crossbeam_channel::unbounded();
    let (committed, to_sync) = crossbeam_channel::unbounded();
    order.send(Order::Commit(Group { settled, ..Group::default() })).unwrap();
    drop(order);
    run(&outbox, lease.as_ref(), &orders, &given_up, &committed, &results);

    assert_eq!(*outbox.1.lock().unwrap(), [vec![1, 2], vec![3, 4], vec![3, 4], vec![5]]);
    let told: Vec<Message> = told.try_iter().collect();
    assert!(matches!(told.as_slice(), [Message::NotCommitted(StorageError::Full)]), "{told:?}");
    // Each piece is to be synced, and the group is reported with the last.
    let to_sync: Vec<_> = to_sync.try_iter().collect();
    let [None, None, Some(group)] = to_sync.as_slice() else { panic!("{to_sync:?}") };
    assert_eq!(group.settled.len(), 5);
}
