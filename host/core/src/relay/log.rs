//! Logs what may happen again and again: each new condition at once, then now and then with the number of repetitions.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tracing::Level;

use super::report::{Failure, Then};
use super::session::Session;
use crate::attempt::Attempt;
use crate::repeats::{Repeated, Repeats};
use crate::text::shown;

/// The relay's log. Lines that it holds back are logged at the latest when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Repeats<Line>,
    /// The routes of which it was said that they drop entries.
    dropping: HashSet<usize>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    level: Level,
    position: Option<i64>,
    attempt: Option<u32>,
    publisher: Option<String>,
    outcome: Option<&'static str>,
    then: Option<&'static str>,
    text: String,
}

impl Line {
    pub(super) fn new(level: Level, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { level, position: None, attempt: None, publisher: None, outcome: None, then: None, text }
    }

    /// Its kind, which distinguishes it from other lines beside its text.
    fn kind(&self) -> String {
        let publisher = self.publisher.as_deref().unwrap_or_default();
        let [outcome, then] = [self.outcome, self.then].map(Option::unwrap_or_default);
        format!("{}/{outcome}/{then}/{publisher}", self.level)
    }

    fn say(self, repeated: Option<(u64, Duration)>) {
        let Self { level, position, attempt, publisher, outcome, then, text } = self;
        let (publisher, again) = (publisher.as_deref(), repeated.map(|(times, _)| times));
        let text = match repeated {
            None => text,
            Some((times, over)) => format!("{text} (again {times} times in {} s; this is the last)", over.as_secs()),
        };
        macro_rules! say {
            ($level:expr) => {
                tracing::event!($level, position, attempt, publisher, outcome, then, again, "{}", shown(&text))
            };
        }
        match level {
            Level::ERROR => say!(Level::ERROR),
            Level::WARN => say!(Level::WARN),
            _ => say!(Level::INFO),
        }
    }
}

impl Log {
    pub(super) fn line(&mut self, line: Line, now: Instant) {
        self.say_overdue(now);
        let (kind, text) = (line.kind(), line.text.clone());
        if let Some(line) = self.lines.hear(&kind, &text, line, now) {
            line.say(None);
        }
    }

    /// Says once of each route that it drops entries.
    pub(super) fn dropped_by(&mut self, route: usize, position: i64) {
        if self.dropping.insert(route) {
            tracing::info!(position, "route {route} drops what it matches, this entry first: removed without a call");
        }
    }

    /// When a line may be due although nothing happens.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lines.next()
    }

    pub(super) fn say_overdue(&mut self, now: Instant) {
        say_all(self.lines.overdue(now));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        say_all(self.lines.end(Instant::now()));
    }
}

fn say_all(repeated: Vec<Repeated<Line>>) {
    repeated.into_iter().for_each(|Repeated { last, times, over }| last.say(Some((times, over))));
}

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

    /// If several publishers failed, one decides; the failures of the others are logged too.
    pub(super) fn note_other_failure(&mut self, position: i64, other: &Attempt) {
        let line = Line::new(Level::WARN, other.outcome.reason());
        let publisher = other.publisher.as_deref().map(Into::into);
        let outcome = Some(other.outcome.name());
        self.log.line(Line { position: Some(position), publisher, outcome, ..line }, Instant::now());
    }
}
