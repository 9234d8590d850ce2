//! Tenants have turns: what one has, however much it is, does not delay another's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outbox_host::{
    Attempt, Backoff, BoxFuture, FairBy, Field, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Policy,
    PublishError, Publisher, Publishers, Recorded, RelayOptions, Row, StreamId,
};
use outbox_tests::for_each_untyped_storage;
use outbox_tests::outboxes::{Kept, row};
use outbox_tests::publishers::route;
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;
use tokio::sync::Semaphore;

// PostgreSQL's storage does not read in turns yet.
for_each_untyped_storage! {
    ten_entries_behind_twenty_thousand_of_another_tenant_are_next
    ten_entries_that_come_later_are_next
    a_tenant_with_few_long_streams_takes_no_more_than_its_turns
    weights_say_how_much_each_gets
    many_tenants_each_have_their_turn
    a_tenant_whose_entries_all_fail_takes_no_turns_of_others
    a_publisher_that_stands_still_holds_up_nothing_else_of_its_tenant
    each_stream_stays_in_order
    all_spellings_of_a_tenant_have_the_same_turns_and_streams
    a_pass_spreads_its_limit_over_the_tenants
    without_fairness_they_wait
}

/// The most calls at once.
const CALLS: usize = 4;

fn options() -> RelayOptions {
    let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(5) };
    let policy = Policy { backoff, max_attempts: 1_000, ..Policy::default() };
    RelayOptions { policy, fair_by: FairBy::Tenant, concurrency: CALLS, ..RelayOptions::default() }
}

fn outbox<K: Kept>(kept: &K, options: RelayOptions) -> Outbox<K::Strategy> {
    kept.index_tenants();
    Outbox::new(kept.open(), JsonSerde).with_options(options)
}

fn event(tenant: &str, stream: &str) -> NewEvent {
    to("slow", tenant, stream)
}

fn to(publisher: &str, tenant: &str, stream: &str) -> NewEvent {
    NewEvent::json(StreamId::new(stream), publisher, "{}").with_tenant(tenant)
}

fn singles(tenant: &str, number: usize) -> Vec<NewEvent> {
    (0..number).map(|stream| event(tenant, &format!("{tenant}-{stream}"))).collect()
}

/// A publisher whose calls each need a permit, and that knows in which order it was called.
struct Gate {
    permits: Semaphore,
    calls: Mutex<Vec<(String, String, u64)>>,
    waiting: AtomicUsize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { permits: Semaphore::new(0), calls: Mutex::default(), waiting: AtomicUsize::new(0) }
    }
}

impl Gate {
    fn open(&self) {
        self.permits.close();
    }

    /// Lets so many calls end, and waits for it.
    fn let_go(&self, calls: usize) {
        let before = self.calls.lock().unwrap().len();
        self.permits.add_permits(calls);
        until("the calls have ended", || self.calls.lock().unwrap().len() >= before + calls);
    }

    fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == CALLS
    }

    /// The calls so far, by tenant.
    fn of(&self, tenant: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|(of, ..)| of == tenant).count()
    }

    /// How many calls it took until `tenant` had so many.
    fn until_had(&self, tenant: &str, number: usize) -> usize {
        let calls = self.calls.lock().unwrap();
        let mut had = calls.iter().enumerate().filter(|(_, (of, ..))| of == tenant);
        had.nth(number - 1).map_or(usize::MAX, |(at, _)| at + 1)
    }

    fn is_in_order(&self) -> bool {
        let mut streams: HashMap<(String, String), u64> = HashMap::new();
        let calls = self.calls.lock().unwrap();
        calls.iter().all(|(tenant, stream, position)| {
            streams.insert((tenant.clone(), stream.clone()), *position).is_none_or(|before| before < *position)
        })
    }
}

impl Publisher for Gate {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            // A call that ends at once says that all of them do.
            tokio::task::yield_now().await;
            self.waiting.fetch_add(1, Ordering::SeqCst);
            if let Ok(permit) = self.permits.acquire().await {
                permit.forget();
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let stream = event.stream_id.id.clone();
            self.calls.lock().unwrap().push((event.tenant_id.clone(), stream, event.position));
            if event.wrapped_event.name == "fails" {
                return Outcome::from(Err(PublishError::retryable("not yet"))).into();
            }
            Outcome::Delivered.into()
        })
    }
}

