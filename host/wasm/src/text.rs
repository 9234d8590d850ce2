//! Cuts text of a guest to a length, and makes it harmless for terminals.

use std::borrow::Cow;

use outbox_engine::text::harmless;

/// `text` cut to `chars_max` characters, with a mark where something was cut, and [`harmless`].
pub(super) fn bounded(text: String, chars_max: usize) -> String {
    let harmless = if let Cow::Owned(harmless) = harmless(&text) { Some(harmless) } else { None };
    let mut text = harmless.unwrap_or(text);
    // A text cannot have more characters than bytes: the common case needs no count.
    if text.len() <= chars_max {
        return text;
    }
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The last bytes of `text`, at most `bytes_max`, from a character's start on.
pub(super) fn tail(text: &str, bytes_max: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters_only() {
        assert_eq!(bounded("naïve".into(), 5), "naïve");
        assert_eq!(bounded("naïve".into(), 3), "naï…");
        assert_eq!(bounded("naïve".into(), 0), "…");
        assert_eq!(bounded(String::new(), 0), "");
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(bounded("a\tb\nc".into(), 10), "a\tb\nc");
        assert_eq!(bounded("\u{1b}[2J\r\u{9b}\u{7f}".into(), 10), "\u{FFFD}[2J\u{FFFD}\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn the_tail_starts_at_a_character() {
        assert_eq!(tail("naïve", 3), "ve");
        assert_eq!(tail("naïve", 4), "ïve");
        assert_eq!(tail("abc", 10), "abc");
        assert_eq!(tail("abc", 0), "");
    }
}
