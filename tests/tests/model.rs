//! Random histories that an outbox and a model of it both go through: whatever is appended, published, failed, crashed in,
//! retried, discarded and edited, in whatever order, with whatever routes, the outbox is what the model says. The model is in
//! `tests/src/model.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use outbox_host::outbox::{Hold, Selection};
use outbox_host::{
    Attempt, Backoff, BoxFuture, FairBy, JsonSerde, NewEvent, OnDeadLetter, Ordering, Outbox, OutboxStorageStrategy,
    Outcome, Payload, Policy, Publisher, PublisherOptions, Publishers, Recorded, RelayOptions, Report, Route,
    Timestamp,
};
use outbox_tests::act;
use outbox_tests::model::{Answer, Call, Counts, Entry, Model, Order, Pass, Record, Rules};
use outbox_tests::outboxes::{Kept, Memory, Sqlite, event};
use outbox_tests::publishers::any_options;
use proptest::prelude::*;

const STREAMS: [&str; 4] = ["a", "b", "c", "d"];
/// The tenants of the streams.
const TENANTS: [&str; 4] = ["", "one", "one", "two"];
const PUBLISHERS: [&str; 2] = ["one", "two"];
/// The names of events, and the publishers that they go to.
const ROUTES: [(&str, &[usize]); 5] =
    [("first", &[0]), ("second", &[1]), ("both", &[0, 1]), ("neither", &[]), (DROPPED, &[])];
/// Events of this name are dropped.
const DROPPED: &str = "dropped";
/// More than are ever pending.
const EVERYTHING: usize = 100_000;

/// What each publisher answers for each stream.
type Answers = [[Answer; STREAMS.len()]; PUBLISHERS.len()];

#[derive(Debug, Clone)]
enum Step {
    /// Events of these streams, with these routes, and when they may be published.
    Append(Vec<(usize, usize, When)>),
    /// A long time passes: all that is for later is due, and what expires has expired.
    Late,
    /// A pass of at most so many entries.
    Pass(usize, Answers),
    /// The host dies in the call of the first entry of this stream that may go, or in several at once.
    Die(Vec<usize>),
    Retry(usize),
    Discard(usize),
    Edit(usize),
}

/// When an event may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    Later,
    /// It expires before it is late.
    Expires,
    /// What is for later may have expired when it is due.
    TooLate,
}

/// What is for later is due then.
const DUE: &str = "2800-01-01T00:00:00Z";
const EXPIRES: &str = "2850-01-01T00:00:00Z";

fn late() -> Timestamp {
    "2900-01-01T00:00:00Z".parse().unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    use Answer::{Deliver, Fail, Reject, Unavailable};
    let answer = || prop_oneof![4 => Just(Deliver), 2 => Just(Fail), 1 => Just(Reject), 1 => Just(Unavailable)];
    let answers = move || [answer(), answer(), answer(), answer()];
    let limit = prop_oneof![Just(EVERYTHING), 1..5_usize];
    let when =
        prop_oneof![8 => Just(When::Now), 2 => Just(When::Later), 2 => Just(When::Expires), 1 => Just(When::TooLate)];
    let route = prop_oneof![3 => Just(0), 2 => Just(1), 3 => Just(2), 1 => Just(3_usize), 1 => Just(4)];
    let event = (0..STREAMS.len(), route, when);
    prop_oneof![
        3 => prop::collection::vec(event, 1..8).prop_map(Step::Append),
        1 => Just(Step::Late),
        4 => (limit, [answers(), answers()]).prop_map(|(limit, answers)| Step::Pass(limit, answers)),
        1 => prop::collection::vec(0..STREAMS.len(), 1..3).prop_map(Step::Die),
        1 => (0..5_usize).prop_map(Step::Retry),
        1 => (0..5_usize).prop_map(Step::Discard),
        1 => (0..5_usize).prop_map(Step::Edit),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let order = prop_oneof![3 => Just(Order::Stream), 2 => Just(Order::Total), 1 => Just(Order::None)];
    let rules = (any::<bool>(), order, prop_oneof![Just(1_usize), Just(8)], any::<bool>());
    let (max_attempts, max_host_deaths, publishers) = (3, 2, PUBLISHERS.len());
    rules.prop_map(move |(park, order, concurrency, delay_holds)| Rules {
        max_attempts,
        max_host_deaths,
        park,
        order,
        concurrency,
        publishers,
        // Without order nothing holds anything.
        delay_holds: delay_holds && order != Order::None,
    })
}

/// Answers as it is told, and notes each call when it begins.
struct Told<'a> {
    number: usize,
    answers: [Answer; STREAMS.len()],
    /// How many events it takes at once.
    batch: usize,
    calls: &'a Mutex<Vec<Call>>,
}

