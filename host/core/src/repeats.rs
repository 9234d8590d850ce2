//! Collapses lines that repeat: the first is logged at once, and those that follow are counted and logged together.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long lines are held back after the first. The time doubles while they repeat ...
const HOLD_MIN: Duration = Duration::from_secs(10);
/// ... up to this.
const HOLD_MAX: Duration = Duration::from_secs(10 * 60);
/// How many texts are distinguished. Further texts count as one for each kind.
const TEXTS_MAX: usize = 32;
/// How many characters of a text distinguish it from others.
const TEXT_CHARS_MAX: usize = 200;
/// A longer word with a digit counts as the name of one thing (an id, a time, a port), which does not distinguish
/// conditions. An HTTP status is shorter.
const NUMBER_CHARS_MAX: usize = 3;

/// Decides which lines to log now. `L` is the type of a line.
#[derive(Debug)]
pub(crate) struct Repeats<L> {
    held: HashMap<(String, String), Held<L>>,
    /// Nothing is overdue before.
    next: Option<Instant>,
}

/// The lines of one condition that are held back.
#[derive(Debug)]
struct Held<L> {
    last: Option<L>,
    times: u64,
    since: Instant,
    hold: Duration,
}

/// A line that was held back, with the number of lines that it stands for, and their time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeated<L> {
    pub(crate) last: L,
    pub(crate) times: u64,
    pub(crate) over: Duration,
}

impl<L> Default for Repeats<L> {
    fn default() -> Self {
        Self { held: HashMap::new(), next: None }
    }
}

impl<L> Repeats<L> {
    /// Takes in a line of this kind with this text, and returns it if it is to be logged now. Call
    /// [`overdue`](Self::overdue) first.
    pub(crate) fn hear(&mut self, kind: &str, text: &str, line: L, now: Instant) -> Option<L> {
        let mut condition = (kind.to_owned(), masked(text));
        if self.held.len() >= TEXTS_MAX && !self.held.contains_key(&condition) {
            condition.1.clear();
        }
        if let Some(held) = self.held.get_mut(&condition) {
            held.times += 1;
            held.last = Some(line);
            return None;
        }
        let hold = HOLD_MIN;
        self.held.insert(condition, Held { last: None, times: 0, since: now, hold });
        self.next = self.next.into_iter().chain([now + hold]).min();
        Some(line)
    }

    /// When a line may be due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The held-back lines to log now. Conditions that did not repeat are forgotten.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Repeated<L>> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let mut said = Vec::new();
        self.held.retain(|_, held| {
            if now < held.since + held.hold {
                return true;
            }
            let repeated = held.take(now);
            held.hold = (held.hold * 2).min(HOLD_MAX);
            let again = repeated.is_some();
            said.extend(repeated);
            again
        });
        self.next = self.held.values().map(|held| held.since + held.hold).min();
        said
    }

    /// All lines that are held back. To be called at the end.
    pub(crate) fn end(&mut self, now: Instant) -> Vec<Repeated<L>> {
        self.next = None;
        self.held.drain().filter_map(|(_, mut held)| held.take(now)).collect()
    }
}

impl<L> Held<L> {
    fn take(&mut self, now: Instant) -> Option<Repeated<L>> {
        let over = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        let times = std::mem::take(&mut self.times);
        self.last.take().map(|last| Repeated { last, times, over })
    }
}

/// The beginning of a text, without words that name one thing among many.
fn masked(text: &str) -> String {
    let is_of_a_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    let end = text.char_indices().nth(TEXT_CHARS_MAX).map_or(text.len(), |(end, _)| end);
    let mut masked = String::new();
    for piece in text[..end].split_inclusive(|c| !is_of_a_word(c)) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        let is_name = word.chars().any(|c| c.is_ascii_digit()) && word.chars().count() > NUMBER_CHARS_MAX;
        masked.push_str(if is_name { "#" } else { word });
        masked.push_str(&piece[word.len()..]);
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_is_said_at_once_and_the_others_are_counted() {
        let began = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.hear("stays", "answered 503", 1, began), Some(1));
        for (line, second) in (2..).zip(0..9) {
            assert_eq!(repeats.hear("stays", "answered 503", line, began + second * SECOND), None);
        }
        assert_eq!(repeats.overdue(began + 9 * SECOND), []);
        assert_eq!(repeats.next(), Some(began + 10 * SECOND));
        assert_eq!(repeats.overdue(began + 10 * SECOND), [Repeated { last: 10, times: 9, over: 10 * SECOND }]);
    }

    #[test]
    fn what_goes_on_is_said_less_and_less_often_and_what_has_ended_anew() {
        let mut now = Instant::now();
        let mut repeats = Repeats::default();
        let mut said = 0;
        for _ in 0..24 * 3_600 {
            said += repeats.overdue(now).len() + usize::from(repeats.hear("stays", "busy", (), now).is_some());
            now += SECOND;
        }
        assert!((140..160).contains(&said), "{said} lines in a day");
        now += HOLD_MAX;
        assert_eq!(repeats.overdue(now).len(), 1);
        now += HOLD_MAX;
        assert_eq!((repeats.overdue(now).len(), repeats.next()), (0, None));
        assert_eq!(repeats.hear("stays", "busy", (), now), Some(()));
    }

    #[test]
    fn nothing_is_forgotten_at_the_end() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        let said = (0..3).filter_map(|line| repeats.hear("retry", "busy", line, now)).collect::<Vec<_>>();
        assert_eq!(said, [0]);
        assert_eq!(repeats.end(now + SECOND), [Repeated { last: 2, times: 2, over: SECOND }]);
        assert_eq!(repeats.end(now + SECOND), []);
    }

    #[test]
    fn conditions_are_told_apart_by_kind_and_text_but_not_by_what_names_one_thing() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        let mut is_said = |kind, text: &str| repeats.hear(kind, text, (), now).is_some();
        assert!(is_said("stays", "http://127.0.0.1:4711/in answered 503: request 7f3a-11 at 2026-01-31T12:00:00.123Z"));
        assert!(!is_said("stays", "http://127.0.0.1:815/in answered 503: request 0042-1b at 2026-01-31T12:00:07Z"));
        assert!(is_said("stays", "http://127.0.0.1:4711/in answered 429: request 7f3a-11 at 2026-01-31T12:00:00.123Z"));
        assert!(is_said("retry", "http://127.0.0.1:4711/in answered 503: request 7f3a-11 at 2026-01-31T12:00:00.123Z"));
    }

    #[test]
    fn no_number_of_texts_makes_more_than_so_many_lines() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        let letters = |number: u32| format!("{number:b}").replace('0', "a").replace('1', "b");
        let said = (0..10_000).filter(|line| repeats.hear("stays", &letters(*line), *line, now).is_some()).count();
        assert_eq!(said, TEXTS_MAX + 1);
        assert_eq!(masked(&"ü".repeat(10_000)), "ü".repeat(TEXT_CHARS_MAX));
        let others = repeats.end(now);
        assert_eq!(others.iter().map(|repeated| repeated.times).sum::<u64>() + said as u64, 10_000);
    }
}
