//! Lanes whose next entry has to wait for a token of its publisher's rate limit.
//!
//! A limit of a whole publisher keeps its lanes in memory, where they fill no more than its part. With a limit for each
//! tenant, stream or category, the lanes of those that wait would fill the part of the others: they keep nothing in memory,
//! and are read again when a token comes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;

use super::{Claim, JOB_MAX, LaneId, Lanes, PublisherSet, overflow};
use crate::column;
use crate::rate::{RateBy, RateLimit};
use crate::relay::bucket::{Bucket, Refill};
use crate::row::fnv;

/// The most buckets of a publisher that are remembered: some 100 MB. Beyond it, those that are nearly full are forgotten,
/// and are full then.
const BUCKETS_MAX: usize = 1_000_000;
/// From this many on, those that are full are looked for, and forgotten.
const BUCKETS_MIN: usize = 1_024;
/// The bucket of all entries of a publisher.
const WHOLE: u64 = 0;

/// How a publisher with a rate limit is called.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct RateRule {
    pub(in crate::relay) limit: RateLimit,
    /// The most jobs that are handed over: as many as begin at once, so that no token is used long after it was taken.
    pub(in crate::relay) jobs_max: usize,
    /// The most entries of a job.
    pub(in crate::relay) job_max: usize,
}

/// The limits of all publishers.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    legs: Vec<Option<Throttled>>,
    limited: PublisherSet,
}

/// A publisher with a limit.
#[derive(Debug)]
struct Throttled {
    rule: RateRule,
    refill: Refill,
    /// Whether lanes that wait stay in memory.
    keeps: bool,
    buckets: HashMap<u64, Waiting>,
    /// One for each bucket for which lanes wait.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// How many lanes wait, of all buckets.
    waiting: usize,
    /// How many buckets there may be before those that are full are forgotten.
    clean_at: usize,
    /// Lanes that have taken a token, and wait until a caller is free.
    in_hand: VecDeque<LaneId>,
}

/// A bucket, and the lanes that wait for its tokens.
#[derive(Debug)]
struct Waiting {
    bucket: Bucket,
    lanes: VecDeque<LaneId>,
}

impl Throttle {
    /// With `keeps`, lanes that wait stay in memory whatever their limit is.
    pub(super) fn new(rules: impl IntoIterator<Item = Option<RateRule>>, keeps: bool) -> Self {
        let legs: Vec<_> = rules.into_iter().map(|rule| rule.map(|rule| Throttled::new(rule, keeps))).collect();
        let with_limit = legs.iter().enumerate().filter(|(_, leg)| leg.is_some());
        let limited = with_limit.fold(PublisherSet::NONE, |all, (leg, _)| all | PublisherSet::one(leg));
        Self { legs, limited }
    }

    fn leg(&mut self, leg: usize) -> Option<&mut Throttled> {
        self.legs.get_mut(leg)?.as_mut()
    }

    fn legs(&self) -> impl Iterator<Item = &Throttled> {
        self.legs.iter().flatten()
    }

    /// The lanes that keep nothing in memory while they wait.
    pub(super) fn unkept(&self) -> impl Iterator<Item = LaneId> {
        let waiting = self.legs().filter(|leg| !leg.keeps).flat_map(|leg| leg.buckets.values());
        waiting.flat_map(|waiting| waiting.lanes.iter().copied())
    }

    /// How many of them wait for this publisher.
    pub(super) fn unkept_len(&self, leg: usize) -> usize {
        self.legs.get(leg).and_then(Option::as_ref).filter(|leg| !leg.keeps).map_or(0, |leg| leg.waiting)
    }

    /// Whether entries of this publisher wait for a token that all of them share.
    pub(super) fn stands_still(&self, leg: usize) -> bool {
        let leg = self.legs.get(leg).and_then(Option::as_ref);
        leg.is_some_and(|leg| leg.buckets.get(&WHOLE).is_some_and(|waiting| !waiting.lanes.is_empty()))
    }
}

impl Throttle {
    /// Whether a lane for these publishers need not wait behind others of the same limit, as far as that is known without its
    /// entries. Tenants have turns only before such a wait.
    pub(super) fn is_open(&self, legs: PublisherSet, running_for: &[u16]) -> bool {
        legs.both(self.limited).iter().all(|leg| {
            let Some(throttled) = self.legs.get(leg).and_then(Option::as_ref) else { return true };
            let running = running_for.get(leg).copied().unwrap_or_default();
            let has_callers = throttled.in_hand.is_empty() && usize::from(running) < throttled.rule.jobs_max;
            has_callers && !self.stands_still(leg)
        })
    }
}