impl Told<'_> {
    fn answer(&self, event: &Recorded) -> Answer {
        self.answers[STREAMS.iter().position(|stream| *stream == event.stream_id.id).unwrap()]
    }

    fn call(&self, event: &Recorded) -> Call {
        let Payload::Json(data) = event.wrapped_event.data.clone() else { panic!("{event:?}") };
        let (position, answer) = (event.position.cast_signed(), self.answer(event));
        Call { publisher: self.number, position, attempt: event.attempt, data, answer }
    }

    /// The answers for the events of a call. Nothing is published behind a failure of its stream.
    fn call_all(&self, events: &[Recorded]) -> Vec<Outcome> {
        let mut failed = BTreeSet::new();
        let mut outcomes = Vec::new();
        for event in events {
            let is_behind = failed.contains(&event.stream_id.id);
            let answer = if is_behind { Answer::Fail } else { self.answer(event) };
            if answer != Answer::Deliver {
                failed.insert(event.stream_id.id.clone());
            }
            outcomes.push((event, is_behind, answer));
        }
        let all_fail = events.len() > 1 && outcomes.iter().all(|(_, _, answer)| *answer == Answer::Fail);
        for (event, is_behind, _) in &outcomes {
            // Otherwise it is no attempt, and the relay offers it again.
            if !all_fail && !is_behind {
                self.calls.lock().unwrap().push(self.call(event));
            }
        }
        outcomes.into_iter().map(|(_, _, answer)| outcome(answer)).collect()
    }
}

fn outcome(answer: Answer) -> Outcome {
    let reason = String::new();
    match answer {
        Answer::Deliver => Outcome::Delivered,
        Answer::Fail => Outcome::Retry { reason, after: None },
        Answer::Reject => Outcome::Rejected { reason },
        Answer::Unavailable => Outcome::Unavailable { reason, after: None },
    }
}

impl Publisher for Told<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let outcomes = self.call_all(std::slice::from_ref(event));
        Box::pin(async move { outcomes.into_iter().map(Attempt::from).next().unwrap() })
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        let attempts = self.call_all(events).into_iter().map(Attempt::from).collect();
        Box::pin(std::future::ready(attempts))
    }

    fn max_batch(&self) -> usize {
        self.batch
    }
}

/// An outbox, and what it has to be.
struct World<K: Kept> {
    kept: K,
    model: Model,
    /// How the first publisher is called.
    options: PublisherOptions,
    /// How many events each takes at once.
    batches: [usize; PUBLISHERS.len()],
    fair_by: FairBy,
}

