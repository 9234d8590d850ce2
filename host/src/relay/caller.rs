//! The calls: each caller takes a job, decodes its entries and has them published, one after the other.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::Receiver as Jobs;
use crossbeam_channel::Sender;
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::Message;
use super::lanes::{Claim, Job, LaneId};
use crate::outbox::{Lease, StorageError};
use crate::publisher::{Attempt, Outcome, Publisher};
use crate::publishers::{Legs, Publishers};
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
    pub(super) publishers: &'a Publishers<'a>,
    pub(super) serde: &'a dyn Serde,
    pub(super) lease: &'a dyn Lease,
    pub(super) jobs: &'a Jobs<Job>,
    /// Closed when the calls under way are to be given up.
    pub(super) given_up: &'a Jobs<()>,
    /// The publishers that a call has found unavailable, as the bits of [`Legs`]: no job for them that is queued behind it
    /// is begun.
    pub(super) left_alone: &'a AtomicU64,
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
    /// The publishers that have it, those from earlier attempts included.
    pub(super) delivered: Legs,
    /// Whether it was delivered to one of them only now, and not to all.
    pub(super) in_part: bool,
    /// What the publisher answered that decides what becomes of the entry. None when the call was given up.
    pub(super) attempt: Option<Attempt>,
    /// The publishers that answered with anything but that they are unavailable.
    pub(super) available: Legs,
    /// The publishers that said that they are unavailable, with what they said.
    pub(super) unavailable: Vec<(usize, Attempt)>,
    /// What other publishers answered that failed.
    pub(super) others: Vec<Attempt>,
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
        if job.legs.meets(Legs::of_bits(self.left_alone.load(Ordering::Acquire))) {
            return Finished { lane: job.lane, calls: Vec::new(), rest: Some(job.claims) };
        }
        let same = |leg: &usize| job.claims.iter().all(|claim| claim.legs() == Legs::one(*leg));
        let only = job.legs.only().filter(|_| job.claims.len() > 1).filter(same);
        let takes_batches = |publisher: &&dyn Publisher| publisher.max_batch() > 1;
        let finished = match only.and_then(|leg| Some((leg, self.publishers.publisher(leg).filter(takes_batches)?))) {
            Some((leg, publisher)) => self.publish_batch(slot, job, leg, publisher, told).await,
            None => self.publish_in_turn(slot, job, told).await,
        };
        for (leg, _) in finished.calls.iter().flat_map(|called| &called.unavailable) {
            self.left_alone.fetch_or(Legs::one(*leg).bits(), Ordering::Release);
        }
        finished
    }

    /// Publishes the entries of a job in turn, up to the first that fails.
    async fn publish_in_turn(&self, slot: usize, job: Job, told: &mut Vec<Finished>) -> Finished {
        let mut calls = Vec::with_capacity(job.claims.len());
        let mut claims = job.claims.into_iter();
        for claim in claims.by_ref() {
            let (position, facts) = (claim.entry.position, Facts::of(&claim));
            let called = match claim.decode(self.serde) {
                Ok(event) => {
                    self.lease.mark(slot, &[position]);
                    let mut waits = || {
                        if !calls.is_empty() {
                            told.push(Finished { lane: job.lane, calls: std::mem::take(&mut calls), rest: None });
                        }
                        self.tell(told);
                    };
                    match facts.legs.only().and_then(|leg| Some((leg, self.publishers.publisher(leg)?))) {
                        Some((leg, publisher)) => {
                            let call = async { publisher.publish(&event).await };
                            let answer = self.unless_given_up(call, &mut waits).await;
                            let mut called = facts.called(None, (self.clock)());
                            answer.into_iter().for_each(|attempt| called.answered(leg, self.named(leg, attempt)));
                            called
                        }
                        None => self.publish_to_each(&event, facts, &mut waits).await,
                    }
                }
                Err(undecodable) => facts.called(Some(undecodable.into()), (self.clock)()),
            };
            let failed = called.attempt.as_ref().is_none_or(|attempt| attempt.outcome != Outcome::Delivered);
            calls.push(called);
            // Once the relay is to stop, nothing new is begun.
            if failed || self.jobs.is_closed() {
                break;
            }
        }
        Finished { lane: job.lane, calls, rest: Some(claims.collect()) }
    }

    /// Calls each publisher that has not got the event yet. That one fails keeps no other from it.
    async fn publish_to_each(&self, event: &Recorded, facts: Facts, waits: &mut impl FnMut()) -> Called {
        let Facts { route, legs, .. } = facts;
        if legs.is_empty() {
            // Of those that it was to go to, all have it; or there was none from the start.
            let outcome = if route.is_empty() { unrouted(event) } else { Outcome::Delivered };
            return facts.called(Some(outcome.into()), (self.clock)());
        }
        let mut called = facts.called(None, (self.clock)());
        for leg in legs.iter() {
            let Some(publisher) = self.publishers.publisher(leg) else { continue };
            let answer = self.unless_given_up(async { publisher.publish(event).await }, &mut *waits).await;
            let Some(attempt) = answer else {
                // Whatever was answered before counts for nothing but its deliveries.
                called.attempt = None;
                break;
            };
            called.answered(leg, self.named(leg, attempt));
        }
        called.in_part = called.delivered != facts.delivered
            && called.attempt.as_ref().is_none_or(|attempt| attempt.outcome != Outcome::Delivered);
        called.at = (self.clock)();
        called
    }

    /// Publishes the entries of a job with one call. An entry that cannot be decoded ends the batch before it.
    async fn publish_batch(
        &self,
        slot: usize,
        job: Job,
        leg: usize,
        publisher: &dyn Publisher,
        told: &mut Vec<Finished>,
    ) -> Finished {
        let mut claims = job.claims.into_iter();
        let (mut known, mut events, mut undecodable) = (Vec::new(), Vec::new(), None);
        for claim in claims.by_ref().take(publisher.max_batch()) {
            let facts = Facts::of(&claim);
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
        let positions: Vec<i64> = known.iter().map(|facts| facts.position).collect();
        let waits = || self.tell(told);
        let attempts = match events.as_slice() {
            [] => Some(Vec::new()),
            [event] => {
                self.lease.mark(slot, &positions);
                let call = async { publisher.publish(event).await };
                self.unless_given_up(call, waits).await.map(|attempt| vec![attempt])
            }
            events => {
                self.lease.mark(slot, &positions);
                self.unless_given_up(async { publisher.publish_batch(events).await }, waits).await
            }
        };
        let at = (self.clock)();
        let mut attempts = attempts.map(Vec::into_iter);
        let mut calls: Vec<Called> = known
            .into_iter()
            .map(|facts| {
                let mut called = facts.called(None, at);
                if let Some(attempts) = &mut attempts {
                    called.answered(leg, self.named(leg, attempts.next().unwrap_or_else(miscounted)));
                }
                called
            })
            .collect();
        calls.extend(undecodable.map(|(facts, attempt)| facts.called(Some(attempt), at)));
        Finished { lane: job.lane, calls, rest: Some(claims.collect()) }
    }

    /// The attempt with its publisher's name, where publishers have names here.
    fn named(&self, leg: usize, mut attempt: Attempt) -> Attempt {
        if attempt.outcome != Outcome::Delivered
            && let Some(name) = self.publishers.name(leg)
        {
            attempt.publisher = Some(name.clone());
        }
        attempt
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

/// What is known of an entry beside its event.
#[derive(Clone, Copy)]
struct Facts {
    position: i64,
    history: History,
    tried_before: bool,
    route: Legs,
    delivered: Legs,
    legs: Legs,
}

impl Facts {
    fn of(claim: &Claim) -> Self {
        let Claim { ref entry, history, tried_before, route, delivered } = *claim;
        Self { position: entry.position, history, tried_before, route, delivered, legs: claim.legs() }
    }

    fn called(self, attempt: Option<Attempt>, at: Timestamp) -> Called {
        let Self { position, history, tried_before, delivered, .. } = self;
        Called {
            position,
            history,
            tried_before,
            delivered,
            in_part: false,
            attempt,
            available: Legs::NONE,
            unavailable: Vec::new(),
            others: Vec::new(),
            at,
        }
    }
}

impl Called {
    /// Takes in what one publisher answered: of several answers the one that decides is that which leaves most open.
    fn answered(&mut self, leg: usize, attempt: Attempt) {
        match &attempt.outcome {
            Outcome::Delivered => self.delivered = self.delivered | Legs::one(leg),
            Outcome::Unavailable { .. } => self.unavailable.push((leg, attempt.clone())),
            _ => {}
        }
        if !matches!(attempt.outcome, Outcome::Unavailable { .. }) {
            self.available = self.available | Legs::one(leg);
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
