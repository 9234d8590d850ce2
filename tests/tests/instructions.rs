//! The processor's instructions for an entry, counted by valgrind: they do not depend on what else the machine does, so
//! that a loop that got more expensive is seen at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use outbox_tests::workplace::{Workplace, fill};
use outbox_tests::{guest, outbox_program, skipped};

/// The most that an entry may cost, from its row to its commit, the call of a component that does nothing included. About a
/// twentieth above what it costs, 39,400 (37,200 before `publish_after` and `expires_at` were read): lower it when that gets less.
const INSTRUCTIONS_MAX: u64 = 41_000;
const ENTRIES: u64 = 2_000;

#[test]
fn an_entry_costs_no_more_instructions_than_it_did() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        skipped("the instructions of an entry", "valgrind is missing");
        return;
    }
    let place = Workplace::empty();
    // Under valgrind the processor is another one, for which the publisher is compiled anew.
    drained(&place, 1);
    let (some, (twice_as_many, profile)) = (drained(&place, ENTRIES).0, drained(&place, 2 * ENTRIES));
    // What the start costs is in both.
    let each = (twice_as_many - some) / ENTRIES;
    println!("{each} instructions an entry");
    assert!(
        each <= INSTRUCTIONS_MAX,
        "an entry costs {each} instructions, and {INSTRUCTIONS_MAX} were allowed. Where they went:\n\n    \
         callgrind_annotate {} | head -60\n",
        profile.display()
    );
}

/// Drains this many entries, and returns the instructions that it took, and the profile.
fn drained(place: &Workplace, entries: u64) -> (u64, PathBuf) {
    let db = place.path(&format!("{entries}.db"));
    let name = db.file_name().unwrap().to_str().unwrap();
    place.outbox(&format!("init --db {name}")).ok();
    fill(&place.sql_of(name), entries);
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/callgrind.{entries}"));
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.arg(outbox_program()).args(["run", "--limit", &entries.to_string(), "--db"]).arg(&db);
    valgrind.arg("--publisher").arg(guest("noop")).arg("--cache").arg(place.path("cache"));
    // A process of its own would run beside valgrind, and compile for this machine's processor.
    let ran = valgrind.env("OUTBOX_COMPILE", "in-process").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(stdout.contains(&format!("published       {entries}\n")), "{stdout}{stderr}");
    let text = fs::read_to_string(&profile).unwrap();
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")).unwrap();
    (total.parse().unwrap(), profile)
}