fn pending<K: Kept>(kept: &K) -> u64 {
    kept.open().status().unwrap().pending
}

/// They lie behind all the others when the relay starts.
fn ten_entries_behind_twenty_thousand_of_another_tenant_are_next<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    outbox.append(&singles("a", 20_000)).unwrap();
    outbox.append(&singles("b", 10)).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        gate.let_go(60);
        assert_eq!(gate.of("b"), 10);
        assert!(gate.until_had("b", 10) <= 20 + 4 * CALLS, "{} calls", gate.until_had("b", 10));
        gate.open();
        until("all are delivered", || pending(kept) == 0);
    });
    assert_eq!(gate.calls.into_inner().unwrap().len(), 20_010, "each of them once");
}

/// The relay has long had the other tenant's in hand.
fn ten_entries_that_come_later_are_next<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    outbox.append(&singles("a", 5_000)).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        (0..20).for_each(|_| gate.let_go(1));
        for turn in 1..=5 {
            outbox.append(&singles("b", 10)).unwrap();
            let before = gate.calls.lock().unwrap().len();
            until("they are delivered", || {
                gate.permits.add_permits(1);
                gate.of("b") == 10 * turn
            });
            // A call may be let go before they are read.
            let took = gate.until_had("b", 10 * turn) - before;
            assert!(took <= 100, "{took} calls");
        }
        gate.open();
        until("all are delivered", || pending(kept) == 0);
    });
    assert!(gate.is_in_order());
}

fn a_tenant_with_few_long_streams_takes_no_more_than_its_turns<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    let long: Vec<NewEvent> = (0..4_000).map(|entry| event("a", &format!("long-{}", entry % CALLS))).collect();
    outbox.append(&long).unwrap();
    outbox.append(&singles("b", 10)).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        gate.let_go(60);
        assert_eq!(gate.of("b"), 10, "a job of many entries would hold up a caller");
        gate.open();
        until("all are delivered", || pending(kept) == 0);
    });
    assert!(gate.is_in_order());
}

fn weights_say_how_much_each_gets<K: Kept>(kept: &K) {
    let tenant_weights = BTreeMap::from([("heavy".to_owned(), 4)]);
    let (gate, outbox) = (Gate::default(), outbox(kept, RelayOptions { tenant_weights, ..options() }));
    outbox.append(&[singles("light", 2_000), singles("heavy", 2_000)].concat()).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        gate.let_go(200);
        let heavy = gate.of("heavy");
        assert!((140..=175).contains(&heavy), "{heavy} of 200");
        gate.open();
        until("all are delivered", || pending(kept) == 0);
    });
}

fn many_tenants_each_have_their_turn<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    let events = (0..3_000).flat_map(|tenant| (0..2).map(move |_| event(&format!("t-{tenant}"), "s")));
    outbox.append(&singles("a", 3_000)).unwrap();
    outbox.append(&events.collect::<Vec<_>>()).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        gate.let_go(1_000);
        let calls = gate.calls.lock().unwrap();
        let tenants: std::collections::HashSet<&str> = calls.iter().map(|(tenant, ..)| tenant.as_str()).collect();
        assert!(tenants.len() > 400, "{} tenants in {} calls", tenants.len(), calls.len());
        drop(calls);
        gate.open();
        until("all are delivered", || pending(kept) == 0);
    });
    assert!(gate.is_in_order());
}

fn a_tenant_whose_entries_all_fail_takes_no_turns_of_others<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    let failing = (0..3_000).map(|stream| to("fails", "a", &format!("s-{stream}")));
    outbox.append(&failing.collect::<Vec<_>>()).unwrap();
    outbox.append(&singles("b", 1_000)).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        gate.let_go(100);
        assert!(gate.of("b") >= 40, "{} of 100", gate.of("b"));
        gate.open();
        until("the other's are delivered", || gate.of("b") == 1_000);
    });
}

