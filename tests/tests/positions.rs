//! Positions that come again, or appear where nobody looks any more: whatever programs do to the table, what is pending and
//! nothing holds back is published, while other streams wait or are parked.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use outbox_host::outbox::{Selection, sqlite::rusqlite::Connection};
use outbox_host::{
    Attempt, Backoff, BoxFuture, JsonSerde, OnDeadLetter, Outbox, OutboxStorageStrategy, Outcome, Policy, PublishError,
    Publisher, Recorded, RelayOptions,
};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::{PATIENCE, until};
use tokio::sync::Semaphore;

/// Holds a stream during the test.
#[derive(Debug, Clone, Copy, PartialEq)]
enum HeldBy {
    Waiting,
    Parked,
    /// Its call does not end.
    Call,
}

const HOLDS: [HeldBy; 3] = [HeldBy::Waiting, HeldBy::Parked, HeldBy::Call];

const INSERT: &str = "INSERT INTO outbox (stream_id, name, data) VALUES (?1, 'e', '{}')";
const INSERT_AT: &str = "INSERT INTO outbox (position, stream_id, name, data) VALUES (?2, ?1, 'e', '{}')";

/// A relay at work, in which the stream `held` is held, and an application's connection.
struct World {
    application: Connection,
    delivered: Receiver<(String, u64)>,
}

impl World {
    fn next(&self) -> (String, u64) {
        self.delivered.recv_timeout(PATIENCE).unwrap()
    }

    fn append(&self, stream: &str) {
        self.application.execute(INSERT, [stream]).unwrap();
    }

    fn append_at(&self, position: i64, stream: &str) {
        self.application.execute(INSERT_AT, (stream, position)).unwrap();
    }
}

struct Holding {
    hold: HeldBy,
    /// Closed when the calls may end.
    released: Semaphore,
    told: Mutex<Sender<(String, u64)>>,
}

impl Publisher for Holding {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let is_held = event.stream_id.id == "held";
            match self.hold {
                HeldBy::Waiting if is_held => return Outcome::from(Err(PublishError::retryable("not yet"))).into(),
                HeldBy::Parked if is_held => return Outcome::from(Err(PublishError::rejected("never"))).into(),
                HeldBy::Call if is_held => _ = self.released.acquire().await,
                _ => self.told.lock().unwrap().send((event.stream_id.id.clone(), event.position)).unwrap(),
            }
            Outcome::Delivered.into()
        })
    }
}

/// Makes a relay with ten entries of the stream `held` at its begin, the first of which is held, and has it deliver another.
fn with_a_held_stream(hold: HeldBy, kept: &Sqlite, meanwhile: impl FnOnce(&World)) {
    let (told, delivered) = channel();
    let publisher = Holding { hold, released: Semaphore::new(0), told: Mutex::new(told) };
    let forever = Backoff { initial: Duration::from_secs(3_600), max: Duration::from_secs(3_600) };
    let policy = Policy { backoff: forever, ..Policy::default() };
    let options = RelayOptions { policy, on_dead_letter: OnDeadLetter::Park, ..RelayOptions::default() };
    let outbox = Outbox::new(kept.open(), JsonSerde).with_options(options).with_clock(jiff::Timestamp::now, || 1.0);
    let world = World { application: kept.connection(), delivered };
    world.application.busy_timeout(PATIENCE).unwrap();
    for _ in 0..10 {
        world.append("held");
    }
    relaying(&outbox, &publisher, |_| {
        for stream in ["free", "free"] {
            world.append(stream);
            assert_eq!(world.next().0, stream);
        }
        until("they are gone", || count(&world.application, "outbox WHERE stream_id = 'free'") == 0);
        meanwhile(&world);
        publisher.released.close();
    });
}

