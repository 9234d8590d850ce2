//! Leases: who lost one settles nothing, and whose process or connection died is followed by another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests stop at the first surprise")]

use std::time::{Duration, Instant};

use outbox_conformance::TestStorage;
use outbox_conformance::helpers::{PAGE, append, at, delivered, failed, positions};
use outbox_engine::outbox::{Fate, OutboxStorageStrategy, Settled};
use outbox_tests_postgres::{Postgres, server};

/// Long enough for what must not happen, and far below any lease's time.
const SOON: Duration = Duration::from_secs(30);

/// Waits until `is_done`.
fn eventually(what: &str, mut is_done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !is_done() {
        assert!(Instant::now() < until, "{what} does not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_lost_the_lease_settles_nothing() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let p = append(&kept, &["a", "b", "c"]);
    let (zombie, other) = (kept.open_with_lease(Duration::from_secs(2)), kept.open());
    let drain = zombie.drain().unwrap();
    let entries = drain.next_page(PAGE, &mut |_, _| true).unwrap().entries;
    assert_eq!(entries.len(), 3);
    // As if its machine had slept for an hour, and others had seen that.
    kept.session().run("DELETE FROM outbox_relay");
    let follower = other.drain().unwrap();
    let once = |index: usize| Settled::Delivered { entry: entries[index].id(), tried_before: false };
    let tried = delivered(&zombie, p[1]);
    let buried = failed(&zombie, p[2], 1, Fate::DeadLetter { park: true });
    let waits = failed(&zombie, p[2], 1, Fate::Retry { at: at(9) });
    for settled in [once(0), tried, buried, waits] {
        let error = drain.settle(&[settled]).unwrap_err();
        assert!(error.is_replaced(), "{error}");
    }
    let session = kept.session();
    for (table, rows) in [("outbox", 3), ("outbox_dead_letters", 0), ("outbox_waiting", 0), ("outbox_attempts", 0)] {
        assert_eq!(session.number(&format!("SELECT count(*) FROM {table}")), rows, "{table}");
    }
    eventually("the zombie's own notice", || drain.check().is_err_and(|error| error.is_replaced()));
    drop(drain);
    follower.check().unwrap();
    assert_eq!(follower.settle(&[once(0)]).unwrap(), 1);
    drop(follower);
    assert_eq!(positions(&kept.open()), p[1..]);
}

#[test]
fn a_lease_that_is_kept_alive_is_not_taken() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (one, other) = (kept.open_with_lease(Duration::from_millis(400)), kept.open());
    let drain = one.drain().unwrap();
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        let error = other.drain().err().expect("another relay has it");
        assert!(error.is_leased(), "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    drain.check().unwrap();
}

/// The relay's process is gone, and with it its connections.
#[test]
fn whose_connection_is_gone_is_followed_soon() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let session = kept.session();
    // A row as a killed relay leaves it: its lease would run for an hour.
    session.run(
        "INSERT INTO outbox_relay (id, name, ttl, expires_at, presence)
         VALUES ('00000000-0000-4000-8000-000000000001', 'killed', '1 hour', clock_timestamp() + interval '1 hour', 77);
         UPDATE outbox_share SET relay = '00000000-0000-4000-8000-000000000001', unclean = true",
    );
    let began = Instant::now();
    let other = kept.open();
    let drain = other.drain().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(900), "it may be about to connect again");
    drain.check().unwrap();
    assert_eq!(session.number("SELECT count(*) FROM outbox_relay"), 1);
}

/// Its connection stays, as that of a machine that sleeps does: only the lease's end counts.
#[test]
fn whose_heartbeat_stays_away_is_followed_when_the_lease_ends() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let session = kept.session();
    session.run(
        "SELECT pg_advisory_lock(78);
         INSERT INTO outbox_relay (id, name, ttl, expires_at, presence)
         VALUES ('00000000-0000-4000-8000-000000000002', 'asleep', '500 ms', clock_timestamp() + interval '500 ms', 78);
         UPDATE outbox_share SET relay = '00000000-0000-4000-8000-000000000002', unclean = true",
    );
    let (other, began) = (kept.open(), Instant::now());
    eventually("taking over", || match other.drain() {
        Ok(drain) => {
            drop(drain);
            true
        }
        Err(error) => {
            assert!(error.is_leased(), "{error}");
            false
        }
    });
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_relay_whose_connections_are_cut_connects_again_and_keeps_the_lease() {
    let Some(server) = server() else { return };
    let kept = Postgres::new();
    append(&kept, &["a", "b"]);
    let (one, other) = (kept.open(), kept.open());
    let drain = one.drain().unwrap();
    let entries = drain.next_page(PAGE, &mut |_, _| true).unwrap().entries;
    assert!(!drain.must_reload().unwrap());
    let session = kept.session();
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox ' || $1";
    let rows = session.wait(session.client.query(sql, &[&kept.schema()]));
    rows.unwrap().iter().for_each(|row| server.terminate(row.get(0)));
    eventually("reading again", || drain.must_reload().unwrap_or(false));
    let again = drain.next_page(PAGE, &mut |_, _| true).unwrap().entries;
    assert_eq!(again, entries, "what was settled just before may have been lost");
    let settled: Vec<Settled> =
        entries.iter().map(|entry| Settled::Delivered { entry: entry.id(), tried_before: false }).collect();
    eventually("settling again", || drain.settle(&settled).is_ok());
    drain.sync().or_else(|_| drain.sync()).unwrap();
    drain.check().unwrap();
    eventually("standing by", || other.drain().is_err_and(|error| error.is_leased()));
    drop(drain);
    eventually("an empty outbox", || session.number("SELECT count(*) FROM outbox") == 0);
}
