use super::*;
use crate::relay::faulty::Faulty;

#[test]
fn a_group_is_settled_in_pieces_and_after_a_failure_goes_on_where_it_was() {
    let outbox = Faulty::default();
    let lease = outbox.lease().unwrap();
    let settled = (1..=5).map(|position| Settled::Delivered { position, tried_before: false }).collect();
    let (order, orders) = crossbeam_channel::unbounded();
    let (_give_up, given_up) = crossbeam_channel::bounded(0);
    let (results, told) = crossbeam_channel::unbounded();
    let (committed, to_sync) = crossbeam_channel::unbounded();
    order.send(Order::Commit(Group { settled, ..Group::default() })).unwrap();
    drop(order);
    run(&outbox, lease.as_ref(), &orders, &given_up, &committed, &results);

    assert_eq!(*outbox.settled.lock().unwrap(), [vec![1, 2], vec![3, 4], vec![3, 4], vec![5]]);
    let told: Vec<Message> = told.try_iter().collect();
    assert!(matches!(told.as_slice(), [Message::NotCommitted(StorageError::Full)]), "{told:?}");
    // Each piece is to be synced, and the group is reported with the last.
    let to_sync: Vec<_> = to_sync.try_iter().collect();
    let [None, None, Some(group)] = to_sync.as_slice() else { panic!("{to_sync:?}") };
    assert_eq!(group.settled.len(), 5);
}