fn count(connection: &Connection, what: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_inserted_below_the_cursor_is_published_at_once() {
    for hold in HOLDS {
        let kept = Sqlite::new();
        with_a_held_stream(hold, &kept, |world| {
            let found_within = |position| {
                let since = Instant::now();
                world.append_at(position, &format!("low{position}"));
                // A negative position is no event's: it becomes a dead letter.
                until(&format!("{hold:?}: the entry at {position} is read"), || {
                    count(&world.application, "outbox_dead_letters WHERE position < 0") > 0
                });
                world.application.execute_batch("DELETE FROM outbox_dead_letters WHERE position < 0").unwrap();
                since.elapsed()
            };
            // The watchdog looks once a second: of those that come right after it has looked, it finds none sooner. A relay
            // that is told finds one of them sooner, however busy the machine is.
            found_within(i64::MIN);
            let is_told = (-30..0).any(|position| found_within(position) < Duration::from_millis(500));
            assert!(is_told, "{hold:?}: only the watchdog has found them");
        });
    }
}

#[test]
fn a_backup_that_is_restored_is_drained() {
    for hold in HOLDS {
        let kept = Sqlite::new();
        with_a_held_stream(hold, &kept, |world| {
            // The backup is of a time when this was pending.
            let backup = Sqlite::new();
            let lost = backup.connection();
            for stream in ["x", "y", "x"] {
                lost.execute(INSERT, [stream]).unwrap();
            }
            {
                let mut live = kept.connection();
                let restore = rusqlite::backup::Backup::new(&lost, &mut live).unwrap();
                restore.run_to_completion(100, Duration::from_millis(1), None).unwrap();
            }
            let mut came: Vec<(String, u64)> = (0..3).map(|_| world.next()).collect();
            came.sort();
            assert_eq!(came, [("x".into(), 1), ("x".into(), 3), ("y".into(), 2)], "{hold:?}");
            until("they are gone", || count(&world.application, "outbox") == 0);
            world.append("z");
            assert_eq!(world.next(), ("z".into(), 4));
        });
    }
}

#[test]
fn a_table_that_is_rebuilt_and_counts_from_the_start_is_drained() {
    for hold in [HeldBy::Parked, HeldBy::Waiting] {
        let kept = Sqlite::new();
        with_a_held_stream(hold, &kept, |world| {
            for round in 0..3 {
                // As an object-relational mapper changes a table: a new one, a copy, and the new name.
                let table: String = world
                    .application
                    .query_row("SELECT sql FROM sqlite_schema WHERE name = 'outbox'", [], |row| row.get(0))
                    .unwrap();
                let new = table.replacen("outbox", "new__outbox", 1).replace("\"new__outbox\"", "new__outbox");
                world
                    .application
                    .execute_batch(&format!(
                        "BEGIN IMMEDIATE; {new}; INSERT INTO new__outbox SELECT * FROM outbox WHERE position < 3;
                         DROP TABLE outbox; ALTER TABLE new__outbox RENAME TO outbox; COMMIT"
                    ))
                    .unwrap();
                let stream = format!("free{round}");
                world.append(&stream);
                assert_eq!(world.next().0, stream, "{hold:?}");
            }
        });
    }
}

/// An application may have made the table without AUTOINCREMENT, which `init` warns of.
fn without_autoincrement() -> Sqlite {
    let kept = Sqlite::new();
    kept.connection()
        .execute_batch(
            "DROP TABLE outbox;
             CREATE TABLE outbox (position INTEGER PRIMARY KEY, tenant_id, stream_id, stream_name, category,
                                  uuid DEFAULT (lower(hex(randomblob(4)) || '-0000-4000-8000-' || hex(randomblob(6)))),
                                  name, version, created_at DEFAULT '2026-01-31T12:00:00Z', content_type, context, data);",
        )
        .unwrap();
    kept
}

#[test]
fn positions_that_are_given_again_are_published_each_time() {
    for hold in HOLDS {
        let kept = without_autoincrement();
        with_a_held_stream(hold, &kept, |world| {
            for round in 0..20 {
                let stream = format!("free{round}");
                world.append(&stream);
                assert_eq!(world.next().0, stream, "{hold:?}");
                until("it is gone", || count(&world.application, "outbox WHERE stream_id <> 'held'") == 0);
            }
        });
    }
}

/// An entry is removed by hand while it is published, and another has its place: it must not go with the first one's ack.
#[test]
fn an_ack_removes_no_other_entry() {
    let kept = without_autoincrement();
    let (called, calls) = channel();
    let (answer, answers) = channel::<()>();
    // A native call that does not return holds up its thread, and nobody else's.
    let (called, answers) = (Mutex::new(called), Mutex::new(answers));
    let publisher = |event: &Recorded| {
        called.lock().unwrap().send(event.stream_id.id.clone()).unwrap();
        if event.stream_id.id == "slow" {
            let _ = answers.lock().unwrap().recv();
        }
        Ok(())
    };
    let application = kept.connection();
    application.execute(INSERT, ["slow"]).unwrap();
    relaying(&Outbox::new(kept.open(), JsonSerde), &publisher, |_| {
        assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), "slow");
        application.execute_batch("BEGIN IMMEDIATE; DELETE FROM outbox").unwrap();
        application.execute(INSERT, ["other"]).unwrap();
        application.execute_batch("COMMIT").unwrap();
        drop(answer);
        assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), "other");
        until("it is gone", || count(&application, "outbox") == 0);
        assert!(calls.try_recv().is_err(), "each once");
    });
}

