//! Calls one publisher: each of its callers takes a job, decodes its entries, and publishes them one after the other, or
//! collects several jobs for one call, if the publisher takes batches. Each publisher has callers and a queue of jobs of its
//! own, so none waits for another.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_channel::Receiver as Jobs;
use crossbeam_channel::Sender;
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::answers::{Answers, Called, Finished};
use super::batch::BatchLimits;
use super::breakers::LeftAlone;
use super::channels::Message;
use super::job::{Job, Known, LaneId};
use super::panics::panic_text;
use super::queue::{Taken, Turn};
use crate::attempt::{Attempt, Outcome};
use crate::outbox::{Drain, StorageError};
use crate::publisher::Publisher;
use crate::publishers::PublisherSet;
use crate::recorded::Recorded;
use crate::serde::Serde;

mod collecting;

/// How many entries a caller may publish before the others of its thread have a turn.
const TURN: usize = 128;
/// The most results in one message: each message may have to wake the session.
const TELL_MAX: usize = 64;
/// Stop taking jobs at this many entries (the last job may overshoot, and the mark has room for it); each is retried
/// alone after a crash.
const TAKE_MAX: usize = 64;

/// What the callers of a publisher share.
#[derive(Clone, Copy)]
pub(super) struct Calls<'a> {
    /// None for the entries that go to no publisher.
    pub(super) publisher: Option<To<'a>>,
    pub(super) serde: &'a dyn Serde,
    pub(super) drain: &'a dyn Drain,
    pub(super) jobs: &'a Taken,
    /// Closed to give up the calls under way.
    pub(super) given_up: &'a Jobs<()>,
    pub(super) left_alone: &'a LeftAlone,
    pub(super) results: &'a Sender<Message>,
    pub(super) clock: fn() -> Timestamp,
    pub(super) batches: BatchLimits,
    /// Whether a dead letter parks its stream.
    pub(super) parks: bool,
}

/// A publisher, and its number and name.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) leg: usize,
    /// None for a single publisher, which needs no name.
    pub(super) name: Option<&'a Arc<str>>,
    pub(super) publisher: &'a dyn Publisher,
}

impl To<'_> {
    /// The attempt with the publisher's name.
    fn signed(&self, mut attempt: Attempt) -> Attempt {
        if attempt.outcome != Outcome::Delivered {
            attempt.publisher = self.name.cloned();
        }
        attempt
    }
}

/// Spreads the callers of one of `publishers` over threads: the first slot and the number of callers of each thread. More
/// threads than processors gain nothing, and one processor is left to the database. But each publisher has a thread of its
/// own: one that computes for long holds up no other.
pub(super) fn shares(callers: usize, publishers: usize) -> Vec<(usize, usize)> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let spare = processors.saturating_sub(1).clamp(1, 8);
    let callers = callers.max(1);
    let threads = callers.min((spare / publishers.max(1)).max(1));
    let share = |thread: usize| callers / threads + usize::from(thread < callers % threads);
    (0..threads).map(|thread| ((0..thread).map(share).sum(), share(thread))).collect()
}

/// Runs `callers` callers on this thread, with slots from `first_slot` on, until there are no more jobs.
pub(super) fn run(calls: Calls<'_>, first_slot: usize, callers: usize) {
    let called = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let callers = (first_slot..first_slot + callers).map(|slot| Caller::new(calls, slot).run());
        runtime.block_on(join_all(callers));
        std::io::Result::Ok(())
    }));
    let cause = match called {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.into(),
        Err(panic) => panic_text(panic.as_ref()).into(),
    };
    // The results of this thread's jobs are lost: the session has to begin again.
    let _ = calls.results.send(Message::Broken(StorageError::Other { doing: "call the publisher", cause }));
}

/// One caller: the jobs that it has taken, and the results that it has not reported yet.
struct Caller<'a> {
    calls: Calls<'a>,
    slot: usize,
    /// Jobs that have not begun.
    taken: VecDeque<Job>,
    told: Vec<Finished>,
    /// Whether calls end at once. Then the caller takes and marks several jobs together, since a mark costs as much as
    /// such a call.
    at_once: bool,
    /// Whether the mark names everything that was taken; otherwise it names one call.
    marked_all: bool,
    /// Whether jobs that go alone have their turn before others.
    alone_first: bool,
}

impl<'a> Caller<'a> {
    fn new(calls: Calls<'a>, slot: usize) -> Self {
        Self {
            calls,
            slot,
            taken: VecDeque::new(),
            told: Vec::new(),
            at_once: false,
            marked_all: false,
            alone_first: true,
        }
    }

