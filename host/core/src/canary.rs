//! Judges a version on trial, the canary: one pure function.

use crate::outbox::Counts;

/// When a canary is promoted, and when it is withdrawn.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryRules {
    /// The canary is promoted after this many deliveries.
    pub events: u64,
    /// How much its failure rate may exceed the active version's: 0.05 stands for five percentage points.
    pub margin: f64,
    /// Whether a single trap, time-out or limit ends the trial.
    pub withdraw_on_trap: bool,
}

impl Default for CanaryRules {
    fn default() -> Self {
        Self { events: 500, margin: 0.05, withdraw_on_trap: false }
    }
}

/// The decision about a canary.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Its trial goes on.
    Continue,
    /// It becomes the active version.
    Promote,
    /// It is withdrawn.
    Withdraw {
        /// Why.
        reason: String,
    },
}

/// A canary is withdrawn if its number of failures would have a lower probability than this, supposing that it is just
/// as bad as it may be. The test is repeated with each call, so this is much lower than the level that is usual for a
/// single test.
const IMPROBABLE: f64 = 0.001;
/// The most calls that the probability is worked out of, a call at a time. More calls say the same.
const CALLS_MAX: u64 = 1_000_000;
/// While nothing is known of the active version, it is supposed to have made this many calls ...
const PRIOR_CALLS: f64 = 10.0;
/// ... with this many failures.
const PRIOR_FAILURES: f64 = 0.5;

/// Judges a canary by the outcomes of its calls and of the active version's calls since the trial began. Only each
/// entry's first attempt counts, since an entry that fails again and again says nothing new.
///
/// The canary may fail as often as the active version and [`CanaryRules::margin`] more. Suppose that it is exactly that
/// bad: then the number of its failures is binomially distributed. If its actual number of failures, or more, would
/// then have a probability of less than 1 in 1,000, the canary is worse, and is withdrawn. This is exact for small
/// numbers too: three failures in the first three calls are enough if the active version has none.
///
/// ```
/// use outbox_engine::outbox::Counts;
/// use outbox_engine::{CanaryRules, Verdict, judge};
///
/// let rules = CanaryRules::default();
/// let active = Counts { delivered: 5_000, failed: 5, trapped: 0 };
/// let bad = Counts { delivered: 0, failed: 3, trapped: 0 };
/// assert!(matches!(judge(bad, active, &rules), Verdict::Withdraw { .. }));
/// let as_good = Counts { delivered: 500, failed: 5, trapped: 0 };
/// assert_eq!(judge(as_good, active, &rules), Verdict::Promote);
/// ```
pub fn judge(canary: Counts, active: Counts, rules: &CanaryRules) -> Verdict {
    if rules.withdraw_on_trap && canary.trapped > 0 {
        return Verdict::Withdraw { reason: "the canary trapped, timed out or ran into a limit".into() };
    }
    let (failures, calls) = failures_and_calls(canary);
    let (active_failures, active_calls) = failures_and_calls(active);
    let active_rate = (active_failures as f64 + PRIOR_FAILURES) / (active_calls as f64 + PRIOR_CALLS);
    let allowed = (active_rate + rules.margin).clamp(0.0, 1.0);
    let (judged, of) = bounded(failures, calls);
    if at_least(judged, of, allowed) < IMPROBABLE {
        return Verdict::Withdraw {
            reason: format!(
                "{failures} of the canary's {calls} calls failed, and {active_failures} of the active version's {active_calls}"
            ),
        };
    }
    if canary.delivered >= rules.events { Verdict::Promote } else { Verdict::Continue }
}

/// The counts may come from a database in which anything may stand.
fn failures_and_calls(counts: Counts) -> (u64, u64) {
    let failures = counts.failed.saturating_add(counts.trapped);
    (failures, counts.delivered.saturating_add(failures))
}

/// The same share of failures, of so many calls that it is worked out in a moment.
fn bounded(failures: u64, calls: u64) -> (u64, u64) {
    if calls <= CALLS_MAX {
        return (failures, calls);
    }
    let share = failures as f64 / calls as f64;
    ((share * CALLS_MAX as f64) as u64, CALLS_MAX)
}

