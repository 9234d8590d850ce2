//! Calls with events of many streams: how they are filled, what their answers mean for each stream, and what becomes of
//! them when an event makes them fail.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering as AtomicOrdering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outbox_host::outbox::{BreakerState, Selection, VersionState};
use outbox_host::publisher::component::{ComponentPublisher, OutputSink, Settings};
use outbox_host::{
    Backoff, BreakerRules, CanaryRules, JsonSerde, NewEvent, OnDeadLetter, Ordering, Outbox, OutboxStorageStrategy,
    Outcome, Payload, Policy, Publisher, PublisherOptions, Publishers, Recorded, RelayOptions, Report, StreamId,
    VersionedPublisher,
};
use outbox_tests::bulk::Bulk;
use outbox_tests::outboxes::{Kept, Sqlite};
use outbox_tests::publishers::{rejected, retry, route, unavailable};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;
use outbox_tests::{act, for_each_storage, guest};

for_each_storage! {
    entries_of_many_streams_go_with_few_calls_in_the_order_of_their_positions
    a_call_that_does_not_get_full_waits_no_longer_than_it_may
    a_call_waits_for_nothing_that_cannot_come
    an_entry_that_fails_holds_back_its_own_stream_and_no_other
    a_dead_letter_that_parks_its_stream_holds_back_what_was_called_with_it
    one_poisonous_entry_of_64_streams_is_found_and_alone_becomes_a_dead_letter
    one_poisonous_entry_of_a_long_stream_is_found
    a_request_that_fails_for_all_uses_up_the_attempts_of_none_but_those_that_fail_alone
    a_call_in_which_many_streams_fail_is_no_outage
    an_outage_makes_no_dead_letters
    an_unavailable_publisher_gets_everything_later_in_order
    what_is_being_collected_stays_when_the_relay_stops
    an_entry_of_two_publishers_is_in_the_calls_of_both
    with_a_batch_of_one_each_entry_has_a_call_of_its_own
    a_component_that_traps_or_is_out_of_time_in_a_call_with_64_streams
}

/// Longer than any test: a call that waits for it never begins.
const FOR_EVER: Duration = Duration::from_secs(60);

fn options() -> RelayOptions {
    let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(5) };
    let policy = Policy { max_attempts: 2, backoff, ..Policy::default() };
    RelayOptions { policy, ..RelayOptions::default() }
}

fn outbox<K: Kept>(kept: &K, options: RelayOptions) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(options)
}

/// Calls of exactly `batch_max` events, as long as there are so many.
fn full(batch_max: usize) -> PublisherOptions {
    PublisherOptions { batch_max: Some(batch_max), batch_wait: FOR_EVER, ..PublisherOptions::default() }
}

/// Calls of at most so many events, which wait for an instant.
fn soon(batch_max: usize) -> PublisherOptions {
    PublisherOptions { batch_wait: Duration::from_millis(20), ..full(batch_max) }
}

fn at_once() -> PublisherOptions {
    PublisherOptions::default()
}

fn with(publisher: &dyn Publisher, options: PublisherOptions) -> Publishers<'_> {
    Publishers::one(publisher).with_options("", options)
}

/// An event of each of these streams, in this order.
fn events(streams: impl IntoIterator<Item = usize>) -> Vec<NewEvent> {
    streams.into_iter().map(|stream| NewEvent::json(StreamId::new(format!("s-{stream}")), "e", "{}")).collect()
}

/// Appends these, and has a relay publish until nothing is pending.
fn relayed<K: Kept>(kept: &K, relay: RelayOptions, publishers: Publishers<'_>, events: &[NewEvent]) -> Report {
    let outbox = outbox(kept, relay);
    outbox.append(events).unwrap();
    relaying(&outbox, publishers, |_| {
        until("nothing is pending", || kept.open().status().unwrap().pending == 0);
    })
}

/// How often each position was delivered.
fn deliveries(publisher: &Bulk) -> HashMap<u64, usize> {
    let mut deliveries = HashMap::new();
    publisher.delivered().iter().for_each(|event| *deliveries.entry(event.position).or_default() += 1);
    deliveries
}