    async fn run(mut self) {
        let mut published = 0;
        while let Some((job, turn)) = self.next().await {
            published += match self.batch_limits(&job) {
                Some((to, limits)) => {
                    let collected = self.collect(job, limits, turn).await;
                    self.publish_collected(collected, to).await
                }
                None => {
                    drop(turn);
                    self.take(job);
                    self.publish_taken().await
                }
            };
            if self.told.len() >= TELL_MAX || published >= TURN {
                self.tell_all();
            }
            if published >= TURN {
                published = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// The next job; with the right to wait for more, if this publisher's calls are collected. None if there are no more.
    async fn next(&mut self) -> Option<(Job, Option<Turn<'a>>)> {
        let jobs = self.calls.jobs;
        if !self.calls.batches.wait.is_zero() {
            self.tell_all();
            return jobs.next_in_turn().await;
        }
        // In turn, so that neither kind waits for all of the other.
        self.alone_first = !self.alone_first;
        match jobs.try_next(self.alone_first) {
            Some(job) => Some((job, None)),
            None => {
                self.tell_all();
                jobs.next().await.map(|job| (job, None))
            }
        }
    }

    /// Takes the other jobs that are there beside this one, if calls end at once, and marks them all.
    fn take(&mut self, job: Job) {
        let (mut entries, alone) = (job.claims.len(), job.alone);
        self.taken.push_back(job);
        while self.at_once
            && !alone
            && entries < TAKE_MAX
            && let Some(job) = self.calls.jobs.try_shared()
        {
            entries += job.claims.len();
            self.taken.push_back(job);
        }
        self.marked_all = self.at_once && entries > 1;
        if self.marked_all {
            let claims = self.taken.iter().flat_map(|job| &job.claims);
            self.mark(&claims.map(|claim| claim.known.id.position).collect::<Vec<_>>());
        }
    }

    /// Reports all results. Clear the mark before reporting: an entry that must run alone may start next, and a stale
    /// mark would give it company.
    fn tell_all(&mut self) {
        self.mark(&[]);
        self.tell();
    }

    fn mark(&self, positions: &[i64]) {
        self.calls.drain.mark(self.slot, positions);
    }

    fn tell(&mut self) {
        if !self.told.is_empty() {
            // Nobody listens only after the relay has ended in an error: its entries are still there.
            let _ = self.calls.results.send(Message::Finished(std::mem::take(&mut self.told)));
        }
    }

    /// Publishes what was taken, and returns how many entries that were.
    async fn publish_taken(&mut self) -> usize {
        let mut published = 0;
        while let Some(job) = self.taken.pop_front() {
            published += job.claims.len();
            let finished = self.publish(job).await;
            self.told.push(finished);
        }
        published
    }

    async fn publish(&mut self, job: Job) -> Finished {
        if self.begins_nothing() {
            return Finished::untried(job);
        }
        let Some(to) = self.calls.publisher else { return self.publish_to_nobody(job) };
        let finished = self.publish_in_turn(job, to).await;
        self.leave_alone_if_unavailable(&finished.calls, to);
        finished
    }

    /// Whether no call may begin: the relay is stopping, or the publisher is unavailable.
    fn begins_nothing(&self) -> bool {
        let is_left_alone = |to: To<'_>| self.calls.left_alone.get().meets(PublisherSet::one(to.leg));
        self.calls.jobs.is_closed() || self.calls.publisher.is_some_and(is_left_alone)
    }

    fn leave_alone_if_unavailable(&self, calls: &[Called], to: To<'_>) {
        if calls.iter().any(Called::is_unavailable) {
            self.calls.left_alone.add(to.leg);
        }
    }

    /// Publishes the entries of a job in turn, up to the first failure.
    async fn publish_in_turn(&mut self, job: Job, to: To<'_>) -> Finished {
        let Calls { serde, clock, .. } = self.calls;
        let mut calls = Vec::with_capacity(job.claims.len());
        let mut claims = job.claims.into_iter();
        for claim in claims.by_ref() {
            let (position, known) = (claim.known.id.position, claim.known);
            let called = match claim.into_event(serde, clock) {
                Ok(event) => {
                    let under_way = UnderWay { lane: job.lane, positions: &[position], calls: &mut calls };
                    let answer = self.call(under_way, async { to.publisher.publish(&event).await }).await;
                    self.answered(known, to, answer)
                }
                Err(undecodable) => known.not_called(undecodable, clock()),
            };
            let failed = called.failed.is_some();
            calls.push(called);
            if failed || self.calls.jobs.is_closed() {
                break;
            }
        }
        Finished { lane: job.lane, legs: job.legs, calls, rest: Some(claims.collect()) }
    }

    /// Entries that need no call: all of their publishers have them, or no route matches them.
    fn publish_to_nobody(&self, job: Job) -> Finished {
        let Calls { serde, clock, .. } = self.calls;
        let mut claims = job.claims.into_iter();
        let mut calls = Vec::new();
        for claim in claims.by_ref() {
            let known = claim.known;
            let called = match claim.decode(serde) {
                Ok(event) if known.route.is_empty() => known.not_called(unrouted(&event), clock()),
                Ok(_) => known.delivered(PublisherSet::NONE),
                Err(undecodable) => known.not_called(undecodable, clock()),
            };
            let failed = called.failed.is_some();
            calls.push(called);
            if failed {
                break;
            }
        }
        Finished { lane: job.lane, legs: job.legs, calls, rest: Some(claims.collect()) }
    }

    /// The result for an entry; `answer` is None if its call was given up.
    fn answered(&self, known: Known, to: To<'_>, answer: Option<Attempt>) -> Called {
        match answer {
            // By far the most common case.
            Some(attempt) if attempt.outcome == Outcome::Delivered => known.delivered(PublisherSet::one(to.leg)),
            answer => {
                let mut answers = Answers::default();
                answer.into_iter().for_each(|attempt| answers.add(to.leg, to.signed(attempt)));
                known.called(answers, self.calls.clock)
            }
        }
    }

    /// Marks a call, and awaits its result. None if it is given up. A panic of a native publisher is an outcome like
    /// others.
    async fn call<T: FromPanic>(&mut self, under_way: UnderWay<'_>, call: impl Future<Output = T>) -> Option<T> {
        let events = under_way.positions.len();
        if !self.marked_all {
            self.mark(under_way.positions);
        }
        let mut call = std::pin::pin!(AssertUnwindSafe(call).catch_unwind());
        let done = match call.as_mut().now_or_never() {
            // Most calls are done at once.
            Some(done) => {
                self.at_once = true;
                Some(done)
            }
            None => {
                self.waits(under_way);
                let given_up = self.calls.given_up;
                tokio::select! {
                    done = call => Some(done),
                    _ = given_up.recv() => None,
                }
            }
        };
        done.map(|done| done.unwrap_or_else(|panic| T::from_panic(&panic_text(panic.as_ref()), events)))
    }

    /// Called when a call has to wait. First reports what was delivered before: otherwise it would be committed, and
    /// its lane go on, only after this call, and a crash would bring it again. Then gives back the other jobs, for
    /// other callers to take, and marks this call alone.
    fn waits(&mut self, under_way: UnderWay<'_>) {
        self.at_once = false;
        if std::mem::take(&mut self.marked_all) {
            self.mark(under_way.positions);
        }
        if !under_way.calls.is_empty() {
            let calls = std::mem::take(under_way.calls);
            let legs = self.calls.publisher.map_or(PublisherSet::NONE, |to| PublisherSet::one(to.leg));
            self.told.push(Finished { lane: under_way.lane, legs, calls, rest: None });
        }
        self.told.extend(self.taken.drain(..).map(Finished::untried));
        self.tell();
    }
}

/// A call, and the results of its job before it.
struct UnderWay<'a> {
    lane: LaneId,
    positions: &'a [i64],
    calls: &'a mut Vec<Called>,
}

fn unrouted(event: &Recorded) -> Outcome {
    let quoted = |text: &str| format!("{text:?}");
    let (name, tenant) = (quoted(&event.wrapped_event.name), quoted(&event.tenant_id));
    let category = event.stream_id.category.as_deref().map_or_else(|| "none".into(), quoted);
    Outcome::Unrouted {
        reason: format!(
            "no [[route]] matches it: its name is {name}, its category {category}, its tenant {tenant}; add a route, restart \
             the relay, and retry the dead letter"
        ),
    }
}

/// The result of a call for so many events that panicked.
trait FromPanic {
    fn from_panic(text: &str, events: usize) -> Self;
}

impl FromPanic for Attempt {
    fn from_panic(text: &str, _events: usize) -> Self {
        Outcome::Trapped { reason: format!("the publisher panicked: {text}") }.into()
    }
}

impl FromPanic for Vec<Attempt> {
    fn from_panic(text: &str, events: usize) -> Self {
        vec![Attempt::from_panic(text, 1); events]
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
