//! A token bucket.

use std::time::{Duration, Instant};

use crate::rate::RateLimit;

/// How a bucket is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refill {
    /// The time in which one token comes.
    interval: Duration,
    /// How many it holds.
    burst: u32,
}

/// A bucket: each entry takes a token. It may be in debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: Instant,
}

impl Refill {
    pub(super) fn of(limit: &RateLimit) -> Self {
        Self { interval: limit.rate.interval().max(Duration::from_nanos(1)), burst: limit.burst().get() }
    }

    /// The time in which so many tokens come.
    fn time(self, tokens: u32) -> Duration {
        self.interval.saturating_mul(tokens)
    }
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// When it is full again.
    pub(super) fn full_at(self) -> Instant {
        self.full_at
    }

    pub(super) fn is_full(self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// How many tokens it has.
    pub(super) fn tokens(self, refill: Refill, now: Instant) -> u32 {
        let missing = self.full_at.saturating_duration_since(now).as_nanos().div_ceil(refill.interval.as_nanos());
        refill.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// When it has a token; in the past if it has one now.
    pub(super) fn next(self, refill: Refill) -> Instant {
        let all_but_one = refill.time(refill.burst - 1);
        self.full_at.checked_sub(all_but_one).unwrap_or(self.full_at)
    }

    pub(super) fn take(&mut self, tokens: u32, refill: Refill, now: Instant) {
        let from = self.full_at.max(now);
        self.full_at = from.checked_add(refill.time(tokens)).unwrap_or(from);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const TEN_A_SECOND: Refill = Refill { interval: Duration::from_millis(100), burst: 3 };

    fn after(now: Instant, milliseconds: u64) -> Instant {
        now + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_burst_passes_at_once_and_then_one_in_each_interval() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        assert_eq!((bucket.tokens(TEN_A_SECOND, now), bucket.is_full(now)), (3, true));
        bucket.take(3, TEN_A_SECOND, now);
        assert_eq!((bucket.tokens(TEN_A_SECOND, now), bucket.next(TEN_A_SECOND)), (0, after(now, 100)));
        assert_eq!(bucket.tokens(TEN_A_SECOND, after(now, 99)), 0);
        assert_eq!(bucket.tokens(TEN_A_SECOND, after(now, 100)), 1);
        bucket.take(1, TEN_A_SECOND, after(now, 150));
        assert_eq!(bucket.next(TEN_A_SECOND), after(now, 200), "the time after the token's is not lost");
        assert_eq!(bucket.tokens(TEN_A_SECOND, after(now, 60_000)), 3);
    }

    #[test]
    fn a_debt_is_paid_before_anything_passes() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        bucket.take(5, TEN_A_SECOND, now);
        assert_eq!((bucket.tokens(TEN_A_SECOND, now), bucket.next(TEN_A_SECOND)), (0, after(now, 300)));
    }

    #[test]
    fn the_slowest_and_the_fastest_overflow_nothing() {
        let now = Instant::now();
        for rate in ["1/d".to_owned(), format!("{}/s", u32::MAX)] {
            let limit = RateLimit { burst: NonZeroU32::new(u32::MAX), ..RateLimit::of(rate.parse().unwrap()) };
            let (refill, mut bucket) = (Refill::of(&limit), Bucket::full(now));
            (0..3).for_each(|_| bucket.take(u32::MAX, refill, now));
            assert_eq!(bucket.tokens(refill, now), 0);
            bucket.next(refill);
        }
    }
}
