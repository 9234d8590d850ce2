//! What is reported as committed is on the disk: as seen by strace, which also has a sync fail.

use std::fs;
use std::process::Command;

use outbox_tests::disk::{Disk, STRACE};
use outbox_tests::workplace::{Workplace, fill};
use outbox_tests::{guest, outbox_program, skipped};
use rusqlite::Connection;

/// How many entries there are in a pass.
const ENTRIES: u64 = 2_000;
/// In one in which checkpoints are made.
const MANY_ENTRIES: u64 = 8_000;

/// A pass over entries under strace.
struct Traced {
    place: Workplace,
    said: String,
    trace: String,
    /// The disk before it.
    disk: Disk,
}

impl Traced {
    /// None if there is no strace.
    fn new(entries: u64, options: &[&str]) -> Option<Self> {
        let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            skipped("whether commits are synced", "strace is missing, or may not trace");
            return None;
        }
        let place = Workplace::new();
        fill(&place.sql(), entries);
        let disk = Disk::with(&fs::canonicalize(place.path("app.db")).unwrap());
        let trace = place.path("trace");
        let mut strace = Command::new("strace");
        strace.arg("-f").args(options).arg("-o").arg(&trace).arg(outbox_program());
        strace.args(["run", "--limit", &entries.to_string(), "--db"]).arg(place.path("app.db"));
        let ran = strace.arg("--publisher").arg(guest("noop")).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let trace = fs::read_to_string(trace).unwrap();
        Some(Self { place, said, trace, disk })
    }

    /// How many entries the outbox has after a power cut that came when all of them had been reported as published.
    fn after_a_power_cut(mut self, failing: &str) -> Option<i64> {
        self.disk.follow(&self.trace, "published");
        let failed = std::mem::take(&mut self.disk.failed);
        assert!(!failed.is_empty() && failed.iter().all(|it| it.starts_with(failing)), "{failed:?}");
        let database = fs::canonicalize(self.place.path("app.db")).unwrap();
        let cut = self.place.path("cut.db");
        self.disk.save(&database, &cut);
        self.disk.save(&database.with_file_name("app.db-wal"), &self.place.path("cut.db-wal"));
        let cut = Connection::open(cut).unwrap();
        let sound: String = cut.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        Some(cut.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap())
    }
}

/// The same with a disk that fails at these syncs.
fn left_after_a_power_cut(entries: u64, call: &str, when: &str) -> Option<i64> {
    // Counted for each thread.
    let inject = format!("inject={call}:error=EIO:when={when}");
    let traced = Traced::new(entries, &[STRACE.as_slice(), &["-e", &inject]].concat())?;
    assert!(traced.said.contains(&format!("published       {entries}\n")), "{}", traced.said);
    traced.after_a_power_cut(call)
}

/// The calls on the WAL, in their order.
fn on_wal(trace: &str) -> Vec<&str> {
    trace.lines().filter(|line| line.contains("app.db-wal>")).collect()
}

const SYNCS: [&str; 3] = ["-y", "-e", "trace=pwrite64,fsync,fdatasync"];

#[test]
fn the_wal_is_synced_after_the_last_commit() {
    let Some(Traced { said, trace, .. }) = Traced::new(ENTRIES, &SYNCS) else { return };
    assert!(said.contains("published       2000\n"), "{said}");
    let calls = on_wal(&trace);
    let last = |call: &str| calls.iter().rposition(|line| line.contains(call)).unwrap();
    assert!(last("pwrite64(") < last("fdatasync("), "{}", calls.join("\n"));
}

#[test]
fn a_sync_that_fails_is_told_and_tried_again() {
    let options = [SYNCS.as_slice(), &["-e", "inject=fdatasync:error=EIO:when=1..2"]].concat();
    let Some(Traced { place, said, trace, .. }) = Traced::new(ENTRIES, &options) else { return };
    let failed = on_wal(&trace).iter().filter(|line| line.contains("(INJECTED)")).count();
    assert_eq!(failed, 2, "{trace}");
    assert!(said.contains("make durable what was settled"), "{said}");
    assert!(said.contains("published       2000\n"), "{said}");
    assert_eq!(place.status()["pending"], 0);
}

/// A system may count as written what a sync has failed to write: a later sync that succeeds says nothing of it.
#[test]
fn what_a_failed_sync_left_out_is_written_again_before_anything_is_reported() {
    for when in ["1", "1..3", "2..3"] {
        let left = left_after_a_power_cut(ENTRIES, "fdatasync", when);
        assert!(left.is_none_or(|left| left == 0), "fdatasync {when}: {left:?} entries are back");
    }
}

/// These are SQLite's own: of the WAL's beginning, and those of the thread that makes checkpoints, before and after it has
/// written to the database.
#[test]
fn a_sync_of_sqlites_that_fails_leaves_nothing_out_either() {
    for when in ["1", "1..3", "2+2"] {
        let left = left_after_a_power_cut(MANY_ENTRIES, "fsync", when);
        assert!(left.is_none_or(|left| left == 0), "fsync {when}: {left:?} entries are back");
    }
}
