//! Rate limits: a publisher is given no more than its rate, retries included, and nobody else waits for it.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use outbox_host::{
    Attempt, Backoff, BoxFuture, BreakerRules, JsonSerde, NewEvent, Ordering, Outbox, OutboxStorageStrategy, Outcome,
    Policy, Publisher, PublisherOptions, Publishers, RateBy, RateLimit, Recorded, RelayOptions, Report, StreamId,
};
use outbox_tests::for_each_storage;
use outbox_tests::outboxes::Kept;
use outbox_tests::publishers::route;
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;

for_each_storage! {
    a_publisher_is_given_no_more_than_its_rate
    a_publisher_that_takes_batches_is_given_no_more_than_its_rate
    one_tenant_at_its_limit_holds_up_no_other
    retries_count_too
    one_publisher_at_its_limit_holds_up_no_other
    a_pass_takes_the_time_that_the_rate_takes
    in_total_order_the_rate_holds_too
    a_relay_that_waits_for_a_token_stops_at_once_and_says_until_when_it_waits
}

/// The most calls of a publisher at once. A call begins somewhat later than its token is taken.
const CALLS: usize = 4;

#[derive(Default)]
struct Destination {
    /// The tenant and the time of each call.
    calls: Mutex<Vec<(String, Instant)>>,
    refuses: bool,
}

impl Destination {
    fn len(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn of(&self, tenant: &str) -> Vec<Instant> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(of, _)| of == tenant).map(|(_, at)| *at).collect()
    }
}

impl Publisher for Destination {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            self.calls.lock().unwrap().push((event.tenant_id.clone(), Instant::now()));
            match self.refuses {
                true => Outcome::Retry { reason: "busy".into(), after: None }.into(),
                false => Outcome::Delivered.into(),
            }
        })
    }
}

fn options() -> RelayOptions {
    let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(2) };
    let policy = Policy { backoff, max_attempts: 10_000, breaker: BreakerRules::OFF, ..Policy::default() };
    RelayOptions { policy, concurrency: CALLS, ..RelayOptions::default() }
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(options())
}

fn event(stream: usize, tenant: &str) -> NewEvent {
    NewEvent::json(StreamId::new(format!("s-{stream}")), "order.paid", "{}").with_tenant(tenant)
}

fn limit(rate: &str, burst: u32, by: RateBy) -> RateLimit {
    RateLimit { burst: NonZeroU32::new(burst), by, ..RateLimit::of(rate.parse().unwrap()) }
}

fn limited(publisher: &dyn Publisher, rate: RateLimit) -> Publishers<'_> {
    Publishers::one(publisher).with_options("", PublisherOptions { rate: Some(rate), ..PublisherOptions::default() })
}

/// In no stretch of time there are more calls than the bucket can have held and got.
#[track_caller]
fn assert_within(mut calls: Vec<Instant>, limit: RateLimit) {
    calls.sort();
    for (first, from) in calls.iter().enumerate() {
        for (last, to) in calls.iter().enumerate().skip(first) {
            let came = (*to - *from).as_nanos() / limit.rate.interval().as_nanos();
            let most = usize::try_from(came).unwrap() + limit.burst().get() as usize + CALLS;
            assert!(last - first < most, "{} calls within {:?}", last - first + 1, *to - *from);
        }
    }
}

fn drained<K: Kept>(kept: &K, publishers: Publishers<'_>) -> Duration {
    let began = Instant::now();
    relaying(&outbox(kept), publishers, |_| {
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
    began.elapsed()
}

fn a_publisher_is_given_no_more_than_its_rate<K: Kept>(kept: &K) {
    let (destination, limit) = (Destination::default(), limit("100/s", 5, RateBy::Publisher));
    outbox(kept).append(&(0..80).map(|entry| event(entry % 7, "default")).collect::<Vec<_>>()).unwrap();
    let took = drained(kept, limited(&destination, limit));
    assert_eq!(destination.len(), 80);
    assert!(took >= Duration::from_millis(740), "75 entries after the burst take 10 ms each: {took:?}");
    assert_within(destination.of("default"), limit);
}

/// Takes events of several streams with one call.
#[derive(Default)]
struct Bulk {
    one: Destination,
    largest: AtomicUsize,
}

impl Publisher for Bulk {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.one.publish(event)
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            self.largest.fetch_max(events.len(), SeqCst);
            let mut attempts = Vec::new();
            for event in events {
                attempts.push(self.publish(event).await);
            }
            attempts
        })
    }

    fn max_batch(&self) -> usize {
        50
    }
}

fn a_publisher_that_takes_batches_is_given_no_more_than_its_rate<K: Kept>(kept: &K) {
    let (bulk, limit) = (Bulk::default(), limit("500/s", 40, RateBy::Publisher));
    outbox(kept).append(&(0..300).map(|stream| event(stream, "default")).collect::<Vec<_>>()).unwrap();
    let took = drained(kept, limited(&bulk, limit));
    assert_eq!(bulk.one.len(), 300);
    assert!(took >= Duration::from_millis(510), "260 entries after the burst take 2 ms each: {took:?}");
    let largest = bulk.largest.load(SeqCst);
    assert!(largest > 1, "what may go at once goes together");
    assert!(largest <= 50, "{largest}");
}

