//! `outbox prune`: old records go, young ones stay.

use outbox_tests::workplace::Workplace;
use serde_json::json;

/// Dead letters that are 40 days old (1), young (2), and old but with a parked stream behind them (3); an entry that waits
/// (4) with an old attempt and a young one; an old record of an operator's act (1) and a young one (2).
fn old_and_young() -> Workplace {
    let place = Workplace::new();
    place.write("outbox.toml", "db = \"app.db\"\n[retention]\ndead_letters = \"30d\"\n");
    place.write("park.toml", "db = \"app.db\"\n[relay]\non_dead_letter = \"park\"\n");
    let event = |script: serde_json::Value, stream: &str| {
        json!({"name": "a", "stream_id": stream, "data": script}).to_string() + "\n"
    };
    let run = "--publisher guests/scripted.wasm";
    place.append(&(event(json!({"do": "reject"}), "a") + &event(json!({"do": "reject"}), "b")));
    place.outbox(&format!("run --db app.db {run}")).ok();
    place.append(&event(json!({"do": "reject"}), "c"));
    place.outbox(&format!("run --config park.toml {run}")).ok();
    place.append(&event(json!({"do": "retry", "after_ms": 0}), "d"));
    // A failed entry is due again at once.
    place.write("at-once.toml", "db = \"app.db\"\n[relay]\nbackoff_initial = \"0s\"\n");
    place.outbox(&format!("run --config at-once.toml {run}")).ok();
    place.outbox(&format!("run --config at-once.toml {run}")).ok();
    place.write("data.json", r#"{"do": "reject"}"#);
    place.outbox("dead edit 1 --data data.json --db app.db").ok();
    place.outbox("dead edit 2 --data data.json --db app.db").ok();
    let days_40 = 40_i64 * 24 * 3_600 * 1_000;
    place
        .sql()
        .execute_batch(&format!(
            "UPDATE outbox_dead_letters SET died_at_ms = died_at_ms - {days_40} WHERE position IN (1, 3);
             UPDATE outbox_attempts SET at_ms = at_ms - {days_40} WHERE position IN (1, 3) OR attempt = 1;
             UPDATE outbox_audit SET at_ms = at_ms - {days_40} WHERE position = 1;"
        ))
        .unwrap();
    place
}

#[test]
fn what_is_old_is_counted_dry_and_then_deleted() {
    let place = old_and_young();
    let before = place.tables("app.db");
    assert_eq!(
        ["outbox", "outbox_waiting", "outbox_dead_letters", "outbox_attempts", "outbox_audit"]
            .map(|it| before[it].len()),
        [1, 1, 3, 5, 2]
    );
    let prune = "prune --db app.db --dead-letters 30d --attempts 30d --audit 30d";
    let counts = "1 dead letters, 1 records of attempts, 1 records of acts\n";
    assert_eq!(place.outbox(&format!("{prune} --dry-run")).ok(), format!("would delete {counts}"));
    assert_eq!(place.tables("app.db"), before);
    assert_eq!(place.outbox(prune).ok(), format!("deleted {counts}"));

    // The dead letter that parks its stream stays; nothing that is still to be published is touched.
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters ORDER BY position"), ["2", "3"]);
    assert_eq!(place.query("SELECT position, attempt FROM outbox_attempts ORDER BY id"), ["2|1", "3|1", "4|2"]);
    assert_eq!(place.query("SELECT act, position FROM outbox_audit ORDER BY id"), ["edit|2", "prune|NULL"]);
    let after = place.tables("app.db");
    assert_eq!((&after["outbox"], &after["outbox_waiting"]), (&before["outbox"], &before["outbox_waiting"]));
    assert_eq!(place.outbox(prune).ok(), "deleted 0 dead letters, 0 records of attempts, 0 records of acts\n");
}

#[test]
fn only_what_a_time_is_given_for_is_deleted() {
    let place = old_and_young();
    let said = place.outbox("prune --config outbox.toml").ok();
    assert_eq!(said, "deleted 1 dead letters, 0 records of attempts, 0 records of acts\n");
    let said = place.outbox("prune --config outbox.toml --audit 30d --dead-letters 100d").ok();
    assert_eq!(said, "deleted 0 dead letters, 0 records of attempts, 1 records of acts\n");
    let message = place.outbox("prune --db app.db").refused();
    assert!(message.starts_with("nothing says how long records are kept: give --dead-letters, "), "{message}");
}

/// It deletes in batches, so that no transaction is long.
#[test]
fn many_are_deleted_too() {
    let place = Workplace::new();
    let event = json!({"name": "a", "stream_id": "s", "data": {"do": "reject"}}).to_string() + "\n";
    place.append(&event.repeat(1_234));
    place.outbox("run --db app.db --publisher guests/scripted.wasm --limit 2000").ok();
    let said = place.outbox("prune --db app.db --dead-letters 1h").ok();
    assert!(said.starts_with("deleted 0 dead letters, "), "{said}");
    place.sql().execute("UPDATE outbox_dead_letters SET died_at_ms = died_at_ms - 3600001", []).unwrap();
    let said = place.outbox("prune --db app.db --dead-letters 1h").ok();
    assert!(said.starts_with("deleted 1234 dead letters, "), "{said}");
    assert_eq!(place.query("SELECT count(*) FROM outbox_attempts"), ["0"]);
}

#[test]
fn a_relay_prunes_as_its_settings_say() {
    let place = old_and_young();
    let relay = place.start_logged("relay --config outbox.toml --publisher guests/noop.wasm");
    relay.wait_for_log("pruned old records");
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters ORDER BY position"), ["2", "3"]);
}
