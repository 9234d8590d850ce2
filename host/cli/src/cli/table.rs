//! Tables for people.

/// Lays out a table in aligned columns, with the titles first. A column without values is left out.
pub fn lines<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(column, title)| match width(column) {
            None | Some(0) => 0,
            Some(width) => width.max(title.len()),
        })
        .collect();
    let line = |cells: &[&str]| {
        let cells = cells.iter().zip(&widths).filter(|(_, width)| **width > 0);
        let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(&row.each_ref().map(String::as_str)));
    std::iter::once(line(&titles)).chain(rows).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_empty_ones_are_left_out() {
        let rows = [["1", "ä", "", "x"], ["10", "long", "", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(lines(["no", "n", "empty", "last"], &rows), ["no  n     last", "1   ä     x", "10  long"]);
    }
}
