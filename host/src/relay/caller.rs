//! The calls: each caller takes a job, decodes its entries and has them published, one after the other.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use async_channel::Receiver as Jobs;
use crossbeam_channel::Sender;
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::Message;
use super::lanes::{Claim, Job, LaneId};
use crate::outbox::{Lease, StorageError};
use crate::publisher::{Attempt, Outcome, Publisher};
use crate::recorded::Recorded;
use crate::serde::Serde;
use crate::settlement::History;

/// How many entries a caller may publish before the others of its thread have a turn.
const TURN: usize = 128;
/// How many results are told at once, at the most: each telling may have to wake somebody.
const TELL_MAX: usize = 64;

/// What all callers share.
#[derive(Clone, Copy)]
pub(super) struct Calls<'a> {
    pub(super) publisher: &'a dyn Publisher,
    pub(super) serde: &'a dyn Serde,
    pub(super) lease: &'a dyn Lease,
    pub(super) jobs: &'a Jobs<Job>,
    /// Closed when the calls under way are to be given up.
    pub(super) given_up: &'a Jobs<()>,
    /// Set by the call that finds the publisher unavailable: no job that is queued behind it is begun.
    pub(super) left_alone: &'a AtomicBool,
    pub(super) results: &'a Sender<Message>,
    pub(super) clock: fn() -> Timestamp,
}

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
    pub(super) position: i64,
    pub(super) history: History,
    pub(super) tried_before: bool,
    /// None when the call was given up.
    pub(super) attempt: Option<Attempt>,
    pub(super) at: Timestamp,
}

/// How `callers` callers are spread over threads: the first slot and the number of each. More threads than processors
/// gain nothing, and one processor is left to the database.
pub(super) fn shares(callers: usize) -> Vec<(usize, usize)> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let callers = callers.max(1);
    let threads = callers.min(processors.saturating_sub(1).clamp(1, 8));
    let share = |thread: usize| callers / threads + usize::from(thread < callers % threads);
    (0..threads).map(|thread| ((0..thread).map(share).sum(), share(thread))).collect()
}

/// Runs `callers` callers on this thread, the first of which has the slot `first_slot`, until there are no more jobs.
pub(super) fn run(calls: Calls<'_>, first_slot: usize, callers: usize) {
    let called = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(join_all((first_slot..first_slot + callers).map(|slot| calls.call(slot))));
        std::io::Result::Ok(())
    }));
    let cause = match called {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.into(),
        Err(panic) => panic_text(panic.as_ref()).into(),
    };
    // Nobody would hear of the jobs that this thread had: the session begins anew.
    let _ = calls.results.send(Message::Broken(StorageError::Other { doing: "call the publisher", cause }));
}

