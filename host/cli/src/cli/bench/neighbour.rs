//! A fast destination beside another publisher of the same relay that is slow, hangs, is down, spins, traps, or has many
//! entries in front of it: from the commit of an event to its delivery, beside the same relay with no such neighbour.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::publisher::component::{ComponentPublisher, Limits, Settings};
use outbox_host::{
    Attempt, BoxFuture, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Publisher, Publishers, Recorded,
    Route, SqliteOutbox, StreamId, stop,
};
use parking_lot::Mutex;

use super::bed::{self, Bed, Db};
use super::figures::{Figure, Measured, median};
use super::http::{self, server};
use super::other::{Other, Part};
use crate::cli::say;

/// The names of the publishers, which are those of their events too.
const FAST: &str = "fast";
const NEIGHBOUR: &str = "neighbour";
/// The time between two events for the fast destination.
const PAUSE: Duration = Duration::from_millis(50);
/// The most events for it.
const EVENTS_MAX: usize = 100;
/// How long to wait for the deliveries after the last event, for each event. One that is not delivered by then counts with
/// the time that it has waited.
const PATIENCE: Duration = Duration::from_millis(300);
/// The longest wait in all.
const PATIENCE_MAX: Duration = Duration::from_secs(15);
/// How long the neighbour is at work before the first event.
const BEGINS: Duration = Duration::from_millis(500);
/// How many events the neighbour has, each in a stream of its own, unless there are to be many.
const BUSY: usize = 500;
const MANY: usize = 100_000;
/// A call of the neighbour that hangs, or spins, is cut off after this time.
const HANGS: Duration = Duration::from_secs(30);
const SPINS: Duration = Duration::from_secs(2);
/// What is aimed at: at most so many times as long as alone, and so many milliseconds more.
const TIMES: f64 = 2.0;
const MORE_MS: f64 = 5.0;

/// What the neighbour does.
enum Neighbour {
    /// It posts each event to this path of the server.
    Posts(&'static str),
    /// It does what its events say, each for at most this time.
    Does(&'static str, Duration),
}

/// Each neighbour, and how many events it has.
const NEIGHBOURS: [(&str, Neighbour, usize); 6] = [
    ("one that answers after 2 s", Neighbour::Posts(server::SLOW), BUSY),
    ("one that hangs", Neighbour::Does("sleep", HANGS), BUSY),
    ("one that answers 503", Neighbour::Posts(server::DOWN), BUSY),
    ("one that spins", Neighbour::Does("spin", SPINS), BUSY),
    ("one that traps", Neighbour::Does("trap", HANGS), BUSY),
    ("one with many entries in front", Neighbour::Posts(server::SLOW), MANY),
];

/// A publisher that notes when it has delivered an event.
struct Noting<'a> {
    publisher: &'a ComponentPublisher,
    delivered: Mutex<HashMap<u64, Instant>>,
}

impl Publisher for Noting<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let attempt = self.publisher.publish(event).await;
            if attempt.outcome == Outcome::Delivered {
                self.delivered.lock().insert(event.position, Instant::now());
            }
            attempt
        })
    }
}

/// The times from commit to delivery, in milliseconds.
struct Latencies {
    median: f64,
    worst: f64,
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let mut server = Other::start(bed, Part::Serve, None, 1)?;
    let address = server.line()?.context("the server did not start")?;
    let at = |path: &str| http::settings(&format!("http://{address}{path}"));
    let fast = ComponentPublisher::load(bed.given(&bed.webhook)?, at("/")?)?;
    let events = bed.wakes.clamp(1, EVENTS_MAX);
    let mut figures = Vec::new();
    for (what, neighbour, entries) in NEIGHBOURS {
        say(format_args!("neighbour: {what}"));
        let entries = entries.min(bed.backlog);
        let (publisher, data) = match neighbour {
            Neighbour::Posts(path) => (ComponentPublisher::load(bed.given(&bed.webhook)?, at(path)?)?, bed::order(0)),
            Neighbour::Does(act, call_time) => {
                let limits = Limits { call_time, ..Limits::default() };
                let settings = Settings { limits, ..bed::settings() };
                let data = format!(r#"{{"do":"{act}"}}"#);
                (ComponentPublisher::load(bed.given(&bed.scripted)?, settings)?, data)
            }
        };
        bed::drain(&bed.filled(1, 0, 1)?, &fast, 1)?;
        let alone = latencies(&bed.empty()?, &fast, &publisher, events)?;
        let db = bed.empty()?;
        fill(&db, &data, entries)?;
        let beside = latencies(&db, &fast, &publisher, events)?;
        figures.extend(compared(what, &alone, &beside));
    }
    server.end()?;
    Ok(Measured { what: what(events), figures })
}

fn what(events: usize) -> String {
    format!(
        "{events} events for a fast destination beside another publisher, one in {} ms, commit to delivery; the aim: \
         within {TIMES} times of alone, +{MORE_MS} ms; what is not delivered {:.1} s after the last one counts with the \
         time that it has waited",
        PAUSE.as_millis(),
        patience(events).as_secs_f64()
    )
}

fn patience(events: usize) -> Duration {
    PATIENCE.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX)).min(PATIENCE_MAX)
}

