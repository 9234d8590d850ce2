//! The right to drain an outbox, and watches.

use std::time::Duration;

use outbox_engine::outbox::{BreakerState, PublisherState, RelayCondition, RelayState};
use outbox_engine::{BATCH_MAX, OutboxStorageStrategy, Recorded};

use crate::TestStorage;
use crate::helpers::{append, at, outbox};

pub fn one_relay_drains_a_share_and_that_ends<S: TestStorage>(kept: &S) {
    let (one, other) = (kept.open(), kept.open());
    let drain = one.drain().unwrap();
    drain.check().unwrap();
    assert!(other.drain().is_err_and(|error| error.is_leased()));
    assert!(outbox(kept).run(&|_: &Recorded| Ok(()), None).is_err_and(|error| error.is_leased()));
    drop(drain);
    other.drain().unwrap();
}

pub fn calls_under_way_outlive_their_relay<S: TestStorage>(kept: &S) {
    let (one, other) = (kept.open(), kept.open());
    let drain = one.drain().unwrap();
    drain.mark(0, &[3]);
    drain.mark(1, &[9, 8]);
    drain.mark(0, &[4]);
    drain.mark(2, &[1]);
    drain.mark(2, &[]);
    drop(drain);
    let drain = other.drain().unwrap();
    assert_eq!(drain.interrupted(), [4, 8, 9]);
    drain.clear();
    assert_eq!(drain.interrupted(), [0_i64; 0]);
    // As many as a call may have, beside others.
    let call: Vec<i64> = (1..=BATCH_MAX as i64).collect();
    drain.mark(0, &call);
    drain.mark(1, &[BATCH_MAX as i64 + 1]);
    drop(drain);
    let drain = one.drain().unwrap();
    assert_eq!(drain.interrupted(), (1..=BATCH_MAX as i64 + 1).collect::<Vec<_>>());
    drain.clear();
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

pub fn the_relays_state_is_shown_while_it_drains<S: TestStorage>(kept: &S) {
    let strategy = kept.open();
    let publisher = PublisherState {
        name: Some("webhook".into()),
        breaker: BreakerState::Open,
        since: at(3),
        reason: "closed".into(),
        next_probe: Some(at(4)),
        next_token: Some(at(5)),
    };
    let (state, reason, publishers) = (RelayCondition::Paused, "closed".into(), vec![publisher]);
    let state = RelayState { pid: 7, state, since: at(3), reason, publishers };
    let drain = strategy.drain().unwrap();
    drain.show(&state);
    assert_eq!(kept.open().status().unwrap().relay, Some(state));
    drop(drain);
    assert_eq!(kept.open().status().unwrap().relay, None);
}
