//! Events that are not to be published before a time: never early, soon when their time has come, and nobody else waits.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use outbox_host::outbox::{Selection, Settled};
use outbox_host::{
    Attempt, Backoff, BoxFuture, Column, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Policy,
    Publisher, Publishers, Recorded, RelayOptions, Timestamp,
};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::publishers::{Scripted, retry, route};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;
use outbox_tests::workplace::rows;
use tokio::sync::Semaphore;

outbox_tests::for_each_storage! {
    a_pass_publishes_what_is_due_and_nothing_else
    what_is_not_due_does_not_count_as_tried
    nobody_is_early_and_nobody_waits_for_long
    a_stream_goes_on_without_what_is_not_due
    with_the_setting_a_stream_waits
    what_becomes_due_together_keeps_the_order_of_its_stream
    in_total_order_what_is_not_due_is_passed_over
    with_the_setting_everything_waits_in_total_order
    without_order_the_setting_holds_nothing
    a_clock_that_is_set_forward_makes_things_due
    a_clock_that_is_set_back_makes_nothing_early
    what_waits_for_a_call_is_looked_at_again_before_it
    what_was_put_off_has_the_next_relay
    many_that_are_due_together_come_in_parts
    it_may_have_expired_when_its_time_comes
    whoever_has_it_is_known_when_an_operator_delays_it
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A clock that a test sets. Only one does at a time.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);
static SET_BY: Mutex<()> = Mutex::new(());

fn set_clock() -> Timestamp {
    Timestamp::now() + jiff::SignedDuration::from_millis(AHEAD_MS.load(Ordering::SeqCst))
}

struct Clock(#[allow(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

impl Clock {
    fn take() -> Self {
        let guard = SET_BY.lock().unwrap_or_else(PoisonError::into_inner);
        AHEAD_MS.store(0, Ordering::SeqCst);
        Self(guard)
    }

    fn set_forward(&self, by: Duration) {
        AHEAD_MS.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn set_back(&self, by: Duration) {
        AHEAD_MS.fetch_sub(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

fn hours_later() -> Timestamp {
    Timestamp::now() + 3 * HOUR
}

fn options() -> RelayOptions {
    let policy = Policy { backoff: Backoff::NONE, pause: Backoff::NONE, ..Policy::default() };
    RelayOptions { policy, ..RelayOptions::default() }
}

fn holding() -> RelayOptions {
    RelayOptions { delay_holds_stream: true, ..options() }
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    with(kept, options())
}

fn with<K: Kept>(kept: &K, options: RelayOptions) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(options)
}

fn in_ms(stream: &str, ms: u64) -> NewEvent {
    event(stream, "{}").with_publish_after(Timestamp::now() + Duration::from_millis(ms))
}

fn in_an_hour(stream: &str) -> NewEvent {
    event(stream, "{}").with_publish_after(Timestamp::now() + HOUR)
}

fn plain(stream: &str) -> NewEvent {
    event(stream, "{}")
}

/// Remembers when it was called, by a clock.
struct Timed {
    clock: fn() -> Timestamp,
    calls: Mutex<Vec<(u64, Timestamp)>>,
}

impl Timed {
    fn new(clock: fn() -> Timestamp) -> Self {
        Self { clock, calls: Mutex::default() }
    }

    fn calls(&self) -> Vec<(u64, Timestamp)> {
        self.calls.lock().unwrap().clone()
    }

    fn positions(&self) -> Vec<u64> {
        self.calls().iter().map(|(position, _)| *position).collect()
    }
}

impl Publisher for Timed {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.calls.lock().unwrap().push((event.position, (self.clock)()));
        Box::pin(std::future::ready(Outcome::Delivered.into()))
    }
}

fn counts<K: Kept>(kept: &K) -> (u64, u64) {
    let status = kept.open().status().unwrap();
    (status.pending, status.delayed)
}

fn a_pass_publishes_what_is_due_and_nothing_else<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    let past = plain("a").with_publish_after("2026-01-31T12:00:00Z".parse().unwrap());
    // The second is put off, and the third waits where it is: it is due soon.
    let (far, near) = (in_an_hour("a"), in_ms("a", 1_500));
    let due = far.publish_after.unwrap();
    outbox(kept).append(&[past, far, near, plain("b")]).unwrap();
    assert_eq!(outbox(kept).run(&publisher, None).unwrap().published, 2);
    assert_eq!((publisher.take_positions(), counts(kept)), (vec![1, 4], (1, 1)));
    let until = kept.open().status().unwrap().delayed_until.unwrap();
    assert!(until >= due && until.duration_since(due) <= jiff::SignedDuration::from_millis(1), "{until} for {due}");
    let later = || outbox(kept).with_clock(hours_later, || 0.0);
    assert_eq!(later().run(&publisher, None).unwrap().published, 2);
    let mut published = publisher.take_positions();
    published.sort_unstable();
    assert_eq!((published, counts(kept)), (vec![2, 3], (0, 0)));
}

fn what_is_not_due_does_not_count_as_tried<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    outbox(kept).append(&[in_an_hour("a"), in_ms("b", 1_500), plain("c"), plain("d")]).unwrap();
    assert_eq!(outbox(kept).run(&publisher, 1).unwrap().published, 1);
    assert_eq!(publisher.take_positions(), [3]);
}

/// Some are due at once, some soon, and some only after they were put off.
fn nobody_is_early_and_nobody_waits_for_long<K: Kept>(kept: &K) {
    let now = Timestamp::now();
    let due = |number: u64| now + Duration::from_millis(number * 17 % 5_000);
    let events: Vec<NewEvent> =
        (0..300).map(|number| plain(&format!("s-{}", number % 40)).with_publish_after(due(number))).collect();
    let publisher = Timed::new(Timestamp::now);
    let outbox = outbox(kept);
    outbox.append(&events).unwrap();
    relaying(&outbox, &publisher, |_| until("all are published", || publisher.calls().len() == 300));
    let mut late: Vec<Duration> = Vec::new();
    for (position, at) in publisher.calls() {
        let due = due(position - 1);
        assert!(at >= due, "{position} is due at {due}, and was published at {at}");
        late.push(at.duration_since(due).try_into().unwrap());
    }
    late.sort_unstable();
    assert!(late[150] < SECOND, "late in the median: {:?}", late[150]);
    assert_eq!(counts(kept), (0, 0));
}

fn a_stream_goes_on_without_what_is_not_due<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    let outbox = outbox(kept);
    outbox.append(&[in_an_hour("a"), plain("a"), in_ms("a", 700), plain("a"), in_ms("a", 3_500), plain("a")]).unwrap();
    relaying(&outbox, &publisher, |_| until("five are published", || publisher.calls().len() == 5));
    assert_eq!((publisher.positions(), counts(kept)), (vec![2, 4, 6, 3, 5], (0, 1)));
}

