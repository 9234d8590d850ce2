//! Shows text of strangers in a log or on a terminal: it stays one entry, and steers nothing.
//!
//! Text from a publisher, a destination, a certificate, a row or a file's name goes through [`shown`] before anybody
//! reads it.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Indents every line except the first.
const INDENT: &str = "    ";

/// Whether a character would affect the terminal, the log, or the text around it: control characters except tab and
/// line feed, line and paragraph separators, characters that turn the direction of writing, and characters that take no
/// room.
pub fn steers(c: char) -> bool {
    match c {
        '\t' | '\n' => false,
        // Soft hyphen; grapheme joiner; Arabic letter mark; Mongolian vowel separator.
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180E}' => true,
        // Zero-width characters and marks of direction; separators and embeddings; invisible operators, isolates.
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' => true,
        // Byte order mark; annotations; tags.
        '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}' => true,
        c => c.is_control(),
    }
}

/// The text with a replacement character for each character that [`steers`].
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.contains(steers) { text.replace(steers, "\u{FFFD}").into() } else { text.into() }
}

/// Shows `text` as one entry: without characters that steer, and with every line except the first indented, so that
/// none looks like an entry of its own. Showing it twice changes nothing more.
pub fn shown<T: Display>(text: T) -> Shown<T> {
    Shown(text)
}

/// See [`shown`].
#[derive(Debug, Clone, Copy)]
pub struct Shown<T>(T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Showing { to: f, line_feed: false, spaces: 0 }, "{}", self.0)
    }
}

/// Shows what is written to it, however the text is cut into pieces.
struct Showing<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    /// Whether the last character was a line feed, or one of the spaces of the indent after it.
    line_feed: bool,
    spaces: usize,
}

impl Write for Showing<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        if self.line_feed {
            match c {
                ' ' if self.spaces < INDENT.len() => self.spaces += 1,
                '\n' if self.spaces == 0 => {}
                c => {
                    self.to.write_str(INDENT.get(self.spaces.min(INDENT.len())..).unwrap_or_default())?;
                    self.line_feed = c == '\n';
                    self.spaces = 0;
                }
            }
        } else {
            (self.line_feed, self.spaces) = (c == '\n', 0);
        }
        self.to.write_char(if steers(c) { '\u{FFFD}' } else { c })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_looks_like_an_entry_of_its_own() {
        for (text, is_shown) in [
            ("one", "one"),
            ("one\ntwo\n\nthree\n", "one\n    two\n\n    three\n"),
            ("a\n  b\n    c\n      d", "a\n    b\n    c\n      d"),
            ("\n\tx", "\n    \tx"),
            ("a\r\nb\rc", "a\u{FFFD}\n    b\u{FFFD}c"),
        ] {
            assert_eq!(shown(text).to_string(), is_shown);
            assert_eq!(shown(is_shown).to_string(), is_shown, "what was shown before is shown as it was");
            // However it is cut.
            assert_eq!(shown(Pieces(text)).to_string(), is_shown);
        }
    }

    struct Pieces(&'static str);

    impl Display for Pieces {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.chars().try_for_each(|c| f.write_str(&c.to_string()))
        }
    }

    #[test]
    fn nothing_steers() {
        let steering = "\0\u{7}\u{8}\u{1b}[2J\u{7f}\u{85}\u{9b}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\
                        \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";
        let shown = shown(steering).to_string();
        assert_eq!(shown.replace('\u{FFFD}', ""), "[2J");
        assert_eq!(harmless(steering), shown);
        for text in ["plain", "naïve", "日本語", "עברית", "العربية", "e\u{301}", "tab\tbed", "✔\u{fe0f}"]
        {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text));
        }
    }
}
