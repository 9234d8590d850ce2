//! The right to drain an outbox, and watches.

use std::time::Duration;

use outbox_engine::outbox::{RelayCondition, RelayState};
use outbox_engine::{OutboxStorageStrategy, Recorded};

use crate::TestStorage;
use crate::helpers::{append, at, outbox};

pub fn there_is_one_lease_and_it_ends<S: TestStorage>(kept: &S) {
    let (one, other) = (kept.open(), kept.open());
    let lease = one.lease().unwrap();
    lease.check().unwrap();
    assert!(other.lease().is_err_and(|error| error.is_leased()));
    assert!(outbox(kept).run(&|_: &Recorded| Ok(()), None).is_err_and(|error| error.is_leased()));
    drop(lease);
    other.lease().unwrap();
}

pub fn calls_under_way_outlive_their_lease<S: TestStorage>(kept: &S) {
    let (one, other) = (kept.open(), kept.open());
    let lease = one.lease().unwrap();
    lease.mark(0, &[3]);
    lease.mark(1, &[9, 8]);
    lease.mark(0, &[4]);
    lease.mark(2, &[1]);
    lease.mark(2, &[]);
    drop(lease);
    let lease = other.lease().unwrap();
    assert_eq!(lease.interrupted(), [4, 8, 9]);
    lease.clear();
    assert_eq!(lease.interrupted(), [0_i64; 0]);
}

pub fn a_watch_notices_what_another_does<S: TestStorage>(kept: &S) {
    let mut watch = kept.open().watch().unwrap();
    assert!(!watch.wait(Duration::from_millis(1)));
    append(kept, &["a"]);
    assert!(watch.wait(Duration::from_secs(10)));
    std::thread::scope(|scope| {
        let noticed = scope.spawn(move || watch.wait(Duration::from_secs(10)));
        append(kept, &["a"]);
        assert!(noticed.join().unwrap());
    });
}

pub fn the_relays_state_is_shown_while_it_has_the_lease<S: TestStorage>(kept: &S) {
    let strategy = kept.open();
    let state = RelayState { pid: 7, state: RelayCondition::Paused, since: at(3), reason: "closed".into() };
    let lease = strategy.lease().unwrap();
    lease.show(&state);
    assert_eq!(kept.open().status().unwrap().relay, Some(state));
    drop(lease);
    assert_eq!(kept.open().status().unwrap().relay, None);
}
