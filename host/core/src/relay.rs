//! The way of an entry, from the outbox to its destination and out of the outbox.
//!
//! Four stages work side by side. This file is the first stage and the centre: it *reads* entries, and *claims* each
//! entry as soon as no earlier one of its stream is in the way. The *callers* ([`caller`]) decode and publish the
//! claimed entries. The results come back here, where each entry is *settled*. The *acker* ([`acker`]) commits settled
//! entries, a group at a time, and the *syncer* ([`syncer`]) makes the commits durable. Nothing is published while a
//! transaction is open, and nothing is reported before it is durable.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select, unbounded};
use tracing::Level;

use crate::outbox::StorageError;
use crate::publishers::Publishers;
use crate::text::shown;

use self::acker::{Acker, Patience};
use self::batch::BatchLimits;
use self::breakers::Admission;
use self::caller::{Calls, To};
use self::channels::{Channels, Message, spawn};
use self::commit::GROUP_AGE_MAX;
use self::job::{Job, Load};
use self::log::{Line, Log};
use self::queue::JobQueue;
use self::session::{LOOK_AGAIN, ORDERS_MAX, Session, UNACKED_MAX};
use self::stop::StopLevel;

mod acker;
mod answers;
mod batch;
mod breaker;
mod breakers;
mod bucket;
mod bulkheads;
mod caller;
mod channels;
mod commit;
mod condition;
mod delays;
mod dropping;
mod failure_rate;
mod failures;
mod fan_out;
#[cfg(test)]
mod faulty;
mod give_back;
mod group;
mod job;
mod lanes;
mod log;
mod maintenance;
mod options;
mod panics;
mod prune;
mod queue;
mod reader;
mod recovery;
mod report;
mod second_look;
mod session;
mod settle;
mod shutdown;
mod stop;
mod syncer;
mod unsettled;

pub use self::options::{FairBy, OnDeadLetter, Ordering, RelayOptions, TENANT_WEIGHT_MAX};
pub use self::report::{FAILURES_MAX, Failure, Report, Then};
pub(crate) use self::session::RelayContext;
pub use self::stop::{Stop, Stopping, stop};

/// How often a standby tries to take over.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);

/// One pass: every entry that is due now is tried once, at most `limit` of them.
pub(crate) fn pass(context: RelayContext<'_>, limit: usize) -> Result<Report, StorageError> {
    let drain = context.strategy.drain()?;
    let (_stop, stopping) = stop();
    let mut log = Log::default();
    let session = Session::new(context, drain.as_ref(), Some(limit), &mut log)?;
    let (report, ended) = session.run(&stopping);
    ended.map(|()| report)
}

