//! A circuit breaker: a publisher that is unavailable, or whose calls all fail, is not called for a while.

use std::time::{Duration, Instant};

/// Closed while the publisher answers. Open for a pause after the publisher was unavailable or its calls failed, and
/// then half open: a single entry, the probe, is tried, and its answer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CircuitBreaker {
    Closed,
    Open { until: Instant, pauses: u32, cause: Cause },
    HalfOpen { pauses: u32, cause: Cause },
}

/// Why a breaker is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The publisher has said that it is unavailable. Any other answer closes the breaker.
    Unavailable,
    /// Its calls fail, since then. Only an answer that is no failure closes the breaker.
    Failing { since: Instant },
}

/// How much may be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    Everything,
    /// One entry, and nothing beside it.
    Probe,
    Nothing,
}

/// How long to leave a publisher alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) delay: Duration,
    /// For how long the publisher asked; at most `delay`.
    pub(super) asked: Duration,
}

impl CircuitBreaker {
    pub(super) fn admits(self, now: Instant) -> Admits {
        match self {
            Self::Closed => Admits::Everything,
            Self::Open { until, .. } if now >= until => Admits::Probe,
            Self::Open { .. } | Self::HalfOpen { .. } => Admits::Nothing,
        }
    }

    /// How many times in a row the publisher was paused.
    pub(super) fn pauses(self) -> u32 {
        match self {
            Self::Closed => 0,
            Self::Open { pauses, .. } | Self::HalfOpen { pauses, .. } => pauses,
        }
    }

    /// Why it is not closed. None if it is.
    pub(super) fn cause(self) -> Option<Cause> {
        match self {
            Self::Closed => None,
            Self::Open { cause, .. } | Self::HalfOpen { cause, .. } => Some(cause),
        }
    }

    /// Whether failures of the publisher are an outage, and not the fault of its entries.
    pub(super) fn is_failing(self) -> bool {
        matches!(self.cause(), Some(Cause::Failing { .. }))
    }

    /// When the pause is over. None if there is no pause.
    pub(super) fn wake_at(self) -> Option<Instant> {
        match self {
            Self::Open { until, .. } => Some(until),
            Self::Closed | Self::HalfOpen { .. } => None,
        }
    }

    pub(super) fn probe(&mut self) {
        if let Self::Open { pauses, cause, .. } = *self {
            *self = Self::HalfOpen { pauses, cause };
        }
    }

    /// Takes in that the publisher is unavailable. If the breaker is open already, calls that were under way say
    /// nothing new, except that the destination may ask for a longer time.
    pub(super) fn unavailable(&mut self, pause: Pause, now: Instant) {
        let cause = self.cause().unwrap_or(Cause::Unavailable);
        self.open(pause, cause, now);
    }

    /// Takes in that the publisher's calls fail, now or still.
    pub(super) fn failing(&mut self, pause: Pause, now: Instant) {
        let cause = self.cause().filter(|_| self.is_failing()).unwrap_or(Cause::Failing { since: now });
        self.open(pause, cause, now);
    }

    fn open(&mut self, pause: Pause, cause: Cause, now: Instant) {
        *self = match *self {
            Self::Open { until, pauses, .. } => Self::Open { until: until.max(now + pause.asked), pauses, cause },
            _ => Self::Open { until: now + pause.delay, pauses: self.pauses().saturating_add(1), cause },
        };
    }

    /// Takes in an answer that is no failure: the publisher is available.
    pub(super) fn available(&mut self) {
        if matches!(self, Self::HalfOpen { .. }) {
            *self = Self::Closed;
        }
    }

    /// Takes in a failed call: a publisher that was unavailable answers again. Whether its calls fail, one call does not
    /// say.
    pub(super) fn answers(&mut self) {
        if !self.is_failing() {
            self.available();
        }
    }

    /// Closes the breaker if the probes have failed for longer than `patience`. Returns whether they have.
    pub(super) fn gives_up(&mut self, patience: Duration, now: Instant) -> bool {
        let Self::HalfOpen { cause: Cause::Failing { since }, .. } = *self else { return false };
        let gives_up = now.saturating_duration_since(since) >= patience;
        if gives_up {
            *self = Self::Closed;
        }
        gives_up
    }

