//! One suite for the webhooks of every language: the same events in, the same requests out, and for the same answers the
//! same outcomes. The destination is `outbox-sink`, in a process of its own.
//!
//! A language whose toolchain could not be installed here is skipped, which is said at the end of `make test`; one that was merely
//! not built fails.

use std::path::Path;
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, Grants, Isolation, Limits, Settings};
use outbox_host::{Outcome, Payload, Publisher};
use outbox_tests::answering::Answering;
use outbox_tests::outboxes::{large_json, recorded as event};
use outbox_tests::sink::{Delivery, Sink};
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde_json::{Value, json};
use uuid::Uuid;

/// A webhook, and how it differs from the one in Rust, as its README says.
struct Language {
    /// Its folder in `examples/`.
    name: &'static str,
    /// Whether numbers above 2^53 arrive as they are; else the nearest that a JavaScript number can hold.
    exact_numbers: bool,
    /// What the exception says that it throws for a context that is no JSON; none where it has no exceptions.
    exception: Option<&'static str>,
}

impl Language {
    const fn like_rust(name: &'static str) -> Self {
        Self { name, exact_numbers: true, exception: None }
    }

    const fn on_starlingmonkey(name: &'static str) -> Self {
        Self { exception: Some("JSON"), ..Self::like_rust(name) }
    }

    fn is_built(&self) -> bool {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
        let why = std::fs::read_to_string(guests.join(format!("{}.skipped", self.name)));
        if let Ok(why) = &why {
            outbox_tests::skipped(self.name, why);
        }
        why.is_err()
    }