fn with_the_setting_a_stream_waits<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    let outbox = with(kept, holding());
    outbox.append(&[plain("a"), in_ms("a", 1_200), plain("a"), plain("b"), in_ms("a", 3_000), plain("a")]).unwrap();
    let is_past = |at: &str| publisher.positions().contains(&at.parse().unwrap());
    relaying(&outbox, &publisher, |_| {
        until("the other stream has gone on", || is_past("4") && is_past("1"));
        outbox.append(&[plain("a")]).unwrap();
        until("all are published", || publisher.calls().len() == 7);
    });
    let of_a: Vec<u64> = publisher.positions().into_iter().filter(|position| *position != 4).collect();
    assert_eq!(of_a, [1, 2, 3, 5, 6, 7]);
    assert!(publisher.positions()[..2].contains(&4), "another stream does not wait");
    assert_eq!(kept.open().operator().attempts(2).unwrap(), []);
}

fn what_becomes_due_together_keeps_the_order_of_its_stream<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    let outbox = outbox(kept);
    let due = Timestamp::now() + 3 * SECOND;
    let together: Vec<NewEvent> =
        (0..50).map(|number| plain(&format!("s-{}", number % 5)).with_publish_after(due)).collect();
    outbox.append(&together).unwrap();
    relaying(&outbox, &publisher, |_| until("all are published", || publisher.calls().len() == 50));
    for stream in 0..5 {
        let of_stream: Vec<u64> = publisher.positions().into_iter().filter(|position| position % 5 == stream).collect();
        assert!(of_stream.is_sorted(), "{of_stream:?}");
    }
}

