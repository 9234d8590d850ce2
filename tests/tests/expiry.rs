//! Events that are no longer wanted after a time: they become dead letters without a call, wherever they were then.

use std::time::Duration;

use outbox_host::outbox::{DeadLetter, Selection};
use outbox_host::{
    Attempt, Backoff, BoxFuture, JsonSerde, NewEvent, OnDeadLetter, Outbox, OutboxStorageStrategy, Outcome, Policy,
    Publisher, Publishers, Recorded, RelayOptions, Row, Timestamp,
};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, event, row};
use outbox_tests::publishers::{Scripted, retry, route, unavailable};
use outbox_tests::workplace::Workplace;

outbox_tests::for_each_storage! {
    what_has_expired_is_set_aside_without_a_call
    its_stream_goes_on_or_is_parked_as_for_any_dead_letter
    what_has_not_expired_is_published
    what_waits_for_a_retry_expires
    what_waits_for_an_unavailable_publisher_expires
    those_that_have_it_keep_it
    within_a_batch_the_others_are_delivered
    a_retry_by_hand_delivers_it_all_the_same
}

// A table with types refuses such rows.
outbox_tests::for_each_untyped_storage! {
    no_time_is_a_dead_letter_with_the_reason
}

const HOUR: Duration = Duration::from_secs(60 * 60);

fn in_an_hour() -> Timestamp {
    Timestamp::now() + HOUR
}

/// What a clock shows in two hours.
fn in_two_hours() -> Timestamp {
    Timestamp::now() + 2 * HOUR
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    let policy = Policy { backoff: Backoff::NONE, pause: Backoff::NONE, ..Policy::default() };
    Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions { policy, ..RelayOptions::default() })
}

fn two_hours_later<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    outbox(kept).with_clock(in_two_hours, || 0.0)
}

/// An event that is no longer wanted in an hour.
fn for_an_hour(stream: &str) -> NewEvent {
    event(stream, "{}").with_expires_at(in_an_hour())
}

fn dead<K: Kept>(kept: &K) -> Vec<DeadLetter> {
    kept.open().operator().dead_letters(&Selection::all(), 100).unwrap()
}

fn what_has_expired_is_set_aside_without_a_call<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    let at = "2026-01-31T12:00:00Z".parse().unwrap();
    outbox(kept).append(&[event("a", "{}").with_expires_at(at), event("b", "{}")]).unwrap();
    let report = outbox(kept).run(&publisher, None).unwrap();
    assert_eq!((report.published, report.dead_lettered, report.outcomes["expired"]), (1, 1, 1));
    assert_eq!(publisher.take_positions(), [2]);
    let dead = dead(kept);
    let [dead] = dead.as_slice() else { panic!("{dead:?}") };
    let expected = ("expired", "it expired at 2026-01-31T12:00:00Z", 1);
    assert_eq!((dead.outcome.as_str(), dead.reason.as_str(), dead.attempts), expected);
}

fn its_stream_goes_on_or_is_parked_as_for_any_dead_letter<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    outbox(kept).append(&[for_an_hour("a"), event("a", "{}"), for_an_hour("a"), event("a", "{}")]).unwrap();
    two_hours_later(kept).run(&publisher, 2).unwrap();
    assert_eq!(publisher.take_positions(), [2]);
    let park = RelayOptions { on_dead_letter: OnDeadLetter::Park, ..RelayOptions::default() };
    let report = two_hours_later(kept).with_options(park).run(&publisher, None).unwrap();
    assert_eq!((report.dead_lettered, publisher.take_positions()), (1, vec![]));
    assert!(dead(kept)[1].parks_stream && !dead(kept)[0].parks_stream);
}

fn what_has_not_expired_is_published<K: Kept>(kept: &K) {
    outbox(kept).append(&[for_an_hour("a")]).unwrap();
    assert_eq!(outbox(kept).run(&Scripted::default(), None).unwrap().published, 1);
}

fn what_waits_for_a_retry_expires<K: Kept>(kept: &K) {
    let publisher = Scripted::answering("a", |_| retry());
    outbox(kept).append(&[for_an_hour("a")]).unwrap();
    assert_eq!(outbox(kept).run(&publisher, None).unwrap().to_be_retried, 1);
    publisher.take_calls();
    assert_eq!(two_hours_later(kept).run(&publisher, None).unwrap().outcomes["expired"], 1);
    assert_eq!((publisher.take_positions(), dead(kept)[0].attempts), (vec![], 2));
    let outcomes = kept.open().operator().attempts(1).unwrap().into_iter().map(|attempt| attempt.outcome);
    assert_eq!(outcomes.collect::<Vec<_>>(), ["retry", "expired"]);
}

