//! `outbox append`: NDJSON into the outbox, all of it or nothing.

use std::io::Write;
use std::process::Stdio;

use outbox_tests::workplace::{Ran, Workplace, rows};
use uuid::Uuid;

const STREAM_NAMESPACE: Uuid = Uuid::from_u128(0x3a24a3ee_d33d_4266_93ab_7d8e256a6d44);

/// Data that anything which rebuilds JSON would change, each on one line.
const DELICATE: [&str; 10] = [
    r#"{"z": 1.10, "a":	1e2, "z": "é"}"#,
    r#"{  "b":1 ,"a" : [ ]   }"#,
    r#"12345678901234567890123456789.000"#,
    r#"-0.0"#,
    r#"1E+400"#,
    r#""\u00e9\/\u0000 é \ud83d\ude00 😀""#,
    r#"{"lone":"\ud800"}"#,
    r#"[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]"#,
    r#"null"#,
    r#"{"":{"":""},"a":1,"a":2}"#,
];

fn line(data: &str) -> String {
    format!(r#"{{"name": "order.placed", "stream_id": "order-1", "data": {data}}}"#)
}

#[test]
fn every_key_arrives_in_its_column() {
    let place = Workplace::new();
    let event = r#"{"name": "order.placed", "stream_id": "o-1", "stream_name": "order-1", "data": {"order": 1},
        "category": "order", "tenant_id": "acme", "version": 9223372036854775807, "context": {"user":  7},
        "uuid": "7C0E8B1E-9D3F-4A55-8A44-0A3F6F3F9A01", "created_at": "2026-01-31T12:00:00.5+02:00",
        "publish_after": "2026-01-31 13:00:00", "expires_at": "2026-01-31T12:00:00+02:00"}"#;
    place.write("events.ndjson", event.replace('\n', " "));
    let said = place.outbox("append --db app.db events.ndjson").ok();
    assert_eq!(said, "appended 1 events, positions 1 to 1\n");
    assert_eq!(
        place.query("SELECT * FROM outbox"),
        ["1|acme|o-1|order-1|order|7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01|order.placed|9223372036854775807|\
          2026-01-31T10:00:00.5Z|NULL|{\"user\":  7}|2026-01-31T13:00:00Z|2026-01-31T10:00:00Z|{\"order\": 1}"]
    );
}

#[test]
fn what_is_left_out_or_null_has_its_default() {
    let place = Workplace::new();
    let nulls = r#", "category": null, "tenant_id": null, "version": null, "context": null, "uuid": null,
                     "created_at": null, "stream_name": null"#;
    let with_nulls = line("1").replace('}', &format!("{}}}", nulls.replace('\n', " ")));
    place.append(&format!("{}\n{with_nulls}", line("1")));
    let columns = "tenant_id, stream_id, stream_name, category, name, version, content_type, context, data";
    let row = "default|order-1|NULL|NULL|order.placed|NULL|NULL|{}|1";
    assert_eq!(place.query(&format!("SELECT {columns} FROM outbox")), [row, row]);
    let uuids: Vec<Uuid> =
        place.query("SELECT uuid FROM outbox").iter().map(|uuid| Uuid::parse_str(uuid).unwrap()).collect();
    assert!(uuids[0] != uuids[1] && uuids.iter().all(|uuid| uuid.get_version_num() == 4), "{uuids:?}");
    let just_now = "julianday('now') - julianday(created_at) BETWEEN 0 AND 0.01";
    assert_eq!(place.query(&format!("SELECT count(*) FROM outbox WHERE {just_now}")), ["2"]);
}

#[test]
fn a_streams_name_makes_its_id() {
    let place = Workplace::new();
    for name in ["order-42", "Ada's orders", "é😀"] {
        place.append(&serde_json::json!({"name": "order.placed", "stream_name": name, "data": 1}).to_string());
        let id = Uuid::new_v5(&STREAM_NAMESPACE, name.as_bytes());
        let newest = "SELECT stream_id, stream_name FROM outbox ORDER BY position DESC LIMIT 1";
        assert_eq!(place.query(newest), [format!("{id}|{name}")]);
    }
    assert_eq!(place.query("SELECT stream_id FROM outbox LIMIT 1"), ["8622a318-a563-5b28-ab9c-e7fa4de2e4ea"]);
}

#[test]
fn data_arrives_byte_for_byte() {
    let place = Workplace::new();
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let long = format!("\"{}\"", "é".repeat(1_000_000));
    let data: Vec<&str> = DELICATE.into_iter().chain([deep.as_str(), long.as_str()]).collect();
    place.append(&data.iter().map(|data| line(data) + "\n").collect::<String>());
    assert!(place.query("SELECT data FROM outbox ORDER BY position") == data);
    assert_eq!(place.query("SELECT DISTINCT typeof(data) FROM outbox"), ["text"]);
}