impl<K: Kept> World<K> {
    fn outbox(&self) -> Outbox<K::Strategy> {
        let Rules { max_attempts, max_host_deaths, park, order, concurrency, delay_holds, .. } = self.model.rules;
        let policy = Policy { max_attempts, max_host_deaths, backoff: Backoff::NONE, ..Policy::default() };
        let on_dead_letter = if park { OnDeadLetter::Park } else { OnDeadLetter::Continue };
        let ordering = match order {
            Order::Stream => Ordering::Stream,
            Order::Total => Ordering::Total,
            Order::None => Ordering::None,
        };
        let options = RelayOptions { policy, ordering, on_dead_letter, concurrency, ..RelayOptions::default() };
        let options = RelayOptions { delay_holds_stream: delay_holds, fair_by: self.fair_by, ..options };
        let clock = if self.model.is_late { late } else { Timestamp::now };
        Outbox::new(self.kept.open(), JsonSerde).with_options(options).with_clock(clock, || 0.5)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(events) => self.append(events),
            Step::Late => self.model.is_late = true,
            Step::Pass(limit, answers) => self.pass(*limit, *answers),
            Step::Die(streams) => self.die(streams),
            Step::Retry(which) => self.retry(*which),
            Step::Discard(which) => self.discard(*which),
            Step::Edit(which) => self.edit(*which),
        }
        self.check();
    }

    fn append(&mut self, events: &[(usize, usize, When)]) {
        let new = |(stream, route, when): &(usize, usize, When)| NewEvent {
            name: ROUTES[*route].0.into(),
            publish_after: matches!(when, When::Later | When::TooLate).then(|| DUE.parse().unwrap()),
            expires_at: matches!(when, When::Expires | When::TooLate).then(|| EXPIRES.parse().unwrap()),
            ..event(STREAMS[*stream], "{}").with_tenant(TENANTS[*stream])
        };
        let positions = self.outbox().append(&events.iter().map(new).collect::<Vec<_>>()).unwrap();
        for (position, (stream, route, when)) in positions.into_iter().zip(events) {
            let (name, publishers) = ROUTES[*route];
            let entry = Entry {
                drops: name == DROPPED,
                is_for_later: matches!(when, When::Later | When::TooLate),
                expires: matches!(when, When::Expires | When::TooLate),
                ..Entry::new(*stream, publishers.to_vec())
            };
            self.model.pending.insert(position, entry);
        }
    }

    fn pass(&mut self, limit: usize, answers: Answers) {
        let before = self.model.clone();
        let (report, calls) = self.run(limit, answers);
        let (set_aside, dropped) = (self.set_aside(), self.dropped());
        let mut pass = Pass::new(&mut self.model);
        pass.dropped(&dropped);
        calls.iter().for_each(|call| pass.called(call));
        let counts = pass.end((limit != EVERYTHING).then_some(limit), &set_aside);
        let Report { published, to_be_retried, dead_lettered, unavailable, dropped, .. } = report;
        assert_eq!(counts, Counts { published, to_be_retried, dead_lettered, unavailable, dropped });
        let has_done_nothing = calls.is_empty() && counts == Counts::default();
        assert!(!has_done_nothing || !before.may_go_on(), "nothing was in the way, and nothing was done");
    }

    fn run(&self, limit: usize, [one, two]: Answers) -> (Report, Vec<Call>) {
        let calls = Mutex::default();
        let [one, two] = [(0, one), (1, two)].map(|(number, answers)| {
            let batch = self.batches[number];
            Told { number, answers, batch, calls: &calls }
        });
        let route = |(name, publishers): &(&str, &[usize])| Route {
            name: Some(name.parse().unwrap()),
            ..Route::to(publishers.iter().map(|number| PUBLISHERS[*number]))
        };
        let routes = ROUTES.iter().filter(|(_, publishers)| !publishers.is_empty()).map(route);
        let drops = Route { name: Some(DROPPED.parse().unwrap()), ..Route::dropping() };
        let routes = routes.chain([drops]);
        let members: [(&str, &dyn Publisher); 2] = [(PUBLISHERS[0], &one), (PUBLISHERS[1], &two)];
        let publishers = Publishers::routed(members, routes).unwrap().with_options(PUBLISHERS[0], self.options.clone());
        let report = self.outbox().run(publishers, limit).unwrap();
        (report, calls.into_inner().unwrap())
    }

    /// The dead letters that no publisher was called for: of those that may be set aside, a pass with a limit chooses.
    fn set_aside(&self) -> BTreeSet<i64> {
        let dead = self.kept.open().operator().dead_letters(&Selection::all(), EVERYTHING).unwrap();
        dead.into_iter()
            .filter(|dead| ["unrouted", "expired"].contains(&dead.outcome.as_str()))
            .map(|dead| dead.position)
            .collect()
    }

    /// The entries of the model that are to be dropped and are gone.
    fn dropped(&self) -> BTreeSet<i64> {
        let strategy = self.kept.open();
        // None of these is ever put off.
        let is_gone = |position: &i64| strategy.operator().entry(*position).unwrap().is_none();
        let dropped = self.model.pending.iter().filter(|(_, entry)| entry.drops).map(|(position, _)| *position);
        dropped.filter(is_gone).collect()
    }

    /// Leaves the marks that a host leaves which dies with calls under way, and lets the next one find them.
    fn die(&mut self, streams: &[usize]) {
        let streams: BTreeSet<usize> = streams.iter().copied().filter(|it| !self.model.is_parked(*it)).collect();
        let strategy = self.kept.open();
        // What is put off has no call.
        let is_there = |position: &i64| strategy.operator().entry(*position).unwrap().is_some();
        let heads: Vec<i64> =
            streams.iter().filter_map(|stream| self.model.positions_of(*stream).into_iter().find(is_there)).collect();
        {
            let drain = strategy.drain().unwrap();
            heads.iter().enumerate().for_each(|(slot, position)| drain.mark(slot, &[*position]));
        }
        // A pass that may try nothing: it only finds out.
        let (_, calls) = self.run(0, [[Answer::Deliver; STREAMS.len()]; PUBLISHERS.len()]);
        assert!(calls.is_empty(), "{calls:?}");
        if let [position] = heads.as_slice() {
            self.model.die(*position);
        }
    }

    fn nth_dead(&self, which: usize) -> Option<i64> {
        self.model.dead.keys().nth(which).copied()
    }

    fn retry(&mut self, which: usize) {
        let asked = self.nth_dead(which);
        let selection = Selection::Positions(vec![asked.unwrap_or(i64::MAX)]);
        let retried = self.kept.open().operator().retry_dead_letters(&selection, &act()).unwrap();
        assert_eq!(retried, asked.into_iter().collect::<Vec<_>>());
        asked.into_iter().for_each(|position| self.model.retry(position));
    }

    fn discard(&mut self, which: usize) {
        let Some(position) = self.nth_dead(which) else { return };
        let selection = Selection::Positions(vec![position]);
        let discarded = self.kept.open().operator().discard_dead_letters(&selection, &act()).unwrap();
        assert_eq!(discarded, [position]);
        self.model.dead.remove(&position);
    }

    fn edit(&mut self, which: usize) {
        let Some(position) = self.nth_dead(which) else { return };
        assert!(self.kept.open().operator().edit_dead_letter(position, "[1]", &act()).unwrap());
        self.model.dead.get_mut(&position).unwrap().0.data = "[1]".into();
    }

    fn check(&self) {
        let strategy = self.kept.open();
        let status = strategy.status().unwrap();
        assert_eq!(status.pending + status.delayed, self.model.pending.len() as u64, "pending");
        assert_eq!(held(&strategy), held_in(&self.model), "what is known of the entries that are pending");
        let dead = strategy.operator().dead_letters(&Selection::all(), EVERYTHING).unwrap();
        assert!(dead.iter().map(|dead| &dead.position).eq(self.model.dead.keys()), "{dead:?}");
        for dead in dead {
            let (entry, outcome) = &self.model.dead[&dead.position];
            let expected =
                (entry.attempts, entry.data.as_str(), *outcome, self.model.rules.park, names(&entry.delivered_to));
            let found = (dead.attempts, dead.data.as_str(), dead.outcome.as_str(), dead.parks_stream);
            assert_eq!((found.0, found.1, found.2, found.3, dead.delivered_to), expected, "{}", dead.position);
        }
        let entries =
            self.model.pending.iter().chain(self.model.dead.iter().map(|(position, (entry, _))| (position, entry)));
        for (position, entry) in entries {
            assert_eq!(records(&strategy, *position), entry.records, "the attempts of {position}");
        }
    }

    /// Nothing is stuck: whatever is left can be delivered, or set aside and discarded, and then nothing is left.
    fn drain(&mut self) {
        self.model.is_late = true;
        let all = [[Answer::Deliver; STREAMS.len()]; PUBLISHERS.len()];
        for _ in 0..=self.model.pending.len() {
            while self.nth_dead(0).is_some() {
                self.discard(0);
            }
            self.pass(EVERYTHING, all);
        }
        assert!(self.model.pending.is_empty(), "{:?}", self.model.pending);
        while self.nth_dead(0).is_some() {
            self.discard(0);
        }
        self.check();
        let strategy = self.kept.open();
        let drain = strategy.drain().unwrap();
        assert_eq!(drain.held().unwrap(), [], "nothing is held back for ever");
        assert_eq!(drain.interrupted(), [0_i64; 0]);
    }
}