    /// Ends the pause at once: another version publishes now, and the answer of the last one does not count.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let Self::Open { until, .. } = self {
            *until = now;
        }
    }

    /// The probe ended without an answer.
    pub(super) fn unprobed(&mut self, now: Instant) {
        if let Self::HalfOpen { pauses, cause } = *self {
            *self = Self::Open { until: now, pauses, cause };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PAUSE: Pause = Pause { delay: SECOND, asked: Duration::ZERO };

    fn asked(seconds: u32) -> Pause {
        Pause { delay: seconds * SECOND, asked: seconds * SECOND }
    }

    /// A breaker that failures have opened, and then its probe.
    fn half_open(now: Instant) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::Closed;
        breaker.failing(PAUSE, now);
        breaker.probe();
        breaker
    }

    #[test]
    fn open_then_one_probe_then_closed() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        assert_eq!(breaker.admits(now), Admits::Everything);
        breaker.unavailable(PAUSE, now);
        assert_eq!((breaker.admits(now), breaker.pauses()), (Admits::Nothing, 1));
        assert_eq!(breaker.admits(now + SECOND), Admits::Probe);
        breaker.probe();
        assert_eq!(breaker.admits(now + SECOND), Admits::Nothing);
        breaker.available();
        assert_eq!((breaker, breaker.pauses()), (CircuitBreaker::Closed, 0));
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_is_counted() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(PAUSE, now);
        breaker.probe();
        breaker.unavailable(PAUSE, now + SECOND);
        let (until, cause) = (now + 2 * SECOND, Cause::Unavailable);
        assert_eq!(breaker, CircuitBreaker::Open { until, pauses: 2, cause });
    }

    #[test]
    fn another_publisher_is_probed_at_once() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.hasten(now);
        assert_eq!(breaker, CircuitBreaker::Closed);
        breaker.unavailable(PAUSE, now);
        breaker.hasten(now);
        assert_eq!(breaker.admits(now), Admits::Probe);
    }

    #[test]
    fn what_was_under_way_says_nothing_new() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(PAUSE, now);
        breaker.unavailable(Pause { delay: 5 * SECOND, ..PAUSE }, now);
        breaker.available();
        assert_eq!(breaker, CircuitBreaker::Open { until: now + SECOND, pauses: 1, cause: Cause::Unavailable });
    }

    #[test]
    fn of_several_times_that_are_asked_for_the_longest_is_waited() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(PAUSE, now);
        breaker.unavailable(asked(5), now);
        breaker.unavailable(asked(2), now);
        assert_eq!(breaker, CircuitBreaker::Open { until: now + 5 * SECOND, pauses: 1, cause: Cause::Unavailable });
    }

    #[test]
    fn a_probe_that_fails_closes_a_breaker_that_was_open_because_the_publisher_was_unavailable() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(PAUSE, now);
        breaker.probe();
        breaker.answers();
        assert_eq!(breaker, CircuitBreaker::Closed);
    }

    #[test]
    fn a_probe_that_fails_leaves_a_breaker_open_that_failures_have_opened() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        breaker.answers();
        breaker.failing(PAUSE, now + SECOND);
        let cause = Cause::Failing { since: now };
        assert_eq!(breaker, CircuitBreaker::Open { until: now + 2 * SECOND, pauses: 2, cause });
        breaker.probe();
        breaker.unavailable(PAUSE, now + 2 * SECOND);
        assert_eq!(breaker, CircuitBreaker::Open { until: now + 3 * SECOND, pauses: 3, cause });
        breaker.probe();
        breaker.available();
        assert_eq!(breaker, CircuitBreaker::Closed);
    }

    #[test]
    fn failures_make_an_outage_of_a_publisher_that_is_unavailable() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(PAUSE, now);
        breaker.failing(PAUSE, now);
        let cause = Cause::Failing { since: now };
        assert_eq!(breaker, CircuitBreaker::Open { until: now + SECOND, pauses: 1, cause });
    }

    #[test]
    fn failures_are_no_outage_for_ever() {
        let now = Instant::now();
        let patience = 60 * SECOND;
        let mut breaker = half_open(now);
        assert!(!breaker.gives_up(patience, now + 59 * SECOND) && breaker.is_failing());
        assert!(breaker.gives_up(patience, now + patience));
        assert_eq!(breaker, CircuitBreaker::Closed);
        assert!(!breaker.gives_up(patience, now + patience));
    }
}
