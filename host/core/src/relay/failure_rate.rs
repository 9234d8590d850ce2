//! Tells an outage of a destination from entries that fail by themselves: counts, for one publisher, in how many streams
//! the last calls failed.
//!
//! An entry counts only with its first attempt: one that fails again and again says nothing new, and once each stream
//! stands still before such an entry, nothing but their retries is left. A stream counts once among the last calls, and
//! one that failed while others were delivered counts no more, until something of it is delivered.

use std::collections::{HashSet, VecDeque};

use crate::raw::EntryId;
use crate::settlement::BreakerRules;
use crate::stream::StreamKey;

/// Fewer streams than this prove nothing: a single one, or two, may just have bad entries.
const STREAMS_MIN: usize = 3;
/// The most failures that the rules may ask for: this many streams are remembered.
const FAILURES_MAX: usize = 100;
/// How many streams are remembered as bad: further ones count like others.
const BAD_MAX: usize = 10_000;
/// How many entries that failed in an outage are remembered.
const TRIED_MAX: usize = 10_000;
/// The most calls among which the rules may look for them.
const CALLS_MAX: u64 = 1_000;

/// The failures among the last calls of a publisher.
#[derive(Debug)]
pub(super) struct FailureRate {
    /// How many streams must have failed; 0 if no number is enough.
    failures: usize,
    /// Among how many of the last calls.
    among: u64,
    /// How many calls have ended.
    calls: u64,
    /// How many of them were answered for good.
    answered: u64,
    /// The failures among the last calls, each of another stream, oldest first.
    failed: VecDeque<Failed>,
    /// The streams that it was called for lately, the last one first, at most as many as must fail.
    streams: VecDeque<StreamKey>,
    /// The streams that have failed while others were delivered.
    bad: HashSet<StreamKey>,
    /// The entries that have failed in an outage, at no cost of an attempt: their next failure is no first one.
    tried: HashSet<EntryId>,
    /// The entries of the last probes that failed.
    probes: VecDeque<EntryId>,
}

#[derive(Debug)]
struct Failed {
    stream: StreamKey,
    /// The call's number.
    call: u64,
}

impl FailureRate {
    pub(super) fn new(rules: BreakerRules) -> Self {
        let failures = usize::try_from(rules.failures).unwrap_or(FAILURES_MAX).min(FAILURES_MAX);
        let among = u64::from(rules.calls).clamp(failures as u64, CALLS_MAX);
        let (failed, streams, probes) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (bad, tried) = (HashSet::new(), HashSet::new());
        Self { failures, among, calls: 0, answered: 0, failed, streams, bad, tried, probes }
    }

    /// Notes that the publisher was called for this stream.
    pub(super) fn called_for(&mut self, stream: StreamKey) {
        if self.streams.front() == Some(&stream) {
            return;
        }
        match self.streams.iter().position(|known| *known == stream) {
            Some(known) => _ = self.streams.remove(known),
            None => self.streams.truncate(self.failures.saturating_sub(1)),
        }
        self.streams.push_front(stream);
    }

    /// Notes a call for this stream that the publisher has answered for good.
    pub(super) fn answered(&mut self, stream: StreamKey) {
        self.calls = self.calls.saturating_add(1);
        self.answered = self.answered.saturating_add(1);
        self.answered_too(stream);
    }

    /// Notes that the publisher has answered for this stream for good, in a call that counts with another one.
    pub(super) fn answered_too(&mut self, stream: StreamKey) {
        self.called_for(stream);
        if !self.bad.is_empty() {
            self.bad.remove(&stream);
        }
    }

    /// Notes a call that failed, `is_first` if it was the first attempt of its entry. Returns in how many streams the
    /// last calls failed, if that is an outage.
    pub(super) fn failed(&mut self, stream: StreamKey, entry: EntryId, is_first: bool) -> Option<usize> {
        self.called_for(stream);
        let (needed, window) = self.needed();
        self.forget_before(self.calls.saturating_add(1).saturating_sub(window));
        let counts = is_first && !self.bad.contains(&stream) && !self.tried.contains(&entry);
        if self.failures == 0 || !counts || self.failed.iter().any(|failed| failed.stream == stream) {
            return None;
        }
        self.calls = self.calls.saturating_add(1);
        self.failed.push_back(Failed { stream, call: self.calls });
        let failing = self.failed.len();
        (failing >= needed).then_some(failing)
    }

