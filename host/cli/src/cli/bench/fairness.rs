//! Tenants that have turns: ten events of a tenant beside a million of another, with `fair_by` and without; and what it
//! costs, in a drain and in the application's inserts.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::{
    Attempt, BoxFuture, FairBy, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Publisher, Recorded,
    RelayOptions, SqliteOutbox, StreamId, stop,
};
use parking_lot::Mutex;

use super::bed::{self, Bed, Db, STREAMS, drain_with};
use super::figures::{Figure, Measured, in_turn, median};
use crate::cli::terminal::say;

/// The tenants: one has many entries, the other few.
const MANY: &str = "many";
const FEW: &str = "few";
/// How many events the other tenant appends at once, and how often.
const EVENTS: usize = 10;
const ROUNDS: usize = 10;
/// The time between the rounds, and before the first.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a call takes.
const CALL: Duration = Duration::from_millis(5);
/// How long to wait for the last delivery. What is not delivered by then counts with the time that it has waited.
const PATIENCE: Duration = Duration::from_secs(15);
/// The entries of a transaction that inserts several.
const AT_ONCE: usize = 100;
const INSERT: &str = "INSERT INTO outbox (tenant_id, stream_id, name, data) VALUES (?1, ?2, 'order.placed', ?3)";

/// A publisher whose calls take a while, and that notes when it has delivered an event of the tenant with few.
#[derive(Default)]
struct Slow(Mutex<HashMap<u64, Instant>>);

impl Publisher for Slow {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            tokio::time::sleep(CALL).await;
            if event.tenant_id == FEW {
                self.0.lock().insert(event.position, Instant::now());
            }
            Outcome::Delivered.into()
        })
    }
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let mut figures = waits(bed)?;
    figures.extend(drains(bed)?);
    figures.extend(inserts(bed)?);
    Ok(Measured {
        what: format!(
            "{ROUNDS} times {EVENTS} events of a tenant beside {} of another, calls of {} ms, commit to delivery; a drain of {} \
             entries; inserts of {} bytes",
            bed.backlog,
            CALL.as_millis(),
            bed.entries,
            bed.bytes
        ),
        figures,
    })
}

fn options(fair_by: FairBy) -> RelayOptions {
    RelayOptions { fair_by, ..RelayOptions::default() }
}

// --- how long the tenant with few waits -----------------------------------------------------------------------------

fn waits(bed: &Bed) -> Result<Vec<Figure>> {
    say(format_args!("fairness: making {} entries", bed.backlog));
    let db = bed.empty()?;
    fill(&db, bed.backlog, 1, bed.bytes)?;
    let ahead = keys_ms(&db)?;
    let began = Instant::now();
    SqliteOutbox::index_tenants(&db)?;
    let made = began.elapsed();
    let mut figures = vec![
        Figure::once("making the index", "ms", made.as_secs_f64() * 1e3),
        Figure::once("reading all keys, in place of an index", "ms", ahead),
    ];
    for (what, fair_by) in [("in turns", FairBy::Tenant), ("in order", FairBy::Nobody)] {
        say(format_args!("fairness: {what}"));
        let waits_ms = latencies(&bed.copy(&db)?, fair_by)?;
        figures.push(Figure::once(format!("{what}: median"), "ms", median(&waits_ms)));
        figures.push(Figure::once(format!("{what}: worst"), "ms", waits_ms.iter().copied().fold(0.0, f64::max)));
    }
    Ok(figures)
}

/// Entries of one tenant, or, with more tenants, of all of them in turn, each in a stream of many.
fn fill(db: &Db, entries: usize, tenants: usize, bytes: usize) -> Result<()> {
    let data = bed::order(bytes);
    let mut connection = Connection::open(&**db)?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare(INSERT)?;
        for entry in 0..entries {
            let tenant = if tenants == 1 { MANY.to_owned() } else { format!("tenant-{}", entry % tenants) };
            insert.execute(params![tenant, format!("order-{}", entry % STREAMS), data])?;
        }
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// What a reader would do that goes through everything in front, and reads the keys alone.
fn keys_ms(db: &Db) -> Result<f64> {
    let connection = Connection::open(&**db)?;
    let began = Instant::now();
    let mut keys = connection.prepare("SELECT position, tenant_id, stream_id, uuid FROM outbox ORDER BY position")?;
    let mut rows = keys.query([])?;
    while let Some(row) = rows.next()? {
        std::hint::black_box((row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?));
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn latencies(db: &Db, fair_by: FairBy) -> Result<Vec<f64>> {
    let publisher = Slow::default();
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde).with_options(options(fair_by));
    let (stop, stopping) = stop();
    thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(&publisher, &stopping));
        let measured = append(db, &publisher);
        stop.stop_now();
        relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))??;
        measured
    })
}

