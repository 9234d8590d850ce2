//! The results of calls: combines the answers of one entry's publishers, for the caller's report.

use jiff::Timestamp;

use super::job::{Claim, Job, Known, LaneId};
use crate::attempt::{Attempt, Outcome};
use crate::publishers::PublisherSet;
use crate::raw::EntryId;
use crate::settlement::History;
use crate::stream::StreamKey;

/// The results of a job, or of its first part.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) lane: LaneId,
    /// The publisher that was to be called. None for what needs no call.
    pub(super) legs: PublisherSet,
    pub(super) calls: Vec<Called>,
    /// The claims that were not tried, since an entry before them failed. None while the job goes on.
    pub(super) rest: Option<Vec<Claim>>,
}

impl Finished {
    /// A job that has not begun.
    pub(super) fn untried(job: Job) -> Self {
        Self { lane: job.lane, legs: job.legs, calls: Vec::new(), rest: Some(job.claims) }
    }
}

/// The result for an entry that was tried.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) entry: EntryId,
    pub(super) stream: StreamKey,
    pub(super) tried_before: bool,
    /// The publishers that have given an answer for good: a delivery or a rejection.
    pub(super) available: PublisherSet,
    /// The publishers whose call was for other entries too, and is counted with one of those.
    pub(super) uncounted: PublisherSet,
    /// Why not all of its publishers have it. None if all have it.
    pub(super) failed: Option<Box<NotDelivered>>,
}

impl Called {
    pub(super) fn is_unavailable(&self) -> bool {
        self.failed.as_ref().is_some_and(|failed| !failed.unavailable.is_empty())
    }
}

impl NotDelivered {
    /// The publishers that are unavailable, or whose calls failed.
    pub(super) fn down(&self) -> PublisherSet {
        let down = self.unavailable.iter().chain(&self.failing);
        down.fold(PublisherSet::NONE, |legs, (leg, _)| legs | PublisherSet::one(*leg))
    }
}

/// Why an entry was not delivered.
#[derive(Debug)]
pub(super) struct NotDelivered {
    pub(super) stream: StreamKey,
    pub(super) history: History,
    /// The publishers that have it all the same, including those of earlier attempts.
    pub(super) delivered: PublisherSet,
    /// Whether this attempt delivered it to one of them.
    pub(super) in_part: bool,
    /// The attempt that decides what becomes of the entry. None if the call was given up.
    pub(super) attempt: Option<Attempt>,
    /// The publishers that are unavailable, with their attempts.
    pub(super) unavailable: Vec<(usize, Attempt)>,
    /// The publishers whose calls failed, with their attempts.
    pub(super) failing: Vec<(usize, Attempt)>,
    /// The failed attempts of other publishers.
    pub(super) others: Vec<Attempt>,
    pub(super) at: Timestamp,
}

impl Known {
    /// The result if each publisher has it now; `available` have answered.
    pub(super) fn delivered(self, available: PublisherSet) -> Called {
        let Self { id: entry, stream, tried_before, .. } = self;
        Called { entry, stream, tried_before, available, uncounted: PublisherSet::NONE, failed: None }
    }

    /// The result if no publisher could be called with it. Without an outcome, it stays as it was.
    pub(super) fn not_called(self, outcome: impl Into<Option<Outcome>>, at: Timestamp) -> Called {
        self.called(Answers { attempt: outcome.into().map(Into::into), ..Answers::default() }, || at)
    }

    pub(super) fn called(self, answers: Answers, clock: impl FnOnce() -> Timestamp) -> Called {
        let Self { id: entry, stream, tried_before, history, .. } = self;
        let Answers { attempt, delivered, available, unavailable, failing, others } = answers;
        if attempt.as_ref().is_some_and(|attempt| attempt.outcome == Outcome::Delivered) {
            return self.delivered(available);
        }
        let in_part = !delivered.is_empty();
        let delivered = self.delivered | delivered;
        let at = clock();
        let failed = NotDelivered { stream, history, delivered, in_part, attempt, unavailable, failing, others, at };
        let (uncounted, failed) = (PublisherSet::NONE, Some(Box::new(failed)));
        Called { entry, stream, tried_before, available, uncounted, failed }
    }
}

/// The answers of publishers for an entry.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The answer that decides.
    pub(super) attempt: Option<Attempt>,
    /// The publishers that have delivered it.
    delivered: PublisherSet,
    available: PublisherSet,
    unavailable: Vec<(usize, Attempt)>,
    failing: Vec<(usize, Attempt)>,
    others: Vec<Attempt>,
}

impl Answers {
    /// Adds a publisher's answer. Of several answers, the one that leaves most open decides.
    pub(super) fn add(&mut self, leg: usize, attempt: Attempt) {
        match &attempt.outcome {
            Outcome::Delivered => self.delivered = self.delivered | PublisherSet::one(leg),
            Outcome::Unavailable { .. } => self.unavailable.push((leg, attempt.clone())),
            outcome if outcome.is_failure() => self.failing.push((leg, attempt.clone())),
            _ => {}
        }
        if !matches!(attempt.outcome, Outcome::Unavailable { .. }) && !attempt.outcome.is_failure() {
            self.available = self.available | PublisherSet::one(leg);
        }
        self.weigh(attempt);
    }

    /// Whether an entry would be removed or set aside after these answers.
    pub(super) fn leaves_nothing_to_try(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| weight(attempt) < WEIGHT_UNAVAILABLE)
    }

    /// Takes in an answer that may decide, whoever gave it.
    pub(super) fn weigh(&mut self, attempt: Attempt) {
        match &mut self.attempt {
            None => self.attempt = Some(attempt),
            Some(decides) if weight(&attempt) > weight(decides) => {
                let other = std::mem::replace(decides, attempt);
                self.others.extend((other.outcome != Outcome::Delivered).then_some(other));
            }
            Some(_) if attempt.outcome == Outcome::Delivered => {}
            Some(_) => self.others.push(attempt),
        }
    }
}

const WEIGHT_UNAVAILABLE: u8 = 2;

/// How much an answer leaves open. An entry is set aside only if nothing is left to try, and a version on trial decides
/// nothing for good.
fn weight(attempt: &Attempt) -> u8 {
    match &attempt.outcome {
        Outcome::Delivered => 0,
        _ if attempt.on_trial => 4,
        Outcome::Rejected { .. } | Outcome::Undecodable { .. } | Outcome::Unrouted { .. } | Outcome::Expired { .. } => {
            1
        }
        Outcome::Unavailable { .. } => WEIGHT_UNAVAILABLE,
        _ => 3,
    }
}
