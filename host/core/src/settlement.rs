//! What becomes of an entry after an attempt: one pure function.

use std::time::Duration;

use crate::attempt::Outcome;
use crate::backoff::Backoff;

/// The shortest pause of an unavailable publisher, whatever is configured: no limit of attempts would end a shorter
/// loop.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// When to try again, and when to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How many attempts an entry gets before it becomes a dead letter; at least 1.
    pub max_attempts: u32,
    /// How many times the host may die in an entry's call, with nothing else under way, before the entry becomes a dead
    /// letter; at least 1.
    pub max_host_deaths: u32,
    /// How long to wait between attempts, unless the publisher asks for longer.
    pub backoff: Backoff,
    /// How long to pause an unavailable publisher, unless it asks for longer.
    pub pause: Backoff,
    /// The longest wait that a publisher may ask for.
    pub retry_after_max: Duration,
    /// When a publisher is paused because its calls fail, although it does not say that it is unavailable.
    pub breaker: BreakerRules,
}

/// When failed calls count as an outage: the publisher is paused then, and its failures use up no attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// In how many streams the first attempt of an entry must have failed. A publisher that has fewer streams must fail
    /// in all of them, three at least. With 0, failures never pause a publisher.
    pub failures: u32,
    /// Among how many of its last calls.
    pub calls: u32,
    /// How long failures may count as an outage. After that they use up attempts again, until something is delivered.
    pub patience: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 8, calls: 10, patience: Duration::from_secs(24 * 60 * 60) }
    }
}

impl BreakerRules {
    /// Failures never pause a publisher.
    pub const OFF: Self = Self { failures: 0, calls: 0, patience: Duration::ZERO };
}

impl Policy {
    /// How long to pause a publisher that answered `outcome`, and has been unavailable `pauses` times in a row before.
    /// `jitter` is a random number from 0 to 1.
    pub fn pause_after(&self, outcome: &Outcome, pauses: u32, jitter: f64) -> Duration {
        self.own_pause(pauses, jitter).max(self.asked(outcome))
    }

    /// How long to pause a publisher whose calls fail: what one of them asks for is the time of its own entry.
    pub(crate) fn own_pause(&self, pauses: u32, jitter: f64) -> Duration {
        self.pause.delay(pauses.saturating_add(1), jitter).max(PAUSE_MIN)
    }

    /// The time that the outcome asks for, within bounds; zero if it asks for none. It is the shortest wait, and the
    /// relay never waits less than its own backoff. So a destination that asks for no pause, for example because its
    /// clock is behind, is not called again and again.
    pub(crate) fn asked(&self, outcome: &Outcome) -> Duration {
        match outcome {
            Outcome::Retry { after, .. } | Outcome::Unavailable { after, .. } => {
                after.unwrap_or_default().min(self.retry_after_max)
            }
            _ => Duration::ZERO,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 25,
            max_host_deaths: 3,
            backoff: Backoff::default(),
            pause: Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) },
            retry_after_max: Duration::from_secs(60 * 60),
            breaker: BreakerRules::default(),
        }
    }
}

/// What is known of an entry's earlier attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Attempts that used up one of [`Policy::max_attempts`].
    pub attempts: u32,
    /// Those among them in which the host died.
    pub host_deaths: u32,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It was delivered, and is removed from the outbox.
    Ack,
    /// It stays, and is tried again after `delay`, counted from the time of the failure.
    Retry {
        /// How long to wait.
        delay: Duration,
        /// Its history, this attempt included.
        history: History,
    },
    /// It is set aside, whole.
    DeadLetter {
        /// Its history, this attempt included.
        history: History,
    },
    /// It stays as it was, and its publisher is paused for [`Policy::pause_after`].
    PausePublisher,
}

impl Settlement {
    /// How long the entry itself waits.
    pub fn delay(&self) -> Duration {
        match self {
            Self::Retry { delay, .. } => *delay,
            Self::Ack | Self::DeadLetter { .. } | Self::PausePublisher => Duration::ZERO,
        }
    }
}