    /// Drops the failures up to this call. Others were delivered after them, so their streams were to blame.
    fn forget_before(&mut self, call: u64) {
        while self.failed.front().is_some_and(|failed| failed.call <= call)
            && let Some(failed) = self.failed.pop_front()
        {
            self.is_bad(failed.stream);
        }
    }

    /// How many streams must have failed, and among how many calls. A publisher that is known to have fewer streams
    /// fails in all of them, in as large a part of its calls.
    fn needed(&self) -> (usize, u64) {
        let few = if self.answered < self.among { self.failures } else { self.streams.len().max(STREAMS_MIN) };
        let needed = self.failures.min(few);
        let window = self.among * needed as u64 / (self.failures as u64).max(1);
        (needed, window.max(needed as u64))
    }

    /// Takes in that the breaker has opened. Its streams count no more until something of them is delivered: should
    /// others be delivered before them, they were to blame.
    pub(super) fn opened(&mut self) {
        self.probes.clear();
        let streams: Vec<StreamKey> = self.failed.drain(..).map(|failed| failed.stream).collect();
        streams.into_iter().for_each(|stream| self.is_bad(stream));
    }

    /// Takes in a failure in an outage.
    pub(super) fn failed_in_outage(&mut self, stream: StreamKey, entry: EntryId) {
        self.is_bad(stream);
        if self.tried.len() >= TRIED_MAX {
            self.tried.clear();
        }
        self.tried.insert(entry);
    }

    /// Notes a probe that failed. Returns whether it had its turn again before two others: so few entries prove nothing.
    pub(super) fn probed_again(&mut self, entry: EntryId) -> bool {
        let is_again = self.probes.contains(&entry);
        self.probes.retain(|known| *known != entry);
        self.probes.truncate(STREAMS_MIN - 2);
        self.probes.push_front(entry);
        is_again
    }

    fn is_bad(&mut self, stream: StreamKey) {
        if self.bad.len() < BAD_MAX {
            self.bad.insert(stream);
        }
    }

