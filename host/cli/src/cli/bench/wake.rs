//! How soon the relay notices another process's commit, and what the relay costs while idle.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outbox_host::outbox::sqlite::rusqlite::Connection;
use outbox_host::publisher::component::ComponentPublisher;
use outbox_host::{Attempt, BoxFuture, JsonSerde, Outbox, Publisher, Recorded, SqliteOutbox, stop};
use parking_lot::Mutex;
use rustix::time::ClockId;

use super::bed::Bed;
use super::figures::{Figure, Measured, median, percentile};
use super::other::{Other, Part, monotonic_ns, nanoseconds};
use crate::cli::terminal::say;

/// The time between two commits: long enough for the relay to become idle again.
const PAUSE: Duration = Duration::from_millis(5);
const IDLE_TIME: Duration = Duration::from_secs(3);

/// A publisher that notes when it is called.
struct Noting<'a> {
    publisher: &'a ComponentPublisher,
    called: Mutex<Vec<(i64, i64)>>,
}

impl Publisher for Noting<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let position = i64::try_from(event.position).unwrap_or(i64::MAX);
        self.called.lock().push((position, monotonic_ns()));
        self.publisher.publish(event)
    }
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    say(format_args!("wake: waiting for {} commits of another process", bed.wakes));
    let (db, commits) = (bed.empty()?, bed.wakes);
    let component = bed.publisher()?;
    let publisher = Noting { publisher: &component, called: Mutex::default() };
    let outbox = Outbox::new(SqliteOutbox::open(&db)?, JsonSerde);
    let (stop, stopping) = stop();
    let (committed, idle_cpu_percent) = thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(&publisher, &stopping));
        let measured = committed_by_another(bed, &db).map(|committed| (committed, idle_cpu_percent()));
        stop.stop();
        let relayed = relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))?;
        ensure!(relayed?.published == commits as u64, "not everything was published");
        measured
    })?;
    let called = publisher.called.into_inner();
    let waits: Vec<f64> = committed
        .iter()
        .filter_map(|(position, at)| called.iter().find(|call| call.0 == *position).map(|call| call.1 - at))
        // The call may even come before the writer has returned from its commit.
        .map(|wait_ns| wait_ns.max(0) as f64 / 1e6)
        .collect();
    ensure!(waits.len() == commits, "not every commit was seen");
    Ok(Measured {
        what: format!("wake-up by {commits} commits of another process"),
        figures: vec![
            Figure::once("commit to call, median", "ms", median(&waits)),
            Figure::once("commit to call, 99 of 100", "ms", percentile(&waits, 99)),
            Figure::once("idle relay, of one processor", "%", idle_cpu_percent),
        ],
    })
}

/// Lets another process commit entries, and returns each entry's position and the time of its commit.
fn committed_by_another(bed: &Bed, db: &Path) -> Result<Vec<(i64, i64)>> {
    let mut other = Other::start(bed, Part::Wake, Some(db), 1)?;
    let mut committed = Vec::with_capacity(bed.wakes);
    while let Some(line) = other.line()? {
        let (position, at) = line.split_once(' ').context("the other process printed something else")?;
        committed.push((position.parse()?, at.parse()?));
    }
    other.end()?;
    Ok(committed)
}

/// The other process: commits one entry at a time.
pub fn commit(db: &Path, commits: usize) -> Result<()> {
    let connection = Connection::open(db)?;
    let mut insert = connection.prepare("INSERT INTO outbox (stream_id, name, data) VALUES ('s', 'woken', '{}')")?;
    let mut output = std::io::stdout().lock();
    for _ in 0..commits {
        thread::sleep(PAUSE);
        insert.execute([])?;
        let at = monotonic_ns();
        writeln!(output, "{} {at}", connection.last_insert_rowid())?;
    }
    Ok(())
}

pub(super) fn idle_cpu_percent() -> f64 {
    let before = nanoseconds(ClockId::ProcessCPUTime);
    thread::sleep(IDLE_TIME);
    let used = nanoseconds(ClockId::ProcessCPUTime) - before;
    used as f64 / IDLE_TIME.as_nanos() as f64 * 100.0
}