/// Settles an attempt that ended with `outcome`.
///
/// `history` is the entry's history before this attempt. `jitter` is a random number from 0 to 1.
///
/// ```
/// use outbox_engine::{History, Outcome, Policy, Settlement, settle};
///
/// let policy = Policy { max_attempts: 3, ..Policy::default() };
/// let failed = Outcome::Retry { reason: "busy".into(), after: None };
/// let twice = History { attempts: 2, host_deaths: 0 };
/// assert!(matches!(settle(History::default(), &failed, &policy, 0.5), Settlement::Retry { .. }));
/// assert!(matches!(settle(twice, &failed, &policy, 0.5), Settlement::DeadLetter { .. }));
/// ```
pub fn settle(history: History, outcome: &Outcome, policy: &Policy, jitter: f64) -> Settlement {
    let counted = History { attempts: history.attempts.saturating_add(1), ..history };
    match outcome {
        Outcome::Delivered => Settlement::Ack,
        Outcome::Rejected { .. } | Outcome::Undecodable { .. } | Outcome::Unrouted { .. } | Outcome::Expired { .. } => {
            Settlement::DeadLetter { history: counted }
        }
        Outcome::Unavailable { .. } => Settlement::PausePublisher,
        Outcome::HostDied { .. } => {
            let counted = History { host_deaths: history.host_deaths.saturating_add(1), ..counted };
            retry_or_bury(counted, outcome, policy, jitter)
        }
        Outcome::Retry { .. } | Outcome::Trapped { .. } | Outcome::TimedOut { .. } | Outcome::LimitExceeded { .. } => {
            retry_or_bury(counted, outcome, policy, jitter)
        }
    }
}

/// Settles a failed attempt of a version on trial: whatever it answered, the entry is tried again, and no other entry
/// is held up for it. `history` and `jitter` are those of [`settle`].
pub fn settle_on_trial(history: History, outcome: &Outcome, policy: &Policy, jitter: f64) -> Settlement {
    let no_end = Policy { max_attempts: u32::MAX, ..policy.clone() };
    let counted = History { attempts: history.attempts.saturating_add(1), ..history };
    match outcome {
        Outcome::Delivered => Settlement::Ack,
        _ => retry_or_bury(counted, outcome, &no_end, jitter),
    }
}