fn what_waits_for_an_unavailable_publisher_expires<K: Kept>(kept: &K) {
    let publisher = Scripted::answering("a", |_| unavailable());
    outbox(kept).append(&[for_an_hour("a")]).unwrap();
    assert_eq!(outbox(kept).run(&publisher, None).unwrap().unavailable, 1);
    publisher.take_calls();
    assert_eq!(two_hours_later(kept).run(&publisher, None).unwrap().outcomes["expired"], 1);
    assert_eq!(publisher.take_positions(), [0_u64; 0]);
}

fn those_that_have_it_keep_it<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::default(), Scripted::answering("a", |_| retry()));
    let routed = || {
        Publishers::routed([("webhook", &webhook as _), ("audit", &audit as _)], [route("*", &["webhook", "audit"])])
    };
    outbox(kept).append(&[for_an_hour("a")]).unwrap();
    assert_eq!(outbox(kept).run(routed().unwrap(), None).unwrap().to_be_retried, 1);
    let report = two_hours_later(kept).run(routed().unwrap(), None).unwrap();
    assert_eq!((report.dead_lettered, dead(kept)[0].delivered_to.as_slice()), (1, ["webhook".to_owned()].as_slice()));
    assert_eq!((webhook.take_calls().len(), audit.take_calls().len()), (1, 1));
    // A retry by hand calls only the one that has it not.
    audit.answer("a", |_| Outcome::Delivered);
    kept.open().operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
    assert_eq!(two_hours_later(kept).run(routed().unwrap(), None).unwrap().published, 1);
    assert_eq!((webhook.take_calls().len(), audit.take_calls().len()), (0, 1));
}

/// Takes many events at once, and says which.
struct Bulk(Scripted);

impl Publisher for Bulk {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.0.publish(event)
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            let mut attempts = Vec::new();
            for event in events {
                attempts.push(self.0.publish(event).await);
            }
            attempts
        })
    }

    fn max_batch(&self) -> usize {
        64
    }
}

fn within_a_batch_the_others_are_delivered<K: Kept>(kept: &K) {
    let publisher = Bulk(Scripted::default());
    let plain = || event("a", "{}");
    outbox(kept).append(&[plain(), plain(), for_an_hour("a"), plain(), for_an_hour("a"), plain()]).unwrap();
    let report = two_hours_later(kept).run(&publisher, None).unwrap();
    assert_eq!((report.published, report.outcomes["expired"]), (4, 2));
    assert_eq!(publisher.0.take_positions(), [1, 2, 4, 6]);
}

fn a_retry_by_hand_delivers_it_all_the_same<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    outbox(kept).append(&[for_an_hour("a")]).unwrap();
    two_hours_later(kept).run(&publisher, None).unwrap();
    let strategy = kept.open();
    let operator = strategy.operator();
    let expired_at = operator.dead_entry(1).unwrap().unwrap().expires_at().unwrap();
    assert_eq!(operator.retry_dead_letters(&Selection::all(), &act()).unwrap(), [1]);
    assert_eq!(operator.entry(1).unwrap().unwrap().expires_at(), None);
    assert_eq!(operator.audit(1).unwrap()[0].detail, format!("expires_at was: {expired_at}"));
    assert_eq!(two_hours_later(kept).run(&publisher, None).unwrap().published, 1);
}

fn no_time_is_a_dead_letter_with_the_reason<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    kept.insert(Row { expires_at: "tomorrow".into(), ..row("a") });
    kept.insert(Row { expires_at: outbox_host::Field::Integer(1_800_000_000), ..row("a") });
    kept.insert(Row { publish_after: "".into(), ..row("a") });
    // SQLite's own form is a time in UTC.
    kept.insert(Row { expires_at: "2026-01-31 12:00:00".into(), ..row("a") });
    let report = outbox(kept).run(&publisher, None).unwrap();
    assert_eq!((report.outcomes["undecodable"], report.outcomes["expired"]), (3, 1));
    let reasons: Vec<String> = dead(kept).into_iter().map(|dead| dead.reason).collect();
    let example = "is no date and time: write it as RFC 3339 has it, for example 2026-01-31T12:00:00Z";
    assert_eq!(reasons[0], format!("expires_at: `tomorrow` {example}"));
    assert!(reasons[1].starts_with("expires_at: "), "{reasons:?}");
    assert_eq!(reasons[2], format!("publish_after: `` {example}"));
    assert_eq!(publisher.take_positions(), [0_u64; 0]);
}

