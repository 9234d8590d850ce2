//! What the loop does with entries, for every storage: the reference's behaviours, the order of streams, retries, dead
//! letters, pauses, and what follows from the host's death.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as AtomicOrdering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use outbox_host::outbox::{RelayCondition, Retention, Selection, StreamState};
use outbox_host::{
    Attempt, Backoff, BoxFuture, Field, JsonSerde, NewEvent, OnDeadLetter, Ordering, Outbox, OutboxStorageStrategy,
    Outcome, Policy, PublishError, Publisher, Recorded, RelayOptions, Report, Row, StreamId,
};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, event, row};
use outbox_tests::publishers::{Scripted, rejected, retry, unavailable};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::{PATIENCE, until};

outbox_tests::for_each_storage! {
    an_empty_outbox_calls_nobody
    the_limit_is_respected
    an_entry_is_published_once_even_when_run_twice
    a_failing_entry_is_tried_max_attempts_times
    what_the_filterer_refuses_is_never_published
    the_events_of_all_tenants_are_published
    the_streams_name_is_passed_through
    a_pass_tries_each_entry_once
    a_failing_entry_holds_back_its_own_stream_only
    without_order_later_entries_overtake
    a_stream_goes_on_after_a_dead_letter
    a_parked_stream_waits_for_an_operator
    an_unavailable_publisher_ends_the_pass_and_uses_up_nothing
    attempts_are_numbered_and_a_later_success_clears_them
    a_panic_is_a_trap
    a_long_reason_is_cut
    the_relay_prunes_what_is_old
    a_batch_is_answered_event_by_event
    a_batch_with_too_few_answers_is_nobodys_attempt
    the_relay_publishes_what_is_appended_and_retries_by_itself
    a_paused_publisher_is_probed_with_one_entry
    who_asks_for_no_pause_gets_one_all_the_same
    an_operators_act_reaches_a_relay_at_work
    the_hosts_death_in_a_single_call_is_an_attempt
    suspects_are_tried_alone_and_keep_their_attempts
    stopping_cuts_off_what_does_not_end_and_counts_it_for_nothing
    what_ends_within_the_grace_is_settled
    streams_stay_in_order_at_any_concurrency
}

// A table with types refuses such rows.
outbox_tests::for_each_untyped_storage! {
    an_undecodable_row_is_set_aside_and_its_stream_goes_on
}

fn options() -> RelayOptions {
    let policy = Policy { max_attempts: 3, backoff: Backoff::NONE, pause: Backoff::NONE, ..Policy::default() };
    RelayOptions { policy, shutdown_grace: Duration::from_secs(20), ..RelayOptions::default() }
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    with(kept, options())
}

fn with<K: Kept>(kept: &K, options: RelayOptions) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(options)
}

fn append<K: Kept>(kept: &K, streams: &[&str]) -> Vec<u64> {
    let events: Vec<NewEvent> = streams.iter().map(|stream| event(stream, "{}")).collect();
    outbox(kept).append(&events).unwrap().into_iter().map(i64::unsigned_abs).collect()
}

fn run<K: Kept>(kept: &K, publisher: &impl Publisher) -> Report {
    outbox(kept).run(publisher, None).unwrap()
}

// --- the reference's behaviours --------------------------------------------------------------------------------------

fn an_empty_outbox_calls_nobody<K: Kept>(kept: &K) {
    let publisher = Scripted::default();
    assert_eq!(run(kept, &publisher), Report::default());
    assert_eq!(publisher.take_calls(), []);
}

fn the_limit_is_respected<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b", "a", "c"]);
    let publisher = Scripted::default();
    assert_eq!(outbox(kept).run(&publisher, 3).unwrap().published, 3);
    let mut first = publisher.take_positions();
    first.sort_unstable();
    assert_eq!(first, p[..3]);
    outbox(kept).run(&publisher, 3).unwrap();
    assert_eq!(publisher.take_positions(), p[3..]);
    assert_eq!(outbox(kept).run(&publisher, 0).unwrap(), Report::default());
    append(kept, &["a"; 150]);
    assert_eq!((run(kept, &publisher).published, run(kept, &publisher).published), (100, 50), "the default limit");
}

