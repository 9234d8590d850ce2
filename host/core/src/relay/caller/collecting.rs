//! Collects jobs of many lanes for one call, if the publisher takes batches.

use super::{Caller, Calls, Finished, Job, Known, LaneId, Message, To, Turn, UnderWay};
use crate::attempt::{Attempt, Outcome};
use crate::relay::batch::{Answer, Batch, BatchLimits, Collected, Settle, failure_of_the_call};
use crate::relay::lanes::JOB_MAX;

impl<'a> Caller<'a> {
    /// How much its call may have, if this job may share one.
    pub(super) fn batch_limits(&self, job: &Job) -> Option<(To<'a>, BatchLimits)> {
        let to = self.calls.publisher.filter(|_| !job.alone && !self.calls.batches.is_one())?;
        let limits = self.calls.batches.of_publisher(to.publisher.max_batch());
        (!limits.is_one()).then_some((to, limits))
    }

    /// Takes more jobs for the call of this one: those that are there, and those that come soon. What has a full job in it
    /// is a backlog, and waits for nothing.
    pub(super) async fn collect(&self, job: Job, limits: BatchLimits, _turn: Option<Turn<'a>>) -> Collected {
        let jobs = self.calls.jobs;
        let waits = !limits.wait.is_zero() && job.claims.len() < JOB_MAX;
        let until = tokio::time::Instant::now() + limits.wait;
        let mut collected = Collected::new(job, limits);
        while !collected.is_full()
            && let Some(job) = jobs.try_shared()
        {
            collected.add(job);
        }
        while waits
            && !collected.is_full()
            && let Ok(Some(job)) = tokio::time::timeout_at(until, jobs.next_shared()).await
        {
            collected.add(job);
        }
        collected
    }

    /// Publishes what was collected with one call, and returns how many entries that were.
    pub(super) async fn publish_collected(&mut self, collected: Collected, to: To<'_>) -> usize {
        let entries = collected.entries();
        self.marked_all = false;
        if self.begins_nothing() {
            self.told.extend(collected.untried());
            return entries;
        }
        let finished = match collected.only() {
            Ok(job) => vec![self.publish_in_turn(job, to).await],
            Err(collected) => {
                let Calls { serde, clock, .. } = self.calls;
                self.publish_batch(Batch::of(collected, serde, clock), to).await
            }
        };
        finished.iter().for_each(|finished| self.leave_alone_if_unavailable(&finished.calls, to));
        for finished in finished {
            let finished = self.put_back_if_shared(finished);
            self.told.extend(finished);
        }
        entries
    }

    /// An entry that other publishers are called for too, and that this one has no answer for yet, is called again at once:
    /// otherwise the result of all of them would be that this one was not called.
    fn put_back_if_shared(&self, finished: Finished) -> Option<Finished> {
        let claim = finished.rest.as_ref().and_then(|rest| rest.first()).filter(|_| finished.calls.is_empty());
        let Some(alone) = claim.filter(|claim| claim.known.legs().len() > 1).map(|claim| claim.known.alone) else {
            return Some(finished);
        };
        let Finished { lane, legs, rest, .. } = finished;
        let job = Job { lane, legs, claims: rest.unwrap_or_default(), alone };
        self.calls.jobs.put_back(job).err().map(Finished::untried)
    }

    async fn publish_batch(&mut self, batch: Batch, to: To<'_>) -> Vec<Finished> {
        let positions = batch.positions();
        // Nothing was reported before, of no lane.
        let under_way = UnderWay { lane: LaneId(0), positions: &positions, calls: &mut Vec::new() };
        let attempts = match batch.events.as_slice() {
            [] => Some(Vec::new()),
            [event] => {
                let attempt = self.call(under_way, async { to.publisher.publish(event).await }).await;
                attempt.map(|attempt| vec![attempt])
            }
            events => self.call(under_way, async { to.publisher.publish_batch(events).await }).await,
        };
        let answers = answers(attempts, positions.len());
        if let Some(attempt) = failure_of_the_call(&answers) {
            let (events, attempt) = (positions.len(), to.signed(attempt.clone()));
            let _ = self.calls.results.send(Message::CallFailed { events, attempt });
        }
        let (called, clock) = (|known, answer| self.answered(known, to, answer), self.calls.clock);
        let not_called = |known: Known, outcome| known.not_called(outcome, clock());
        let settle = Settle { leg: to.leg, called: &called, not_called: &not_called, parks: self.calls.parks };
        batch.finished(answers, &settle)
    }
}

/// An answer for each event. None if the call was given up. If there is another number of them, nobody knows which belongs
/// to which event.
fn answers(attempts: Option<Vec<Attempt>>, events: usize) -> Vec<Answer> {
    let Some(attempts) = attempts else { return vec![None; events] };
    let given = attempts.len();
    if given == events {
        return attempts.into_iter().map(Some).collect();
    }
    let reason = format!("the publisher gave {given} answers for {events} events");
    vec![Some(Outcome::Trapped { reason }.into()); events]
}
