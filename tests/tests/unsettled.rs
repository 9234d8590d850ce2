//! What the database refuses to settle: only the entry at fault stays, it is not published again, others go on, and it is
//! said.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use outbox_host::outbox::RelayCondition;
use outbox_host::{JsonSerde, Outbox, OutboxStorageStrategy, PublishError, Publishers, Recorded, Serde, StorageError};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::panicking::{Panicking, PanickingSerde, Part};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::until;

/// Changes of the table by an application, after which an entry of the stream `bad` cannot be removed.
const REFUSALS: [(&str, &str); 4] = [
    (
        "a trigger that refuses",
        "CREATE TRIGGER keep BEFORE DELETE ON outbox WHEN OLD.stream_id = 'bad' BEGIN SELECT RAISE(ABORT, 'keep it'); END",
    ),
    (
        "a trigger that ignores",
        "CREATE TRIGGER keep BEFORE DELETE ON outbox WHEN OLD.stream_id = 'bad' BEGIN SELECT RAISE(IGNORE); END",
    ),
    (
        "a trigger that fails for one",
        "CREATE TABLE archive (stream_id TEXT CHECK (stream_id <> 'bad'));
         CREATE TRIGGER keep BEFORE DELETE ON outbox BEGIN INSERT INTO archive VALUES (OLD.stream_id); END",
    ),
    (
        "a trigger with a function of the application's",
        "CREATE TRIGGER keep AFTER DELETE ON outbox BEGIN SELECT app_archive(OLD.data); END",
    ),
];

struct Ledger(Mutex<Vec<String>>);

impl Ledger {
    fn publisher(&self) -> impl Fn(&Recorded) -> Result<(), PublishError> + '_ {
        |event| {
            self.0.lock().unwrap().push(event.stream_id.id.clone());
            Ok(())
        }
    }

    fn delivered(&self) -> Vec<String> {
        let mut delivered = self.0.lock().unwrap().clone();
        delivered.sort();
        delivered
    }
}

fn filled(change: &str) -> Sqlite {
    let kept = Sqlite::new();
    Outbox::new(kept.open(), JsonSerde).append(&["a", "bad", "b", "c"].map(|stream| event(stream, "{}"))).unwrap();
    kept.connection().execute_batch(change).unwrap();
    kept
}

#[test]
fn a_pass_ends_with_an_error_and_publishes_nothing_twice() {
    for (what, change) in REFUSALS {
        let kept = filled(change);
        let ledger = Ledger(Mutex::default());
        for _ in 0..3 {
            let error = Outbox::new(kept.open(), JsonSerde).run(&ledger.publisher(), None).unwrap_err();
            assert!(matches!(error, StorageError::Unsettled { .. }), "{what}: {error}");
            assert_eq!(ledger.delivered(), ["a", "b", "bad", "c"], "{what}");
        }
        let status = kept.open().status().unwrap();
        let refused = if what.contains("function") { 4 } else { 1 };
        assert_eq!((status.pending, status.undeletable), (0, refused), "{what}");
        assert!(status.undeletable_reason.is_some(), "{what}");
    }
}

#[test]
fn a_relay_says_so_goes_on_with_others_and_removes_it_when_it_may() {
    for (what, change) in REFUSALS {
        let kept = filled(change);
        let ledger = Ledger(Mutex::default());
        let publisher = ledger.publisher();
        relaying(&Outbox::new(kept.open(), JsonSerde), &publisher, |_| {
            let says_so = || {
                let relay = kept.open().status().unwrap().relay;
                relay.is_some_and(|it| it.state == RelayCondition::Degraded && it.reason.contains("cannot be settled"))
            };
            until("it is said", says_so);
            Outbox::new(kept.open(), JsonSerde).append(&[event("d", "{}")]).unwrap();
            until("others go on", || ledger.delivered().len() == 5);
            kept.connection().execute_batch("DROP TRIGGER keep").unwrap();
            until("all are gone", || {
                let status = kept.open().status().unwrap();
                (status.pending, status.undeletable) == (0, 0)
            });
            until("it is well again", || {
                kept.open().status().unwrap().relay.is_some_and(|it| it.state == RelayCondition::Running)
            });
        });
        assert_eq!(ledger.delivered(), ["a", "b", "bad", "c", "d"], "{what}");
    }
}