/// The records of an entry do not belong to another one that has its position now.
#[test]
fn an_entry_inherits_nothing_from_the_one_that_had_its_position() {
    let kept = without_autoincrement();
    let fails = |event: &Recorded| match event.stream_id.id.as_str() {
        "a" => Err(PublishError::retryable("no")),
        _ if event.attempt == 1 => Ok(()),
        _ => Err(PublishError::rejected("an attempt of another entry counts")),
    };
    let outbox = Outbox::new(kept.open(), JsonSerde);
    outbox.append(&[event("a", "{}")]).unwrap();
    outbox.run(&fails, None).unwrap();
    assert_eq!(kept.open().status().unwrap().waiting, 1);
    kept.connection().execute_batch("DELETE FROM outbox").unwrap();
    outbox.append(&[event("b", "{}")]).unwrap();
    assert_eq!(kept.open().status().unwrap().waiting, 0);
    assert_eq!(outbox.run(&fails, None).unwrap().published, 1);
    assert_eq!(kept.open().status().unwrap().pending, 0);
}

#[test]
fn dead_letters_with_the_same_position_are_each_kept_and_each_come_back() {
    let kept = without_autoincrement();
    let rejects = |event: &Recorded| Err(PublishError::rejected(format!("not {}", event.stream_id.id)));
    let outbox = Outbox::new(kept.open(), JsonSerde);
    for stream in ["a", "b", "c"] {
        outbox.append(&[event(stream, "{}")]).unwrap();
        assert_eq!(outbox.run(&rejects, None).unwrap().dead_lettered, 1);
    }
    let strategy = kept.open();
    let operator = outbox_host::outbox::OutboxStorageStrategy::operator(&strategy);
    let dead = operator.dead_letters(&Selection::all(), 10).unwrap();
    let of = |wanted: &str| dead.iter().find(|dead| dead.stream_id == wanted).unwrap();
    assert_eq!(dead.iter().map(|dead| dead.position).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(operator.edit_dead_letter(1, "{}", &act()).is_err(), "which one?");
    let b = Selection::Uuids(vec![of("b").uuid.clone()]);
    assert_eq!(operator.discard_dead_letters(&b, &act()).unwrap(), [1]);
    assert_eq!(operator.retry_dead_letters(&Selection::all(), &act()).unwrap(), [1, 2]);
    let (told, came) = channel();
    let told = Mutex::new(told);
    let publisher = |event: &Recorded| {
        told.lock().unwrap().send((event.stream_id.id.clone(), event.wrapped_event.uuid.to_string())).unwrap();
        Ok(())
    };
    assert_eq!(outbox.run(&publisher, None).unwrap().published, 2);
    let mut came: Vec<_> = came.try_iter().collect();
    came.sort();
    assert_eq!(came, ["a", "c"].map(|stream| (stream.to_owned(), of(stream).uuid.clone())));
}
