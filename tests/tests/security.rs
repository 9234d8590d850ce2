//! `docs/security.md` names for each promise and each limit a test that holds it: none is missing, and each of them exists.

use std::fs;
use std::path::{Path, PathBuf};

/// The section that lists the tests.
const SECTION: &str = "## Which test holds what";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first cells of the rows of all tables in a text, without their headings.
fn first_cells(text: &str) -> Vec<&str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells.filter(|cell| !matches!(*cell, "what" | "who" | "test")).collect()
}

/// The part of a text between two of its lines.
fn part<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let begin = text.find(from).unwrap_or_else(|| panic!("there is no {from:?}"));
    let rest = &text[begin + from.len()..];
    &rest[..rest.find(to).unwrap_or_else(|| panic!("there is no {to:?} after {from:?}"))]
}

#[test]
fn each_promise_and_each_limit_has_a_test() {
    let doc = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let held = first_cells(&doc[doc.find(SECTION).unwrap()..]);
    let promises = part(&doc, "## What is promised\n", "\n## ").lines();
    let numbers = promises.filter_map(|line| line.split_once(". **")?.0.parse::<u32>().ok());
    let promises: Vec<String> = numbers.map(|number| format!("promise {number}")).collect();
    let keys = part(&doc, "[publisher.limits]\n", "```").lines().filter_map(|line| line.split_once(" = "));
    let keys: Vec<String> = keys.map(|(key, _)| format!("`{key}`")).collect();
    let tables = part(&doc, "The following limits have no key", "\n## Connections");
    let cells: Vec<String> = first_cells(tables).into_iter().map(str::to_owned).collect();
    assert!(promises.len() >= 7 && keys.len() >= 16 && cells.len() >= 25, "{promises:?} {keys:?} {cells:?}");
    for what in promises.into_iter().chain(keys).chain(cells) {
        assert!(held.contains(&what.as_str()), "docs/security.md names no test for: {what}");
    }
}

/// All files of Rust below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn each_test_that_is_named_exists() {
    let doc = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let files = [sources(&root().join("tests/tests")), sources(&root().join("host"))].concat();
    let named: Vec<&str> = doc.split('`').skip(1).step_by(2).filter(|code| code.contains(".rs")).collect();
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        let (file, test) = name.split_once("::").unwrap_or((name, ""));
        let of_that_name = files.iter().filter(|path| path.ends_with(file));
        let is_there = |path: &PathBuf| fs::read_to_string(path).unwrap().contains(&format!("fn {test}"));
        let at = file.strip_prefix("tests/tests/").map(|file| root().join("tests/tests").join(file));
        let exists = of_that_name.chain(&at).any(|path| path.exists() && is_there(path));
        assert!(exists, "docs/security.md names {name}, and there is no such test");
    }
}
