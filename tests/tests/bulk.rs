//! Batches on their whole way: `outbox relay` with `examples/rust-bulk`, over HTTP, to a server in another process that takes
//! many events with one request, and does not store some of them at first.

use std::collections::{HashMap, HashSet};

use outbox_tests::guest;
use outbox_tests::sink::{Delivery, Sink};
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use rusqlite::params;

/// Appends events in turn to this many streams.
fn append(place: &Workplace, streams: usize, events: usize) {
    let mut sql = place.sql();
    let transaction = sql.transaction().unwrap();
    for number in 0..events {
        let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('s-' || ?1, 'e', ?2)";
        transaction.execute(insert, params![(number % streams) as i64, format!(r#"{{"number":{number}}}"#)]).unwrap();
    }
    transaction.commit().unwrap();
}

/// Publishes everything with these settings of the publisher, and returns the sink's ledger.
fn published(streams: usize, events: usize, sink: &[&str], settings: &str) -> Vec<Delivery> {
    let place = Workplace::new();
    append(&place, streams, events);
    let sink = Sink::start_with(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"), sink);
    let (url, component) = (sink.url(), guest("rust-bulk"));
    place.write(
        "outbox.toml",
        format!(
            "db = \"app.db\"\n[relay]\nbackoff_initial = \"5ms\"\n[publisher]\nfile = {component:?}\nallow_http = [{url:?}]\n\
             env = {{ WEBHOOK_URL = \"{url}/bulk\" }}\n{settings}\n"
        ),
    );
    let mut relay = place.start_logged("relay --config outbox.toml");
    until("everything is published", || place.status()["pending"] == 0);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    assert_eq!(place.status()["dead_letters"], 0);
    sink.deliveries()
}

/// By the ledger: each event once, and each stream in order.
fn assert_complete(deliveries: &[Delivery], events: usize) {
    let (mut seen, mut last) = (HashSet::new(), HashMap::new());
    for delivery in deliveries {
        let event = delivery.json();
        assert!(seen.insert(event["id"].as_str().unwrap().to_owned()), "it came twice: {event}");
        let number = event["data"]["number"].as_i64().unwrap();
        let before = last.insert(event["subject"].as_str().unwrap().to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "out of order: {event}");
    }
    assert_eq!(seen.len(), events, "nothing is lost");
}

fn requests(deliveries: &[Delivery]) -> usize {
    deliveries.iter().filter_map(|delivery| delivery.batch).collect::<HashSet<_>>().len()
}

#[test]
fn one_event_in_a_hundred_fails_and_each_stream_stays_in_order_and_nothing_is_lost() {
    let deliveries = published(200, 4_000, &["--one-fails-in", "100"], "batch_wait = \"5ms\"");
    assert_complete(&deliveries, 4_000);
}

#[test]
fn events_of_many_streams_share_requests() {
    let deliveries = published(5_000, 5_000, &[], "batch_max = 250\nbatch_wait = \"1s\"");
    assert_complete(&deliveries, 5_000);
    let requests = requests(&deliveries);
    assert!((20..=40).contains(&requests), "{requests}");
}

#[test]
fn with_a_batch_of_one_each_event_has_a_request_of_its_own() {
    let deliveries = published(50, 100, &[], "batch_max = 1\nbatch_wait = \"1s\"");
    assert_complete(&deliveries, 100);
    assert_eq!(requests(&deliveries), 100);
}