/// Each stream's first deliveries came in order.
fn assert_in_order(publisher: &Bulk) {
    let (mut last, mut seen): (HashMap<String, u64>, _) = (HashMap::new(), HashSet::new());
    for event in publisher.delivered().into_iter().filter(|event| seen.insert(event.position)) {
        let last = last.entry(event.stream_id.id.clone()).or_default();
        assert!(event.position >= *last, "{} came after {last}", event.position);
        *last = event.position;
    }
}

fn dead<K: Kept>(kept: &K) -> Vec<(i64, &'static str, u32)> {
    let dead = kept.open().operator().dead_letters(&Selection::all(), 1_000).unwrap();
    dead.into_iter().map(|dead| (dead.position, leaked(&dead.outcome), dead.attempts)).collect()
}

fn leaked(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn trapped() -> Outcome {
    Outcome::Trapped { reason: "unreachable".into() }
}

// --- how calls are filled ------------------------------------------------------------------------------------------------

fn entries_of_many_streams_go_with_few_calls_in_the_order_of_their_positions<K: Kept>(kept: &K) {
    let publisher = Bulk::delivering();
    // Streams of one and of several.
    let streams = (0..640).map(|entry| if entry % 4 == 0 { 7 } else { entry });
    relayed(kept, options(), with(&publisher, soon(64)), &events(streams));
    let calls = publisher.calls();
    assert!(calls.iter().flatten().count() == 640 && calls.len() <= 20, "{:?}", publisher.sizes());
    assert!(calls.iter().all(|call| call.len() <= 64 && call.is_sorted_by_key(|event| event.position)));
    assert_in_order(&publisher);
}

fn a_call_that_does_not_get_full_waits_no_longer_than_it_may<K: Kept>(kept: &K) {
    let publisher = Bulk::delivering();
    relayed(kept, options(), with(&publisher, soon(64)), &events(0..5));
    assert_eq!(publisher.delivered().len(), 5);
}

/// Its part of the memory is smaller than a call; in total order there is one lane; in a pass, everything is there.
fn a_call_waits_for_nothing_that_cannot_come<K: Kept>(kept: &K) {
    let (publisher, others) = (Bulk::delivering(), Bulk::delivering());
    let names: Vec<String> = (0..31).map(|other| format!("other-{other}")).collect();
    let members = names.iter().map(|name| (name.as_str(), &others as &dyn Publisher));
    let members = members.chain([("bulk", &publisher as &dyn Publisher)]);
    let publishers = Publishers::routed(members, [route("*", &["bulk"])]).unwrap().with_options("bulk", full(1_000));
    relayed(kept, options(), publishers, &events(0..128));
    assert_eq!(publisher.sizes(), [64, 64]);

    let total = RelayOptions { ordering: Ordering::Total, ..options() };
    let publisher = Bulk::delivering();
    relayed(kept, total, with(&publisher, full(64)), &events(0..3));
    assert_eq!(publisher.delivered().len(), 3);

    let outbox = outbox(kept, options());
    outbox.append(&events(0..3)).unwrap();
    let publisher = Bulk::delivering();
    assert_eq!(outbox.run(with(&publisher, full(64)), None).unwrap().published, 3);
}

fn with_a_batch_of_one_each_entry_has_a_call_of_its_own<K: Kept>(kept: &K) {
    let publisher = Bulk::delivering();
    let streams = (0..20).map(|entry| entry % 3);
    relayed(kept, options(), with(&publisher, full(1)), &events(streams));
    assert_eq!(publisher.sizes(), [1; 20]);
}

// --- answers ----------------------------------------------------------------------------------------------------------------

fn an_entry_that_fails_holds_back_its_own_stream_and_no_other<K: Kept>(kept: &K) {
    // The fourth entry of each third stream fails at first.
    let publisher = Bulk::answering(|event| {
        let fails = event.position.is_multiple_of(3) && event.position > 90 && event.position <= 120;
        if fails && event.attempt == 1 { retry() } else { Outcome::Delivered }
    });
    let streams = (0..300).map(|entry| entry % 30);
    let report = relayed(kept, options(), with(&publisher, soon(60)), &events(streams));
    assert_eq!((report.published, report.dead_lettered), (300, 0));
    assert_in_order(&publisher);
    assert!(deliveries(&publisher).values().all(|times| *times == 1), "nothing came twice");
}

fn a_dead_letter_that_parks_its_stream_holds_back_what_was_called_with_it<K: Kept>(kept: &K) {
    // It goes on in spite of the failure, as a request in bulk may.
    let goes_on = |event: &Recorded| if event.position == 2 { rejected() } else { Outcome::Delivered };
    let publisher = Bulk::answering(goes_on);
    let park = RelayOptions { on_dead_letter: OnDeadLetter::Park, ..options() };
    let outbox = outbox(kept, park);
    outbox.append(&events([0, 1, 1, 0])).unwrap();
    relaying(&outbox, with(&publisher, full(4)), |_| {
        until("the other stream is published", || kept.open().status().unwrap().pending == 1);
    });
    assert_eq!(dead(kept), [(2, "rejected", 1)]);
    assert_eq!(publisher.delivered().iter().map(|event| event.position).collect::<Vec<_>>(), [1, 4]);
}

// --- calls that fail ----------------------------------------------------------------------------------------------------------

fn one_poisonous_entry_of_64_streams_is_found_and_alone_becomes_a_dead_letter<K: Kept>(kept: &K) {
    let publisher = Bulk::answering(|event| if event.position == 40 { trapped() } else { Outcome::Delivered });
    relayed(kept, options(), with(&publisher, full(64)), &events(0..64));
    assert_eq!(dead(kept), [(40, "trapped", 2)]);
    let deliveries = deliveries(&publisher);
    assert_eq!(deliveries.len(), 63);
    assert!(deliveries.values().all(|times| *times <= 2), "once with the others, and once alone");
    assert_eq!(publisher.sizes().iter().filter(|size| **size > 1).count(), 1, "no other call had it in it");
    assert!(publisher.delivered().iter().all(|event| event.attempt == 1), "nobody else used up an attempt");
}

fn one_poisonous_entry_of_a_long_stream_is_found<K: Kept>(kept: &K) {
    let publisher = Bulk::answering(|event| if event.position == 5 { trapped() } else { Outcome::Delivered });
    relayed(kept, options(), with(&publisher, at_once()), &events([0; 20]));
    assert_eq!(dead(kept), [(5, "trapped", 2)]);
    assert_in_order(&publisher);
    assert!(deliveries(&publisher).values().all(|times| *times <= 2));
}

/// A server that answers 500 to the whole request, since it cannot store one event of it.
fn a_request_that_fails_for_all_uses_up_the_attempts_of_none_but_those_that_fail_alone<K: Kept>(kept: &K) {
    struct Server(Bulk);
    impl Publisher for Server {
        fn publish<'a>(&'a self, event: &'a Recorded) -> outbox_host::BoxFuture<'a, outbox_host::Attempt> {
            self.0.publish(event)
        }
        fn publish_batch<'a>(
            &'a self,
            events: &'a [Recorded],
        ) -> outbox_host::BoxFuture<'a, Vec<outbox_host::Attempt>> {
            if events.iter().any(|event| event.position == 3) {
                return Box::pin(std::future::ready(events.iter().map(|_| retry().into()).collect()));
            }
            self.0.publish_batch(events)
        }
        fn max_batch(&self) -> usize {
            self.0.max_batch()
        }
    }
    let server = Server(Bulk::answering(|event| if event.position == 3 { retry() } else { Outcome::Delivered }));
    relayed(kept, options(), with(&server, full(10)), &events(0..10));
    assert_eq!(dead(kept), [(3, "retry", 2)]);
    assert!(server.0.delivered().iter().all(|event| event.attempt == 1), "nobody else used up an attempt");
    assert!(deliveries(&server.0).values().all(|times| *times == 1));
}

