//! An outage of a destination that answers with failures, and does not say that it is unavailable: no attempts are used
//! up, and nothing becomes a dead letter. What looks like one and is none: bad streams and bad events.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outbox_host::outbox::{BreakerState, Hold, RelayCondition, Selection};
use outbox_host::{
    Attempt, Backoff, BoxFuture, BreakerRules, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Policy,
    Publisher, Publishers, Recorded, RelayOptions,
};
use outbox_tests::outboxes::{Kept, event};
use outbox_tests::publishers::route;
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;

outbox_tests::for_each_storage! {
    an_outage_uses_up_no_attempts_and_ends_with_no_dead_letter
    traps_and_time_outs_are_an_outage_too
    one_bad_stream_in_a_hundred_opens_no_breaker
    a_poisonous_event_does_not_keep_the_breaker_open
    who_asks_for_a_time_in_an_outage_gets_it_and_no_other_waits_for_it
    what_fails_for_good_becomes_a_dead_letter_after_the_patience
    an_outage_of_one_publisher_holds_up_no_other
    a_single_stream_uses_up_its_attempts_as_ever
    without_order_too_a_stream_that_was_bad_and_delivers_again_is_bad_no_more
    a_pass_tries_each_entry_whatever_fails
    calls_that_were_under_way_when_it_opened_use_up_no_attempts
}

const MS: Duration = Duration::from_millis(1);
const STREAMS: usize = 100;

/// A destination, and what it has got.
#[derive(Default)]
struct Destination {
    is_down: AtomicBool,
    /// How it fails while it is down; with a retry if nothing is said.
    fails_with: Option<fn() -> Outcome>,
    /// Streams whose events always fail, and events that do.
    bad: BTreeSet<String>,
    poisonous: BTreeSet<u64>,
    /// How long a call takes.
    takes: Duration,
    calls: Mutex<Vec<(u64, bool)>>,
}

fn server_error() -> Outcome {
    Outcome::Retry { reason: "the destination answered 500".into(), after: None }
}

impl Destination {
    fn calls(&self) -> Vec<(u64, bool)> {
        self.calls.lock().unwrap().clone()
    }

    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    fn answer(&self, event: &Recorded) -> Outcome {
        let is_bad = self.bad.contains(&event.stream_id.id) || self.poisonous.contains(&event.position);
        let fails = is_bad || self.is_down.load(Ordering::SeqCst);
        self.calls.lock().unwrap().push((event.position, !fails));
        if fails { self.fails_with.unwrap_or(server_error)() } else { Outcome::Delivered }
    }
}

impl Publisher for Destination {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            if !self.takes.is_zero() {
                tokio::time::sleep(self.takes).await;
            }
            self.answer(event).into()
        })
    }
}

/// Short waits, and few attempts: without the breaker, they are used up at once.
fn options() -> RelayOptions {
    let backoff = Backoff { initial: MS, max: 4 * MS };
    let policy = Policy { max_attempts: 5, backoff, pause: Backoff { initial: MS, max: 10 * MS }, ..Policy::default() };
    RelayOptions { policy, ..RelayOptions::default() }
}

fn outbox<K: Kept>(kept: &K, options: RelayOptions) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(options)
}

fn append<K: Kept>(kept: &K, entries: usize, streams: usize) -> Vec<u64> {
    let events: Vec<NewEvent> = (0..entries).map(|number| event(&format!("s-{}", number % streams), "{}")).collect();
    outbox(kept, options()).append(&events).unwrap().into_iter().map(i64::unsigned_abs).collect()
}

fn pending<K: Kept>(kept: &K) -> u64 {
    kept.open().status().unwrap().pending
}

fn breaker<K: Kept>(kept: &K) -> Option<(BreakerState, RelayCondition)> {
    let relay = kept.open().status().unwrap().relay?;
    Some((relay.publishers.first()?.breaker, relay.state))
}

fn is_open<K: Kept>(kept: &K) -> bool {
    breaker(kept).is_some_and(|(state, relay)| state != BreakerState::Closed && relay == RelayCondition::Paused)
}

fn is_closed<K: Kept>(kept: &K) -> bool {
    breaker(kept) == Some((BreakerState::Closed, RelayCondition::Running))
}

/// How many failed attempts are on record.
fn attempts_on_record<K: Kept>(kept: &K, positions: &[u64]) -> usize {
    let strategy = kept.open();
    let of = |position: &u64| strategy.operator().attempts(position.cast_signed()).unwrap().len();
    positions.iter().map(of).sum()
}