/// Publishes until it is stopped. While another relay drains the outbox, it stands by. If the database disappears, it
/// waits until the database is back.
pub(crate) fn relay(context: RelayContext<'_>, stopping: &Stopping) -> Result<Report, StorageError> {
    let (mut total, mut log) = (Report::default(), Log::default());
    let mut standing_by = false;
    let mut worked = false;
    while stopping.level() == StopLevel::Go {
        let drained = context.strategy.drain().and_then(|drain| {
            let session = Session::new(context, drain.as_ref(), None, &mut log)?;
            session.log.line(Line::new(Level::INFO, "publishing"), Instant::now());
            (standing_by, worked) = (false, true);
            let (report, ended) = session.run(stopping);
            total.add(report);
            ended
        });
        match drained {
            Ok(()) => {}
            Err(error) if error.is_leased() => {
                if !std::mem::replace(&mut standing_by, true) {
                    tracing::info!("standing by: {}", shown(&error));
                }
                stopping.wait(STANDBY_PAUSE);
            }
            // It worked before, so the database will come back.
            Err(error) if worked || error.is_passing() => {
                let line = Line::new(Level::ERROR, format!("{error}: waiting until it is mended"));
                log.line(line, Instant::now());
                stopping.wait(LOOK_AGAIN * 5);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// Whom to call: each publisher, and nobody for what needs no call.
fn tos<'a>(publishers: &'a Publishers<'a>) -> Vec<Option<To<'a>>> {
    let members = publishers.iter().map(|(leg, publisher)| Some(To { leg, name: publishers.name(leg), publisher }));
    members.chain([None]).collect()
}

impl<'a> Session<'a> {
    /// Starts the other stages, and works until there is nothing left to do, or the relay is stopped.
    fn run(mut self, stopping: &Stopping) -> (Report, Result<(), StorageError>) {
        let (message, inbox) = unbounded();
        // The last one is for what needs no call.
        let jobs: Vec<JobQueue> = (0..=self.context.publishers.len()).map(|_| JobQueue::new()).collect();
        let taken: Vec<_> = jobs.iter().map(|queue| queue.taken.clone()).collect();
        let (order, orders) = bounded(ORDERS_MAX);
        let (committed, to_sync) = unbounded();
        let (give_up_calls, calls_given_up) = async_channel::bounded(1);
        let (give_up, all_given_up) = bounded(0);
        let channels = Channels { inbox, jobs, orders: order, give_up_calls, _give_up: give_up };
        let RelayContext { publishers, serde, strategy, clock, .. } = self.context;
        let (drain, context) = (self.drain, self.context);
        if let Err(error) = maintenance::begin(context, self.limit.is_some(), stopping) {
            return (self.report, Err(error));
        }
        let (results, calls_given_up, left_alone) = (&message, &calls_given_up, &*self.breakers.left_alone());
        let (members, taken, concurrency) = (tos(publishers), &taken, self.context.options.concurrency);
        let (orders, given_up) = (&orders, &all_given_up);
        let parks = context.options.on_dead_letter == OnDeadLetter::Park;
        let patience = Patience { give_up: given_up, in_pass: self.limit.is_some(), results };
        let acker = Acker { operator: strategy.operator(), drain, clock, patience, committed };
        let session = &mut self;
        let ended = thread::scope(move |scope| {
            // However this ends, the channels are dropped with it, and the threads end.
            let channels = channels;
            let mut slots = 0;
            for (publisher, jobs) in members.into_iter().zip(taken) {
                let (given_up, batches) =
                    (calls_given_up, publisher.map_or(BatchLimits::NONE, |to| session.batch_limits(to.leg)));
                let calls =
                    Calls { publisher, serde, drain, jobs, given_up, left_alone, results, clock, batches, parks };
                let own =
                    publisher.map_or(Some(1), |to| publishers.options(to.leg)?.concurrency).unwrap_or(concurrency);
                for (first_slot, share) in caller::shares(own, publishers.len()) {
                    let first_slot = slots + first_slot;
                    spawn(scope, results, "outbox-caller", move || caller::run(calls, first_slot, share))?;
                }
                slots += own.max(1);
            }
            spawn(scope, results, "outbox-acker", move || acker.run(orders))?;
            spawn(scope, results, "outbox-sync", move || syncer::run(drain, &to_sync, patience))?;
            if session.limit.is_none() {
                let mut watch = strategy.watch()?;
                let (change, changes) = bounded(1);
                spawn(scope, results, "outbox-watch", move || {
                    while given_up.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                        if watch.wait(LOOK_AGAIN / 2) {
                            let _ = results.send(Message::Changed);
                            let _ = change.try_send(());
                        }
                    }
                })?;
                spawn(scope, results, "outbox-maintain", move || maintenance::run(context, &changes, results))?;
            }
            let worked = session.work(&channels, stopping);
            session.shut_down(&channels, stopping);
            worked
        });
        let ended = ended.and_then(|()| self.unsettled.error().filter(|_| self.limit.is_some()).map_or(Ok(()), Err));
        // The relay itself has cut off the calls that are still marked; their events are not to blame.
        self.drain.clear();
        maintenance::end(context);
        (self.report, ended)
    }

    /// How much a call of this publisher may have. In total order one entry: a publisher goes on behind a failure of another
    /// stream. In a pass, nothing comes that is not there.
    fn batch_limits(&self, leg: usize) -> BatchLimits {
        let is_total = self.context.options.ordering == Ordering::Total;
        let options = Some(leg).filter(|_| !is_total).and_then(|leg| self.context.publishers.options(leg));
        let limits = options.map_or(BatchLimits::NONE, |options| BatchLimits::new(options, self.bulkheads.part()));
        if self.limit.is_some() { limits.at_once() } else { limits }
    }

    /// The loop. Each turn takes in what has happened, and starts what may start.
    fn work(&mut self, channels: &Channels, stopping: &Stopping) -> Result<(), StorageError> {
        while stopping.level() == StopLevel::Go {
            channels.inbox.try_iter().for_each(|message| self.take_in(message));
            if let Some(lost) = self.lost.take() {
                return Err(lost);
            }
            let now = Instant::now();
            self.log.say_overdue(now);
            self.wake_delayed(now);
            let may_be_more = self.read(now)?;
            self.claim(channels, now);
            self.commit_what_is_settled(channels, now);
            self.try_again_what_was_refused(channels, now);
            self.bring_back(channels, now);
            self.show_whether_parked();
            self.show_whether_too_many_wait();
            self.show_publishers(now);
            if may_be_more || self.may_read_on() {
                continue;
            }
            if self.is_done() {
                return Ok(());
            }
            self.prune_when_due(channels, now);
            select! {
                recv(channels.inbox) -> message => message.into_iter().for_each(|message| self.take_in(message)),
                recv(stopping.woken()) -> _ => {}
                default(self.patience(now)) => self.drain.check()?,
            }
        }
        Ok(())
    }

    /// How long to wait for messages: then there is something else to do.
    fn patience(&self, now: Instant) -> Duration {
        let due = self.lanes.next_due().filter(|_| self.limit.is_none());
        let group = self.group.since.filter(|_| self.orders_out < ORDERS_MAX).map(|since| since + GROUP_AGE_MAX);
        let look_back = self.drain.look_back_at().filter(|_| self.limit.is_none() && self.room() > 0);
        let again = self.unsettled.wake_at().filter(|_| self.orders_out < ORDERS_MAX);
        let own = [due, group, look_back, again, self.reconcile_at, self.log.next(), self.delayed_wake_at(now)];
        let times = own.into_iter().chain([
            self.breakers.wake_at(),
            self.bulkheads.wake_at(),
            self.lanes.next_token_at().filter(|_| self.may_claim(now)),
            self.lanes.shares_wake_at(),
            self.read_again_at,
            self.prune_at,
        ]);
        let next = times.flatten().min();
        next.map_or(LOOK_AGAIN, |next| {
            next.saturating_duration_since(now).clamp(Duration::from_micros(100), LOOK_AGAIN)
        })
    }

    /// Whether a pass is over: nothing more may be read, and all that was tried is settled.
    fn is_done(&self) -> bool {
        let refuses_all = self.refuses_all(self.admission(Instant::now()));
        let nothing_to_read = !self.has_to_bring_back() || self.room() == 0;
        let nothing_to_publish = refuses_all || (self.lanes.in_memory().entries == 0 && nothing_to_read);
        let nothing_under_way = self.lanes.running() == 0 && self.lanes.unacked() == 0 && self.orders_out == 0;
        self.limit.is_some() && nothing_to_publish && nothing_under_way
    }

    /// Hands over every job that may be published now.
    fn claim(&mut self, channels: &Channels, now: Instant) {
        if !self.may_claim(now) {
            return;
        }
        self.take_in_batches();
        let mut admission = self.admission(now).without(self.give_back.legs());
        while let Some(job) = self.lanes.next_job(admission, now) {
            let probed = job.legs.both(admission.probed);
            if !probed.is_empty() {
                self.breakers.probe(probed);
                self.show_publishers(now);
                admission = admission.without(probed);
            }
            self.hand_over(channels, job);
        }
        let (full, bulkheads, lanes) = (self.full(), &self.bulkheads, &mut self.lanes);
        let loads: Vec<Load> = (0..self.context.publishers.len()).map(|leg| lanes.load(leg)).collect();
        let room = |leg: usize| loads.get(leg).map_or(0, |load| bulkheads.room(*load));
        lanes.admit(admission, full, room);
    }

    /// If tenants have turns, takes in how many entries a call of each publisher may have: that depends on the version that
    /// publishes.
    fn take_in_batches(&mut self) {
        if self.has_turns {
            let calls = self.context.publishers.iter();
            let calls = calls.map(|(leg, it)| self.batch_limits(leg).of_publisher(it.max_batch()).entries());
            let calls: Vec<usize> = calls.collect();
            self.lanes.set_calls(|leg| calls.get(leg).copied().unwrap_or(1));
        }
    }

    /// Whether anything may be handed over now. If every publisher is blocked, the queues are kept: dropping them helps
    /// nobody.
    fn may_claim(&self, now: Instant) -> bool {
        self.lanes.unacked() < UNACKED_MAX && !self.refuses_all(self.admission(now))
    }

    /// Hands a job to the callers of its publisher; if there are several, to those of each, side by side.
    fn hand_over(&mut self, channels: &Channels, job: Job) {
        // A queue has no bound of its own, and is closed only at the end.
        let send = |queue: Option<&JobQueue>, job| _ = queue.map(|queue| queue.send(job));
        match job.legs.len() {
            0 => send(channels.jobs.last(), job),
            1 => send(job.legs.only().and_then(|leg| channels.jobs.get(leg)), job),
            _ => self.fan_outs.split(&job).into_iter().for_each(|(leg, job)| send(channels.jobs.get(leg), job)),
        }
    }

    fn admission(&self, now: Instant) -> Admission {
        self.breakers.admission(now, self.limit.is_some(), |leg| self.lanes.is_running_for(leg))
    }

    fn refuses_all(&self, admission: Admission) -> bool {
        !admission.refused.is_empty() && admission.refused == self.context.publishers.all()
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Changed => self.changed(),
            Message::TriedAgain { settled, refused } => self.tried_again(settled, refused),
            Message::Finished(jobs) => jobs.into_iter().for_each(|job| self.settle_job(job)),
            Message::CallFailed { events, attempt } => self.note_failed_call(events, &attempt),
            Message::Committed(group) => self.committed(group),
            Message::NotCommitted(error) => self.degraded(&error),
            Message::GaveUp => self.orders_out -= 1,
            Message::Lost(error) => {
                self.orders_out -= 1;
                self.lost = Some(error);
            }
            Message::Broken(error) => {
                self.broken = true;
                self.lost = Some(error);
            }
            Message::BroughtBack(result) => self.brought_back(result),
            Message::Pruned(pruned) => self.pruned(pruned),
            Message::Maintenance(leg, maintenance) => self.maintenance(leg, maintenance),
        }
    }

    /// Takes in that somebody committed something, or removed what was settled.
    fn changed(&mut self) {
        self.may_have_been_operated = true;
        self.found = None;
        self.drain.changed(self.lanes.is_empty());
    }
}