fn in_total_order_what_is_not_due_is_passed_over<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    let total = RelayOptions { ordering: outbox_host::Ordering::Total, ..options() };
    let outbox = with(kept, total);
    outbox.append(&[in_ms("a", 900), in_an_hour("b"), plain("c"), plain("d")]).unwrap();
    relaying(&outbox, &publisher, |_| until("three are published", || publisher.calls().len() == 3));
    assert_eq!((publisher.positions(), counts(kept)), (vec![3, 4, 1], (0, 1)));
}

fn with_the_setting_everything_waits_in_total_order<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    let total = RelayOptions { ordering: outbox_host::Ordering::Total, ..holding() };
    let outbox = with(kept, total);
    let held = in_ms("a", 1_500);
    let due = held.publish_after.unwrap();
    outbox.append(&[plain("x"), held, plain("c"), in_ms("d", 100), plain("x")]).unwrap();
    relaying(&outbox, &publisher, |_| until("all are published", || publisher.calls().len() == 5));
    assert_eq!(publisher.positions(), [1, 2, 3, 4, 5]);
    assert!(publisher.calls()[1..].iter().all(|(_, at)| *at >= due));
}

fn without_order_the_setting_holds_nothing<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    let none = RelayOptions { ordering: outbox_host::Ordering::None, ..holding() };
    let outbox = with(kept, none);
    outbox.append(&[in_ms("a", 800), plain("a"), in_an_hour("a"), plain("a")]).unwrap();
    relaying(&outbox, &publisher, |_| until("three are published", || publisher.calls().len() == 3));
    assert_eq!(publisher.calls()[2].0, 1);
    assert_eq!(counts(kept), (0, 1));
}

fn a_clock_that_is_set_forward_makes_things_due<K: Kept>(kept: &K) {
    for options in [options(), holding()] {
        let clock = Clock::take();
        let publisher = Timed::new(set_clock);
        let outbox = with(kept, options).with_clock(set_clock, || 0.0);
        let events = [in_an_hour("a"), in_ms("b", 1_900), plain("a"), plain("c")];
        let due: Vec<_> = events.iter().map(|event| event.publish_after.unwrap_or(Timestamp::MIN)).collect();
        let first = outbox.append(&events).unwrap()[0].unsigned_abs();
        relaying(&outbox, &publisher, |_| {
            until("what is due is published", || publisher.positions().contains(&(first + 3)));
            clock.set_forward(2 * HOUR);
            until("all are published", || publisher.calls().len() == 4);
        });
        for (position, at) in publisher.calls() {
            assert!(at >= due[usize::try_from(position - first).unwrap()]);
        }
    }
}

fn a_clock_that_is_set_back_makes_nothing_early<K: Kept>(kept: &K) {
    for options in [options(), holding()] {
        let clock = Clock::take();
        let publisher = Timed::new(set_clock);
        let outbox = with(kept, options).with_clock(set_clock, || 0.0);
        let events = [in_ms("a", 1_000), in_ms("b", 2_600), plain("c")];
        let due: Vec<_> = events.iter().map(|event| event.publish_after.unwrap_or(Timestamp::MIN)).collect();
        let first = outbox.append(&events).unwrap()[0].unsigned_abs();
        relaying(&outbox, &publisher, |_| {
            until("what is due is published", || publisher.positions() == [first + 2]);
            clock.set_back(HOUR);
            thread::sleep(4 * SECOND);
            assert_eq!(publisher.positions(), [first + 2], "nothing else is due");
            clock.set_forward(HOUR);
            until("all are published", || publisher.calls().len() == 3);
        });
        for (position, at) in publisher.calls() {
            assert!(at >= due[usize::try_from(position - first).unwrap()]);
        }
    }
}

/// A publisher whose first call does not end until it is told.
struct Stuck {
    timed: Timed,
    has_begun: AtomicBool,
    may_end: Semaphore,
}

impl Publisher for Stuck {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            if !self.has_begun.swap(true, Ordering::SeqCst) {
                let _ = self.may_end.acquire().await;
            }
            self.timed.publish(event).await
        })
    }
}

