//! `outbox run`: one pass, and its report.

use outbox_tests::workplace::Workplace;
use serde_json::{Value, json};

/// A line that tells the guest `scripted` what to do.
fn event(stream: &str, script: &Value) -> String {
    json!({"name": "order.placed", "stream_id": stream, "data": script}).to_string() + "\n"
}

/// One entry for each way in which a pass may settle it, each in a stream of its own.
fn one_of_each() -> Workplace {
    let place = Workplace::new();
    let entries = [
        event("ok", &json!({})),
        event("retry", &json!({"do": "retry", "reason": "busy", "after_ms": 3_600_000})),
        event("reject", &json!({"do": "reject", "reason": "no such order"})),
        event("trap", &json!({"do": "trap", "reason": "out of luck"})),
        event("ok", &json!({})),
        // After it has said so, nothing else is begun.
        event("unavailable", &json!({"do": "unavailable", "reason": "closed", "after_ms": 3_600_000})),
        event("late", &json!({})),
    ];
    place.append(&entries.concat());
    let insert = "INSERT INTO outbox (position, stream_id, name, data) VALUES (-1, 'odd', 'order.placed', '{broken')";
    place.sql().execute(insert, []).unwrap();
    place
}

const RUN: &str = "run --publisher guests/scripted.wasm --concurrency 1";

/// A failed entry is due again at once.
const AT_ONCE: &str = "db = \"app.db\"\n[relay]\nbackoff_initial = \"0s\"\n";

#[test]
fn says_in_words_what_became_of_each_entry() {
    let place = one_of_each();
    let ran = place.outbox(&format!("{RUN} --db app.db"));
    assert_eq!(
        ran.ok(),
        "published       2\n\
         to be retried   2\n\
         dead letters    2\n\
         unavailable     1\n\
         \x20 entry -1, attempt 1: undecodable: data: data is not JSON: key must be a string at line 1 column 2 -> dead-letter\n\
         \x20 entry 2, attempt 1: retry: busy -> retry\n\
         \x20 entry 3, attempt 1: rejected: no such order -> dead-letter\n\
         \x20 entry 4, attempt 1: trapped: wasm trap: wasm `unreachable` instruction executed (stderr: out of luck) -> retry\n\
         \x20 entry 6, attempt 1: unavailable: closed -> stays\n\
         remaining       4\n"
    );
    assert_eq!(place.query("SELECT position FROM outbox ORDER BY position"), ["2", "4", "6", "7"]);
    assert_eq!(place.query("SELECT position, attempts FROM outbox_waiting ORDER BY position"), ["2|1", "4|1"]);
    assert_eq!(
        place.query("SELECT position, outcome, data FROM outbox_dead_letters ORDER BY position"),
        ["-1|undecodable|{broken", "3|rejected|{\"do\":\"reject\",\"reason\":\"no such order\"}"]
    );
}

#[test]
fn says_the_same_in_json() {
    let place = one_of_each();
    let report = place.outbox(&format!("{RUN} --db app.db --json")).json();
    let failures = report["failures"].as_array().unwrap();
    let short = |failure: &Value| {
        ["position", "attempt", "outcome", "then"].map(|key| failure[key].to_string().replace('"', "")).join(" ")
    };
    assert_eq!(
        failures.iter().map(short).collect::<Vec<_>>(),
        [
            "-1 1 undecodable dead-letter",
            "2 1 retry retry",
            "3 1 rejected dead-letter",
            "4 1 trapped retry",
            "6 1 unavailable stays"
        ]
    );
    assert_eq!(failures[1]["reason"], "busy");
    let numbers = ["published", "to_be_retried", "dead_lettered", "unavailable", "remaining"];
    assert_eq!(numbers.map(|key| report[key].as_u64().unwrap()), [2, 2, 2, 1, 4]);
    let outcomes = json!({"undecodable": 1, "retry": 1, "rejected": 1, "trapped": 1, "unavailable": 1});
    assert_eq!(report["outcomes"], outcomes);
    assert_eq!(place.status()["pending"], report["remaining"]);
}

/// With `--json`, standard output is the document and nothing else, however much the guest prints.
#[test]
fn what_the_guest_prints_is_no_part_of_the_result() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({"do": "print", "bytes": 5_000})));
    let ran = place.outbox("run --db app.db --publisher guests/scripted.wasm --json");
    assert!(ran.stderr.contains("xxxxxxxx"), "{}", ran.stderr);
    assert_eq!(ran.json()["published"], 1);
}

#[test]
fn what_the_guest_prints_is_logged_with_where_it_comes_from() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({"do": "retry", "reason": "busy"})));
    let ran = place.outbox("run --db app.db --publisher guests/scripted.wasm --log-json");
    let log = ran.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let guest: Vec<Value> = log.filter(|entry| entry["target"] == "outbox::guest").collect();
    let uuid = place.query("SELECT uuid FROM outbox").remove(0);
    let digest = place.query("SELECT digest FROM outbox_attempts").remove(0);
    for (entry, stream) in guest.iter().zip(["stdout", "stderr"]) {
        let fields = ["publisher", "digest", "event", "stream"].map(|field| entry["fields"][field].as_str().unwrap());
        assert_eq!(fields, ["scripted", &digest[..12], &uuid, stream], "{entry}");
    }
    assert_eq!((guest.len(), &guest[1]["fields"]["message"]), (2, &"failing: busy".into()));
}

