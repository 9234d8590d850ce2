//! Several publishers on one outbox: each entry takes the first route that matches it; with several publishers it leaves
//! when each has it, and only those that have not are called again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outbox_host::outbox::{Fate, RelayCondition, Selection, Settled};
use outbox_host::{
    Backoff, JsonSerde, NewEvent, OnDeadLetter, Outbox, OutboxStorageStrategy, Outcome, Policy, Publisher, Publishers,
    Recorded, RelayOptions, Route, StreamId,
};
use outbox_tests::act;
use outbox_tests::for_each_storage;
use outbox_tests::outboxes::{Kept, event};
use outbox_tests::publishers::{Scripted, rejected, retry, route, unavailable};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    let policy = Policy { backoff: Backoff::NONE, pause: Backoff::NONE, max_attempts: 3, ..Policy::default() };
    Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions { policy, ..RelayOptions::default() })
}

fn named(name: &str, stream: &str) -> NewEvent {
    NewEvent::json(StreamId::new(stream), name, "{}")
}

/// `order.*` goes to both, `audit.*` to the audit only, and the rest nowhere.
fn routed<'a>(webhook: &'a dyn Publisher, audit: &'a dyn Publisher) -> Publishers<'a> {
    let routes =
        [route("order.*", &["webhook", "audit"]), route("audit.*", &["audit"]), route("webhook.*", &["webhook"])];
    Publishers::routed([("webhook", webhook), ("audit", audit)], routes).unwrap()
}

for_each_storage! {
    each_entry_goes_where_its_route_leads
    only_the_publisher_that_failed_is_called_again
    what_was_delivered_to_some_is_known_to_the_next_relay
    the_last_failure_decides_and_a_dead_letter_is_retried_for_those_that_have_it_not
    one_that_rejects_does_not_end_the_attempts_of_another
    an_entry_without_a_route_is_kept_whole
    an_unavailable_publisher_pauses_its_own_entries_only
    in_one_stream_nothing_overtakes_an_entry_whose_publisher_is_unavailable
    an_entry_that_some_have_waits_for_the_unavailable_one_and_uses_up_no_attempt
    each_attempt_names_its_publisher
    a_route_drops_what_it_matches_and_the_stream_goes_on
    what_waits_is_dropped_by_a_new_route
    a_relay_drops_behind_a_publisher_that_is_down
    where_every_route_drops_the_rest_is_unrouted
}

// A table with types refuses such rows.
outbox_tests::for_each_untyped_storage! {
    a_row_that_is_no_event_is_not_dropped
}

/// `debug.*` is dropped, and the rest goes to this publisher.
fn without_debug(publisher: &dyn Publisher) -> Publishers<'_> {
    let debug = Route { name: Some("debug.*".parse().unwrap()), ..Route::dropping() };
    Publishers::routed([("webhook", publisher)], [debug, Route::to(["webhook"])]).unwrap()
}

fn a_route_drops_what_it_matches_and_the_stream_goes_on<K: Kept>(kept: &K) {
    let webhook = Scripted::default();
    let outbox = outbox(kept);
    let names = ["order.placed", "debug.x", "order.paid", "debug.y", "order.sent"];
    outbox.append(&names.map(|name| named(name, "a"))).unwrap();
    outbox.append(&[named("debug.z", "b")]).unwrap();
    let report = outbox.run(without_debug(&webhook), None).unwrap();
    assert_eq!((report.published, report.dropped, report.dead_lettered), (3, 3, 0));
    assert_eq!(webhook.take_positions(), [1, 3, 5]);
    let status = outbox.strategy().status().unwrap();
    assert_eq!((status.pending, status.dead_letters), (0, 0));
    // A dropped entry is one of those that a pass may take.
    outbox.append(&names.map(|name| named(name, "a"))).unwrap();
    let report = outbox.run(without_debug(&webhook), 2).unwrap();
    assert_eq!((report.published, report.dropped, outbox.strategy().status().unwrap().pending), (1, 1, 3));
}