fn retry_or_bury(history: History, outcome: &Outcome, policy: &Policy, jitter: f64) -> Settlement {
    let used_up = history.attempts >= policy.max_attempts;
    let too_deadly = history.host_deaths > 0 && history.host_deaths >= policy.max_host_deaths;
    if used_up || too_deadly {
        return Settlement::DeadLetter { history };
    }
    let own = policy.backoff.delay(history.attempts, jitter);
    Settlement::Retry { delay: own.max(policy.asked(outcome)), history }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_of_a_version_on_trial_sets_an_entry_aside_or_pauses_the_publisher() {
        let policy = Policy { max_attempts: 1, ..Policy::default() };
        let long = History { attempts: 7, host_deaths: 0 };
        let reason = String::new;
        for outcome in [
            Outcome::Retry { reason: reason(), after: None },
            Outcome::Rejected { reason: reason() },
            Outcome::Unavailable { reason: reason(), after: None },
            Outcome::Trapped { reason: reason() },
            Outcome::TimedOut { reason: reason() },
        ] {
            let settlement = settle_on_trial(long, &outcome, &policy, 0.5);
            let Settlement::Retry { history, .. } = settlement else { panic!("{outcome:?}: {settlement:?}") };
            assert_eq!(history, History { attempts: 8, host_deaths: 0 });
        }
        assert_eq!(settle_on_trial(long, &Outcome::Delivered, &policy, 0.5), Settlement::Ack);
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy {
            max_attempts: 4,
            max_host_deaths: 2,
            backoff: Backoff { initial: SECOND, max: 8 * SECOND },
            pause: Backoff { initial: 10 * SECOND, max: 40 * SECOND },
            retry_after_max: 100 * SECOND,
            breaker: BreakerRules::OFF,
        }
    }

    fn history(attempts: u32, host_deaths: u32) -> History {
        History { attempts, host_deaths }
    }

    fn reason() -> String {
        "because".into()
    }

    fn retry_asked(seconds: u32) -> Outcome {
        Outcome::Retry { reason: reason(), after: Some(seconds * SECOND) }
    }

    fn unavailable(after: Option<Duration>) -> Outcome {
        Outcome::Unavailable { reason: reason(), after }
    }

    #[test]
    fn the_table() {
        use Settlement::{Ack, DeadLetter, PausePublisher, Retry};
        let retry = Outcome::Retry { reason: reason(), after: None };
        let trapped = Outcome::Trapped { reason: reason() };
        let timed_out = Outcome::TimedOut { reason: reason() };
        let limit = Outcome::LimitExceeded { reason: reason() };
        let rejected = Outcome::Rejected { reason: reason() };
        let undecodable = Outcome::Undecodable { reason: reason() };
        let died = Outcome::HostDied { reason: reason() };
        let again = |seconds, attempts, deaths| Retry { delay: seconds * SECOND, history: history(attempts, deaths) };
        let dead = |attempts, deaths| DeadLetter { history: history(attempts, deaths) };
        // history before (attempts, host deaths), outcome -> settlement, all with the longest jitter
        let table = [
            ((0, 0), Outcome::Delivered, Ack),
            ((3, 1), Outcome::Delivered, Ack),
            ((2_000, 0), Outcome::Delivered, Ack),
            ((0, 0), retry.clone(), again(1, 1, 0)),
            ((1, 0), retry.clone(), again(2, 2, 0)),
            ((2, 0), retry.clone(), again(4, 3, 0)),
            ((3, 0), retry.clone(), dead(4, 0)),
            ((2_000, 0), retry, dead(2_001, 0)),
            ((u32::MAX, 0), retry_asked(1), dead(u32::MAX, 0)),
            ((0, 0), retry_asked(30), again(30, 1, 0)),
            ((0, 0), retry_asked(0), again(1, 1, 0)),
            ((1, 0), retry_asked(1), again(2, 2, 0)),
            ((1, 0), retry_asked(3), again(3, 2, 0)),
            ((0, 0), retry_asked(101), again(100, 1, 0)),
            ((3, 0), retry_asked(30), dead(4, 0)),
            ((1, 0), trapped.clone(), again(2, 2, 0)),
            ((3, 0), trapped, dead(4, 0)),
            ((1, 0), timed_out, again(2, 2, 0)),
            ((1, 0), limit, again(2, 2, 0)),
            ((0, 0), rejected.clone(), dead(1, 0)),
            ((2, 1), rejected, dead(3, 1)),
            ((0, 0), undecodable, dead(1, 0)),
            ((0, 0), died.clone(), again(1, 1, 1)),
            ((1, 1), died.clone(), dead(2, 2)),
            ((3, 0), died, dead(4, 1)),
            ((3, 1), unavailable(None), PausePublisher),
            ((2_000, 0), unavailable(Some(5 * SECOND)), PausePublisher),
        ];
        for ((attempts, deaths), outcome, expected) in table {
            let settled = settle(history(attempts, deaths), &outcome, &policy(), 1.0);
            assert_eq!(settled, expected, "{attempts} attempts, {deaths} deaths, {outcome:?}");
        }
    }

    #[test]
    fn how_long_a_publisher_is_left_alone() {
        // pauses before, outcome -> seconds, with the longest jitter
        let table = [
            (0, unavailable(None), 10),
            (1, unavailable(None), 20),
            (2, unavailable(None), 40),
            (u32::MAX, unavailable(None), 40),
            (0, unavailable(Some(5 * SECOND)), 10),
            (0, unavailable(Some(Duration::ZERO)), 10),
            (1, unavailable(Some(Duration::ZERO)), 20),
            (1, unavailable(Some(30 * SECOND)), 30),
            (3, unavailable(Some(SECOND * 1_000)), 100),
        ];
        for (pauses, outcome, seconds) in table {
            let pause = policy().pause_after(&outcome, pauses, 1.0);
            assert_eq!(pause, Duration::from_secs(seconds), "{pauses} pauses, {outcome:?}");
        }
    }

    #[test]
    fn without_any_backoff_a_pause_is_still_one() {
        let policy = Policy { pause: Backoff::NONE, ..policy() };
        assert_eq!(policy.pause_after(&unavailable(Some(Duration::ZERO)), 0, 0.0), PAUSE_MIN);
    }

    #[test]
    fn a_trial_too_waits_for_as_long_as_was_asked_for_and_at_least_for_the_backoff() {
        for (outcome, seconds) in [(retry_asked(0), 2), (retry_asked(30), 30), (unavailable(Some(30 * SECOND)), 30)] {
            let settled = settle_on_trial(history(1, 0), &outcome, &policy(), 1.0);
            assert_eq!(settled, Settlement::Retry { delay: seconds * SECOND, history: history(2, 0) });
        }
    }

    #[test]
    fn attempt_2000_of_many_does_not_overflow() {
        let policy = Policy { max_attempts: u32::MAX, ..policy() };
        let failed = Outcome::Trapped { reason: reason() };
        let settled = settle(history(1_999, 0), &failed, &policy, 0.5);
        assert_eq!(settled, Settlement::Retry { delay: 4 * SECOND, history: history(2_000, 0) });
    }

    #[test]
    fn a_policy_of_nothing_still_gives_one_attempt() {
        let policy = Policy { max_attempts: 0, max_host_deaths: 0, ..policy() };
        let failed = Outcome::Trapped { reason: reason() };
        assert_eq!(settle(history(0, 0), &failed, &policy, 0.5), Settlement::DeadLetter { history: history(1, 0) });
        assert_eq!(settle(history(0, 0), &Outcome::Delivered, &policy, 0.5), Settlement::Ack);
    }
}
