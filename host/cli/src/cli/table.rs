//! Tables for people, and what stands in their cells.

use jiff::{Timestamp, Unit};
use outbox_host::text::shown;
use unicode_width::UnicodeWidthStr;

/// What stands between two columns.
const GAP: &str = "  ";

/// Lays out a table in aligned columns, with the titles first. A column without values is left out.
pub fn lines<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let titles = titles.map(str::to_owned);
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| one_line(cell))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let widest = |rows: &[[String; N]]| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0);
        match widest(&rows) {
            0 => 0,
            values => values.max(widest(std::slice::from_ref(&titles))),
        }
    });
    std::iter::once(&titles).chain(&rows).map(|row| line(row, &widths)).collect()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).filter(|(_, width)| **width > 0);
    let cells: Vec<String> = cells.map(|(cell, width)| padded(cell, *width)).collect();
    cells.join(GAP).trim_end().to_owned()
}

/// How many columns a terminal needs for a text: two for most characters of East Asia and for emoji, none for a
/// character that combines with the one before it.
fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{:missing$}", "")
}

/// The text as the terminal will show it, in one line. Only this has a certain width.
fn one_line(text: &str) -> String {
    shown(text).to_string().replace(['\t', '\n'], " ")
}

/// The most characters of a value in a line of a list.
const CELL_CHARS_MAX: usize = 200;

/// A text that stands beside others in a line.
pub fn cell(text: &str) -> String {
    let cut = text.chars().nth(CELL_CHARS_MAX).is_some();
    text.chars().take(CELL_CHARS_MAX).chain(cut.then_some('…')).collect()
}

/// The first line of a text.
pub fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A time rounded to seconds: nobody reads more digits.
pub fn second(at: Timestamp) -> Timestamp {
    // The last possible time cannot be rounded.
    at.round(Unit::Second).unwrap_or(at)
}

/// How many characters of a digest are shown where there is little room.
const DIGEST_CHARS: usize = 12;

pub fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_empty_ones_are_left_out() {
        let rows = [["1", "ä", "", "x"], ["10", "long", "", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(lines(["no", "n", "empty", "last"], &rows), ["no  n     last", "1   ä     x", "10  long"]);
    }

    #[test]
    fn columns_are_as_wide_as_a_terminal_shows_them() {
        let names = [
            "order",
            "注文",
            "한국어",
            "🎉🎉",
            "e\u{301}te\u{301}",
            "✔\u{fe0f}",
            "ｶﾅ",
            "a\tb",
            "\u{1b}[2J",
            "👩\u{200d}🚀",
        ];
        let rows = names.map(|name| [name.to_owned(), "|".to_owned()]);
        let lines = lines(["name", "end"], &rows);
        let expected = [
            "name    end",
            "order   |",
            "注文    |",
            "한국어  |",
            "🎉🎉    |",
            "e\u{301}te\u{301}     |",
            "✔\u{fe0f}      |",
            "ｶﾅ      |",
            "a b     |",
            "\u{FFFD}[2J    |",
            "👩\u{FFFD}🚀   |",
        ];
        assert_eq!(lines, expected);
    }
}
