//! Total order: whatever the streams, entries are published in the order of their positions, one call at a time, and one that
//! fails holds back everything behind it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use outbox_conformance::helpers::{at, failed, settle};
use outbox_host::outbox::{Fate, RelayCondition, Selection};
use outbox_host::{
    Attempt, Backoff, BoxFuture, JsonSerde, NewEvent, OnDeadLetter, Ordering, Outbox, OutboxStorageStrategy, Outcome,
    Policy, Publisher, Publishers, Recorded, RelayOptions,
};
use outbox_tests::act;
use outbox_tests::for_each_storage;
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::publishers::{Scripted, rejected, retry, route, unavailable};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;

fn options() -> RelayOptions {
    let policy = Policy { backoff: Backoff::NONE, pause: Backoff::NONE, max_attempts: 3, ..Policy::default() };
    RelayOptions { policy, ordering: Ordering::Total, ..RelayOptions::default() }
}

fn outbox_with<K: Kept>(kept: &K, options: RelayOptions) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(options)
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    outbox_with(kept, options())
}

fn of(streams: &[&str]) -> Vec<NewEvent> {
    streams.iter().map(|stream| event(stream, "{}")).collect()
}

for_each_storage! {
    entries_of_many_streams_are_published_in_the_order_of_their_positions
    one_that_fails_holds_back_everything_behind_it
    a_dead_letter_lets_the_others_go_on
    where_a_dead_letter_parks_everything_stands_still_until_an_operator_acts
    a_dead_letter_that_parked_a_stream_parks_everything
    what_waits_from_another_ordering_has_its_turn
    an_unavailable_publisher_holds_back_everything
    a_pass_with_a_limit_takes_the_first
    a_pass_tries_only_what_was_due_when_it_began
}

// A table with types refuses such rows.
outbox_tests::for_each_untyped_storage! {
    a_dead_letter_of_no_stream_parks_nothing
}

/// Takes its time in another order than that in which it is called, and notes whether it is called twice at once.
#[derive(Default)]
struct Unsteady {
    under_way: AtomicUsize,
    at_once: AtomicUsize,
    done: Mutex<Vec<u64>>,
}

impl Publisher for Unsteady {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            self.at_once.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
            for _ in 0..(event.position * 7) % 5 {
                tokio::task::yield_now().await;
            }
            self.done.lock().unwrap().push(event.position);
            self.under_way.fetch_sub(1, SeqCst);
            Outcome::Delivered.into()
        })
    }
}

fn entries_of_many_streams_are_published_in_the_order_of_their_positions<K: Kept>(kept: &K) {
    let (outbox, publisher) = (outbox(kept), Unsteady::default());
    let events: Vec<NewEvent> = (0..3_000).map(|number| event(&format!("s-{}", number % 700), "{}")).collect();
    let positions = outbox.append(&events).unwrap();
    assert_eq!(outbox.run(&publisher, 3_000).unwrap().published, 3_000);
    let done = publisher.done.into_inner().unwrap();
    assert!(done.iter().map(|position| position.cast_signed()).eq(positions), "they were published in another order");
    assert_eq!(publisher.at_once.into_inner(), 1);
}

fn one_that_fails_holds_back_everything_behind_it<K: Kept>(kept: &K) {
    let (outbox, publisher) = (outbox(kept), Scripted::answering("b", |_| retry()));
    outbox.append(&of(&["a", "b", "c", "a"])).unwrap();
    let report = outbox.run(&publisher, None).unwrap();
    assert_eq!((report.published, report.to_be_retried), (1, 1));
    assert_eq!(publisher.take_positions(), [1, 2]);
    publisher.answer("b", |_| Outcome::Delivered);
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 3);
    assert_eq!(publisher.take_positions(), [2, 3, 4]);
}

fn a_dead_letter_lets_the_others_go_on<K: Kept>(kept: &K) {
    let (outbox, publisher) = (outbox(kept), Scripted::answering("b", |_| retry()));
    outbox.append(&of(&["a", "b", "c"])).unwrap();
    relaying(&outbox, &publisher, |_| until("all are gone", || outbox.strategy().status().unwrap().pending == 0));
    assert_eq!(publisher.take_positions(), [1, 2, 2, 2, 3]);
    assert_eq!(outbox.strategy().status().unwrap().dead_letters, 1);
}

