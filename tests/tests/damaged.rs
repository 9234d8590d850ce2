//! Damaged databases: whatever is broken in the file, a run ends, and says what to do.

use std::io::{Read, Seek, SeekFrom, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outbox_tests::workplace::{Ran, Workplace};

/// How many files are damaged, each in another way.
const FILES: u64 = 60;
/// How long a run may take: a pass gives up after 30 s if the database keeps refusing.
const RUN_MAX: Duration = Duration::from_secs(120);

/// A database whose pages contain entries of several sizes, some of which wait or are dead letters.
fn filled() -> Workplace {
    let place = Workplace::new();
    let mut lines = String::new();
    for number in 0..400 {
        let (what, filler) = (["", "retry", "reject"][number % 3], "x".repeat(number * 37 % 3_000));
        lines += &format!(
            "{{\"name\": \"e\", \"stream_id\": \"s{}\", \"data\": {{\"do\": \"{what}\", \"filler\": \"{filler}\"}}}}\n",
            number % 40
        );
    }
    place.append(&lines);
    place.outbox("run --db app.db --publisher guests/scripted.wasm --limit 60").ok();
    place.query("PRAGMA wal_checkpoint(TRUNCATE)");
    place
}

/// Overwrites a piece of the file with random bytes, zeros, or a copy of another page.
fn damage(place: &Workplace, rng: &mut Rng) -> String {
    let path = place.path("app.db");
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let pages = file.metadata().unwrap().len() / 4_096;
    // The first page contains the schema: a file without it is no outbox at all.
    let (page, other) = (rng.u64(1..pages), rng.u64(1..pages));
    let mut bytes = vec![0_u8; 4_096];
    let (what, length) = match rng.u8(..4) {
        0 => ("zeros", 4_096),
        1 => {
            file.seek(SeekFrom::Start(other * 4_096)).unwrap();
            file.read_exact(&mut bytes).unwrap();
            ("another page", 4_096)
        }
        2 => ("random bytes", {
            rng.fill(&mut bytes);
            4_096
        }),
        _ => ("some random bytes", {
            rng.fill(&mut bytes);
            rng.usize(1..64)
        }),
    };
    let offset = if length < 4_096 { rng.u64(..4_000) } else { 0 };
    file.seek(SeekFrom::Start(page * 4_096 + offset)).unwrap();
    file.write_all(&bytes[..length]).unwrap();
    format!("page {page} of {pages} has {what} at {offset}")
}

#[test]
fn a_run_on_a_damaged_database_ends() {
    let place = filled();
    let whole = std::fs::read(place.path("app.db")).unwrap();
    let (mut failed, mut slowest) = (0, Duration::ZERO);
    for seed in 0..FILES {
        let mut rng = Rng::with_seed(seed);
        for ending in ["-wal", "-shm", "-outbox.calls"] {
            let _ = std::fs::remove_file(place.path(&format!("app.db{ending}")));
        }
        place.write("app.db", &whole);
        let what = damage(&place, &mut rng);
        let since = Instant::now();
        let child = place.start("run --db app.db --publisher guests/scripted.wasm", Stdio::null());
        let ran = Ran::of(&format!("run, seed {seed}: {what}"), child, RUN_MAX);
        slowest = slowest.max(since.elapsed());
        if ran.code != Some(0) && ran.code != Some(1) {
            panic!("seed {seed}: {what}: {:?} {}", ran.code, ran.stderr);
        }
        failed += u32::from(ran.code != Some(0));
    }
    assert!(failed > 0, "no file was damaged where it matters");
    println!("{failed} of {FILES} runs ended with an error, the slowest after {slowest:.1?}");
}
