//! How much of a publisher's work is handed over at once, if tenants have turns: what is handed over goes before whatever
//! comes later. So it is about as much as is called in a few milliseconds, and no less than one call for each caller.

use std::time::{Duration, Instant};

use super::{JOB_MAX, LaneId};

/// A job should be over after this time, waiting included.
const TARGET: Duration = Duration::from_millis(5);
/// The most entries that are handed over.
const ENTRIES_MAX: usize = 2_048;

/// A publisher's pace.
#[derive(Debug)]
pub(in crate::relay) struct Pace {
    callers: usize,
    /// The most entries of one call.
    call: usize,
    /// How many entries may be under way.
    most: usize,
    under_way: usize,
    /// A job whose time is measured.
    measured: Option<(LaneId, Instant)>,
}

impl Pace {
    /// Of a publisher with so many callers, who take at most `call` entries with one call.
    pub(in crate::relay) fn new(callers: usize, call: usize) -> Self {
        let (callers, call) = (callers.max(1), call.max(1));
        Self { callers, call, most: callers.saturating_mul(call), under_way: 0, measured: None }
    }

    /// Another version of the publisher may take more or fewer entries with one call.
    pub(super) fn set_call(&mut self, call: usize) {
        self.call = call.max(1);
        self.most = self.most.max(self.least());
    }

    /// A call for each caller.
    fn least(&self) -> usize {
        self.callers.saturating_mul(self.call)
    }

    pub(super) fn has_room(&self) -> bool {
        self.under_way < self.most
    }

    /// The most entries of a job.
    pub(super) fn job_max(&self) -> usize {
        (self.most / self.callers).clamp(1, JOB_MAX)
    }

    pub(super) fn begun(&mut self, lane: LaneId, entries: usize, now: Instant) {
        self.under_way += entries;
        self.measured.get_or_insert((lane, now));
    }

    pub(super) fn ended(&mut self, lane: LaneId, entries: usize, now: Instant) {
        self.under_way = self.under_way.saturating_sub(entries);
        if let Some((_, since)) = self.measured.take_if(|(measured, _)| *measured == lane) {
            let is_slow = now.saturating_duration_since(since) > TARGET;
            let next = if is_slow { self.most / 2 } else { self.most.saturating_mul(2) };
            self.most = next.clamp(self.least(), ENTRIES_MAX.max(self.least()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(1);

    fn rounds(pace: &mut Pace, number: usize, took: Duration) {
        let now = Instant::now();
        for _ in 0..number {
            pace.begun(LANE, 1, now);
            pace.ended(LANE, 1, now + took);
        }
    }

    #[test]
    fn a_fast_publisher_gets_much_at_once_and_a_slow_one_a_call_for_each_caller() {
        let mut pace = Pace::new(8, 1);
        assert_eq!((pace.job_max(), pace.most), (1, 8));
        rounds(&mut pace, 20, Duration::from_micros(100));
        assert_eq!((pace.job_max(), pace.most), (JOB_MAX, ENTRIES_MAX));
        rounds(&mut pace, 20, Duration::from_millis(100));
        assert_eq!((pace.job_max(), pace.most), (1, 8));
        (0..8).for_each(|_| pace.begun(LANE, 1, Instant::now()));
        assert!(!pace.has_room());
    }

    #[test]
    fn a_slow_publisher_that_takes_batches_gets_whole_ones() {
        let mut pace = Pace::new(2, 50);
        rounds(&mut pace, 20, Duration::from_secs(1));
        assert_eq!((pace.job_max(), pace.most), (50, 100));
        pace.set_call(500);
        assert_eq!((pace.job_max(), pace.most), (JOB_MAX, 1_000), "a call takes several jobs");
        pace.set_call(1);
        rounds(&mut pace, 20, Duration::from_secs(1));
        assert_eq!((pace.job_max(), pace.most), (1, 2));
    }
}
