//! The way of an entry, from the outbox to its destination and out of the outbox.
//!
//! Four stages work side by side. This file is the first and the centre: it *reads* entries and *claims* them, each
//! when nothing before it in its stream is in the way. The *callers* ([`caller`]) decode and publish them. What became
//! of each comes back here to be *settled*; the *acker* ([`acker`]) commits that, a group at a time, and the *syncer*
//! ([`syncer`]) makes it durable. Nothing is published while a transaction is open, and nothing is reported before it is
//! durable.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select, unbounded};
use jiff::Timestamp;
use tracing::Level;

use crate::outbox::{Lease, OutboxStorageStrategy, RelayCondition, RelayState, StorageError};
use crate::publisher::Withdrawn;
use crate::publishers::Publishers;
use crate::serde::Serde;
use crate::text::shown;

use self::acker::{Acker, Group, Patience};
use self::breaker::{Admission, Breakers};
use self::caller::Calls;
use self::channels::{Channels, Message, spawn};
use self::commit::GROUP_AGE_MAX;
use self::lanes::Lanes;
use self::log::{Line, Log};
use self::reader::IN_MEMORY_MAX;
use self::stop::StopLevel;
use self::sweep::Sweep;
use self::unsettled::Unsettled;

mod acker;
mod answers;
mod breaker;
mod caller;
mod channels;
mod commit;
mod condition;
#[cfg(test)]
mod faulty;
mod job;
mod lanes;
mod log;
mod maintenance;
mod options;
mod prune;
mod reader;
mod recovery;
mod report;
mod second_look;
mod settle;
mod shutdown;
mod stop;
mod sweep;
mod syncer;
mod unsettled;

pub use self::options::{OnDeadLetter, Ordering, RelayOptions};
pub use self::report::{FAILURES_MAX, Failure, Report, Then};
pub use self::stop::{Stop, Stopping, stop};

/// The most settled entries whose commit is awaited: what a crash may bring again is bounded by it.
const UNACKED_MAX: usize = 4_096;
/// Orders that are not carried out yet: one that is being committed, one that is being synced, and the next.
const ORDERS_MAX: usize = 3;
/// How long to wait after a read that failed, and how often to look whether the database is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often a standby tries to take over.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);
/// What a relay works with.
#[derive(Clone, Copy)]
pub(crate) struct RelayContext<'a> {
    pub(crate) strategy: &'a dyn OutboxStorageStrategy,
    pub(crate) serde: &'a dyn Serde,
    pub(crate) publishers: &'a Publishers<'a>,
    pub(crate) options: &'a RelayOptions,
    pub(crate) clock: fn() -> Timestamp,
    /// A random number from 0 to 1.
    pub(crate) random: fn() -> f64,
}

/// One pass: every entry that is due now is tried once, at most `limit` of them.
pub(crate) fn pass(context: RelayContext<'_>, limit: usize) -> Result<Report, StorageError> {
    let lease = context.strategy.lease()?;
    let (_stop, stopping) = stop();
    let mut log = Log::default();
    let session = Session::new(context, lease.as_ref(), Some(limit), &mut log)?;
    let (report, ended) = session.run(&stopping);
    ended.map(|()| report)
}