fn an_entry_is_published_once_even_when_run_twice<K: Kept>(kept: &K) {
    append(kept, &["a"]);
    let publisher = Scripted::default();
    assert_eq!((run(kept, &publisher).published, run(kept, &publisher).published), (1, 0));
    assert_eq!(publisher.take_calls().len(), 1);
    assert_eq!(kept.open().status().unwrap().pending, 0);
}

fn a_failing_entry_is_tried_max_attempts_times<K: Kept>(kept: &K) {
    append(kept, &["a"]);
    let publisher = Scripted::answering("a", |_| retry());
    let reports: Vec<Report> = (0..5).map(|_| run(kept, &publisher)).collect();
    assert_eq!(publisher.take_calls().iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(reports.iter().map(|it| it.to_be_retried).collect::<Vec<_>>(), [1, 1, 0, 0, 0]);
    assert_eq!(reports.iter().map(|it| it.dead_lettered).collect::<Vec<_>>(), [0, 0, 1, 0, 0]);
}

fn what_the_filterer_refuses_is_never_published<K: Kept>(kept: &K) {
    let outbox = outbox(kept).with_filterer(|event| event.stream_id.id != "drafts");
    assert_eq!(outbox.append(&[event("drafts", "{}"), event("a", "{}")]).unwrap().len(), 1);
    let publisher = Scripted::default();
    outbox.run(&publisher, None).unwrap();
    let streams: Vec<String> = publisher.take_calls().into_iter().map(|call| call.stream_id.id).collect();
    assert_eq!(streams, ["a"]);
}

fn the_events_of_all_tenants_are_published<K: Kept>(kept: &K) {
    let tenants = ["default", "acme", "globex"];
    let events: Vec<NewEvent> = tenants.iter().map(|tenant| event("a", "{}").with_tenant(*tenant)).collect();
    outbox(kept).append(&events).unwrap();
    // The same stream id of another tenant is another stream: the first one's failure does not hold it back.
    let publisher = Scripted::answering("a", |event| match event.tenant_id.as_str() {
        "default" => retry(),
        _ => Outcome::Delivered,
    });
    assert_eq!(run(kept, &publisher).published, 2);
    let mut called: Vec<String> = publisher.take_calls().into_iter().map(|call| call.tenant_id).collect();
    called.sort();
    assert_eq!(called, ["acme", "default", "globex"]);
}

fn the_streams_name_is_passed_through<K: Kept>(kept: &K) {
    let stream = StreamId::from_name("order-42").with_category("order");
    outbox(kept).append(&[NewEvent::json(stream.clone(), "order.placed", "{}")]).unwrap();
    let publisher = Scripted::default();
    run(kept, &publisher);
    assert_eq!(publisher.take_calls()[0].stream_id, stream);
}

// --- order, retries and dead letters -------------------------------------------------------------------------------------

fn a_pass_tries_each_entry_once<K: Kept>(kept: &K) {
    append(kept, &["a", "b"]);
    let publisher = Scripted::answering("a", |_| retry());
    let report = run(kept, &publisher);
    assert_eq!((report.published, report.to_be_retried, publisher.take_calls().len()), (1, 1, 2));
    let failure = &report.failures[0];
    assert_eq!(
        (failure.attempt, failure.outcome, failure.reason.as_str(), failure.then.name()),
        (1, "retry", "busy", "retry")
    );
}

fn a_failing_entry_holds_back_its_own_stream_only<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b", "a", "b"]);
    let publisher = Scripted::answering("a", |_| retry());
    assert_eq!(run(kept, &publisher).published, 2);
    let called = publisher.take_positions();
    assert_eq!(called.len(), 3);
    assert!(called.contains(&p[0]) && !called.contains(&p[2]), "{called:?}");
    let blocked = &kept.open().status().unwrap().blocked_streams;
    assert_eq!((blocked.len(), blocked[0].stream_id.as_str(), blocked[0].position.unsigned_abs()), (1, "a", p[0]));
    publisher.answer("a", |_| Outcome::Delivered);
    run(kept, &publisher);
    assert_eq!(publisher.take_positions(), [p[0], p[2]]);
}

