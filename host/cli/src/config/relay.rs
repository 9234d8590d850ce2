//! `[relay]` and `[retention]`: how the relay works, and how long records are kept.

use std::time::Duration;

use outbox_host::outbox::Retention;
use outbox_host::publisher::component::Time;
use outbox_host::{Backoff, BreakerRules, OnDeadLetter, Ordering, Policy, RelayOptions};
use serde::Deserialize;

/// `[relay]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    pub ordering: Ordering,
    pub on_dead_letter: OnDeadLetter,
    pub delay_holds_stream: bool,
    pub concurrency: Option<usize>,
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
