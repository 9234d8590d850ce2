//! The WAL beside a relay at work: it is begun anew again and again, however much there is to drain.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use outbox_host::{JsonSerde, Outbox, Recorded, SqliteOutbox};
use outbox_tests::workplace::{Workplace, fill};

const PAGE_BYTES: u64 = 4_096;

fn filled(entries: u64) -> Workplace {
    let place = Workplace::new();
    let connection = place.sql();
    fill(&connection, entries);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    place
}

/// How many pages the WAL had at most: its file never shrinks while it is in use.
fn wal_pages(place: &Workplace) -> u64 {
    fs::metadata(place.path("app.db-wal")).unwrap().len() / PAGE_BYTES
}

fn drain(place: &Workplace, entries: usize) {
    let outbox = Outbox::new(SqliteOutbox::open(&place.path("app.db")).unwrap(), JsonSerde);
    let report = outbox.run(&|_: &Recorded| Ok(()), entries).unwrap();
    assert_eq!(report.published, entries as u64);
}

#[test]
fn the_wal_is_begun_anew_while_a_backlog_is_drained() {
    let place = filled(100_000);
    let _keeps_the_wal = SqliteOutbox::open(&place.path("app.db")).unwrap();
    drain(&place, 100_000);
    // Without checkpoints that reach its end it would have some 18,000.
    let pages = wal_pages(&place);
    assert!(pages < 9_000, "{pages} pages");
}

#[test]
fn the_wal_is_begun_anew_beside_an_application_that_writes_all_the_time_and_never_moves_pages() {
    let place = filled(60_000);
    let _keeps_the_wal = SqliteOutbox::open(&place.path("app.db")).unwrap();
    let (application, done) = (place.sql(), &AtomicBool::new(false));
    application.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('order-1', 'order.placed', '{}')";
            while !done.load(Ordering::Relaxed) {
                application.execute(insert, []).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        drain(&place, 60_000);
        done.store(true, Ordering::Relaxed);
    });
    // Without such a checkpoint it would have some 15,000.
    let pages = wal_pages(&place);
    assert!(pages < 9_000, "{pages} pages");
}