impl Calls<'_> {
    async fn call(self, slot: usize) {
        let mut told = Vec::new();
        let mut published = 0;
        loop {
            let job = match self.jobs.try_recv() {
                Ok(job) => job,
                Err(_) => {
                    // First of all: once told, another entry may be published alone, and has to be seen to be alone.
                    self.lease.mark(slot, &[]);
                    self.tell(&mut told);
                    let Ok(job) = self.jobs.recv().await else { return };
                    job
                }
            };
            published += job.claims.len();
            let finished = self.publish(slot, job, &mut told).await;
            told.push(finished);
            if told.len() >= TELL_MAX || published >= TURN {
                self.tell(&mut told);
            }
            if published >= TURN {
                published = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn tell(&self, told: &mut Vec<Finished>) {
        if !told.is_empty() {
            // Nobody listens only where the relay has ended in an error: its entries are still there.
            let _ = self.results.send(Message::Finished(std::mem::take(told)));
        }
    }

    async fn publish(&self, slot: usize, job: Job, told: &mut Vec<Finished>) -> Finished {
        if self.left_alone.load(Ordering::Acquire) {
            return Finished { lane: job.lane, calls: Vec::new(), rest: Some(job.claims) };
        }
        let batch = self.publisher.max_batch() > 1 && job.claims.len() > 1;
        let finished = match batch {
            true => self.publish_batch(slot, job, told).await,
            false => self.publish_in_turn(slot, job, told).await,
        };
        if finished.calls.iter().any(Called::was_unavailable) {
            self.left_alone.store(true, Ordering::Release);
        }
        finished
    }

    /// Publishes the entries of a job in turn, up to the first that fails.
    async fn publish_in_turn(&self, slot: usize, job: Job, told: &mut Vec<Finished>) -> Finished {
        let mut calls = Vec::with_capacity(job.claims.len());
        let mut claims = job.claims.into_iter();
        for claim in claims.by_ref() {
            let (position, history, tried_before) = (claim.entry.position, claim.history, claim.tried_before);
            let attempt = match claim.decode(self.serde) {
                Ok(event) => {
                    self.lease.mark(slot, &[position]);
                    let waits = || {
                        if !calls.is_empty() {
                            told.push(Finished { lane: job.lane, calls: std::mem::take(&mut calls), rest: None });
                        }
                        self.tell(told);
                    };
                    self.unless_given_up(async { self.publisher.publish(&event).await }, waits).await
                }
                Err(undecodable) => Some(undecodable.into()),
            };
            let failed = attempt.as_ref().is_none_or(|attempt| attempt.outcome != Outcome::Delivered);
            calls.push(Called { position, history, tried_before, attempt, at: (self.clock)() });
            // Once the relay is to stop, nothing new is begun.
            if failed || self.jobs.is_closed() {
                break;
            }
        }
        Finished { lane: job.lane, calls, rest: Some(claims.collect()) }
    }

    /// Publishes the entries of a job with one call. An entry that cannot be decoded ends the batch before it.
    async fn publish_batch(&self, slot: usize, job: Job, told: &mut Vec<Finished>) -> Finished {
        let mut claims = job.claims.into_iter();
        let (mut known, mut events, mut undecodable) = (Vec::new(), Vec::new(), None);
        for claim in claims.by_ref().take(self.publisher.max_batch()) {
            let facts = (claim.entry.position, claim.history, claim.tried_before);
            match claim.decode(self.serde) {
                Ok(event) => {
                    known.push(facts);
                    events.push(event);
                }
                Err(attempt) => {
                    undecodable = Some((facts, Attempt::from(attempt)));
                    break;
                }
            }
        }
        let positions: Vec<i64> = known.iter().map(|(position, ..)| *position).collect();
        let waits = || self.tell(told);
        let attempts = match events.as_slice() {
            [] => Some(Vec::new()),
            [event] => {
                self.lease.mark(slot, &positions);
                let call = async { self.publisher.publish(event).await };
                self.unless_given_up(call, waits).await.map(|attempt| vec![attempt])
            }
            events => {
                self.lease.mark(slot, &positions);
                self.unless_given_up(async { self.publisher.publish_batch(events).await }, waits).await
            }
        };
        let at = (self.clock)();
        let mut attempts = attempts.map(Vec::into_iter);
        let mut calls: Vec<Called> = known
            .into_iter()
            .map(|(position, history, tried_before)| {
                let attempt = attempts.as_mut().map(|attempts| attempts.next().unwrap_or_else(miscounted));
                Called { position, history, tried_before, attempt, at }
            })
            .collect();
        if let Some(((position, history, tried_before), attempt)) = undecodable {
            let attempt = Some(attempt);
            calls.push(Called { position, history, tried_before, attempt, at });
        }
        Finished { lane: job.lane, calls, rest: Some(claims.collect()) }
    }

    /// What the call comes to; none when it is given up. A panic of a native publisher's is an outcome like others.
    ///
    /// `waits` is called when the call is not done at once. Whatever was delivered by then has to be told first: it would
    /// be committed, and its lane go on, only after a call that may take long, and a crash would bring it again.
    async fn unless_given_up<T: FromPanic>(&self, call: impl Future<Output = T>, waits: impl FnOnce()) -> Option<T> {
        let mut call = std::pin::pin!(AssertUnwindSafe(call).catch_unwind());
        // Most calls are done at once.
        if let Some(done) = call.as_mut().now_or_never() {
            return Some(done.unwrap_or_else(|panic| T::from_panic(&panic_text(panic.as_ref()))));
        }
        waits();
        tokio::select! {
            done = call => Some(done.unwrap_or_else(|panic| T::from_panic(&panic_text(panic.as_ref())))),
            _ = self.given_up.recv() => None,
        }
    }
}

impl Called {
    fn was_unavailable(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| matches!(attempt.outcome, Outcome::Unavailable { .. }))
    }
}

impl Claim {
    fn decode(self, serde: &dyn Serde) -> Result<Recorded, Outcome> {
        self.entry.decode(self.history.attempts.saturating_add(1), serde).map_err(Outcome::from)
    }
}

trait FromPanic {
    fn from_panic(text: &str) -> Self;
}

impl FromPanic for Attempt {
    fn from_panic(text: &str) -> Self {
        Outcome::Trapped { reason: format!("the publisher panicked: {text}") }.into()
    }
}

/// Empty, so that each event of the batch gets the same.
impl FromPanic for Vec<Attempt> {
    fn from_panic(_: &str) -> Self {
        Vec::new()
    }
}

fn miscounted() -> Attempt {
    Outcome::Trapped { reason: "the publisher gave no answer for this event of a batch".into() }.into()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