fn one_tenant_at_its_limit_holds_up_no_other<K: Kept>(kept: &K) {
    let (destination, limit) = (Destination::default(), limit("5/s", 2, RateBy::Tenant));
    let outbox = outbox(kept);
    outbox.append(&(0..5_000).map(|entry| event(entry % 900, "acme")).collect::<Vec<_>>()).unwrap();
    let others = (0..300).map(|entry| event(entry, &format!("tenant-{entry}")));
    outbox.append(&others.collect::<Vec<_>>()).unwrap();
    relaying(&outbox, limited(&destination, limit), |_| {
        until("the others are delivered", || destination.len() - destination.of("acme").len() == 300);
        outbox.append(&[event(0, "late")]).unwrap();
        until("so is one that comes later", || destination.of("late").len() == 1);
        let before = destination.of("acme").len();
        until("the limited one goes on", || destination.of("acme").len() > before);
    });
    assert!(destination.of("acme").len() < 1_000, "it is far from done");
    assert_within(destination.of("acme"), limit);
}

fn retries_count_too<K: Kept>(kept: &K) {
    let destination = Destination { refuses: true, ..Destination::default() };
    let limit = limit("50/s", 1, RateBy::Publisher);
    let outbox = outbox(kept);
    outbox.append(&(0..20).map(|stream| event(stream, "default")).collect::<Vec<_>>()).unwrap();
    relaying(&outbox, limited(&destination, limit), |_| until("each was retried", || destination.len() > 60));
    assert_within(destination.of("default"), limit);
}

fn one_publisher_at_its_limit_holds_up_no_other<K: Kept>(kept: &K) {
    let (slow, fast) = (Destination::default(), Destination::default());
    let routes = [route("slow", &["slow"]), route("fast", &["fast"])];
    let options = PublisherOptions { rate: Some(RateLimit::of("1/h".parse().unwrap())), ..PublisherOptions::default() };
    let publishers = Publishers::routed([("slow", &slow as _), ("fast", &fast as _)], routes).unwrap();
    let outbox = outbox(kept);
    let to = |name: &str, entry: usize| NewEvent::json(StreamId::new(format!("{name}-{entry}")), name, "{}");
    outbox.append(&(0..5_000).map(|entry| to("slow", entry % 3_000)).collect::<Vec<_>>()).unwrap();
    outbox.append(&(0..500).map(|entry| to("fast", entry)).collect::<Vec<_>>()).unwrap();
    relaying(&outbox, publishers.with_options("slow", options), |_| {
        until("the fast ones are delivered", || fast.len() == 500);
        for more in 501..520 {
            outbox.append(&[to("fast", more)]).unwrap();
            until("so is another one", || fast.len() == more);
        }
    });
    assert_eq!(slow.len(), 1);
}

fn a_pass_takes_the_time_that_the_rate_takes<K: Kept>(kept: &K) {
    for by in [RateBy::Publisher, RateBy::Tenant, RateBy::Category, RateBy::Stream] {
        let (destination, limit) = (Destination::default(), limit("100/s", 1, by));
        let outbox = outbox(kept);
        outbox.append(&(0..20).map(|_| event(1, "default")).collect::<Vec<_>>()).unwrap();
        let began = Instant::now();
        let Report { published, .. } = outbox.run(limited(&destination, limit), None).unwrap();
        assert_eq!((published, destination.len()), (20, 20));
        assert!(began.elapsed() >= Duration::from_millis(190), "{by:?}: {:?}", began.elapsed());
        assert_within(destination.of("default"), limit);
    }
}

fn in_total_order_the_rate_holds_too<K: Kept>(kept: &K) {
    let (destination, limit) = (Destination::default(), limit("100/s", 1, RateBy::Tenant));
    let options = RelayOptions { ordering: Ordering::Total, ..options() };
    let outbox = Outbox::new(kept.open(), JsonSerde).with_options(options);
    outbox.append(&(0..30).map(|entry| event(entry, "default")).collect::<Vec<_>>()).unwrap();
    relaying(&outbox, limited(&destination, limit), |_| {
        until("all are delivered", || kept.open().status().unwrap().pending == 0);
    });
    assert_within(destination.of("default"), limit);
}

fn a_relay_that_waits_for_a_token_stops_at_once_and_says_until_when_it_waits<K: Kept>(kept: &K) {
    let (destination, limit) = (Destination::default(), limit("1/h", 1, RateBy::Publisher));
    let outbox = outbox(kept);
    outbox.append(&(0..10).map(|stream| event(stream, "default")).collect::<Vec<_>>()).unwrap();
    let report = relaying(&outbox, limited(&destination, limit), |_| {
        let next_token = || kept.open().status().unwrap().relay?.publishers.first()?.next_token;
        until("it says so", || next_token().is_some());
    });
    assert_eq!((report.published, outbox.strategy().status().unwrap().pending), (1, 9));
}