fn compared(what: &str, alone: &Latencies, beside: &Latencies) -> [Figure; 6] {
    let aim = |alone: f64, beside: f64| beside / (alone * TIMES + MORE_MS);
    [
        Figure::once(format!("{what}: median"), "ms", beside.median),
        Figure::once(format!("{what}: median alone"), "ms", alone.median),
        Figure::once(format!("{what}: median / aim"), "", aim(alone.median, beside.median)),
        Figure::once(format!("{what}: worst"), "ms", beside.worst),
        Figure::once(format!("{what}: worst alone"), "ms", alone.worst),
        Figure::once(format!("{what}: worst / aim"), "", aim(alone.worst, beside.worst)),
    ]
}

/// Gives the neighbour entries, each in a stream of its own.
fn fill(db: &Db, data: &str, entries: usize) -> Result<()> {
    let mut connection = Connection::open(&**db)?;
    let transaction = connection.transaction()?;
    {
        let mut insert =
            transaction.prepare("INSERT INTO outbox (stream_id, name, data) VALUES ('n-' || ?1, ?2, ?3)")?;
        for entry in 0..entries {
            insert.execute(params![i64::try_from(entry)?, NEIGHBOUR, data])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Runs a relay with both publishers, and appends events for the fast one meanwhile.
fn latencies(db: &Db, fast: &ComponentPublisher, neighbour: &ComponentPublisher, events: usize) -> Result<Latencies> {
    let fast = Noting { publisher: fast, delivered: Mutex::default() };
    let to = |name: &str| -> Result<Route> {
        Ok(Route { name: Some(name.parse().map_err(anyhow::Error::msg)?), ..Route::to([name]) })
    };
    let members: [(&str, &dyn Publisher); 2] = [(FAST, &fast), (NEIGHBOUR, neighbour)];
    let publishers = Publishers::routed(members, [to(FAST)?, to(NEIGHBOUR)?])?;
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let (stop, stopping) = stop();
    let waits_ms = thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(publishers, &stopping));
        let measured = append(db, events, &fast.delivered);
        stop.stop_now();
        relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))??;
        measured
    })?;
    ensure!(waits_ms.len() == events, "not every event was seen");
    Ok(Latencies { median: median(&waits_ms), worst: waits_ms.iter().copied().fold(0.0, f64::max) })
}

/// Appends the events, each in a stream of its own, and returns how long each took to be delivered.
fn append(db: &Db, events: usize, delivered: &Mutex<HashMap<u64, Instant>>) -> Result<Vec<f64>> {
    let application = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let until = Instant::now() + PATIENCE_MAX;
    wait(until, || Ok(application.strategy().status()?.relay.is_some()))?;
    thread::sleep(BEGINS);
    let mut committed = Vec::with_capacity(events);
    for number in 0..events {
        thread::sleep(PAUSE);
        committed.push((append_one(&application, number)?, Instant::now()));
    }
    wait(Instant::now() + patience(events), || {
        Ok(committed.iter().all(|(position, _)| delivered.lock().contains_key(position)))
    })?;
    let delivered = delivered.lock();
    let waits = committed.iter().map(|(position, at)| {
        let ended = delivered.get(position).copied().unwrap_or_else(Instant::now);
        // The delivery may even come before the append has returned.
        ended.saturating_duration_since(*at).as_secs_f64() * 1e3
    });
    Ok(waits.collect())
}

fn append_one(application: &Outbox<SqliteOutbox>, number: usize) -> Result<u64> {
    let event = NewEvent::json(StreamId::new(format!("f-{number}")), FAST, bed::order(0));
    let positions = application.append(&[event])?;
    Ok(positions.first().context("the event was not appended")?.unsigned_abs())
}

fn wait(until: Instant, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    while Instant::now() < until && !is_so()? {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
