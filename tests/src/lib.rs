//! What the tests share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "for tests only"
)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use outbox_host::outbox::Act;
use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};

pub mod answering;
pub mod bad_server;
pub mod bulk;
pub mod crash;
pub mod disk;
pub mod memory;
pub mod model;
pub mod names;
pub mod outboxes;
pub mod panicking;
pub mod passing_on;
pub mod processes;
pub mod publishers;
pub mod relaying;
pub mod sink;
pub mod unfolding;
pub mod users;
pub mod versions;
pub mod waiting;
pub mod workplace;

/// The file of a publisher that `examples/build.sh` built, from `tests/guests/` or `examples/`.
///
/// # Panics
///
/// If it is missing.
pub fn guest(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").join(format!("{name}.wasm"));
    assert!(file.exists(), "{} is missing: examples/build.sh builds it", file.display());
    file
}

/// The program `outbox`, as it was built beside the calling test.
///
/// # Panics
///
/// If it is missing, or older than its sources: Cargo only builds the programs of a test's own package.
pub fn outbox_program() -> PathBuf {
    let file = program("outbox");
    let make = "`cargo build --release --workspace` makes it";
    assert!(file.exists(), "{} is missing: {make}", file.display());
    let written = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    // Cargo lists the sources beside the program, as a rule of make's.
    let rule = std::fs::read_to_string(file.with_extension("d")).unwrap_or_default();
    let sources = rule.split_once(": ").map_or("", |(_, sources)| sources).split_whitespace();
    let newer = sources.map(Path::new).find(|source| written(source) > written(&file));
    assert!(newer.is_none(), "{} is older than {}: {make}", file.display(), newer.unwrap().display());
    file
}

/// A program that was built beside the test that asks.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // A test is in the folder `deps`, the programs are beside that.
    test.parent().and_then(Path::parent).unwrap().join(name)
}

/// Reports that something was not tested, and why: past the test harness, which hides what a passing test prints, and
/// for the summary at the end of `make test`.
///
/// # Panics
///
/// If it cannot be noted.
pub fn skipped(what: &str, why: &str) {
    let text = format!("{what}: {}", why.trim().replace('\n', " "));
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {text}\n");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/skipped");
    std::fs::create_dir_all(&folder).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("tests")).unwrap();
    // In one write, beside those of other tests.
    file.write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// A property's settings: how many cases are tried, unless `PROPTEST_CASES` says more, and where the seeds of those that
/// fail are kept, to be tried first from then on: in `tests/regressions/`, which is to be committed.
#[macro_export]
macro_rules! proptest_config {
    ($name:literal, $cases:expr) => {
        $crate::property(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/", $name, ".txt"), $cases)
    };
}

/// What [`proptest_config`] makes.
pub fn property(regressions: &'static str, cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        ..ProptestConfig::default()
    }
}

/// What an operator does now, as the audit table has it.
pub fn act() -> Act {
    Act { who: "ada".into(), at: jiff::Timestamp::now() }
}

/// The time in nanoseconds since 1970: the same clock in every process.
pub fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos().try_into().unwrap()
}
