//! What an outbox and its relay have to do, worked out without them: from the answers that the publishers give, and in the
//! order in which they are called. Which of several streams is next is the relay's choice; the model follows it, and panics
//! at what is nobody's choice.

use std::collections::{BTreeMap, BTreeSet};

/// The rules of a world.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub max_attempts: u32,
    pub max_host_deaths: u32,
    /// A dead letter parks its stream; in total order, everything.
    pub park: bool,
    pub order: Order,
    /// How many calls there may be at once.
    pub concurrency: usize,
    pub publishers: usize,
    /// An entry that is not due holds back its stream.
    pub delay_holds: bool,
}

/// What may overtake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Within a stream nothing does.
    Stream,
    /// Nothing does.
    Total,
    /// Everything does.
    None,
}

impl Order {
    /// Whether an entry of one stream has to wait for what is before it, if that is of another stream or of the same.
    fn binds(self, one: usize, other: usize) -> bool {
        match self {
            Self::Stream => one == other,
            Self::Total => true,
            Self::None => false,
        }
    }
}

/// What a publisher answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Deliver,
    Fail,
    Reject,
    Unavailable,
}

impl Answer {
    /// Of several answers for an entry the one that leaves most open decides.
    fn openness(self) -> u8 {
        match self {
            Self::Deliver => 0,
            Self::Reject => 1,
            Self::Unavailable => 2,
            Self::Fail => 3,
        }
    }
}

/// An attempt that is on record: its number, the publisher that made it, and how it ended.
pub type Record = (u32, Option<usize>, &'static str);

/// An entry, pending or dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stream: usize,
    /// The publishers that it goes to, in their order; an entry without one is unrouted, unless its route drops it.
    pub route: Vec<usize>,
    pub drops: bool,
    /// It is not due until it is late.
    pub is_for_later: bool,
    /// It expires when what is delayed is due.
    pub expires: bool,
    pub delivered_to: BTreeSet<usize>,
    pub attempts: u32,
    pub host_deaths: u32,
    pub data: String,
    pub records: Vec<Record>,
}

impl Entry {
    pub fn new(stream: usize, route: Vec<usize>) -> Self {
        let (delivered_to, records) = (BTreeSet::new(), Vec::new());
        Self {
            stream,
            route,
            drops: false,
            is_for_later: false,
            expires: false,
            delivered_to,
            attempts: 0,
            host_deaths: 0,
            data: "{}".into(),
            records,
        }
    }

    /// The publishers that are to be called, in this order.
    fn missing(&self) -> Vec<usize> {
        self.route.iter().copied().filter(|publisher| !self.delivered_to.contains(publisher)).collect()
    }

    fn fail(&mut self, publisher: Option<usize>, outcome: &'static str) {
        self.attempts += 1;
        self.records.push((self.attempts, publisher, outcome));
    }
}

/// A call, in the order of their beginnings.
#[derive(Debug, Clone)]
pub struct Call {
    pub publisher: usize,
    pub position: i64,
    pub attempt: u32,
    pub data: String,
    pub answer: Answer,
}

/// An outbox.
#[derive(Debug, Clone)]
pub struct Model {
    pub rules: Rules,
    pub pending: BTreeMap<i64, Entry>,
    /// Whether all that is for later is due, and what expires has expired.
    pub is_late: bool,
    /// Dead letters, and how each ended.
    pub dead: BTreeMap<i64, (Entry, &'static str)>,
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self { rules, pending: BTreeMap::new(), is_late: false, dead: BTreeMap::new() }
    }

    /// Whether a dead letter keeps this stream from going on. Where nothing is ordered, nothing is kept from going on.
    pub fn is_parked(&self, stream: usize) -> bool {
        let Rules { park, order, .. } = self.rules;
        park && self.dead.values().any(|(entry, _)| order.binds(stream, entry.stream))
    }

    fn is_delayed(&self, entry: &Entry) -> bool {
        entry.is_for_later && !self.is_late
    }