fn what_waits_is_dropped_by_a_new_route<K: Kept>(kept: &K) {
    let webhook = Scripted::answering("a", |_| retry());
    let outbox = outbox(kept);
    outbox.append(&[named("debug.x", "a"), named("order.paid", "a")]).unwrap();
    assert_eq!(outbox.run(&webhook, None).unwrap().to_be_retried, 1);
    webhook.answer("a", |_| Outcome::Delivered);
    let report = outbox.run(without_debug(&webhook), None).unwrap();
    assert_eq!((report.published, report.dropped), (1, 1));
    assert_eq!(webhook.take_positions(), [1, 2]);
    assert_eq!(outbox.strategy().operator().attempts(1).unwrap(), [], "the records of its attempts are gone with it");
    assert_eq!(kept.open().drain().unwrap().held().unwrap(), []);
}

fn a_relay_drops_behind_a_publisher_that_is_down<K: Kept>(kept: &K) {
    let webhook = |_: &Recorded| Err(outbox_host::PublishError::unavailable("closed"));
    let outbox = outbox(kept);
    outbox.append(&[named("order.placed", "w")]).unwrap();
    // More than may await their commit at once.
    let noise: Vec<NewEvent> = (0..10_000).map(|number| named("debug.x", &format!("d-{}", number % 50))).collect();
    let report = relaying(&outbox, without_debug(&webhook), |_| {
        outbox.append(&noise).unwrap();
        until("they are dropped", || outbox.strategy().status().unwrap().pending == 1);
    });
    assert_eq!((report.published, report.dropped), (0, 10_000));
}

fn where_every_route_drops_the_rest_is_unrouted<K: Kept>(kept: &K) {
    let outbox = outbox(kept);
    outbox.append(&[named("debug.x", "a"), named("order.placed", "a")]).unwrap();
    let debug = Route { name: Some("debug.*".parse().unwrap()), ..Route::dropping() };
    let report = outbox.run(Publishers::routed([], [debug]).unwrap(), None).unwrap();
    assert_eq!((report.published, report.dropped, report.dead_lettered), (0, 1, 1));
}

/// A route that drops the rest does not drop what cannot be read: it might have gone somewhere else.
fn a_row_that_is_no_event_is_not_dropped<K: Kept>(kept: &K) {
    kept.insert(outbox_host::Row { stream_id: "a".into(), ..outbox_host::Row::default() });
    let (outbox, webhook) = (outbox(kept), Scripted::default());
    let publishers = Publishers::routed([("webhook", &webhook as _)], [Route::dropping()]).unwrap();
    let report = outbox.run(publishers, None).unwrap();
    assert_eq!((report.dropped, report.dead_lettered), (0, 1));
}

fn each_entry_goes_where_its_route_leads<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::default(), Scripted::default());
    let outbox = outbox(kept);
    outbox.append(&[named("order.placed", "a"), named("audit.x", "a"), named("webhook.x", "b")]).unwrap();
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    assert_eq!((report.published, outbox.strategy().status().unwrap().pending), (3, 0));
    let mut positions = webhook.take_positions();
    positions.sort_unstable();
    assert_eq!((positions, audit.take_positions()), (vec![1, 3], vec![1, 2]));
}

fn only_the_publisher_that_failed_is_called_again<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::answering("a", |_| retry()), Scripted::default());
    let outbox = outbox(kept);
    outbox.append(&[named("order.placed", "a"), named("order.paid", "a")]).unwrap();
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    assert_eq!((report.published, report.to_be_retried), (0, 1));
    assert_eq!((webhook.take_positions(), audit.take_positions()), (vec![1], vec![1]));
    webhook.answer("a", |_| Outcome::Delivered);
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    assert_eq!(report.published, 2);
    let attempts: Vec<(u64, u32)> = webhook.take_calls().iter().map(|event| (event.position, event.attempt)).collect();
    assert_eq!((attempts, audit.take_positions()), (vec![(1, 2), (2, 1)], vec![2]));
}

fn what_was_delivered_to_some_is_known_to_the_next_relay<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::default(), Scripted::answering("a", |_| retry()));
    let position = outbox(kept).append(&[named("order.placed", "a")]).unwrap()[0];
    outbox(kept).run(routed(&webhook, &audit), None).unwrap();
    let held = kept.open().drain().unwrap().held().unwrap();
    assert_eq!((held[0].entry.position, held[0].delivered_to.as_slice()), (position, &["webhook".to_owned()][..]));
    outbox(kept).run(routed(&webhook, &audit), None).unwrap();
    assert_eq!((webhook.take_positions().len(), audit.take_positions().len()), (1, 2));
}