impl Throttled {
    fn new(rule: RateRule, keeps: bool) -> Self {
        Self {
            rule,
            refill: Refill::of(&rule.limit),
            keeps: keeps || rule.limit.by == RateBy::Publisher,
            buckets: HashMap::new(),
            timers: BinaryHeap::new(),
            waiting: 0,
            clean_at: BUCKETS_MIN,
            in_hand: VecDeque::new(),
        }
    }

    /// The bucket of an entry. What cannot be decoded has one of its own: it calls nobody.
    fn key(&self, claim: &Claim) -> u64 {
        let text = match self.rule.limit.by {
            RateBy::Publisher => return WHOLE,
            RateBy::Stream => return claim.known.stream.0,
            RateBy::Tenant => column::tenant_id(&claim.entry.row().tenant_id).ok().map(|it| fnv([it.as_bytes()])),
            RateBy::Category => {
                let row = claim.entry.row();
                let category = column::optional(&row.category).ok();
                category.map(|it| it.map_or(WHOLE, |it| fnv([it.as_bytes()])))
            }
        };
        text.unwrap_or(claim.known.stream.0)
    }

    /// How many tokens a lane that comes now may take: none if others wait already.
    fn tokens(&self, key: u64, now: Instant) -> u32 {
        match self.buckets.get(&key) {
            None => self.rule_burst(),
            Some(waiting) if waiting.lanes.is_empty() => waiting.bucket.tokens(self.refill, now),
            Some(_) => 0,
        }
    }

    fn rule_burst(&self) -> u32 {
        self.rule.limit.burst().get()
    }

    fn take(&mut self, key: u64, tokens: u32, now: Instant) {
        self.forget_full_ones(now);
        let full = || Waiting { bucket: Bucket::full(now), lanes: VecDeque::new() };
        self.buckets.entry(key).or_insert_with(full).bucket.take(tokens, self.refill, now);
    }

    fn wait(&mut self, key: u64, lane: LaneId, now: Instant) {
        let full = || Waiting { bucket: Bucket::full(now), lanes: VecDeque::new() };
        let waiting = self.buckets.entry(key).or_insert_with(full);
        if waiting.lanes.is_empty() {
            self.timers.push(Reverse((waiting.bucket.next(self.refill), key)));
        }
        waiting.lanes.push_back(lane);
        self.waiting += 1;
    }

    /// The next lane whose bucket has a token, which is taken.
    fn next(&mut self, now: Instant) -> Option<LaneId> {
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(waiting) = self.buckets.get_mut(&key) else { continue };
            let lane = match waiting.bucket.tokens(self.refill, now) {
                0 => None,
                _ => waiting.lanes.pop_front(),
            };
            if lane.is_some() {
                waiting.bucket.take(1, self.refill, now);
                self.waiting -= 1;
            }
            if !waiting.lanes.is_empty() {
                self.timers.push(Reverse((waiting.bucket.next(self.refill), key)));
            }
            if lane.is_some() {
                return lane;
            }
        }
        None
    }

    fn forget_full_ones(&mut self, now: Instant) {
        if self.buckets.len() < self.clean_at {
            return;
        }
        self.buckets.retain(|_, waiting| !waiting.lanes.is_empty() || !waiting.bucket.is_full(now));
        if self.buckets.len() >= BUCKETS_MAX {
            let mut times: Vec<Instant> = self.buckets.values().map(|waiting| waiting.bucket.full_at()).collect();
            let (_, median, _) = times.select_nth_unstable(BUCKETS_MAX / 2);
            let median = *median;
            self.buckets.retain(|_, waiting| !waiting.lanes.is_empty() || waiting.bucket.full_at() > median);
        }
        self.clean_at = (2 * self.buckets.len()).clamp(BUCKETS_MIN, BUCKETS_MAX);
    }
}

impl Lanes {
    /// For so many publishers as there are rules, with these limits. With `keeps`, lanes that wait for a token stay in memory.
    pub(in crate::relay) fn for_publishers(mut self, rules: Vec<Option<RateRule>>, keeps: bool) -> Self {
        self.waiting_max = overflow::waiting_max(rules.len());
        self.throttle = Throttle::new(rules, keeps || self.ordering == super::Ordering::Total);
        self
    }

    /// The next lane that has waited for its publisher's rate limit, and may go on.
    pub(super) fn next_throttled(&mut self, now: Instant) -> Option<LaneId> {
        for leg in self.throttle.limited.iter() {
            while let Some((id, keeps)) = self.next_throttled_of(leg, now) {
                let Some(lane) = self.lanes.get_mut(&id) else { continue };
                lane.paid = lane.paid | PublisherSet::one(leg);
                if keeps {
                    return Some(id);
                }
                lane.not_admitted = false;
                self.retire(id);
            }
        }
        None
    }

