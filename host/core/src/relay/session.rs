//! The time during which one share of an outbox is drained, with what the relay knows then.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::batch::BatchLimits;
use super::breakers::Breakers;
use super::bulkheads::{Bulkheads, IN_MEMORY};
use super::delays::Delays;
use super::dropping::Dropping;
use super::fan_out::FanOuts;
use super::give_back::GiveBack;
use super::group::Group;
use super::lanes::{JOB_MAX, Lanes, Pace, RateRule, Shares};
use super::log::Log;
use super::options::RelayOptions;
use super::report::Report;
use super::unsettled::Unsettled;
use crate::outbox::{Drain, OutboxStorageStrategy, RelayCondition, RelayState, StorageError};
use crate::publisher::Publisher;
use crate::publishers::Publishers;
use crate::serde::Serde;
use crate::settlement::BreakerRules;
use crate::stream::TenantKey;

/// The most settled entries that await their commit. This bounds how many events may come again after a crash.
pub(super) const UNACKED_MAX: usize = 4_096;
/// The most orders under way: one is being committed, one is being synced, and one is next.
pub(super) const ORDERS_MAX: usize = 3;
/// How long to wait after a failed read, and how often to look whether the database is still there.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often to compare what is held back with the storage, since others may change its tables.
pub(super) const COMPARE_PAUSE: Duration = Duration::from_secs(5);

/// What a relay works with.
#[derive(Clone, Copy)]
pub(crate) struct RelayContext<'a> {
    pub(crate) strategy: &'a dyn OutboxStorageStrategy,
    pub(crate) serde: &'a dyn Serde,
    pub(crate) publishers: &'a Publishers<'a>,
    pub(crate) options: &'a RelayOptions,
    pub(crate) clock: fn() -> Timestamp,
    /// A random number from 0 to 1.
    pub(crate) random: fn() -> f64,
}

/// The time during which one share of an outbox is drained.
pub(super) struct Session<'a> {
    pub(super) context: RelayContext<'a>,
    pub(super) drain: &'a dyn Drain,
    pub(super) lanes: Lanes,
    pub(super) breakers: Breakers,
    pub(super) bulkheads: Bulkheads,
    pub(super) fan_outs: FanOuts,
    /// Whether tenants have turns.
    pub(super) has_turns: bool,
    /// After a read that failed.
    pub(super) read_again_at: Option<Instant>,
    /// How many more entries may be read. None if there is no limit.
    pub(super) limit: Option<usize>,
    /// A pass tries only what was due when it began.
    pub(super) began: Instant,
    /// The settled entries that the acker does not have yet.
    pub(super) group: Group,
    pub(super) orders_out: usize,
    /// When entries were found that no notice had reported, how many, and the position of the first.
    pub(super) found: Option<(Instant, usize, i64)>,
    pub(super) unsettled: Unsettled,
    pub(super) dropping: Dropping,
    pub(super) delays: Delays,
    pub(super) may_have_been_operated: bool,
    /// When to read again what is held back.
    pub(super) reconcile_at: Option<Instant>,
    /// When to compare it with the storage.
    pub(super) compare_at: Instant,
    pub(super) give_back: GiveBack,
    pub(super) prune_at: Option<Instant>,
    pub(super) lost: Option<StorageError>,
    /// Whether a stage has ended early, so that nobody commits any more.
    pub(super) broken: bool,
    pub(super) condition: RelayState,
    /// For each publisher, until when the state that was shown says that entries wait for its rate limit.
    pub(super) tokens_shown: Vec<Option<Instant>>,
    pub(super) log: &'a mut Log,
    pub(super) report: Report,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        context: RelayContext<'a>,
        drain: &'a dyn Drain,
        limit: Option<usize>,
        log: &'a mut Log,
    ) -> Result<Self, StorageError> {
        let now = Instant::now();
        let condition = RelayState {
            pid: std::process::id(),
            state: RelayCondition::Running,
            since: (context.clock)(),
            reason: String::new(),
            publishers: Vec::new(),
        };
        drain.show(&condition);
        let lanes = Lanes::new(context.options.ordering).for_publishers(rate_rules(context), limit.is_some());
        let has_turns = context.options.has_turns();
        let lanes = if has_turns { lanes.with_turns(shares(context, limit.is_some())) } else { lanes };
        let mut session = Self {
            context,
            drain,
            lanes,
            has_turns,
            breakers: Breakers::new(context.publishers.len(), breaker_rules(context, limit)),
            bulkheads: Bulkheads::new(context.publishers.len(), limit.is_some()),
            fan_outs: FanOuts::default(),
            read_again_at: None,
            limit,
            began: now,
            group: Group::default(),
            orders_out: 0,
            found: None,
            unsettled: Unsettled::default(),
            dropping: Dropping::default(),
            delays: Delays::new(now, (context.clock)()),
            may_have_been_operated: false,
            reconcile_at: None,
            compare_at: now + COMPARE_PAUSE,
            give_back: GiveBack::default(),
            prune_at: limit.is_none().then_some(now),
            lost: None,
            broken: false,
            condition,
            tokens_shown: Vec::new(),
            log,
            report: Report::default(),
        };
        session.show_publishers(now);
        session.take_turns(now)?;
        session.begin(now)?;
        Ok(session)
    }
}

/// The rate limit of each publisher. With a limit, entries of a publisher without batches are handed over one by one.
fn rate_rules(context: RelayContext<'_>) -> Vec<Option<RateRule>> {
    let rule = |(leg, publisher): (usize, &dyn Publisher)| {
        let options = context.publishers.options(leg)?;
        let calls = options.concurrency.unwrap_or(context.options.concurrency).max(1);
        let batch = BatchLimits::new(options, IN_MEMORY).of_publisher(publisher.max_batch());
        let job_max = if batch.is_one() { 1 } else { JOB_MAX };
        Some(RateRule { limit: options.rate?, jobs_max: calls.saturating_mul(batch.entries()), job_max })
    };
    context.publishers.iter().map(rule).collect()
}

/// The rules of tenants' turns.
fn shares(context: RelayContext<'_>, in_pass: bool) -> Shares {
    let weights = &context.options.tenant_weights;
    let weights = weights.iter().map(|(tenant, weight)| (TenantKey::named(tenant), *weight));
    let paces = context.publishers.iter().map(|(leg, _)| {
        let own = context.publishers.options(leg).and_then(|options| options.concurrency);
        Pace::new(own.unwrap_or(context.options.concurrency), 1)
    });
    Shares::new(weights.collect(), paces.collect(), in_pass)
}

/// A pass tries each entry once, and makes no probes: in it, failures pause nobody. Nor do they if no entry is ever tried
/// again.
fn breaker_rules(context: RelayContext<'_>, limit: Option<usize>) -> BreakerRules {
    let policy = &context.options.policy;
    if limit.is_some() || policy.max_attempts <= 1 { BreakerRules::OFF } else { policy.breaker }
}
