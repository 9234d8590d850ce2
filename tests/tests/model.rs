//! A model of the outbox, and random histories that both go through: whatever is appended, published, failed, crashed in,
//! retried, discarded and edited, in whatever order, the outbox is what the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use outbox_host::outbox::{Act, Selection};
use outbox_host::{
    Backoff, JsonSerde, OnDeadLetter, Outbox, OutboxStorageStrategy, Policy, PublishError, Recorded, RelayOptions,
};
use outbox_tests::outboxes::{Kept, Memory, Sqlite, event};
use proptest::prelude::*;

const MAX_ATTEMPTS: u32 = 3;
const MAX_HOST_DEATHS: u32 = 2;
const STREAMS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    /// A pass of at most so many entries; in it the publisher answers so for the streams.
    Pass(usize, [Answer; STREAMS.len()]),
    /// The host dies in the call of the first entry of this stream that may go, or in several at once.
    Die(Vec<usize>),
    Retry(usize),
    Discard(usize),
    Edit(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Deliver,
    Fail,
    Reject,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![3 => Just(Answer::Deliver), 2 => Just(Answer::Fail), 1 => Just(Answer::Reject)];
    let answers = [answer.clone(), answer.clone(), answer.clone(), answer];
    prop_oneof![
        3 => prop::collection::vec(0..STREAMS.len(), 1..8).prop_map(Step::Append),
        4 => (prop_oneof![Just(100_usize), 1..5_usize], answers).prop_map(|(limit, answers)| Step::Pass(limit, answers)),
        1 => prop::collection::vec(0..STREAMS.len(), 1..3).prop_map(Step::Die),
        1 => (0..5_usize).prop_map(Step::Retry),
        1 => (0..5_usize).prop_map(Step::Discard),
        1 => (0..5_usize).prop_map(Step::Edit),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    stream: usize,
    attempts: u32,
    host_deaths: u32,
    data: String,
}

#[derive(Debug, Default, Clone)]
struct Model {
    park: bool,
    pending: BTreeMap<i64, Entry>,
    /// Dead letters, and whether each parks its stream.
    dead: BTreeMap<i64, (Entry, bool)>,
    delivered: BTreeSet<i64>,
    discarded: BTreeSet<i64>,
}

impl Model {
    fn is_parked(&self, stream: usize) -> bool {
        self.dead.values().any(|(entry, parks)| *parks && entry.stream == stream)
    }

    /// An attempt failed, once more.
    fn fail(&mut self, position: i64, died: bool) {
        let Some(entry) = self.pending.get_mut(&position) else { return };
        entry.attempts += 1;
        entry.host_deaths += u32::from(died);
        if entry.attempts >= MAX_ATTEMPTS || entry.host_deaths >= MAX_HOST_DEATHS {
            self.bury(position);
        }
    }

    fn bury(&mut self, position: i64) {
        let entry = self.pending.remove(&position).unwrap();
        self.dead.insert(position, (entry, self.park));
    }

    /// Without a limit: all of a stream up to its first failure; it goes on behind a dead letter unless that parks it.
    fn pass(&mut self, answers: &[Answer; STREAMS.len()]) {
        for (stream, answer) in answers.iter().enumerate() {
            let positions: Vec<i64> = self
                .pending
                .iter()
                .filter(|(_, entry)| entry.stream == stream)
                .map(|(position, _)| *position)
                .collect();
            for position in positions {
                if self.is_parked(stream) {
                    break;
                }
                match answer {
                    Answer::Deliver => {
                        self.pending.remove(&position);
                        self.delivered.insert(position);
                    }
                    Answer::Reject => {
                        self.pending.get_mut(&position).unwrap().attempts += 1;
                        self.bury(position);
                    }
                    Answer::Fail => self.fail(position, false),
                }
                if self.pending.contains_key(&position) {
                    break;
                }
            }
        }
    }
}

struct World<K: Kept> {
    kept: K,
    model: Model,
    options: RelayOptions,
    /// Every delivery, in order.
    ledger: Vec<(usize, i64)>,
}

impl<K: Kept> World<K> {
    fn new(park: bool) -> Self {
        let policy = Policy {
            max_attempts: MAX_ATTEMPTS,
            max_host_deaths: MAX_HOST_DEATHS,
            backoff: Backoff::NONE,
            ..Policy::default()
        };
        let on_dead_letter = if park { OnDeadLetter::Park } else { OnDeadLetter::Continue };
        let options = RelayOptions { policy, on_dead_letter, ..RelayOptions::default() };
        Self { kept: K::new(), model: Model { park, ..Model::default() }, options, ledger: Vec::new() }
    }

    fn outbox(&self) -> Outbox<K::Strategy> {
        Outbox::new(self.kept.open(), JsonSerde).with_options(self.options.clone())
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(streams) => self.append(streams),
            Step::Pass(limit, answers) => self.pass(*limit, answers),
            Step::Die(streams) => self.die(streams),
            Step::Retry(which) => self.retry(*which),
            Step::Discard(which) => self.discard(*which),
            Step::Edit(which) => self.edit(*which),
        }
        self.check();
    }

    fn append(&mut self, streams: &[usize]) {
        let events: Vec<_> = streams.iter().map(|stream| event(STREAMS[*stream], "{}")).collect();
        let positions = self.outbox().append(&events).unwrap();
        for (position, stream) in positions.into_iter().zip(streams) {
            let entry = Entry { stream: *stream, attempts: 0, host_deaths: 0, data: "{}".into() };
            self.model.pending.insert(position, entry);
        }
    }

    fn pass(&mut self, limit: usize, answers: &[Answer; STREAMS.len()]) {
        let ledger = Mutex::new(Vec::new());
        let before = self.model.clone();
        let publisher = |event: &Recorded| {
            let stream = STREAMS.iter().position(|stream| *stream == event.stream_id.id).unwrap();
            let position = i64::try_from(event.position).unwrap();
            let known = &before.pending[&position];
            assert_eq!(event.attempt, known.attempts + 1, "the attempt's number");
            assert_eq!(event.wrapped_event.data, outbox_host::Payload::Json(known.data.clone()));
            match answers[stream] {
                Answer::Deliver => {
                    ledger.lock().unwrap().push((stream, position));
                    Ok(())
                }
                Answer::Fail => Err(PublishError::retryable("no")),
                Answer::Reject => Err(PublishError::rejected("never")),
            }
        };
        let report = self.outbox().run(&publisher, limit).unwrap();
        let delivered = ledger.into_inner().unwrap();
        assert_eq!(report.published, delivered.len() as u64);
        self.ledger.extend(&delivered);
        if limit >= self.model.pending.len() {
            self.model.pass(answers);
        } else {
            assert!(report.published + report.to_be_retried + report.dead_lettered <= limit as u64);
            self.adopt_partial_pass(&delivered);
        }
    }

    /// A pass with a limit may choose among streams: what it did is taken from its side, and held against the rules.
    fn adopt_partial_pass(&mut self, delivered: &[(usize, i64)]) {
        for (_, position) in delivered {
            self.model.pending.remove(position).expect("it was pending");
            self.model.delivered.insert(*position);
        }
        let strategy = self.kept.open();
        for dead in strategy.operator().dead_letters(&Selection::all(), 1_000).unwrap() {
            if let Some(entry) = self.model.pending.get_mut(&dead.position) {
                entry.attempts += 1;
                assert_eq!(entry.attempts, dead.attempts);
                self.model.bury(dead.position);
            }
        }
        for (position, entry) in &mut self.model.pending {
            let recorded = strategy.operator().attempts(*position).unwrap();
            let last = recorded.last().map_or(entry.attempts, |attempt| attempt.attempt);
            assert!(last == entry.attempts || last == entry.attempts + 1 || entry.attempts == 0, "one attempt a pass");
            if last == entry.attempts + 1 && held_attempts(&strategy, *position) == Some(last) {
                entry.attempts = last;
            }
        }
    }

    /// Leaves the marks that a host leaves which dies with calls under way, and lets the next one find them.
    fn die(&mut self, streams: &[usize]) {
        let streams: BTreeSet<usize> = streams.iter().copied().filter(|it| !self.model.is_parked(*it)).collect();
        let heads: Vec<i64> = streams
            .iter()
            .filter_map(|stream| self.model.pending.iter().find(|(_, entry)| entry.stream == *stream))
            .map(|(position, _)| *position)
            .collect();
        {
            let strategy = self.kept.open();
            let lease = strategy.lease().unwrap();
            heads.iter().enumerate().for_each(|(slot, position)| lease.mark(slot, &[*position]));
        }
        // A pass that may try nothing: it only finds out.
        let report = self.outbox().run(&|_: &Recorded| panic!("nothing may be tried"), 0).unwrap();
        assert_eq!(report.published, 0);
        if let [position] = heads.as_slice() {
            self.model.fail(*position, true);
        }
    }

    fn nth_dead(&self, which: usize) -> Option<i64> {
        self.model.dead.keys().nth(which).copied()
    }

    fn retry(&mut self, which: usize) {
        let asked = self.nth_dead(which).unwrap_or(i64::MAX);
        let retried =
            self.kept.open().operator().retry_dead_letters(&Selection::Positions(vec![asked]), &act()).unwrap();
        assert_eq!(retried.len(), usize::from(asked != i64::MAX));
        if let Some((entry, _)) = self.model.dead.remove(&asked) {
            self.model.pending.insert(asked, Entry { attempts: 0, host_deaths: 0, ..entry });
        }
    }

    fn discard(&mut self, which: usize) {
        if let Some(position) = self.nth_dead(which) {
            assert_eq!(
                self.kept
                    .open()
                    .operator()
                    .discard_dead_letters(&Selection::Positions(vec![position]), &act())
                    .unwrap(),
                [position]
            );
            self.model.dead.remove(&position);
            self.model.discarded.insert(position);
        }
    }

    fn edit(&mut self, which: usize) {
        if let Some(position) = self.nth_dead(which) {
            assert!(self.kept.open().operator().edit_dead_letter(position, "[1]", &act()).unwrap());
            self.model.dead.get_mut(&position).unwrap().0.data = "[1]".into();
        }
    }

    fn check(&self) {
        let strategy = self.kept.open();
        let status = strategy.status().unwrap();
        assert_eq!(status.pending, self.model.pending.len() as u64, "pending");
        assert_eq!(status.dead_letters, self.model.dead.len() as u64, "dead letters");
        for (position, entry) in &self.model.pending {
            assert_eq!(held_attempts(&strategy, *position).unwrap_or(0), entry.attempts, "attempts of {position}");
        }
        for dead in strategy.operator().dead_letters(&Selection::all(), 1_000).unwrap() {
            let (entry, parks) = &self.model.dead[&dead.position];
            let expected = (entry.attempts, entry.data.as_str(), *parks);
            assert_eq!((dead.attempts, dead.data.as_str(), dead.parks_stream), expected, "{dead:?}");
        }
        let once: BTreeSet<i64> = self.ledger.iter().map(|(_, position)| *position).collect();
        assert_eq!((once.len(), &once), (self.ledger.len(), &self.model.delivered), "each exactly once");
    }

    /// Nothing is stuck: whatever is left can be delivered, in order, and then nothing is left.
    fn drain(&mut self) {
        while let Some(position) = self.nth_dead(0) {
            self.kept.open().operator().discard_dead_letters(&Selection::Positions(vec![position]), &act()).unwrap();
            self.model.dead.remove(&position);
            self.model.discarded.insert(position);
        }
        let before = self.ledger.len();
        self.pass(usize::MAX, &[Answer::Deliver; STREAMS.len()]);
        self.check();
        assert!(self.model.pending.is_empty());
        for stream in 0..STREAMS.len() {
            let drained = self.ledger[before..].iter().filter(|(of, _)| *of == stream);
            assert!(drained.is_sorted_by_key(|(_, position)| *position), "in order");
        }
        let strategy = self.kept.open();
        assert_eq!(strategy.held().unwrap(), [], "nothing is held back for ever");
        assert_eq!(strategy.lease().unwrap().interrupted(), [0_i64; 0]);
    }
}

fn held_attempts(strategy: &impl OutboxStorageStrategy, position: i64) -> Option<u32> {
    strategy.held().unwrap().into_iter().find_map(|held| match held.hold {
        outbox_host::outbox::Hold::Waiting { history, .. } if held.entry.position == position => Some(history.attempts),
        _ => None,
    })
}

fn act() -> Act {
    Act { who: "model".into(), at: jiff::Timestamp::now() }
}

fn go_through<K: Kept>(park: bool, steps: &[Step]) {
    let mut world = World::<K>::new(park);
    steps.iter().for_each(|step| world.take(step));
    world.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model(park: bool, steps in prop::collection::vec(step(), 1..40)) {
        go_through::<Memory>(park, &steps);
    }

    #[test]
    fn sqlite_does_as_the_model(park: bool, steps in prop::collection::vec(step(), 1..20)) {
        go_through::<Sqlite>(park, &steps);
    }
}