fn without_order_later_entries_overtake<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a", "a"]);
    let first = p[0];
    let answer = move |event: &Recorded| if event.position == first { retry() } else { Outcome::Delivered };
    let publisher = Scripted::answering("a", answer);
    let options = RelayOptions { ordering: Ordering::None, ..options() };
    let report = with(kept, options.clone()).run(&publisher, None).unwrap();
    assert_eq!((report.published, report.to_be_retried), (2, 1));
    publisher.answer("a", |_| Outcome::Delivered);
    assert_eq!(with(kept, options).run(&publisher, None).unwrap().published, 1);
}

fn a_stream_goes_on_after_a_dead_letter<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a"]);
    let first = p[0];
    let answer = move |event: &Recorded| if event.position == first { rejected() } else { Outcome::Delivered };
    let report = run(kept, &Scripted::answering("a", answer));
    assert_eq!((report.published, report.dead_lettered), (1, 1));
    let dead = kept.open().operator().dead_letters(&Selection::all(), 10).unwrap();
    assert_eq!((dead[0].outcome.as_str(), dead[0].reason.as_str()), ("rejected", "no such order"));
}

fn a_parked_stream_waits_for_an_operator<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a", "b"]);
    let options = RelayOptions { on_dead_letter: OnDeadLetter::Park, ..options() };
    let publisher = Scripted::answering("a", |_| rejected());
    let report = with(kept, options.clone()).run(&publisher, None).unwrap();
    assert_eq!((report.published, report.dead_lettered), (1, 1));
    publisher.answer("a", |_| Outcome::Delivered);
    publisher.take_calls();
    assert_eq!(with(kept, options.clone()).run(&publisher, None).unwrap(), Report::default());
    let blocked = kept.open().status().unwrap().blocked_streams;
    assert_eq!((blocked[0].state, blocked[0].position.unsigned_abs()), (StreamState::Parked, p[0]));
    let one = Selection::Positions(vec![p[0].cast_signed()]);
    kept.open().operator().retry_dead_letters(&one, &act()).unwrap();
    assert_eq!(with(kept, options).run(&publisher, None).unwrap().published, 2);
    assert_eq!(publisher.take_positions(), p[..2]);
}

fn an_undecodable_row_is_set_aside_and_its_stream_goes_on<K: Kept>(kept: &K) {
    kept.insert(Row { data: "{broken".into(), ..row("a") });
    kept.insert(Row { name: Field::Null, ..row("a") });
    kept.insert(row("a"));
    let publisher = Scripted::default();
    let report = run(kept, &publisher);
    assert_eq!((report.published, report.dead_lettered, publisher.take_calls().len()), (1, 2, 1));
    assert!(report.failures[0].reason.starts_with("data: data is not JSON"), "{:?}", report.failures);
}

fn an_unavailable_publisher_ends_the_pass_and_uses_up_nothing<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a", "a"]);
    let publisher = Scripted::answering("a", |_| unavailable());
    for _ in 0..5 {
        let report = run(kept, &publisher);
        assert_eq!((report.published, report.unavailable, report.dead_lettered), (0, 1, 0));
    }
    let calls = publisher.take_calls();
    assert!(calls.iter().all(|call| call.position == p[0] && call.attempt == 1), "{calls:?}");
    let status = kept.open().status().unwrap();
    assert_eq!((status.pending, status.waiting, status.dead_letters), (3, 0, 0));
}