    /// How a number of the contract that has 64 bits arrives.
    fn number(&self, number: u64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "this is what JavaScript does")]
        if self.exact_numbers { number.to_string() } else { (number as f64).to_string() }
    }

    fn load(&self, sink: &Sink) -> ComponentPublisher {
        self.load_with(with_url(&format!("{}/hook?token=secret", sink.url()), &[&sink.url()]))
    }

    /// What `outbox.toml` in its folder sets, which a project begins with.
    fn memory_mib(&self) -> usize {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(self.name).join("outbox.toml");
        let settings = std::fs::read_to_string(file).unwrap();
        let line = settings.lines().find_map(|line| line.strip_prefix("memory_mib = "));
        line.map_or(128, |rest| rest.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// Several may be compiled at the same time, on few cores.
    fn limits(&self) -> Limits {
        Limits { compile_time: Duration::from_secs(300), ..Limits::default() }
    }

    fn load_with(&self, grants: Grants) -> ComponentPublisher {
        self.load_within(grants, self.limits())
    }

    fn load_within(&self, grants: Grants, limits: Limits) -> ComponentPublisher {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cache/outbox");
        let isolation = Isolation::Reuse { recycle_after: u32::MAX };
        let settings = Settings { grants, isolation, limits, cache: Some(cache), ..Settings::default() };
        ComponentPublisher::load(&outbox_tests::guest(self.name), settings).unwrap()
    }
}

macro_rules! languages {
    ($($module:ident: $language:expr;)*) => { $(
        mod $module {
            use super::Language;

            const LANGUAGE: Language = $language;

            #[test]
            fn the_same_events_make_the_same_requests() {
                if LANGUAGE.is_built() { super::the_same_requests(&LANGUAGE); }
            }

            #[tokio::test]
            async fn what_is_done_with_an_event_is_decided_by_its_name() {
                if LANGUAGE.is_built() { super::decided_by_name(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn an_exception_is_retried_with_its_message() {
                if LANGUAGE.is_built() { super::an_exception(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn each_status_means_what_the_document_says() {
                if LANGUAGE.is_built() { super::each_status(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn what_a_destination_asks_for_is_passed_on() {
                if LANGUAGE.is_built() { super::what_is_asked_for(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn what_fails_before_it_is_sent_is_no_events_fault() {
                if LANGUAGE.is_built() { super::before_it_is_sent(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn what_is_missing_is_waited_for() {
                if LANGUAGE.is_built() { super::what_is_missing(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn the_largest_data_passes_with_the_projects_settings() {
                if LANGUAGE.is_built() { super::the_largest_data(&LANGUAGE).await; }
            }

            #[tokio::test]
            async fn an_instance_lives_long() {
                if LANGUAGE.is_built() { super::lives_long(&LANGUAGE).await; }
            }
        }
    )* };
}

languages! {
    rust: Language::like_rust("rust-webhook");
    c: Language::like_rust("c-webhook");
    go: Language::like_rust("go-webhook");
    python: Language { exception: Some("Expecting value"), ..Language::like_rust("python-webhook") };
    javascript_quickjs: Language { exact_numbers: false, exception: Some("SyntaxError"), ..Language::like_rust("javascript-quickjs-webhook") };
    javascript_starlingmonkey: Language::on_starlingmonkey("javascript-starlingmonkey-webhook");
    typescript: Language::on_starlingmonkey("typescript-webhook");
}

// --- the same requests ------------------------------------------------------------------------------------------------

/// A row of the outbox, with its expected result.
struct Row {
    name: &'static str,
    data: Vec<u8>,
    content_type: Option<&'static str>,
    version: Option<i64>,
    stream_name: Option<&'static str>,
    context: &'static str,
    order: Option<&'static str>,
}

impl Row {
    fn json(name: &'static str, data: impl Into<String>) -> Self {
        let data = data.into().into_bytes();
        Self { name, data, content_type: None, version: None, stream_name: None, context: "{}", order: None }
    }
}

/// As python-event-sourcery stores it.
const NESTED: &str = r#"{"correlation_id": null, "causation_id": null, "components": {"opentelemetry": {"values":
    {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2", "baggage": "c=3"}}}}"#;

fn rows() -> Vec<Row> {
    const UNICODE: &str = "{\"käse\": \"\u{0}\u{1f600} \\u00e9\\ud83d\\ude00 \u{10ffff} \u{feff}\u{2028}\"}";
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    vec![
        Row { order: Some("7"), ..Row::json("order.placed", r#"{"order": 7}"#) },
        Row { order: Some("9007199254740991"), ..Row::json("order.placed", "{\t\"order\" : 9007199254740991 }") },
        Row {
            order: Some("A/7 \"é\"\n"),
            ..Row::json("order.placed", r#"{"a": [{"order": 1}], "order": "A/7 \"\u00e9\"\n", "b": {"order": 2}}"#)
        },
        Row::json("order.placed.late", "{}"),
        Row::json("naïve.日本 \"😀\"\\", UNICODE.replace('\u{0}', "")),
        Row::json("long", json!({"text": "é".repeat(14_000)}).to_string()),
        Row::json("empty", "\"\""),
        Row::json("as.written", "{\"z\": 1.10, \"a\":\t1e2,\n \"z\": 12345678901234567890} "),
        Row::json("deep", deep),
        Row { content_type: Some("image/png"), data: (0..=255).collect(), ..Row::json("binary", "") },
        Row { content_type: Some("application/x-empty"), data: vec![], ..Row::json("nothing", "") },
        Row { content_type: Some("application/x-big"), data: vec![0xa5; 50_000], ..Row::json("binary.big", "") },
        Row { version: Some(0), stream_name: Some("Ada's \"orders\"\n"), ..Row::json("versioned", "null") },
        Row { version: Some(i64::MAX), ..Row::json("version.high", "1") },
        Row { context: r#"{"x": {"tracestate": "no"}, "traceparent": "00-\"é"}"#, ..Row::json("traced", "[]") },
        Row { context: r#"{"traceparent": 7}"#, ..Row::json("oddly.traced", "true") },
        Row { context: NESTED, ..Row::json("traced.nested", "[]") },
    ]
}

/// The first position that a JavaScript number cannot hold is among them.
const FIRST_POSITION: u64 = (1 << 53) - 2;

fn append(place: &Workplace, rows: &[Row]) {
    let sql = place.sql();
    let insert = "INSERT INTO outbox (position, stream_id, stream_name, category, uuid, name, version, created_at, data, \
                  content_type, context) VALUES (?, 's/1', ?, 'ördér', ?, ?, ?, '2026-01-31T12:00:00.000Z', ?, ?, ?)";
    for (position, row) in (FIRST_POSITION..).zip(rows) {
        let Row { name, data, content_type, version, stream_name, context, .. } = row;
        let position = i64::try_from(position).unwrap();
        let values = (position, stream_name, uuid(position), name, version, data, content_type, context);
        sql.execute(insert, values).unwrap();
    }
}

fn uuid(position: i64) -> String {
    Uuid::from_u128(position.try_into().unwrap()).to_string()
}

/// The CloudEvent of a row, without its data.
fn cloud_event(language: &Language, position: u64, row: &Row) -> Value {
    let mut expected = json!({
        "specversion": "1.0",
        "id": uuid(position.try_into().unwrap()),
        "source": "https://shop.example/",
        "type": row.name,
        "subject": "s/1",
        "time": "2026-01-31T12:00:00.000Z",
        "datacontenttype": row.content_type.unwrap_or("application/json"),
        "outboxposition": language.number(position),
        "outboxattempt": 1,
        "tenantid": "default",
        "streamcategory": "ördér",
    });
    if let Some(version) = row.version {
        expected["streamversion"] = language.number(version.try_into().unwrap()).into();
    }
    if let Some(name) = row.stream_name {
        expected["streamname"] = name.into();
    }
    if let Some(order) = row.order {
        expected["orderid"] = order.into();
    }
    if row.name == "traced" {
        expected["traceparent"] = "00-\"é".into();
    }
    if row.name == "traced.nested" {
        expected["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        expected["tracestate"] = "a=1,b=2".into();
    }
    expected
}

fn the_same_requests(language: &Language) {
    let place = Workplace::new();
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    let rows = rows();
    append(&place, &rows);
    let (name, url) = (language.name, sink.url());
    let run = format!(
        "run --db app.db --publisher guests/{name}.wasm --allow-http {url} --env WEBHOOK_URL={url}/hook?token=1 \
         --env WEBHOOK_SOURCE=https://shop.example/ --compile-time 5m --json"
    );
    let report = place.outbox(&run).json();
    assert_eq!([&report["published"], &report["remaining"]], [rows.len(), 0], "{report:#}");

    let deliveries = sink.deliveries();
    assert_eq!(deliveries.len(), rows.len());
    for ((position, row), delivery) in (FIRST_POSITION..).zip(&rows).zip(deliveries) {
        check(language, position, row, &delivery);
    }
}

fn check(language: &Language, position: u64, row: &Row, delivery: &Delivery) {
    let mut event = delivery.json();
    assert_eq!(delivery.content_type.as_deref(), Some("application/cloudevents+json"));
    assert_eq!(delivery.idempotency_key.as_deref(), event["id"].as_str());
    let members = event.as_object_mut().unwrap();
    let (data, base64) = (members.remove("data"), members.remove("data_base64"));
    let expected = cloud_event(language, position, row);
    // A value that cannot be a header's is left out.
    let header = |name: &str| expected[name].as_str().filter(|value| value.is_ascii());
    let headers = [&delivery.traceparent, &delivery.tracestate].map(Option::as_deref);
    assert_eq!(headers, ["traceparent", "tracestate"].map(header));
    assert_eq!(event, expected);
    match row.content_type {
        // JSON byte for byte as it was written.
        None => {
            let text = str::from_utf8(&row.data).unwrap();
            assert!(base64.is_none() && delivery.body.ends_with(&format!(",\"data\":{text}}}")), "{}", delivery.body);
        }
        Some(_) => {
            assert!(data.is_none());
            assert!(from_base64(base64.unwrap().as_str().unwrap()) == row.data, "{} is not what it was", row.name);
        }
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(text.len() % 4, 0);
    let digits = text.trim_end_matches('=').chars().map(|digit| DIGITS.find(digit).unwrap());
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0, 0);
    for digit in digits {
        (bits, count) = (bits << 6 | digit, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

// --- the same outcomes ------------------------------------------------------------------------------------------------

fn sink(options: &[&str]) -> (tempfile::TempDir, Sink) {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::start_with(&folder.path().join("ledger"), env!("CARGO_BIN_EXE_outbox-sink"), options);
    (folder, sink)
}

/// The result for an event: its kind, its reason, and the pause that was asked for.
fn told(outcome: Outcome) -> (&'static str, String, Option<Duration>) {
    match outcome {
        Outcome::Delivered => ("delivered", String::new(), None),
        Outcome::Retry { reason, after } => ("retry", reason, after),
        Outcome::Rejected { reason } => ("rejected", reason, None),
        Outcome::Unavailable { reason, after } => ("unavailable", reason, after),
        other => panic!("{other:?}"),
    }
}

/// The table of `examples/webhook.md`: for each status, what the event is.
struct Answers(Vec<(String, String)>);

impl Answers {
    fn documented() -> Self {
        let document = include_str!("../../examples/webhook.md");
        let table = document.split("<!-- answers: held by a test -->").nth(1).unwrap();
        let rows = table.split("<!-- /answers -->").next().unwrap().lines().filter(|line| line.starts_with("| "));
        let cells = rows.skip(1).map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        Self(
            cells
                .flat_map(|row| row[1].split(", ").map(|status| (status.into(), row[2].into())).collect::<Vec<_>>())
                .collect(),
        )
    }

    /// A status that has a row counts before its class, and that before any other.
    fn of(&self, status: u16) -> &str {
        let class = status / 100;
        let names = [status.to_string(), format!("{class}xx"), format!("other {class}xx"), "other".into()];
        let found = names.iter().find_map(|name| self.0.iter().find(|(status, _)| status == name));
        match found.unwrap_or_else(|| panic!("nothing is said of {status}")).1.as_str() {
            "published" => "delivered",
            "retryable" => "retry",
            other => other,
        }
    }
}

#[test]
fn the_document_says_of_each_status_what_it_means() {
    let answers = Answers::documented();
    let said =
        [200, 204, 302, 400, 401, 403, 404, 408, 409, 410, 422, 423, 425, 429, 500, 503].map(|it| answers.of(it));
    let [published, retried] = ["delivered", "retry"];
    let [rejected, unavailable] = ["rejected", "unavailable"];
    let expected = [
        published,
        published,
        retried,
        rejected,
        unavailable,
        unavailable,
        rejected,
        retried,
        retried,
        rejected,
        rejected,
        retried,
        retried,
        unavailable,
        retried,
        unavailable,
    ];
    assert_eq!(said, expected);
}

fn answering(language: &Language, not_found: Option<&str>) -> (Answering, ComponentPublisher) {
    let server = Answering::start();
    let mut grants = with_url(&format!("{}/hook?token=secret", server.url()), &[&server.url()]);
    grants.env.extend(not_found.map(|kind| ("WEBHOOK_NOT_FOUND".into(), kind.into())));
    (server, language.load_with(grants))
}

async fn each_status(language: &Language) {
    const BODY: &str = "no\tsuch order";
    let (answers, (server, publisher)) = (Answers::documented(), answering(language, None));
    for status in 200..=599 {
        server.answer(status, &[], if [204, 304].contains(&status) { "" } else { BODY });
        let (kind, reason, after) = told(publisher.publish(&event("{}")).await.outcome);
        assert_eq!(kind, answers.of(status), "{status} {reason}");
        let said = if status == 304 { String::new() } else { format!(": {BODY}") };
        if kind != "delivered" {
            // The query, which often carries a token, is left out.
            assert_eq!(reason, format!("{}/hook answered {status}{said}", server.url()));
        }
        assert_eq!(after, None, "{status}");
    }
    for (setting, kind) in [("retryable", "retry"), ("rejected", "rejected"), ("unavailable", "unavailable")] {
        let (server, publisher) = answering(language, Some(setting));
        for status in [404, 410] {
            server.answer(status, &[], "");
            assert_eq!(told(publisher.publish(&event("{}")).await.outcome).0, kind, "{status}");
        }
    }
    // Its body would take longer than the call has.
    server.answer_without_end(200);
    assert_eq!(publisher.publish(&event("{}")).await.outcome, Outcome::Delivered);
    let (_server, publisher) = answering(language, Some("lost"));
    let (kind, reason, _) = told(publisher.publish(&event("{}")).await.outcome);
    let said = "WEBHOOK_NOT_FOUND is \"lost\": retryable, rejected and unavailable are possible";
    assert!(kind == "unavailable" && reason.contains(said), "{kind} {reason}");
}

/// `Retry-After`, with whatever status, in seconds or in one of HTTP's three formats of a date.
async fn what_is_asked_for(language: &Language) {
    let (server, publisher) = answering(language, None);
    let soon = jiff::Timestamp::now() + Duration::from_secs(1_000);
    let format = |format: &str| soon.strftime(format).to_string();
    let (fixed, rfc850) = (format("%a, %d %b %Y %H:%M:%S GMT"), format("%A, %d-%b-%y %H:%M:%S GMT"));
    let (asctime, many) = (format("%a %b %e %H:%M:%S %Y"), "9".repeat(5_000));
    let cases: &[(&str, Option<u64>)] = &[
        ("7", Some(7)),
        (" 120 ", Some(120)),
        ("0", Some(0)),
        ("007", Some(7)),
        ("9999999999", Some(u64::MAX)),
        (&many, Some(u64::MAX)),
        ("soon", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("0x10", None),
        ("", None),
        ("Sat, 31 Jan 2026 12:00:30 GMT", Some(0)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(0)),
        ("Sun Nov  6 08:49:37 1994", Some(0)),
        ("Sat, 31 Jan 2026 12:00:30 CET", None),
        ("Sat, 31 Abc 2026 12:00:30 GMT", None),
        (&fixed, Some(1_000)),
        (&rfc850, Some(1_000)),
        (&asctime, Some(1_000)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(u64::MAX)),
    ];
    for (asked, seconds) in cases {
        for status in [302, 401, 408, 425, 429, 500, 503] {
            server.answer(status, &[format!("Retry-After: {asked}")], "");
            let after = match publisher.publish(&event("{}")).await.outcome {
                Outcome::Retry { after, .. } | Outcome::Unavailable { after, .. } => after,
                other => panic!("{asked}: {other:?}"),
            };
            let case = format!("{status} {asked:?}: {after:?}");
            match seconds {
                // A date is compared with the guest's clock, which goes on; a wait longer than u32 (in QuickJS: i32) holds is cut off.
                Some(1_000) => assert!((800..=1_000).contains(&after.unwrap().as_secs()), "{case}"),
                Some(u64::MAX) => assert!(after.unwrap() >= Duration::from_secs(2_000_000), "{case}"),
                seconds => assert_eq!(after, seconds.map(Duration::from_secs), "{case}"),
            }
        }
    }
}

/// A destination that is down uses up no attempt; one that hangs up on an event does.
async fn before_it_is_sent(language: &Language) {
    let publish = async |url: &str| {
        let grants = with_url(&format!("{url}/hook?token=secret"), &[url]);
        let (kind, reason, after) = told(language.load_with(grants).publish(&event("{}")).await.outcome);
        assert!(reason.starts_with(&format!("the request to {url}/hook failed")) && after.is_none(), "{reason}");
        kind
    };
    let server = Answering::start();
    let (busy, _held) = busy();
    // Nobody listens; no such name; no TLS; no room for another connection, until the guest's own time is over.
    let https = server.url().replace("http:", "https:");
    for url in ["http://127.0.0.1:1", "http://no-such-name.invalid", &https, &busy] {
        assert_eq!(publish(url).await, "unavailable", "{url}");
    }
    server.hang_up();
    assert_eq!(publish(&server.url()).await, "retry");
}

/// A listener that takes no more connections: what asks for one gets no answer.
fn busy() -> (String, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let held: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
    (format!("http://{address}"), (listener, held))
}

/// What concerns nobody is passed over, whatever its data is, and of an order what does not decode is rejected. Neither is
/// posted.
async fn decided_by_name(language: &Language) {
    let (_folder, sink) = sink(&[]);
    let publisher = language.load(&sink);
    let publish = async |name: &str, data: Payload| {
        let mut event = event("");
        event.wrapped_event.name = name.into();
        event.wrapped_event.data = data;
        told(publisher.publish(&event).await.outcome)
    };
    let json = |data: &str| Payload::Json(data.into());
    let binary = || Payload::Binary { content_type: "image/png".into(), bytes: b"{\"order\": 7}".to_vec() };
    for data in [json(r#"{"order": 7}"#), json("null"), binary()] {
        assert_eq!(publish("order.viewed", data).await, ("delivered", String::new(), None));
    }
    let orders = ["null", "true", "-1", "1.5", "9007199254740992", "99999999999999999999", "[7]", r#"{"order": 7}"#];
    let objects = orders.map(|order| format!("{{\"order\": {order}}}"));
    let others =
        ["{}", "[]", "[7]", "7", "null", r#""order""#, r#"["order", 7]"#, r#"{"Order": 7, "a": {"order": 7}}"#];
    for data in objects.iter().map(String::as_str).chain(others) {
        let (kind, reason, _) = publish("order.placed", json(data)).await;
        let said =
            reason.contains("order.placed") && reason.ends_with("no \"order\" that is a whole number or a string");
        assert!(kind == "rejected" && said, "{data}: {kind} {reason}");
    }
    let (kind, reason, _) = publish("order.placed", binary()).await;
    let said = reason.contains("order.placed") && reason.ends_with("its data is image/png, not JSON");
    assert!(kind == "rejected" && said, "{kind} {reason}");
    assert!(sink.deliveries().is_empty(), "{:?}", sink.deliveries());

    assert_eq!(publish("order.placed", json(r#"{"order": 7}"#)).await.0, "delivered");
    assert_eq!(publish("order.paid", json(r#"{"order": 7}"#)).await.0, "delivered");
    let orders: Vec<Value> = sink.deliveries().iter().map(|delivery| delivery.json()["orderid"].clone()).collect();
    assert_eq!(orders, [json!("7"), Value::Null]);
}

/// A context that is no JSON, which an outbox never has, makes those programs throw that parse it.
async fn an_exception(language: &Language) {
    let (_folder, sink) = sink(&[]);
    let mut event = event("{}");
    event.wrapped_event.context = "no JSON".into();
    let publisher = language.load(&sink);
    let (kind, reason, _) = told(publisher.publish(&event).await.outcome);
    match language.exception {
        None => assert_eq!((kind, reason.as_str()), ("delivered", "")),
        Some(message) => assert!(kind == "retry" && reason.contains(message), "{kind} {reason}"),
    }
    // It was no trap: the instance is still there.
    event.wrapped_event.context = "{}".into();
    assert_eq!(publisher.publish(&event).await.outcome, Outcome::Delivered);
    assert_eq!(publisher.instances_started(), 1);
}

async fn what_is_missing(language: &Language) {
    let publish = async |grants: Grants| {
        let outcome = language.load_with(grants).publish(&event("{}")).await.outcome;
        let (kind, reason, _) = told(outcome);
        (kind, reason)
    };
    let (kind, reason) = publish(Grants::default()).await;
    assert!(kind == "unavailable" && reason.contains("WEBHOOK_URL is missing"), "{kind} {reason}");
    for url in ["localhost:8080", "ftp://a.example", "http://:80/", "http://a.example/a b", "https://a:b@a.example"] {
        let (kind, reason) = publish(with_url(url, &[])).await;
        assert!(kind == "unavailable" && reason.contains("the environment variable WEBHOOK_URL "), "{kind} {reason}");
    }
    let (kind, reason) = publish(with_url("http://127.0.0.1:1/hook?token=secret", &[])).await;
    assert_eq!(kind, "unavailable", "{reason}");
    assert!(reason.contains("to allow it: allow_http = [\"http://127.0.0.1:1\"]"), "{reason}");
}

fn with_url(url: &str, allow_http: &[&str]) -> Grants {
    let mut grants =
        Grants { allow_http: allow_http.iter().map(|it| it.parse().unwrap()).collect(), ..Grants::default() };
    grants.env.insert("WEBHOOK_URL".into(), url.into());
    grants
}

// --- a long life ------------------------------------------------------------------------------------------------------

/// An instance serves small and large events in turn, and neither traps nor runs out of anything. `OUTBOX_LIFE_CALLS=100000` makes it as many calls.
async fn lives_long(language: &Language) {
    let (_folder, sink) = sink(&[]);
    let publisher = language.load(&sink);
    let (small, large) = (event("{}"), event(json!("x".repeat(1 << 20)).to_string()));
    let calls: u32 = std::env::var("OUTBOX_LIFE_CALLS").map_or(1_000, |calls| calls.parse().unwrap());
    for call in 1..=calls {
        let event = if call % 50 == 0 { &large } else { &small };
        let outcome = publisher.publish(event).await.outcome;
        assert_eq!(outcome, Outcome::Delivered, "call {call}");
    }
    assert_eq!(publisher.instances_started(), 1);
}

/// The most data that a publisher is given: see docs/table.md.
const DATA_BYTES_MAX: usize = 32 << 20;
/// Too little for it in any language, and in some.
const LITTLE_MIB: [usize; 2] = [40, 100];

/// As much data as there may be is posted with what the project's `outbox.toml` sets; with less memory the reason says what to
/// set.
async fn the_largest_data(language: &Language) {
    let server = Answering::start();
    server.answer(204, &[], "");
    let mut event = event("");
    event.wrapped_event.data = Payload::Json(large_json(DATA_BYTES_MAX));
    let publish = async |memory_mib: usize| {
        // On a machine that does other things as well.
        let limits =
            Limits { memory_bytes: memory_mib << 20, call_time: Duration::from_secs(600), ..language.limits() };
        let publisher = language.load_within(with_url(&format!("{}/hook", server.url()), &[&server.url()]), limits);
        // What the first one left behind is no less of it.
        publisher.publish(&event).await;
        publisher.publish(&event).await.outcome
    };
    assert_eq!(publish(language.memory_mib()).await, Outcome::Delivered);
    for mib in LITTLE_MIB {
        // A language with exceptions may catch its own.
        let failed = publish(mib).await;
        let said = format!("(limit: memory_mib) — to give it more: [publisher.limits] memory_mib = {}", 2 * mib);
        let passes = mib == LITTLE_MIB[1] && failed == Outcome::Delivered;
        assert!(passes || failed.reason().contains(&said), "{failed:?}");
    }
}

// --- a swap between languages -----------------------------------------------------------------------------------------

#[test]
fn a_relay_goes_from_language_to_language_and_loses_nothing() {
    let names = ["rust-webhook", "c-webhook", "go-webhook", "python-webhook", "javascript-quickjs-webhook"];
    let built: Vec<&str> = names.into_iter().filter(|name| Language::like_rust(name).is_built()).collect();
    let place = Workplace::new();
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    let url = sink.url();
    let deploy = |name: &str| place.outbox(&format!("publisher deploy hook guests/{name}.wasm --db app.db")).ok();
    deploy(built[0]);
    let mut relay = place.start_logged(&format!("relay --db app.db --allow-http {url} --env WEBHOOK_URL={url}/hook"));
    let mut appended = 0;
    for name in &built {
        if *name != built[0] {
            // There is something to deliver while the one takes over from the other.
            appended += append_some(&place, appended);
            let said = deploy(name);
            assert!(said.contains("active"), "{said}");
        }
        appended += append_some(&place, appended);
        let delivered = appended;
        until("all is delivered", || sink.deliveries().len() >= delivered && place.status()["pending"] == 0);
    }
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0), "{}", relay.log());

    let numbers: Vec<u64> =
        sink.deliveries().iter().map(|delivery| delivery.json()["data"].as_u64().unwrap()).collect();
    let mut once = numbers.clone();
    once.sort_unstable();
    assert_eq!(once, (0..appended as u64).collect::<Vec<_>>(), "each arrives once");
    for stream in 0..STREAMS {
        let of_stream = numbers.iter().filter(|number| *number % STREAMS == stream);
        assert!(of_stream.is_sorted(), "stream {stream} is out of order");
    }
    let delivered = place.query("SELECT delivered FROM outbox_versions ORDER BY version");
    assert!(delivered.len() == built.len() && !delivered.contains(&"0".into()), "{delivered:?}");
}

const STREAMS: u64 = 10;

fn append_some(place: &Workplace, from: usize) -> usize {
    let lines = (from as u64..).take(200).map(|number| {
        json!({"name": "counted", "stream_id": format!("s{}", number % STREAMS), "data": number}).to_string() + "\n"
    });
    place.append(&lines.collect::<String>());
    200
}
