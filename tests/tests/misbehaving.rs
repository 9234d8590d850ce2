//! A relay at work while the world misbehaves: it says so, in the log and in the status, loses nothing, and goes on by
//! itself when the world is mended.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use outbox_host::outbox::{Drain, RelayCondition, StorageError};
use outbox_host::{
    Backoff, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Policy, PublishError, RawEntry, Recorded,
    RelayOptions, Report, SqliteOutbox,
};
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::passing_on::{DrainedThrough, Passing, PassingOn};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::{PATIENCE, until};

const BUSY_PATIENCE: Duration = Duration::from_millis(50);

fn options() -> RelayOptions {
    let backoff = Backoff { initial: Duration::from_millis(300), max: Duration::from_millis(300) };
    RelayOptions { policy: Policy { backoff, ..Policy::default() }, ..RelayOptions::default() }
}

/// Runs a relay that reports each position that it publishes, beside `meanwhile`.
fn relaying_told(kept: &Sqlite, meanwhile: impl FnOnce(&Receiver<u64>)) -> Report {
    let (published, positions) = channel();
    let published = Mutex::new(published);
    let publisher = move |event: &Recorded| {
        published.lock().unwrap().send(event.position).unwrap();
        Ok(())
    };
    let strategy = SqliteOutbox::open_with(&kept.file(), BUSY_PATIENCE).unwrap();
    let outbox = Outbox::new(strategy, JsonSerde).with_options(options());
    relaying(&outbox, &publisher, |_| meanwhile(&positions))
}

fn append(kept: &Sqlite, streams: &[&str]) -> Vec<u64> {
    let events: Vec<NewEvent> = streams.iter().map(|stream| event(stream, "{}")).collect();
    let positions = Outbox::new(kept.open(), JsonSerde).append(&events).unwrap();
    positions.into_iter().map(i64::unsigned_abs).collect()
}

fn condition(kept: &Sqlite) -> Option<(RelayCondition, String)> {
    kept.open().status().unwrap().relay.map(|relay| (relay.state, relay.reason))
}

/// A share whose entries cannot be read by their positions, so many times.
struct Unreadable<'a, 'b> {
    inner: Box<dyn Drain + 'a>,
    times: &'b AtomicI64,
}

impl PassingOn for Unreadable<'_, '_> {
    fn inner(&self) -> &dyn Drain {
        self.inner.as_ref()
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        match self.times.fetch_sub(1, Ordering::SeqCst) {
            1.. => Err(StorageError::Busy(Duration::ZERO)),
            _ => self.inner.entries_at(positions, bytes_max),
        }
    }
}