// --- the command line and the table -----------------------------------------------------------------------------------

const RUN: &str = "run --db app.db --publisher guests/noop.wasm --json";

#[test]
fn an_operator_may_give_it_more_time() {
    let place = Workplace::new();
    let soon = r#"{"name": "code.sent", "stream_id": "user-7", "data": {}, "expires_at": "2026-01-31T12:00:00Z"}"#;
    place.append(soon);
    assert_eq!(place.outbox(RUN).json()["outcomes"]["expired"], 1);
    assert_eq!(place.query("SELECT outcome FROM outbox_dead_letters"), ["expired"]);
    let message = place.outbox("dead edit 1 --set expires_at=tomorrow --db app.db").refused();
    assert!(message.starts_with("expires_at: `tomorrow` is no date and time"), "{message}");
    let said = place.outbox("dead edit 1 --set expires_at=2999-01-31T12:00:00Z --db app.db").ok();
    assert_eq!(said, "replaced the expires_at of dead letter 1; put it back with: outbox dead retry 1\n");
    assert_eq!(place.query("SELECT detail FROM outbox_audit"), ["expires_at was: 2026-01-31T12:00:00Z"]);
    place.outbox("dead retry 1 --db app.db").ok();
    assert_eq!(place.outbox(RUN).json()["published"], 1);
    let refused = place.outbox_fed("append --db app.db", soon.replace("2026-01-31T12:00:00Z", "soon"));
    assert!(refused.stderr.contains("line 1: expires_at: `soon` is no date and time"), "{}", refused.stderr);
}

/// A table of an earlier version, or of the application's own.
const WITHOUT: &str = "
    CREATE TABLE outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id, stream_id, stream_name, category,
                         uuid DEFAULT (lower(hex(randomblob(16)))), name, version,
                         created_at DEFAULT '2026-01-31T12:00:00Z', content_type, context, data);";

#[test]
fn a_table_without_the_columns_works_as_before_until_they_are_added() {
    let place = Workplace::empty();
    place.sql().execute_batch(WITHOUT).unwrap();
    let init = place.outbox("init --db app.db");
    let add = "ALTER TABLE outbox ADD COLUMN publish_after TEXT; ALTER TABLE outbox ADD COLUMN expires_at TEXT;";
    assert!(init.stderr.contains(add), "{}", init.stderr);
    let plain = r#"{"name": "code.sent", "stream_id": "user-7", "data": {}}"#;
    let timed = plain.replace("{}", r#"{}, "expires_at": "2026-01-31T12:00:00Z""#);
    place.append(plain);
    let refused = place.outbox_fed("append --db app.db", &timed).refused();
    let expected = "the table outbox has no column expires_at: add it with `outbox init --add-columns`, or with \
                    `ALTER TABLE outbox ADD COLUMN expires_at TEXT`";
    assert_eq!(refused, expected);
    assert_eq!(place.outbox(RUN).json()["published"], 1);

    // While a relay is at work.
    let mut relay = place.start_logged("relay --db app.db --publisher guests/noop.wasm");
    place.append(plain);
    outbox_tests::waiting::until("it is published", || place.status()["pending"] == 0);
    place.outbox("init --db app.db --add-columns").ok();
    assert!(!place.outbox("init --db app.db").stderr.contains("note"), "nothing is left to add");
    place.append(&timed);
    outbox_tests::waiting::until("it has expired", || place.status()["dead_letters"] == 1);
    place.sql().execute_batch("ALTER TABLE outbox DROP COLUMN expires_at").unwrap();
    place.append(plain);
    outbox_tests::waiting::until("what comes later is published", || place.status()["pending"] == 0);
    assert_eq!(place.status()["dead_letters"], 1);
    relay.signal(outbox_tests::workplace::Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
}
