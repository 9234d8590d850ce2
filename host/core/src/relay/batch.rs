//! Jobs of several lanes in one call: what the call takes of them, and what its answers mean for each.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::answers::{Called, Finished};
use super::job::{Claim, Job, Known, LaneId, Load};
use crate::attempt::{Attempt, Outcome};
use crate::publisher_options::{BATCH_BYTES_MAX, BATCH_MAX, BATCH_WAIT_MAX, PublisherOptions};
use crate::publishers::PublisherSet;
use crate::recorded::Recorded;
use crate::serde::Serde;
use crate::stream::StreamKey;

/// How much a call takes, and how long it is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimits {
    /// How many entries are asked for. None for as many as the publisher takes.
    asked: Option<usize>,
    /// What a call never exceeds.
    max: Load,
    pub(super) wait: Duration,
}

impl BatchLimits {
    /// Each entry has a call of its own.
    pub(super) const NONE: Self = Self { asked: None, max: Load { entries: 1, bytes: 0 }, wait: Duration::ZERO };

    /// Those of a publisher that may have `part` in memory: more cannot come together.
    pub(super) fn new(options: &PublisherOptions, part: Load) -> Self {
        let entries = options.batch_max.unwrap_or(BATCH_MAX).min(BATCH_MAX).min(part.entries);
        let bytes = options.batch_bytes.min(BATCH_BYTES_MAX).min(part.bytes);
        let wait = options.batch_wait.min(BATCH_WAIT_MAX);
        Self { asked: options.batch_max, max: Load { entries, bytes }, wait }
    }

    /// The same without waiting: nothing more could come.
    pub(super) fn at_once(self) -> Self {
        Self { wait: Duration::ZERO, ..self }
    }

    /// The same for a publisher that takes `takes` events at once, unless more or fewer are asked for; with 1 it takes no
    /// batches.
    pub(super) fn of_publisher(self, takes: usize) -> Self {
        let takes = if takes > 1 { self.asked.unwrap_or(takes) } else { 1 };
        Self { max: Load { entries: self.max.entries.min(takes), ..self.max }, ..self }
    }

    /// The most entries of a call.
    pub(super) fn entries(self) -> usize {
        self.max.entries
    }

    pub(super) fn is_one(self) -> bool {
        self.max.entries <= 1
    }

    /// Whether a call that has `load` is full.
    fn is_reached(self, load: Load) -> bool {
        load.entries >= self.max.entries || load.bytes >= self.max.bytes
    }

    /// Whether a claim may have no company.
    fn is_too_large(self, claim: &Claim) -> bool {
        claim.entry.bytes() > self.max.bytes
    }

    /// Whether a call that has `load` may have this claim too.
    fn has_room(self, load: Load, claim: &Claim) -> bool {
        let bytes = load.bytes.saturating_add(claim.entry.bytes());
        load.entries == 0 || (load.entries < self.max.entries && bytes <= self.max.bytes)
    }
}

/// The jobs that a caller has collected for a call.
#[derive(Debug)]
pub(super) struct Collected {
    jobs: Vec<Job>,
    load: Load,
    limits: BatchLimits,
}

impl Collected {
    pub(super) fn new(first: Job, limits: BatchLimits) -> Self {
        let load = Load::of(&first.claims);
        Self { jobs: vec![first], load, limits }
    }

    pub(super) fn is_full(&self) -> bool {
        self.limits.is_reached(self.load)
    }

    pub(super) fn add(&mut self, job: Job) {
        job.claims.iter().for_each(|claim| self.load.add(claim));
        self.jobs.push(job);
    }

    /// The only entry, as a job.
    pub(super) fn only(mut self) -> Result<Job, Self> {
        if self.load.entries > 1 { Err(self) } else { self.jobs.pop().ok_or(self) }
    }

    /// How many entries there are.
    pub(super) fn entries(&self) -> usize {
        self.load.entries
    }

