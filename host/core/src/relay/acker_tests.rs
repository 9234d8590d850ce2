use jiff::Timestamp;

use super::*;
use crate::outbox::{MemoryOutbox, OutboxStorageStrategy};
use crate::raw::EntryId;
use crate::relay::faulty::Faulty;
use crate::row::{Field, Row};

/// What the storage was asked to settle, what was reported, and what is to be synced.
struct Carried {
    asked: Vec<Vec<i64>>,
    told: Vec<Message>,
    to_sync: Vec<Option<Group>>,
}

fn entry(position: i64) -> EntryId {
    EntryId::of(position, &Field::Null)
}

fn carry_out(outbox: &MemoryOutbox, drain: &Faulty<'_>, order: Order) -> Carried {
    let (send, orders) = crossbeam_channel::unbounded();
    let (_give_up, given_up) = crossbeam_channel::bounded(0);
    let (results, told) = crossbeam_channel::unbounded();
    let (committed, to_sync) = crossbeam_channel::unbounded();
    send.send(order).unwrap();
    drop(send);
    let patience = Patience { give_up: &given_up, in_pass: false, results: &results };
    let clock = || Timestamp::UNIX_EPOCH;
    Acker { operator: outbox.operator(), drain, clock, patience, committed }.run(&orders);
    let asked = drain.settled.lock().unwrap().clone();
    Carried { asked, told: told.try_iter().collect(), to_sync: to_sync.try_iter().collect() }
}

fn appended(outbox: &MemoryOutbox, entries: i64) -> Vec<Settled> {
    (0..entries).for_each(|_| _ = outbox.append_raw(&Row { data: "{}".into(), ..Row::default() }));
    (1..=entries).map(|position| Settled::Delivered { entry: entry(position), tried_before: false }).collect()
}

#[test]
fn a_group_is_settled_in_pieces_and_after_a_failure_goes_on_where_it_was() {
    let outbox = MemoryOutbox::default();
    let drain = Faulty::new(outbox.drain().unwrap());
    let settled = appended(&outbox, 5);
    let carried = carry_out(&outbox, &drain, Order::Commit(Group { settled, ..Group::default() }));

    assert_eq!(carried.asked, [vec![1, 2], vec![3, 4], vec![3, 4], vec![5]]);
    assert!(matches!(carried.told.as_slice(), [Message::NotCommitted(StorageError::Full)]), "{:?}", carried.told);
    // Each piece is to be synced, and the group is reported with the last.
    let [None, None, Some(group)] = carried.to_sync.as_slice() else { panic!("{:?}", carried.to_sync) };
    assert_eq!((group.settled.len(), group.refused.len()), (5, 0));
}

#[test]
fn only_the_entry_that_is_refused_stays_and_it_is_known_to_be_delivered() {
    let outbox = MemoryOutbox::default();
    let drain = Faulty { refused: Some(4), ..Faulty::new(outbox.drain().unwrap()) };
    let settled = appended(&outbox, 5);
    let carried = carry_out(&outbox, &drain, Order::Commit(Group { settled, ..Group::default() }));

    assert_eq!(carried.asked, [vec![1, 2], vec![3, 4], vec![3, 4], vec![3], vec![4], vec![4], vec![5]]);
    let group = carried.to_sync.into_iter().flatten().next().unwrap();
    let [refused] = group.refused.as_slice() else { panic!("{:?}", group.refused) };
    assert_eq!(refused.settled.entry(), entry(4));
    assert!(refused.reason.contains("no such function"), "{}", refused.reason);
    let status = outbox.status().unwrap();
    assert_eq!((status.pending, status.undeletable), (0, 1));
    assert!(status.undeletable_reason.unwrap().contains("no such function"));
}

#[test]
fn what_was_refused_is_tried_again_and_what_is_not_refused_any_more_is_reported() {
    let outbox = MemoryOutbox::default();
    let drain = Faulty { refused: Some(1), ..Faulty::new(outbox.drain().unwrap()) };
    let settled = appended(&outbox, 3);
    let carried = carry_out(&outbox, &drain, Order::TryAgain(settled));
    let told = carried.told.iter().find_map(|message| match message {
        Message::TriedAgain { settled, refused } => Some((settled.clone(), refused.len())),
        _ => None,
    });
    assert_eq!(told, Some((vec![], 3)), "the disk was full: {:?}", carried.told);
}

#[test]
fn an_entry_that_somebody_removed_is_news() {
    let outbox = MemoryOutbox::default();
    let drain = Faulty::new(outbox.drain().unwrap());
    let settled = vec![Settled::Delivered { entry: entry(7), tried_before: false }];
    let carried = carry_out(&outbox, &drain, Order::Commit(Group { settled, ..Group::default() }));
    assert!(matches!(carried.told.as_slice(), [Message::Changed]), "{:?}", carried.told);
}
