use std::sync::atomic::Ordering;

use super::*;
use crate::outbox::{MemoryOutbox, OutboxStorageStrategy};
use crate::relay::faulty::Faulty;

/// The reports of two groups, the first of them in pieces, and how many syncs they took.
fn reported(failing_syncs: usize, given_up: bool) -> (Vec<Message>, usize) {
    let outbox = MemoryOutbox::default();
    let drain = Faulty { failing_syncs, ..Faulty::new(outbox.drain().unwrap()) };
    let (committed, to_sync) = crossbeam_channel::unbounded();
    for message in [None, Some(Group::default()), Some(Group::default())] {
        committed.send(message).unwrap();
    }
    drop(committed);
    let (give_up, all_given_up) = crossbeam_channel::bounded(0);
    let give_up = Some(give_up).filter(|_| !given_up);
    let (results, told) = crossbeam_channel::unbounded();
    run(&drain, &to_sync, Patience { give_up: &all_given_up, in_pass: false, results: &results });
    drop(give_up);
    (told.try_iter().collect(), drain.syncs.load(Ordering::Relaxed))
}

#[test]
fn one_sync_serves_all_that_was_committed_before_it() {
    let (told, syncs) = reported(0, false);
    assert!(matches!(told.as_slice(), [Message::Committed(_), Message::Committed(_)]), "{told:?}");
    assert_eq!(syncs, 1);
}

#[test]
fn nothing_is_reported_as_committed_until_a_sync_has_succeeded() {
    let (told, syncs) = reported(2, false);
    use Message::{Committed, NotCommitted};
    assert!(matches!(told.as_slice(), [NotCommitted(_), NotCommitted(_), Committed(_), Committed(_)]), "{told:?}");
    assert_eq!(syncs, 3);
}

#[test]
fn a_relay_that_gives_up_reports_nothing_as_committed() {
    let (told, syncs) = reported(1, true);
    assert!(matches!(told.as_slice(), [Message::NotCommitted(_), Message::GaveUp, Message::GaveUp]), "{told:?}");
    assert_eq!(syncs, 1);
}
