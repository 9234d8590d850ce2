//! What holds for the tests themselves.

use std::fs;
use std::path::Path;

/// The test files, with their text.
fn tests() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn whatever_fails_a_property_is_kept_and_tried_again() {
    let forgets = tests().into_iter().filter(|(name, text)| {
        let stem = name.trim_end_matches(".rs");
        text.contains("\nproptest! {\n") && !text.contains(&format!("proptest_config!(\"{stem}\""))
    });
    assert_eq!(forgets.map(|(name, _)| name).collect::<Vec<_>>(), [""; 0], "see outbox_tests::proptest_config");
}

/// What a passing test prints is seen by nobody.
#[test]
fn no_test_is_skipped_in_silence() {
    let prints = tests().into_iter().filter(|(_, text)| text.lines().any(|line| line.trim().starts_with("eprintln!(")));
    assert_eq!(prints.map(|(name, _)| name).collect::<Vec<_>>(), [""; 0], "see outbox_tests::skipped");
}

/// The tests that `make unit` leaves out are tests that there are: all others are in it.
#[test]
fn what_make_unit_leaves_out_is_there() {
    let makefile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Makefile")).unwrap();
    let list = makefile.split_once("NOT_UNIT := ").unwrap().1.split_once("\n\n").unwrap().0;
    let known: Vec<String> = tests().into_iter().map(|(name, _)| name).collect();
    for name in list.split([' ', '\\', '\n']).filter(|name| !name.is_empty()) {
        assert!(known.contains(&format!("{name}.rs")), "there is no tests/tests/{name}.rs");
    }
}