/// The test's own two minutes: twelve times as many probes as any entry has attempts, and each stream is probed.
fn outage<K: Kept>(kept: &K, destination: &Destination, is_outcome_of: &str) {
    let before = append(kept, 2 * STREAMS, STREAMS);
    let report = relaying(&outbox(kept, options()), destination, |_| {
        until("all of it is delivered", || pending(kept) == 0);
        destination.set_down(true);
        let during = append(kept, 3 * STREAMS, STREAMS);
        until("the breaker opens", || is_open(kept));
        let probed = destination.calls().len() + 3 * STREAMS;
        until("it is probed again and again", || destination.calls().len() >= probed);
        let status = kept.open().status().unwrap();
        assert_eq!((status.pending, status.dead_letters), (3 * STREAMS as u64, 0));
        let publisher = &status.relay.unwrap().publishers[0];
        assert!(publisher.reason.contains("the last calls for 8 streams failed"), "{publisher:?}");
        // Those that opened it, and no other.
        assert!(attempts_on_record(kept, &during) <= 7, "{}", attempts_on_record(kept, &during));
        destination.set_down(false);
        until("all of it is delivered", || pending(kept) == 0);
        until("the breaker is closed", || is_closed(kept));
    });
    let failed = report.to_be_retried;
    assert!(failed <= 7 && report.outcomes[is_outcome_of] > failed, "{:?}", report.outcomes);
    assert_eq!((report.published, report.dead_lettered), (before.len() as u64 + 3 * STREAMS as u64, 0));
    assert_in_order(&destination.calls());
}

fn assert_in_order(calls: &[(u64, bool)]) {
    let mut last = [0; STREAMS];
    for (position, _) in calls.iter().filter(|(_, delivered)| *delivered) {
        // Positions count from 1, and the streams take turns.
        let last = &mut last[(*position as usize - 1) % STREAMS];
        assert!(position > last, "{position} after {last}");
        *last = *position;
    }
}

fn an_outage_uses_up_no_attempts_and_ends_with_no_dead_letter<K: Kept>(kept: &K) {
    outage(kept, &Destination::default(), "retry");
}

fn traps_and_time_outs_are_an_outage_too<K: Kept>(kept: &K) {
    let trapped = || Outcome::Trapped { reason: "unreachable".into() };
    outage(kept, &Destination { fails_with: Some(trapped), ..Destination::default() }, "trapped");
    let timed_out = || Outcome::TimedOut { reason: "call_time".into() };
    outage(kept, &Destination { fails_with: Some(timed_out), ..Destination::default() }, "timed-out");
}

fn calls_that_were_under_way_when_it_opened_use_up_no_attempts<K: Kept>(kept: &K) {
    let destination = Destination { is_down: AtomicBool::new(true), takes: 20 * MS, ..Destination::default() };
    let positions = append(kept, STREAMS, STREAMS);
    let options = RelayOptions { concurrency: 64, ..options() };
    relaying(&outbox(kept, options), &destination, |_| {
        until("the breaker opens", || is_open(kept));
        until("it is probed", || destination.calls().len() > 70);
        assert!(attempts_on_record(kept, &positions) <= 7);
        destination.set_down(false);
        until("all of it is delivered", || pending(kept) == 0);
    });
}

fn one_bad_stream_in_a_hundred_opens_no_breaker<K: Kept>(kept: &K) {
    let destination = Destination { bad: ["s-7".into()].into(), ..Destination::default() };
    append(kept, 5 * STREAMS, STREAMS);
    let report = relaying(&outbox(kept, options()), &destination, |_| {
        until("the bad ones are dead", || pending(kept) == 0);
        // Now nobody else has anything.
        let events: Vec<NewEvent> = (0..20).map(|_| event("s-7", "{}")).collect();
        outbox(kept, options()).append(&events).unwrap();
        until("the bad ones are dead", || pending(kept) == 0);
        assert!(is_closed(kept));
    });
    assert_eq!((report.published, report.dead_lettered, report.unavailable), (5 * STREAMS as u64 - 5, 25, 0));
}

/// It is probed, and so are the others: one of them is delivered.
fn a_poisonous_event_does_not_keep_the_breaker_open<K: Kept>(kept: &K) {
    let destination = Destination { poisonous: [1].into(), is_down: AtomicBool::new(true), ..Destination::default() };
    append(kept, STREAMS, STREAMS);
    let report = relaying(&outbox(kept, options()), &destination, |_| {
        until("the breaker opens", || is_open(kept));
        until("the poisonous event is probed", || {
            destination.calls().iter().filter(|(position, _)| *position == 1).count() > 2
        });
        destination.set_down(false);
        until("the others are delivered, and it is dead", || pending(kept) == 0);
        until("the breaker is closed", || is_closed(kept));
    });
    assert_eq!((report.published, report.dead_lettered), (STREAMS as u64 - 1, 1));
}

fn who_asks_for_a_time_in_an_outage_gets_it_and_no_other_waits_for_it<K: Kept>(kept: &K) {
    let in_an_hour = || Outcome::Retry { reason: "later".into(), after: Some(Duration::from_secs(3_600)) };
    let destination =
        Destination { is_down: AtomicBool::new(true), fails_with: Some(in_an_hour), ..Destination::default() };
    let positions = append(kept, STREAMS, STREAMS);
    relaying(&outbox(kept, options()), &destination, |_| {
        until("each was tried", || destination.calls().len() >= STREAMS);
        destination.set_down(false);
        outbox(kept, options()).append(&[event("another", "{}")]).unwrap();
        until("another one is delivered", || is_closed(kept));
    });
    let mut called: Vec<u64> = destination.calls().iter().map(|(position, _)| *position).collect();
    called.retain(|position| positions.contains(position));
    called.sort_unstable();
    assert_eq!(called, positions, "each was tried once");
    assert!(attempts_on_record(kept, &positions) >= STREAMS);
    let waits: i64 =
        kept.open().drain().unwrap().held().unwrap().iter().map(|held| i64::from(attempts_of(held.hold))).sum();
    assert!(waits <= 7, "{waits} attempts are used up");
}

