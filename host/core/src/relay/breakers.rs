//! The circuit breakers of all publishers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::breaker::{Admits, CircuitBreaker, Pause};
use super::failure_rate::FailureRate;
use crate::outbox::BreakerState;
use crate::publishers::PublisherSet;
use crate::raw::EntryId;
use crate::settlement::BreakerRules;
use crate::stream::StreamKey;

/// The most characters of a publisher's reason that are shown with its state.
const REASON_CHARS: usize = 1_000;

/// Which publishers may be called now: all that are in neither set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Admission {
    /// Those that may not.
    pub(super) refused: PublisherSet,
    /// Those that may be called for a single entry.
    pub(super) probed: PublisherSet,
}

impl Admission {
    /// The same, but these may not be called.
    pub(super) fn without(self, legs: PublisherSet) -> Self {
        Self { refused: self.refused | legs, probed: self.probed.without(legs) }
    }
}

/// The publishers that are unavailable: no further queued job for them begins. A caller adds one at once, before the
/// session knows of it; the session adds one whose calls fail. Only the begin of a probe removes it.
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

/// A call that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailedCall {
    pub(super) stream: StreamKey,
    pub(super) entry: EntryId,
    /// Whether it was the entry's first attempt.
    pub(super) is_first: bool,
    /// Whether the call counts with this entry, and not with another one that it was for.
    pub(super) counts: bool,
}

#[derive(Debug)]
struct Member {
    breaker: CircuitBreaker,
    rate: FailureRate,
    /// Its calls have failed for so long that they no longer count as an outage.
    gave_up: bool,
    /// Why it is not called.
    reason: String,
}

/// The circuit breakers of all publishers.
#[derive(Debug)]
pub(super) struct Breakers {
    members: Vec<Member>,
    patience: Duration,
    left_alone: Arc<LeftAlone>,
    /// Whether one has changed since this was last asked for.
    changed: bool,
}

impl Breakers {
    pub(super) fn new(publishers: usize, rules: BreakerRules) -> Self {
        let member = |_| Member {
            breaker: CircuitBreaker::Closed,
            rate: FailureRate::new(rules),
            gave_up: false,
            reason: String::new(),
        };
        let members = (0..publishers).map(member).collect();
        Self { members, patience: rules.patience, left_alone: Arc::default(), changed: true }
    }

    /// The callers' side of the breakers.
    pub(super) fn left_alone(&self) -> Arc<LeftAlone> {
        self.left_alone.clone()
    }

    /// Which publishers may be called now. A probe runs without any other call of its publisher; `is_running` says
    /// whether one is under way. A pass makes no probes.
    pub(super) fn admission(&self, now: Instant, in_pass: bool, is_running: impl Fn(usize) -> bool) -> Admission {
        let mut admission = Admission::default();
        for (leg, Member { breaker, .. }) in self.members.iter().enumerate() {
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
        self.each(legs, |member| member.breaker.probe());
        self.left_alone.remove(legs);
    }

    /// Takes in answers for this stream that are no failures. The calls of the publishers in `uncounted` count with
    /// another of their entries.
    pub(super) fn available(&mut self, legs: PublisherSet, uncounted: PublisherSet, stream: StreamKey) {
        self.each(legs.without(uncounted), |member| member.rate.answered(stream));
        self.each(legs.both(uncounted), |member| member.rate.answered_too(stream));
        self.each(legs, |member| {
            member.gave_up = false;
            member.breaker.available();
        });
    }

    /// Takes in a failure that says nothing of an outage.
    pub(super) fn answers(&mut self, leg: usize) {
        self.each(PublisherSet::one(leg), |member| member.breaker.answers());
    }

    pub(super) fn unavailable(&mut self, leg: usize, pause: Pause, reason: &str, now: Instant) {
        self.each(PublisherSet::one(leg), |member| {
            member.breaker.unavailable(pause, now);
            member.reason = reason.chars().take(REASON_CHARS).collect();
        });
    }

    /// Takes in a failed call. Returns whether it is due to an outage, and not to its entry.
    pub(super) fn failed(&mut self, leg: usize, call: FailedCall, pause: Pause, reason: &str, now: Instant) -> bool {
        let (patience, mut is_outage, mut is_failing) = (self.patience, false, false);
        self.each(PublisherSet::one(leg), |member| {
            is_outage = member.failed(call, pause, reason, patience, now);
            is_failing = member.breaker.is_failing();
        });
        if is_failing {
            self.left_alone.add(leg);
        }
        is_outage
    }

    /// Another version publishes now.
    pub(super) fn hasten(&mut self, leg: usize, now: Instant) {
        self.each(PublisherSet::one(leg), |member| {
            member.breaker.hasten(now);
            member.rate.forget();
            member.gave_up = false;
        });
    }

    /// Takes in that probes without a call under way ended without an answer.
    pub(super) fn unprobed(&mut self, now: Instant, is_running: impl Fn(usize) -> bool) {
        for leg in 0..self.members.len() {
            if !is_running(leg) {
                self.each(PublisherSet::one(leg), |member| member.breaker.unprobed(now));
            }
        }
    }

    pub(super) fn pauses(&self, leg: usize) -> u32 {
        self.members.get(leg).map_or(0, |member| member.breaker.pauses())
    }

    /// Why a publisher is not called.
    pub(super) fn reason(&self, leg: usize) -> &str {
        self.members.get(leg).map_or("", |member| &member.reason)
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.breaker.wake_at()).min()
    }