    /// Begins anew with another version of the publisher.
    pub(super) fn forget(&mut self) {
        self.failed.clear();
        self.bad.clear();
        self.tried.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Field;

    /// A publisher's calls, each for a stream and an entry, and whether they were an outage.
    struct Calls {
        rate: FailureRate,
        position: i64,
    }

    impl Calls {
        fn new() -> Self {
            Self { rate: FailureRate::new(BreakerRules::default()), position: 0 }
        }

        fn deliver(&mut self, stream: u64) {
            self.rate.answered(StreamKey(stream));
        }

        fn fail_entry(&mut self, stream: u64, position: i64, is_first: bool) -> bool {
            self.rate.failed(StreamKey(stream), EntryId::of(position, &Field::Null), is_first).is_some()
        }

        /// A new entry of this stream fails.
        fn fail(&mut self, stream: u64) -> bool {
            self.position += 1;
            self.fail_entry(stream, self.position, true)
        }
    }

    #[test]
    fn an_outage_is_found_after_a_few_calls_however_much_was_delivered_before() {
        let mut calls = Calls::new();
        (0..1_000).for_each(|number| calls.deliver(number % 100));
        let opened: Vec<bool> = (0..8).map(|stream| calls.fail(stream)).collect();
        assert_eq!(opened, [false, false, false, false, false, false, false, true]);
    }

    #[test]
    fn an_outage_in_which_a_tenth_is_delivered_is_found() {
        let mut calls = Calls::new();
        let found = (0..100).find(|number| {
            if number % 10 == 9 {
                calls.deliver(*number);
                return false;
            }
            calls.fail(*number)
        });
        assert_eq!(found, Some(7));
    }

    #[test]
    fn one_bad_stream_in_a_hundred_is_no_outage() {
        let mut calls = Calls::new();
        for number in 0..10_000_u64 {
            let stream = number % 100;
            if stream == 7 { assert!(!calls.fail(stream), "{number}") } else { calls.deliver(stream) }
        }
    }

    #[test]
    fn one_bad_stream_that_alone_has_traffic_is_no_outage_and_neither_are_two() {
        let mut calls = Calls::new();
        (0..10_000).for_each(|number| assert!(!calls.fail(7), "{number}"));
        (0..10_000).for_each(|number| assert!(!calls.fail(7 + number % 2), "{number}"));
    }

    #[test]
    fn three_streams_that_are_all_there_are_and_all_fail_are_an_outage() {
        let mut calls = Calls::new();
        (0..1_000).for_each(|number| calls.deliver(number % 3));
        assert_eq!([calls.fail(0), calls.fail(1), calls.fail(2)], [false, false, true]);
        let mut calls = Calls::new();
        (0..1_000).for_each(|number| calls.deliver(number % 3));
        let bad_but_one: Vec<bool> = (0..2).map(|stream| calls.fail(stream)).collect();
        calls.deliver(2);
        assert!(!calls.fail(0) && bad_but_one == [false, false]);
    }

    #[test]
    fn retries_of_the_same_entries_say_nothing_new() {
        let mut calls = Calls::new();
        for round in 0..100 {
            (0..100).for_each(|stream| assert!(!calls.fail_entry(stream, stream.cast_signed(), false), "{round}"));
        }
    }

    /// Each stream stands still once its turn has come to a poisonous entry.
    #[test]
    fn a_poisonous_type_of_event_is_no_outage_even_when_every_stream_stands_still_before_one() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut calls = Calls::new();
            let mut streams: Vec<u64> = (0..100).collect();
            while !streams.is_empty() {
                streams.retain(|stream| {
                    let is_poisonous = random.u8(..10) == 0;
                    if is_poisonous {
                        assert!(!calls.fail(*stream), "{seed}")
                    } else {
                        calls.deliver(*stream)
                    }
                    !is_poisonous
                });
            }
            (0..1_000).for_each(|number| assert!(!calls.fail_entry(number % 100, number.cast_signed(), false)));
        }
    }

    #[test]
    fn ten_bad_streams_in_a_hundred_are_no_outage_even_when_all_others_have_ended() {
        let mut calls = Calls::new();
        for stream in 0..100 {
            if stream % 10 == 0 { assert!(!calls.fail(stream)) } else { calls.deliver(stream) }
        }
        (100..120).for_each(|stream| calls.deliver(stream));
        // Their first entries have become dead letters, and their next ones fail too.
        (0..1_000).for_each(|number| assert!(!calls.fail(number % 10 * 10), "{number}"));
        (0..10).for_each(|bad| calls.deliver(bad * 10));
        assert!((0..10).any(|bad| calls.fail(bad * 10)), "they are bad no more");
    }

    #[test]
    fn a_few_streams_that_have_always_failed_are_no_outage() {
        let mut calls = Calls::new();
        (0..1_000).for_each(|number| assert!(!calls.fail(number % 7), "{number}"));
    }

    #[test]
    fn what_failed_in_an_outage_counts_no_more_when_others_were_delivered_after_it() {
        let mut calls = Calls::new();
        (1..=8).for_each(|stream| _ = calls.fail_entry(stream, stream.cast_signed(), true));
        calls.rate.opened();
        (9..=20).for_each(|stream| {
            calls.rate.failed_in_outage(StreamKey(stream), EntryId::of(stream.cast_signed(), &Field::Null))
        });
        // Another entry of these streams is delivered.
        (9..=20).for_each(|stream| calls.deliver(stream));
        assert!(!(1..=20).any(|stream| calls.fail_entry(stream, stream.cast_signed(), true)));
        assert!((9..=20).any(|stream| calls.fail(stream)), "new entries of streams that are well count");
    }

    #[test]
    fn a_probe_that_has_its_turn_again_before_two_others_is_to_blame() {
        let mut rate = FailureRate::new(BreakerRules::default());
        let mut probed = |position: i64| rate.probed_again(EntryId::of(position, &Field::Null));
        assert_eq!(
            [1, 1, 2, 1, 2, 3, 1, 2, 3].map(&mut probed),
            [false, true, false, true, true, false, false, false, false]
        );
    }

    #[test]
    fn no_rules_break_it_and_none_of_zero_opens() {
        for (failures, calls) in [(0, 0), (0, 10), (1, 0), (u32::MAX, u32::MAX), (u32::MAX, 1), (2, 1)] {
            let rules = BreakerRules { failures, calls, ..BreakerRules::default() };
            let mut calls = Calls { rate: FailureRate::new(rules), position: 0 };
            let opened = (0..2_000).filter(|stream| calls.fail(*stream)).count();
            assert_eq!(opened > 0, failures > 0, "{rules:?}");
            assert!(calls.rate.failed.len() <= FAILURES_MAX.max(CALLS_MAX as usize));
        }
    }
}
