//! What came of calls: the answers of one entry's publishers, put together, and what the caller reports of it.

use jiff::Timestamp;

use super::job::{Claim, Known, LaneId};
use crate::attempt::{Attempt, Outcome};
use crate::publishers::PublisherSet;
use crate::raw::EntryId;
use crate::settlement::History;

/// What became of a job, or of the first part of it.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) lane: LaneId,
    pub(super) calls: Vec<Called>,
    /// What was not tried, since an entry before it failed. None while the job goes on.
    pub(super) rest: Option<Vec<Claim>>,
}

/// What became of an entry that was tried.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) entry: EntryId,
    pub(super) tried_before: bool,
    /// The publishers that answered with anything but that they are unavailable.
    pub(super) available: PublisherSet,
    /// Why not each publisher has it that it goes to; none where each has.
    pub(super) failed: Option<Box<NotDelivered>>,
}

/// Why an entry was not delivered.
#[derive(Debug)]
pub(super) struct NotDelivered {
    pub(super) history: History,
    /// The publishers that have it all the same, those from earlier attempts included.
    pub(super) delivered: PublisherSet,
    /// Whether it was delivered to one of them only now.
    pub(super) in_part: bool,
    /// What the publisher answered that decides what becomes of the entry. None when the call was given up.
    pub(super) attempt: Option<Attempt>,
    /// The publishers that said that they are unavailable, with what they said.
    pub(super) unavailable: Vec<(usize, Attempt)>,
    /// What other publishers answered that failed.
    pub(super) others: Vec<Attempt>,
    pub(super) at: Timestamp,
}

impl Known {
    /// Each publisher has it now; these have answered.
    pub(super) fn delivered(self, available: PublisherSet) -> Called {
        Called { entry: self.id, tried_before: self.tried_before, available, failed: None }
    }

    /// No publisher could be called with it.
    pub(super) fn not_called(self, outcome: Outcome, at: Timestamp) -> Called {
        self.called(Answers { attempt: Some(outcome.into()), ..Answers::default() }, || at)
    }

    pub(super) fn called(self, answers: Answers, clock: impl FnOnce() -> Timestamp) -> Called {
        let Self { id: entry, tried_before, history, .. } = self;
        let Answers { attempt, delivered, available, unavailable, others } = answers;
        if attempt.as_ref().is_some_and(|attempt| attempt.outcome == Outcome::Delivered) {
            return self.delivered(available);
        }
        let in_part = !delivered.is_empty();
        let delivered = self.delivered | delivered;
        let failed = NotDelivered { history, delivered, in_part, attempt, unavailable, others, at: clock() };
        Called { entry, tried_before, available, failed: Some(Box::new(failed)) }
    }
}

/// What publishers have answered for an entry.
#[derive(Default)]
pub(super) struct Answers {
    /// The answer that decides.
    pub(super) attempt: Option<Attempt>,
    /// Those that took it.
    delivered: PublisherSet,
    available: PublisherSet,
    unavailable: Vec<(usize, Attempt)>,
    others: Vec<Attempt>,
}

impl Answers {
    /// Takes in what one publisher answered: of several answers the one that decides is that which leaves most open.
    pub(super) fn add(&mut self, leg: usize, attempt: Attempt) {
        match &attempt.outcome {
            Outcome::Delivered => self.delivered = self.delivered | PublisherSet::one(leg),
            Outcome::Unavailable { .. } => self.unavailable.push((leg, attempt.clone())),
            _ => {}
        }
        if !matches!(attempt.outcome, Outcome::Unavailable { .. }) {
            self.available = self.available | PublisherSet::one(leg);
        }
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

/// An entry is only set aside when nothing is left to try; a publisher on trial decides nothing for good.
fn weight(attempt: &Attempt) -> u8 {
    match &attempt.outcome {
        Outcome::Delivered => 0,
        _ if attempt.on_trial => 4,
        Outcome::Rejected { .. } | Outcome::Undecodable { .. } | Outcome::Unrouted { .. } => 1,
        Outcome::Unavailable { .. } => 2,
        _ => 3,
    }
}
