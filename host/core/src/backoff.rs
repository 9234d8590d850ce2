//! How long to wait before the next attempt: exponential, with full jitter.

use std::time::Duration;

/// Exponential backoff with full jitter: the wait before attempt n + 1 is a random time between zero and `initial` ·
/// 2ⁿ⁻¹, at most `max`. So entries that failed together do not all come back together.
///
/// ```
/// use std::time::Duration;
/// use outbox_engine::Backoff;
///
/// let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
/// assert_eq!(backoff.delay(1, 0.5), Duration::from_millis(500));
/// assert_eq!(backoff.delay(3, 1.0), Duration::from_secs(4));
/// assert_eq!(backoff.delay(2_000, 1.0), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest delay after the first failure.
    pub initial: Duration,
    /// The longest delay after any number of failures.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(10 * 60) }
    }
}

impl Backoff {
    /// No delay at all: an entry that failed may be tried again at once.
    pub const NONE: Self = Self { initial: Duration::ZERO, max: Duration::ZERO };

    /// The delay after `failures` failures (1 or more). `jitter` is a random number from 0 to 1.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let longest = self.longest(failures);
        let seconds = longest.as_secs_f64() * jitter.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(longest)
    }

    /// The exponent is clamped before it is used: attempt 2,000 must not overflow.
    fn longest(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(100) };

    #[test]
    fn doubles_until_the_maximum() {
        let longest: Vec<u64> = (1..=9).map(|failures| BACKOFF.delay(failures, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
    }

    #[test]
    fn no_number_of_failures_and_no_setting_overflows() {
        let endless = Backoff { initial: Duration::MAX, max: Duration::MAX };
        for failures in [0, 1, 2, 32, 33, 64, 65, 2_000, u32::MAX] {
            assert!(BACKOFF.delay(failures, 1.0) <= BACKOFF.max, "{failures}");
            assert!(endless.delay(failures, 1.0) <= Duration::MAX, "{failures}");
        }
        assert_eq!(BACKOFF.delay(2_000, 1.0), BACKOFF.max);
    }

    #[test]
    fn jitter_spreads_over_the_whole_range_and_is_bounded() {
        assert_eq!(BACKOFF.delay(3, 0.0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(3, 0.25), Duration::from_secs(1));
        assert_eq!(BACKOFF.delay(3, 7.0), Duration::from_secs(4));
        assert_eq!(BACKOFF.delay(3, -1.0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(3, f64::NAN), Duration::from_secs(4));
    }
}
