//! Entries with a `publish_after` that is still to come. Those that are due soon wait in memory, beside their streams, and
//! stay in the outbox. All others are put off: the storage keeps them apart, so that nobody reads them again and again, and
//! brings them back shortly before they are due. An entry that is to hold its stream waits in its lane, as it does for a
//! retry.
//!
//! The times are those of the wall clock, which may be set at any time. So each is compared with the clock whenever the
//! session wakes, which is often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::Level;

use super::channels::Channels;
use super::group::{Order, Refused};
use super::job::LaneId;
use super::log::Line;
use super::options::Ordering;
use super::session::{ORDERS_MAX, Session};
use crate::outbox::{BroughtBack, Settled, StorageError};
use crate::raw::{EntryId, RawEntry};

/// An entry that is due sooner than this is not put off.
const NEAR: SignedDuration = SignedDuration::from_secs(2);
/// An entry is brought back this long before it is due.
const AHEAD: SignedDuration = SignedDuration::from_secs(1);
/// The most entries that wait in memory; more are put off, however soon they are due.
const NEAR_MAX: usize = 16_384;
/// An entry that holds its stream is looked at again after half of its time, and after all of it if that is less than this:
/// the wall clock and the one that measures waits may go at different rates.
const HOLD_WHOLE: Duration = Duration::from_secs(2);
/// If the wall clock differs by so much from what it should show, it was set.
const CLOCK_STEP: SignedDuration = SignedDuration::from_millis(20);
/// The pause after nothing came back, although it was time: the storage may keep it until it is due.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon to try again if the storage could not bring back what is due.
const AGAIN: Duration = Duration::from_secs(5);

/// What is not due yet.
#[derive(Debug)]
pub(super) struct Delays {
    /// What waits in memory, by the time when it is due.
    near: BTreeMap<(Timestamp, EntryId), LaneId>,
    /// When the first of those that were put off is due.
    next_put_off: Option<Timestamp>,
    is_bringing_back: bool,
    /// After a failure.
    not_before: Option<Instant>,
    /// What both clocks showed last.
    seen: (Instant, Timestamp),
    /// When the session began, by the wall clock.
    began: Timestamp,
}

impl Delays {
    pub(super) fn new(now: Instant, wall: Timestamp) -> Self {
        let (near, seen) = (BTreeMap::new(), (now, wall));
        Self { near, next_put_off: None, is_bringing_back: false, not_before: None, seen, began: wall }
    }

    /// Takes in what the clocks show. Returns whether the wall clock was set since the last time.
    fn was_set(&mut self, now: Instant, wall: Timestamp) -> bool {
        let (at, shown) = std::mem::replace(&mut self.seen, (now, wall));
        let passed = SignedDuration::try_from(now.duration_since(at)).unwrap_or(SignedDuration::MAX);
        (wall.duration_since(shown) - passed).abs() > CLOCK_STEP
    }
}

