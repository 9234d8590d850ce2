//! Whether a publisher may be called at all: it is left alone while it is unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::publishers::Legs;

/// Open, until the publisher says that it is unavailable. Then shut for a while, and after that open for a single
/// entry: what becomes of that one decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Shut { until: Instant, pauses: u32 },
    Probing { pauses: u32 },
}

/// How much may be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    Everything,
    /// One entry, and nothing beside it.
    Probe,
    Nothing,
}

impl Gate {
    pub(super) fn admits(self, now: Instant) -> Admits {
        match self {
            Self::Open => Admits::Everything,
            Self::Shut { until, .. } if now >= until => Admits::Probe,
            Self::Shut { .. } | Self::Probing { .. } => Admits::Nothing,
        }
    }

    /// How many times in a row the publisher was unavailable.
    pub(super) fn pauses(self) -> u32 {
        match self {
            Self::Open => 0,
            Self::Shut { pauses, .. } | Self::Probing { pauses } => pauses,
        }
    }

    /// When there is something to do; none while it waits for nothing.
    pub(super) fn wake_at(self) -> Option<Instant> {
        match self {
            Self::Shut { until, .. } => Some(until),
            Self::Open | Self::Probing { .. } => None,
        }
    }

    pub(super) fn probe(&mut self) {
        *self = Self::Probing { pauses: self.pauses() };
    }

    /// An entry's call said that the publisher is unavailable. What was under way when the gate was shut says nothing
    /// new, but for a longer time that the destination asks for.
    pub(super) fn unavailable(&mut self, delay: Duration, asked: Duration, now: Instant) {
        match self {
            Self::Shut { until, .. } => *until = (*until).max(now + asked),
            _ => *self = Self::Shut { until: now + delay, pauses: self.pauses().saturating_add(1) },
        }
    }

    /// An entry's call said anything else: the publisher is there.
    pub(super) fn available(&mut self) {
        if matches!(self, Self::Probing { .. }) {
            *self = Self::Open;
        }
    }

    /// The publisher is another one now: it need not be left alone for what the last one said.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let Self::Shut { until, .. } = self {
            *until = now;
        }
    }

    /// The probe ended without an answer.
    pub(super) fn unprobed(&mut self, now: Instant) {
        if let Self::Probing { pauses } = *self {
            *self = Self::Shut { until: now, pauses };
        }
    }
}

/// Which publishers may be called now: those that are in neither may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doors {
    /// Those that may not.
    pub(super) shut: Legs,
    /// Those that may for a single entry.
    pub(super) probed: Legs,
}

/// The publishers that a call has found unavailable: no job for them that is queued behind it is begun. A caller adds one
/// at once, before the session hears of it; only a probe removes it.
#[derive(Debug, Default)]
pub(super) struct LeftAlone(AtomicU64);

impl LeftAlone {
    pub(super) fn get(&self) -> Legs {
        Legs::of_bits(self.0.load(Ordering::Acquire))
    }

    pub(super) fn add(&self, leg: usize) {
        self.0.fetch_or(Legs::one(leg).bits(), Ordering::Release);
    }

    fn remove(&self, legs: Legs) {
        self.0.fetch_and(!legs.bits(), Ordering::Release);
    }
}

/// The gates of all publishers.
#[derive(Debug)]
pub(super) struct Gates {
    gates: Vec<Gate>,
    left_alone: Arc<LeftAlone>,
}

impl Gates {
    pub(super) fn new(publishers: usize) -> Self {
        Self { gates: vec![Gate::Open; publishers], left_alone: Arc::default() }
    }

    /// The callers' side of the gates.
    pub(super) fn left_alone(&self) -> Arc<LeftAlone> {
        self.left_alone.clone()
    }

    /// Which publishers may be called now. One is probed with nothing beside it: `is_running` says whether it is being
    /// called. In a pass none is.
    pub(super) fn doors(&self, now: Instant, in_pass: bool, is_running: impl Fn(usize) -> bool) -> Doors {
        let mut doors = Doors::default();
        for (leg, gate) in self.gates.iter().enumerate() {
            match gate.admits(now) {
                Admits::Everything => {}
                Admits::Probe if !in_pass && !is_running(leg) => doors.probed = doors.probed | Legs::one(leg),
                Admits::Probe | Admits::Nothing => doors.shut = doors.shut | Legs::one(leg),
            }
        }
        doors
    }

    pub(super) fn probe(&mut self, legs: Legs) {
        self.each(legs, Gate::probe);
        self.left_alone.remove(legs);
    }