fn attempts_are_numbered_and_a_later_success_clears_them<K: Kept>(kept: &K) {
    let p = append(kept, &["a"]);
    let answer = |event: &Recorded| if event.attempt < 3 { retry() } else { Outcome::Delivered };
    let publisher = Scripted::answering("a", answer);
    run(kept, &publisher);
    run(kept, &publisher);
    let position = p[0].cast_signed();
    let attempts = kept.open().operator().attempts(position).unwrap();
    assert_eq!(attempts.iter().map(|it| it.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(run(kept, &publisher).published, 1);
    assert_eq!(kept.open().operator().attempts(position).unwrap(), []);
}

fn a_panic_is_a_trap<K: Kept>(kept: &K) {
    append(kept, &["a", "b"]);
    let publisher = |event: &Recorded| -> Result<(), PublishError> {
        assert!(event.stream_id.id != "a", "no luck");
        Ok(())
    };
    let report = run(kept, &publisher);
    assert_eq!((report.published, report.outcomes["trapped"]), (1, 1));
    assert!(report.failures[0].reason.contains("no luck"), "{:?}", report.failures);
}

fn a_long_reason_is_cut<K: Kept>(kept: &K) {
    append(kept, &["a"]);
    let report = run(kept, &Scripted::answering("a", |_| Outcome::Rejected { reason: "é".repeat(100_000) }));
    assert_eq!(report.failures[0].reason.chars().count(), 4_001);
    let dead = kept.open().operator().dead_letters(&Selection::all(), 1).unwrap();
    assert_eq!(dead[0].reason, report.failures[0].reason);
}

/// In batches: more than are deleted with one transaction.
fn the_relay_prunes_what_is_old<K: Kept>(kept: &K) {
    append(kept, &vec!["a"; 1_200]);
    outbox(kept).run(&Scripted::answering("a", |_| rejected()), 10_000).unwrap();
    assert_eq!(kept.open().status().unwrap().dead_letters, 1_200);
    let retention = Retention { dead_letters: Some(Duration::ZERO), ..Retention::default() };
    relaying(&with(kept, RelayOptions { retention, ..options() }), &Scripted::default(), |_| {
        until("they are pruned", || kept.open().status().unwrap().dead_letters == 0);
    });
}

// --- batches -------------------------------------------------------------------------------------------------------------

/// Takes batches, and answers as configured for each position.
struct Batches {
    answer: fn(u64) -> Option<Outcome>,
    sizes: Mutex<Vec<usize>>,
}

impl Publisher for Batches {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.sizes.lock().unwrap().push(1);
        Box::pin(std::future::ready((self.answer)(event.position).unwrap().into()))
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        self.sizes.lock().unwrap().push(events.len());
        let answers = events.iter().filter_map(|event| (self.answer)(event.position)).map(Attempt::from).collect();
        Box::pin(std::future::ready(answers))
    }

    fn max_batch(&self) -> usize {
        10
    }
}

fn a_batch_is_answered_event_by_event<K: Kept>(kept: &K) {
    append(kept, &["a"; 25]);
    let publisher = Batches {
        answer: |position| Some(if position == 3 { rejected() } else { Outcome::Delivered }),
        sizes: Mutex::default(),
    };
    let report = run(kept, &publisher);
    assert_eq!((report.published, report.dead_lettered), (24, 1));
    assert_eq!(*publisher.sizes.lock().unwrap(), [10, 10, 5]);
}

/// Nobody knows which event is without an answer: each is called alone, up to the one that fails then.
fn a_batch_with_too_few_answers_is_nobodys_attempt<K: Kept>(kept: &K) {
    append(kept, &["a"; 4]);
    let publisher =
        Batches { answer: |position| (position % 3 != 0).then_some(Outcome::Delivered), sizes: Mutex::default() };
    let report = run(kept, &publisher);
    assert_eq!((report.published, report.to_be_retried, report.outcomes["trapped"]), (2, 1, 1));
    assert_eq!(*publisher.sizes.lock().unwrap(), [4, 1, 1, 1]);
}

// --- the relay at work ---------------------------------------------------------------------------------------------------

/// Reports each call, and answers on demand.
struct Told {
    calls: Mutex<Sender<Recorded>>,
    answers: Mutex<Receiver<Outcome>>,
}

impl Told {
    fn new() -> (Self, Receiver<Recorded>, Sender<Outcome>) {
        let (call, calls) = channel();
        let (answer, answers) = channel();
        (Self { calls: Mutex::new(call), answers: Mutex::new(answers) }, calls, answer)
    }
}

impl Publisher for Told {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.calls.lock().unwrap().send(event.clone()).unwrap();
        let outcome = self.answers.lock().unwrap().recv_timeout(PATIENCE).expect("nobody says what to answer");
        Box::pin(std::future::ready(outcome.into()))
    }
}

