//! How soon the relay notices what another process commits, and what it costs while there is nothing to notice.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outbox_host::Attempt;
use outbox_host::outbox::sqlite::rusqlite::Connection;
use outbox_host::publisher::component::{ComponentPublisher, Settings};
use outbox_host::{BoxFuture, JsonSerde, Outbox, Publisher, Recorded, SqliteOutbox, stop};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::super::print;
use super::median;

/// The time between two commits: longer than the relay needs to fall idle again.
const PAUSE: Duration = Duration::from_millis(5);
const IDLE_TIME: Duration = Duration::from_secs(3);

/// From another process's commit to the call of the publisher.
#[derive(Serialize)]
pub struct Wake {
    commits: usize,
    median_ms: f64,
    p99_ms: f64,
    /// Of one processor, while there is nothing to publish.
    idle_cpu_percent: f64,
}

impl Wake {
    pub fn print(&self) -> Result<()> {
        print(format!("wake-up by {} commits of another process", self.commits))?;
        print(format!("  commit to call, median                  {:>9.2} ms", self.median_ms))?;
        print(format!("  commit to call, 99 of 100               {:>9.2} ms", self.p99_ms))?;
        print(format!("  idle relay, share of one processor      {:>9.2} %", self.idle_cpu_percent))
    }
}

/// A publisher that notes when it is called.
struct Noting<'a> {
    publisher: &'a ComponentPublisher,
    called: Mutex<Vec<(i64, i64)>>,
}

impl Publisher for Noting<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let position = i64::try_from(event.position).unwrap_or(i64::MAX);
        self.called.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((position, monotonic_ns()));
        self.publisher.publish(event)
    }
}

pub fn measure(publisher: &Path, db: &Path, commits: usize) -> Result<Wake> {
    SqliteOutbox::init(db)?;
    let component = ComponentPublisher::load(publisher, Settings::default())?;
    let publisher = Noting { publisher: &component, called: Mutex::default() };
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let (stop, stopping) = stop();
    let (committed, idle_cpu_percent) = thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(&publisher, &stopping));
        let measured = committed_by_another(db, commits).map(|committed| (committed, idle_cpu_percent()));
        stop.stop();
        let relayed = relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))?;
        ensure!(relayed?.published == commits as u64, "not everything was published");
        measured
    })?;
    let called = publisher.called.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut waits: Vec<f64> = committed
        .iter()
        .filter_map(|(position, at)| called.iter().find(|call| call.0 == *position).map(|call| (call.1 - at, at)))
        // The call may even come before the writer has returned from its commit.
        .map(|(wait_ns, _)| wait_ns.max(0) as f64 / 1e6)
        .collect();
    ensure!(waits.len() == commits, "not every commit was seen");
    waits.sort_by(f64::total_cmp);
    let p99_ms = waits.get(commits * 99 / 100).copied().unwrap_or(f64::NAN);
    Ok(Wake { commits, median_ms: median(waits), p99_ms, idle_cpu_percent })
}

/// Has another process commit entries, and returns each one's position and when its commit was done.
fn committed_by_another(db: &Path, commits: usize) -> Result<Vec<(i64, i64)>> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(["bench", "--publisher", "-", "--wakes", &commits.to_string(), "--append-to"])
        .arg(db)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("the other process has no output")?);
    let mut committed = Vec::with_capacity(commits);
    for line in output.lines() {
        let line = line?;
        let (position, at) = line.split_once(' ').context("the other process printed something else")?;
        committed.push((position.parse()?, at.parse()?));
    }
    ensure!(child.wait()?.success(), "the other process failed");
    Ok(committed)
}

/// The other process: commits one entry at a time.
pub fn append(db: &Path, commits: usize) -> Result<()> {
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

fn idle_cpu_percent() -> f64 {
    let before = nanoseconds(ClockId::ProcessCPUTime);
    thread::sleep(IDLE_TIME);
    let used = nanoseconds(ClockId::ProcessCPUTime) - before;
    used as f64 / IDLE_TIME.as_nanos() as f64 * 100.0
}

/// The same clock in every process.
fn monotonic_ns() -> i64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