/// Our SQLite turns foreign keys on, unless it is told not to; the application's does not.
#[test]
fn an_applications_foreign_key_on_the_table_keeps_nothing() {
    let change = "CREATE TABLE orders (id INTEGER PRIMARY KEY, event INTEGER REFERENCES outbox (position));
                  PRAGMA foreign_keys = OFF;
                  INSERT INTO orders (event) SELECT position FROM outbox;";
    let kept = filled(change);
    let ledger = Ledger(Mutex::default());
    let report = Outbox::new(kept.open(), JsonSerde).run(&ledger.publisher(), None).unwrap();
    assert_eq!((report.published, kept.open().status().unwrap().pending), (4, 0));
    let orders: i64 = kept.connection().query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 4, "the application's rows are the application's");
}

/// A dead letter that cannot be written stays in the outbox, and is not tried again and again.
#[test]
fn a_dead_letter_that_is_refused_is_tried_once() {
    let kept = filled("CREATE TRIGGER keep BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'keep it'); END");
    let calls = Mutex::new(0);
    let publisher = |_: &Recorded| {
        *calls.lock().unwrap() += 1;
        Err(PublishError::rejected("never"))
    };
    relaying(&Outbox::new(kept.open(), JsonSerde), &publisher, |_| {
        let is_degraded =
            || kept.open().status().unwrap().relay.is_some_and(|relay| relay.state == RelayCondition::Degraded);
        until("it is said", is_degraded);
        kept.connection().execute_batch("DROP TRIGGER keep").unwrap();
        until("they are set aside", || kept.open().status().unwrap().dead_letters == 4);
    });
    assert_eq!(*calls.lock().unwrap(), 4);
}

/// The columns of the application's own come back with a dead letter.
#[test]
fn columns_of_the_applications_own_are_kept_with_a_dead_letter() {
    let kept = Sqlite::new();
    kept.connection()
        .execute_batch(
            "ALTER TABLE outbox ADD COLUMN \"order \"\"id\" INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE outbox ADD COLUMN blob;
             ALTER TABLE outbox ADD COLUMN doubled INTEGER GENERATED ALWAYS AS (\"order \"\"id\" * 2);
             INSERT INTO outbox (stream_id, name, data, \"order \"\"id\", blob) VALUES ('a', 'e', '{}', 42, x'00ff');",
        )
        .unwrap();
    let fails = AtomicBool::new(true);
    let publisher = |_: &Recorded| match fails.load(Ordering::SeqCst) {
        true => Err(PublishError::rejected("never")),
        false => Ok(()),
    };
    let whole = "SELECT \"order \"\"id\" || quote(blob) || doubled FROM outbox";
    let read = || kept.connection().query_row(whole, [], |row| row.get::<_, String>(0)).unwrap();
    let before = read();
    let outbox = Outbox::new(kept.open(), JsonSerde);
    assert_eq!(outbox.run(&publisher, None).unwrap().dead_lettered, 1);
    kept.open().operator().retry_dead_letters(&outbox_host::outbox::Selection::all(), &act()).unwrap();
    assert_eq!(read(), before);
    let kept_columns = "SELECT count(*) FROM outbox_dead_letter_columns";
    assert_eq!(kept.connection().query_row(kept_columns, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    fails.store(false, Ordering::SeqCst);
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 1);
}

/// What the relays of this process have logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> Self {
        let log = Self::default();
        let lines = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).init();
        log
    }

    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
    }
}

