//! `outbox relay`: publishes what is there and what comes, until it is stopped.

use std::time::Duration;

use outbox_tests::sink::Sink;
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde_json::json;

fn event(stream: &str, script: &serde_json::Value) -> String {
    json!({"name": "order.placed", "stream_id": stream, "data": script}).to_string() + "\n"
}

const RELAY: &str = "relay --db app.db --publisher guests/scripted.wasm";

#[test]
fn delivers_what_is_there_and_wakes_on_what_others_commit() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({})).repeat(3));
    let mut relay = place.start_logged(RELAY);
    until("what was there is published", || place.status()["pending"] == 0);

    // By another process, by an application's own connection, and in a transaction that first comes to nothing.
    place.append(&event("order-1", &json!({})));
    until("what `outbox append` added is published", || place.status()["pending"] == 0);
    let mut application = place.sql();
    let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('order-2', 'order.paid', '{}')";
    application.transaction().unwrap().execute(insert, []).unwrap();
    application.execute(insert, []).unwrap();
    until("what an application added is published", || place.status()["pending"] == 0);

    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    let log = relay.log();
    assert_eq!(log.matches("order.placed attempt=1").count(), 4, "{log}");
    assert_eq!(log.matches("order.paid attempt=1").count(), 1, "{log}");
    assert!(log.contains("stopped published=5 to_be_retried=0 dead_lettered=0"), "{log}");
}

#[test]
fn either_signal_ends_it_in_order_while_it_idles_waits_or_is_paused() {
    let retry = json!({"do": "retry", "after_ms": 3_600_000});
    let unavailable = json!({"do": "unavailable", "after_ms": 3_600_000});
    for signal in [Signal::TERM, Signal::INT] {
        for (script, logged) in
            [(None, "publishing"), (Some(&retry), "then=\"retry\""), (Some(&unavailable), "unavailable and paused")]
        {
            let place = Workplace::new();
            if let Some(script) = script {
                place.append(&event("order-1", script));
            }
            let mut relay = place.start_logged(RELAY);
            relay.wait_for_log(logged);
            relay.signal(signal);
            assert_eq!(relay.wait(), Some(0), "{signal:?}, {logged}: {}", relay.log());
            assert_eq!(place.status()["relay"], json!(null));
        }
    }
}

#[test]
fn a_call_under_way_may_end_and_is_settled() {
    let place = Workplace::new();
    place.append(&(event("order-1", &json!({"do": "sleep", "ms": 2_000})) + &event("order-1", &json!({}))));
    let mut relay = place.start_logged(RELAY);
    relay.wait_for_log("sleeping");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    assert_eq!(place.query("SELECT position FROM outbox"), ["2"], "{}", relay.log());
}

#[test]
fn the_second_signal_cuts_the_call_off_and_counts_nothing() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({"do": "sleep"})));
    let mut relay = place.start_logged(RELAY);
    relay.wait_for_log("sleeping");
    relay.signal(Signal::TERM);
    relay.wait_for_log("a second signal stops at once");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0), "{}", relay.log());
    assert_eq!(place.query("SELECT position FROM outbox"), ["1"]);
    assert_eq!(
        place.query("SELECT count(*) FROM outbox_waiting UNION ALL SELECT count(*) FROM outbox_attempts"),
        ["0"; 2]
    );
    let ran = place.outbox("run --db app.db --publisher guests/noop.wasm --json").json();
    assert_eq!(ran["published"], 1);
}

#[test]
fn the_status_shows_what_it_is_doing() {
    let place = Workplace::new();
    let mut relay = place.start_logged(RELAY);
    relay.wait_for_log("publishing");
    let status = place.status();
    assert_eq!((&status["relay"]["state"], &status["relay"]["pid"]), (&json!("running"), &json!(relay.pid())));
    let said = place.outbox("status --db app.db").ok();
    assert!(said.contains(&format!("relay           running (process {}) since ", relay.pid())), "{said}");

    place.append(&event("order-1", &json!({"do": "unavailable", "reason": "closed", "after_ms": 3_600_000})));
    until("the relay is paused", || place.status()["relay"]["state"] == "paused");
    assert_eq!(place.status()["relay"]["reason"], "closed");
    let said = place.outbox("status --db app.db").ok();
    assert!(said.contains(&format!("relay           paused (process {}) since ", relay.pid())), "{said}");
    assert!(said.contains(": closed\n"), "{said}");

    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    assert!(place.outbox("status --db app.db").ok().contains("relay           none is at work\n"));
}

/// However much is queued: after the first call has reported it, no further call begins.
#[test]
fn an_unavailable_publisher_is_left_alone() {
    let place = Workplace::new();
    let closed = json!({"do": "unavailable", "reason": "closed", "after_ms": 3_600_000});
    place.append(&(0..1_000).map(|order| event(&format!("order-{order}"), &closed)).collect::<String>());
    let mut relay = place.start_logged(&format!("{RELAY} --concurrency 4"));
    relay.wait_for_log("unavailable and paused");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    let calls = relay.log().matches("then=\"stays\"").count();
    assert!((1..=4).contains(&calls), "{calls} calls");
    assert_eq!(place.status()["pending"], 1_000);
}

