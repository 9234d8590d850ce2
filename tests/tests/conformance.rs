//! The conformance suite, run for each storage that keeps entries; and what is left of it for the one that keeps none.

use std::time::Duration;

use outbox_conformance::helpers::{all_held, append, at, delivered, event, failed, positions, settle};
use outbox_host::outbox::{Fate, Selection, Status};
use outbox_host::{JsonSerde, NoOutbox, Outbox, OutboxStorageStrategy, Recorded};
use outbox_tests::outboxes::Kept;

mod sqlite {
    outbox_conformance::conformance_tests!(outbox_tests::outboxes::Sqlite);
}

mod memory {
    outbox_conformance::conformance_tests!(outbox_tests::outboxes::Memory);
}

// PostgreSQL's is in tests/postgres.

/// The storage that keeps nothing: whatever is done with it, there is nothing.
#[test]
fn no_outbox_takes_every_event_and_calls_nobody() {
    let outbox = Outbox::new(NoOutbox, JsonSerde);
    assert_eq!(outbox.append(&[event("a", "{}")]).unwrap(), [0_i64; 0]);
    let report = outbox.run(&|_: &Recorded| panic!("nothing is ever published"), None).unwrap();
    assert_eq!(report.published, 0);
    let strategy = outbox.strategy();
    settle(strategy, &[delivered(strategy, 1), failed(strategy, 2, 1, Fate::DeadLetter { park: true })]);
    assert_eq!(positions(strategy), [0_i64; 0]);
    assert_eq!(strategy.status().unwrap(), Status::default());
    assert_eq!(strategy.operator().dead_letters(&Selection::all(), 10).unwrap(), []);
    assert!(!strategy.watch().unwrap().wait(Duration::ZERO));
}

/// Of SQLite only: nobody can delete anything from another one's memory.
#[test]
fn an_entry_that_waits_and_is_deleted_by_hand_holds_nothing_back() {
    let kept = outbox_tests::outboxes::Sqlite::new();
    let strategy = kept.open();
    let position = append(&kept, &["a"])[0];
    settle(&strategy, &[failed(&strategy, position, 1, Fate::Retry { at: at(9) })]);
    assert_eq!((all_held(&strategy).len(), strategy.status().unwrap().waiting), (1, 1));
    kept.connection().execute("DELETE FROM outbox", []).unwrap();
    assert_eq!((all_held(&strategy).len(), strategy.status().unwrap().waiting), (0, 0));
    assert_eq!(strategy.status().unwrap().blocked_streams, []);
}