/// A relay one part of which panics once says so, and delivers everything all the same.
fn goes_on<S: OutboxStorageStrategy, D: Serde>(outbox: &Outbox<S, D>, kept: &Sqlite, has_panicked: &AtomicBool) {
    let ledger = Ledger(Mutex::default());
    let publisher = ledger.publisher();
    relaying(outbox, &publisher, |_| {
        Outbox::new(kept.open(), JsonSerde).append(&[event("a", "{}")]).unwrap();
        until("it has panicked", || has_panicked.load(Ordering::SeqCst));
        Outbox::new(kept.open(), JsonSerde).append(&[event("b", "{}")]).unwrap();
        until("all are gone", || kept.open().status().unwrap().pending == 0);
    });
    assert!(ledger.delivered().ends_with(&["b".to_owned()]), "{:?}", ledger.delivered());
}

/// Nobody else would do its work: the session ends with that reason, and the next one goes on.
#[test]
fn a_stage_that_panics_is_no_silent_standstill() {
    let log = Log::start();
    for (part, stage) in [
        (Part::Settle, "outbox-acker"),
        (Part::Sync, "outbox-sync"),
        (Part::Watch, "outbox-watch"),
        (Part::Deployments, "outbox-maintain"),
    ] {
        let kept = Sqlite::new();
        let storage = Panicking { inner: kept.open(), part, has_panicked: AtomicBool::new(false) };
        let outbox = Outbox::new(storage, JsonSerde);
        goes_on(&outbox, &kept, &outbox.strategy().has_panicked);
        assert!(log.has(&format!("{stage} panicked: nobody foresaw this")), "{part:?}");
    }
    let (kept, serde) = (Sqlite::new(), PanickingSerde::default());
    goes_on(&Outbox::new(kept.open(), serde.clone()), &kept, &serde.has_panicked);
    assert!(log.has("call the publisher: nobody foresaw this"));
}

#[test]
fn a_pass_in_which_a_stage_panics_ends_with_that_reason() {
    let ends = |error: StorageError, what: &str| {
        let error = error.to_string();
        assert!(error.contains("nobody foresaw this"), "{what}: {error}");
    };
    for part in [Part::Settle, Part::Sync] {
        let kept = Sqlite::new();
        let storage = Panicking { inner: kept.open(), part, has_panicked: AtomicBool::new(false) };
        let outbox = Outbox::new(storage, JsonSerde);
        outbox.append(&[event("a", "{}")]).unwrap();
        ends(outbox.run(&|_: &Recorded| Ok(()), None).unwrap_err(), &format!("{part:?}"));
        outbox.run(&|_: &Recorded| Ok(()), None).unwrap();
        assert_eq!(kept.open().status().unwrap().pending, 0);
    }
    let kept = Sqlite::new();
    let outbox = Outbox::new(kept.open(), PanickingSerde::default());
    outbox.append(&[event("a", "{}")]).unwrap();
    ends(outbox.run(&|_: &Recorded| Ok(()), None).unwrap_err(), "a caller");
    assert_eq!(outbox.run(&|_: &Recorded| Ok(()), None).unwrap().published, 1);
}

/// The session reads on the thread of whoever runs it, and its panic is theirs: the other stages end, and with them the lease.
#[test]
fn a_session_that_panics_leaves_no_thread_and_no_lease_behind() {
    let kept = Sqlite::new();
    let storage = Panicking { inner: kept.open(), part: Part::Read, has_panicked: AtomicBool::new(false) };
    let outbox = Outbox::new(storage, JsonSerde);
    outbox.append(&[event("a", "{}")]).unwrap();
    let (_stop, stopping) = outbox_host::stop();
    let publisher = |_: &Recorded| Ok(());
    let relayed = catch_unwind(AssertUnwindSafe(|| outbox.relay(Publishers::one(&publisher), &stopping)));
    assert!(relayed.is_err());
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 1);
}