/// Publishes until it is told to stop. While somebody else drains the outbox it stands by; when the database goes away
/// it waits for it to come back.
pub(crate) fn relay(context: RelayContext<'_>, stopping: &Stopping) -> Result<Report, StorageError> {
    let (mut total, mut log) = (Report::default(), Log::default());
    let mut standing_by = false;
    let mut worked = false;
    while stopping.level() == StopLevel::Go {
        let leased = context.strategy.lease().and_then(|lease| {
            let session = Session::new(context, lease.as_ref(), None, &mut log)?;
            session.log.line(Line::new(Level::INFO, "publishing"), Instant::now());
            (standing_by, worked) = (false, true);
            let (report, ended) = session.run(stopping);
            total.add(report);
            ended
        });
        match leased {
            Ok(()) => {}
            Err(error) if error.is_leased() => {
                if !std::mem::replace(&mut standing_by, true) {
                    tracing::info!("standing by: {}", shown(&error));
                }
                stopping.wait(STANDBY_PAUSE);
            }
            // What was there before will come back, or be put back.
            Err(error) if worked || error.is_passing() => {
                let line = Line::new(Level::ERROR, format!("{error}: waiting for it to be mended"));
                log.line(line, Instant::now());
                stopping.wait(LOOK_AGAIN * 5);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// The time during which one lease is held.
struct Session<'a> {
    context: RelayContext<'a>,
    lease: &'a dyn Lease,
    lanes: Lanes,
    breakers: Breakers,
    /// Everything below this position was read, or passed over.
    cursor: i64,
    /// Nothing is behind the cursor, as far as is known.
    at_end: bool,
    /// After a read that failed.
    read_again_at: Option<Instant>,
    /// How many more entries may be read; none where there is no limit.
    limit: Option<usize>,
    /// A pass tries only what was due when it began.
    began: Instant,
    /// The settled entries that are not with the acker yet.
    group: Group,
    orders_out: usize,
    sweep: Sweep,
    /// When the watchdog found entries that nobody had told of, and how many, and the position of the first.
    found: Option<(Instant, usize, i64)>,
    unsettled: Unsettled,
    generation: u64,
    may_have_been_operated: bool,
    /// When what is held back is to be read again.
    reconcile_at: Option<Instant>,
    /// When it is to be compared with what the storage says.
    compare_at: Instant,
    /// A canary's attempts are to be given back, once nothing is under way.
    give_back: bool,
    /// Canaries whose attempts are to be given back.
    withdrawn: Vec<Withdrawn>,
    prune_at: Option<Instant>,
    lost: Option<StorageError>,
    /// A stage has ended before its time: nobody commits any more.
    broken: bool,
    condition: RelayState,
    log: &'a mut Log,
    report: Report,
}

impl<'a> Session<'a> {
    fn new(
        context: RelayContext<'a>,
        lease: &'a dyn Lease,
        limit: Option<usize>,
        log: &'a mut Log,
    ) -> Result<Self, StorageError> {
        let now = Instant::now();
        let condition = RelayState {
            pid: std::process::id(),
            state: RelayCondition::Running,
            since: (context.clock)(),
            reason: String::new(),
        };
        lease.show(&condition);
        let mut session = Self {
            context,
            lease,
            lanes: Lanes::new(context.options.ordering),
            breakers: Breakers::new(context.publishers.len()),
            cursor: i64::MIN,
            at_end: false,
            read_again_at: None,
            limit,
            began: now,
            group: Group::default(),
            orders_out: 0,
            sweep: Sweep::new(now),
            found: None,
            unsettled: Unsettled::default(),
            generation: 0,
            may_have_been_operated: false,
            reconcile_at: None,
            compare_at: now + second_look::COMPARE_PAUSE,
            give_back: false,
            withdrawn: Vec::new(),
            prune_at: limit.is_none().then_some(now),
            lost: None,
            broken: false,
            condition,
            log,
            report: Report::default(),
        };
        session.begin(now)?;
        Ok(session)
    }

    /// Starts the other stages, and works until there is no more to do, or the relay is to stop.
    fn run(mut self, stopping: &Stopping) -> (Report, Result<(), StorageError>) {
        let (message, inbox) = unbounded();
        let (jobs, taken) = async_channel::bounded(IN_MEMORY_MAX);
        let (order, orders) = bounded(ORDERS_MAX);
        let (committed, to_sync) = unbounded();
        let (give_up_calls, calls_given_up) = async_channel::bounded(1);
        let (give_up, all_given_up) = bounded(0);
        let channels =
            Channels { inbox, jobs, taken_back: taken.clone(), orders: order, give_up_calls, _give_up: give_up };
        let RelayContext { publishers, serde, strategy, clock, .. } = self.context;
        let (lease, context) = (self.lease, self.context);
        if let Err(error) = maintenance::begin(context, self.limit.is_some(), stopping) {
            return (self.report, Err(error));
        }
        let (results, given_up, left_alone) = (&message, &calls_given_up, &*self.breakers.left_alone());
        let calls = Calls { publishers, serde, lease, jobs: &taken, given_up, left_alone, results, clock };
        let (orders, given_up) = (&orders, &all_given_up);
        let patience = Patience { give_up: given_up, in_pass: self.limit.is_some(), results };
        let acker = Acker { strategy, lease, clock, patience, committed };
        let session = &mut self;
        let ended = thread::scope(move |scope| {
            // Whatever way this ends, the channels end with it, and with them the threads.
            let channels = channels;
            for (first_slot, share) in caller::shares(session.context.options.concurrency) {
                spawn(scope, results, "outbox-caller", move || caller::run(calls, first_slot, share))?;
            }
            spawn(scope, results, "outbox-acker", move || acker.run(orders))?;
            spawn(scope, results, "outbox-sync", move || syncer::run(strategy, &to_sync, patience))?;
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
        // What is still marked was cut off by the relay itself, and not by its event.
        self.lease.clear();
        maintenance::end(context);
        (self.report, ended)
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
            let may_be_more = self.read(now)?;
            self.claim(channels, now);
            self.commit_what_is_settled(channels, now);
            self.try_again_what_was_refused(channels, now);
            if may_be_more {
                continue;
            }
            if self.is_done() {
                return Ok(());
            }
            self.prune_when_due(channels, now);
            select! {
                recv(channels.inbox) -> message => message.into_iter().for_each(|message| self.take_in(message)),
                recv(stopping.woken()) -> _ => {}
                default(self.patience(now)) => self.lease.check()?,
            }
        }
        Ok(())
    }

    /// How long until there is something to do, if nothing happens.
    fn patience(&self, now: Instant) -> Duration {
        let due = self.lanes.next_due().filter(|_| self.limit.is_none());
        let group = self.group.since.filter(|_| self.orders_out < ORDERS_MAX).map(|since| since + GROUP_AGE_MAX);
        let sweep = Some(self.sweep.wake_at()).filter(|_| self.limit.is_none() && self.room() > 0);
        let again = self.unsettled.wake_at().filter(|_| self.orders_out < ORDERS_MAX);
        let own = [due, group, sweep, again, self.reconcile_at, self.log.next()];
        let times = own.into_iter().chain([self.breakers.wake_at(), self.read_again_at, self.prune_at]);
        let next = times.flatten().min();
        next.map_or(LOOK_AGAIN, |next| {
            next.saturating_duration_since(now).clamp(Duration::from_micros(100), LOOK_AGAIN)
        })
    }

    /// Whether a pass is over: nothing more may be read, and all that was tried is settled.
    fn is_done(&self) -> bool {
        let nothing_to_publish =
            self.lanes.in_memory().entries == 0 || self.refuses_all(self.admission(Instant::now()));
        let nothing_under_way = self.lanes.running() == 0 && self.lanes.unacked() == 0 && self.orders_out == 0;
        self.limit.is_some() && nothing_to_publish && nothing_under_way
    }

    /// Hands over whatever may be published now.
    fn claim(&mut self, channels: &Channels, now: Instant) {
        if self.give_back || self.lanes.unacked() >= UNACKED_MAX {
            return;
        }
        let mut admission = self.admission(now);
        // Where nobody may be called, nothing has to be let go for anybody.
        if self.refuses_all(admission) {
            return;
        }
        while !channels.jobs.is_full()
            && let Some(job) = self.lanes.next_job(admission)
        {
            let probed = job.legs.both(admission.probed);
            if !probed.is_empty() {
                self.breakers.probe(probed);
                admission = Admission { refused: admission.refused | probed, probed: admission.probed.without(probed) };
            }
            // The channel is as long as all that can be queued, and only closed at the end.
            let _ = channels.jobs.try_send(job);
        }
        self.lanes.admit(admission);
    }

    fn admission(&self, now: Instant) -> Admission {
        self.breakers.admission(now, self.limit.is_some(), |leg| self.lanes.is_running_for(leg))
    }

    fn refuses_all(&self, admission: Admission) -> bool {
        admission.refused == self.context.publishers.all()
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Changed => self.changed(),
            Message::TriedAgain { settled, refused } => self.tried_again(settled, refused),
            Message::Finished(jobs) => jobs.into_iter().for_each(|job| self.settle_job(job)),
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
            Message::Pruned(pruned) => self.pruned(pruned),
            Message::Maintenance(leg, maintenance) => self.maintenance(leg, maintenance),
        }
    }

    /// Somebody committed something, or removed what was settled.
    fn changed(&mut self) {
        self.at_end = false;
        self.may_have_been_operated = true;
        self.found = None;
        if self.lanes.is_empty() {
            // Nobody is obliged to append in the order of positions.
            self.cursor = i64::MIN;
        } else {
            self.sweep.ask();
        }
    }
}
