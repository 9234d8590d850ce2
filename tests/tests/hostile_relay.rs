//! Hostile publishers in the real program: `outbox relay` outlives them, and what they got is neither lost nor in the way.

use outbox_tests::waiting::until;
use outbox_tests::workplace::{Logged, Signal, Workplace};
use serde_json::{Value, json};

/// With a publisher and its time limit for calls.
const CONFIG: &str = r#"
db = "app.db"

[relay]
max_attempts = 2
backoff_initial = "1ms"
backoff_max = "1ms"
shutdown_grace = "100ms"

[publisher.limits]
memory_mib = 32
"#;

/// What the publisher does, and which outcome is recorded for each attempt.
fn hostilities() -> [(Value, &'static str, &'static str); 6] {
    [
        (json!({"do": "spin"}), "timed-out", "limit: call_time"),
        (json!({"do": "sleep"}), "timed-out", "limit: call_time"),
        (json!({"do": "trap"}), "trapped", "unreachable"),
        (json!({"do": "exit"}), "trapped", "exit"),
        (json!({"do": "allocate"}), "limit-exceeded", "limit: memory_mib"),
        (json!({"do": "print", "bytes": 1_000_000_000}), "timed-out", "limit: call_time"),
    ]
}

fn event(stream: &str, script: &Value) -> String {
    json!({"name": "order.placed", "stream_id": stream, "data": script}).to_string() + "\n"
}

fn relay(place: &Workplace, publisher: &str, call_time: &str) -> Logged {
    let publisher = format!("call_time = {call_time:?}\n[publisher]\nfile = \"guests/{publisher}.wasm\"\n");
    place.write("outbox.toml", format!("{CONFIG}{publisher}"));
    place.start_logged("relay --config outbox.toml")
}

#[test]
fn each_ends_as_a_dead_letter_with_its_outcomes_and_the_others_are_delivered_meanwhile() {
    let place = Workplace::new();
    let mut relay = relay(&place, "scripted", "2s");
    relay.wait_for_log("publishing");
    for (number, (script, ..)) in hostilities().iter().enumerate() {
        place.append(&event(&format!("hostile-{number}"), script));
        // By the application's own connection, while the publisher is at its worst.
        let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('order', 'order.paid', '{}')";
        place.sql().execute(insert, []).unwrap();
    }
    let good = || place.query("SELECT count(*) FROM outbox WHERE stream_id = 'order'");
    until("what the application added is delivered", || good() == ["0"]);
    until("the others have left the outbox", || place.query("SELECT count(*) FROM outbox") == ["0"]);
    let dead = place.query("SELECT DISTINCT stream_id FROM outbox_dead_letters ORDER BY stream_id");
    let hostile: Vec<String> = (0..hostilities().len()).map(|number| format!("hostile-{number}")).collect();
    assert_eq!(dead, hostile, "{}", relay.log());
    assert_eq!(place.status()["relay"]["pid"], relay.pid(), "it is the same process");

    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0), "{}", relay.log());
    for (number, (script, outcome, says)) in hostilities().iter().enumerate() {
        let of = format!("FROM outbox_dead_letters WHERE stream_id = 'hostile-{number}'");
        assert_eq!(place.query(&format!("SELECT json(data) {of}")), [script.to_string()]);
        let attempts = format!("SELECT outcome, reason FROM outbox_attempts WHERE position = (SELECT position {of})");
        let attempts = place.query(&attempts);
        assert_eq!(attempts.len(), 2, "{script}: {attempts:?}");
        for attempt in attempts {
            assert!(attempt.starts_with(&format!("{outcome}|")) && attempt.contains(says), "{script}: {attempt}");
        }
    }
    assert_eq!(place.query("SELECT count(*) FROM outbox"), ["0"]);
    let (log, flood) = (relay.log(), "x".repeat(99));
    assert!(log.contains("more lines of this call are left out]"), "the flood was counted");
    assert!(log.matches(&flood).count() <= 2 * 1_000, "{}", log.matches(&flood).count());
}

/// In the middle of a call that could take a minute: it is cut off, as if it had never begun.
#[test]
fn it_ends_in_order_whatever_its_publisher_is_at() {
    for script in [json!({"do": "spin"}), json!({"do": "print", "bytes": 4_000_000_000_u64}), json!({"do": "sleep"})] {
        let place = Workplace::new();
        place.append(&event("hostile", &script));
        let mut relay = relay(&place, "scripted", "60s");
        relay.wait_for_log("order.placed attempt=1");
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait(), Some(0), "{script}: {}", relay.log());
        assert_eq!(place.query("SELECT position FROM outbox"), ["1"], "{script}");
        let counted = "SELECT count(*) FROM outbox_attempts UNION ALL SELECT count(*) FROM outbox_dead_letters";
        assert_eq!(place.query(counted), ["0"; 2], "{script}");
        assert_eq!(place.status()["relay"], json!(null), "{script}");
    }
}

/// What the host itself has to say of a publisher's requests is said a few times for each call.
#[test]
fn a_publishers_mistakes_do_not_flood_the_log() {
    let place = Workplace::new();
    place.append(&event("hostile", &json!({"do": "unfinished"})));
    let relay = relay(&place, "requests", "500ms");
    until("it is a dead letter", || place.status()["dead_letters"] == 1);
    let log = relay.log();
    assert!(log.contains("denied: GET https://127.0.0.1:1"), "{log}");
    assert!(log.lines().count() < 100, "{} lines", log.lines().count());
}

/// A publisher's reason, and an application's names: none of their lines looks like one of ours, and nothing of them
/// steers the terminal that shows it.
#[test]
fn reasons_and_names_forge_no_line_and_steer_no_terminal() {
    let place = Workplace::new();
    let forged = "\n2026-01-31T00:00:00Z ERROR outbox: forged";
    let reason = format!("no\u{1b}[2J\u{9b}31m\r{forged}\nattempt 2 at");
    for kind in ["reject", "unavailable"] {
        let mut event: Value = serde_json::from_str(&event(kind, &json!({"do": kind, "reason": reason}))).unwrap();
        event["name"] = format!("a\u{1b}\u{9b}{forged}").into();
        place.append(&format!("{event}\n"));
    }
    let mut relay = relay(&place, "scripted", "2s");
    relay.wait_for_log("unavailable and paused");
    until("the other is a dead letter", || place.status()["dead_letters"] == 1);
    let shown =
        ["dead list --db app.db", "dead show 1 --db app.db", "status --db app.db", "dead show 1 --db app.db --json"];
    let shown: String = shown.map(|arguments| place.outbox(arguments).ok()).concat();
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    // The guest's own copy of it, on its standard error, is a line of its own with the guest's name.
    let log = relay.log();
    assert!(
        log.contains("\u{FFFD}[2J\u{FFFD}31m\u{FFFD}") && shown.contains("\u{FFFD}[2J\u{FFFD}31m\u{FFFD}"),
        "{shown}\n{log}"
    );
    assert_eq!(shown.lines().find(|line| line.starts_with("2026-") || line.starts_with("attempt 2")), None, "{shown}");
    assert_eq!(log.lines().find(|line| line.starts_with("2026-01-31") || line.starts_with("attempt 2")), None, "{log}");
    for text in [&shown, &log] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
    }
    // A program that reads it gets the text as it is.
    let dead = place.outbox("dead show 1 --db app.db --json").json();
    assert_eq!(dead["name"], format!("a\u{1b}\u{9b}{forged}"));
}