    pub(super) fn all_closed(&self) -> bool {
        self.members.iter().all(|member| member.breaker == CircuitBreaker::Closed)
    }

    /// Whether one has changed since this was last called.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Each breaker's state, when its pause is over, and why it is not closed.
    pub(super) fn states(&self) -> impl Iterator<Item = (BreakerState, Option<Instant>, &str)> {
        self.members.iter().map(|Member { breaker, reason, .. }| match breaker {
            CircuitBreaker::Closed => (BreakerState::Closed, None, ""),
            CircuitBreaker::Open { until, .. } => (BreakerState::Open, Some(*until), reason.as_str()),
            CircuitBreaker::HalfOpen { .. } => (BreakerState::HalfOpen, None, reason.as_str()),
        })
    }

    fn each(&mut self, legs: PublisherSet, mut change: impl FnMut(&mut Member)) {
        for leg in legs.iter() {
            let Some(member) = self.members.get_mut(leg) else { continue };
            let before = member.breaker;
            change(member);
            self.changed |= member.breaker != before;
        }
    }
}

impl Member {
    fn failed(&mut self, call: FailedCall, pause: Pause, reason: &str, patience: Duration, now: Instant) -> bool {
        self.breaker.answers();
        if self.breaker.gives_up(patience, now) {
            self.gave_up = true;
        }
        if self.gave_up {
            return false;
        }
        if self.breaker.is_failing() {
            let is_probe = matches!(self.breaker, CircuitBreaker::HalfOpen { .. });
            self.breaker.failing(pause, now);
            self.rate.failed_in_outage(call.stream, call.entry);
            return !(is_probe && self.rate.probed_again(call.entry));
        }
        if !call.counts {
            self.rate.called_for(call.stream);
            return false;
        }
        let outage = self.rate.failed(call.stream, call.entry, call.is_first);
        let Some(streams) = outage else { return false };
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        self.reason = format!("the last calls for {streams} streams failed: {reason}");
        self.rate.opened();
        self.rate.failed_in_outage(call.stream, call.entry);
        self.breaker.failing(pause, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Field;

    const SECOND: Duration = Duration::from_secs(1);
    const PAUSE: Pause = Pause { delay: SECOND, asked: Duration::ZERO };
    const NONE: Pause = Pause { delay: Duration::ZERO, asked: Duration::ZERO };

    fn leg() -> PublisherSet {
        PublisherSet::one(0)
    }

    fn first_of(stream: u64) -> FailedCall {
        let entry = EntryId::of(stream.cast_signed(), &Field::Null);
        FailedCall { stream: StreamKey(stream), entry, is_first: true, counts: true }
    }

    /// Breakers of one publisher whose calls for these streams fail. Returns for each whether it was due to an outage.
    fn failing(breakers: &mut Breakers, streams: std::ops::Range<u64>, now: Instant) -> Vec<bool> {
        streams.map(|stream| breakers.failed(0, first_of(stream), PAUSE, "500", now)).collect()
    }

    fn breakers() -> Breakers {
        Breakers::new(1, BreakerRules::default())
    }

    #[test]
    fn a_call_counts_once_however_many_streams_it_is_for() {
        let now = Instant::now();
        let of_call = |stream: u64| FailedCall { counts: stream.is_multiple_of(64), ..first_of(stream) };
        let mut breakers = breakers();
        let mut call = |streams: std::ops::Range<u64>| {
            streams
                .map(|stream| breakers.failed(0, of_call(stream), PAUSE, "500", now))
                .filter(|failed| *failed)
                .count()
        };
        assert_eq!((0..7).map(|number| call(number * 64..(number + 1) * 64)).sum::<usize>(), 0);
        assert_eq!(call(7 * 64..8 * 64), 64, "the eighth call that fails opens it, and none of it is an attempt");
    }

    #[test]
    fn what_a_call_delivers_beside_its_first_event_is_known_and_does_not_count() {
        let (now, mut breakers) = (Instant::now(), breakers());
        // A publisher of very many streams, each call of which has the same one in front.
        for stream in
            (0..100).flat_map(|call| (0..64).map(move |stream| if stream == 0 { 0 } else { call * 64 + stream }))
        {
            let uncounted = if stream == 0 { PublisherSet::NONE } else { leg() };
            breakers.available(leg(), uncounted, StreamKey(stream));
        }
        assert_eq!(failing(&mut breakers, 10_001..10_008, now), [false; 7], "three would be all that it has");
        assert_eq!(failing(&mut breakers, 10_008..10_009, now), [true]);
    }

    #[test]
    fn a_probe_that_called_nobody_opens_nothing_and_the_next_one_follows() {
        let now = Instant::now();
        let mut breakers = Breakers::new(2, BreakerRules::OFF);
        breakers.unavailable(1, NONE, "", now);
        assert_eq!(
            breakers.admission(now, false, |_| false),
            Admission { probed: PublisherSet::one(1), ..Admission::default() }
        );
        assert_eq!(breakers.admission(now, true, |_| false).refused, PublisherSet::one(1));
        breakers.probe(PublisherSet::one(1));
        assert_eq!(breakers.admission(now, false, |_| true).refused, PublisherSet::one(1));
        // The entry could not be decoded, so no publisher was called.
        breakers.available(PublisherSet::NONE, PublisherSet::NONE, StreamKey(0));
        breakers.unprobed(now, |_| false);
        assert!(!breakers.all_closed());
        assert_eq!(breakers.admission(now, false, |_| false).probed, PublisherSet::one(1));
        breakers.probe(PublisherSet::one(1));
        breakers.available(PublisherSet::one(1), PublisherSet::NONE, StreamKey(0));
        assert!(breakers.all_closed());
    }

    #[test]
    fn an_outage_uses_up_an_attempt_of_the_first_few_entries_and_then_of_none() {
        let now = Instant::now();
        let mut breakers = breakers();
        (0..100).for_each(|stream| {
            breakers.available(leg(), PublisherSet::NONE, StreamKey(stream));
        });
        // Calls that were under way end after it has opened.
        let failed = failing(&mut breakers, 0..20, now);
        assert_eq!(failed.iter().filter(|is_outage| !**is_outage).count(), 7);
        assert!(failed[7..].iter().all(|is_outage| *is_outage), "{failed:?}");
        assert_eq!((breakers.admission(now, false, |_| false).refused, breakers.left_alone().get()), (leg(), leg()));
        // Each probe fails, whosever entry it is, for two minutes.
        for second in 1..=120 {
            let now = now + second * SECOND;
            assert_eq!(breakers.admission(now, false, |_| false).probed, leg());
            breakers.probe(leg());
            assert_eq!(breakers.left_alone().get(), PublisherSet::NONE);
            let probe = FailedCall { is_first: false, ..first_of(u64::from(second) % 3) };
            assert!(breakers.failed(0, probe, PAUSE, "500", now));
        }
        breakers.probe(leg());
        breakers.available(leg(), PublisherSet::NONE, StreamKey(0));
        assert!(breakers.all_closed());
        assert!(!breakers.failed(0, first_of(3), PAUSE, "500", now), "one failure after it is no outage");
    }

    #[test]
    fn after_its_patience_failures_count_until_something_is_delivered() {
        let now = Instant::now();
        let mut breakers = breakers();
        failing(&mut breakers, 0..8, now);
        let later = now + BreakerRules::default().patience;
        breakers.probe(leg());
        assert!(!breakers.failed(0, first_of(9), PAUSE, "500", later));
        assert!(breakers.all_closed());
        assert!(!failing(&mut breakers, 0..100, later).contains(&true));
        breakers.available(leg(), PublisherSet::NONE, StreamKey(0));
        assert!(failing(&mut breakers, 0..100, later).contains(&true));
    }

    #[test]
    fn it_says_why_and_when_it_has_changed() {
        let now = Instant::now();
        let mut breakers = breakers();
        assert!(breakers.take_changed() && !breakers.take_changed());
        failing(&mut breakers, 0..8, now);
        assert!(breakers.take_changed());
        let said = "the last calls for 8 streams failed: 500";
        assert_eq!(breakers.states().next(), Some((BreakerState::Open, Some(now + SECOND), said)));
        breakers.probe(leg());
        assert_eq!(breakers.states().next(), Some((BreakerState::HalfOpen, None, said)));
        breakers.available(leg(), PublisherSet::NONE, StreamKey(0));
        assert_eq!(breakers.states().next(), Some((BreakerState::Closed, None, "")));
        assert!(breakers.take_changed());
        breakers.available(leg(), PublisherSet::NONE, StreamKey(0));
        assert!(!breakers.take_changed());
    }

    #[test]
    fn another_version_is_judged_anew() {
        let now = Instant::now();
        let mut breakers = breakers();
        failing(&mut breakers, 0..8, now);
        breakers.hasten(0, now);
        assert_eq!(breakers.admission(now, false, |_| false).probed, leg());
    }
}
