//! Events for later: how exactly they are published when their time comes, and what many of them cost a relay that waits
//! for them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::publisher::component::ComponentPublisher;
use outbox_host::{
    Attempt, BoxFuture, JsonSerde, Outbox, OutboxStorageStrategy, Publisher, Recorded, SqliteOutbox, Timestamp, stop,
};
use parking_lot::Mutex;
use rustix::time::ClockId;

use super::bed::{self, Bed, Db};
use super::figures::{Figure, Measured, in_turn, median, percentile};
use super::other::nanoseconds;
use super::wake::idle_cpu_percent;
use crate::cli::terminal::say;

/// The most events with a given time, and how many of them are due in a second.
const EVENTS_MAX: usize = 10_000;
const EVENTS_A_SECOND: usize = 1_000;
/// The time until the first of them: so long that all are put off first.
const BEGINS: Duration = Duration::from_secs(5);
/// How long to wait for the last of them.
const PATIENCE: Duration = Duration::from_secs(60);
/// When the many are due.
const MUCH_LATER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a relay takes to become idle.
const BECOMES_IDLE: Duration = Duration::from_secs(2);

/// A publisher that notes how late each event is, in milliseconds.
struct Noting<'a> {
    publisher: &'a ComponentPublisher,
    first: Timestamp,
    late_ms: Mutex<Vec<f64>>,
}

impl Publisher for Noting<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let due = self.first + due_after(event.position);
        self.late_ms.lock().push(Timestamp::now().duration_since(due).as_secs_f64() * 1e3);
        self.publisher.publish(event)
    }
}

/// When the event at this position is due, after the first one; not in the order of the positions.
fn due_after(position: u64) -> Duration {
    Duration::from_millis(position.wrapping_mul(7_919) % (EVENTS_MAX as u64 * 1_000 / EVENTS_A_SECOND as u64))
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let component = bed.publisher()?;
    let events = bed.entries.clamp(1, EVENTS_MAX);
    say(format_args!("delay: {events} events with a given time"));
    let late_ms = late(bed, &component, events)?;
    say(format_args!("delay: putting {} entries off", bed.backlog));
    let many = bed.empty()?;
    let later = Timestamp::now() + MUCH_LATER;
    fill(&many, bed.backlog, |_| later, &bed::order(bed.bytes))?;
    let (took_s, cpu_us) = put_off(&many, &component, bed.backlog)?;
    let none = bed.empty()?;
    let [with, without] = in_turn(
        "delay: an idle relay",
        bed.repeat,
        [&mut || idle(&many, &component), &mut || idle(&none, &component)],
    )?;
    Ok(Measured {
        what: format!(
            "{events} events, {EVENTS_A_SECOND} of them due in a second, each at a given millisecond; and {} entries that are \
             due in a day",
            bed.backlog
        ),
        figures: vec![
            Figure::once("late, median", "ms", median(&late_ms)),
            Figure::once("late, 99 of 100", "ms", percentile(&late_ms, 99)),
            Figure::once("late, worst", "ms", late_ms.iter().copied().fold(f64::MIN, f64::max)),
            Figure::once("early, most", "ms", late_ms.iter().copied().map(|late| -late).fold(0.0, f64::max)),
            Figure::once("putting off, all of them", "s", took_s),
            Figure::once("putting off, processor time of an entry", "us", cpu_us),
            Figure::ratio("idle: with them / without", &with, &without),
            Figure::new("idle with them, of one processor", "%", with),
            Figure::new("idle without, of one processor", "%", without),
        ],
    })
}

/// How late each event is.
fn late(bed: &Bed, component: &ComponentPublisher, events: usize) -> Result<Vec<f64>> {
    let db = bed.empty()?;
    let first = Timestamp::now() + BEGINS;
    fill(&db, events, |position| first + due_after(position), &bed::order(bed.bytes))?;
    let publisher = Noting { publisher: component, first, late_ms: Mutex::default() };
    relaying(&db, &publisher, || {
        let until = Instant::now() + BEGINS + PATIENCE;
        while publisher.late_ms.lock().len() < events && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })?;
    let late_ms = publisher.late_ms.into_inner();
    ensure!(late_ms.len() == events, "{} of {events} events were published", late_ms.len());
    Ok(late_ms)
}

/// Makes entries, each in a stream of its own, with these times.
fn fill(db: &Db, entries: usize, due: impl Fn(u64) -> Timestamp, data: &str) -> Result<()> {
    let mut connection = Connection::open(&**db)?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare(
            "INSERT INTO outbox (position, stream_id, name, data, publish_after) VALUES (?1, 's-' || ?1, 'later', ?2, ?3)",
        )?;
        for position in 1..=u64::try_from(entries)? {
            insert.execute(params![i64::try_from(position)?, data, due(position).to_string()])?;
        }
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Has a pass put all entries off. Returns how long it took, in seconds, and the processor time of each in microseconds.
fn put_off(db: &Db, publisher: &impl Publisher, entries: usize) -> Result<(f64, f64)> {
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let (began, cpu_ns) = (Instant::now(), nanoseconds(ClockId::ProcessCPUTime));
    outbox.run(publisher, 1)?;
    let (took, cpu_ns) = (began.elapsed(), nanoseconds(ClockId::ProcessCPUTime) - cpu_ns);
    let status = outbox.strategy().status()?;
    ensure!(status.delayed == entries as u64, "{} of {entries} entries were put off", status.delayed);
    Ok((took.as_secs_f64(), cpu_ns as f64 / 1e3 / entries as f64))
}

/// The processor time of a relay that has nothing to do, as a part of one processor.
fn idle(db: &Db, publisher: &impl Publisher) -> Result<f64> {
    relaying(db, publisher, || {
        thread::sleep(BECOMES_IDLE);
        Ok(idle_cpu_percent())
    })
}

/// Runs a relay beside `meanwhile`.
fn relaying<T>(db: &Db, publisher: &impl Publisher, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let (stop, stopping) = stop();
    thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(publisher, &stopping));
        let done = meanwhile();
        stop.stop();
        relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))??;
        done
    })
}
