//! Several publishers on one relay: each has calls and memory of its own, and those of one entry are called side by side.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use outbox_host::outbox::{Deployments, StorageError};
use outbox_host::{
    Attempt, Backoff, BoxFuture, JsonSerde, Maintenance, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Policy,
    PublishError, Publisher, PublisherOptions, Publishers, Recorded, RelayOptions, StreamId, Withdrawn,
};
use outbox_tests::for_each_storage;
use outbox_tests::outboxes::Kept;
use outbox_tests::publishers::route;
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;
use tokio::sync::watch;

for_each_storage! {
    a_publisher_that_stands_still_holds_up_nobody_and_loses_nothing
    a_publisher_that_is_not_ready_holds_up_no_other
    a_withdrawn_canary_holds_up_its_own_publisher_only
    the_publishers_of_an_entry_are_called_side_by_side
    each_publisher_has_a_number_of_calls_of_its_own
    a_stream_stays_in_order_over_all_of_its_publishers
    a_stream_stays_in_order_beside_a_publisher_without_room
}

// In PostgreSQL, so many streams take more than the minute that is waited for.
outbox_tests::for_each_untyped_storage! {
    more_streams_than_may_wait_hold_up_nobody
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(5) };
    let policy = Policy { backoff, max_attempts: 1_000, ..Policy::default() };
    Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions { policy, ..RelayOptions::default() })
}

/// An event for the publishers that its name tells.
fn to(publishers: &str, stream: &str) -> NewEvent {
    NewEvent::json(StreamId::new(stream), publishers, "{}")
}

fn routed<'a>(slow: &'a dyn Publisher, fast: &'a dyn Publisher) -> Publishers<'a> {
    let routes = [route("slow", &["slow"]), route("fast", &["fast"]), route("both", &["slow", "fast"])];
    Publishers::routed([("slow", slow), ("fast", fast)], routes).unwrap()
}

fn calls(most: usize) -> PublisherOptions {
    PublisherOptions { concurrency: Some(most), ..PublisherOptions::default() }
}

/// A publisher whose calls wait until it is opened, and that knows what it was called with.
#[derive(Default)]
struct Gate {
    is_open: watch::Sender<bool>,
    calls: Mutex<Vec<(String, u64)>>,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    fn opened() -> Self {
        let gate = Self::default();
        gate.open();
        gate
    }

    fn open(&self) {
        self.is_open.send_replace(true);
    }
}

impl Publisher for Gate {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            self.most.fetch_max(1 + self.under_way.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
            self.calls.lock().unwrap().push((event.stream_id.id.clone(), event.position));
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            Outcome::Delivered.into()
        })
    }
}

