//! What applications write with plain INSERTs, as they should and as they should not: each row is delivered or becomes a
//! dead letter, and its stream goes on.

use std::process::{Command, Output};

use outbox_host::{JsonSerde, Outbox, OutboxStorageStrategy, SqliteOutbox};
use outbox_tests::outboxes::event;
use outbox_tests::sink::Sink;
use outbox_tests::workplace::{Ran, Workplace};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::{Value, json};

const COLUMNS: &str = "stream_id, name, data";

fn app(place: &Workplace, options: &str) -> Output {
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/app-python/app.py");
    let mut command = Command::new("python3");
    command.arg(app).arg(place.path("app.db")).args(options.split_whitespace()).output().unwrap()
}

#[test]
fn the_python_application_appends_in_its_own_transaction() {
    let place = Workplace::new();
    let said = Ran::new("app.py", app(&place, "--orders 5 --fail")).ok();
    assert!(said.contains("it left neither a row nor an event\n"), "{said}");
    assert!(said.ends_with("5 orders are stored, 5 events wait in the outbox\n"), "{said}");
    // Each order has its event, and the one that failed has neither.
    let pairs = "
        SELECT count(*), count(DISTINCT orders.id) FROM orders JOIN outbox
        ON stream_id = 'order-' || orders.id AND json_extract(data, '$.cents') = cents";
    assert_eq!(place.query(pairs), ["5|5"]);
    assert_eq!(place.query("SELECT count(*) FROM outbox UNION ALL SELECT count(*) FROM orders"), ["5", "5"]);

    let data: Vec<Value> =
        place.query("SELECT data FROM outbox").iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    assert_eq!(deliver(&place, &sink)["published"], 5);
    let delivered: Vec<Value> = sink.deliveries().iter().map(|delivery| delivery.json()["data"].clone()).collect();
    assert!(data.iter().all(|data| delivered.contains(data)), "{data:?}, {delivered:?}");
}

#[test]
fn the_python_application_says_what_it_needs() {
    let place = Workplace::empty();
    let ran = Ran::new("app.py", app(&place, ""));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("does not exist. Run this first: outbox init --db "), "{}", ran.stderr);
    assert!(!place.path("app.db").exists());
}

/// An application that finds the write lock taken waits for longer than it was taken.
#[test]
fn beside_an_application_that_writes_few_entries_are_settled_at_once() {
    let place = Workplace::new();
    let outbox = Outbox::new(SqliteOutbox::open(&place.path("app.db")).unwrap(), JsonSerde);
    let drain = outbox.strategy().drain().unwrap();
    let settles_at_once = || {
        drain.settle(&[]).unwrap();
        drain.settle_max()
    };
    settles_at_once();
    outbox.append(&[event("order-1", "{}")]).unwrap();
    assert_eq!(settles_at_once(), usize::MAX, "what it appends itself is no other writer");
    let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('order-1', 'order.placed', '{}')";
    place.sql().execute(insert, []).unwrap();
    assert!(settles_at_once() < 1_000);
}

/// One pass over HTTP, to the sink.
fn deliver(place: &Workplace, sink: &Sink) -> Value {
    let url = sink.url();
    let grants = format!("--allow-http {url} --env WEBHOOK_URL={url}/hook");
    place
        .outbox(&format!("run --db app.db --publisher guests/rust-webhook.wasm {grants} --json --max-attempts 1"))
        .json()
}

/// A row, between two others of its stream.
struct Case {
    what: &'static str,
    columns: &'static str,
    values: Vec<Sql>,
    /// The end of the body that is delivered, or the reason of the dead letter.
    becomes: Result<String, &'static str>,
}

fn delivered(what: &'static str, columns: &'static str, values: Vec<Sql>, body: &str) -> Case {
    Case { what, columns, values, becomes: Ok(body.to_owned()) }
}

fn dead(what: &'static str, columns: &'static str, values: Vec<Sql>, reason: &'static str) -> Case {
    Case { what, columns, values, becomes: Err(reason) }
}

fn text(text: &str) -> Sql {
    Sql::Text(text.into())
}

fn row(stream: &str, data: Sql) -> Vec<Sql> {
    vec![text(stream), text("order.paid"), data]
}

/// The columns of a plain row, and another one.
fn row_and(stream: &str, more: Sql) -> Vec<Sql> {
    [row(stream, text("1")), vec![more]].concat()
}

