//! Settles each entry after its calls, with the pure function [`settle`].

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::answers::{Called, Finished, NotDelivered};
use super::breaker::Pause;
use super::breakers::FailedCall;
use super::job::LaneId;
use super::options::OnDeadLetter;
use super::report::Then;
use super::session::Session;
use crate::attempt::{Attempt, Outcome};
use crate::outbox::{Failed, Fate, Settled};
use crate::publishers::PublisherSet;
use crate::raw::EntryId;
use crate::settlement::{History, Settlement, settle, settle_on_trial};
use crate::stream::StreamKey;

/// The most characters of a reason that are kept; a guest's reasons are cut to fewer.
const REASON_CHARS_MAX: usize = 4_000;

impl Session<'_> {
    pub(super) fn settle_job(&mut self, job: Finished) {
        let now = Instant::now();
        if job.rest.is_some() {
            self.lanes.done(job.lane, job.legs, now);
        }
        let Some(job) = self.fan_outs.answered(job, self.context.clock) else { return };
        for Called { entry, stream, tried_before, available, uncounted, failed } in job.calls {
            self.breakers.available(available, uncounted, stream);
            let is_outage = failed.as_ref().is_some_and(|failed| self.leave_alone(entry, failed, uncounted, now));
            self.not_paused();
            match failed {
                None => {
                    self.lanes.settled(job.lane, entry);
                    self.await_commit(job.lane, Settled::Delivered { entry, tried_before }, now);
                }
                Some(failed) => self.settle_failed(job.lane, entry, *failed, is_outage, now),
            }
        }
        if let Some(rest) = job.rest {
            self.lanes.finished(job.lane, rest);
            self.breakers.unprobed(now, |leg| self.lanes.is_running_for(leg));
        }
        self.show_publishers(now);
    }

    /// Pauses the publishers that are unavailable or whose calls all fail, whatever becomes of the entry. Returns
    /// whether an outage is to blame for each failure, and not the entry.
    fn leave_alone(&mut self, entry: EntryId, failed: &NotDelivered, uncounted: PublisherSet, now: Instant) -> bool {
        for (leg, attempt) in &failed.unavailable {
            let (policy, jitter) = (&self.context.options.policy, (self.context.random)());
            let delay = policy.pause_after(&attempt.outcome, self.breakers.pauses(*leg), jitter);
            let pause = Pause { delay, asked: policy.asked(&attempt.outcome) };
            self.breakers.unavailable(*leg, pause, attempt.outcome.reason(), now);
            self.paused(*leg);
        }
        let mut outages = 0;
        for (leg, attempt) in &failed.failing {
            // A version on trial is judged by its trial.
            if attempt.on_trial {
                self.breakers.answers(*leg);
                continue;
            }
            let (policy, jitter) = (&self.context.options.policy, (self.context.random)());
            let delay = policy.own_pause(self.breakers.pauses(*leg), jitter);
            let pause = Pause { delay, asked: Duration::ZERO };
            let (is_first, counts) = (failed.history == History::default(), !uncounted.meets(PublisherSet::one(*leg)));
            let call = FailedCall { stream: failed.stream, entry, is_first, counts };
            if self.breakers.failed(*leg, call, pause, attempt.outcome.reason(), now) {
                outages += 1;
                self.paused(*leg);
            }
        }
        outages > 0 && outages == failed.failing.len()
    }

    /// What becomes of an entry that was not delivered.
    fn settle_failed(&mut self, lane: LaneId, entry: EntryId, failed: NotDelivered, is_outage: bool, now: Instant) {
        let down = failed.down();
        let NotDelivered { stream, history, delivered, at, in_part, others, attempt, .. } = failed;
        let (options, position) = (self.context.options, entry.position);
        // The relay itself cut the call off, which is no attempt.
        let cut_off = || Outcome::Unavailable { reason: "the relay was stopped".into(), after: None }.into();
        let (was_cut_off, attempt) = (attempt.is_none(), with_bounded_reason(attempt.unwrap_or_else(cut_off)));
        let others: Vec<Attempt> = others.into_iter().map(with_bounded_reason).collect();
        others.iter().for_each(|other| self.note_other_failure(position, other));
        let (policy, jitter) = (&options.policy, (self.context.random)());
        let settlement = match (attempt.on_trial, is_outage) {
            (true, _) => settle_on_trial(history, &attempt.outcome, policy, jitter),
            (false, true) => Settlement::PausePublisher,
            (false, false) => settle(history, &attempt.outcome, policy, jitter),
        };
        let wait = if is_outage { policy.asked(&attempt.outcome) } else { Duration::ZERO };
        let (fate, history) = match fate(settlement, at, options.on_dead_letter) {
            Some((fate, history)) => {
                self.note_failure(position, history.attempts, &attempt, fate.into());
                (fate, history)
            }
            None => {
                if !was_cut_off {
                    self.note_failure(position, history.attempts.saturating_add(1), &attempt, Then::Stays);
                }
                if !in_part && wait.is_zero() {
                    match was_cut_off {
                        true => self.lanes.released(lane, entry),
                        false => self.lanes.turned_away(lane, entry, down),
                    }
                    return;
                }
                // It waits only for its publisher, or for as long as it asked for. Publishers that have it must not get
                // it again.
                (retry_after(wait, at), history)
            }
        };
        match fate {
            Fate::Retry { .. } => {
                self.lanes.failed(lane, entry, now + settlement.delay().max(wait), history, delivered);
            }
            Fate::DeadLetter { park } => {
                self.lanes.settled(lane, entry);
                // If its stream cannot be determined, it parks none.
                if park && stream != StreamKey::of_nobody(position) {
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
        Settlement::Retry { delay, history } => Some((retry_after(delay, at), history)),
        Settlement::DeadLetter { history } => {
            Some((Fate::DeadLetter { park: on_dead_letter == OnDeadLetter::Park }, history))
        }
    }
}

fn retry_after(delay: Duration, at: Timestamp) -> Fate {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    Fate::Retry { at: at.saturating_add(delay).unwrap_or(Timestamp::MAX) }
}

fn with_bounded_reason(attempt: Attempt) -> Attempt {
    Attempt { outcome: attempt.outcome.with_bounded_reason(REASON_CHARS_MAX), ..attempt }
}