#[test]
fn an_unavailable_publisher_uses_up_no_attempt() {
    let place = Workplace::new();
    let closed_twice = json!({"do": "unavailable", "reason": "closed", "after_ms": 0, "until_attempt": 2});
    place.append(&event("order-1", &closed_twice));
    for _ in 0..3 {
        let report = place.outbox("run --db app.db --publisher guests/scripted.wasm --max-attempts 1 --json").json();
        assert_eq!((&report["unavailable"], &report["remaining"]), (&1.into(), &1.into()));
        assert_eq!(report["failures"][0]["attempt"], 1);
    }
    assert_eq!(place.query("SELECT * FROM outbox_waiting"), [""; 0]);
    let report = place.outbox("run --db app.db --publisher guests/noop.wasm --json").json();
    assert_eq!((&report["published"], &report["remaining"]), (&1.into(), &0.into()));
}

#[test]
fn an_entry_that_failed_holds_back_its_stream_and_is_published_first_when_it_is_due() {
    let place = Workplace::new();
    let once = json!({"do": "retry", "reason": "busy", "after_ms": 0, "until_attempt": 2});
    place.append(&(event("a", &once) + &event("a", &json!({})) + &event("b", &json!({})) + &event("a", &json!({}))));
    place.write("at-once.toml", AT_ONCE);
    let run = "run --config at-once.toml --publisher guests/scripted.wasm --json";
    let report = place.outbox(run).json();
    assert_eq!(
        (&report["published"], &report["to_be_retried"], &report["remaining"]),
        (&1.into(), &1.into(), &3.into())
    );
    assert_eq!(place.query("SELECT position FROM outbox"), ["1", "2", "4"]);

    let uuids = place.query("SELECT uuid FROM outbox ORDER BY position");
    let ran = place.outbox(run);
    let published: Vec<usize> = uuids.iter().map(|uuid| ran.stderr.find(uuid.as_str()).unwrap()).collect();
    assert!(published.is_sorted(), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("published {} order.placed attempt=2", uuids[0])), "{}", ran.stderr);
    let report = ran.json();
    assert_eq!((&report["published"], &report["remaining"]), (&3.into(), &0.into()));
    assert_eq!(
        place.query("SELECT count(*) FROM outbox_waiting UNION ALL SELECT count(*) FROM outbox_attempts"),
        ["0"; 2]
    );
}

#[test]
fn after_its_last_attempt_an_entry_is_a_dead_letter() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({"do": "retry", "reason": "busy", "after_ms": 0})));
    place.write("at-once.toml", AT_ONCE);
    let run = "run --config at-once.toml --publisher guests/scripted.wasm --max-attempts 3 --json";
    let then = || place.outbox(run).json()["failures"][0]["then"].clone();
    assert_eq!([then(), then(), then()], ["retry", "retry", "dead-letter"]);
    assert_eq!(place.query("SELECT attempts, outcome, reason FROM outbox_dead_letters"), ["3|retry|busy"]);
    assert_eq!(place.query("SELECT attempt FROM outbox_attempts ORDER BY id"), ["1", "2", "3"]);
}

#[test]
fn tries_a_hundred_entries_unless_it_is_told_otherwise() {
    let place = Workplace::new();
    place.append(&event("order-1", &json!({})).repeat(250));
    let run = |limit: &str| {
        let report = place.outbox(&format!("run --db app.db --publisher guests/noop.wasm --json {limit}")).json();
        [&report["published"], &report["remaining"]].map(|number| number.as_u64().unwrap())
    };
    assert_eq!(run(""), [100, 150]);
    assert_eq!(run("--limit 0"), [0, 150]);
    assert_eq!(run("--limit 7"), [7, 143]);
    assert_eq!(run("--limit 1000"), [143, 0]);
    assert_eq!(run(""), [0, 0]);
}

/// Paths in it start from its own folder, wherever the program was started.
#[test]
fn takes_its_settings_from_a_file() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("etc")).unwrap();
    place.write(
        "etc/outbox.toml",
        r#"
        db = "../app.db"
        [publisher]
        file = "../guests/scripted.wasm"
        [relay]
        max_attempts = 1
        on_dead_letter = "park"
        "#,
    );
    place.append(&(event("a", &json!({"do": "retry"})) + &event("a", &json!({}))));
    let report = place.outbox("run --config etc/outbox.toml --json").json();
    assert_eq!(
        (&report["dead_lettered"], &report["published"], &report["remaining"]),
        (&1.into(), &0.into(), &1.into())
    );
    let status = place.outbox("status --config etc/outbox.toml --json").json();
    assert_eq!(status["blocked_streams"][0]["state"], "parked");

    let report = place.outbox("run --config etc/outbox.toml --publisher guests/noop.wasm --json").json();
    assert_eq!(report["published"], 0, "a parked stream waits for an operator");
}