/// It was due when it was read, and the clock is set back before it is its turn.
fn what_waits_for_a_call_is_looked_at_again_before_it<K: Kept>(kept: &K) {
    for max_late in [60, 3_600] {
        let clock = Clock::take();
        let publisher =
            Stuck { timed: Timed::new(set_clock), has_begun: AtomicBool::new(false), may_end: Semaphore::new(0) };
        let one = RelayOptions { concurrency: 1, ..options() };
        let outbox = with(kept, one).with_clock(set_clock, || 0.0);
        let first = outbox.append(&[plain("a")]).unwrap()[0].unsigned_abs();
        relaying(&outbox, &publisher, |_| {
            until("the first call has begun", || publisher.has_begun.load(Ordering::SeqCst));
            let due = Timestamp::now();
            outbox.append(&[plain("b").with_publish_after(due), plain("c")]).unwrap();
            // It is read within this time.
            thread::sleep(SECOND);
            clock.set_back(max_late * SECOND);
            publisher.may_end.close();
            until("the others are published", || publisher.timed.positions() == [first, first + 2]);
            thread::sleep(SECOND);
            assert_eq!(publisher.timed.positions(), [first, first + 2]);
            clock.set_forward(max_late * SECOND);
            until("all are published", || publisher.timed.calls().len() == 3);
            assert!(publisher.timed.calls()[2].1 >= due);
        });
        assert_eq!(kept.open().operator().attempts(i64::try_from(first + 1).unwrap()).unwrap(), []);
    }
}

fn what_was_put_off_has_the_next_relay<K: Kept>(kept: &K) {
    let publisher = Timed::new(Timestamp::now);
    outbox(kept).append(&[in_ms("a", 3_000), in_ms("a", 4_000)]).unwrap();
    relaying(&outbox(kept), &publisher, |_| until("both are put off", || counts(kept) == (0, 2)));
    relaying(&outbox(kept), &publisher, |_| until("the first is published", || publisher.positions() == [1]));
    relaying(&outbox(kept), &publisher, |_| until("both are published", || publisher.positions() == [1, 2]));
    assert_eq!(counts(kept), (0, 0));
}

/// More than come back in one transaction.
fn many_that_are_due_together_come_in_parts<K: Kept>(kept: &K) {
    let publisher = Timed::new(hours_later);
    let due = Timestamp::now() + HOUR;
    let many: Vec<NewEvent> = (0..1_800).map(|number| plain(&format!("s-{number}")).with_publish_after(due)).collect();
    outbox(kept).append(&many).unwrap();
    assert_eq!(outbox(kept).run(&publisher, 10_000).unwrap().published, 0);
    assert_eq!(counts(kept), (0, 1_800));
    let later = outbox(kept).with_clock(hours_later, || 0.0);
    assert_eq!(later.run(&publisher, 700).unwrap().published, 700);
    assert_eq!(later.run(&publisher, 10_000).unwrap().published, 1_100);
    assert_eq!((publisher.calls().len(), counts(kept)), (1_800, (0, 0)));
}

fn it_may_have_expired_when_its_time_comes<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    let event = in_an_hour("a").with_expires_at(Timestamp::now() + 2 * HOUR);
    outbox(kept).append(&[event]).unwrap();
    assert_eq!(outbox(kept).run(&publisher, None).unwrap().published, 0);
    let later = outbox(kept).with_clock(hours_later, || 0.0);
    assert_eq!(later.run(&publisher, None).unwrap().outcomes["expired"], 1);
    assert_eq!(publisher.take_positions(), [0_u64; 0]);
}

/// A dead letter that some publishers have is given another time, and put back.
fn whoever_has_it_is_known_when_an_operator_delays_it<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::default(), Scripted::answering("a", |_| retry()));
    let routed = || {
        let publishers = [("webhook", &webhook as _), ("audit", &audit as _)];
        Publishers::routed(publishers, [route("*", &["webhook", "audit"])]).unwrap()
    };
    let once = RelayOptions { policy: Policy { max_attempts: 1, ..options().policy }, ..options() };
    outbox(kept).append(&[plain("a")]).unwrap();
    assert_eq!(with(kept, once.clone()).run(routed(), None).unwrap().dead_lettered, 1);
    let later = (Timestamp::now() + HOUR).to_string();
    let strategy = kept.open();
    let changes = [(Column::PublishAfter, later.into())];
    assert!(strategy.operator().mend_dead_letter(1, &changes, &act()).unwrap());
    strategy.operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
    audit.answer("a", |_| Outcome::Delivered);
    outbox(kept).append(&[plain("a"), plain("b")]).unwrap();
    assert_eq!(with(kept, once.clone()).run(routed(), None).unwrap().published, 1, "it holds its stream");
    let report = with(kept, once).with_clock(hours_later, || 0.0).run(routed(), None).unwrap();
    assert_eq!(report.published, 2);
    assert_eq!((webhook.take_positions(), audit.take_positions()), (vec![1, 3, 2], vec![1, 3, 1, 2]));
}

