//! The way of an entry, from the outbox to its destination and out of the outbox.
//!
//! Four stages work side by side. This file is the first and the centre: it *reads* entries and *claims* them, each
//! when nothing before it in its stream is in the way. The *callers* ([`caller`]) decode and publish them. What became
//! of each comes back here to be *settled*; the *acker* ([`acker`]) commits that, a group at a time, and the *syncer*
//! ([`syncer`]) makes it durable. Nothing is published while a transaction is open, and nothing is reported before it is
//! durable.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use jiff::{SignedDuration, Timestamp};
use tracing::Level;

use crate::outbox::{
    Act, Failed, Fate, Lease, OutboxStorageStrategy, Page, PageBounds, Pruned, RelayCondition, RelayState, Settled,
    StorageError,
};
use crate::publisher::{Attempt, Kept, Outcome, Withdrawn};
use crate::publishers::Publishers;
use crate::row::{EntryId, RawEntry};
use crate::serde::Serde;
use crate::settlement::{Settlement, settle, settle_on_trial};

use self::acker::{Acker, Group, Order, Patience, Refused};
use self::caller::{Called, Calls, Finished, NotDelivered};
use self::gate::Gates;
use self::lanes::{Doors, Job, LaneId, Lanes};
use self::log::{Line, Log};
use self::stop::StopLevel;
use self::sweep::{Looked, Sweep};
use self::unsettled::{Unsettled, is_done_with};
use crate::text::shown;

mod acker;
mod caller;
mod condition;
#[cfg(test)]
mod faulty;
mod gate;
mod lanes;
mod log;
mod options;
mod recovery;
mod report;
mod second_look;
mod stop;
mod sweep;
mod syncer;
mod unsettled;
mod upkeep;
mod wind_up;

pub use self::options::{OnDeadLetter, Ordering, RelayOptions};
pub use self::report::{FAILURES_MAX, Failure, Report};
pub use self::stop::{Stop, Stopping, stop};

/// The most entries that are read and not yet published, and the most bytes of data, give or take a page.
const IN_MEMORY_MAX: usize = 2_048;
const IN_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most settled entries whose commit is awaited: what a crash may bring again is bounded by it.
const UNACKED_MAX: usize = 4_096;
/// One read from the outbox.
const PAGE: PageBounds = PageBounds { read_max: 256, bytes_max: 4 * 1024 * 1024, looked_at_max: 4_096 };
/// A group is committed when it has so many entries, or is so old, or when nothing else is under way.
const GROUP_MAX: usize = 1_000;
const GROUP_AGE_MAX: Duration = Duration::from_millis(5);
/// Orders that are not carried out yet: one that is being committed, one that is being synced, and the next.
const ORDERS_MAX: usize = 3;
/// The most characters of a reason that are kept, whoever gave it; what a guest says is cut to less.
const REASON_CHARS_MAX: usize = 4_000;
/// How many due retries are read at once.
const DUE_MAX: usize = 64;
/// How long to wait after a read that failed, and how often to look whether the database is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often a standby tries to take over.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);
/// How often old records are looked for.
const PRUNE_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What a relay works with.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) strategy: &'a dyn OutboxStorageStrategy,
    pub(crate) serde: &'a dyn Serde,
    pub(crate) publishers: &'a Publishers<'a>,
    pub(crate) options: &'a RelayOptions,
    pub(crate) clock: fn() -> Timestamp,
    /// A random number from 0 to 1.
    pub(crate) random: fn() -> f64,
}

/// What comes in while the relay is at work.
#[derive(Debug)]
enum Message {
    Changed,
    TriedAgain {
        settled: Vec<EntryId>,
        refused: Vec<Refused>,
    },
    Finished(Vec<Finished>),
    Committed(Group),
    NotCommitted(StorageError),
    GaveUp,
    Lost(StorageError),
    Broken(StorageError),
    Pruned(Result<Pruned, StorageError>),
    /// What came of keeping this publisher up.
    Kept(usize, Kept),
}

/// One pass: every entry that is due now is tried once, at most `limit` of them.
pub(crate) fn pass(parts: Parts<'_>, limit: usize) -> Result<Report, StorageError> {
    let lease = parts.strategy.lease()?;
    let (_stop, stopping) = stop();
    let mut log = Log::default();
    let session = Session::new(parts, lease.as_ref(), Some(limit), &mut log)?;
    let (report, ended) = session.run(&stopping);
    ended.map(|()| report)
}