    pub(super) fn untried(self) -> impl Iterator<Item = Finished> {
        self.jobs.into_iter().map(Finished::untried)
    }
}

/// A call for entries of several lanes.
pub(super) struct Batch {
    parts: Vec<Part>,
    /// What is published, in the order of positions.
    pub(super) events: Vec<Recorded>,
    /// The number of the part that each of them belongs to, and its stream.
    belong_to: Vec<(usize, StreamKey)>,
}

/// The part of one lane.
struct Part {
    lane: LaneId,
    legs: PublisherSet,
    /// What is published, in order.
    called: Vec<Claim>,
    /// The entry behind it, if that cannot be published.
    unfit: Option<(Claim, Option<Outcome>)>,
    /// What is not in the call.
    rest: Vec<Claim>,
}

/// An event's answer; None if its call was given up.
pub(super) type Answer = Option<Attempt>;

/// An event's answer, and what is known of it beside the others.
struct Answered {
    answer: Answer,
    /// It says that the call failed, and not for which event.
    blames_nobody: bool,
    /// An earlier event of its stream was not delivered in this call.
    is_behind: bool,
}

/// How to settle the entries of a call.
pub(super) struct Settle<'a> {
    pub(super) leg: usize,
    /// The result for an entry and its answer.
    pub(super) called: &'a dyn Fn(Known, Answer) -> Called,
    /// The result for an entry that cannot be published.
    pub(super) not_called: &'a dyn Fn(Known, Option<Outcome>) -> Called,
    /// Whether a dead letter parks its stream.
    pub(super) parks: bool,
}

impl Batch {
    /// Decodes as much as a call may have. The rest of a lane with an entry that cannot be published stays out of it.
    pub(super) fn of(collected: Collected, serde: &dyn Serde, clock: fn() -> Timestamp) -> Self {
        let Collected { jobs, limits, .. } = collected;
        let (mut load, mut parts, mut events) = (Load::default(), Vec::with_capacity(jobs.len()), Vec::new());
        for (number, job) in jobs.into_iter().enumerate() {
            let (part, decoded) = Part::of(job, limits, &mut load, |claim| claim.into_event(serde, clock));
            let belong_to = part.called.iter().map(|claim| (number, claim.known.stream));
            events.extend(decoded.into_iter().zip(belong_to));
            parts.push(part);
        }
        // The contract promises this order, also between streams.
        events.sort_by_key(|(event, _)| event.position);
        let (events, belong_to) = events.into_iter().unzip();
        Self { parts, events, belong_to }
    }

    /// The positions of its events.
    pub(super) fn positions(&self) -> Vec<i64> {
        self.events.iter().map(|event| event.position.cast_signed()).collect()
    }

    /// Splits the answers, one for each event, up between the lanes.
    pub(super) fn finished(self, answers: Vec<Answer>, settle: &Settle<'_>) -> Vec<Finished> {
        let Self { parts, belong_to, .. } = self;
        let (all_fail, company) = (all_fail(&answers), belong_to.len() > 1);
        let first = belong_to.first().map(|(part, _)| *part);
        let (mut failed, mut of_parts) = (HashSet::new(), parts.iter().map(|_| Vec::new()).collect::<Vec<_>>());
        for ((part, stream), answer) in belong_to.into_iter().zip(answers) {
            let (is_behind, blames_nobody) = (failed.contains(&stream), company && blames_nobody(&answer, all_fail));
            if !is_delivered(&answer) {
                failed.insert(stream);
            }
            let answered = Answered { answer, blames_nobody, is_behind };
            if let Some(of_part) = of_parts.get_mut(part) {
                of_part.push(answered);
            }
        }
        let parts = parts.into_iter().zip(of_parts).enumerate();
        let finished = parts.map(|(number, (part, answers))| {
            let mut finished = part.finished(answers, settle);
            // A call counts once in the failure rate, with its first event.
            let others = finished.calls.iter_mut().skip(usize::from(first == Some(number)));
            others.for_each(|called| called.uncounted = PublisherSet::one(settle.leg));
            finished
        });
        finished.collect()
    }
}

