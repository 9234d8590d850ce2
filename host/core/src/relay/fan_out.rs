//! An entry that goes to several publishers: they are called side by side, and their answers become one result.

use std::collections::HashMap;

use jiff::Timestamp;

use super::answers::{Answers, Called, Finished};
use super::job::{Claim, Job, Known, LaneId};
use crate::attempt::{Attempt, Outcome};
use crate::publishers::PublisherSet;

/// The entries whose publishers are being called. A lane has one job at a time, and so at most one of them.
#[derive(Debug, Default)]
pub(super) struct FanOuts(HashMap<LaneId, FanOut>);

#[derive(Debug)]
struct FanOut {
    known: Known,
    /// The publishers whose answers are awaited.
    awaited: PublisherSet,
    answers: Vec<(usize, Attempt)>,
    /// The publishers whose call is counted with another entry.
    uncounted: PublisherSet,
    /// No publisher can decode it.
    undecodable: Option<Attempt>,
    /// Some publisher was to be called when it had expired.
    expired: Option<Attempt>,
    /// Whether a call was given up: the relay stops.
    is_given_up: bool,
    /// The claim, if a call of it never began.
    untried: Option<Claim>,
    has_begun: bool,
}

impl FanOuts {
    /// The jobs for the publishers of this job: one for each.
    pub(super) fn split(&mut self, job: &Job) -> Vec<(usize, Job)> {
        if let [claim] = job.claims.as_slice() {
            let (known, awaited) = (claim.known, job.legs);
            let (answers, undecodable, expired, untried) = (Vec::new(), None, None, None);
            let (is_given_up, has_begun, uncounted) = (false, false, PublisherSet::NONE);
            let fan_out =
                FanOut { known, awaited, answers, uncounted, undecodable, expired, is_given_up, untried, has_begun };
            self.0.insert(job.lane, fan_out);
        }
        job.legs.iter().map(|leg| (leg, Job { legs: PublisherSet::one(leg), ..job.clone() })).collect()
    }

    /// Takes in what a publisher's caller reports. Returns the result of the whole job. None while answers of other
    /// publishers are awaited.
    pub(super) fn answered(&mut self, job: Finished, clock: fn() -> Timestamp) -> Option<Finished> {
        if self.0.is_empty() {
            return Some(job);
        }
        let Some(fan_out) = self.0.get_mut(&job.lane) else { return Some(job) };
        let lane = job.lane;
        fan_out.add(job);
        if !fan_out.awaited.is_empty() {
            return None;
        }
        self.0.remove(&lane).map(|fan_out| fan_out.finished(lane, clock))
    }
}

impl FanOut {
    fn add(&mut self, job: Finished) {
        self.awaited = self.awaited.without(job.legs);
        let Some(leg) = job.legs.only() else { return };
        match job.calls.into_iter().next() {
            Some(called) => {
                self.has_begun = true;
                self.uncounted = self.uncounted | called.uncounted;
                self.answer(leg, called);
            }
            None => self.untried = job.rest.into_iter().flatten().next(),
        }
    }

    fn answer(&mut self, leg: usize, called: Called) {
        match called.failed.map(|failed| failed.attempt) {
            None => self.answers.push((leg, Outcome::Delivered.into())),
            Some(Some(attempt)) if matches!(attempt.outcome, Outcome::Undecodable { .. }) => {
                self.undecodable = Some(attempt);
            }
            Some(Some(attempt)) if matches!(attempt.outcome, Outcome::Expired { .. }) => self.expired = Some(attempt),
            Some(Some(attempt)) => self.answers.push((leg, attempt)),
            Some(None) => self.is_given_up = true,
        }
    }

    fn finished(mut self, lane: LaneId, clock: fn() -> Timestamp) -> Finished {
        let legs = self.known.legs();
        if !self.has_begun {
            return Finished { lane, legs, calls: Vec::new(), rest: Some(self.untried.into_iter().collect()) };
        }
        let uncounted = self.uncounted;
        let called = match self.undecodable.take() {
            Some(attempt) => self.known.not_called(attempt.outcome, clock()),
            None => self.known.called(self.all_answers(), clock),
        };
        Finished { lane, legs, calls: vec![Called { uncounted, ..called }], rest: Some(Vec::new()) }
    }