fn where_a_dead_letter_parks_everything_stands_still_until_an_operator_acts<K: Kept>(kept: &K) {
    let outbox = outbox_with(kept, RelayOptions { on_dead_letter: OnDeadLetter::Park, ..options() });
    let publisher = Scripted::answering("b", |_| rejected());
    outbox.append(&of(&["a", "b", "c"])).unwrap();
    let status = || outbox.strategy().status().unwrap();
    let is = |state| status().relay.is_some_and(|relay| relay.state == state);
    relaying(&outbox, &publisher, |_| {
        until("it says that it is parked", || is(RelayCondition::Parked));
        until("the dead letter is there", || status().dead_letters == 1);
        outbox.append(&of(&["d"])).unwrap();
        assert!(status().relay.unwrap().reason.contains("`outbox dead list` shows it"));
        assert_eq!((status().pending, status().blocked_streams[0].position), (2, 2));
    });
    // The next relay knows it, and so does a pass.
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 0);
    relaying(&outbox, &publisher, |_| {
        until("it says so again", || is(RelayCondition::Parked));
        publisher.answer("b", |_| Outcome::Delivered);
        outbox.strategy().operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
        until("everything is delivered", || status().pending == 0);
        until("it says that it goes on", || is(RelayCondition::Running));
    });
    assert_eq!(publisher.take_positions(), [1, 2, 2, 3, 4]);
}

fn a_dead_letter_that_parked_a_stream_parks_everything<K: Kept>(kept: &K) {
    let park = RelayOptions { on_dead_letter: OnDeadLetter::Park, ..options() };
    let by_stream = outbox_with(kept, RelayOptions { ordering: Ordering::Stream, ..park.clone() });
    let publisher = Scripted::answering("a", |_| rejected());
    by_stream.append(&of(&["a"])).unwrap();
    assert_eq!(by_stream.run(&publisher, None).unwrap().dead_lettered, 1);
    by_stream.append(&of(&["b", "c"])).unwrap();
    let outbox = outbox_with(kept, park);
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 0);
    outbox.strategy().operator().discard_dead_letters(&Selection::all(), &act()).unwrap();
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 2);
    assert_eq!(publisher.take_positions(), [1, 2, 3]);
}

/// Its row names none.
fn a_dead_letter_of_no_stream_parks_nothing<K: Kept>(kept: &K) {
    let outbox = outbox_with(kept, RelayOptions { on_dead_letter: OnDeadLetter::Park, ..options() });
    let publisher = Scripted::default();
    kept.insert(outbox_host::Row { name: "x".into(), ..outbox_host::Row::default() });
    outbox.append(&of(&["a"])).unwrap();
    let report = outbox.run(&publisher, None).unwrap();
    assert_eq!((report.published, report.dead_lettered), (1, 1));
    assert_eq!(publisher.take_positions(), [2]);
}

fn what_waits_from_another_ordering_has_its_turn<K: Kept>(kept: &K) {
    let by_stream = outbox_with(kept, RelayOptions { ordering: Ordering::Stream, ..options() });
    let publisher = Scripted::answering("b", |_| retry());
    publisher.answer("c", |_| retry());
    publisher.answer("a", |_| unavailable());
    by_stream.append(&of(&["b", "c", "b"])).unwrap();
    by_stream.run(&publisher, None).unwrap();
    by_stream.append(&of(&["a"])).unwrap();
    by_stream.run(&publisher, None).unwrap();
    publisher.take_calls();
    for stream in ["a", "b", "c"] {
        publisher.answer(stream, |_| Outcome::Delivered);
    }
    assert_eq!(outbox(kept).run(&publisher, None).unwrap().published, 4);
    assert_eq!(publisher.take_positions(), [1, 2, 3, 4]);
}