/// More entries for it than fit into memory are in front, of the same tenant.
fn a_publisher_that_stands_still_holds_up_nothing_else_of_its_tenant<K: Kept>(kept: &K) {
    let (slow, fast) = (Gate::default(), Gate::default());
    fast.open();
    let outbox = outbox(kept, options());
    outbox.append(&singles("a", 3_000)).unwrap();
    outbox.append(&[to("fast", "a", "f"), to("fast", "b", "f")]).unwrap();
    let routes = [route("slow", &["slow"]), route("fast", &["fast"]), route("both", &["slow", "fast"])];
    let publishers = Publishers::routed([("slow", &slow as _), ("fast", &fast as _)], routes).unwrap();
    relaying(&outbox, publishers, |_| {
        until("the fast one has them", || fast.of("a") == 1 && fast.of("b") == 1);
        for more in 2..10 {
            let events = [to("fast", "a", &format!("f-{more}")), to("both", "c", "c"), event("b", "b")];
            outbox.append(&events).unwrap();
            until("it has the next one too", || fast.of("a") == more);
        }
        until("the slow one's callers are at work", || slow.is_busy());
        slow.let_go(60);
        assert_eq!(slow.of("b"), 8, "they do not wait for those of the other tenant");
        slow.open();
        until("all are delivered", || pending(kept) == 0);
    });
    assert!(slow.is_in_order() && fast.is_in_order());
    assert_eq!((slow.calls.into_inner().unwrap().len(), fast.of("a")), (3_016, 9), "each of them once");
}

fn each_stream_stays_in_order<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    gate.open();
    let events = |from: usize| -> Vec<NewEvent> {
        let event = |n: usize| event(&format!("t-{}", n % 7), &format!("s-{}", n % 11));
        (from..from + 1_000).map(event).collect()
    };
    outbox.append(&events(0)).unwrap();
    relaying(&outbox, &gate, |_| {
        (1..10).for_each(|part| _ = outbox.append(&events(1_000 * part)).unwrap());
        until("all are delivered", || pending(kept) == 0);
    });
    assert!(gate.is_in_order());
    assert_eq!(gate.calls.into_inner().unwrap().len(), 10_000, "each of them once");
}

fn all_spellings_of_a_tenant_have_the_same_turns_and_streams<K: Kept>(kept: &K) {
    kept.loosen();
    let spellings: [Field<'_>; 6] =
        [Field::Integer(42), Field::Real(42.0), "42".into(), Field::Null, "".into(), "default".into()];
    for number in 0..600 {
        kept.insert(Row { tenant_id: spellings[number % 6].clone(), ..row("s") });
    }
    let odd = Field::Bytes(vec![1].into());
    kept.insert(Row { tenant_id: odd, ..row("s") });
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    gate.open();
    relaying(&outbox, &gate, |_| until("all are delivered", || pending(kept) == 0));
    assert!(gate.is_in_order());
    assert_eq!([gate.of("42"), gate.of("default")], [300, 300]);
    assert_eq!(kept.open().status().unwrap().dead_letters, 1, "the one whose tenant cannot be determined");
}

fn a_pass_spreads_its_limit_over_the_tenants<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, options()));
    gate.open();
    outbox.append(&singles("a", 5_000)).unwrap();
    outbox.append(&[singles("b", 10), singles("c", 1_000)].concat()).unwrap();
    let report = outbox.run(&gate, 100).unwrap();
    assert_eq!(report.published, 100);
    let of = ["a", "b", "c"].map(|tenant| gate.of(tenant));
    assert!(of[1] == 10 && of[0] >= 30 && of[2] >= 30, "{of:?}");
    let report = outbox.run(&gate, 10_000).unwrap();
    assert_eq!((report.published, pending(kept)), (5_910, 0));
}

/// The baseline: the tests above show something.
fn without_fairness_they_wait<K: Kept>(kept: &K) {
    let (gate, outbox) = (Gate::default(), outbox(kept, RelayOptions { fair_by: FairBy::Nobody, ..options() }));
    outbox.append(&singles("a", 1_000)).unwrap();
    outbox.append(&singles("b", 10)).unwrap();
    relaying(&outbox, &gate, |_| {
        until("the callers are at work", || gate.is_busy());
        gate.let_go(500);
        assert_eq!(gate.of("b"), 0);
        gate.open();
        until("all are delivered", || pending(kept) == 0);
    });
}
