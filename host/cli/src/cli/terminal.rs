//! Everything that the program writes to standard output, to standard error, and to the log. Text that strangers may
//! have written becomes harmless here: see [`outbox_host::text`].

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Result;
use outbox_host::text::{harmless, shown, steers};

/// Prints a text as one entry: all lines after the first are indented.
pub fn print(text: impl Display) -> Result<()> {
    write_out(&shown(text).to_string())
}

/// Prints a JSON document.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    write_out(&escaped(&serde_json::to_string_pretty(value)?))
}

/// Writes a text to standard error, as one entry.
#[expect(clippy::print_stderr, reason = "nothing else writes to it")]
pub fn say(text: impl Display) {
    eprintln!("{}", shown(text));
}

/// Writes lines of the program's own to standard error. What a stranger may have written in them must have gone through
/// [`shown`].
#[expect(clippy::print_stderr, reason = "nothing else writes to it")]
pub fn say_lines(text: &str) {
    eprintln!("{}", harmless(text));
}

/// The error with its causes, each once.
pub fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        // An error in settings shows their line with a caret below it; the program itself made these lines, so they
        // stay as they are.
        let lines_are_ours = cause.is::<toml::de::Error>();
        let cause = if lines_are_ours { cause.to_string() } else { shown(cause).to_string() };
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    text
}

/// Escapes control characters in JSON. They can only stand within its texts, so a reader of the JSON gets the same
/// texts.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) {
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            escaped.push_str(&units);
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A closed pipe is no error: its reader has seen enough.
fn write_out(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

/// Where the log goes. Each entry comes as one piece, whatever it was made of.
#[derive(Clone, Copy)]
pub struct LogWriter {
    pub json: bool,
}

impl Write for LogWriter {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = if self.json { escaped(line) } else { shown(line).to_string() };
        io::stderr().write_all((line + "\n").as_bytes())?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_when_it_is_read() {
        let text = "a\u{1b}[2J\n\t\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041}é";
        let json = escaped(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(steers) && !json.contains('\n'), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