    /// In the order of the publishers, whoever was first: of equal failures the first decides.
    fn all_answers(mut self) -> Answers {
        self.answers.sort_unstable_by_key(|(leg, _)| *leg);
        let mut answers = Answers::default();
        self.answers.into_iter().for_each(|(leg, attempt)| answers.add(leg, attempt));
        let has_expired = self.expired.is_some();
        self.expired.into_iter().for_each(|attempt| answers.weigh(attempt));
        // Who was not called will not be called after it has expired.
        if self.untried.is_some() && !has_expired {
            let reason = "another publisher of this entry is paused, and was not called".into();
            answers.weigh(Outcome::Unavailable { reason, after: None }.into());
        }
        if self.is_given_up && answers.leaves_nothing_to_try() {
            answers.attempt = None;
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::{EntryId, RawEntry};
    use crate::row::{Field, Row};
    use crate::settlement::History;

    const LANE: LaneId = LaneId(7);

    fn claim(route: PublisherSet) -> Claim {
        let entry = RawEntry::new(1, &Row { data: "{}".into(), ..Row::default() });
        let (id, history) = (EntryId::of(1, &Field::Null), History::default());
        let (stream, delivered) = (entry.stream_key(), PublisherSet::NONE);
        let known = Known { id, stream, history, tried_before: false, route, delivered, alone: false };
        Claim { known, entry }
    }

    fn both() -> PublisherSet {
        PublisherSet::one(0) | PublisherSet::one(2)
    }

    fn begun() -> (FanOuts, Vec<(usize, Job)>) {
        let mut fan_outs = FanOuts::default();
        let jobs = fan_outs.split(&Job { lane: LANE, claims: vec![claim(both())], legs: both(), alone: false });
        (fan_outs, jobs)
    }

    fn answer(job: &Job, leg: usize, outcome: Option<Outcome>) -> Finished {
        let mut answers = Answers::default();
        outcome.into_iter().for_each(|outcome| answers.add(leg, outcome.into()));
        let called = claim(both()).known.called(answers, || Timestamp::UNIX_EPOCH);
        Finished { lane: job.lane, legs: job.legs, calls: vec![called], rest: Some(Vec::new()) }
    }

    fn clock() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// The result when both have answered so; None for a call that was given up.
    fn result(first: Option<Outcome>, second: Option<Outcome>) -> Called {
        let (mut fan_outs, jobs) = begun();
        assert_eq!(
            jobs.iter().map(|(leg, job)| (*leg, job.legs)).collect::<Vec<_>>(),
            [(0, PublisherSet::one(0)), (2, PublisherSet::one(2))]
        );
        assert!(fan_outs.answered(answer(&jobs[1].1, 2, second), clock).is_none(), "the other is awaited");
        let finished = fan_outs.answered(answer(&jobs[0].1, 0, first), clock).unwrap();
        assert!(fan_outs.0.is_empty());
        assert_eq!(finished.rest, Some(vec![]));
        finished.calls.into_iter().next().unwrap()
    }

    fn retry() -> Outcome {
        Outcome::Retry { reason: "later".into(), after: None }
    }

    #[test]
    fn an_entry_is_delivered_when_all_have_it() {
        assert!(result(Some(Outcome::Delivered), Some(Outcome::Delivered)).failed.is_none());
    }

    #[test]
    fn who_has_it_is_known_when_another_fails() {
        let failed = result(Some(retry()), Some(Outcome::Delivered)).failed.unwrap();
        assert_eq!((failed.delivered, failed.in_part), (PublisherSet::one(2), true));
        assert_eq!(failed.attempt.unwrap().outcome, retry());
    }

    #[test]
    fn a_call_that_was_given_up_decides_nothing() {
        let failed = result(None, Some(Outcome::Delivered)).failed.unwrap();
        assert_eq!((failed.delivered, failed.attempt), (PublisherSet::one(2), None));
        let failed = result(None, Some(retry())).failed.unwrap();
        assert_eq!(failed.attempt.unwrap().outcome, retry(), "the other's failure counts");
    }

    /// One of them is paused meanwhile.
    #[test]
    fn what_one_has_waits_for_one_that_was_not_called() {
        let (mut fan_outs, jobs) = begun();
        assert!(fan_outs.answered(answer(&jobs[0].1, 0, Some(Outcome::Delivered)), clock).is_none());
        let finished = fan_outs.answered(Finished::untried(jobs[1].1.clone()), clock).unwrap();
        let failed = finished.calls.into_iter().next().unwrap().failed.unwrap();
        assert_eq!((failed.delivered, failed.in_part), (PublisherSet::one(0), true));
        assert_eq!(failed.attempt.unwrap().outcome.name(), "unavailable");
        assert!(failed.unavailable.is_empty(), "whoever was called is not to blame");
    }

    #[test]
    fn what_nobody_can_decode_is_reported_once() {
        let undecodable = || Outcome::Undecodable { reason: "no JSON".into() };
        let failed = result(Some(undecodable()), Some(undecodable())).failed.unwrap();
        assert_eq!((failed.attempt.unwrap().outcome, failed.others), (undecodable(), vec![]));
    }

    #[test]
    fn what_expired_before_its_last_publisher_was_called_is_told_once_and_for_good() {
        let expired = || Outcome::Expired { reason: "it expired".into() };
        let failed = result(Some(Outcome::Delivered), Some(expired())).failed.unwrap();
        assert_eq!((failed.delivered, failed.in_part), (PublisherSet::one(0), true));
        assert_eq!((failed.attempt.unwrap().outcome, failed.others), (expired(), vec![]));
        let called = result(Some(expired()), Some(expired()));
        assert!(called.available.is_empty(), "nobody was called");
        let failed = called.failed.unwrap();
        assert_eq!((failed.attempt.unwrap().outcome, failed.others), (expired(), vec![]));
        let failed = result(Some(retry()), Some(expired())).failed.unwrap();
        assert_eq!(failed.attempt.unwrap().outcome, retry(), "one asks for another try");
    }

    #[test]
    fn what_has_expired_waits_for_nobody_who_was_not_called() {
        let (mut fan_outs, jobs) = begun();
        let expired = || Outcome::Expired { reason: "it expired".into() };
        assert!(fan_outs.answered(answer(&jobs[0].1, 0, Some(expired())), clock).is_none());
        let finished = fan_outs.answered(Finished::untried(jobs[1].1.clone()), clock).unwrap();
        let failed = finished.calls.into_iter().next().unwrap().failed.unwrap();
        assert_eq!(failed.attempt.unwrap().outcome, expired());
    }

    #[test]
    fn what_nobody_has_begun_is_as_it_was() {
        let (mut fan_outs, jobs) = begun();
        let mut jobs = jobs.into_iter().map(|(_, job)| job);
        assert!(fan_outs.answered(Finished::untried(jobs.next().unwrap()), clock).is_none());
        let finished = fan_outs.answered(Finished::untried(jobs.next().unwrap()), clock).unwrap();
        assert_eq!((finished.calls.len(), finished.rest), (0, Some(vec![claim(both())])));
    }
}