fn position(call: &Receiver<Recorded>) -> u64 {
    call.recv_timeout(PATIENCE).expect("nothing is published").position
}

fn the_relay_publishes_what_is_appended_and_retries_by_itself<K: Kept>(kept: &K) {
    let (publisher, calls, answer) = Told::new();
    let report = relaying(&with(kept, options()), &publisher, |_| {
        for outcome in [retry(), retry(), Outcome::Delivered, Outcome::Delivered] {
            answer.send(outcome).unwrap();
        }
        let p = append(kept, &["a", "a"]);
        let called: Vec<u64> = (0..4).map(|_| position(&calls)).collect();
        assert_eq!(called, [p[0], p[0], p[0], p[1]]);
        until("all are gone", || kept.open().status().unwrap().pending == 0);
        answer.send(Outcome::Delivered).unwrap();
        let p = append(kept, &["a"]);
        assert_eq!(position(&calls), p[0]);
    });
    assert_eq!((report.published, report.to_be_retried), (3, 2));
}

fn a_paused_publisher_is_probed_with_one_entry<K: Kept>(kept: &K) {
    const PROBES: usize = 5;
    let pause = Duration::from_millis(20);
    let mut options = options();
    options.policy.pause = Backoff { initial: pause, max: pause };
    append(kept, &["a"]);
    let publisher = Company { is_down: AtomicBool::new(true), ..Company::default() };
    let outbox = with(kept, options).with_clock(jiff::Timestamp::now, || 1.0);
    let shows = |state| move || kept.open().status().unwrap().relay.is_some_and(|relay| relay.state == state);
    let report = relaying(&outbox, &publisher, |_| {
        until("it is shown", shows(RelayCondition::Paused));
        append(kept, &["b", "c", "d"]);
        let probed = publisher.seen().len() + PROBES;
        until("it is probed again and again", || publisher.seen().len() >= probed);
        publisher.is_down.store(false, AtomicOrdering::SeqCst);
        until("all are gone", || kept.open().status().unwrap().pending == 0);
        until("it is shown", shows(RelayCondition::Running));
    });
    // Each call up to the one that was answered was a probe.
    let seen = publisher.seen();
    let probes = seen.iter().take_while(|call| !call.delivered).count() + 1;
    assert!(probes > PROBES && seen[..probes].iter().all(|call| call.company == 1), "{seen:?}");
    assert_eq!((report.published, report.dead_lettered, report.to_be_retried), (4, 0, 0));
}

/// What a destination asks for is the shortest time: one that says `Retry-After: 0` is not called without an end.
fn who_asks_for_no_pause_gets_one_all_the_same<K: Kept>(kept: &K) {
    let pause = Backoff { initial: Duration::from_millis(100), max: Duration::from_millis(100) };
    let mut options = options();
    (options.policy.pause, options.policy.backoff) = (pause, pause);
    append(kept, &["paused", "retried"]);
    let publisher = Scripted::answering("paused", |_| Outcome::Unavailable {
        reason: "closed".into(),
        after: Some(Duration::ZERO),
    });
    publisher.answer("retried", |_| Outcome::Retry { reason: "busy".into(), after: Some(Duration::ZERO) });
    let outbox = with(kept, options).with_clock(jiff::Timestamp::now, || 1.0);
    let began = Instant::now();
    relaying(&outbox, &publisher, |_| {
        until("half a second is over", || began.elapsed() > Duration::from_millis(500));
    });
    let calls = publisher.take_calls().len() as u128;
    // Each of the two once, and again once in 100 ms.
    assert!((2..=2 + 2 * began.elapsed().as_millis() / 100).contains(&calls), "{calls} calls");
}