// --- outages --------------------------------------------------------------------------------------------------------------------

/// Were each of them counted, the publisher would pause for an hour.
fn a_call_in_which_many_streams_fail_is_no_outage<K: Kept>(kept: &K) {
    let publisher = Bulk::answering(|event| match event.position {
        10..=40 if event.attempt == 1 => retry(),
        _ => Outcome::Delivered,
    });
    let hour = Duration::from_secs(3_600);
    let policy = Policy { pause: Backoff { initial: hour, max: hour }, ..options().policy };
    let report = relayed(kept, RelayOptions { policy, ..options() }, with(&publisher, full(64)), &events(0..64));
    assert_eq!((report.published, report.dead_lettered), (64, 0));
}

fn an_outage_makes_no_dead_letters<K: Kept>(kept: &K) {
    let is_down = Arc::new(AtomicBool::new(true));
    let seen = is_down.clone();
    let publisher = Bulk::answering(move |_| match seen.load(AtomicOrdering::SeqCst) {
        true => retry(),
        false => Outcome::Delivered,
    });
    let backoff = Backoff { initial: Duration::from_millis(200), max: Duration::from_millis(400) };
    let pause = Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(20) };
    let policy = Policy { max_attempts: 2, backoff, pause, breaker: BreakerRules::default(), ..Policy::default() };
    let outbox = outbox(kept, RelayOptions { policy, ..options() });
    outbox.append(&events(0..300)).unwrap();
    relaying(&outbox, with(&publisher, at_once()), |_| {
        let is_open = || {
            let relay = kept.open().status().unwrap().relay;
            relay.is_some_and(|relay| relay.publishers.iter().any(|it| it.breaker != BreakerState::Closed))
        };
        until("the breaker is open", is_open);
        until("it was probed", || publisher.sizes().len() > 100);
        assert_eq!(dead(kept), []);
        is_down.store(false, AtomicOrdering::SeqCst);
        until("all is delivered", || kept.open().status().unwrap().pending == 0);
    });
    assert_eq!((dead(kept), publisher.delivered().len()), (vec![], 300));
    let tried = publisher.delivered().iter().filter(|event| event.attempt > 1).count();
    assert!(tried <= 7, "{tried} have used up an attempt");
}