// --- what may become of what was put off, in SQLite -------------------------------------------------------------------

/// An outbox with one entry that is put off.
fn put_off(kept: &Sqlite, event: NewEvent) {
    outbox(kept).append(&[event]).unwrap();
    assert_eq!(outbox(kept).run(&Scripted::default(), None).unwrap().published, 0);
    assert_eq!(kept.open().status().unwrap().delayed, 1);
}

fn published_later(kept: &Sqlite) -> Vec<u64> {
    let publisher = Scripted::default();
    outbox(kept).with_clock(hours_later, || 0.0).run(&publisher, None).unwrap();
    publisher.take_positions()
}

#[test]
fn an_application_cancels_by_uuid_wherever_the_entry_is() {
    for ms in [600_000, 1_800] {
        let kept = Sqlite::new();
        let uuid = uuid::Uuid::from_u128(7);
        outbox(&kept).append(&[NewEvent { uuid: Some(uuid), ..in_ms("a", ms) }]).unwrap();
        let publisher = Timed::new(Timestamp::now);
        relaying(&outbox(&kept), &publisher, |_| {
            if ms > 2_000 {
                until("it is put off", || counts(&kept) == (0, 1));
            }
            let mut application = kept.connection();
            let transaction = application.transaction().unwrap();
            let delete = |table: &str| {
                let sql = format!("DELETE FROM {table} WHERE uuid = ?1");
                transaction.execute(&sql, [uuid.to_string()]).unwrap()
            };
            assert_eq!(delete("outbox") + delete("outbox_delayed"), 1);
            transaction.commit().unwrap();
            outbox(&kept).append(&[in_ms("a", 2_000)]).unwrap();
            until("what is due later is published", || publisher.calls().len() == 1);
        });
        assert_eq!((publisher.positions(), published_later(&kept)), (vec![2], vec![]), "in {ms} ms");
    }
}

#[test]
fn the_applications_own_columns_come_back_and_go_with_what_is_cancelled() {
    let kept = Sqlite::new();
    let application = kept.connection();
    application.execute_batch("ALTER TABLE outbox ADD COLUMN \"re\"\"mark\" TEXT DEFAULT 'none'").unwrap();
    outbox(&kept).append(&[in_an_hour("a"), in_an_hour("b")]).unwrap();
    application.execute_batch("UPDATE outbox SET \"re\"\"mark\" = x'00ff' WHERE position = 1").unwrap();
    let before = rows(&application, "SELECT * FROM outbox ORDER BY position");
    outbox(&kept).run(&Scripted::default(), None).unwrap();
    assert_eq!(rows(&application, "SELECT count(*) FROM outbox_delayed_columns"), ["2"]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    let back = drain.bring_back(hours_later(), hours_later(), 10).unwrap();
    assert_eq!((back.entries.len(), back.next), (2, None));
    assert_eq!(rows(&application, "SELECT * FROM outbox ORDER BY position"), before);
    let entries = drain.entries_at(&[1, 2], usize::MAX).unwrap();
    let until = hours_later();
    let put_off: Vec<Settled> =
        entries.iter().flatten().map(|entry| Settled::PutOff { entry: entry.id(), until }).collect();
    assert_eq!(drain.settle(&put_off).unwrap(), 2);
    assert_eq!(drain.settle(&put_off).unwrap(), 0, "they are no longer there");
    application.execute_batch("DELETE FROM outbox_delayed").unwrap();
    assert_eq!(rows(&application, "SELECT * FROM outbox_delayed_columns"), [""; 0]);
}

#[test]
fn what_the_table_refuses_is_tried_again_and_keeps_nobody_from_coming_back() {
    for refuses in ["ABORT", "FAIL", "ROLLBACK", "IGNORE"] {
        let clock = Clock::take();
        let kept = Sqlite::new();
        let outbox = outbox(&kept).with_clock(set_clock, || 0.0);
        outbox.append(&[in_an_hour("a"), in_an_hour("bad"), in_an_hour("c")]).unwrap();
        let publisher = Timed::new(set_clock);
        relaying(&outbox, &publisher, |_| {
            until("all are put off", || counts(&kept) == (0, 3));
            let what = if refuses == "IGNORE" { String::new() } else { ", 'not this one'".into() };
            let trigger = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON outbox WHEN new.stream_id = 'bad'
                 BEGIN SELECT RAISE({refuses}{what}); END"
            );
            kept.connection().execute_batch(&trigger).unwrap();
            clock.set_forward(2 * HOUR);
            until("the others are published", || publisher.calls().len() == 2 && counts(&kept) == (0, 1));
            let reason = rows(&kept.connection(), "SELECT refused FROM outbox_delayed");
            assert!(reason[0].contains("not this one") || reason[0].contains("ignores it"), "{reason:?}");
            kept.connection().execute_batch("DROP TRIGGER refuse").unwrap();
            clock.set_forward(Duration::from_secs(20));
            until("it is published", || publisher.calls().len() == 3);
        });
        let mut published = publisher.positions();
        assert_eq!(published.pop(), Some(2), "{refuses}");
        published.sort_unstable();
        assert_eq!((published, counts(&kept)), (vec![1, 3], (0, 0)), "{refuses}");
    }
}