impl Session<'_> {
    /// When an entry that was read may be published. None if that is now.
    pub(super) fn not_before(&self, entry: &RawEntry) -> Option<Timestamp> {
        entry.publish_after().filter(|after| *after > self.due_by_clock())
    }

    /// What is due by this time is published: in a pass, what was due when it began.
    fn due_by_clock(&self) -> Timestamp {
        let wall = (self.context.clock)();
        if self.limit.is_some() { wall.min(self.delays.began) } else { wall }
    }

    /// Has an entry wait that was read.
    pub(super) fn delay(&mut self, entry: &RawEntry, until: Timestamp) {
        let (stream, id) = (entry.stream_key(), entry.id());
        let wall = (self.context.clock)();
        let holds = self.context.options.delay_holds_stream && self.context.options.ordering != Ordering::None;
        if holds || self.lanes.knows(stream, id) {
            self.lanes.hold_delayed(stream, id, hold_until(Instant::now(), wall, until));
        } else if until.duration_since(wall) <= NEAR && self.delays.near.len() < NEAR_MAX {
            let lane = self.lanes.wait_beside(stream, id);
            self.delays.near.insert((until, id), lane);
        } else {
            let (lane, _) = self.lanes.settle_uncalled(entry);
            self.await_commit(lane, Settled::PutOff { entry: id, until }, Instant::now());
        }
    }

    /// Takes in that an entry was put off, or that the storage refuses this: then it waits in memory.
    pub(super) fn put_off(&mut self, lane: LaneId, entry: EntryId, until: Timestamp, refused: Option<&Refused>) {
        match refused {
            None => self.delays.next_put_off = self.delays.next_put_off.into_iter().chain([until]).min(),
            Some(refused) => {
                let text =
                    format!("an entry that is not due cannot be put off, and waits in memory: {}", refused.reason);
                let line = Line { position: Some(entry.position), ..Line::new(Level::WARN, text) };
                self.log.line(line, Instant::now());
                self.lanes.keep_apart(entry);
                self.delays.near.insert((until, entry), lane);
            }
        }
    }

    /// Lets go what is due.
    pub(super) fn wake_delayed(&mut self, now: Instant) {
        let wall = (self.context.clock)();
        if self.delays.was_set(now, wall) {
            self.lanes.look_at_delayed(now);
        }
        let by = self.due_by_clock();
        while let Some(first) = self.delays.near.first_entry()
            && first.key().0 <= by
        {
            let ((_, entry), lane) = first.remove_entry();
            self.lanes.wake(lane, entry);
        }
    }

    /// Has the storage bring back what is due soon, if something is.
    pub(super) fn bring_back(&mut self, channels: &Channels, now: Instant) {
        if self.may_bring_back(now) && self.has_to_bring_back() {
            let (due_by, until) = (self.due_by_clock(), self.bring_back_until());
            self.delays.is_bringing_back = true;
            self.orders_out += 1;
            let _ = channels.orders.try_send(Order::BringBack { due_by, until });
        }
    }

    /// Whether there is room for more. What was brought back and is due is read before more comes.
    fn may_bring_back(&self, now: Instant) -> bool {
        !self.delays.is_bringing_back
            && self.delays.not_before.is_none_or(|at| now >= at)
            && self.delays.near.len() < NEAR_MAX
            && self.orders_out < ORDERS_MAX
            && !self.lanes.has_missed()
            && self.room() > 0
    }

    /// Whether something that was put off is to come back now.
    pub(super) fn has_to_bring_back(&self) -> bool {
        self.delays.next_put_off.is_some_and(|next| next <= self.bring_back_until())
    }

    fn bring_back_until(&self) -> Timestamp {
        let ahead = if self.limit.is_some() { SignedDuration::ZERO } else { AHEAD };
        self.due_by_clock().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// Takes in what the storage has brought back.
    pub(super) fn brought_back(&mut self, result: Result<BroughtBack, StorageError>) {
        let now = Instant::now();
        self.orders_out -= 1;
        (self.delays.is_bringing_back, self.delays.not_before) = (false, None);
        let BroughtBack { entries, refused, next } = match result {
            Ok(brought_back) => brought_back,
            Err(error) => {
                self.degraded(&error);
                self.delays.not_before = Some(now + AGAIN);
                if self.limit.is_some() {
                    self.lost = Some(error);
                }
                return;
            }
        };
        self.not_degraded();
        self.delays.next_put_off = next;
        if entries.is_empty() && refused.is_empty() {
            self.delays.not_before = Some(now + PAUSE);
        }
        for (position, reason) in refused {
            let text =
                format!("the table outbox refuses an entry whose time has come, and it is tried again: {reason}");
            self.log.line(Line { position: Some(position), ..Line::new(Level::WARN, text) }, now);
        }
        for (stream, entry, until) in entries {
            let lane = self.lanes.come_back(stream, entry);
            self.delays.near.extend(lane.map(|lane| ((until, entry), lane)));
        }
    }

    /// Asks the storage when the first of those that were put off is due: others may have changed it.
    pub(super) fn ask_for_delayed(&mut self) -> Result<(), StorageError> {
        self.delays.next_put_off = self.drain.next_put_off()?;
        Ok(())
    }

    /// When there is something to do for what is delayed.
    pub(super) fn delayed_wake_at(&self, now: Instant) -> Option<Instant> {
        if self.limit.is_some() {
            return None;
        }
        let near = self.delays.near.first_key_value().map(|((until, _), _)| *until);
        let ahead = |next: Timestamp| next.saturating_sub(AHEAD).unwrap_or(Timestamp::MIN);
        let put_off = self.delays.next_put_off.filter(|_| self.may_bring_back(now)).map(ahead);
        let at = near.into_iter().chain(put_off).min()?;
        now.checked_add(remaining(at, (self.context.clock)()))
    }
}

fn remaining(until: Timestamp, wall: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(wall)).unwrap_or(Duration::ZERO)
}

/// When to look again at an entry that holds its stream.
fn hold_until(now: Instant, wall: Timestamp, until: Timestamp) -> Instant {
    let remaining = remaining(until, wall);
    let wait = if remaining > HOLD_WHOLE { remaining / 2 } else { remaining };
    now.checked_add(wait).unwrap_or(now + HOLD_WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_goes_on_is_not() {
        let (now, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut delays = Delays::new(now, wall);
        let second = Duration::from_secs(1);
        assert!(!delays.was_set(now + second, wall + second));
        assert!(!delays.was_set(now + 2 * second, wall + 2 * second + Duration::from_millis(5)));
        assert!(delays.was_set(now + 3 * second, wall + 60 * second));
        assert!(!delays.was_set(now + 4 * second, wall + 61 * second));
        assert!(delays.was_set(now + 5 * second, wall));
    }

    #[test]
    fn what_holds_its_stream_for_long_is_looked_at_now_and_then() {
        let (now, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let second = Duration::from_secs(1);
        assert_eq!(hold_until(now, wall, wall + second), now + second);
        assert_eq!(hold_until(now, wall, wall + 10 * second), now + 5 * second);
        assert_eq!(hold_until(now, wall + second, wall), now);
        assert!(hold_until(now, Timestamp::MIN, Timestamp::MAX) > now);
    }
}