fn cases() -> Vec<Case> {
    let all =
        "tenant_id, stream_name, category, uuid, version, created_at, content_type, context, stream_id, name, data";
    let nulls = [vec![Sql::Null; 8], row("nulls", text("{}"))].concat();
    let delicate = "{\"z\": 1.10, \"a\":\t1e2,\n \"z\": \"\\u00e9é\"} ";
    let big = format!("\"{}\"", "x".repeat(20_000_000));
    let json = |data: &str| format!(",\"data\":{data}}}");
    let with_type = "stream_id, name, data, content_type";
    let binary =
        |stream, content_type: &str| [row(stream, Sql::Blob(vec![0xff, 0, 1])), vec![text(content_type)]].concat();
    vec![
        delivered("the three columns", COLUMNS, row("three", text(delicate)), &json(delicate)),
        delivered("explicit NULLs", all, nulls, &json("{}")),
        delivered("JSON in a blob", COLUMNS, row("blob", Sql::Blob(delicate.into())), &json(delicate)),
        delivered("an integer as data", COLUMNS, row("integer", Sql::Integer(-42)), &json("-42")),
        delivered("a real number as data", COLUMNS, row("real", Sql::Real(1.5)), &json("1.5")),
        delivered("an integer as the stream", COLUMNS, vec![Sql::Integer(7), text("a"), text("1")], &json("1")),
        delivered("20 MB", COLUMNS, row("big", text(&big)), &json(&big)),
        delivered("binary data", with_type, binary("png", "image/png"), ",\"data_base64\":\"/wAB\"}"),
        delivered(
            "text of another type",
            with_type,
            [row("csv", text("1,2")), vec![text("text/csv")]].concat(),
            ",\"data_base64\":\"MSwy\"}",
        ),
        delivered(
            "JSON that says so",
            with_type,
            [row("says", Sql::Blob(b"{}".to_vec())), vec![text("application/json; charset=utf-8")]].concat(),
            &json("{}"),
        ),
        delivered(
            "SQLite's own time",
            "stream_id, name, data, created_at",
            row_and("time", text("2026-01-31 12:00:00")),
            &json("1"),
        ),
        delivered(
            "a uuid of 16 bytes",
            "stream_id, name, data, uuid",
            row_and("uuid", Sql::Blob(vec![0x11; 16])),
            &json("1"),
        ),
        dead(
            "broken JSON",
            COLUMNS,
            row("broken", text("{\"order\": }")),
            "data: data is not JSON: expected value at line 1 column 11",
        ),
        dead("no data", COLUMNS, row("empty", text("")), "data: data is not JSON: EOF"),
        dead(
            "a blob that is no text",
            COLUMNS,
            row("bytes", Sql::Blob(vec![0xff])),
            "where it is meant to be binary, set content_type",
        ),
        dead(
            "binary data that claims to be JSON",
            with_type,
            binary("claims", "application/json"),
            "data: data is a blob that is not JSON",
        ),
        dead(
            "40 MB",
            COLUMNS,
            row("bigger", text(&"x".repeat(40_000_000))),
            "data: 40000000 bytes are too many: a publisher is given at most 32 MiB of data",
        ),
        dead("an empty name", COLUMNS, vec![text("no-name"), text(""), text("1")], "name: it is empty"),
        dead("an empty stream", COLUMNS, vec![text(""), text("a"), text("1")], "stream_id: it is empty"),
        dead(
            "a version that is no number",
            "stream_id, name, data, version",
            row_and("version", text("v1")),
            "version: a whole number is expected, not text",
        ),
        dead(
            "a version below 0",
            "stream_id, name, data, version",
            row_and("minus", Sql::Integer(-1)),
            "version: -1 must not be negative",
        ),
        dead(
            "a context that is no object",
            "stream_id, name, data, context",
            row_and("context", text("[1]")),
            "context: it is not a JSON object",
        ),
        dead("a uuid that is none", "stream_id, name, data, uuid", row_and("no-uuid", text("seven")), "uuid: "),
        dead(
            "a time that is none",
            "stream_id, name, data, created_at",
            row_and("no-time", text("yesterday")),
            "created_at: ",
        ),
        dead(
            "a name that is no text",
            COLUMNS,
            vec![text("odd"), Sql::Blob(vec![0xff]), text("1")],
            "name: text in UTF-8 is expected, not a blob",
        ),
        dead(
            "a position below 1",
            "position, stream_id, name, data",
            [vec![Sql::Integer(-5)], row("below", text("1"))].concat(),
            "position: -5 is less than 1",
        ),
    ]
}

/// Inserts a row, and returns its position.
fn insert(application: &Connection, columns: &str, values: &[Sql]) -> i64 {
    let holes = vec!["?"; values.len()].join(", ");
    let sql = format!("INSERT INTO outbox ({columns}) VALUES ({holes})");
    application.execute(&sql, rusqlite::params_from_iter(values)).unwrap();
    application.last_insert_rowid()
}

