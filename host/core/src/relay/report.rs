//! The report of a pass, or of a relay's life.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outbox::Fate;

/// How many entries that failed a [`Report`] names.
pub const FAILURES_MAX: usize = 100;

/// What was published, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Entries that were delivered, and removed durably.
    pub published: u64,
    /// Entries that a route drops, and that were removed durably without a call.
    pub dropped: u64,
    /// Attempts that failed, after which the entry waits for a retry.
    pub to_be_retried: u64,
    /// Entries that became dead letters.
    pub dead_lettered: u64,
    /// Calls that ended because the publisher is unavailable.
    pub unavailable: u64,
    /// Failed attempts by their outcome's name.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The entries that failed, the first [`FAILURES_MAX`] of them.
    pub failures: Vec<Failure>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The entry.
    pub position: i64,
    /// The attempt's number.
    pub attempt: u32,
    /// The publisher that failed, if it has a name.
    pub publisher: Option<String>,
    /// Its outcome's name.
    pub outcome: &'static str,
    /// Why.
    pub reason: String,
    /// What becomes of the entry.
    pub then: Then,
}

/// What becomes of an entry that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It waits for a retry.
    Retry,
    /// It becomes a dead letter.
    DeadLetter,
    /// It stays as it was, until its publisher is available.
    Stays,
}

impl Then {
    /// Its name in reports and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::DeadLetter => "dead-letter",
            Self::Stays => "stays",
        }
    }
}

impl From<Fate> for Then {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Retry { .. } => Self::Retry,
            Fate::DeadLetter { .. } => Self::DeadLetter,
        }
    }
}

impl Report {
    /// Adds the report of another session.
    pub(super) fn add(&mut self, other: Self) {
        self.published += other.published;
        self.dropped += other.dropped;
        self.to_be_retried += other.to_be_retried;
        self.dead_lettered += other.dead_lettered;
        self.unavailable += other.unavailable;
        other.outcomes.into_iter().for_each(|(outcome, count)| *self.outcomes.entry(outcome).or_default() += count);
        let room = FAILURES_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        match failure.then {
            Then::Retry => self.to_be_retried += 1,
            Then::DeadLetter => self.dead_lettered += 1,
            Then::Stays => self.unavailable += 1,
        }
        *self.outcomes.entry(failure.outcome).or_default() += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure);
        }
    }
}