    /// Whether it becomes a dead letter without a call: it goes nowhere, or has expired.
    fn ends_without_a_call(&self, entry: &Entry) -> Option<&'static str> {
        match entry.route.is_empty() {
            true => (!entry.drops).then_some("unrouted"),
            false => (entry.expires && self.is_late).then_some("expired"),
        }
    }

    /// The positions of what an entry of this stream has to wait for, in order. What is for later holds back nothing before it
    /// is due, and may come back to its place only when others have gone on.
    fn before(&self, stream: usize, position: i64) -> Vec<i64> {
        let holds = self.rules.delay_holds;
        let before = self.pending.range(..position).filter(|(_, entry)| holds || !entry.is_for_later);
        before
            .filter(|(_, entry)| self.rules.order.binds(stream, entry.stream))
            .map(|(position, _)| *position)
            .collect()
    }

    /// The positions of a stream's entries, in order.
    pub fn positions_of(&self, stream: usize) -> Vec<i64> {
        let of_stream = self.pending.iter().filter(|(_, entry)| entry.stream == stream && !self.is_delayed(entry));
        of_stream.map(|(position, _)| *position).collect()
    }

    /// Whether nothing is in the way of some entry when a pass begins.
    pub fn may_go_on(&self) -> bool {
        let is_held = |position: i64, stream: usize| {
            let before = self.before(stream, position);
            before.iter().any(|earlier| self.is_delayed(&self.pending[earlier]))
        };
        self.pending.iter().any(|(position, entry)| {
            !self.is_delayed(entry) && !self.is_parked(entry.stream) && !is_held(*position, entry.stream)
        })
    }

    /// The host has died in the call of this entry, and no other was under way.
    pub fn die(&mut self, position: i64) {
        let entry = self.entry(position);
        entry.host_deaths += 1;
        entry.fail(None, "host-died");
        if self.is_used_up(position) {
            self.bury(position, "host-died");
        }
    }

    /// An operator puts a dead letter back in its place.
    pub fn retry(&mut self, position: i64) {
        let (entry, outcome) = self.dead.remove(&position).unwrap();
        let expires = entry.expires && outcome != "expired";
        self.pending.insert(position, Entry { attempts: 0, host_deaths: 0, expires, ..entry });
    }

    fn entry(&mut self, position: i64) -> &mut Entry {
        self.pending.get_mut(&position).unwrap_or_else(|| panic!("the entry at {position} is not pending"))
    }

    fn is_used_up(&self, position: i64) -> bool {
        let Entry { attempts, host_deaths, .. } = self.pending[&position];
        attempts >= self.rules.max_attempts || host_deaths >= self.rules.max_host_deaths
    }

    fn bury(&mut self, position: i64, outcome: &'static str) {
        let entry = self.pending.remove(&position).unwrap();
        self.dead.insert(position, (entry, outcome));
    }
}

/// What a pass has done, as its report has to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub published: u64,
    pub to_be_retried: u64,
    pub dead_lettered: u64,
    pub unavailable: u64,
    pub dropped: u64,
}

/// A pass: each entry is tried once at most.
pub struct Pass<'m> {
    model: &'m mut Model,
    tried: BTreeSet<i64>,
    /// The answers so far for entries whose publishers have not all been called yet.
    open: BTreeMap<i64, Vec<(usize, Answer)>>,
    /// Publishers that were unavailable.
    left_alone: BTreeSet<usize>,
    counts: Counts,
}

impl<'m> Pass<'m> {
    pub fn new(model: &'m mut Model) -> Self {
        let (tried, open, left_alone) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        Self { model, tried, open, left_alone, counts: Counts::default() }
    }

    /// These entries were there, and are gone without a call: a pass does that when it reads them, whatever becomes of those
    /// before them.
    pub fn dropped(&mut self, dropped: &BTreeSet<i64>) {
        for position in dropped.iter().copied() {
            let entry = &self.model.pending[&position];
            assert!(entry.drops, "the entry at {position} was removed without a call");
            assert!(
                !self.model.is_parked(entry.stream),
                "its stream is parked, and the entry at {position} was dropped"
            );
            self.tried.insert(position);
            self.counts.dropped += 1;
        }
        self.model.pending.retain(|position, _| !dropped.contains(position));
    }

