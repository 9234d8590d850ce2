//! `outbox dead`: dead letters are listed, shown, put back, discarded and edited.

use outbox_tests::sink::Sink;
use outbox_tests::workplace::Workplace;
use serde_json::{Value, json};

/// Four dead letters: three were rejected, and the fourth is no JSON. The first is ten days old, and has an entry of its
/// stream behind it.
fn four() -> Workplace {
    let place = Workplace::new();
    let rejected = |reason: &str| json!({"do": "reject", "reason": reason});
    let events = [
        json!({"name": "order.placed", "stream_id": "order-1", "data": rejected("no such customer"), "version": 3}),
        json!({"name": "order.paid", "stream_id": "order-2", "tenant_id": "acme", "data": rejected("card declined")}),
        json!({"name": "invoice.sent", "stream_name": "invoice-1", "data": rejected("No such address")}),
    ];
    place.append(&events.map(|event| event.to_string() + "\n").concat());
    let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('order-9', 'order.placed', '{\"order\": 9,}')";
    place.sql().execute(insert, []).unwrap();
    let ran = place.outbox("run --db app.db --publisher guests/scripted.wasm --json").json();
    assert_eq!(ran["dead_lettered"], 4);
    let aged = "UPDATE outbox_dead_letters SET died_at_ms = died_at_ms - 10 * 24 * 3600 * 1000 WHERE position = 1";
    place.sql().execute(aged, []).unwrap();
    place.append(r#"{"name": "order.shipped", "stream_id": "order-1", "data": {}}"#);
    place
}

const DATA: &str = "SELECT position, uuid, tenant_id, stream_id, stream_name, name, version, created_at, context, data";

#[test]
fn the_list_is_narrowed_by_each_condition() {
    let place = four();
    for (conditions, expected) in [
        ("", vec![1, 2, 3, 4]),
        ("--name order.placed", vec![1, 4]),
        ("--name order.*", vec![1, 2, 4]),
        ("--name order.", vec![]),
        ("--name *", vec![1, 2, 3, 4]),
        ("--stream order-2", vec![2]),
        ("--stream invoice-1", vec![3]),
        ("--tenant acme", vec![2]),
        ("--tenant default", vec![1, 3, 4]),
        ("--since 7d", vec![2, 3, 4]),
        ("--since 30d", vec![1, 2, 3, 4]),
        ("--since 2000-01-31T12:00:00Z", vec![1, 2, 3, 4]),
        ("--since 2999-01-31T12:00:00Z", vec![]),
        ("--reason such", vec![1, 3]),
        ("--reason UNDECODABLE", vec![4]),
        ("--name order.* --tenant default --reason customer", vec![1]),
        ("--limit 2", vec![1, 2]),
    ] {
        let list = place.outbox(&format!("dead list --db app.db --json {conditions}")).json();
        let ids: Vec<i64> = list.as_array().unwrap().iter().map(|dead| dead["position"].as_i64().unwrap()).collect();
        assert_eq!(ids, expected, "{conditions}");
        let in_words = place.outbox(&format!("dead list --db app.db {conditions}")).ok();
        assert!(in_words.ends_with(&format!("{} dead letters\n", expected.len())), "{conditions}: {in_words}");
        assert_eq!(in_words.lines().count(), expected.len() + 1, "{conditions}: {in_words}");
    }
    let in_words = place.outbox("dead list --db app.db --stream order-2").ok();
    assert!(
        in_words.starts_with("2  order.paid  acme/order-2  rejected after 1 attempts: card declined\n"),
        "{in_words}"
    );
    let message = place.outbox("dead list --db app.db --stream order-9").ok();
    assert!(message.contains("undecodable after 1 attempts: data: data is not JSON: "), "{message}");
}

#[test]
fn one_is_shown_whole_with_its_attempts() {
    let place = four();
    let shown = place.outbox("dead show 1 --db app.db --json").json();
    let row = &place.query(&format!("{DATA} FROM outbox_dead_letters WHERE position = 1"))[0];
    let texts = ["uuid", "tenant_id", "stream_id", "name", "created_at", "context", "data"];
    for text in texts.map(|key| shown[key].as_str().unwrap()) {
        assert!(row.contains(text), "{text} is not in {row}");
    }
    assert_eq!((&shown["version"], &shown["attempts"], &shown["parks_stream"]), (&json!(3), &json!(1), &json!(false)));
    let [attempt] = shown["attempts_on_record"].as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!((&attempt["outcome"], &attempt["reason"]), (&json!("rejected"), &json!("no such customer")));
    assert_eq!(attempt["stderr"], "failing: no such customer");
    assert_eq!(attempt["digest"].as_str().unwrap().len(), 64);

    let in_words = place.outbox("dead show 1 --db app.db").ok();
    for expected in ["id            1\n", "stream        order-1\n", "version       3\n", "stream name   -\n"] {
        assert!(in_words.contains(expected), "{expected:?} is not in:\n{in_words}");
    }
    assert!(in_words.contains(": rejected: no such customer\n    stderr: failing: no such customer\n"), "{in_words}");
    let undecodable = place.outbox("dead show 4 --db app.db").ok();
    assert!(undecodable.contains("data          {\"order\": 9,}\n"), "{undecodable}");
}

/// What an application wrote, and no text can represent, is shown as far as possible.
#[test]
fn bytes_are_shown_as_hex() {
    let place = Workplace::new();
    let insert = "INSERT INTO outbox (stream_id, name, data) VALUES (x'ff00', 'order.placed', x'fffe')";
    place.sql().execute(insert, []).unwrap();
    place.outbox("run --db app.db --publisher guests/noop.wasm").ok();
    let shown = place.outbox("dead show 1 --db app.db --json").json();
    assert_eq!((&shown["stream_id"], &shown["data"]), (&json!("0xff00"), &json!("0xfffe")));
}

#[test]
fn a_retry_puts_them_back_at_their_old_places_with_the_same_uuid() {
    let place = four();
    let before = place.query(&format!("{DATA} FROM outbox_dead_letters WHERE position IN (1, 3) ORDER BY position"));
    let uuids = place.query("SELECT uuid FROM outbox_dead_letters WHERE position IN (1, 3) ORDER BY position");
    assert_eq!(place.outbox("dead retry 3 1 --db app.db").ok(), "put 2 dead letters back into the outbox\n");
    assert_eq!(place.query(&format!("{DATA} FROM outbox WHERE position < 5 ORDER BY position")), before);
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters ORDER BY position"), ["2", "4"]);
    assert_eq!(
        place.query("SELECT who, act, position, uuid FROM outbox_audit ORDER BY position"),
        [format!("ada|retry|1|{}", uuids[0]), format!("ada|retry|3|{}", uuids[1])]
    );
    assert_eq!(
        place.query("SELECT count(*) FROM outbox_audit WHERE at_ms / 1000 NOT BETWEEN 1 AND unixepoch()"),
        ["0"]
    );

    // No attempt is used up, and what was in the stream behind it comes after it.
    let ran = place.outbox("run --db app.db --publisher guests/noop.wasm --json").json();
    assert_eq!((&ran["published"], &ran["remaining"]), (&json!(3), &json!(0)));
    assert_eq!(place.query("SELECT count(*) FROM outbox_attempts WHERE position IN (1, 3)"), ["0"]);
}

#[test]
fn a_retry_of_all_that_match_may_be_tried_dry() {
    let place = four();
    let before = place.tables("app.db");
    let said = place.outbox("dead retry --all --name order.* --since 7d --dry-run --db app.db").ok();
    assert!(said.starts_with("2  order.paid  acme/order-2  rejected"), "{said}");
    assert!(said.ends_with("would put 2 dead letters back into the outbox; nothing was changed\n"), "{said}");
    let said = place.outbox("dead retry 4 --dry-run --db app.db").ok();
    assert!(said.contains("would put 1 dead letters back"), "{said}");
    assert_eq!(place.tables("app.db"), before);

    let said = place.outbox("dead retry --all --name order.* --since 7d --db app.db").ok();
    assert_eq!(said, "put 2 dead letters back into the outbox\n");
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters ORDER BY position"), ["1", "3"]);
    assert_eq!(place.outbox("dead retry --all --db app.db").ok(), "put 2 dead letters back into the outbox\n");
    assert_eq!(place.outbox("dead retry --all --db app.db").ok(), "put 0 dead letters back into the outbox\n");
    assert_eq!(place.query("SELECT count(*), count(DISTINCT position) FROM outbox_audit"), ["4|4"]);
}

#[test]
fn a_retry_has_to_say_which() {
    let place = four();
    let before = place.tables("app.db");
    let message = place.outbox("dead retry --db app.db").refused();
    assert!(message.starts_with("which dead letters? Name their ids, or give --all"), "{message}");
    let message = place.outbox("dead retry --name order.placed --db app.db").refused();
    assert!(message.starts_with("which dead letters?"), "{message}");
    assert_eq!(
        place.outbox("dead retry 1 --name order.placed --db app.db").refused(),
        "conditions go with --all, not with ids"
    );
    assert_eq!(place.tables("app.db"), before);
}

#[test]
fn discarded_ones_are_gone_with_their_attempts_and_on_record() {
    let place = four();
    let uuid = place.query("SELECT uuid FROM outbox_dead_letters WHERE position = 2")[0].clone();
    assert_eq!(place.outbox("dead discard 2 4 --db app.db").ok(), "discarded 2 dead letters\n");
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters ORDER BY position"), ["1", "3"]);
    assert_eq!(place.query("SELECT DISTINCT position FROM outbox_attempts ORDER BY position"), ["1", "3"]);
    assert_eq!(place.query("SELECT position FROM outbox"), ["5"]);
    let audit = place.query("SELECT who, act, position, uuid FROM outbox_audit ORDER BY position");
    assert_eq!((audit.len(), &audit[0]), (2, &format!("ada|discard|2|{uuid}")));
}

#[test]
fn an_edit_replaces_the_data_and_keeps_the_old_on_record() {
    let place = four();
    let before = place.query(&format!("{DATA} FROM outbox_dead_letters WHERE position = 4"));
    place.write("data.json", "\n{\"order\": 9.0}\n");
    let said = place.outbox("dead edit 4 --data data.json --db app.db").ok();
    assert!(said.starts_with("replaced the data of dead letter 4; put it back with: outbox dead retry 4"), "{said}");
    let after = before[0].replace("{\"order\": 9,}", "{\"order\": 9.0}");
    assert_eq!(place.query(&format!("{DATA} FROM outbox_dead_letters WHERE position = 4")), [after]);
    assert_eq!(
        place.query("SELECT who, act, position, detail FROM outbox_audit"),
        ["ada|edit|4|data was: {\"order\": 9,}"]
    );
}

#[test]
fn an_edit_takes_nothing_but_json() {
    let place = four();
    let before = place.tables("app.db");
    place.write("data.json", "{\"order\": 9,}");
    let message = place.outbox("dead edit 4 --data data.json --db app.db").refused();
    assert!(message.starts_with("data.json: data is not JSON: ") && message.contains("line 1 column 13"), "{message}");
    place.write("data.json", [0xff]);
    let message = place.outbox("dead edit 4 --data data.json --db app.db").refused();
    assert!(message.starts_with("cannot read data.json: "), "{message}");
    let message = place.outbox("dead edit 4 --data none.json --db app.db").refused();
    assert!(message.starts_with("cannot read none.json: No such file"), "{message}");
    assert_eq!(place.tables("app.db"), before);
}

#[test]
fn an_unknown_id_is_named() {
    let place = four();
    place.write("data.json", "{}");
    let mut before = place.tables("app.db");
    for (command, expected) in [
        ("dead show 99", "there is no dead letter 99"),
        ("dead show 5", "there is no dead letter 5"),
        ("dead retry 99 98", "0 put back; there is no dead letter 99, 98"),
        ("dead discard 99", "0 discarded; there is no dead letter 99"),
        ("dead edit 99 --data data.json", "there is no dead letter 99"),
    ] {
        assert_eq!(place.outbox(&format!("{command} --db app.db")).refused(), expected);
    }
    let mut after = place.tables("app.db");
    // The generation says that an operator was there, and no more.
    before.remove("outbox_meta");
    after.remove("outbox_meta");
    assert_eq!(after, before);

    // The others are done.
    assert_eq!(place.outbox("dead retry 1 99 --db app.db").refused(), "1 put back; there is no dead letter 99");
    assert_eq!(place.outbox("dead discard 99 2 --db app.db").refused(), "1 discarded; there is no dead letter 99");
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters ORDER BY position"), ["3", "4"]);
    assert_eq!(place.query("SELECT act, position FROM outbox_audit ORDER BY id"), ["retry|1", "discard|2"]);
}

/// From the first delivery over the edit to the last one, with a real destination: the key is the same all along.
#[test]
fn an_edited_event_arrives_with_its_new_data_and_its_old_key() {
    let place = Workplace::new();
    let program = env!("CARGO_BIN_EXE_outbox-sink");
    let refusing = Sink::start_with(&place.path("refusing"), program, &["--status", "422"]);
    let taking = Sink::start(&place.path("taking"), program);
    let run = |sink: &Sink| {
        let url = sink.url();
        let grants = format!("--allow-http {url} --env WEBHOOK_URL={url}/hook");
        place.outbox(&format!("run --db app.db --publisher guests/rust-webhook.wasm {grants} --json")).json()
    };
    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {"order": 1,  "colour": "gren"}}"#);
    assert_eq!(run(&refusing)["dead_lettered"], 1);
    let reason = place.outbox("dead show 1 --db app.db --json").json()["reason"].clone();
    assert!(reason.as_str().unwrap().contains("422"), "{reason}");

    place.write("data.json", r#"{"order": 1,  "colour": "green"}"#);
    place.outbox("dead edit 1 --data data.json --db app.db").ok();
    place.outbox("dead retry 1 --db app.db").ok();
    assert_eq!(run(&taking)["published"], 1);
    let [refused, taken] = [&refusing, &taking].map(|sink| {
        let deliveries = sink.deliveries();
        assert_eq!(deliveries.len(), 1);
        deliveries.into_iter().next().unwrap()
    });
    assert!(refused.body.ends_with(r#","data":{"order": 1,  "colour": "gren"}}"#), "{}", refused.body);
    assert!(taken.body.ends_with(r#","data":{"order": 1,  "colour": "green"}}"#), "{}", taken.body);
    assert!(refused.idempotency_key.is_some() && refused.idempotency_key == taken.idempotency_key);
    let told = |value: &Value| ["id", "time", "outboxposition", "outboxattempt"].map(|key| value[key].clone());
    assert_eq!(told(&refused.json()), told(&taken.json()));
}

#[test]
fn a_parked_stream_goes_on_when_its_dead_letter_is_discarded_or_retried() {
    for act in ["discard", "retry"] {
        let place = Workplace::new();
        place.write("outbox.toml", "db = \"app.db\"\n[relay]\non_dead_letter = \"park\"\n");
        let event = |script: Value| json!({"name": "a", "stream_id": "s", "data": script}).to_string() + "\n";
        place.append(&(event(json!({"do": "reject"})) + &event(json!({}))));
        let run = |guest: &str| {
            place.outbox(&format!("run --config outbox.toml --publisher guests/{guest}.wasm --json")).json()
        };
        assert_eq!(run("scripted")["dead_lettered"], 1);
        assert_eq!(run("noop")["published"], 0);
        let list = place.outbox("dead list --db app.db").ok();
        assert!(list.contains("rejected after 1 attempts, its stream is parked: as scripted"), "{list}");
        place.outbox(&format!("dead {act} 1 --db app.db")).ok();
        assert_eq!(place.status()["blocked_streams_total"], if act == "retry" { 1 } else { 0 });
        let report = run("noop");
        assert_eq!(report["published"], if act == "retry" { 2 } else { 1 });
        assert_eq!(report["remaining"], 0);
    }
}

/// Whatever made it no event can be mended, one column after the other or all at once.
#[test]
fn any_column_is_edited() {
    let place = Workplace::new();
    let insert = "INSERT INTO outbox (stream_id, name, uuid, created_at, context, version, data)
                  VALUES ('s', '', 'seven', 'yesterday', '[]', 'v1', '{\"order\": 9,}')";
    place.sql().execute(insert, []).unwrap();
    place.outbox("run --db app.db --publisher guests/noop.wasm").ok();
    let said =
        place.outbox("dead edit 1 --set version=3 --set uuid=7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01 --db app.db").ok();
    assert!(said.starts_with("replaced the version and the uuid of dead letter 1; put it back with: outbox"), "{said}");
    assert!(said.ends_with("it would still be no event: name: it is empty\n"), "{said}");
    for (set, reason) in [
        ("--set name=", "name: it is NULL"),
        ("--set uuid=seven", "uuid: "),
        ("--set version=v1", "version: a whole number is expected, not text"),
        ("--set created_at=yesterday", "created_at: `yesterday` is no date and time"),
        ("--set context=[]", "context: it is not a JSON object"),
        ("--set data={", "data: data is not JSON"),
        ("", "what is to be replaced? Give --data FILE, or --set COLUMN=VALUE"),
    ] {
        let message = place.outbox(&format!("dead edit 1 {set} --db app.db")).refused();
        assert!(message.starts_with(reason), "{set}: {message}");
    }
    let unknown = place.outbox("dead edit 1 --set position=7 --db app.db");
    assert!(unknown.stderr.contains("`position` is none of tenant_id, stream_id, "), "{}", unknown.stderr);
    let rest =
        "--set name=order.placed --set created_at=2026-01-31T12:00:00Z --set context={} --set data={\"order\":9}";
    let said = place.outbox(&format!("dead edit 1 {rest} --db app.db")).ok();
    assert!(!said.contains("still no event"), "{said}");
    let acts = place.query("SELECT detail FROM outbox_audit ORDER BY id");
    assert_eq!(
        acts,
        [
            "version was: v1",
            "uuid was: seven",
            "name was: ",
            "created_at was: yesterday",
            "context was: []",
            "data was: {\"order\": 9,}"
        ]
    );
    place.outbox("dead retry 1 --db app.db").ok();
    assert_eq!(place.outbox("run --db app.db --publisher guests/noop.wasm --json").json()["published"], 1);
}

#[test]
fn data_of_another_type_is_no_json() {
    let place = four();
    place.write("data.csv", "a,b\n");
    let said = place.outbox("dead edit 4 --data data.csv --set content_type=text/csv --db app.db").ok();
    assert!(said.starts_with("replaced the content_type and the data of dead letter 4"), "{said}");
    assert_eq!(
        place.query("SELECT content_type, data FROM outbox_dead_letters WHERE position = 4"),
        ["text/csv|a,b\n"]
    );
}

/// The first position that there can be is read, and has an id like any other.
#[test]
fn a_position_below_1_is_a_dead_letter_that_can_be_named() {
    let place = Workplace::new();
    for position in ["-9223372036854775808", "-1", "9223372036854775807"] {
        let insert = format!("INSERT INTO outbox (position, stream_id, name, data) VALUES ({position}, 's', 'n', '1')");
        place.sql().execute(&insert, []).unwrap();
    }
    let report = place.outbox("run --db app.db --publisher guests/noop.wasm --json").json();
    assert_eq!(
        (&report["dead_lettered"], &report["published"], &report["remaining"]),
        (&json!(2), &json!(1), &json!(0))
    );
    let shown = place.outbox("dead show -9223372036854775808 --db app.db --json").json();
    assert_eq!(shown["reason"], "position: -9223372036854775808 is less than 1");
    place.outbox("dead retry -1 --db app.db").ok();
    place.outbox("dead edit -9223372036854775808 --set name=m --db app.db").ok();
    place.outbox("dead discard -9223372036854775808 --db app.db").ok();
    assert_eq!(place.query("SELECT position FROM outbox"), ["-1"]);
    assert_eq!(place.outbox("run --db app.db --publisher guests/noop.wasm --json").json()["dead_lettered"], 1);
}

/// In a line of a list, and in the list as JSON, a long value does not drown the others.
#[test]
fn a_list_cuts_what_is_long() {
    let place = Workplace::new();
    let insert = "INSERT INTO outbox (stream_id, name, data) VALUES (printf('%.*c', 70000, 's'), 'n', 'x')";
    place.sql().execute(insert, []).unwrap();
    place.outbox("run --db app.db --publisher guests/noop.wasm").ok();
    let listed = place.outbox("dead list --db app.db").ok();
    assert!(listed.len() < 1_000 && listed.contains("default/(70000 bytes)"), "{listed}");
    assert!(place.outbox("dead retry --all --dry-run --db app.db").ok().contains("would put 1 dead letters back"));
    assert_eq!(place.outbox("dead list --json --db app.db").json()[0]["stream_id"], "(70000 bytes)");
    assert_eq!(place.outbox("dead show 1 --json --db app.db").json()["stream_id"], "s".repeat(70_000));
}

/// One that cannot be put back keeps no other: somebody has inserted the event again, under the application's own index.
#[test]
fn one_that_the_table_refuses_stays_and_keeps_no_other() {
    let place = four();
    let sql = "CREATE UNIQUE INDEX application_uuid ON outbox (uuid);
               INSERT INTO outbox (stream_id, name, data, uuid)
               SELECT stream_id, name, data, uuid FROM outbox_dead_letters WHERE position = 2";
    place.sql().execute_batch(sql).unwrap();
    let message = place.outbox("dead retry --all --db app.db").refused();
    assert!(message.starts_with("3 put back; dead letter 2, if no other, is refused by the table outbox"), "{message}");
    assert!(message.contains("UNIQUE constraint failed: outbox.uuid"), "{message}");
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters"), ["2"]);
    assert_eq!(place.query("SELECT position FROM outbox_audit ORDER BY id"), ["1", "3", "4"]);
    assert!(place.outbox("dead retry 2 --db app.db").refused().starts_with("0 put back; dead letter 2"));
    place.outbox("dead discard 2 --db app.db").ok();
}

#[test]
fn one_that_a_trigger_ignores_stays() {
    let place = four();
    let sql = "CREATE TRIGGER ignore BEFORE INSERT ON outbox WHEN new.position = 2 BEGIN SELECT RAISE(IGNORE); END";
    place.sql().execute_batch(sql).unwrap();
    let message = place.outbox("dead retry --all --db app.db").refused();
    assert!(message.contains("a trigger on the table outbox ignores it"), "{message}");
    assert_eq!(place.query("SELECT position FROM outbox_dead_letters"), ["2"]);
}