fn an_unavailable_publisher_gets_everything_later_in_order<K: Kept>(kept: &K) {
    let is_down = Arc::new(AtomicBool::new(true));
    let seen = is_down.clone();
    let publisher = Bulk::answering(move |event| match seen.load(AtomicOrdering::SeqCst) && event.position > 5 {
        true => unavailable(),
        false => Outcome::Delivered,
    });
    let pause = Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(20) };
    let policy = Policy { pause, ..options().policy };
    let outbox = outbox(kept, RelayOptions { policy, ..options() });
    outbox.append(&events((0..90).map(|entry| entry % 9))).unwrap();
    relaying(&outbox, with(&publisher, soon(30)), |_| {
        until("it was probed", || publisher.sizes().len() > 5);
        is_down.store(false, AtomicOrdering::SeqCst);
        until("all is delivered", || kept.open().status().unwrap().pending == 0);
    });
    assert_in_order(&publisher);
    let delivered = publisher.delivered();
    assert!(delivered.len() == 90 && delivered.iter().all(|event| event.attempt == 1), "{}", delivered.len());
}

// --- the rest ---------------------------------------------------------------------------------------------------------------------

fn what_is_being_collected_stays_when_the_relay_stops<K: Kept>(kept: &K) {
    let publisher = Bulk::delivering();
    let outbox = outbox(kept, options());
    outbox.append(&events(0..3)).unwrap();
    let began = Instant::now();
    relaying(&outbox, with(&publisher, full(64)), |_| {
        until("it is at work", || kept.open().status().unwrap().relay.is_some());
    });
    assert!(began.elapsed() < FOR_EVER / 2);
    assert_eq!((publisher.sizes().len(), kept.open().status().unwrap().pending), (0, 3));
}