#[test]
fn what_has_lost_its_place_goes_behind_all_others_with_its_uuid() {
    let kept = Sqlite::new();
    let uuid = uuid::Uuid::from_u128(7);
    put_off(&kept, NewEvent { uuid: Some(uuid), ..in_an_hour("a") });
    let application = kept.connection();
    application
        .execute_batch("INSERT INTO outbox (position, stream_id, name, data) VALUES (1, 'other', 'n', '{}')")
        .unwrap();
    let publisher = Scripted::default();
    outbox(&kept).with_clock(hours_later, || 0.0).run(&publisher, None).unwrap();
    let mut calls = publisher.take_calls();
    calls.sort_unstable_by_key(|event| event.position);
    assert_eq!(calls.iter().map(|event| event.position).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(calls[1].wrapped_event.uuid, uuid);
}

#[test]
fn what_somebody_has_put_back_by_hand_is_published_once() {
    let kept = Sqlite::new();
    put_off(&kept, in_an_hour("a"));
    let columns = "position, tenant_id, stream_id, uuid, name, created_at, context, data";
    kept.connection()
        .execute_batch(&format!("INSERT INTO outbox ({columns}) SELECT {columns} FROM outbox_delayed"))
        .unwrap();
    assert_eq!((published_later(&kept), published_later(&kept)), (vec![1], vec![]));
    assert_eq!(counts(&kept), (0, 0));
}

/// It would not be seen in the table that it is not due yet.
#[test]
fn a_table_that_has_lost_the_column_gets_nothing_back_early() {
    let kept = Sqlite::new();
    put_off(&kept, in_ms("a", 4_000));
    let due = kept.open().status().unwrap().delayed_until.unwrap();
    kept.connection().execute_batch("ALTER TABLE outbox DROP COLUMN publish_after").unwrap();
    let publisher = Timed::new(Timestamp::now);
    relaying(&outbox(&kept), &publisher, |_| until("it is published", || publisher.calls().len() == 1));
    assert!(publisher.calls()[0].1 >= due);
}

/// A trigger keeps the relay from taking it out of the table: it waits there, and is published once.
#[test]
fn what_cannot_be_put_off_waits_in_the_table() {
    let clock = Clock::take();
    let kept = Sqlite::new();
    let trigger = "CREATE TRIGGER keep BEFORE DELETE ON outbox WHEN old.stream_id = 'a'
                   BEGIN SELECT RAISE(ABORT, 'it stays'); END";
    kept.connection().execute_batch(trigger).unwrap();
    let outbox = outbox(&kept).with_clock(set_clock, || 0.0);
    outbox.append(&[in_an_hour("a"), in_an_hour("b"), plain("c")]).unwrap();
    let publisher = Timed::new(set_clock);
    relaying(&outbox, &publisher, |_| {
        until("the other one is put off", || counts(&kept) == (1, 1));
        clock.set_forward(2 * HOUR);
        until("both are published", || publisher.calls().len() == 3);
        kept.connection().execute_batch("DROP TRIGGER keep").unwrap();
        until("it is removed", || counts(&kept) == (0, 0) && kept.open().status().unwrap().undeletable == 0);
    });
    let mut published = publisher.positions();
    published.sort_unstable();
    assert_eq!(published, [1, 2, 3]);
}