    /// A publisher was called.
    pub fn called(&mut self, call: &Call) {
        if !self.open.contains_key(&call.position) {
            self.begin(call.position);
        }
        let entry = self.model.entry(call.position);
        assert_eq!((call.attempt, &call.data), (entry.attempts + 1, &entry.data), "{call:?}");
        let has_expired = self.model.ends_without_a_call(&self.model.pending[&call.position]);
        assert_eq!(has_expired, None, "it is not to be called: {call:?}");
        let entry = self.model.entry(call.position);
        let (missing, answers) = (entry.missing(), self.open.entry(call.position).or_default());
        let is_awaited =
            missing.contains(&call.publisher) && answers.iter().all(|(called, _)| *called != call.publisher);
        assert!(is_awaited, "another publisher is to be called: {call:?}");
        answers.push((call.publisher, call.answer));
        if answers.len() == missing.len() {
            let answers = self.open.remove(&call.position).unwrap_or_default();
            self.settle(call.position, &answers, true);
        }
    }

    /// An entry is tried: it has to be its turn.
    fn begin(&mut self, position: i64) {
        assert!(self.tried.insert(position), "the entry at {position} is tried twice in a pass");
        let entry = &self.model.pending[&position];
        assert!(!self.model.is_delayed(entry), "the entry at {position} is not due");
        let (stream, missing) = (entry.stream, entry.missing());
        // Several callers may have begun beside the one that found it unavailable.
        let knows = self.model.rules.concurrency == 1 && self.model.rules.publishers == 1;
        let left_alone = missing.iter().find(|publisher| self.left_alone.contains(publisher));
        assert!(!knows || left_alone.is_none(), "{left_alone:?} is unavailable, and called for {position}");
        let before = self.model.before(stream, position);
        before.into_iter().for_each(|earlier| self.pass_by(earlier, position));
        assert!(!self.model.is_parked(stream), "{stream} is parked, and the entry at {position} is tried");
    }

    /// An entry before one that is tried has gone before it: without a call, if it goes nowhere or has expired, or as a dead
    /// letter, if some of its publishers were called and the others left alone.
    fn pass_by(&mut self, earlier: i64, position: i64) {
        if let Some(answers) = self.open.remove(&earlier) {
            self.settle_in_part(earlier, &answers);
            let is_gone = !self.model.pending.contains_key(&earlier);
            assert!(is_gone, "the entry at {position} overtakes that at {earlier}");
            return;
        }
        let ends = self.model.ends_without_a_call(&self.model.pending[&earlier]);
        assert!(ends.is_some(), "the entry at {position} overtakes that at {earlier}");
        self.set_aside_uncalled(earlier);
    }

    fn set_aside_uncalled(&mut self, position: i64) {
        let ends = self.model.ends_without_a_call(&self.model.pending[&position]);
        let outcome = ends.unwrap_or_else(|| panic!("the entry at {position} was set aside without a call"));
        let entry = self.model.entry(position);
        entry.fail(None, outcome);
        let stream = entry.stream;
        assert!(!self.model.is_parked(stream), "{stream} is parked, and the entry at {position} is set aside");
        self.tried.insert(position);
        self.counts.dead_lettered += 1;
        self.model.bury(position, outcome);
    }

    /// Some of its publishers have been called, and the others were left alone.
    fn settle_in_part(&mut self, position: i64, answers: &[(usize, Answer)]) {
        let missing = self.model.entry(position).missing();
        let is_called = |publisher: &usize| answers.iter().any(|(called, _)| called == publisher);
        let uncalled = missing.iter().find(|it| !is_called(it) && !self.left_alone.contains(it));
        assert!(uncalled.is_none(), "{uncalled:?} was not called for the entry at {position}");
        self.settle(position, answers, false);
    }

