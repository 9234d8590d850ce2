//! The second look. The reader goes through the outbox in position order, but entries can appear below its cursor:
//! somebody restores a backup, rebuilds a table so that it counts from the start again, or gives a position by hand. So
//! after each change the sweep looks through the positions below the cursor too, a slice at a time, beside the reader.
//! From time to time it does so without a change: this is the relay's watchdog.

use std::time::{Duration, Instant};

/// The shortest time between the beginnings of two looks.
const PAUSE: Duration = Duration::from_millis(75);
/// A look may take one part in this many of the time between two slices, unless set otherwise.
const SHARE: u32 = 4;
/// How often the watchdog looks. If a look takes long, it looks less often: it may take one part in `WATCHDOG_SHARE` of
/// all time.
const WATCHDOG_PAUSE: Duration = Duration::from_secs(1);
const WATCHDOG_SHARE: u32 = 100;

/// Where the second look is, and when it goes on.
#[derive(Debug)]
pub(super) struct Sweep<P> {
    /// Where to look next. None while no look is under way.
    at: Option<P>,
    /// Something has changed since the last look began.
    asked: bool,
    /// When the look under way, or the last one, began, and how long it took so far.
    began: Instant,
    took: Duration,
    /// The highest position that it has seen.
    highest: Option<i64>,
    share: u32,
    not_before: Instant,
    watchdog_at: Instant,
}

/// The result of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// There is more to look through.
    More,
    /// Everything is looked through; this was the highest position.
    Through { highest: Option<i64> },
}

impl<P: Clone> Sweep<P> {
    pub(super) fn new(now: Instant) -> Self {
        let (at, asked, took, highest) = (None, false, Duration::ZERO, None);
        Self { at, asked, began: now, took, highest, share: SHARE, not_before: now, watchdog_at: now + WATCHDOG_PAUSE }
    }

    pub(super) fn with_share(self, share: u32) -> Self {
        Self { share, ..self }
    }

    /// Something has changed.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether the watchdog's time has come.
    pub(super) fn is_watchdog_due(&self, now: Instant) -> bool {
        now >= self.watchdog_at
    }

    /// The place from which to look now, at first `start`. None if it is not time.
    pub(super) fn next(&mut self, now: Instant, start: P) -> Option<P> {
        if now < self.not_before {
            return None;
        }
        if self.at.is_none() && (self.asked || self.is_watchdog_due(now)) {
            (self.at, self.asked, self.began) = (Some(start), false, now);
            (self.took, self.highest) = (Duration::ZERO, None);
        }
        self.at.clone()
    }

    /// Notes that a slice was looked through, in this time, up to the position `last`. `at` is where to look next; None if
    /// that was all.
    pub(super) fn looked(&mut self, at: Option<P>, last: Option<i64>, took: Duration, now: Instant) -> Looked {
        self.took += took;
        self.highest = self.highest.max(last);
        self.not_before = now + took.saturating_mul(self.share.saturating_sub(1));
        self.at = at;
        if self.at.is_some() {
            return Looked::More;
        }
        self.not_before = self.not_before.max(self.began + PAUSE);
        self.watchdog_at = now + WATCHDOG_PAUSE.max(self.took * WATCHDOG_SHARE);
        Looked::Through { highest: self.highest }
    }

    /// When there is something to look through.
    pub(super) fn wake_at(&self) -> Instant {
        if self.asked || self.at.is_some() { self.not_before } else { self.watchdog_at.max(self.not_before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const START: i64 = i64::MIN;

    #[test]
    fn a_change_is_looked_after_at_once_and_then_not_for_a_while() {
        let now = Instant::now();
        let mut sweep = Sweep::new(now);
        assert_eq!(sweep.next(now, START), None);
        sweep.ask();
        assert_eq!((sweep.wake_at(), sweep.next(now, START)), (now, Some(i64::MIN)));
        assert_eq!(sweep.looked(None, Some(7), MS, now), Looked::Through { highest: Some(7) });
        sweep.ask();
        assert_eq!((sweep.wake_at(), sweep.next(now, START)), (now + PAUSE, None));
        assert_eq!(sweep.next(now + PAUSE, START), Some(i64::MIN));
    }

    #[test]
    fn a_long_look_goes_slice_by_slice_and_leaves_time_for_others() {
        let now = Instant::now();
        let mut sweep = Sweep::new(now);
        sweep.ask();
        sweep.next(now, START);
        assert_eq!(sweep.looked(Some(4_097), Some(4_096), 10 * MS, now), Looked::More);
        assert_eq!(sweep.next(now + 29 * MS, START), None);
        assert_eq!(sweep.next(now + 30 * MS, START), Some(4_097));
        assert_eq!(sweep.looked(None, None, MS, now + 30 * MS), Looked::Through { highest: Some(4_096) });
    }

    #[test]
    fn the_watchdog_looks_without_being_asked_and_not_often() {
        let now = Instant::now();
        let mut sweep = Sweep::new(now);
        let later = now + WATCHDOG_PAUSE;
        assert!(sweep.is_watchdog_due(later));
        assert_eq!(sweep.next(later, START), Some(i64::MIN));
        sweep.looked(None, None, 100 * MS, later);
        assert!(!sweep.is_watchdog_due(later + 9 * WATCHDOG_PAUSE));
        assert_eq!(sweep.wake_at(), later + 10 * WATCHDOG_PAUSE);
    }
}
