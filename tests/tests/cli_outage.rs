//! An outage of a real destination, which answers 500 to everything: the relay stops calling it, uses up nobody's attempts,
//! and goes on by itself when it is over.

use outbox_tests::answering::Answering;
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde_json::{Value, json};

const STREAMS: usize = 30;

fn events(times: usize) -> String {
    let event =
        |number: usize| json!({"name": "order.paid", "stream_id": format!("s-{}", number % STREAMS), "data": 1});
    (0..times * STREAMS).map(|number| event(number).to_string() + "\n").collect()
}

/// Few attempts and short waits: without a breaker they are used up within half a second.
fn settings(url: &str, breaker: &str) -> String {
    format!(
        "db = \"app.db\"\n[publishers.webhook]\nfile = \"guests/rust-webhook.wasm\"\nallow_http = [\"{url}\"]\n\
         env = {{ WEBHOOK_URL = \"{url}\" }}\n[[route]]\npublisher = \"webhook\"\n[relay]\nmax_attempts = 4\n\
         backoff_initial = \"5ms\"\nbackoff_max = \"20ms\"\npause_initial = \"5ms\"\npause_max = \"20ms\"\n{breaker}\n"
    )
}

fn webhook(status: &Value) -> &Value {
    &status["relay"]["publishers"][0]
}

#[test]
fn a_destination_that_answers_500_to_everything_is_left_alone_and_nothing_becomes_a_dead_letter() {
    let place = Workplace::new();
    let destination = Answering::start();
    destination.answer(200, &[], "");
    place.write("outbox.toml", settings(&destination.url(), ""));
    place.append(&events(2));
    let mut relay = place.start_logged("relay --config outbox.toml");
    until("all of it is delivered", || place.status()["pending"] == 0);
    let closed = webhook(&place.status()).clone();
    assert_eq!((&closed["name"], &closed["breaker"]), (&json!("webhook"), &json!("closed")), "{closed}");
    assert_eq!((&closed["reason"], &closed["next_probe"]), (&json!(""), &Value::Null), "{closed}");

    destination.answer(500, &[], "out of order");
    place.append(&events(2));
    until("the breaker opens", || webhook(&place.status())["breaker"] != "closed");
    // Forty probes take ten times as long as it takes to use up every attempt.
    let status = place.status();
    until("it is shown when the next probe is", || webhook(&place.status())["next_probe"].is_string());
    let since = webhook(&status)["since"].clone();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let status = place.status();
    let open = webhook(&status);
    assert_eq!((&open["since"], &status["relay"]["state"]), (&since, &json!("paused")), "{status}");
    assert!(open["reason"].as_str().unwrap().contains("the last calls for 8 streams failed"), "{open}");
    assert!(open["reason"].as_str().unwrap().contains("500"), "{open}");
    let said = place.outbox("status --config outbox.toml").ok();
    let line = said.lines().find(|line| line.starts_with("breaker")).unwrap();
    assert!(line.starts_with("breaker         webhook is ") && line.contains("failed: "), "{said}");
    assert_eq!((&status["pending"], &status["dead_letters"]), (&json!(2 * STREAMS), &json!(0)));
    assert!(place.query("SELECT max(attempts) FROM outbox_waiting")[0].parse::<u32>().unwrap() <= 1);

    destination.answer(200, &[], "");
    until("all of it is delivered", || place.status()["pending"] == 0);
    until("the breaker is closed", || webhook(&place.status())["breaker"] == "closed");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    assert_eq!(place.status()["dead_letters"], 0);
    let log = relay.log();
    assert!(log.contains("paused: webhook: the last calls for 8 streams failed"), "{log}");
    assert!(log.contains("running again"), "{log}");
}

#[test]
fn without_the_breaker_an_outage_uses_up_the_attempts() {
    let place = Workplace::new();
    let destination = Answering::start();
    destination.answer(500, &[], "");
    place.write("outbox.toml", settings(&destination.url(), "breaker_failures = 0"));
    place.append(&events(1));
    let mut relay = place.start_logged("relay --config outbox.toml");
    until("all of it is dead", || place.status()["dead_letters"] == STREAMS);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
}
