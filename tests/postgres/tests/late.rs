//! Positions are not in the order of commits: what is committed late, below the reader's place, is found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests stop at the first surprise")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use outbox_conformance::TestStorage;
use outbox_conformance::helpers::PAGE;
use outbox_engine::outbox::{Drain, OutboxStorageStrategy, Settled};
use outbox_engine::{JsonSerde, Outbox, Recorded, RelayOptions, stop};
use outbox_tests_postgres::{Postgres, Session, server};

const SOON: Duration = Duration::from_secs(30);

fn insert(stream: &str) -> String {
    format!("INSERT INTO outbox (stream_id, name, data) VALUES ('{stream}', 'x', '{{}}')")
}

/// Reads and settles everything that there is to read now.
fn take(drain: &dyn Drain) -> Vec<i64> {
    let page = drain.next_page(PAGE, &mut |_, _| true).unwrap();
    settle(drain, page.entries.iter().map(outbox_engine::RawEntry::id).collect())
}

fn settle(drain: &dyn Drain, entries: Vec<outbox_engine::EntryId>) -> Vec<i64> {
    let delivered = |entry: &outbox_engine::EntryId| Settled::Delivered { entry: *entry, tried_before: false };
    let settled: Vec<Settled> = entries.iter().map(delivered).collect();
    assert_eq!(drain.settle(&settled).unwrap(), settled.len());
    entries.iter().map(|entry| entry.position).collect()
}

/// Looks back whenever it is time, until something is found.
fn look_back(drain: &dyn Drain) -> Vec<i64> {
    let until = Instant::now() + SOON;
    loop {
        let at = drain.look_back_at().unwrap();
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let page = drain.look_back(PAGE, Instant::now(), &mut |_, _| true).unwrap();
        if !page.entries.is_empty() {
            assert!(!page.unnoticed, "it was found for its gap, not by the look through everything");
            return settle(drain, page.entries.iter().map(outbox_engine::RawEntry::id).collect());
        }
        assert!(Instant::now() < until);
    }
}

#[test]
fn what_is_committed_after_higher_positions_were_settled_is_found_and_not_deleted() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (early, late) = (kept.session(), kept.session());
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    late.run("BEGIN");
    late.run(&insert("late"));
    early.run(&insert("early"));
    early.run(&insert("early"));
    assert_eq!(take(drain.as_ref()), [2, 3]);
    assert_eq!(take(drain.as_ref()), [0_i64; 0]);
    early.run(&insert("early"));
    drain.changed(false);
    assert_eq!(take(drain.as_ref()), [4]);
    late.run("COMMIT");
    assert_eq!(look_back(drain.as_ref()), [1]);
    assert_eq!(early.number("SELECT count(*) FROM outbox"), 0);
}

/// Between a page and its settlement, an entry is committed in its middle.
#[test]
fn what_is_committed_between_two_that_are_settled_stays() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (early, late) = (kept.session(), kept.session());
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    early.run(&insert("a"));
    late.run("BEGIN");
    late.run(&insert("a"));
    early.run(&insert("a"));
    let page = drain.next_page(PAGE, &mut |_, _| true).unwrap();
    late.run("COMMIT");
    assert_eq!(settle(drain.as_ref(), page.entries.iter().map(outbox_engine::RawEntry::id).collect()), [1, 3]);
    assert_eq!(early.number("SELECT min(position) FROM outbox"), 2);
    assert_eq!(look_back(drain.as_ref()), [2]);
}

/// Positions that are far apart, streams that are all in one share, and rows that are too large for a page.
#[test]
fn sparse_skewed_and_large_entries_are_read_in_order() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let session = kept.session();
    session.run(
        "INSERT INTO outbox (stream_id, name, data) SELECT 's-' || i, 'x', '1' FROM generate_series(1, 30000) i;
         DELETE FROM outbox WHERE position % 97 <> 0;
         INSERT INTO outbox (stream_id, name, data) SELECT 'one', 'x', '1' FROM generate_series(1, 5000) i;
         INSERT INTO outbox (stream_id, name, data) SELECT 'large-' || i, 'x', to_jsonb(repeat('x', 50000))::text
         FROM generate_series(1, 50) i;
         INSERT INTO outbox (stream_id, name, data) SELECT repeat('long', 1000) || i, 'x', '1' FROM generate_series(1, 20) i",
    );
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    let mut positions: Vec<i64> = Vec::new();
    loop {
        let page = drain.next_page(PAGE, &mut |_, _| true).unwrap();
        if page.end {
            break;
        }
        positions.extend(page.entries.iter().map(|entry| entry.position));
    }
    assert_eq!(positions.len(), 309 + 5_000 + 50 + 20);
    assert!(positions.is_sorted());
    let entries = drain.entries_at(&positions, usize::MAX).unwrap();
    assert!(entries.iter().zip(&positions).all(|(entry, at)| entry.as_ref().is_some_and(|it| it.position == *at)));
}