/// Publishes until it is told to stop. While somebody else drains the outbox it stands by; when the database goes away
/// it waits for it to come back.
pub(crate) fn relay(parts: Parts<'_>, stopping: &Stopping) -> Result<Report, StorageError> {
    let (mut total, mut log) = (Report::default(), Log::default());
    let mut standing_by = false;
    let mut worked = false;
    while stopping.level() == StopLevel::Go {
        let leased = parts.strategy.lease().and_then(|lease| {
            let session = Session::new(parts, lease.as_ref(), None, &mut log)?;
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
    parts: Parts<'a>,
    lease: &'a dyn Lease,
    lanes: Lanes,
    gates: Gates,
    /// The callers' own side of the gates, which a caller shuts at once and only a probe opens: the bits of [`Legs`].
    left_alone: Arc<AtomicU64>,
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

/// The session's ends of the channels to the other stages.
struct Links {
    inbox: Receiver<Message>,
    jobs: async_channel::Sender<Job>,
    taken_back: async_channel::Receiver<Job>,
    orders: Sender<Order>,
    /// Closed when the calls under way are to be cut off.
    give_up_calls: async_channel::Sender<()>,
    /// Dropped, like the rest, when commits are to be given up, and watching ended.
    _give_up: Sender<()>,
}

impl<'a> Session<'a> {
    fn new(
        parts: Parts<'a>,
        lease: &'a dyn Lease,
        limit: Option<usize>,
        log: &'a mut Log,
    ) -> Result<Self, StorageError> {
        let now = Instant::now();
        let condition = RelayState {
            pid: std::process::id(),
            state: RelayCondition::Running,
            since: (parts.clock)(),
            reason: String::new(),
        };
        lease.show(&condition);
        let mut session = Self {
            parts,
            lease,
            lanes: Lanes::new(parts.options.ordering),
            gates: Gates::new(parts.publishers.len()),
            left_alone: Arc::default(),
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
        let links = Links { inbox, jobs, taken_back: taken.clone(), orders: order, give_up_calls, _give_up: give_up };
        let Parts { publishers, serde, strategy, clock, .. } = self.parts;
        let (lease, parts) = (self.lease, self.parts);
        if let Err(error) = upkeep::begin(parts, self.limit.is_some(), stopping) {
            return (self.report, Err(error));
        }
        let (results, given_up, left_alone) = (&message, &calls_given_up, &*self.left_alone.clone());
        let calls = Calls { publishers, serde, lease, jobs: &taken, given_up, left_alone, results, clock };
        let (orders, given_up) = (&orders, &all_given_up);
        let patience = Patience { give_up: given_up, in_pass: self.limit.is_some(), results };
        let acker = Acker { strategy, lease, clock, patience, committed };
        let session = &mut self;
        let ended = thread::scope(move |scope| {
            // Whatever way this ends, the links end with it, and with them the threads.
            let links = links;
            for (first_slot, share) in caller::shares(session.parts.options.concurrency) {
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
                spawn(scope, results, "outbox-upkeep", move || upkeep::run(parts, &changes, results))?;
            }
            let worked = session.work(&links, stopping);
            session.wind_up(&links, stopping);
            worked
        });
        let ended = ended.and_then(|()| self.unsettled.error().filter(|_| self.limit.is_some()).map_or(Ok(()), Err));
        // What is still marked was cut off by the relay itself, and not by its event.
        self.lease.clear();
        upkeep::end(parts);
        (self.report, ended)
    }

    /// The loop. Each turn takes in what has happened, and starts what may start.
    fn work(&mut self, links: &Links, stopping: &Stopping) -> Result<(), StorageError> {
        while stopping.level() == StopLevel::Go {
            links.inbox.try_iter().for_each(|message| self.take_in(message));
            if let Some(lost) = self.lost.take() {
                return Err(lost);
            }
            let now = Instant::now();
            self.log.say_overdue(now);
            let may_be_more = self.read(now)?;
            self.claim(links, now);
            self.commit_what_is_settled(links, now);
            self.try_again_what_was_refused(links, now);
            if may_be_more {
                continue;
            }
            if self.is_done() {
                return Ok(());
            }
            self.prune_when_due(links, now);
            select! {
                recv(links.inbox) -> message => message.into_iter().for_each(|message| self.take_in(message)),
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
        let times = own.into_iter().chain([self.gates.wake_at(), self.read_again_at, self.prune_at]);
        let next = times.flatten().min();
        next.map_or(LOOK_AGAIN, |next| {
            next.saturating_duration_since(now).clamp(Duration::from_micros(100), LOOK_AGAIN)
        })
    }

    /// Whether a pass is over: nothing more may be read, and all that was tried is settled.
    fn is_done(&self) -> bool {
        let nothing_to_publish = self.lanes.in_memory().entries == 0 || self.all_shut(self.doors(Instant::now()));
        let nothing_under_way = self.lanes.running() == 0 && self.lanes.unacked() == 0 && self.orders_out == 0;
        self.limit.is_some() && nothing_to_publish && nothing_under_way
    }

    // --- claimed -----------------------------------------------------------------------------------------------

    /// Reads on, if there is room and something to be read; says whether there may be more.
    fn read(&mut self, now: Instant) -> Result<bool, StorageError> {
        if self.read_again_at.is_some_and(|at| now < at) {
            return Ok(false);
        }
        let read = self.take_in_what_is_held(now).and_then(|()| {
            if self.give_back {
                return Ok(false);
            }
            self.read_due(now)?;
            self.look_again(now)?;
            self.read_page(now)
        });
        match read {
            Err(error) if (error.is_passing() || error.is_refusal()) && self.limit.is_none() => {
                self.degraded(&error);
                self.read_again_at = Some(now + LOOK_AGAIN);
                Ok(false)
            }
            Ok(read) => {
                if self.read_again_at.take().is_some() {
                    self.not_degraded();
                }
                Ok(read)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the waiting entries whose time has come.
    fn read_due(&mut self, now: Instant) -> Result<(), StorageError> {
        let now = if self.limit.is_some() { self.began } else { now };
        let mut read = 0;
        // Each may be as large as an entry can be: there has to be room before each.
        while read < DUE_MAX
            && self.room() > 0
            && let Some((lane, id)) = self.lanes.due(now, 1).pop()
        {
            read += 1;
            let one = PageBounds { read_max: 1, looked_at_max: 1, ..PAGE };
            let mut is_it = |found: EntryId, _| found == id;
            let page = self.parts.strategy.entries(id.position..=id.position, one, &mut is_it)?;
            match page.entries.into_iter().next() {
                Some(entry) => self.push(entry),
                // Somebody deleted it by hand: what is on record of it goes too.
                None => {
                    self.lanes.vanished(lane, id);
                    self.parts.strategy.settle(&[Settled::Vanished { entry: id }])?;
                }
            }
        }
        Ok(())
    }

    /// Reads the next entries that nothing is in the way of.
    fn read_page(&mut self, now: Instant) -> Result<bool, StorageError> {
        if let Some(from) = self.lanes.take_rewind() {
            self.cursor = self.cursor.min(from);
            self.at_end = false;
        }
        if self.at_end || self.room() == 0 {
            return Ok(false);
        }
        let page = self.read_range(self.cursor..=i64::MAX, now)?;
        self.at_end = page.end || page.last == Some(i64::MAX);
        self.cursor = page.last.map_or(self.cursor, |last| last.saturating_add(1));
        Ok(true)
    }

    /// Reads those entries of a range that nothing is in the way of, as many as there is room for.
    fn read_range(&mut self, range: RangeInclusive<i64>, now: Instant) -> Result<Page, StorageError> {
        let bounds = PageBounds { read_max: PAGE.read_max.min(self.room()), ..PAGE };
        let lanes = &mut self.lanes;
        let mut wanted = |entry, stream| lanes.wants(entry, stream, now);
        let strategy = self.parts.strategy;
        let read = strategy.entries(range, bounds, &mut wanted).and_then(|page| Ok((page, strategy.generation()?)));
        let page = read.map(|(mut page, generation)| {
            if generation == self.generation {
                page.entries.drain(..).for_each(|entry| self.push(entry));
                return page;
            }
            // The table may be another one by now, in which these positions are not the next ones: it is read anew.
            self.may_have_been_operated = true;
            Page::default()
        });
        self.lanes.page_ended();
        page
    }

    fn push(&mut self, entry: RawEntry) {
        let route = self.parts.publishers.route(&entry);
        self.lanes.push(entry, route);
        if let Some(limit) = &mut self.limit {
            *limit = limit.saturating_sub(1);
        }
    }

    /// How many more entries may be read now.
    fn room(&self) -> usize {
        let in_memory = self.lanes.in_memory();
        let is_full = in_memory.bytes >= IN_MEMORY_BYTES_MAX || self.lanes.unacked() >= UNACKED_MAX;
        if is_full || self.unsettled.is_full() {
            return 0;
        }
        IN_MEMORY_MAX.saturating_sub(in_memory.entries).min(self.limit.unwrap_or(usize::MAX))
    }

    /// Hands over whatever may be published now.
    fn claim(&mut self, links: &Links, now: Instant) {
        if self.give_back || self.lanes.unacked() >= UNACKED_MAX {
            return;
        }
        let mut doors = self.doors(now);
        // Where nobody may be called, nothing has to be let go for anybody.
        if self.all_shut(doors) {
            return;
        }
        while !links.jobs.is_full()
            && let Some(job) = self.lanes.next_job(doors)
        {
            let probed = job.legs.both(doors.probed);
            if !probed.is_empty() {
                self.gates.probe(probed);
                self.left_alone.fetch_and(!probed.bits(), atomic::Ordering::Release);
                doors = Doors { shut: doors.shut | probed, probed: doors.probed.without(probed) };
            }
            // The channel is as long as all that can be queued, and only closed at the end.
            let _ = links.jobs.try_send(job);
        }
        self.lanes.open(doors);
    }

    fn doors(&self, now: Instant) -> Doors {
        self.gates.doors(now, self.limit.is_some(), |leg| self.lanes.is_running_for(leg))
    }

    fn all_shut(&self, doors: Doors) -> bool {
        doors.shut == self.parts.publishers.all()
    }

    // --- settled -----------------------------------------------------------------------------------------------

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
            Message::Kept(leg, kept) => self.kept(leg, kept),
        }
    }

    fn settle_job(&mut self, job: Finished) {
        let now = Instant::now();
        for Called { entry, tried_before, available, failed } in job.calls {
            self.gates.available(available);
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
            self.gates.unprobed(now, |leg| self.lanes.is_running_for(leg));
        }
    }

    /// A publisher that is unavailable is left alone for a while, whatever becomes of the entry.
    fn leave_alone(&mut self, failed: &NotDelivered, now: Instant) {
        for (leg, attempt) in &failed.unavailable {
            let (pauses, policy) = (self.gates.pauses(*leg), &self.parts.options.policy);
            if let Settlement::PausePublisher { delay } =
                settle(failed.history, pauses, &attempt.outcome, policy, (self.parts.random)())
            {
                let asked = policy.asked(&attempt.outcome);
                self.gates.unavailable(*leg, delay, asked, now);
                self.paused(*leg, attempt.outcome.reason());
            }
        }
    }

    /// What becomes of an entry that was not delivered.
    fn settle_failed(&mut self, lane: LaneId, entry: EntryId, failed: NotDelivered, now: Instant) {
        let NotDelivered { history, delivered, at, in_part, others, attempt, .. } = failed;
        let (options, position) = (self.parts.options, entry.position);
        // Cut off by the relay itself, which counts for nothing.
        let cut_off = || Outcome::Unavailable { reason: "the relay was stopped".into(), after: None }.into();
        let (was_cut_off, attempt) = (attempt.is_none(), with_bounded_reason(attempt.unwrap_or_else(cut_off)));
        let others: Vec<Attempt> = others.into_iter().map(with_bounded_reason).collect();
        others.iter().for_each(|other| self.note_other_failure(position, other));
        let (policy, jitter) = (&options.policy, (self.parts.random)());
        let settlement = match attempt.on_trial {
            true => settle_on_trial(history, &attempt.outcome, policy, jitter),
            false => settle(history, 0, &attempt.outcome, policy, jitter),
        };
        let failed = |attempt, history, fate| {
            let delivered_to = self.parts.publishers.names(delivered);
            Settled::Failed(Box::new(Failed { entry, at, attempt, others, delivered_to, history, fate }))
        };
        let settled = match settlement {
            // Not after a failure.
            Settlement::Ack => {
                self.lanes.settled(lane, entry);
                Settled::Delivered { entry, tried_before: true }
            }
            Settlement::Retry { delay, history } => {
                self.note_failure(position, history.attempts, &attempt, "retry");
                self.lanes.failed(lane, entry, now + delay, history, delivered);
                failed(attempt, history, Fate::Retry { at: at.saturating_add(signed(delay)).unwrap_or(Timestamp::MAX) })
            }
            Settlement::DeadLetter { history } => {
                self.note_failure(position, history.attempts, &attempt, "dead-letter");
                self.lanes.settled(lane, entry);
                let park = options.on_dead_letter == OnDeadLetter::Park;
                if park {
                    self.lanes.parked(lane);
                }
                failed(attempt, history, Fate::DeadLetter { park })
            }
            Settlement::PausePublisher { .. } => {
                if !was_cut_off {
                    self.note_failure(position, history.attempts.saturating_add(1), &attempt, "stays");
                }
                if !in_part {
                    self.lanes.released(lane, entry);
                    return;
                }
                // It waits for nothing but its publisher; who has it already must not get it again.
                self.lanes.failed(lane, entry, now, history, delivered);
                failed(attempt, history, Fate::Retry { at })
            }
        };
        self.await_commit(lane, settled, now);
    }

    fn await_commit(&mut self, lane: LaneId, settled: Settled, now: Instant) {
        self.group.since.get_or_insert(now);
        self.group.lanes.push(lane);
        self.group.settled.push(settled);
    }

    // --- acked -------------------------------------------------------------------------------------------------

    /// Hands the group over when it is large or old enough, or nothing else is under way that could join it.
    fn commit_what_is_settled(&mut self, links: &Links, now: Instant) {
        let Some(since) = self.group.since else { return };
        let idle = self.lanes.running() == 0;
        let full = self.group.settled.len() >= GROUP_MAX || now.duration_since(since) >= GROUP_AGE_MAX;
        if (idle || full) && self.orders_out < ORDERS_MAX {
            self.orders_out += 1;
            let _ = links.orders.try_send(Order::Commit(std::mem::take(&mut self.group)));
        }
    }

    fn committed(&mut self, group: Group) {
        self.orders_out -= 1;
        let Group { lanes, settled, refused, .. } = group;
        let is_refused = |entry| refused.iter().any(|refused| refused.settled.entry() == entry);
        for (lane, settled) in lanes.into_iter().zip(settled) {
            let was_delivered = matches!(settled, Settled::Delivered { .. });
            self.report.published += u64::from(was_delivered && !is_refused(settled.entry()));
            self.lanes.committed(lane, settled.entry());
        }
        self.not_degraded();
        self.refused(refused);
    }

    // --- and besides -------------------------------------------------------------------------------------------

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

    fn prune_when_due(&mut self, links: &Links, now: Instant) {
        let retention = self.parts.options.retention;
        if self.prune_at.is_some_and(|at| now >= at) && self.orders_out < ORDERS_MAX {
            self.prune_at = None;
            self.orders_out += 1;
            let by = Act { who: "relay".into(), at: (self.parts.clock)() };
            let _ = links.orders.try_send(Order::Prune { retention, by });
        }
    }

    /// More is pruned at once while there is more.
    fn pruned(&mut self, pruned: Result<Pruned, StorageError>) {
        self.orders_out -= 1;
        let pause = match pruned {
            Ok(pruned) if pruned.total() > 0 => {
                tracing::info!(?pruned, "pruned old records");
                Duration::ZERO
            }
            Ok(_) => PRUNE_PAUSE,
            Err(error) => {
                tracing::warn!("cannot prune old records: {}", shown(&error));
                PRUNE_PAUSE
            }
        };
        self.prune_at = Some(Instant::now() + pause);
    }
}

fn with_bounded_reason(attempt: Attempt) -> Attempt {
    Attempt { outcome: attempt.outcome.with_bounded_reason(REASON_CHARS_MAX), ..attempt }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Starts a stage. One that panics ends the session: nobody would do its work.
fn spawn<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    results: &'scope Sender<Message>,
    part: &'static str,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), StorageError> {
    let work = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let reason = caller::panic_text(panic.as_ref());
            let _ = results.send(Message::Broken(StorageError::Panicked { part, reason }));
        }
    };
    let spawned = thread::Builder::new().name(part.into()).spawn_scoped(scope, work);
    let failed = |error| StorageError::Other { doing: "start a thread", cause: Box::new(error) };
    spawned.map(|_| ()).map_err(failed)
}
