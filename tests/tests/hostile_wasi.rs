//! Hostile publishers and the interfaces of WASI: what is not granted is not there, and no call asks the host for more than
//! it may. The guest is `tests/guests/nosy`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, Grants, HeaderSecret, Limits, OutputSink, Settings};
use outbox_host::{Attempt, Outcome, Publisher};
use outbox_tests::guest;
use outbox_tests::memory::{self, MIB};
use outbox_tests::outboxes::recorded;
use outbox_tests::waiting::PATIENCE;

const CALL_TIME: Duration = Duration::from_secs(1);
const MEMORY_BYTES: usize = 80 * MIB;
/// What a call may add to this process's memory: the guest's own, and as much again for everything else.
const GROWTH_BYTES_MAX: usize = 2 * MEMORY_BYTES;
const SECRET: &str = "tok-3fd9c1f0-secret";

type Lines = Arc<Mutex<Vec<String>>>;

fn load(name: &str, grants: Grants, call_time: Duration) -> (ComponentPublisher, Lines) {
    let lines = Lines::default();
    let kept = lines.clone();
    let output = OutputSink::new(move |line| kept.lock().unwrap().push(line.line.to_owned()));
    let limits = Limits { call_time, memory_bytes: MEMORY_BYTES, ..Limits::default() };
    let settings = Settings { limits, grants, output, ..Settings::default() };
    (ComponentPublisher::load(&guest(name), settings).unwrap(), lines)
}

fn nosy(grants: Grants) -> ComponentPublisher {
    load("nosy", grants, PATIENCE).0
}

async fn publish_data(publisher: &ComponentPublisher, data: String) -> Attempt {
    let event = recorded(data);
    publisher.publish(&event).await
}

/// Has it look for something.
async fn publish(publisher: &ComponentPublisher, what: &str) -> Attempt {
    publish_data(publisher, format!("{what:?}")).await
}

async fn assert_found(grants: Grants, what: &str, found: &str) {
    let outcome = publish(&nosy(grants), what).await.outcome;
    assert_eq!((outcome.name(), outcome.reason()), ("rejected", format!("found {found}").as_str()), "{what}");
}

/// Within the time of a call.
async fn assert_delivers(publisher: &ComponentPublisher) {
    assert_eq!(publish(publisher, "").await.outcome, Outcome::Delivered);
}

/// The test's own environment is not empty, and neither is its standard input.
#[tokio::test]
async fn its_surroundings_are_empty_but_for_what_was_granted() {
    assert!(std::env::vars_os().count() > 0);
    let nothing = r#"([], [], "", ([], [None, None, None, None, None, None, None]))"#;
    assert_found(Grants::default(), "surroundings", nothing).await;
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let to = "https://api.example.com";
    let grants = Grants {
        env: pair("GREETING", "hello"),
        config: pair("region", "eu"),
        allow_http: vec![to.parse().unwrap()],
        secrets: vec![HeaderSecret::new("api_token", SECRET, "authorization", "Bearer ", to.parse().unwrap()).unwrap()],
        ..Grants::default()
    };
    let granted =
        r#"([("GREETING", "hello")], [], "", ([("region", "eu")], [None, None, None, None, None, None, None]))"#;
    let attempt = publish(&nosy(grants.clone()), "surroundings").await;
    let shown = format!("{attempt:?}");
    // A secret would be blotted out, and its mark be there.
    assert!(!shown.contains(SECRET) && !shown.contains("[secret"), "{shown}");
    assert_found(grants, "surroundings", granted).await;
}

#[tokio::test]
async fn there_are_no_files() {
    assert_found(Grants::default(), "files", "(0, [], [], 0)").await;
}