fn unreadable(times: &'static AtomicI64) -> impl for<'a> Fn(Box<dyn Drain + 'a>) -> Box<dyn Drain + 'a> + Send + Sync {
    move |inner| Box::new(Passing(Unreadable { inner, times }))
}

/// Its time has come, and it is held in hand while the storage fails.
#[test]
fn a_retry_that_cannot_be_read_at_its_time_is_read_later() {
    static TIMES: AtomicI64 = AtomicI64::new(0);
    let kept = Sqlite::new();
    let p = append(&kept, &["a", "a"]);
    let (published, positions) = channel();
    let published = Mutex::new(published);
    let publisher = |event: &Recorded| {
        // Not while the relay begins.
        TIMES.store(2, Ordering::SeqCst);
        published.lock().unwrap().send((event.position, event.attempt)).unwrap();
        if event.attempt == 1 && event.position == p[0] { Err(PublishError::retryable("later")) } else { Ok(()) }
    };
    let storage = DrainedThrough { inner: kept.open(), wrap: unreadable(&TIMES) };
    let outbox = Outbox::new(storage, JsonSerde).with_options(options());
    relaying(&outbox, &publisher, |_| {
        let next = || positions.recv_timeout(PATIENCE).unwrap();
        assert_eq!(next(), (p[0], 1));
        let failed = Instant::now();
        assert_eq!([next(), next()], [(p[0], 2), (p[1], 1)]);
        // The watchdog would find it too, 5 s later for each time.
        assert!(failed.elapsed() < Duration::from_secs(5), "{:?}", failed.elapsed());
    });
}

#[test]
fn a_long_writer_delays_the_ack_and_nothing_is_published_twice() {
    let kept = Sqlite::new();
    append(&kept, &["a", "b", "a"]);
    let writer = kept.connection();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let report = relaying_told(&kept, |positions| {
        (0..3).for_each(|_| assert!(positions.recv_timeout(PATIENCE).is_ok()));
        let degraded = |it: (RelayCondition, String)| it.0 == RelayCondition::Degraded && it.1.contains("locked");
        until("it is shown", || condition(&kept).is_some_and(degraded));
        assert_eq!(kept.open().status().unwrap().pending, 3, "what is not committed is still there");
        writer.execute_batch("COMMIT").unwrap();
        until("all are gone", || kept.open().status().unwrap().pending == 0);
        until("it is shown", || condition(&kept).is_some_and(|it| it.0 == RelayCondition::Running));
        assert!(positions.try_recv().is_err());
    });
    assert_eq!(report.published, 3);
}

#[test]
fn a_replaced_database_is_noticed_and_the_new_one_drained() {
    let (kept, other) = (Sqlite::new(), Sqlite::new());
    append(&kept, &["a"]);
    let theirs = append(&other, &["x", "x", "x"]);
    let report = relaying_told(&kept, |positions| {
        positions.recv_timeout(PATIENCE).unwrap();
        until("all are gone", || kept.open().status().unwrap().pending == 0);
        // As when a backup is restored: without the files that belong to the old one, and in one step.
        for ending in ["-wal", "-shm"] {
            std::fs::remove_file(format!("{}{ending}", kept.file().display())).unwrap();
        }
        other.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        std::fs::rename(other.file(), kept.file()).unwrap();
        let published: Vec<u64> = theirs.iter().map(|_| positions.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(published, theirs);
        until("all are gone", || kept.open().status().unwrap().pending == 0);
    });
    assert_eq!(report.published, 4);
}

#[test]
fn a_removed_database_is_waited_for() {
    let kept = Sqlite::new();
    append(&kept, &["a"]);
    relaying_told(&kept, |positions| {
        positions.recv_timeout(PATIENCE).unwrap();
        until("all are gone", || kept.open().status().unwrap().pending == 0);
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{ending}", kept.file().display()));
        }
        // The relay also waits if the database has no outbox.
        assert!(positions.recv_timeout(Duration::from_millis(500)).is_err());
        SqliteOutbox::init(&kept.file()).unwrap();
        let p = append(&kept, &["b"]);
        assert_eq!(positions.recv_timeout(PATIENCE).unwrap(), p[0]);
    });
}

/// Set by the one test that lets the clock jump.
static CLOCK_OFFSET_S: AtomicI64 = AtomicI64::new(0);

fn jumping_clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(CLOCK_OFFSET_S.load(Ordering::SeqCst))
}

#[test]
fn a_clock_that_jumps_moves_no_retry_out_of_reach() {
    const YEAR_S: i64 = 365 * 24 * 3_600;
    let kept = Sqlite::new();
    let (called, calls) = channel();
    let called = Mutex::new(called);
    let publisher = |event: &Recorded| {
        called.lock().unwrap().send(event.attempt).unwrap();
        if event.attempt < 5 { Err(PublishError::retryable("not yet")) } else { Ok(()) }
    };
    // Each attempt is the last one before the clock jumps, in the relay's life or while there is none.
    append(&kept, &["a"]);
    for (attempts, jump_s) in [(1..=2, -YEAR_S), (3..=4, 2 * YEAR_S), (5..=5, 0)] {
        let outbox = Outbox::new(kept.open(), JsonSerde).with_options(options()).with_clock(jumping_clock, || 1.0);
        relaying(&outbox, &publisher, |_| {
            for attempt in attempts {
                assert_eq!(calls.recv_timeout(PATIENCE), Ok(attempt));
                CLOCK_OFFSET_S.fetch_add(jump_s, Ordering::SeqCst);
            }
        });
    }
    assert_eq!(kept.open().status().unwrap().pending, 0);
}

#[test]
fn a_hundred_thousand_entries_behind_a_failing_one_hold_up_nobody() {
    const HELD: usize = 100_000;
    let kept = Sqlite::new();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO outbox (stream_id, name, data) SELECT 'held', 'e', '{}' FROM n";
    kept.connection().execute(fill, [HELD as i64]).unwrap();
    let others = append(&kept, &["x", "y", "z"]);
    let mended = std::sync::atomic::AtomicBool::new(false);
    let (called, calls) = channel();
    let called = Mutex::new(called);
    let publisher = |event: &Recorded| {
        let held = event.stream_id.id == "held";
        if held && !mended.load(Ordering::SeqCst) {
            return Err(PublishError::retryable("broken"));
        }
        if !held || event.position == 1 || event.position == HELD as u64 {
            called.lock().unwrap().send((event.position, event.attempt)).unwrap();
        }
        Ok(())
    };
    let outbox = Outbox::new(kept.open(), JsonSerde).with_options(options());
    relaying(&outbox, &publisher, |_| {
        let mut first: Vec<u64> = (0..3).map(|_| calls.recv_timeout(PATIENCE).unwrap().0).collect();
        first.sort_unstable();
        assert_eq!(first, others);
        until("they are gone", || kept.open().status().unwrap().pending == HELD as u64);
        let more = append(&kept, &["x"]);
        assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), (more[0], 1));
        let blocked = kept.open().status().unwrap().blocked_streams;
        assert_eq!((blocked[0].stream_id.as_str(), blocked[0].position), ("held", 1));
        mended.store(true, Ordering::SeqCst);
        let (position, attempt) = calls.recv_timeout(PATIENCE).unwrap();
        assert!(position == 1 && attempt > 1);
        assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), (HELD as u64, 1));
        until("all are gone", || kept.open().status().unwrap().pending == 0);
    });
}