/// What is known of a pending entry: its attempts, how many of them the host died in, and who has it.
type Known = BTreeMap<i64, (u32, u32, Vec<String>)>;

/// An entry that nothing is known of is not held.
fn is_something((attempts, _, delivered_to): &(u32, u32, Vec<String>)) -> bool {
    *attempts > 0 || !delivered_to.is_empty()
}

fn held(strategy: &impl OutboxStorageStrategy) -> Known {
    let held = strategy.drain().unwrap().held().unwrap().into_iter().filter_map(|held| match held.hold {
        Hold::Waiting { history, .. } => {
            Some((held.entry.position, (history.attempts, history.host_deaths, held.delivered_to)))
        }
        _ => None,
    });
    held.filter(|(_, known)| is_something(known)).collect()
}

fn held_in(model: &Model) -> Known {
    let known = |entry: &Entry| (entry.attempts, entry.host_deaths, names(&entry.delivered_to));
    let known = model.pending.iter().map(|(position, entry)| (*position, known(entry)));
    known.filter(|(_, known)| is_something(known)).collect()
}

fn names(publishers: &BTreeSet<usize>) -> Vec<String> {
    publishers.iter().map(|number| PUBLISHERS[*number].to_owned()).collect()
}

fn records(strategy: &impl OutboxStorageStrategy, position: i64) -> Vec<Record> {
    let number = |name: &String| PUBLISHERS.iter().position(|publisher| publisher == name).unwrap();
    let outcome = |name: &str| {
        let known = ["retry", "rejected", "unrouted", "expired", "host-died"].into_iter().find(|known| *known == name);
        known.unwrap_or_else(|| panic!("{name}"))
    };
    let attempts = strategy.operator().attempts(position).unwrap();
    attempts.iter().map(|it| (it.attempt, it.publisher.as_ref().map(number), outcome(&it.outcome))).collect()
}

