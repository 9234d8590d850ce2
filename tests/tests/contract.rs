//! A published version of the contract stays as it is, and components that were built against it go on working.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use outbox_host::publisher::component::{ComponentPublisher, Settings};
use outbox_host::{Outcome, Payload, Publisher, Recorded, StreamId, WrappedEvent};
use outbox_tests::workplace::Workplace;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Each version's folder in `wit/`, and the sha256 of its text. A line is added with a version, and none is changed.
const FROZEN: [(&str, &str); 1] = [("0.1", "723a99bdc40fefb03ac29ebf1bc67a9f11a7b149aed3c02f122179e7f604d022")];

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sha256(path: &Path) -> String {
    hex::encode(Sha256::digest(std::fs::read(path).unwrap()))
}

#[test]
fn the_text_of_a_published_version_never_changes() {
    let mut found: Vec<String> = std::fs::read_dir(folder("../wit"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, FROZEN.map(|(version, _)| version));
    for (version, digest) in FROZEN {
        assert_eq!(sha256(&folder("../wit").join(version).join("publisher.wit")), digest, "version {version}");
    }
}

/// The interfaces of wasi that the examples use are vendored, from the crate that `Cargo.lock` pins.
#[test]
fn the_text_of_wasi_is_that_of_the_crate_wasip2() {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--format-version=1"]).current_dir(folder("../examples/rust-webhook"));
    let metadata: serde_json::Value = serde_json::from_slice(&cargo.output().unwrap().stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let wasip2 = packages.iter().find(|package| package["name"] == "wasip2").unwrap();
    let theirs = Path::new(wasip2["manifest_path"].as_str().unwrap()).with_file_name("wit/deps");
    let texts = |folder: &Path| -> BTreeMap<_, _> {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| (path.file_name().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())).collect()
    };
    assert!(texts(&folder("../examples/wit/deps")) == texts(&theirs), "copy it anew from {}", theirs.display());
}

/// The component of [`frozen/README.md`](../frozen/README.md).
fn frozen() -> PathBuf {
    folder("frozen/publisher-0.1.wasm")
}

#[test]
fn the_frozen_component_is_the_one_that_was_built_then() {
    assert_eq!(sha256(&frozen()), "d4e39526962c496e75cfdfba2bba6e0f6cd1d7291cb15051b44e8f3bb2426339");
}

fn example(name: &str) -> Recorded {
    Recorded {
        wrapped_event: WrappedEvent {
            uuid: Uuid::from_u128(0x1234),
            name: name.into(),
            version: Some(1),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: Payload::Json("{}".into()),
            context: "{}".into(),
        },
        stream_id: StreamId::new("order-1"),
        position: 1,
        tenant_id: "default".into(),
        attempt: 1,
    }
}

#[tokio::test]
async fn what_was_built_against_version_0_1_is_configured_and_answers_as_it_did() {
    let publisher = ComponentPublisher::load(&frozen(), Settings::default()).unwrap();
    let reason = |text: &str| text.to_owned();
    let answers = [
        ("order.placed", Outcome::Delivered),
        ("reject", Outcome::Rejected { reason: reason("rejected as asked") }),
        ("retry", Outcome::Retry { reason: reason("failed as asked"), after: None }),
        ("unavailable", Outcome::Unavailable { reason: reason("unavailable as asked"), after: None }),
    ];
    for (name, expected) in &answers {
        assert_eq!(&publisher.publish(&example(name)).await.outcome, expected);
    }
    assert!(publisher.max_batch() > 1);
    let events: Vec<Recorded> = answers.iter().map(|(name, _)| example(name)).collect();
    let outcomes: Vec<Outcome> =
        publisher.publish_batch(&events).await.into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, answers.map(|(_, expected)| expected));
}

#[test]
fn it_is_deployed_and_publishes_through_the_program() {
    let place = Workplace::new();
    place.write("frozen.wasm", std::fs::read(frozen()).unwrap());
    let shown = place.outbox("publisher inspect frozen.wasm --json").json();
    assert_eq!((&shown["contract"], &shown["refusal"]), (&"0.1.0".into(), &serde_json::Value::Null));
    assert_eq!((&shown["batch_publisher"], &shown["lifecycle"]), (&true.into(), &true.into()));
    place.outbox("publisher deploy hook frozen.wasm --db app.db").ok();
    place.append("{\"name\": \"order.placed\", \"stream_id\": \"order-42\", \"data\": {\"order\": 42}}\n");
    place.append("{\"name\": \"order.paid\", \"stream_id\": \"order-42\", \"data\": {\"order\": 42}}\n");
    let ran = place.outbox("run --db app.db");
    for line in ["configured", "order.placed order-42 {\"order\": 42}", "order.paid order-42 {\"order\": 42}"] {
        assert!(ran.stderr.contains(line), "{line}: {}", ran.stderr);
    }
    assert!(ran.ok().contains("published       2\n"));
}