    /// The next lane of this publisher, and whether it is in memory.
    fn next_throttled_of(&mut self, leg: usize, now: Instant) -> Option<(LaneId, bool)> {
        let running = usize::from(self.running_for.get(leg).copied().unwrap_or_default());
        let throttled = self.throttle.leg(leg)?;
        if running >= throttled.rule.jobs_max {
            return None;
        }
        let in_hand = throttled.in_hand.pop_front().map(|lane| (lane, true));
        in_hand.or_else(|| throttled.next(now).map(|lane| (lane, throttled.keeps)))
    }

    /// How many entries this lane may hand over now. None if its next entry has to wait: the lane waits then.
    pub(super) fn may_take(&mut self, id: LaneId, now: Instant) -> Option<usize> {
        let lane = self.lanes.get_mut(&id)?;
        let first = lane.queue.front()?;
        let mut most = JOB_MAX;
        for leg in first.known.legs().both(self.throttle.limited).iter() {
            let Some(throttled) = self.throttle.leg(leg) else { continue };
            let key = throttled.key(first);
            let paid = u32::from(lane.paid.meets(PublisherSet::one(leg)));
            let tokens = throttled.tokens(key, now).saturating_add(paid);
            if tokens == 0 {
                if throttled.keeps {
                    throttled.wait(key, id, now);
                } else {
                    lane.not_admitted = true;
                    self.wait_outside(id, leg, key, now);
                }
                return None;
            }
            let running = self.running_for.get(leg).copied().unwrap_or_default();
            if usize::from(running) >= throttled.rule.jobs_max {
                if paid == 0 {
                    throttled.take(key, 1, now);
                    lane.paid = lane.paid | PublisherSet::one(leg);
                }
                throttled.in_hand.push_back(id);
                return None;
            }
            most = most.min(throttled.rule.job_max).min(usize::try_from(tokens).unwrap_or(usize::MAX));
        }
        Some(most)
    }

    /// Has a lane wait for a token, with nothing of it in memory.
    fn wait_outside(&mut self, id: LaneId, leg: usize, key: u64, now: Instant) {
        self.drop_unread(id);
        if !self.overflows(id, leg)
            && let Some(throttled) = self.throttle.leg(leg)
        {
            throttled.wait(key, id, now);
        }
    }

    /// Whether two entries of a lane share all of their limits.
    pub(super) fn share_limits(&self, legs: PublisherSet, one: &Claim, other: &Claim) -> bool {
        let limits = legs.both(self.throttle.limited);
        limits.is_empty()
            || limits
                .iter()
                .filter_map(|leg| self.throttle.legs.get(leg)?.as_ref())
                .all(|it| it.key(one) == it.key(other))
    }

    /// Takes the tokens of a job: some may have been taken before. An entry that is tried alone takes them in advance.
    pub(super) fn take_tokens(&mut self, id: LaneId, legs: PublisherSet, claims: &[Claim], now: Instant) {
        let (Some(lane), Some(first)) = (self.lanes.get_mut(&id), claims.first()) else { return };
        let paid = std::mem::take(&mut lane.paid);
        let tokens = u32::try_from(claims.len()).unwrap_or(u32::MAX);
        for leg in legs.both(self.throttle.limited).iter() {
            if let Some(throttled) = self.throttle.leg(leg) {
                let key = throttled.key(first);
                throttled.take(key, tokens.saturating_sub(u32::from(paid.meets(PublisherSet::one(leg)))), now);
            }
        }
    }

    /// Forgets the lanes that have taken a token in advance, and of which there is nothing: their entries are gone.
    pub(super) fn forget_unused_tokens(&mut self) {
        self.lanes.retain(|_, lane| lane.paid.is_empty() || !lane.is_forgettable());
    }

    /// Whether some publisher has a limit.
    pub(in crate::relay) fn has_limits(&self) -> bool {
        !self.throttle.limited.is_empty()
    }

    /// When the next lane that waits for a limit may go on.
    pub(in crate::relay) fn next_token_at(&self) -> Option<Instant> {
        let has_callers = |leg: &usize| {
            let running = usize::from(self.running_for.get(*leg).copied().unwrap_or_default());
            self.throttle.legs.get(*leg).is_some_and(|leg| leg.as_ref().is_some_and(|leg| running < leg.rule.jobs_max))
        };
        self.throttle.limited.iter().filter(has_callers).filter_map(|leg| self.next_token_of(leg)).min()
    }

    /// When the next lane that waits for this publisher's limit may go on, if a caller is free by then.
    pub(in crate::relay) fn next_token_of(&self, leg: usize) -> Option<Instant> {
        self.throttle.legs.get(leg)?.as_ref()?.timers.peek().map(|Reverse((at, _))| *at)
    }
}