fn batches() -> impl Strategy<Value = [usize; PUBLISHERS.len()]> {
    let batch = || prop_oneof![2 => Just(1_usize), 1 => Just(2), 2 => Just(100)];
    [batch(), batch()]
}

fn go_through<K: Kept>(rules: Rules, options: PublisherOptions, batches: [usize; 2], fair: bool, steps: &[Step]) {
    let fair_by = if fair { FairBy::Tenant } else { FairBy::Nobody };
    let mut world = World { kept: K::new(), model: Model::new(rules), options, batches, fair_by };
    world.kept.index_tenants();
    steps.iter().for_each(|step| world.take(step));
    world.drain();
}

proptest! {
    #![proptest_config(outbox_tests::proptest_config!("model", 150))]

    #[test]
    fn memory_does_as_the_model(
        rules in rules(),
        options in any_options(),
        batches in batches(),
        fair in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        go_through::<Memory>(rules, options, batches, fair, &steps);
    }
}

// Each step is several commits.
proptest! {
    #![proptest_config(outbox_tests::proptest_config!("model", 60))]

    #[test]
    fn sqlite_does_as_the_model(
        rules in rules(),
        options in any_options(),
        batches in batches(),
        fair in any::<bool>(),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        go_through::<Sqlite>(rules, options, batches, fair, &steps);
    }
}

/// Found by a random history: what came back went before an entry of its stream that the pass had not read yet.
fn what_comes_back_overtakes_nothing_that_was_not_read<K: Kept>() {
    use Answer::{Deliver, Unavailable};
    use When::{Expires, Later, Now};
    let all = [Deliver; STREAMS.len()];
    let rules = Rules {
        max_attempts: 3,
        max_host_deaths: 2,
        park: false,
        order: Order::Stream,
        concurrency: 1,
        publishers: 2,
        delay_holds: false,
    };
    let steps = [
        Step::Append(vec![(0, 1, Expires), (3, 1, Now), (3, 0, Later), (0, 0, Now)]),
        Step::Append(vec![(0, 0, Now)]),
        Step::Append(vec![(0, 0, Now)]),
        Step::Pass(EVERYTHING, [all, [Unavailable, Deliver, Deliver, Deliver]]),
        Step::Late,
        Step::Append(vec![(0, 0, Now)]),
        Step::Pass(1, [all, all]),
        Step::Append(vec![(0, 0, Now)]),
    ];
    go_through::<K>(rules, PublisherOptions::default(), [1, 1], false, &steps);
}

#[test]
fn in_memory_what_comes_back_overtakes_nothing() {
    what_comes_back_overtakes_nothing_that_was_not_read::<Memory>();
}

#[test]
fn in_sqlite_what_comes_back_overtakes_nothing() {
    what_comes_back_overtakes_nothing_that_was_not_read::<Sqlite>();
}