fn an_unavailable_publisher_holds_back_everything<K: Kept>(kept: &K) {
    let is_down = AtomicBool::new(true);
    let done = Mutex::new(Vec::new());
    let webhook = |event: &Recorded| match is_down.load(SeqCst) {
        true => Err(outbox_host::PublishError::unavailable("closed").retry_after(Duration::from_millis(1))),
        false => {
            done.lock().unwrap().push(event.position);
            Ok(())
        }
    };
    let audit = |event: &Recorded| {
        done.lock().unwrap().push(event.position);
        Ok(())
    };
    let routes = [route("webhook.*", &["webhook"]), route("audit.*", &["audit"])];
    let publishers = Publishers::routed([("webhook", &webhook as _), ("audit", &audit as _)], routes).unwrap();
    let outbox = outbox(kept);
    let named = |name: &str, stream: &str| NewEvent { name: name.into(), ..event(stream, "{}") };
    let events = [named("audit.x", "a"), named("webhook.x", "b"), named("audit.x", "c"), named("audit.x", "a")];
    outbox.append(&events).unwrap();
    relaying(&outbox, publishers, |_| {
        until("the first is delivered", || outbox.strategy().status().unwrap().pending == 3);
        let relay = || outbox.strategy().status().unwrap().relay;
        until("it is paused", || relay().is_some_and(|relay| relay.state == RelayCondition::Paused));
        is_down.store(false, SeqCst);
        until("all are delivered", || outbox.strategy().status().unwrap().pending == 0);
    });
    assert_eq!(*done.lock().unwrap(), [1, 2, 3, 4]);
}

fn a_pass_with_a_limit_takes_the_first<K: Kept>(kept: &K) {
    let (outbox, publisher) = (outbox(kept), Scripted::default());
    outbox.append(&of(&["a", "b", "c", "a", "b"])).unwrap();
    assert_eq!(outbox.run(&publisher, 2).unwrap().published, 2);
    assert_eq!(publisher.take_positions(), [1, 2]);
    assert_eq!(outbox.run(&publisher, 2).unwrap().published, 2);
    assert_eq!(publisher.take_positions(), [3, 4]);
}

/// With a clock that stands still, the wait of the second entry begins with the pass; the call of the first takes longer.
fn a_pass_tries_only_what_was_due_when_it_began<K: Kept>(kept: &K) {
    const WAIT: Duration = Duration::from_millis(100);
    let standing_still = |options| outbox_with(kept, options).with_clock(|| Timestamp::UNIX_EPOCH, || 0.0);
    let by_stream = standing_still(RelayOptions { ordering: Ordering::Stream, ..options() });
    let publisher = Scripted::answering("a", |_| rejected());
    publisher.answer("b", |_| Outcome::Retry { reason: "busy".into(), after: Some(WAIT) });
    by_stream.append(&of(&["a", "b"])).unwrap();
    by_stream.run(&publisher, None).unwrap();
    by_stream.strategy().operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
    publisher.take_calls();
    publisher.answer("a", |_| {
        std::thread::sleep(2 * WAIT);
        Outcome::Delivered
    });
    assert_eq!(standing_still(options()).run(&publisher, None).unwrap().published, 1);
    assert_eq!(publisher.take_positions(), [1]);
}

/// The same within a stream: the second entry is read when the first is gone.
#[test]
fn a_pass_by_streams_too_tries_only_what_was_due_when_it_began() {
    const WAIT: Duration = Duration::from_millis(100);
    let kept = Sqlite::new();
    let by_stream = outbox_with(&kept, RelayOptions { ordering: Ordering::Stream, ..options() })
        .with_clock(|| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1), || 0.0);
    let p = by_stream.append(&of(&["a", "a"])).unwrap();
    let until = |wait: Duration| Fate::Retry { at: at(1) + wait };
    let waits = [(p[0], Duration::ZERO), (p[1], WAIT)].map(|(p, wait)| failed(by_stream.strategy(), p, 1, until(wait)));
    settle(by_stream.strategy(), &waits);
    let publisher = Scripted::answering("a", |_| {
        std::thread::sleep(2 * WAIT);
        Outcome::Delivered
    });
    assert_eq!(by_stream.run(&publisher, None).unwrap().published, 1);
    assert_eq!(publisher.take_positions(), [1]);
}

/// The last host died with several calls under way, one for each stream: each entry is tried alone, in its turn.
#[test]
fn suspects_of_another_ordering_are_tried_in_their_turn() {
    let kept = Sqlite::new();
    let (outbox, publisher) = (outbox(&kept), Scripted::default());
    outbox.append(&of(&["a", "b", "c", "d"])).unwrap();
    {
        let strategy = kept.open();
        let drain = strategy.drain().unwrap();
        drain.mark(0, &[4]);
        drain.mark(1, &[2]);
    }
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 4);
    assert_eq!(publisher.take_positions(), [1, 2, 3, 4]);
}
