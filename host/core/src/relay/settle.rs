//! Settles each entry after its calls, with the pure function [`settle`].

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::answers::{Called, Finished, NotDelivered};
use super::job::LaneId;
use super::report::Then;
use super::{OnDeadLetter, Session};
use crate::attempt::{Attempt, Outcome};
use crate::outbox::{Failed, Fate, Settled};
use crate::raw::EntryId;
use crate::settlement::{History, Settlement, settle, settle_on_trial};

/// The most characters of a reason that are kept; a guest's reasons are cut to fewer.
const REASON_CHARS_MAX: usize = 4_000;

impl Session<'_> {
    pub(super) fn settle_job(&mut self, job: Finished) {
        let now = Instant::now();
        for Called { entry, tried_before, available, failed } in job.calls {
            self.breakers.available(available);
            failed.iter().for_each(|failed| self.leave_alone(failed, now));
            self.not_paused();
            match failed {
                None => {
                    self.lanes.settled(job.lane, entry);
                    self.await_commit(job.lane, Settled::Delivered { entry, tried_before }, now);
                }
                Some(failed) => self.settle_failed(job.lane, entry, *failed, now),
            }
        }
        if let Some(rest) = job.rest {
            self.lanes.finished(job.lane, rest);
            self.breakers.unprobed(now, |leg| self.lanes.is_running_for(leg));
        }
    }

    /// Pauses an unavailable publisher, whatever becomes of the entry.
    fn leave_alone(&mut self, failed: &NotDelivered, now: Instant) {
        for (leg, attempt) in &failed.unavailable {
            let (policy, outcome) = (&self.context.options.policy, &attempt.outcome);
            let delay = policy.pause_after(outcome, self.breakers.pauses(*leg), (self.context.random)());
            self.breakers.unavailable(*leg, delay, policy.asked(outcome), now);
            self.paused(*leg, outcome.reason());
        }
    }

    /// What becomes of an entry that was not delivered.
    fn settle_failed(&mut self, lane: LaneId, entry: EntryId, failed: NotDelivered, now: Instant) {
        let NotDelivered { history, delivered, at, in_part, others, attempt, .. } = failed;
        let (options, position) = (self.context.options, entry.position);
        // The relay itself cut the call off, which is no attempt.
        let cut_off = || Outcome::Unavailable { reason: "the relay was stopped".into(), after: None }.into();
        let (was_cut_off, attempt) = (attempt.is_none(), with_bounded_reason(attempt.unwrap_or_else(cut_off)));
        let others: Vec<Attempt> = others.into_iter().map(with_bounded_reason).collect();
        others.iter().for_each(|other| self.note_other_failure(position, other));
        let (policy, jitter) = (&options.policy, (self.context.random)());
        let settlement = match attempt.on_trial {
            true => settle_on_trial(history, &attempt.outcome, policy, jitter),
            false => settle(history, &attempt.outcome, policy, jitter),
        };
        let (fate, history) = match fate(settlement, at, options.on_dead_letter) {
            Some((fate, history)) => {
                self.note_failure(position, history.attempts, &attempt, fate.into());
                (fate, history)
            }
            None => {
                if !was_cut_off {
                    self.note_failure(position, history.attempts.saturating_add(1), &attempt, Then::Stays);
                }
                if !in_part {
                    self.lanes.released(lane, entry);
                    return;
                }
                // It waits only for its publisher. Publishers that have it must not get it again.
                (Fate::Retry { at }, history)
            }
        };
        match fate {
            Fate::Retry { .. } => self.lanes.failed(lane, entry, now + settlement.delay(), history, delivered),
            Fate::DeadLetter { park } => {
                self.lanes.settled(lane, entry);
                if park {
                    self.lanes.parked(lane);
                }
            }
        }
        let delivered_to = self.context.publishers.names(delivered);
        let failed = Failed { entry, at, attempt, others, delivered_to, history, fate };
        self.await_commit(lane, Settled::Failed(Box::new(failed)), now);
    }
}

/// What becomes of an entry that failed at `at`, and its history with that attempt. None if the entry stays as it was.
pub(super) fn fate(settlement: Settlement, at: Timestamp, on_dead_letter: OnDeadLetter) -> Option<(Fate, History)> {
    match settlement {
        Settlement::Ack | Settlement::PausePublisher => None,
        Settlement::Retry { delay, history } => {
            let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
            Some((Fate::Retry { at: at.saturating_add(delay).unwrap_or(Timestamp::MAX) }, history))
        }
        Settlement::DeadLetter { history } => {
            Some((Fate::DeadLetter { park: on_dead_letter == OnDeadLetter::Park }, history))
        }
    }
}

fn with_bounded_reason(attempt: Attempt) -> Attempt {
    Attempt { outcome: attempt.outcome.with_bounded_reason(REASON_CHARS_MAX), ..attempt }
}