fn an_entry_of_two_publishers_is_in_the_calls_of_both<K: Kept>(kept: &K) {
    let one = Bulk::delivering();
    let other = Bulk::answering(|event| if event.position == 7 { trapped() } else { Outcome::Delivered });
    let members = [("one", &one as &dyn Publisher), ("other", &other as &dyn Publisher)];
    let publishers = Publishers::routed(members, [route("*", &["one", "other"])]).unwrap();
    let publishers = publishers.with_options("one", full(20)).with_options("other", full(20));
    let report = relayed(kept, options(), publishers, &events(0..20));
    assert_eq!((dead(kept), report.unavailable), (vec![(7, "trapped", 2)], 0));
    assert_eq!((one.sizes(), one.delivered().len()), (vec![20], 20));
    let deliveries = deliveries(&other);
    assert!(deliveries.len() == 19 && deliveries.values().all(|times| *times <= 2), "{deliveries:?}");
}

// --- components -------------------------------------------------------------------------------------------------------------

fn component(file: &Path, call_time: Duration) -> ComponentPublisher {
    let mut settings = Settings { output: OutputSink::new(|_| ()), ..Settings::default() };
    settings.limits.call_time = call_time;
    ComponentPublisher::load(file, settings).unwrap()
}

fn a_component_that_traps_or_is_out_of_time_in_a_call_with_64_streams<K: Kept>(kept: &K) {
    let publisher = component(&guest("batch"), Duration::from_millis(500));
    let mut events = events(0..64);
    for (number, act) in [(10, "trap"), (20, "spin")] {
        events[number].data = Payload::Json(format!(r#"{{"do":"{act}"}}"#));
    }
    let report = relayed(kept, options(), with(&publisher, full(64)), &events);
    assert_eq!(report.published, 62);
    let mut dead = dead(kept);
    dead.sort_unstable();
    assert_eq!(dead, [(11, "trapped", 2), (21, "timed-out", 2)]);
}

/// The same component with other bytes, for another version.
fn other_version(of: &[u8]) -> Vec<u8> {
    // A custom section without a content, named `v`.
    [of, &[0, 2, 1, b'v']].concat()
}

#[test]
fn each_version_gets_its_own_events_with_one_call() {
    const NAME: &str = "bulk";
    let (kept, lines) = (Sqlite::new(), Arc::new(Mutex::new(Vec::new())));
    let printed = lines.clone();
    let output = OutputSink::new(move |line| printed.lock().unwrap().push(line.line.to_owned()));
    let settings = Settings { output, ..Settings::default() };
    let publisher = VersionedPublisher::new(NAME, settings, CanaryRules::default());
    let (outbox, operator) = (outbox(&kept, options()), kept.open());
    let bytes = std::fs::read(guest("batch")).unwrap();
    let deploy = |bytes: &[u8], share| operator.deployments().deploy(NAME, bytes, share, "", &act()).unwrap().version;
    let version = |number: u32| {
        let versions = operator.deployments().versions(Some(NAME)).unwrap();
        versions.into_iter().find(|version| version.version == number).unwrap()
    };
    let mut events = events(0..40);
    events[7].data = Payload::Json(r#"{"do":"reject"}"#.into());
    relaying(&outbox, with(&publisher, full(40)), |_| {
        let active = deploy(&bytes, None);
        until("it is active", || version(active).state == VersionState::Active);
        let canary = deploy(&other_version(&bytes), Some("50%".parse().unwrap()));
        until("it is on trial", || version(canary).state == VersionState::Canary);
        outbox.append(&events).unwrap();
        until("all but one is delivered", || kept.open().status().unwrap().pending <= 1);
    });
    let sizes: Vec<usize> = (lines.lock().unwrap().iter())
        .filter_map(|line| line.strip_prefix("batch of ").map(|size| size.parse().unwrap()))
        .collect();
    assert!(sizes.len() == 2 && sizes.iter().sum::<usize>() == 40, "{sizes:?}");
    let [active, canary] = [1, 2].map(|number| version(number).counts);
    assert_eq!(active.delivered + canary.delivered, 39, "{active:?} {canary:?}");
}
