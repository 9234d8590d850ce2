//! `outbox status`: what is in the outbox, in words and as JSON.

use outbox_tests::workplace::Workplace;
use serde_json::{Value, json};

fn keys<'a, const N: usize>(value: &'a Value, keys: [&str; N]) -> [&'a Value; N] {
    keys.map(|key| &value[key])
}

#[test]
fn an_empty_outbox() {
    let place = Workplace::new();
    let said = place.outbox("status --db app.db").ok();
    assert_eq!(
        said,
        "pending         0\n\
         waiting         0\n\
         dead letters    0\n\
         last position   0\n\
         relay           none is at work\n"
    );
    let expected = json!({
        "pending": 0, "oldest_created_at": null, "oldest_age_ms": null, "waiting": 0, "dead_letters": 0,
        "last_position": 0, "blocked_streams": [], "blocked_streams_total": 0, "relay": null, "undeletable": 0,
        "undeletable_reason": null, "delayed": 0, "delayed_until": null,
    });
    assert_eq!(place.status(), expected);
}

#[test]
fn what_is_there_waits_is_dead_and_is_blocked() {
    let place = Workplace::new();
    place.write("outbox.toml", "db = \"app.db\"\n[relay]\non_dead_letter = \"park\"\n");
    let hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let event = |stream: &str, data: &str| {
        format!(
            r#"{{"name": "order.placed", "tenant_id": "acme", "stream_id": "{stream}", "data": {data},
                "created_at": "{hour_ago}"}}"#
        )
        .replace('\n', " ")
    };
    place.append(
        &[
            event("busy", r#"{"do": "retry", "reason": "come back later", "after_ms": 3600000}"#),
            event("odd", r#"{"do": "reject", "reason": "no such order\nnor customer"}"#),
            event("busy", "{}"),
            event("odd", "{}"),
            event("fine", "{}"),
        ]
        .join("\n"),
    );
    let status = place.status();
    assert_eq!(keys(&status, ["pending", "waiting", "dead_letters", "last_position"]), [5, 0, 0, 5]);
    place.outbox("run --config outbox.toml --publisher guests/scripted.wasm").ok();

    let status = place.status();
    assert_eq!(keys(&status, ["pending", "waiting", "dead_letters", "last_position"]), [3, 1, 1, 5]);
    assert_eq!(status["oldest_created_at"], hour_ago.to_string());
    assert!((3_600_000..7_200_000).contains(&status["oldest_age_ms"].as_i64().unwrap()), "{status}");
    assert_eq!(status["blocked_streams_total"], 2);
    let [busy, odd] = [0, 1].map(|index| &status["blocked_streams"][index]);
    let shown = ["tenant_id", "stream_id", "position", "state", "attempts", "reason"];
    assert_eq!(
        keys(busy, shown),
        [&json!("acme"), &json!("busy"), &json!(1), &json!("waiting"), &json!(1), &json!("come back later")]
    );
    assert_eq!(keys(odd, ["stream_id", "state", "retry_at"]), [&json!("odd"), &json!("parked"), &Value::Null]);
    let retry_at: jiff::Timestamp = busy["retry_at"].as_str().unwrap().parse().unwrap();
    let wait = retry_at.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((1_800..=3_600).contains(&wait), "{retry_at}");

    let said = place.outbox("status --db app.db").ok();
    for expected in [
        "pending         3\n",
        "oldest          ",
        "waiting         1\n",
        "dead letters    1\n",
        "last position   5\n",
        "blocked streams 2\n",
        "(1 attempts): come back later\n",
        "  acme/odd parked behind dead letter 2 (1 attempts): no such order\n",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

#[test]
fn the_last_position_outlives_its_entry() {
    let place = Workplace::new();
    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
    place.outbox("run --db app.db --publisher guests/noop.wasm").ok();
    let status = place.status();
    assert_eq!(keys(&status, ["pending", "last_position"]), [0, 1]);
}

/// The numbers of blocked streams are whole, though only the first of them are named.
#[test]
fn of_many_blocked_streams_some_are_named() {
    let place = Workplace::new();
    let events: String = (0..30)
        .map(|stream| {
            format!(r#"{{"name": "a", "stream_id": "s-{stream}", "data": {{"do": "retry", "after_ms": 3600000}}}}"#)
                + "\n"
        })
        .collect();
    place.append(&events);
    place.outbox("run --db app.db --publisher guests/scripted.wasm").ok();
    let status = place.status();
    assert_eq!(status["blocked_streams_total"], 30);
    assert_eq!(status["blocked_streams"].as_array().unwrap().len(), 20);
}

/// A row that an application wrote by hand does not keep the status from being shown.
#[test]
fn a_time_that_is_none_has_no_age() {
    let place = Workplace::new();
    let insert = "INSERT INTO outbox (stream_id, name, data, created_at) VALUES ('s', 'n', '1', 'yesterday')";
    place.sql().execute(insert, []).unwrap();
    let status = place.status();
    assert_eq!(
        keys(&status, ["pending", "oldest_created_at", "oldest_age_ms"]),
        [&json!(1), &json!("yesterday"), &Value::Null]
    );
    assert!(!place.outbox("status --db app.db").ok().contains("oldest"));
}

/// The fields for monitoring are there exactly when something is odd.
#[test]
fn what_is_no_text_is_shown_as_far_as_it_can_be() {
    let place = Workplace::new();
    let insert = "INSERT INTO outbox (stream_id, name, data, created_at) VALUES ('s', 'n', '1', CAST(x'fffe' AS TEXT))";
    place.sql().execute(insert, []).unwrap();
    assert_eq!(place.status()["oldest_created_at"], "0xfffe");
    let ran = place.outbox("run --db app.db --publisher guests/noop.wasm --limit 0 --json").json();
    assert_eq!(ran["remaining"], 1);
}

/// The form of SQLite's own, too, has an age.
#[test]
fn the_oldest_is_told_in_one_form() {
    let place = Workplace::new();
    let insert = "INSERT INTO outbox (stream_id, name, data, created_at) VALUES ('s', 'n', '1', '2026-01-31 12:00:00')";
    place.sql().execute(insert, []).unwrap();
    let status = place.status();
    assert_eq!(status["oldest_created_at"], "2026-01-31T12:00:00Z");
    assert!(status["oldest_age_ms"].is_i64(), "{status}");
}