    pub(super) fn available(&mut self, legs: Legs) {
        self.each(legs, Gate::available);
    }

    pub(super) fn hasten(&mut self, leg: usize, now: Instant) {
        self.each(Legs::one(leg), |gate| gate.hasten(now));
    }

    pub(super) fn unavailable(&mut self, leg: usize, delay: Duration, asked: Duration, now: Instant) {
        self.each(Legs::one(leg), |gate| gate.unavailable(delay, asked, now));
    }

    /// A probe that nobody is calling any more ended without an answer.
    pub(super) fn unprobed(&mut self, now: Instant, is_running: impl Fn(usize) -> bool) {
        let gates = self.gates.iter_mut().enumerate().filter(|(leg, _)| !is_running(*leg));
        gates.for_each(|(_, gate)| gate.unprobed(now));
    }

    pub(super) fn pauses(&self, leg: usize) -> u32 {
        self.gates.get(leg).map_or(0, |gate| gate.pauses())
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.gates.iter().filter_map(|gate| gate.wake_at()).min()
    }

    pub(super) fn all_open(&self) -> bool {
        self.gates.iter().all(|gate| *gate == Gate::Open)
    }

    fn each(&mut self, legs: Legs, change: impl Fn(&mut Gate)) {
        legs.iter().for_each(|leg| self.gates.get_mut(leg).into_iter().for_each(&change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn shut_then_one_probe_then_open() {
        let now = Instant::now();
        let mut gate = Gate::Open;
        assert_eq!(gate.admits(now), Admits::Everything);
        gate.unavailable(SECOND, Duration::ZERO, now);
        assert_eq!((gate.admits(now), gate.pauses()), (Admits::Nothing, 1));
        assert_eq!(gate.admits(now + SECOND), Admits::Probe);
        gate.probe();
        assert_eq!(gate.admits(now + SECOND), Admits::Nothing);
        gate.available();
        assert_eq!((gate, gate.pauses()), (Gate::Open, 0));
    }

    #[test]
    fn a_failed_probe_shuts_it_again_and_is_counted() {
        let now = Instant::now();
        let mut gate = Gate::Open;
        gate.unavailable(SECOND, Duration::ZERO, now);
        gate.probe();
        gate.unavailable(SECOND, Duration::ZERO, now + SECOND);
        assert_eq!(gate, Gate::Shut { until: now + 2 * SECOND, pauses: 2 });
    }

    #[test]
    fn a_probe_that_called_nobody_opens_nothing_and_the_next_one_follows() {
        let now = Instant::now();
        let mut gates = Gates::new(2);
        gates.unavailable(1, Duration::ZERO, Duration::ZERO, now);
        assert_eq!(gates.doors(now, false, |_| false), Doors { probed: Legs::one(1), ..Doors::default() });
        assert_eq!(gates.doors(now, true, |_| false).shut, Legs::one(1));
        gates.probe(Legs::one(1));
        assert_eq!(gates.doors(now, false, |_| true).shut, Legs::one(1));
        // The entry could not be decoded: nobody was asked.
        gates.available(Legs::NONE);
        gates.unprobed(now, |_| false);
        assert!(!gates.all_open());
        assert_eq!(gates.doors(now, false, |_| false).probed, Legs::one(1));
        gates.probe(Legs::one(1));
        gates.available(Legs::one(1));
        assert!(gates.all_open());
    }

    #[test]
    fn another_publisher_is_probed_at_once() {
        let now = Instant::now();
        let mut gate = Gate::Open;
        gate.hasten(now);
        assert_eq!(gate, Gate::Open);
        gate.unavailable(SECOND, Duration::ZERO, now);
        gate.hasten(now);
        assert_eq!(gate.admits(now), Admits::Probe);
    }

    #[test]
    fn what_was_under_way_says_nothing_new() {
        let now = Instant::now();
        let mut gate = Gate::Open;
        gate.unavailable(SECOND, Duration::ZERO, now);
        gate.unavailable(5 * SECOND, Duration::ZERO, now);
        gate.available();
        assert_eq!(gate, Gate::Shut { until: now + SECOND, pauses: 1 });
    }

    #[test]
    fn of_several_times_that_are_asked_for_the_longest_is_waited() {
        let now = Instant::now();
        let mut gate = Gate::Open;
        gate.unavailable(SECOND, Duration::ZERO, now);
        gate.unavailable(5 * SECOND, 5 * SECOND, now);
        gate.unavailable(2 * SECOND, 2 * SECOND, now);
        assert_eq!(gate, Gate::Shut { until: now + 5 * SECOND, pauses: 1 });
    }
}