fn an_operators_act_reaches_a_relay_at_work<K: Kept>(kept: &K) {
    let options = RelayOptions { on_dead_letter: OnDeadLetter::Park, ..options() };
    let (publisher, calls, answer) = Told::new();
    relaying(&with(kept, options), &publisher, |_| {
        let p = append(kept, &["a", "a"]);
        answer.send(rejected()).unwrap();
        assert_eq!(position(&calls), p[0]);
        let dead = || kept.open().status().unwrap().dead_letters;
        until("it is dead", || dead() == 1);
        (0..2).for_each(|_| answer.send(Outcome::Delivered).unwrap());
        let one = Selection::Positions(vec![p[0].cast_signed()]);
        kept.open().operator().retry_dead_letters(&one, &act()).unwrap();
        assert_eq!([position(&calls), position(&calls)], [p[0], p[1]]);
        until("all are gone", || kept.open().status().unwrap().pending == 0);
    });
}

// --- the host's death ------------------------------------------------------------------------------------------------------

/// The state after a host has died with these calls under way.
fn died_with<K: Kept>(kept: &K, positions: &[u64]) {
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    for (slot, position) in positions.iter().enumerate() {
        drain.mark(slot, &[position.cast_signed()]);
    }
}

fn the_hosts_death_in_a_single_call_is_an_attempt<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a", "b"]);
    let hour = Duration::from_secs(3_600);
    let policy = Policy { max_host_deaths: 2, backoff: Backoff { initial: hour, max: hour }, ..options().policy };
    let options = RelayOptions { policy, ..options() };
    died_with(kept, &p[..1]);
    let publisher = Scripted::answering("a", |_| retry());
    let outbox = with(kept, options).with_clock(jiff::Timestamp::now, || 1.0);
    let report = outbox.run(&publisher, None).unwrap();
    assert_eq!((report.published, report.outcomes["host-died"]), (1, 1));
    assert_eq!(publisher.take_positions(), [p[2]], "it waits for its retry, and its stream with it");
    let attempts = kept.open().operator().attempts(p[0].cast_signed()).unwrap();
    assert_eq!((attempts.len(), attempts[0].outcome.as_str(), attempts[0].attempt), (1, "host-died", 1));
    died_with(kept, &p[..1]);
    let report = outbox.run(&publisher, None).unwrap();
    assert_eq!((report.dead_lettered, report.to_be_retried), (1, 1));
    assert_eq!(publisher.take_positions(), [p[1]], "the stream goes on behind the dead letter");
}

/// Knows how many calls are under way at once.
#[derive(Default)]
struct Company {
    is_down: AtomicBool,
    under_way: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// A call that has ended.
#[derive(Debug, Clone)]
struct Seen {
    position: u64,
    attempt: u32,
    /// The most calls that were under way beside it, itself included.
    company: usize,
    delivered: bool,
}

impl Company {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Publisher for Company {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let before = self.under_way.fetch_add(1, AtomicOrdering::SeqCst) + 1;
            // Long enough for others to begin, if they may.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let company = before.max(self.under_way.fetch_sub(1, AtomicOrdering::SeqCst));
            let delivered = !self.is_down.load(AtomicOrdering::SeqCst);
            let (position, attempt) = (event.position, event.attempt);
            self.seen.lock().unwrap().push(Seen { position, attempt, company, delivered });
            if delivered { Outcome::Delivered.into() } else { unavailable().into() }
        })
    }
}

