//! Notes attempts that failed, in the log and in the report.

use std::time::Instant;

use tracing::Level;

use super::log::Line;
use super::report::{Failure, Then};
use super::session::Session;
use crate::attempt::Attempt;

impl Session<'_> {
    pub(super) fn note_failure(&mut self, position: i64, attempt: u32, failed: &Attempt, then: Then) {
        let (outcome, reason) = (failed.outcome.name(), failed.outcome.reason().to_owned());
        // A single publisher need not be named.
        let publisher = failed.publisher.clone().filter(|_| self.context.publishers.name(0).is_some());
        let publisher: Option<String> = publisher.as_deref().map(Into::into);
        let level = if then == Then::DeadLetter { Level::ERROR } else { Level::WARN };
        let line = Line {
            position: Some(position),
            attempt: Some(attempt),
            publisher: publisher.clone(),
            outcome: Some(outcome),
            then: Some(then.name()),
            ..Line::new(level, &*reason)
        };
        self.log.line(line, Instant::now());
        self.report.failed(Failure { position, attempt, publisher, outcome, reason, then });
    }

    /// A call of several events failed: it is no attempt of any of them.
    pub(super) fn note_failed_call(&mut self, events: usize, failed: &Attempt) {
        let reason = failed.outcome.reason();
        let text = format!("a call with {events} events failed, and each of them is tried alone: {reason}");
        let (publisher, outcome) = (failed.publisher.as_deref().map(Into::into), Some(failed.outcome.name()));
        self.log.line(Line { publisher, outcome, ..Line::new(Level::WARN, text) }, Instant::now());
    }

    /// If several publishers failed, one decides; the failures of the others are logged too.
    pub(super) fn note_other_failure(&mut self, position: i64, other: &Attempt) {
        let line = Line::new(Level::WARN, other.outcome.reason());
        let publisher = other.publisher.as_deref().map(Into::into);
        let outcome = Some(other.outcome.name());
        self.log.line(Line { position: Some(position), publisher, outcome, ..line }, Instant::now());
    }
}
