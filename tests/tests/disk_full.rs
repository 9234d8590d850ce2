//! A disk that is full when entries are to be acked: a real one, a file system of 4 MB in a namespace of the test's own.

use std::path::Path;
use std::process::Command;

use outbox_tests::{guest, skipped};

/// Runs in the namespace: `$1` is the program, `$2` the publisher, `$3` a folder.
const SCRIPT: &str = r#"
set -eu
outbox=$1 publisher=$2 folder=$3
mount -t tmpfs -o size=4m tmpfs "$folder"
cd "$folder"
"$outbox" init --db app.db
for n in $(seq 1 200); do printf '{"name":"n","stream_id":"s%s","data":"%0900d"}\n' $n $n; done | "$outbox" append --db app.db

# All of the disk but what it takes to open the database: the pages of 200 entries do not fit into the WAL.
dd if=/dev/zero of=filler bs=1k 2>/dev/null || true
truncate -s -100k filler
"$outbox" relay --db app.db --publisher "$publisher" 2> log &
relay=$!
waits() { # WHAT COMMAND...
  what=$1; shift
  for _ in $(seq 1 600); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
  echo "not in time: $what"; "$outbox" status --db app.db --json; cat log; exit 1
}
shows() { "$outbox" status --db app.db --json | grep -q "$1"; }
waits 'the status shows it' shows '"state": "degraded"'
waits 'the status says why' shows 'the disk is full'
"$outbox" status --db app.db --json | grep -q '"pending": 200'

rm filler
waits 'all are acked' shows '"pending": 0'
waits 'the status shows it' shows '"state": "running"'
kill -TERM $relay
wait $relay
"$outbox" status --db app.db --json | grep -q '"dead_letters": 0'
grep -c 'the disk is full' log
"#;

#[test]
fn a_full_disk_delays_the_ack_and_loses_nothing() {
    let probe = Command::new("unshare").args(["-rm", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        // Containers may forbid it; the same is tried wherever it is allowed, on CI among them.
        skipped("a full disk", "no namespace of its own can be had here (unshare -rm)");
        return;
    }
    let program = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("outbox");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", SCRIPT, "sh"])
        .args([program.as_path(), &guest("noop"), folder.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
