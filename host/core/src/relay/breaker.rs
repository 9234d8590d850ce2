//! A circuit breaker for each publisher: an unavailable publisher is not called for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::publishers::PublisherSet;

/// Closed while the publisher answers. Open for a pause after the publisher was unavailable, and then half open: a
/// single entry, the probe, is tried, and its answer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CircuitBreaker {
    Closed,
    Open { until: Instant, pauses: u32 },
    HalfOpen { pauses: u32 },
}

/// How much may be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    Everything,
    /// One entry, and nothing beside it.
    Probe,
    Nothing,
}

impl CircuitBreaker {
    pub(super) fn admits(self, now: Instant) -> Admits {
        match self {
            Self::Closed => Admits::Everything,
            Self::Open { until, .. } if now >= until => Admits::Probe,
            Self::Open { .. } | Self::HalfOpen { .. } => Admits::Nothing,
        }
    }

    /// How many times in a row the publisher was unavailable.
    pub(super) fn pauses(self) -> u32 {
        match self {
            Self::Closed => 0,
            Self::Open { pauses, .. } | Self::HalfOpen { pauses } => pauses,
        }
    }

    /// When the pause is over. None if there is no pause.
    pub(super) fn wake_at(self) -> Option<Instant> {
        match self {
            Self::Open { until, .. } => Some(until),
            Self::Closed | Self::HalfOpen { .. } => None,
        }
    }

    pub(super) fn probe(&mut self) {
        *self = Self::HalfOpen { pauses: self.pauses() };
    }

    /// Takes in that the publisher is unavailable. If the breaker is open already, calls that were under way say
    /// nothing new, except that the destination may ask for a longer time.
    pub(super) fn unavailable(&mut self, delay: Duration, asked: Duration, now: Instant) {
        match self {
            Self::Open { until, .. } => *until = (*until).max(now + asked),
            _ => *self = Self::Open { until: now + delay, pauses: self.pauses().saturating_add(1) },
        }
    }

    /// Takes in any other answer: the publisher is available.
    pub(super) fn available(&mut self) {
        if matches!(self, Self::HalfOpen { .. }) {
            *self = Self::Closed;
        }
    }

    /// Ends the pause at once: another version publishes now, and the answer of the last one does not count.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let Self::Open { until, .. } = self {
            *until = now;
        }
    }

    /// The probe ended without an answer.
    pub(super) fn unprobed(&mut self, now: Instant) {
        if let Self::HalfOpen { pauses } = *self {
            *self = Self::Open { until: now, pauses };
        }
    }
}

/// Which publishers may be called now: all that are in neither set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Admission {
    /// Those that may not.
    pub(super) refused: PublisherSet,
    /// Those that may be called for a single entry.
    pub(super) probed: PublisherSet,
}

/// The publishers that a call has found unavailable: no further queued job for them begins. A caller adds one at once,
/// before the session knows of it; only the begin of a probe removes it.
#[derive(Debug, Default)]
pub(super) struct LeftAlone(AtomicU64);

impl LeftAlone {
    pub(super) fn get(&self) -> PublisherSet {
        PublisherSet::of_bits(self.0.load(Ordering::Acquire))
    }

    pub(super) fn add(&self, leg: usize) {
        self.0.fetch_or(PublisherSet::one(leg).bits(), Ordering::Release);
    }

    fn remove(&self, legs: PublisherSet) {
        self.0.fetch_and(!legs.bits(), Ordering::Release);
    }
}

/// The circuit breakers of all publishers.
#[derive(Debug)]
pub(super) struct Breakers {
    breakers: Vec<CircuitBreaker>,
    left_alone: Arc<LeftAlone>,
}

impl Breakers {
    pub(super) fn new(publishers: usize) -> Self {
        Self { breakers: vec![CircuitBreaker::Closed; publishers], left_alone: Arc::default() }
    }

    /// The callers' side of the breakers.
    pub(super) fn left_alone(&self) -> Arc<LeftAlone> {
        self.left_alone.clone()
    }

    /// Which publishers may be called now. A probe runs without any other call of its publisher; `is_running` says
    /// whether one is under way. A pass makes no probes.
    pub(super) fn admission(&self, now: Instant, in_pass: bool, is_running: impl Fn(usize) -> bool) -> Admission {
        let mut admission = Admission::default();
        for (leg, breaker) in self.breakers.iter().enumerate() {
            match breaker.admits(now) {
                Admits::Everything => {}
                Admits::Probe if !in_pass && !is_running(leg) => {
                    admission.probed = admission.probed | PublisherSet::one(leg)
                }
                Admits::Probe | Admits::Nothing => admission.refused = admission.refused | PublisherSet::one(leg),
            }
        }
        admission
    }