#[test]
fn a_position_that_was_rolled_back_is_looked_for_no_longer_than_its_transaction() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (early, late) = (kept.session(), kept.session());
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    late.run("BEGIN");
    late.run(&insert("late"));
    early.run(&insert("early"));
    assert_eq!(take(drain.as_ref()), [2]);
    late.run("ROLLBACK");
    let watchdog = Duration::from_millis(500);
    let until = Instant::now() + SOON;
    loop {
        let now = drain.look_back_at().unwrap();
        let _ = drain.look_back(PAGE, now, &mut |_, _| true).unwrap();
        if drain.look_back_at().unwrap().saturating_duration_since(Instant::now()) > watchdog {
            break;
        }
        assert!(Instant::now() < until, "it looks for ever");
    }
}

/// Two entries of one stream, of one transaction: the first below the reader's place, the second behind.
#[test]
fn the_first_of_two_is_found_before_the_second() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (early, late) = (kept.session(), kept.session());
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    late.run("BEGIN");
    late.run(&insert("late"));
    early.run(&insert("early"));
    assert_eq!(take(drain.as_ref()), [2]);
    late.run(&insert("late"));
    late.run("COMMIT");
    drain.changed(false);
    assert_eq!(take(drain.as_ref()), [1, 3], "in one page, in the order of positions");
}

#[test]
fn a_prepared_transaction_is_waited_for() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (early, late) = (kept.session(), kept.session());
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    late.run("BEGIN");
    late.run(&insert("late"));
    early.run(&insert("early"));
    assert_eq!(take(drain.as_ref()), [2]);
    let name = format!("late_{}", kept.schema());
    late.run(&format!("PREPARE TRANSACTION '{name}'"));
    for _ in 0..5 {
        let at = drain.look_back_at().unwrap();
        assert!(drain.look_back(PAGE, at, &mut |_, _| true).unwrap().entries.is_empty());
    }
    early.run(&format!("COMMIT PREPARED '{name}'"));
    assert_eq!(look_back(drain.as_ref()), [1]);
}

/// A transaction that is long, and has nothing to do with the outbox, holds nothing up.
#[test]
fn an_unrelated_long_transaction_holds_nothing_up() {
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let (early, long) = (kept.session(), kept.session());
    long.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox; CREATE TEMP TABLE t (i int)");
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    early.run("BEGIN");
    early.run(&insert("a"));
    early.run("ROLLBACK");
    early.run(&insert("a"));
    assert_eq!(take(drain.as_ref()), [2]);
    assert!(drain.look_back_at().unwrap() > Instant::now() + Duration::from_millis(100), "no gap is left");
}

/// Several writers, each with streams of its own that it numbers, and pauses between an insert and its commit; a relay
/// beside them. Nothing is lost, nothing doubled, and each stream is in order.
#[test]
fn under_load_nothing_is_lost_and_each_stream_is_in_order() {
    const WRITERS: usize = 6;
    const TRANSACTIONS: usize = 150;
    if server().is_none() {
        return;
    }
    let kept = Postgres::new();
    let called: Mutex<Vec<(String, i64)>> = Mutex::default();
    let publisher = |event: &Recorded| {
        let number = event.wrapped_event.version.unwrap().cast_signed();
        called.lock().unwrap().push((event.stream_id.id.clone(), number));
        Ok(())
    };
    let (stopper, stopping) = stop();
    let outbox = Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions::default());
    let mut written = 0_usize;
    std::thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(&publisher, &stopping));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let session = kept.session();
                scope.spawn(move || write(&session, writer, TRANSACTIONS))
            })
            .collect();
        written = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        let until = Instant::now() + SOON;
        while called.lock().unwrap().len() < written && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopper.stop();
        let report = relay.join().unwrap().unwrap();
        assert_eq!(report.published, written as u64);
    });
    let called = called.into_inner().unwrap();
    let mut last: std::collections::HashMap<String, i64> = std::collections::HashMap::new();
    for (stream, number) in &called {
        let expected = last.get(stream).map_or(0, |last| last + 1);
        assert_eq!(*number, expected, "stream {stream}");
        last.insert(stream.clone(), *number);
    }
    assert_eq!(called.len(), written);
    assert_eq!(kept.session().number("SELECT count(*) FROM outbox"), 0);
}

/// Returns how many entries it committed.
fn write(session: &Session, writer: usize, transactions: usize) -> usize {
    let mut next = [0_usize; 3];
    for number in 0..transactions {
        session.run("BEGIN");
        let before = next;
        for entry in 0..=number % 3 {
            let stream = (number + entry * writer) % next.len();
            let version = next[stream];
            next[stream] += 1;
            session.run(&format!(
                "INSERT INTO outbox (stream_id, name, version, data) VALUES ('{writer}-{stream}', 'x', {version}, '{{}}')"
            ));
            std::thread::sleep(Duration::from_micros((number * 37 % 1_500) as u64));
        }
        if number % 7 == 3 {
            session.run("ROLLBACK");
            next = before;
        } else {
            session.run("COMMIT");
        }
    }
    next.iter().sum()
}
