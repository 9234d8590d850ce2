//! Logs what may happen again and again: each new condition at once, then now and then with the number of repetitions.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tracing::Level;

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
    pub(super) level: Level,
    pub(super) position: Option<i64>,
    pub(super) attempt: Option<u32>,
    pub(super) publisher: Option<String>,
    pub(super) outcome: Option<&'static str>,
    pub(super) then: Option<&'static str>,
    pub(super) text: String,
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
            tracing::info!(
                position,
                "route {} drops what it matches, this entry first: removed without a call",
                shown(route)
            );
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