fn the_last_failure_decides_and_a_dead_letter_is_retried_for_those_that_have_it_not<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::answering("a", |_| rejected()), Scripted::default());
    let outbox = outbox(kept);
    let position = outbox.append(&[named("order.placed", "a")]).unwrap()[0];
    assert_eq!(outbox.run(routed(&webhook, &audit), None).unwrap().dead_lettered, 1);
    let operator = outbox.strategy().operator();
    let dead = &operator.dead_letters(&Selection::all(), 10).unwrap()[0];
    assert_eq!((dead.outcome.as_str(), dead.delivered_to.as_slice()), ("rejected", &["audit".to_owned()][..]));
    assert_eq!(operator.retry_dead_letters(&Selection::all(), &act()).unwrap(), [position]);
    webhook.answer("a", |_| Outcome::Delivered);
    assert_eq!(outbox.run(routed(&webhook, &audit), None).unwrap().published, 1);
    assert_eq!((webhook.take_positions().len(), audit.take_positions().len()), (2, 1));
}

fn one_that_rejects_does_not_end_the_attempts_of_another<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::answering("a", |_| rejected()), Scripted::answering("a", |_| retry()));
    let outbox = outbox(kept);
    outbox.append(&[named("order.placed", "a")]).unwrap();
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    assert_eq!((report.to_be_retried, report.dead_lettered), (1, 0));
    audit.answer("a", |_| Outcome::Delivered);
    assert_eq!(outbox.run(routed(&webhook, &audit), None).unwrap().dead_lettered, 1);
    let attempts = outbox.strategy().operator().attempts(1).unwrap();
    let of: Vec<_> =
        attempts.iter().map(|it| (it.attempt, it.publisher.as_deref().unwrap(), it.outcome.as_str())).collect();
    assert_eq!(of, [(1, "audit", "retry"), (1, "webhook", "rejected"), (2, "webhook", "rejected")]);
}

fn an_entry_without_a_route_is_kept_whole<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::default(), Scripted::default());
    let outbox = outbox(kept);
    let event = NewEvent { tenant_id: "acme".into(), ..named("user.left", "a") };
    outbox.append(&[event, named("order.placed", "a")]).unwrap();
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    assert_eq!((report.published, report.dead_lettered), (1, 1));
    let dead = &outbox.strategy().operator().dead_letters(&Selection::all(), 10).unwrap()[0];
    assert_eq!((dead.outcome.as_str(), dead.name.as_str()), ("unrouted", "user.left"));
    let says = r#"its name is "user.left", its category none, its tenant "acme""#;
    assert!(dead.reason.contains(says), "{}", dead.reason);
    assert_eq!(outbox.strategy().status().unwrap().dead_letters, 1);
}

fn an_unavailable_publisher_pauses_its_own_entries_only<K: Kept>(kept: &K) {
    let is_down = AtomicBool::new(true);
    let webhook = |_: &Recorded| match is_down.load(Ordering::Relaxed) {
        true => Err(outbox_host::PublishError::unavailable("closed").retry_after(Duration::from_millis(1))),
        false => Ok(()),
    };
    let audit = Scripted::default();
    let outbox = outbox(kept);
    // More than are kept in memory wait for the one that is down.
    let backlog: Vec<NewEvent> = (0..6_000).map(|number| named("webhook.x", &format!("w-{number}"))).collect();
    outbox.append(&backlog).unwrap();
    relaying(&outbox, routed(&webhook, &audit), |_| {
        let for_audit: Vec<NewEvent> = (0..100).map(|number| named("audit.x", &format!("a-{}", number % 5))).collect();
        outbox.append(&for_audit).unwrap();
        until("the other one is called", || outbox.strategy().status().unwrap().pending == 6_000);
        let relay = outbox.strategy().status().unwrap().relay.unwrap();
        assert_eq!((relay.state, relay.reason.as_str()), (RelayCondition::Paused, "webhook: closed"));
        is_down.store(false, Ordering::Relaxed);
        until("all is delivered", || outbox.strategy().status().unwrap().pending == 0);
        until("it says so", || outbox.strategy().status().unwrap().relay.unwrap().state == RelayCondition::Running);
    });
    assert_eq!(audit.take_positions().len(), 100);
}