/// What a call of several events failed with, if its answers do not say of which of them.
pub(super) fn failure_of_the_call(answers: &[Answer]) -> Option<&Attempt> {
    let all_fail = all_fail(answers);
    answers.iter().find(|answer| answers.len() > 1 && blames_nobody(answer, all_fail))?.as_ref()
}

/// Whether an answer says that a call failed, and not for which of its events: a trap, and if each event failed, also a
/// request for another try. One that names a time is meant for its own event.
fn blames_nobody(answer: &Answer, all_fail: bool) -> bool {
    is_vague(answer) && (all_fail || !matches!(answer, Some(Attempt { outcome: Outcome::Retry { .. }, .. })))
}

fn all_fail(answers: &[Answer]) -> bool {
    answers.iter().all(is_vague)
}

fn is_vague(answer: &Answer) -> bool {
    let Some(Attempt { outcome, .. }) = answer else { return false };
    outcome.is_failure() && !matches!(outcome, Outcome::Retry { after: Some(_), .. })
}

fn is_delivered(answer: &Answer) -> bool {
    answer.as_ref().is_some_and(|attempt| attempt.outcome == Outcome::Delivered)
}

/// Whether the entry becomes a dead letter by this answer.
fn is_rejected(answer: &Answer) -> bool {
    answer.as_ref().is_some_and(|attempt| matches!(attempt.outcome, Outcome::Rejected { .. }) && !attempt.on_trial)
}

impl Part {
    fn of(
        job: Job,
        limits: BatchLimits,
        load: &mut Load,
        into_event: impl Fn(Claim) -> Result<Recorded, Option<Outcome>>,
    ) -> (Self, Vec<Recorded>) {
        let Job { lane, legs, claims, .. } = job;
        let (mut called, mut events, mut unfit) = (Vec::with_capacity(claims.len()), Vec::new(), None);
        let mut claims = claims.into_iter();
        while let Some(next) = claims.as_slice().first()
            && limits.has_room(*load, next)
            && let Some(claim) = claims.next()
        {
            // Kept beside its event: it may have to be offered again.
            match into_event(claim.clone()) {
                Ok(event) => {
                    load.add(&claim);
                    called.push(claim);
                    events.push(event);
                }
                Err(outcome) => {
                    unfit = Some((claim, outcome));
                    break;
                }
            }
        }
        let mut rest: Vec<Claim> = claims.collect();
        rest.iter_mut().for_each(|claim| claim.known.alone |= limits.is_too_large(claim));
        (Self { lane, legs, called, unfit, rest }, events)
    }

    /// Settles a lane's entries in order, up to one that holds the lane: what is behind it is offered again, whatever was
    /// answered for it. Behind a failure of its stream that holds nothing, such as a dead letter, only deliveries count.
    fn finished(self, answers: Vec<Answered>, settle: &Settle<'_>) -> Finished {
        let Self { lane, legs, called, unfit, rest } = self;
        let (mut calls, mut again) = (Vec::with_capacity(called.len()), Vec::new());
        let mut holds = false;
        for (mut claim, Answered { answer, blames_nobody, is_behind }) in called.into_iter().zip(answers) {
            holds |= blames_nobody || (is_behind && !is_delivered(&answer));
            if holds {
                claim.known.alone = blames_nobody;
                again.push(claim);
                continue;
            }
            holds = !is_delivered(&answer) && (settle.parks || !is_rejected(&answer));
            calls.push((settle.called)(claim.known, answer));
        }
        match unfit {
            Some((claim, _)) if holds => again.push(claim),
            Some((claim, outcome)) => calls.push((settle.not_called)(claim.known, outcome)),
            None => {}
        }
        again.extend(rest);
        Finished { lane, legs, calls, rest: Some(again) }
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