#[test]
fn each_row_is_delivered_or_set_aside_and_its_stream_goes_on() {
    let place = Workplace::new();
    let application = place.sql();
    let mut expected = Vec::new();
    for Case { what, columns, values, becomes } in cases() {
        let position = insert(&application, columns, &values);
        let follower =
            "INSERT INTO outbox (stream_id, name, data) SELECT stream_id, 'next', '2' FROM outbox WHERE position = ?";
        application.execute(follower, [position]).unwrap();
        expected.push((what, position, application.last_insert_rowid(), becomes));
    }
    let stored = "SELECT quote(stream_id), quote(name), quote(version), quote(context), quote(uuid), hex(data)";
    let stored_at =
        |table: &str, position: i64| place.query(&format!("{stored} FROM {table} WHERE position = {position}"));
    let before: Vec<_> = expected.iter().map(|(_, position, ..)| stored_at("outbox", *position)).collect();

    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    let report = deliver(&place, &sink);
    assert_eq!(report["remaining"], 0);
    let deliveries = sink.deliveries();
    let delivered = |position: i64| {
        let of_it = format!("\"outboxposition\":\"{position}\"");
        let found: Vec<usize> =
            (0..deliveries.len()).filter(|index| deliveries[*index].body.contains(&of_it)).collect();
        assert!(found.len() < 2, "{position} was delivered more than once");
        found.first().copied()
    };
    for ((what, position, follower, becomes), before) in expected.into_iter().zip(before) {
        match becomes {
            Ok(end) => {
                let index = delivered(position).unwrap_or_else(|| panic!("{what} was not delivered: {report}"));
                assert!(deliveries[index].body.ends_with(&end), "{what}");
                assert!(delivered(follower).is_some_and(|follower| follower > index), "{what}");
            }
            Err(reason) => {
                let failures = report["failures"].as_array().unwrap();
                let failure = failures.iter().find(|failure| failure["position"] == position).unwrap();
                let (outcome, said) = (&failure["outcome"], failure["reason"].as_str().unwrap());
                assert!(outcome == "undecodable" && said.contains(reason), "{what}: {outcome}: {said}");
                assert_eq!(delivered(position), None, "{what}");
                assert!(stored_at("outbox_dead_letters", position) == before, "{what} is not kept whole");
                // Whoever has no stream has a follower without one.
                assert_eq!(delivered(follower).is_some(), what != "an empty stream", "{what}");
            }
        }
    }
}

/// Defaults are what the table's contract says, also where a mapper writes NULLs.
#[test]
fn the_outbox_fills_in_what_is_left_out_or_null() {
    let place = Workplace::new();
    insert(&place.sql(), COLUMNS, &row("a", text("{}")));
    let all = "position, tenant_id, stream_name, category, uuid, version, created_at, content_type, context";
    let nulls = [vec![Sql::Null; 9], row("b", text("{}"))].concat();
    insert(&place.sql(), &format!("{all}, {COLUMNS}"), &nulls);
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    assert_eq!(deliver(&place, &sink)["published"], 2);
    let mut events: Vec<Value> = sink.deliveries().iter().map(outbox_tests::sink::Delivery::json).collect();
    events.sort_by_key(|event| event["outboxposition"].to_string());
    for (event, position) in events.iter().zip(["1", "2"]) {
        assert_eq!(event["outboxposition"], position);
        assert_eq!([&event["tenantid"], &event["outboxattempt"]], [&json!("default"), &json!(1)]);
        assert!(
            ["streamname", "streamcategory", "streamversion"].iter().all(|key| event.get(key).is_none()),
            "{event}"
        );
        let uuid = uuid::Uuid::parse_str(event["id"].as_str().unwrap()).unwrap();
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
        let age = jiff::Timestamp::now().duration_since(event["time"].as_str().unwrap().parse().unwrap());
        assert!((0..600).contains(&age.as_secs()), "{event}");
    }
    assert_ne!(events[0]["id"], events[1]["id"]);
}

/// An application that writes in its own transaction sees its event come to nothing with it.
#[test]
fn what_is_rolled_back_was_never_there() {
    let place = Workplace::new();
    let mut application = place.sql();
    let transaction = application.transaction().unwrap();
    transaction.execute("INSERT INTO outbox (stream_id, name, data) VALUES ('a', 'b', '1')", []).unwrap();
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    assert_eq!(place.status()["pending"], 0);
    drop(transaction);
    let report = deliver(&place, &sink);
    assert_eq!([&report["published"], &report["remaining"]], [0, 0]);
    assert!(sink.deliveries().is_empty());
}