/// More entries than fit into memory are in front: single ones and long streams.
fn a_publisher_that_stands_still_holds_up_nobody_and_loses_nothing<K: Kept>(kept: &K) {
    let (slow, fast) = (Gate::default(), Gate::opened());
    let singles = (0..3_000).map(|stream| to("slow", &format!("s-{stream}")));
    let long = (0..3_000).map(|entry| to("slow", &format!("long-{}", entry % 2)));
    let outbox = outbox(kept);
    outbox.append(&singles.chain(long).collect::<Vec<_>>()).unwrap();
    outbox.append(&[to("fast", "f")]).unwrap();
    relaying(&outbox, routed(&slow, &fast), |_| {
        until("the fast one is delivered", || fast.calls.lock().unwrap().len() == 1);
        assert_eq!(slow.calls.lock().unwrap().len(), 0);
        for more in 2..20 {
            outbox.append(&[to("fast", &format!("f-{more}")), to("slow", "long-0")]).unwrap();
            until("the next one is delivered too", || fast.calls.lock().unwrap().len() == more);
        }
        slow.open();
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
    let calls = slow.calls.into_inner().unwrap();
    assert_eq!(calls.len(), 6_018, "each of them once");
    let mut streams: HashMap<String, Vec<u64>> = HashMap::new();
    calls.into_iter().for_each(|(stream, position)| streams.entry(stream).or_default().push(position));
    assert!(streams.values().all(|positions| positions.is_sorted()), "in the order of each stream");
}

/// So many streams that they are not remembered one by one.
fn more_streams_than_may_wait_hold_up_nobody<K: Kept>(kept: &K) {
    const STREAMS: usize = 210_000;
    let (slow, fast) = (Gate::default(), Gate::opened());
    let outbox = outbox(kept);
    for thousands in 0..STREAMS / 1_000 {
        let events = (0..1_000).map(|stream| to("slow", &format!("s-{thousands}-{stream}")));
        outbox.append(&events.collect::<Vec<_>>()).unwrap();
    }
    outbox.append(&[to("fast", "f"), to("fast", "s-209-999"), to("slow", "s-209-999")]).unwrap();
    relaying(&outbox, routed(&slow, &fast), |_| {
        until("the fast one is delivered", || fast.calls.lock().unwrap().len() == 1);
        for more in 2..10 {
            outbox.append(&[to("fast", "f")]).unwrap();
            until("the next one is delivered too", || fast.calls.lock().unwrap().len() == more);
        }
        slow.open();
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
    assert_eq!((slow.calls.lock().unwrap().len(), fast.calls.lock().unwrap().len()), (STREAMS + 1, 10), "each once");
    let last = fast.calls.lock().unwrap().last().unwrap().0.clone();
    assert_eq!(last, "s-209-999", "it waited for the one before it in its stream");
}

/// A publisher whose version is prepared for a while, and whose canary is withdrawn when it is told so.
#[derive(Default)]
struct Prepared {
    gate: Gate,
    is_ready: AtomicBool,
    withdrawn: AtomicBool,
    /// How often the relay has looked for changes.
    looks: AtomicUsize,
}

impl Publisher for Prepared {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        match self.is_ready.load(Ordering::SeqCst) {
            true => self.gate.publish(event),
            false => {
                let unavailable = Outcome::Unavailable { reason: "it is being compiled".into(), after: None };
                Box::pin(std::future::ready(unavailable.into()))
            }
        }
    }

    fn maintain(&self, _: &dyn Deployments, _: Timestamp) -> Result<Maintenance, StorageError> {
        let ready = self.is_ready.load(Ordering::SeqCst);
        self.looks.fetch_add(1, Ordering::SeqCst);
        let withdrawn = self.withdrawn.swap(false, Ordering::SeqCst);
        let canary = || Withdrawn { publisher: "slow".into(), digest: "0123".into() };
        Ok(Maintenance {
            swapped: ready,
            busy: !ready,
            ready,
            again: Some(Duration::from_millis(5)),
            withdrawn: withdrawn.then(canary).into_iter().collect(),
        })
    }
}

fn a_publisher_that_is_not_ready_holds_up_no_other<K: Kept>(kept: &K) {
    let (slow, fast) = (Prepared { gate: Gate::opened(), ..Prepared::default() }, Gate::opened());
    let outbox = outbox(kept);
    outbox.append(&[to("slow", "a"), to("fast", "b")]).unwrap();
    relaying(&outbox, routed(&slow, &fast), |_| {
        until("the fast one is delivered", || fast.calls.lock().unwrap().len() == 1);
        slow.is_ready.store(true, Ordering::SeqCst);
        until("so is the other, once it is ready", || slow.gate.calls.lock().unwrap().len() == 1);
    });
}

fn a_withdrawn_canary_holds_up_its_own_publisher_only<K: Kept>(kept: &K) {
    let (slow, fast) = (Prepared { is_ready: true.into(), ..Prepared::default() }, Gate::opened());
    let outbox = outbox(kept);
    outbox.append(&[to("slow", "a")]).unwrap();
    relaying(&outbox, routed(&slow, &fast), |_| {
        until("a call is under way", || slow.gate.under_way.load(Ordering::SeqCst) == 1);
        slow.withdrawn.store(true, Ordering::SeqCst);
        // It is told before the next look.
        let looks = || slow.looks.load(Ordering::SeqCst);
        until("the relay knows it", || !slow.withdrawn.load(Ordering::SeqCst));
        let before = looks();
        until("it has looked again", || looks() > before);
        for more in 1..20 {
            outbox.append(&[to("fast", "f"), to("slow", &format!("s-{more}"))]).unwrap();
            until("the other publisher goes on", || fast.calls.lock().unwrap().len() == more);
        }
        assert_eq!(slow.gate.most.load(Ordering::SeqCst), 1, "no call begins until the attempts are given back");
        slow.gate.open();
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
}

/// Each waits for the other: one after the other would never end.
fn the_publishers_of_an_entry_are_called_side_by_side<K: Kept>(kept: &K) {
    let meeting = Barrier::new(2);
    let meets = |_: &Recorded| {
        meeting.wait();
        Ok::<(), PublishError>(())
    };
    let outbox = outbox(kept);
    outbox.append(&[to("both", "a"), to("both", "a"), to("both", "b")]).unwrap();
    let report = outbox.run(routed(&meets, &meets), None).unwrap();
    assert_eq!((report.published, outbox.strategy().status().unwrap().pending), (3, 0));
}

fn each_publisher_has_a_number_of_calls_of_its_own<K: Kept>(kept: &K) {
    let (slow, fast) = (Gate::default(), Gate::default());
    let outbox = outbox(kept);
    let events = (0..20).flat_map(|stream| [to("slow", &format!("s-{stream}")), to("fast", &format!("f-{stream}"))]);
    outbox.append(&events.collect::<Vec<_>>()).unwrap();
    let publishers = routed(&slow, &fast).with_options("slow", calls(2)).with_options("fast", calls(5));
    relaying(&outbox, publishers, |_| {
        let under_way = || [&slow, &fast].map(|gate| gate.under_way.load(Ordering::SeqCst));
        until("each has its calls", || under_way() == [2, 5]);
        [&slow, &fast].iter().for_each(|gate| gate.open());
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
    assert_eq!([&slow, &fast].map(|gate| gate.most.load(Ordering::SeqCst)), [2, 5]);
}

/// An entry waits for the one before it, also if that goes to another publisher.
fn a_stream_stays_in_order_over_all_of_its_publishers<K: Kept>(kept: &K) {
    let order = Mutex::new(Vec::new());
    let notes = |event: &Recorded| {
        order.lock().unwrap().push(event.position);
        Ok::<(), PublishError>(())
    };
    let outbox = outbox(kept);
    let events: Vec<NewEvent> = (0..300).map(|entry| to(["slow", "fast", "both"][entry % 3], "a")).collect();
    outbox.append(&events).unwrap();
    let report = outbox.run(routed(&notes, &notes), 1_000).unwrap();
    assert_eq!(report.published, 300);
    let order = order.into_inner().unwrap();
    assert_eq!(order.len(), 400, "every third one goes to both");
    assert!(order.is_sorted(), "{order:?}");
}

/// Its entries go to a publisher that has no room and to one that has, in turn.
fn a_stream_stays_in_order_beside_a_publisher_without_room<K: Kept>(kept: &K) {
    let (slow, fast) = (Gate::default(), Gate::opened());
    let outbox = outbox(kept);
    let in_front = (0..3_000).map(|stream| to("slow", &format!("s-{stream}")));
    let mixed = (0..40).map(|entry| to(["slow", "fast", "both"][entry % 3], "mixed"));
    outbox.append(&in_front.chain(mixed).collect::<Vec<_>>()).unwrap();
    outbox.append(&[to("fast", "f")]).unwrap();
    let of_mixed = |gate: &Gate| -> Vec<u64> {
        let calls = gate.calls.lock().unwrap();
        calls.iter().filter(|(stream, _)| stream == "mixed").map(|(_, position)| *position).collect()
    };
    relaying(&outbox, routed(&slow, &fast), |_| {
        until("what is behind them is delivered", || !fast.calls.lock().unwrap().is_empty());
        assert_eq!(of_mixed(&fast), [0_u64; 0], "the first of its stream goes to the other publisher");
        slow.open();
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
    let (slow, fast) = (of_mixed(&slow), of_mixed(&fast));
    assert_eq!((slow.len(), fast.len()), (27, 26));
    assert!(slow.is_sorted() && fast.is_sorted(), "{slow:?} {fast:?}");
}