#[tokio::test]
async fn sockets_are_denied_with_the_line_that_allows_them() {
    let granted = Grants { allow_tcp: vec!["db.example.com:5432".parse().unwrap()], ..Grants::default() };
    for grants in [Grants::default(), granted] {
        for (what, note) in [
            ("tcp-connect", "TCP 127.0.0.1:22 — to allow it: allow_tcp = [\"127.0.0.1:22\"]"),
            ("tcp-bind", "to listen at TCP 127.0.0.1:0, which cannot be granted"),
            ("tcp-bind-all", "to listen at TCP 0.0.0.0:8080, which cannot be granted"),
            // At a port of the host's choice, which is no harm by itself.
            ("tcp-listen", "which cannot be granted"),
            ("udp", "UDP, which cannot be granted"),
            (
                "look-up",
                "to look up secret.evil.example — to allow it: allow_tcp = [\"secret.evil.example:PORT\"], with the port \
                 to connect to",
            ),
        ] {
            let outcome = publish(&nosy(grants.clone()), &format!("sockets {what}")).await.outcome;
            let reason = outcome.reason();
            let denied = reason.starts_with("found Err(\"access-denied\") · denied: ") && reason.ends_with(note);
            assert!(denied, "{what}: {outcome:?}");
        }
    }
}

/// The script, the outcome of the call, and the reason.
const DEMANDS: &[(&str, &str, &str)] = &[
    ("random", "limit-exceeded", "64 KiB of random bytes at once (limit: random bytes)"),
    ("insecure-random", "limit-exceeded", "64 KiB of random bytes at once (limit: random bytes)"),
    ("clocks end-of-time", "timed-out", "limit: call_time"),
    ("clocks forever", "timed-out", "limit: call_time"),
    ("clocks million-timers", "limit-exceeded", "limit: resources"),
    ("clocks past", "timed-out", "limit: call_time"),
    ("clocks ready", "timed-out", "limit: call_time"),
    ("clocks huge-list", "limit-exceeded", "limit: hostcall_bytes"),
    ("clocks long-list", "timed-out", "limit: call_time"),
    ("clocks empty-list", "trapped", "empty poll list"),
    ("long-write", "limit-exceeded", "65536 bytes at once (limit: one write)"),
    ("long-line", "delivered", ""),
];

/// One test, since the memory is the whole process's; what the others of this file take up meanwhile is counted too.
#[tokio::test]
async fn a_demand_that_is_too_much_ends_as_its_own_outcome_within_its_memory() {
    let (well_behaved, _) = load("noop", Grants::default(), PATIENCE);
    assert_delivers(&well_behaved).await;
    let before = memory::resident();
    for (what, outcome, says) in DEMANDS {
        // Calls that should not time out have all the time that a slow machine may need.
        let call_time = if *outcome == "timed-out" { CALL_TIME } else { PATIENCE };
        let (hostile, _) = load("nosy", Grants::default(), call_time);
        let attempt = publish(&hostile, what).await;
        let reason = attempt.outcome.reason();
        println!("{what}: {} {reason}", attempt.outcome.name());
        assert!(attempt.outcome.name() == *outcome && reason.contains(says), "{what}: {:?}", attempt.outcome);
        assert_delivers(&well_behaved).await;
        assert_delivers(&hostile).await;
    }
    let growth = memory::highest().saturating_sub(before);
    println!("the host's memory grew by {} MiB at its highest", growth / MIB);
    assert!(growth <= GROWTH_BYTES_MAX, "the host's memory grew by {growth} bytes");
}

#[tokio::test]
async fn a_line_of_64_mib_is_cut_and_what_is_left_out_is_counted() {
    let (publisher, lines) = load("nosy", Grants::default(), PATIENCE);
    assert_eq!(publish(&publisher, "long-line").await.outcome, Outcome::Delivered);
    let kept = Limits::default().line_bytes;
    let expected = format!("{} [{} more bytes are left out]", "x".repeat(kept), 64 * MIB - kept);
    let lines = lines.lock().unwrap();
    assert!(*lines == [expected], "{:?}", lines.iter().map(String::len).collect::<Vec<_>>());
}

/// However long the call goes on printing: what is logged is the lines that may be, and one that counts the others.
#[tokio::test]
async fn a_flood_of_1_gb_is_cut_and_what_is_left_out_is_counted() {
    let (publisher, lines) = load("scripted", Grants::default(), CALL_TIME);
    let flood = publish_data(&publisher, r#"{"do": "print", "bytes": 1000000000}"#.to_owned()).await;
    assert_eq!(flood.outcome.name(), "timed-out");
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), Limits::default().lines + 1);
    let count = lines.last().unwrap().strip_prefix('[').unwrap().strip_suffix(" more lines of this call are left out]");
    let count: usize = count.unwrap().parse().unwrap();
    assert!((1..10_000_000).contains(&count), "{count}");
}