fn suspects_are_tried_alone_and_keep_their_attempts<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b", "c", "d", "e", "f"]);
    died_with(kept, &[p[1], p[3], 999]);
    let publisher = Company::default();
    assert_eq!(run(kept, &publisher).published, 6);
    let seen = publisher.seen();
    for Seen { position, company, attempt, .. } in &seen {
        let suspect = [p[1], p[3]].contains(position);
        assert!((suspect && *company == 1) || (!suspect && *company <= 4), "{seen:?}");
        assert_eq!(*attempt, 1);
    }
    assert_eq!(kept.open().drain().unwrap().interrupted(), [0_i64; 0], "nothing is left to suspect");
}

// --- stopping --------------------------------------------------------------------------------------------------------------

/// Never answers.
struct Endless(Mutex<Sender<u64>>);

impl Publisher for Endless {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.0.lock().unwrap().send(event.position).unwrap();
        Box::pin(std::future::pending())
    }
}

fn stopping_cuts_off_what_does_not_end_and_counts_it_for_nothing<K: Kept>(kept: &K) {
    append(kept, &["a", "b"]);
    let (call, calls) = channel();
    let publisher = Endless(Mutex::new(call));
    let options = RelayOptions { shutdown_grace: Duration::from_millis(50), ..options() };
    relaying(&with(kept, options), &publisher, |_| {
        calls.recv_timeout(PATIENCE).unwrap();
        calls.recv_timeout(PATIENCE).unwrap();
    });
    let long = RelayOptions { shutdown_grace: PATIENCE * 10, ..self::options() };
    relaying(&with(kept, long), &publisher, |stop| {
        calls.recv_timeout(PATIENCE).unwrap();
        stop.stop_now();
    });
    let status = kept.open().status().unwrap();
    assert_eq!((status.pending, status.waiting, status.dead_letters), (2, 0, 0));
    assert_eq!(kept.open().drain().unwrap().interrupted(), [0_i64; 0], "it was no death");
}

fn what_ends_within_the_grace_is_settled<K: Kept>(kept: &K) {
    append(kept, &["a", "a"]);
    let (publisher, calls, answer) = Told::new();
    let report = relaying(&with(kept, options()), &publisher, |stop| {
        position(&calls);
        stop.stop();
        // The second may have begun before the news of the end arrived.
        (0..2).for_each(|_| answer.send(Outcome::Delivered).unwrap());
    });
    let status = kept.open().status().unwrap();
    assert!(report.published >= 1, "{report:?}");
    assert_eq!((status.pending + report.published, status.waiting), (2, 0));
}

fn streams_stay_in_order_at_any_concurrency<K: Kept>(kept: &K) {
    const PASSES_MAX: u32 = 100;
    let streams: Vec<String> = (0..2_000).map(|number| format!("stream-{}", number * number % 37)).collect();
    append(kept, &streams.iter().map(String::as_str).collect::<Vec<_>>());
    let seen: Mutex<Vec<(String, u64)>> = Mutex::default();
    let publisher = |event: &Recorded| {
        let fails = event.position.is_multiple_of(7) && event.attempt == 1;
        if fails {
            return Err(PublishError::retryable("once"));
        }
        seen.lock().unwrap().push((event.stream_id.id.clone(), event.position));
        Ok(())
    };
    for concurrency in [1, 5, 64] {
        let options = RelayOptions { concurrency, ..options() };
        let report = with(kept, options).run(&publisher, 700).unwrap();
        assert!(report.published > 0);
    }
    let has_done_something = |_: &u32| with(kept, options()).run(&publisher, None).unwrap() != Report::default();
    assert!((0..PASSES_MAX).take_while(has_done_something).count() < PASSES_MAX as usize, "there is no end");
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 2_000);
    for stream in seen.iter().map(|(stream, _)| stream).collect::<std::collections::HashSet<_>>() {
        assert!(seen.iter().filter(|(of, _)| of == stream).is_sorted_by_key(|(_, position)| *position), "{stream}");
    }
}