/// The probability of at least `successes` in `trials` of probability `p` each.
fn at_least(successes: u64, trials: u64, p: f64) -> f64 {
    if successes == 0 || p >= 1.0 {
        return 1.0;
    }
    if p <= 0.0 {
        return 0.0;
    }
    // The logarithm of the probability of exactly `i` successes; the probabilities themselves may be too small.
    let odds = (p / (1.0 - p)).ln();
    let mut exactly = trials as f64 * (1.0 - p).ln();
    let mut sum = 0.0;
    for i in 0..=trials {
        if i >= successes {
            let term = exactly.exp();
            sum += term;
            if i as f64 > p * trials as f64 && term < sum * 1e-15 {
                break;
            }
        }
        exactly += ((trials - i) as f64 / (i + 1) as f64).ln() + odds;
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(delivered: u64, failed: u64) -> Counts {
        Counts { delivered, failed, trapped: 0 }
    }

    fn is_withdrawn(canary: Counts, active: Counts) -> bool {
        matches!(judge(canary, active, &CanaryRules::default()), Verdict::Withdraw { .. })
    }

    #[test]
    fn the_tail_of_the_binomial_distribution() {
        for (successes, trials, p, expected) in [
            (0, 10, 0.3, 1.0),
            (10, 10, 0.5, 0.000_976_562_5),
            (1, 2, 0.5, 0.75),
            (6, 30, 0.05, 0.003_282_3),
            (60, 1_000, 0.05, 0.087_5),
            (600, 10_000, 0.05, 4.51e-6),
        ] {
            let found = at_least(successes, trials, p);
            assert!((found - expected).abs() <= expected * 0.02, "{successes} of {trials} at {p}: {found}");
        }
        assert!(at_least(50_000, 1_000_000, 0.05) > 0.4);
    }

    #[test]
    fn any_counts_are_judged_in_a_moment() {
        let all = Counts { delivered: u64::MAX, failed: u64::MAX, trapped: u64::MAX };
        for (canary, active) in [(all, all), (counts(u64::MAX, 0), all), (all, counts(0, 0))] {
            let _ = judge(canary, active, &CanaryRules { withdraw_on_trap: false, ..CanaryRules::default() });
        }
        assert!(is_withdrawn(counts(0, u64::MAX), counts(1_000, 0)));
        assert!(!is_withdrawn(counts(50_000_000, 50_000), counts(1_000_000, 1_000)));
        assert!(is_withdrawn(counts(50_000_000, 20_000_000), counts(1_000_000, 1_000)));
    }

    #[test]
    fn one_that_always_fails_is_withdrawn_after_a_few_calls() {
        assert!(!is_withdrawn(counts(0, 1), counts(1_000, 0)));
        assert!(is_withdrawn(counts(0, 3), counts(1_000, 0)));
        // Nothing is known of the active version.
        assert!(is_withdrawn(counts(0, 4), counts(0, 0)));
    }

    #[test]
    fn one_that_fails_a_fifth_is_withdrawn_within_a_hundred_calls() {
        assert!(!is_withdrawn(counts(8, 2), counts(1_000, 1)));
        assert!(is_withdrawn(counts(80, 20), counts(1_000, 1)));
    }

    #[test]
    fn one_that_fails_a_hundredth_is_promoted_and_so_is_one_as_bad_as_the_active_one() {
        let rules = CanaryRules::default();
        assert_eq!(judge(counts(400, 4), counts(5_000, 0), &rules), Verdict::Continue);
        assert_eq!(judge(counts(500, 5), counts(5_000, 0), &rules), Verdict::Promote);
        assert_eq!(judge(counts(500, 250), counts(2_000, 1_000), &rules), Verdict::Promote);
    }

    #[test]
    fn a_trap_ends_the_trial_where_it_is_to() {
        let trapped = Counts { delivered: 499, failed: 0, trapped: 1 };
        assert!(!is_withdrawn(trapped, counts(5_000, 0)));
        let rules = CanaryRules { withdraw_on_trap: true, ..CanaryRules::default() };
        assert!(matches!(judge(trapped, counts(5_000, 0), &rules), Verdict::Withdraw { .. }));
    }
}