    /// Each publisher that it goes to has been called, or, if not all, the others were found unavailable meanwhile.
    fn settle(&mut self, position: i64, answers: &[(usize, Answer)], all: bool) {
        let entry = self.model.entry(position);
        let of = |kind| answers.iter().filter(move |(_, answer)| *answer == kind).map(|(publisher, _)| *publisher);
        entry.delivered_to.extend(of(Answer::Deliver));
        self.left_alone.extend(of(Answer::Unavailable));
        let most_open = answers.iter().map(|(_, answer)| answer.openness()).max();
        // Of equal answers that of the first publisher decides.
        let decides =
            answers.iter().filter(|(_, answer)| Some(answer.openness()) == most_open).min_by_key(|(it, _)| *it);
        let (publisher, decided) = *decides.unwrap();
        match decided {
            Answer::Deliver | Answer::Reject if !all => self.counts.unavailable += 1,
            Answer::Deliver => {
                self.model.pending.remove(&position);
                self.counts.published += 1;
            }
            Answer::Unavailable => self.counts.unavailable += 1,
            Answer::Fail | Answer::Reject => {
                let others = answers.iter().copied().filter(|(other, _)| *other != publisher);
                self.fail(position, publisher, decided, others.collect());
            }
        }
    }

    fn fail(&mut self, position: i64, publisher: usize, decided: Answer, others: Vec<(usize, Answer)>) {
        let outcome = |answer| if answer == Answer::Fail { "retry" } else { "rejected" };
        let entry = self.model.entry(position);
        entry.fail(Some(publisher), outcome(decided));
        for (other, answer) in others {
            if matches!(answer, Answer::Fail | Answer::Reject) {
                entry.records.push((entry.attempts, Some(other), outcome(answer)));
            }
        }
        if decided == Answer::Reject || self.model.is_used_up(position) {
            self.counts.dead_lettered += 1;
            self.model.bury(position, outcome(decided));
        } else {
            self.counts.to_be_retried += 1;
        }
    }

    /// The pass is over, and was to try so many entries at most, or all. `set_aside` are those that it has set aside without a
    /// call.
    pub fn end(mut self, limit: Option<usize>, set_aside: &BTreeSet<i64>) -> Counts {
        for (position, answers) in std::mem::take(&mut self.open) {
            self.settle_in_part(position, &answers);
        }
        for position in set_aside.iter().copied() {
            if !self.model.dead.contains_key(&position) {
                self.begin(position);
                self.set_aside_uncalled(position);
            }
        }
        match limit {
            Some(limit) => assert!(self.tried.len() <= limit, "{} entries of at most {limit}", self.tried.len()),
            // A pass ends when nobody is left to be called.
            None if self.left_alone.len() == self.model.rules.publishers => {}
            None => self.nothing_is_left(),
        }
        self.counts
    }

    /// A later entry of its stream failed when this one was not due yet: its retry goes first.
    fn has_come_back_too_late(&self, position: i64, entry: &Entry) -> bool {
        let mut later = self.model.pending.range(position + 1..);
        let binds = |other: &Entry| self.model.rules.order.binds(entry.stream, other.stream);
        entry.is_for_later && later.any(|(later, other)| binds(other) && self.tried.contains(later))
    }

    /// Whatever nothing was in the way of has been tried.
    fn nothing_is_left(&self) {
        let mut held_back = BTreeSet::new();
        for (position, entry) in &self.model.pending {
            let is_left_alone = entry.missing().iter().any(|publisher| self.left_alone.contains(publisher));
            let is_behind = held_back.iter().any(|stream| self.model.rules.order.binds(entry.stream, *stream));
            if self.model.is_delayed(entry) {
                held_back.extend(self.model.rules.delay_holds.then_some(entry.stream));
                continue;
            }
            let may_wait = self.has_come_back_too_late(*position, entry)
                || self.tried.contains(position)
                || is_left_alone
                || is_behind
                || self.model.is_parked(entry.stream);
            assert!(may_wait, "nothing was in the way of the entry at {position}: {entry:?}");
            held_back.insert(entry.stream);
        }
    }
}
