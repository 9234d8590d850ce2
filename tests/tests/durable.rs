//! What is reported as committed is on the disk: as seen by strace, which also has a sync fail.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Write, stderr};
use std::process::Command;

use outbox_tests::workplace::{Workplace, fill};
use outbox_tests::{guest, outbox_program};

/// A pass over 2,000 entries under strace: what it printed, and the trace. None where there is no strace.
fn traced(options: &[&str]) -> Option<(Workplace, String, String)> {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        // Past the test harness, which would keep it to itself.
        let _ = writeln!(
            stderr(),
            "\nSKIPPED: nobody looked whether commits are synced: strace is missing, or may not trace\n"
        );
        return None;
    }
    let place = Workplace::new();
    fill(&place.sql(), 2_000);
    let trace = place.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=pwrite64,fsync,fdatasync"]).args(options).arg("-o").arg(&trace);
    strace.arg(outbox_program()).args(["run", "--limit", "2000", "--db"]).arg(place.path("app.db"));
    let ran = strace.arg("--publisher").arg(guest("noop")).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let trace = fs::read_to_string(trace).unwrap();
    Some((place, said, trace))
}

/// The calls on the WAL, in their order.
fn on_wal(trace: &str) -> Vec<&str> {
    trace.lines().filter(|line| line.contains("app.db-wal>")).collect()
}

#[test]
fn the_wal_is_synced_after_the_last_commit() {
    let Some((_, said, trace)) = traced(&[]) else { return };
    assert!(said.contains("published       2000\n"), "{said}");
    let calls = on_wal(&trace);
    let last = |call: &str| calls.iter().rposition(|line| line.contains(call)).unwrap();
    assert!(last("pwrite64(") < last("fdatasync("), "{}", calls.join("\n"));
}

#[test]
fn a_sync_that_fails_is_told_and_tried_again() {
    let Some((place, said, trace)) = traced(&["-e", "inject=fdatasync:error=EIO:when=1..2"]) else { return };
    let failed = on_wal(&trace).iter().filter(|line| line.contains("(INJECTED)")).count();
    assert_eq!(failed, 2, "{trace}");
    assert!(said.contains("make durable what was settled"), "{said}");
    assert!(said.contains("published       2000\n"), "{said}");
    assert_eq!(place.status()["pending"], 0);
}
