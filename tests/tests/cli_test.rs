//! `outbox publisher test`: what a component does with an event, without an outbox, or beside one.

use outbox_tests::sink::Sink;
use outbox_tests::workplace::{Ran, Workplace};
use serde_json::json;

fn test(place: &Workplace, arguments: &str) -> Ran {
    place.outbox(&format!("publisher test {arguments}"))
}

#[track_caller]
fn assert_says(text: &str, expected: &str) {
    assert!(text.contains(expected), "{text} does not say: {expected}");
}

/// It has failed, and printed what it saw first.
#[track_caller]
fn failed(ran: Ran, message: &str) -> String {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_says(&ran.stderr, message);
    ran.stdout
}

#[test]
fn one_event_from_the_command_line() {
    let place = Workplace::empty();
    let said = test(&place, r#"guests/scripted.wasm --name order.placed --data {"order":42}"#).ok();
    assert_says(&said, "event 1, \"order.placed\": delivered in ");
    assert_says(&said, "    stdout: published ");
    assert_says(&said, "calls           1, of which 1 delivered\n");
    assert_says(&said, "HTTP requests   0\n");
    let said = failed(
        test(&place, r#"guests/scripted.wasm --data {"do":"unavailable","reason":"closed","after_ms":500}"#),
        "error: 1 of 1 calls did not deliver their event",
    );
    assert_says(&said, "unavailable in ");
    assert_says(&said, "not before 500 ms have passed: closed\n    stdout: published");
    assert_says(&said, "    stderr: failing: closed");
    let said = failed(test(&place, r#"guests/scripted.wasm --data {"do":"allocate"} --memory-mib 4"#), "1 of 1 calls");
    assert_says(&said, "limit-exceeded in ");
    assert_says(&said, "KiB at its highest");
    assert_says(&test(&place, "guests/scripted.wasm --data {broken").refused(), "line 1");
    assert_says(&test(&place, "guests/core-module.wasm").refused(), "core WebAssembly module");
    assert_says(&test(&place, "none.wasm").refused(), "there is no file none.wasm");
}

#[test]
fn events_from_a_file_again_and_again_in_json() {
    let place = Workplace::empty();
    let line =
        |stream: &str, script: &str| format!(r#"{{"name": "n", "stream_id": "{stream}", "data": {script}}}"#) + "\n";
    place.write("events.ndjson", [line("a", "{}"), line("b", r#"{"do": "reject", "reason": "never"}"#)].concat());
    let ran = test(&place, "guests/scripted.wasm --event events.ndjson --repeat 3 --json");
    let shown: serde_json::Value = serde_json::from_str(&failed(ran, "3 of 6 calls")).unwrap();
    let outcomes: Vec<_> =
        shown["calls"].as_array().unwrap().iter().map(|call| call["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["delivered", "delivered", "delivered", "rejected", "rejected", "rejected"]);
    assert_eq!((shown["delivered"].as_u64(), shown["instances"].as_u64()), (Some(3), Some(1)));
    assert_eq!(shown["calls"][3]["reason"], "never");
    assert!(shown["memory_bytes"].as_u64().unwrap() > 64 * 1024, "{shown}");
}

const ENV: &str = "--env WEBHOOK_URL=http://hooks.example.com/orders";

#[test]
fn http_requests_are_shown_and_answered_from_a_file() {
    let place = Workplace::empty();
    place.write(
        "stubs.toml",
        "[[answer]]\nmethod = \"POST\"\nurl = \"http://hooks.example.com/orders\"\nstatus = 503\nheaders = { retry-after = \"7\" }\n",
    );
    let run = format!("guests/rust-webhook.wasm {ENV} --stub-http stubs.toml");
    let granted = format!("{run} --allow-http http://hooks.example.com");
    let said = failed(test(&place, &granted), "1 of 1 calls");
    assert_says(&said, "unavailable in ");
    assert_says(&said, "not before 7000 ms have passed");
    assert_says(&said, "    POST http://hooks.example.com/orders (");
    assert_says(&said, " bytes): 503\n");
    // A request that is not granted is denied even if nothing would be sent.
    let said = failed(test(&place, &run), "1 of 1 calls");
    assert_says(&said, "to allow it: allow_http = [\"http://hooks.example.com\"]");

    place.write("stubs.toml", "[[answer]]\nstatus = 204\n");
    let shown = test(&place, &format!("{granted} --json")).json();
    let request = &shown["calls"][0]["requests"][0];
    let header = |name: &str| request["headers"].as_array().unwrap().iter().any(|header| header[0] == name);
    assert!(header("idempotency-key") && request["answer"] == "204", "{request}");
    let body: serde_json::Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["type"], "test");

    place.write("stubs.toml", "[[answer]]\nurl = \"http://elsewhere\"\nstatus = 204\n");
    assert_says(&failed(test(&place, &granted), "1 of 1 calls"), ": 501");
    place.write("stubs.toml", "[[answer]]\nstatus = 99\n");
    assert_says(&test(&place, &granted).refused(), "stubs.toml is not valid: 99 is no status");
    place.write("stubs.toml", "[[answer]]\nstate = 99\n");
    assert_says(&test(&place, &granted).refused(), "unknown field `state`");
}

#[test]
fn an_entry_and_a_dead_letter_are_replayed_and_stay_as_they_are() {
    let place = Workplace::new();
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    let url = sink.url();
    place.append(r#"{"name": "order.placed", "stream_id": "a", "uuid": "11111111-1111-4111-8111-111111111111", "data": {"order": 42, "do": "reject"}}"#);
    place.append(r#"{"name": "order.paid", "stream_id": "b", "data": {"n": 7}}"#);
    place.outbox("run --db app.db --publisher guests/scripted.wasm --limit 1").ok();
    let before = place.tables("app.db");
    assert_eq!(before["outbox_dead_letters"].len(), 1);
    for (position, name) in [(1, "order.placed"), (2, "order.paid")] {
        let run = format!(
            "guests/rust-webhook.wasm --from-db app.db {position} --allow-http {url} --env WEBHOOK_URL={url} --json"
        );
        let shown = test(&place, &run).json();
        assert_eq!((&shown["calls"][0]["name"], &shown["calls"][0]["position"]), (&json!(name), &json!(position)));
    }
    assert_eq!(sink.deliveries().len(), 2);
    assert_eq!(sink.deliveries()[0].idempotency_key.as_deref(), Some("11111111-1111-4111-8111-111111111111"));
    assert_eq!(place.tables("app.db"), before);
    let missing = test(&place, "guests/noop.wasm --from-db app.db 9").refused();
    assert_eq!(missing, "there is neither an entry nor a dead letter 9 in app.db");
    assert_says(&test(&place, "guests/noop.wasm --from-db app.db nine").refused(), "nine is no position");
}

#[test]
fn a_deployed_publisher_with_its_settings_and_its_secret_which_is_not_shown() {
    let place = Workplace::new();
    place.outbox("publisher deploy hook guests/rust-webhook.wasm --db app.db").ok();
    place.write("token", "sesame-open-up");
    place.write("stubs.toml", "[[answer]]\nstatus = 204\n");
    place.write(
        "outbox.toml",
        "db = \"app.db\"\n[publishers.hook]\nallow_http = [\"http://hooks.example.com\"]\n\
         env = { WEBHOOK_URL = \"http://hooks.example.com/\" }\n\
         secrets.token = { file = \"token\", header = \"authorization\", for = \"http://hooks.example.com\" }\n",
    );
    let ran = test(&place, "hook --config outbox.toml --stub-http stubs.toml --json");
    assert!(!ran.stdout.contains("sesame") && !ran.stderr.contains("sesame"), "{ran:?}");
    assert_eq!(ran.json()["delivered"], 1);
}