fn in_one_stream_nothing_overtakes_an_entry_whose_publisher_is_unavailable<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::answering("a", |_| unavailable()), Scripted::default());
    let outbox = outbox(kept);
    outbox.append(&[named("webhook.x", "a"), named("audit.x", "a"), named("audit.x", "b")]).unwrap();
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    assert_eq!((report.published, report.unavailable), (1, 1));
    assert_eq!(audit.take_positions(), [3]);
    webhook.answer("a", |_| Outcome::Delivered);
    assert_eq!(outbox.run(routed(&webhook, &audit), None).unwrap().published, 2);
}

fn an_entry_that_some_have_waits_for_the_unavailable_one_and_uses_up_no_attempt<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::answering("a", |_| unavailable()), Scripted::default());
    let outbox = outbox(kept);
    outbox.append(&[named("order.placed", "a")]).unwrap();
    for _ in 0..5 {
        assert_eq!(outbox.run(routed(&webhook, &audit), None).unwrap().unavailable, 1);
    }
    webhook.answer("a", |_| Outcome::Delivered);
    assert_eq!(outbox.run(routed(&webhook, &audit), None).unwrap().published, 1);
    let attempts: Vec<u32> = webhook.take_calls().iter().map(|event| event.attempt).collect();
    assert_eq!((attempts, audit.take_positions().len()), (vec![1; 6], 1));
}

fn each_attempt_names_its_publisher<K: Kept>(kept: &K) {
    let (webhook, audit) = (Scripted::answering("a", |_| retry()), Scripted::answering("a", |_| retry()));
    let outbox = outbox(kept);
    outbox.append(&[event("x", "{}"), named("order.placed", "a")]).unwrap();
    let report = outbox.run(routed(&webhook, &audit), None).unwrap();
    let names: Vec<_> = report.failures.iter().filter_map(|failure| failure.publisher.as_deref()).collect();
    assert_eq!(names, ["webhook"]);
    let attempts = outbox.strategy().operator().attempts(2).unwrap();
    assert_eq!(attempts.iter().filter_map(|it| it.publisher.as_deref()).collect::<Vec<_>>(), ["webhook", "audit"]);
}

/// What a relay cannot do to itself: the dead letter of an entry keeps who has it, also where it parks its stream.
#[test]
fn a_parked_stream_keeps_who_has_its_entry() {
    let kept = outbox_tests::outboxes::Sqlite::new();
    let (webhook, audit) = (Scripted::answering("a", |_| rejected()), Scripted::default());
    let outbox = Outbox::new(kept.open(), JsonSerde)
        .with_options(RelayOptions { on_dead_letter: OnDeadLetter::Park, ..RelayOptions::default() });
    outbox.append(&[named("order.placed", "a"), named("order.paid", "a")]).unwrap();
    outbox.run(routed(&webhook, &audit), None).unwrap();
    let dead = &outbox.strategy().operator().dead_letters(&Selection::all(), 10).unwrap()[0];
    assert_eq!((dead.parks_stream, dead.delivered_to.as_slice()), (true, &["audit".to_owned()][..]));
    // Settling it again changes nothing.
    let fate = Fate::DeadLetter { park: false };
    let (attempt, history) = (rejected().into(), outbox_host::History::default());
    let failed = outbox_host::outbox::Failed {
        entry: outbox_host::EntryId::of(dead.position, &dead.uuid.as_str().into()),
        at: dead.died_at,
        attempt,
        others: vec![],
        delivered_to: vec![],
        history,
        fate,
    };
    outbox.strategy().drain().unwrap().settle(&[Settled::Failed(Box::new(failed))]).unwrap();
    assert_eq!(outbox.strategy().operator().dead_letters(&Selection::all(), 10).unwrap()[0], *dead);
}
