//! Real events on their whole way: the example payloads of GitHub's webhooks through `outbox append`, over HTTP with
//! `examples/rust-webhook`, to a server in another process.
//!
//! They come from npm: MIT, <https://www.npmjs.com/package/@octokit/webhooks-examples>. The package is fetched once, into
//! the target folder.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use outbox_tests::sink::Sink;
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const PACKAGE: &str = "@octokit/webhooks-examples@7.6.1";
const PAYLOADS: usize = 329;

/// The package's description of one kind of webhook.
#[derive(Deserialize)]
struct Webhook {
    name: String,
    examples: Vec<Box<RawValue>>,
}

/// A payload as an application would append it.
struct Event {
    name: String,
    category: String,
    stream: String,
    data: String,
}

impl Event {
    fn new(webhook: &str, payload: &RawValue) -> Self {
        // Strings in JSON have no line breaks, so that this changes nothing but the room between tokens.
        let data: String = payload.get().lines().map(str::trim_start).collect();
        let parsed: Value = serde_json::from_str(&data).unwrap();
        let name = match parsed["action"].as_str() {
            Some(action) => format!("{webhook}.{action}"),
            None => webhook.to_owned(),
        };
        let of = ["repository", "organization", "installation", "sender"].map(|key| &parsed[key]);
        let stream = [&of[0]["full_name"], &of[1]["login"], &of[2]["account"]["login"], &of[3]["login"]];
        let stream = stream.into_iter().find_map(Value::as_str).unwrap_or(webhook);
        Self { name, category: webhook.to_owned(), stream: stream.to_owned(), data }
    }

    fn line(&self, version: usize) -> String {
        let Self { name, category, stream, data } = self;
        let [name, category, stream] = [name, category, stream].map(|text| json!(text));
        format!(
            r#"{{"name":{name},"stream_name":{stream},"category":{category},"version":{version},"tenant_id":"github","data":{data}}}"#
        ) + "\n"
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let ran = Command::new(program).args(arguments).current_dir(folder).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// The folder of the unpacked package. It appears under its name when it is whole.
fn package() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = target.join("octokit-webhooks-examples-7.6.1");
    if !kept.exists() {
        let draft = tempfile::tempdir_in(target).unwrap();
        run("npm", &["pack", PACKAGE, "--silent"], draft.path());
        let packed = fs::read_dir(draft.path()).unwrap().next().unwrap().unwrap().path();
        run("tar", &["-xzf", packed.to_str().unwrap()], draft.path());
        if let Err(error) = fs::rename(draft.path().join("package"), &kept) {
            assert!(kept.exists(), "{}: {error}", kept.display());
        }
    }
    kept
}

fn events() -> Vec<Event> {
    let text = fs::read_to_string(package().join("api.github.com/index.json")).unwrap();
    let webhooks: Vec<Webhook> = serde_json::from_str(&text).unwrap();
    let events: Vec<Event> = webhooks
        .iter()
        .flat_map(|webhook| webhook.examples.iter().map(|payload| Event::new(&webhook.name, payload)))
        .collect();
    assert_eq!(events.len(), PAYLOADS);
    events
}

/// An outbox with all of them, the place in the list as the version.
fn appended(events: &[Event]) -> Workplace {
    let place = Workplace::new();
    let lines: String = events.iter().enumerate().map(|(version, event)| event.line(version)).collect();
    place.write("webhooks.ndjson", lines);
    let said = place.outbox("append --db app.db webhooks.ndjson").ok();
    assert_eq!(said, format!("appended {PAYLOADS} events, positions 1 to {PAYLOADS}\n"));
    place
}

fn sink(place: &Workplace) -> Sink {
    Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"))
}

fn publisher(sink: &Sink) -> String {
    let url = sink.url();
    format!(
        "--db app.db --publisher guests/rust-webhook.wasm --allow-http {url} --env WEBHOOK_URL={url}/hook \
         --env WEBHOOK_SOURCE=https://api.github.com"
    )
}

/// A delivery's body, with its data unchanged.
#[derive(Deserialize)]
struct CloudEvent {
    id: String,
    source: String,
    r#type: String,
    subject: String,
    streamname: String,
    streamcategory: String,
    streamversion: String,
    tenantid: String,
    outboxattempt: u32,
    data: Box<RawValue>,
}

/// Each event arrived once, as it was, and after those that were before it in its stream.
fn check(place: &Workplace, events: &[Event], sink: &Sink, stored: &[String]) {
    let deliveries = sink.deliveries();
    assert_eq!(deliveries.len(), events.len());
    let mut last_of_stream: HashMap<String, usize> = HashMap::new();
    let mut arrived: BTreeMap<usize, String> = BTreeMap::new();
    for delivery in deliveries {
        let got: CloudEvent = serde_json::from_str(&delivery.body).unwrap();
        let version: usize = got.streamversion.parse().unwrap();
        let sent = &events[version];
        assert_eq!((got.r#type.as_str(), got.streamname.as_str()), (sent.name.as_str(), sent.stream.as_str()));
        assert_eq!((got.streamcategory.as_str(), got.tenantid.as_str()), (sent.category.as_str(), "github"));
        assert_eq!((got.source.as_str(), got.outboxattempt), ("https://api.github.com", 1));
        assert!(got.data.get() == sent.data, "the data of {} number {version} is not what it was", sent.name);
        assert_eq!(delivery.idempotency_key.as_deref(), Some(got.id.as_str()));
        assert_eq!(stored[version], format!("{}|{}", got.id, got.subject));
        assert!(arrived.insert(version, got.id).is_none(), "{version} arrived twice");
        let before = last_of_stream.insert(got.subject, version);
        assert!(before.is_none_or(|before| before < version), "{version} came after {before:?}");
    }
    assert_eq!(arrived.len(), events.len());
    let status = place.status();
    assert_eq!([&status["pending"], &status["dead_letters"], &status["last_position"]], [0, 0, PAYLOADS as i64]);
}

fn stored(place: &Workplace) -> Vec<String> {
    place.query("SELECT uuid, stream_id FROM outbox ORDER BY position")
}

#[test]
fn a_pass_delivers_each_of_them_once_and_byte_for_byte() {
    let events = events();
    let place = appended(&events);
    let (sink, stored) = (sink(&place), stored(&place));
    let report = place.outbox(&format!("run {} --limit 1000 --json", publisher(&sink))).json();
    assert_eq!([&report["published"], &report["remaining"]], [PAYLOADS, 0], "{report}");
    check(&place, &events, &sink, &stored);
}

#[test]
fn so_does_a_relay() {
    let events = events();
    let place = appended(&events);
    let (sink, stored) = (sink(&place), stored(&place));
    let mut relay = place.start_logged(&format!("relay {} --concurrency 32", publisher(&sink)));
    until("all are published", || place.status()["pending"] == 0);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0), "{}", relay.log());
    check(&place, &events, &sink, &stored);
}