#[test]
fn lines_may_be_empty_have_windows_ends_and_lack_the_last_one() {
    let place = Workplace::new();
    let said = place.outbox_fed("append --db app.db", format!("\n{}\r\n  \n\r\n{}", line("1"), line("2"))).ok();
    assert_eq!(said, "appended 2 events, positions 1 to 2\n");
    assert_eq!(place.outbox_fed("append --db app.db -", line("3")).ok(), "appended 1 events, positions 3 to 3\n");
    assert_eq!(place.outbox_fed("append --db app.db", "\n\n").ok(), "appended 0 events\n");
    assert_eq!(place.query("SELECT data FROM outbox ORDER BY position"), ["1", "2", "3"]);
}

#[test]
fn a_bad_line_refuses_the_whole_input_and_says_why() {
    let place = Workplace::new();
    place.append(&line("1"));
    let before = place.files();
    let keys = |keys: &str| line("1").replace('}', &format!(", {keys}}}"));
    let uuid = r#""uuid": "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01""#;
    for (bad, reason) in [
        ("{broken".to_owned(), "key must be a string at column 2"),
        (line(r#"{"a": }"#), "expected value at column "),
        (line("{}") + "{}", "trailing characters"),
        (line("{}")[..20].to_owned(), "EOF while parsing"),
        ("[1]".to_owned(), "it is not a JSON object"),
        (
            r#"["order.placed", "order-1", null, {}, null, null, null, null, null, null]"#.to_owned(),
            "not a JSON object",
        ),
        ("\"text\"".to_owned(), "it is not a JSON object"),
        (keys(r#""nmae": 1"#), "unknown field `nmae`, expected one of `name`, `data`, "),
        (keys(&format!("{uuid}, {uuid}")), "duplicate field `uuid`"),
        (r#"{"stream_id": "order-1", "data": 1}"#.to_owned(), "missing field `name`"),
        (r#"{"name": "order.placed", "stream_id": "order-1"}"#.to_owned(), "missing field `data`"),
        (r#"{"name": "order.placed", "data": 1}"#.to_owned(), "stream_id or stream_name is missing"),
        (r#"{"name": "", "stream_id": "order-1", "data": 1}"#.to_owned(), "name is empty"),
        (r#"{"name": "order.placed", "stream_id": "", "data": 1}"#.to_owned(), "stream_id is empty"),
        (r#"{"name": "order.placed", "stream_name": "", "data": 1}"#.to_owned(), "stream_name is empty"),
        (keys(r#""tenant_id": true"#), "tenant_id: invalid type: boolean `true`, expected a string"),
        (
            keys(r#""tenant_id": 9223372036854775808"#),
            "tenant_id: 9223372036854775808 is too large to be exact as a number",
        ),
        (keys(r#""content_type": "text/csv", "data_base64": "AA==""#), "there is data, and data_base64 too"),
        (r#"{"name": "n", "stream_id": "s", "data_base64": "AA=="}"#.to_owned(), "data_base64 needs a content_type"),
        (
            r#"{"name": "n", "stream_id": "s", "data_base64": "A", "content_type": "image/png"}"#.to_owned(),
            "data_base64: it is not base64",
        ),
        (keys(r#""created_at": "9999-12-31T23:59:59.999Z""#), "created_at: 9999-12-31T23:59:59.999Z is out of range"),
        (keys(r#""uuid": "seven""#), "uuid: UUID parsing failed"),
        (keys(r#""context": [1]"#), "context: it is not a JSON object"),
        (keys(r#""context": "{}""#), "context: it is not a JSON object"),
        (keys(r#""version": 9223372036854775808"#), "version 9223372036854775808 is more than 9223372036854775807"),
        (keys(r#""version": -1"#), "version: invalid value: integer `-1`"),
        (keys(r#""version": "1""#), "version: invalid type: string \"1\""),
        (keys(r#""created_at": "yesterday""#), "created_at: "),
        (keys(r#""created_at": "2026-02-30T12:00:00Z""#), "created_at: "),
    ] {
        let message =
            place.outbox_fed("append --db app.db", format!("{}\n\n{bad}\n{}", line("2"), line("3"))).refused();
        assert!(message.starts_with("line 3: ") && message.contains(reason), "{bad}: {message}");
        assert!(message.ends_with("; nothing was appended"), "{message}");
        assert_eq!(place.files(), before, "{bad}");
    }
}

#[test]
fn a_line_that_is_not_utf_8_refuses_the_whole_input() {
    let place = Workplace::new();
    let before = place.files();
    let input = [line("1").as_bytes(), b"\n{\"name\": \"\xff\", \"stream_id\": \"order-1\", \"data\": 1}"].concat();
    let message = place.outbox_fed("append --db app.db", input).refused();
    assert!(message.starts_with("line 2: ") && message.contains("UTF-8"), "{message}");
    assert!(message.contains("nothing was appended"), "{message}");
    assert_eq!(place.files(), before);
}

#[test]
fn all_of_it_is_one_transaction() {
    let place = Workplace::new();
    let mut input: String = (0..10_000).map(|order| line(&order.to_string()) + "\n").collect();
    input.push_str("{\n");
    let message = place.outbox_fed("append --db app.db", &input).refused();
    assert!(message.starts_with("line 10001: "), "{message}");
    assert_eq!(place.status()["pending"], 0);

    input.truncate(input.len() - 2);
    let said = place.outbox_fed("append --db app.db", &input).ok();
    assert_eq!(said, "appended 10000 events, positions 1 to 10000\n");
    assert_eq!(place.query("SELECT count(*) FROM outbox WHERE data = CAST(position - 1 AS TEXT)"), ["10000"]);
}

/// Nothing is written before the input has ended, so that other writers need not wait for it.
#[test]
fn a_slow_input_holds_nobody_up() {
    let place = Workplace::new();
    let mut slow = place.start("append --db app.db", Stdio::piped());
    let mut input = slow.stdin.take().unwrap();
    // More than a pipe holds: once it is written, most of it was read.
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    input.write_all(format!("{}\n", line(&long)).as_bytes()).unwrap();
    let application = place.sql();
    let order = "INSERT INTO outbox (stream_id, name, data) VALUES ('order-2', 'order.placed', '2')";
    application.execute_batch(&format!("BEGIN IMMEDIATE; {order}; COMMIT")).unwrap();
    assert_eq!(rows(&application, "SELECT data FROM outbox"), ["2"]);
    drop(input);
    Ran::new("append", slow.wait_with_output().unwrap()).ok();
    assert_eq!(rows(&application, "SELECT data FROM outbox"), ["2", &long]);
}

#[test]
fn an_input_that_cannot_be_read_is_named() {
    let place = Workplace::new();
    let before = place.files();
    let message = place.outbox("append --db app.db events.ndjson").refused();
    assert_eq!(message, "cannot read events.ndjson: No such file or directory (os error 2)");
    let message = place.outbox("append --db app.db guests").refused();
    assert!(message.contains("Is a directory"), "{message}");
    assert_eq!(place.files(), before);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let place = Workplace::new();
    place.outbox("init --db app.db").ok();
    let said = place.outbox_fed("append --db app.db", format!("\u{feff}{}\n", line("1"))).ok();
    assert_eq!(said, "appended 1 events, positions 1 to 1\n");
}

/// Each of these rows, inserted, becomes the same event.
#[test]
fn a_line_takes_what_the_table_takes() {
    let place = Workplace::new();
    for (keys, columns, expected) in [
        (r#""stream_id": 42, "data": 1"#, "stream_id, data", "42|1"),
        (r#""stream_id": 42.0, "data": 1"#, "stream_id, data", "42|1"),
        (r#""stream_id": -1.5, "data": 1"#, "stream_id, data", "-1.5|1"),
        (r#""stream_id": "s", "tenant_id": 7, "data": 1"#, "tenant_id, data", "7|1"),
        (r#""stream_id": "s", "tenant_id": "", "data": 1"#, "tenant_id, data", "default|1"),
        (r#""stream_id": "s", "stream_name": "", "category": "", "data": 1"#, "stream_name, category", "NULL|NULL"),
        (r#""stream_id": "s", "content_type": "", "data": 1"#, "content_type, data", "NULL|1"),
        (r#""stream_id": "s", "content_type": "application/json", "data": [1]"#, "typeof(data), data", "text|[1]"),
        (
            r#""stream_id": "s", "content_type": "text/csv", "data": "a,\u0062\n""#,
            "content_type, hex(data)",
            "text/csv|612C620A",
        ),
        (
            r#""stream_id": "s", "content_type": "application/vnd.x+json", "data": {"a":  1}"#,
            "content_type, hex(data)",
            "application/vnd.x+json|7B2261223A2020317D",
        ),
        (
            r#""stream_id": "s", "content_type": "image/png", "data_base64": "/wAB""#,
            "content_type, hex(data)",
            "image/png|FF0001",
        ),
        (
            r#""stream_id": "s", "data": 1, "created_at": "2026-01-31 12:00:00""#,
            "created_at, data",
            "2026-01-31T12:00:00Z|1",
        ),
        (
            r#""stream_id": "s", "data": 1, "created_at": "2026-01-31T12:00:00.5+02:00""#,
            "created_at, data",
            "2026-01-31T10:00:00.5Z|1",
        ),
    ] {
        place.append(&format!("{{\"name\": \"n\", {keys}}}"));
        let newest = format!("SELECT {columns} FROM outbox ORDER BY position DESC LIMIT 1");
        assert_eq!(place.query(&newest), [expected], "{keys}");
    }
    let report = place.outbox("run --db app.db --publisher guests/noop.wasm --json").json();
    assert_eq!((&report["dead_lettered"], &report["remaining"]), (&0.into(), &0.into()));
}

#[test]
fn what_is_no_ndjson_is_told_for_what_it_is() {
    let place = Workplace::new();
    let pretty = serde_json::to_string_pretty(&serde_json::json!({"name": "n", "stream_id": "s", "data": 1})).unwrap();
    for (input, said) in [(pretty.clone(), "`jq -c .`"), (format!("[\n{pretty}\n]"), "`jq -c '.[]'`")] {
        let message = place.outbox_fed("append --db app.db", input).refused();
        assert!(message.starts_with("line 1: ") && message.contains(said), "{message}");
        assert!(message.contains("on a line of its own"), "{message}");
    }
    assert_eq!(place.status()["pending"], 0);
}