/// Appends the events of the tenant with few, and returns how long each took to be delivered.
fn append(db: &Db, publisher: &Slow) -> Result<Vec<f64>> {
    let application = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    wait(Instant::now() + PATIENCE, || Ok(application.strategy().status()?.relay.is_some()))?;
    let mut committed = Vec::with_capacity(ROUNDS * EVENTS);
    for _ in 0..ROUNDS {
        thread::sleep(PAUSE);
        let event = |n| NewEvent::json(StreamId::new(format!("few-{n}")), "order.placed", "{}").with_tenant(FEW);
        let positions = application.append(&(0..EVENTS).map(event).collect::<Vec<_>>())?;
        let at = Instant::now();
        committed.extend(positions.into_iter().map(|position| (position.unsigned_abs(), at)));
    }
    wait(Instant::now() + PATIENCE, || {
        Ok(committed.iter().all(|(position, _)| publisher.0.lock().contains_key(position)))
    })?;
    let delivered = publisher.0.lock();
    let waits = committed.iter().map(|(position, at)| {
        let ended = delivered.get(position).copied().unwrap_or_else(Instant::now);
        ended.saturating_duration_since(*at).as_secs_f64() * 1e3
    });
    Ok(waits.collect())
}

fn wait(until: Instant, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    while Instant::now() < until && !is_so()? {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

// --- what it costs --------------------------------------------------------------------------------------------------

fn drains(bed: &Bed) -> Result<Vec<Figure>> {
    let (plain, indexed, of_many) = (bed.empty()?, bed.empty()?, bed.empty()?);
    fill(&plain, bed.entries, 1, bed.bytes)?;
    fill(&indexed, bed.entries, 1, bed.bytes)?;
    fill(&of_many, bed.entries, STREAMS, bed.bytes)?;
    [&indexed, &of_many].iter().try_for_each(|db| SqliteOutbox::index_tenants(db).map(|_| ()))?;
    let nothing = |_: &Recorded| Ok(());
    let rate = |db: &Db, fair_by| drain_with(&bed.copy(db)?, &nothing, bed.entries, options(fair_by));
    let [in_order, with_index, in_turns, many] = in_turn(
        "fairness: drains",
        bed.repeat,
        [
            &mut || rate(&plain, FairBy::Nobody),
            &mut || rate(&indexed, FairBy::Nobody),
            &mut || rate(&indexed, FairBy::Tenant),
            &mut || rate(&of_many, FairBy::Tenant),
        ],
    )?;
    Ok(vec![
        Figure::ratio("drain, index alone / without", &with_index, &in_order),
        Figure::ratio("drain, in turns / without", &in_turns, &in_order),
        Figure::ratio(format!("drain, in turns of {STREAMS} tenants / without"), &many, &in_order),
        Figure::new("drain without", "/s", in_order),
        Figure::new("drain, in turns", "/s", in_turns),
    ])
}

fn inserts(bed: &Bed) -> Result<Vec<Figure>> {
    let (singles, events) = (bed.entries.div_ceil(100), bed.entries.div_ceil(4));
    let rate = |has_index, number, at_once| inserted(bed, has_index, number, at_once);
    let [one, one_indexed, many, many_indexed] = in_turn(
        "fairness: inserts",
        bed.repeat,
        [
            &mut || rate(false, singles, 1),
            &mut || rate(true, singles, 1),
            &mut || rate(false, events, AT_ONCE),
            &mut || rate(true, events, AT_ONCE),
        ],
    )?;
    Ok(vec![
        Figure::ratio("INSERT, index / without, one a transaction", &one_indexed, &one),
        Figure::ratio(format!("INSERT, index / without, {AT_ONCE} a transaction"), &many_indexed, &many),
        Figure::new("INSERT without, one a transaction", "/s", one),
        Figure::new(format!("INSERT without, {AT_ONCE} a transaction"), "/s", many),
    ])
}

/// How many entries a second are inserted, of many tenants in turn.
fn inserted(bed: &Bed, has_index: bool, number: usize, at_once: usize) -> Result<f64> {
    let db = bed.empty()?;
    if has_index {
        SqliteOutbox::index_tenants(&db)?;
    }
    let data = bed::order(bed.bytes);
    let mut connection = Connection::open(&*db)?;
    let began = Instant::now();
    for group in (0..number).step_by(at_once) {
        let transaction = connection.transaction()?;
        for entry in group..number.min(group + at_once) {
            let tenant = format!("tenant-{}", entry % STREAMS);
            transaction.prepare_cached(INSERT)?.execute(params![tenant, "order-1", data])?;
        }
        transaction.commit()?;
    }
    let rate = bed::per_second(number, began);
    let kept: i64 = connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?;
    ensure!(usize::try_from(kept).context("a count")? == number, "not every entry was inserted");
    Ok(rate)
}
