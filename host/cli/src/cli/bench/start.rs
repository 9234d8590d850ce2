//! From the start of the relay's process to the end of its first delivery, with compiled code and without.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outbox_host::SqliteOutbox;
use outbox_host::outbox::OutboxStorageStrategy;

use super::bed::Bed;
use super::figures::{Figure, Measured, in_turn};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn measure(bed: &Bed) -> Result<Measured> {
    let cache = bed.path("cache").to_str().context("the folder's name is no text")?.to_owned();
    let cached = ["--cache", cache.as_str()];
    start(bed, &cached)?;
    let [cached, compiled] =
        in_turn("start", bed.repeat, [&mut || start(bed, &cached), &mut || start(bed, &["--no-cache"])])?;
    Ok(Measured {
        what: "start of the relay's process to its first entry delivered and committed".into(),
        figures: vec![
            Figure::new("compiled code from the cache", "ms", cached),
            Figure::new("compiled at the start", "ms", compiled),
        ],
    })
}

/// The time that one start takes, in milliseconds.
fn start(bed: &Bed, arguments: &[&str]) -> Result<f64> {
    let db = bed.filled(1, bed.bytes, 1)?;
    let outbox = SqliteOutbox::open(&db)?;
    let mut watch = outbox.watch()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("relay").arg("--db").arg(&*db).arg("--publisher").arg(&bed.publisher).args(arguments);
    let began = Instant::now();
    let _relay = Killed(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?);
    while outbox.status()?.pending > 0 {
        ensure!(began.elapsed() < PATIENCE, "the relay delivers nothing: try `outbox relay` with this publisher");
        watch.wait(Duration::from_millis(100));
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// A relay, killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
