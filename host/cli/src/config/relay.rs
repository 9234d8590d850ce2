//! `[relay]` and `[retention]`: how the relay works, and how long records are kept.

use std::collections::BTreeMap;
use std::time::Duration;

use outbox_host::outbox::Retention;
use outbox_host::publisher::component::Time;
use outbox_host::{Backoff, BreakerRules, FairBy, OnDeadLetter, Ordering, Policy, RelayOptions, TENANT_WEIGHT_MAX};
use serde::Deserialize;

/// `[relay]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    pub ordering: Ordering,
    pub on_dead_letter: OnDeadLetter,
    pub delay_holds_stream: bool,
    pub concurrency: Option<usize>,
    pub fair_by: FairBy,
    pub tenant_weights: BTreeMap<String, Weight>,
    pub shutdown_grace: Option<Time>,
    pub max_attempts: Option<u32>,
    pub max_host_deaths: Option<u32>,
    pub backoff_initial: Option<Time>,
    pub backoff_max: Option<Time>,
    pub pause_initial: Option<Time>,
    pub pause_max: Option<Time>,
    pub retry_after_max: Option<Time>,
    pub breaker_failures: Option<u32>,
    pub breaker_calls: Option<u32>,
    pub breaker_patience: Option<Time>,
}

/// How much a tenant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Weight(u32);

impl TryFrom<i64> for Weight {
    type Error = String;

    fn try_from(weight: i64) -> Result<Self, String> {
        let weight = u32::try_from(weight).ok().filter(|weight| (1..=TENANT_WEIGHT_MAX).contains(weight));
        weight.map(Self).ok_or_else(|| format!("a weight is a whole number from 1 to {TENANT_WEIGHT_MAX}"))
    }
}

/// `[retention]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    pub dead_letters: Option<Time>,
    pub attempts: Option<Time>,
    pub audit: Option<Time>,
}

impl RelayConfig {
    /// How the relay works, without what it retains.
    pub fn options(&self) -> RelayOptions {
        let (defaults, policy) = (RelayOptions::default(), Policy::default());
        let or = |time: Option<Time>, default: Duration| time.map_or(default, |time| time.0);
        let backoff = |initial, max, default: Backoff| Backoff {
            initial: or(initial, default.initial),
            max: or(max, default.max),
        };
        RelayOptions {
            policy: Policy {
                max_attempts: self.max_attempts.unwrap_or(policy.max_attempts),
                max_host_deaths: self.max_host_deaths.unwrap_or(policy.max_host_deaths),
                backoff: backoff(self.backoff_initial, self.backoff_max, policy.backoff),
                pause: backoff(self.pause_initial, self.pause_max, policy.pause),
                retry_after_max: or(self.retry_after_max, policy.retry_after_max),
                breaker: BreakerRules {
                    failures: self.breaker_failures.unwrap_or(policy.breaker.failures),
                    calls: self.breaker_calls.unwrap_or(policy.breaker.calls),
                    patience: or(self.breaker_patience, policy.breaker.patience),
                },
            },
            ordering: self.ordering,
            on_dead_letter: self.on_dead_letter,
            delay_holds_stream: self.delay_holds_stream,
            concurrency: self.concurrency.unwrap_or(defaults.concurrency),
            fair_by: self.fair_by,
            tenant_weights: self.tenant_weights.iter().map(|(tenant, weight)| (tenant.clone(), weight.0)).collect(),
            shutdown_grace: or(self.shutdown_grace, defaults.shutdown_grace),
            retention: defaults.retention,
        }
    }
}

impl RetentionConfig {
    /// What the relay retains, and how long.
    pub fn retention(&self) -> Retention {
        Retention {
            dead_letters: self.dead_letters.map(|time| time.0),
            attempts: self.attempts.map(|time| time.0),
            audit: self.audit.map(|time| time.0),
        }
    }
}