fn attempts_of(hold: Hold) -> u32 {
    match hold {
        Hold::Waiting { history, .. } => history.attempts,
        Hold::Parked | Hold::Delivered => 0,
    }
}

fn what_fails_for_good_becomes_a_dead_letter_after_the_patience<K: Kept>(kept: &K) {
    let destination = Destination { is_down: AtomicBool::new(true), ..Destination::default() };
    append(kept, 20, 20);
    let mut options = options();
    options.policy.breaker = BreakerRules { patience: 300 * MS, ..BreakerRules::default() };
    let began = Instant::now();
    let report = relaying(&outbox(kept, options), &destination, |_| {
        until("the breaker opens", || is_open(kept));
        until("they are dead", || kept.open().status().unwrap().dead_letters == 20);
        until("the breaker is closed", || is_closed(kept));
    });
    assert!(began.elapsed() >= 300 * MS && report.unavailable > 0, "{report:?}");
}

fn an_outage_of_one_publisher_holds_up_no_other<K: Kept>(kept: &K) {
    let (down, up) = (Destination { is_down: AtomicBool::new(true), ..Destination::default() }, Destination::default());
    let named = |name: &str, stream: usize| NewEvent { name: name.into(), ..event(&format!("{name}-{stream}"), "{}") };
    let events: Vec<NewEvent> =
        (0..STREAMS).flat_map(|stream| [named("down", stream), named("up", stream), named("both", stream)]).collect();
    outbox(kept, options()).append(&events).unwrap();
    let routes = [route("down", &["down"]), route("up", &["up"]), route("both", &["down", "up"])];
    let publishers = Publishers::routed([("down", &down as _), ("up", &up as _)], routes).unwrap();
    let report = relaying(&outbox(kept, options()), publishers, |_| {
        until("the other one's are delivered", || pending(kept) == 2 * STREAMS as u64 && up.calls().len() >= STREAMS);
        let relay = kept.open().status().unwrap().relay.unwrap();
        let states: Vec<_> = relay.publishers.iter().map(|it| (it.name.as_deref(), it.is_called())).collect();
        assert_eq!(states, [(Some("down"), false), (Some("up"), true)], "{relay:?}");
        down.set_down(false);
        until("all are delivered", || pending(kept) == 0);
    });
    assert_eq!((report.published, report.dead_lettered), (3 * STREAMS as u64, 0));
    assert_eq!(up.calls().len(), 2 * STREAMS, "a publisher that has an event is not called again");
}

fn without_order_too_a_stream_that_was_bad_and_delivers_again_is_bad_no_more<K: Kept>(kept: &K) {
    // The first event of each stream fails while others are delivered, and then none.
    let destination = Destination { poisonous: (1..=20).collect(), ..Destination::default() };
    append(kept, 200, 20);
    let mut options = RelayOptions { ordering: outbox_host::Ordering::None, ..options() };
    // If those that fail for good are left alone at the end, they wait for as long before they use up attempts.
    options.policy.breaker = BreakerRules { patience: 500 * MS, ..BreakerRules::default() };
    relaying(&outbox(kept, options), &destination, |_| {
        until("all of it is delivered, or dead", || pending(kept) == 0);
        append(kept, 200, 20);
        until("all of it is delivered", || pending(kept) == 0);
        destination.set_down(true);
        append(kept, 20, 20);
        until("the breaker opens", || is_open(kept));
        destination.set_down(false);
        until("all of it is delivered", || pending(kept) == 0);
    });
}

/// An outage cannot be told from a bad entry by one stream.
fn a_single_stream_uses_up_its_attempts_as_ever<K: Kept>(kept: &K) {
    let destination = Destination { is_down: AtomicBool::new(true), ..Destination::default() };
    append(kept, 3, 1);
    let report = relaying(&outbox(kept, options()), &destination, |_| until("they are dead", || pending(kept) == 0));
    assert_eq!((report.dead_lettered, report.unavailable), (3, 0));
}

fn a_pass_tries_each_entry_whatever_fails<K: Kept>(kept: &K) {
    let destination = Destination { is_down: AtomicBool::new(true), ..Destination::default() };
    append(kept, STREAMS, STREAMS);
    let report = outbox(kept, options()).run(&destination, None).unwrap();
    assert_eq!((report.to_be_retried, report.unavailable), (STREAMS as u64, 0));
    assert_eq!(kept.open().operator().dead_letters(&Selection::all(), 1).unwrap(), []);
}