/// A destination that asks for no pause, or for one that is over already, as one does whose clock is behind.
#[test]
fn a_destination_that_asks_for_no_pause_is_not_asked_without_an_end() {
    for asked in ["0", "Sat, 31 Jan 2015 12:00:00 GMT"] {
        let place = Workplace::new();
        let options = ["--status", "503", "--retry-after", asked];
        let sink = Sink::start_with(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"), &options);
        let url = sink.url();
        place.append(&(0..100).map(|order| event(&format!("order-{order}"), &json!({"order": 7}))).collect::<String>());
        let mut relay = place.start_logged(&format!(
            "relay --db app.db --publisher guests/rust-webhook.wasm --allow-http {url} --env WEBHOOK_URL={url} \
             --concurrency 4"
        ));
        relay.wait_for_log("unavailable and paused");
        let first = sink.deliveries().len();
        std::thread::sleep(Duration::from_secs(3));
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait(), Some(0));
        let requests = sink.deliveries().len();
        // The pauses are up to 1 s, 2 s, 4 s, ...: by chance, several of them may be short.
        assert!(requests <= first + 15, "{asked}: {requests} requests in 3 s");
        assert!(relay.log().lines().count() <= 15, "{asked}: {}", relay.log());
        assert_eq!(place.status()["pending"], 100);
    }
}

/// The same failure again and again is one line of the log, and another one with how often it was met.
#[test]
fn what_repeats_is_logged_once_and_counted() {
    let place = Workplace::new();
    let busy = json!({"do": "retry", "reason": "busy", "after_ms": 3_600_000});
    place.append(&(0..500).map(|order| event(&format!("order-{order}"), &busy)).collect::<String>());
    // That all of them fail would be an outage.
    place.write("outbox.toml", "[relay]\nbreaker_failures = 0\n");
    let mut relay = place.start_logged(&format!("{RELAY} --config outbox.toml"));
    until("each was tried", || place.query("SELECT count(*) FROM outbox_waiting") == ["500"]);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    let log = relay.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("then=\"retry\"")).collect();
    assert!(lines.len() == 2 && lines[1].contains("again=499"), "{log}");
}

/// A publisher that was unavailable is tried again, with one entry, and then gets the rest.
#[test]
fn it_goes_on_when_the_publisher_is_back() {
    let place = Workplace::new();
    let closed = json!({"do": "unavailable", "reason": "closed", "after_ms": 200});
    place.append(&event("order-1", &closed));
    let mut relay = place.start_logged(RELAY);
    relay.wait_for_log("unavailable and paused");
    place.append(&event("order-2", &json!({})).repeat(20));
    // The application mends it.
    place.sql().execute("UPDATE outbox SET data = '{}' WHERE position = 1", []).unwrap();
    until("everything is published", || place.status()["pending"] == 0);
    assert_eq!(place.status()["relay"]["state"], "running");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
}

#[test]
fn an_operators_retry_is_noticed() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({"do": "reject", "reason": "no", "until_attempt": 2})));
    let _relay = place.start_logged(RELAY);
    until("it is a dead letter", || place.status()["dead_letters"] == 1);
    place.write("data.json", "{}");
    place.outbox("dead edit 1 --db app.db --data data.json").ok();
    place.outbox("dead retry 1 --db app.db").ok();
    until("it is published", || place.status()["pending"] == 0);
    assert_eq!(place.status()["dead_letters"], 0);
}

#[test]
fn a_second_one_stands_by_and_takes_over() {
    let place = Workplace::new();
    let mut first = place.start_logged(RELAY);
    first.wait_for_log("publishing");
    let mut second = place.start_logged(RELAY);
    second.wait_for_log(&format!("standing by: a relay (process {}) is at work", first.pid()));
    assert_eq!(place.status()["relay"]["pid"], first.pid());
    first.signal(Signal::TERM);
    assert_eq!(first.wait(), Some(0));
    place.append(&event("order-1", &json!({})));
    until("the second one publishes", || place.status()["pending"] == 0);
    assert_eq!(place.status()["relay"]["pid"], second.pid());
    assert!(second.log().contains("order.placed attempt=1"));
    second.signal(Signal::TERM);
    assert_eq!(second.wait(), Some(0));
}

/// A standby has nothing to end when it is stopped.
#[test]
fn a_standby_ends_at_once() {
    let place = Workplace::new();
    let first = place.start_logged(RELAY);
    first.wait_for_log("publishing");
    let mut second = place.start_logged(RELAY);
    second.wait_for_log("standing by");
    second.signal(Signal::INT);
    assert_eq!(second.wait(), Some(0));
    assert_eq!(place.status()["relay"]["pid"], first.pid());
}

#[test]
fn logs_json_when_asked_to() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({"do": "reject", "reason": "no \"such\" order"})));
    let mut relay = place.start_logged(&format!("--log-json {RELAY}"));
    until("it is a dead letter", || place.status()["dead_letters"] == 1);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    let log = relay.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dead = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!((&dead["fields"]["position"], &dead["fields"]["message"]), (&json!(1), &json!("no \"such\" order")));
}