    pub(super) fn probe(&mut self, legs: PublisherSet) {
        self.each(legs, CircuitBreaker::probe);
        self.left_alone.remove(legs);
    }

    pub(super) fn available(&mut self, legs: PublisherSet) {
        self.each(legs, CircuitBreaker::available);
    }

    pub(super) fn hasten(&mut self, leg: usize, now: Instant) {
        self.each(PublisherSet::one(leg), |breaker| breaker.hasten(now));
    }

    pub(super) fn unavailable(&mut self, leg: usize, delay: Duration, asked: Duration, now: Instant) {
        self.each(PublisherSet::one(leg), |breaker| breaker.unavailable(delay, asked, now));
    }

    /// Takes in that probes without a call under way ended without an answer.
    pub(super) fn unprobed(&mut self, now: Instant, is_running: impl Fn(usize) -> bool) {
        let breakers = self.breakers.iter_mut().enumerate().filter(|(leg, _)| !is_running(*leg));
        breakers.for_each(|(_, breaker)| breaker.unprobed(now));
    }

    pub(super) fn pauses(&self, leg: usize) -> u32 {
        self.breakers.get(leg).map_or(0, |breaker| breaker.pauses())
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.breakers.iter().filter_map(|breaker| breaker.wake_at()).min()
    }

    pub(super) fn all_closed(&self) -> bool {
        self.breakers.iter().all(|breaker| *breaker == CircuitBreaker::Closed)
    }

    fn each(&mut self, legs: PublisherSet, change: impl Fn(&mut CircuitBreaker)) {
        legs.iter().for_each(|leg| self.breakers.get_mut(leg).into_iter().for_each(&change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn open_then_one_probe_then_closed() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        assert_eq!(breaker.admits(now), Admits::Everything);
        breaker.unavailable(SECOND, Duration::ZERO, now);
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
        breaker.unavailable(SECOND, Duration::ZERO, now);
        breaker.probe();
        breaker.unavailable(SECOND, Duration::ZERO, now + SECOND);
        assert_eq!(breaker, CircuitBreaker::Open { until: now + 2 * SECOND, pauses: 2 });
    }

    #[test]
    fn a_probe_that_called_nobody_opens_nothing_and_the_next_one_follows() {
        let now = Instant::now();
        let mut breakers = Breakers::new(2);
        breakers.unavailable(1, Duration::ZERO, Duration::ZERO, now);
        assert_eq!(
            breakers.admission(now, false, |_| false),
            Admission { probed: PublisherSet::one(1), ..Admission::default() }
        );
        assert_eq!(breakers.admission(now, true, |_| false).refused, PublisherSet::one(1));
        breakers.probe(PublisherSet::one(1));
        assert_eq!(breakers.admission(now, false, |_| true).refused, PublisherSet::one(1));
        // The entry could not be decoded, so no publisher was called.
        breakers.available(PublisherSet::NONE);
        breakers.unprobed(now, |_| false);
        assert!(!breakers.all_closed());
        assert_eq!(breakers.admission(now, false, |_| false).probed, PublisherSet::one(1));
        breakers.probe(PublisherSet::one(1));
        breakers.available(PublisherSet::one(1));
        assert!(breakers.all_closed());
    }

    #[test]
    fn another_publisher_is_probed_at_once() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.hasten(now);
        assert_eq!(breaker, CircuitBreaker::Closed);
        breaker.unavailable(SECOND, Duration::ZERO, now);
        breaker.hasten(now);
        assert_eq!(breaker.admits(now), Admits::Probe);
    }

    #[test]
    fn what_was_under_way_says_nothing_new() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(SECOND, Duration::ZERO, now);
        breaker.unavailable(5 * SECOND, Duration::ZERO, now);
        breaker.available();
        assert_eq!(breaker, CircuitBreaker::Open { until: now + SECOND, pauses: 1 });
    }

    #[test]
    fn of_several_times_that_are_asked_for_the_longest_is_waited() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::Closed;
        breaker.unavailable(SECOND, Duration::ZERO, now);
        breaker.unavailable(5 * SECOND, 5 * SECOND, now);
        breaker.unavailable(2 * SECOND, 2 * SECOND, now);
        assert_eq!(breaker, CircuitBreaker::Open { until: now + 5 * SECOND, pauses: 1 });
    }
}
