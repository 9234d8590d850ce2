//! Hostile publishers and hostile servers over HTTP: each call ends as its own outcome, takes up no more of the host than
//! it may, and holds up nobody. The guest is `tests/guests/requests`; what it may not even ask for is in
//! `component_http.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, Grants, Limits, OutputSink, Settings};
use outbox_host::{Attempt, Outcome, Publisher};
use outbox_tests::bad_server::Server;
use outbox_tests::guest;
use outbox_tests::memory::{self, MIB};
use outbox_tests::outboxes::recorded;
use outbox_tests::waiting::{PATIENCE, until};

const CALL_TIME: Duration = Duration::from_secs(2);
const MEMORY_BYTES: usize = 80 * MIB;
/// What a call may add to this process's memory: the guest's own, as much again for everything else. The server is in the
/// same process, and counts in.
const GROWTH_BYTES_MAX: usize = 2 * MEMORY_BYTES;

fn settings(server: &Server, limits: Limits) -> Settings {
    let grants = Grants { allow_http: vec![server.url.parse().unwrap()], ..Grants::default() };
    Settings { limits, grants, output: OutputSink::new(|_| {}), ..Settings::default() }
}

fn limits() -> Limits {
    Limits { call_time: CALL_TIME, memory_bytes: MEMORY_BYTES, http_response_bytes: MIB as u64, ..Limits::default() }
}

fn requests(server: &Server, limits: Limits) -> ComponentPublisher {
    ComponentPublisher::load(&guest("requests"), settings(server, limits)).unwrap()
}

async fn publish(publisher: &ComponentPublisher, script: &str) -> Attempt {
    let event = recorded(script);
    publisher.publish(&event).await
}

fn script(server: &Server, what: &str) -> String {
    format!("{{{}}}", what.replace('~', &format!("\"url\": \"{}", server.url)))
}

/// Within the time of a call.
async fn assert_delivers(publisher: &ComponentPublisher, script: &str) {
    assert_eq!(publish(publisher, script).await.outcome, Outcome::Delivered);
}

fn assert_ended(what: &str, attempt: &Attempt, ends: &[End]) {
    let (outcome, reason) = (attempt.outcome.name(), attempt.outcome.reason());
    let is_one = ends.iter().any(|(name, says)| *name == outcome && reason.contains(says));
    assert!(is_one, "{what}: {:?}", attempt.outcome);
    assert!(reason.len() < 20_000, "{what}: a reason of {} bytes", reason.len());
}

/// How a call ends, and what the reason says.
type End = (&'static str, &'static str);

const DELIVERED: &[End] = &[("delivered", "")];
const OUT_OF_TIME: End = ("timed-out", "limit: call_time");
/// The time that a request may take is the call's, from its start on: whichever is noticed first.
const NO_ANSWER: &[End] = &[OUT_OF_TIME, ("retry", "ConnectionReadTimeout")];
const NOT_READ: &[End] = &[OUT_OF_TIME, ("retry", "StreamError::Closed")];
const NO_TURN: &[End] = &[OUT_OF_TIME, ("retry", "ConnectionReadTimeout"), ("retry", "ConnectionLimitReached")];
const HELD: &[End] =
    &[("limit-exceeded", "hold more than 16777216 bytes of HTTP requests and responses (limit: HTTP messages held)")];

/// What it is told to do, with `~` for the server's address, and the ends that the call may have.
const SCRIPTS: &[(&str, &[End])] = &[
    (r#""do": "get", ~/ok""#, DELIVERED),
    (r#""do": "get", ~/hang""#, NO_ANSWER),
    (r#""do": "get", ~/drip-head""#, NO_ANSWER),
    (r#""do": "get", ~/hints""#, NO_ANSWER),
    (r#""do": "get", ~/drip""#, &[OUT_OF_TIME]),
    (
        r#""do": "get", ~/flood""#,
        &[("retry", "a call may read 1048576 bytes of HTTP responses (limit: http_response_bytes)")],
    ),
    (r#""do": "get", ~/long""#, &[("retry", "limit: http_response_bytes")]),
    (r#""do": "get", ~/huge-chunk""#, &[("retry", "after 0 bytes")]),
    (r#""do": "get", ~/upgrade""#, &[("retry", "answered 101")]),
    (r#""do": "get", ~/long-line""#, &[("retry", "a response may have 100 headers, and 131072 bytes of them")]),
    (r#""do": "get", ~/many-headers""#, &[("retry", "a response may have 100 headers, and 131072 bytes of them")]),
    (r#""do": "get", ~/huge-headers""#, &[("retry", "a response may have 100 headers, and 131072 bytes of them")]),
    (r#""do": "get", ~/large-headers""#, DELIVERED),
    (r#""do": "head", "count": 1000, "bytes": 5, ~/ok""#, DELIVERED),
    (
        r#""do": "head", "count": 5000, "bytes": 5, ~/ok""#,
        &[("limit-exceeded", "128 KiB (limit: headers of an HTTP request)")],
    ),
    (
        r#""do": "head", "count": 1, "bytes": 1000000, ~/ok""#,
        &[("limit-exceeded", "128 KiB (limit: headers of an HTTP request)")],
    ),
    (r#""do": "send", ~/hang""#, NOT_READ),
    (r#""do": "send", ~/deaf""#, NOT_READ),
    (r#""do": "hoard", "what": "methods", "count": 900, "bytes": 3000000"#, HELD),
    (r#""do": "hoard", "what": "authorities", "count": 900, "bytes": 3000000"#, HELD),
    (r#""do": "hoard", "what": "paths", "count": 900, "bytes": 60000"#, HELD),
    (r#""do": "hoard", "what": "headers", "count": 900, "bytes": 100000"#, HELD),
    (r#""do": "hoard", "what": "small headers", "count": 900, "bytes": 3000"#, HELD),
    (r#""do": "hoard", "what": "copies", "count": 400, "bytes": 100000"#, HELD),
    (
        r#""do": "hoard", "what": "trailers", "count": 400, "bytes": 100000"#,
        &[("retry", "HttpRequestTrailerSectionSize")],
    ),
    (r#""do": "hoard", "what": "trailers", "count": 400, "bytes": 3000"#, DELIVERED),
    (r#""do": "hoard", "what": "bodies", "count": 900"#, &[("limit-exceeded", "(limit: resources)")]),
    (r#""do": "hoard", "what": "requests", "count": 900, "bytes": 100000, ~/hang""#, HELD),
    (r#""do": "hoard", "what": "answers", "count": 900, ~/large-headers""#, HELD),
    (r#""do": "hoard", "what": "connections", "count": 900, ~/hang""#, NO_TURN),
];

/// One test, since the memory is the whole process's; what the others of this file take up meanwhile is counted too.
#[tokio::test]
async fn each_ends_as_its_own_outcome_within_its_memory_and_the_next_event_is_delivered() {
    let server = Server::start();
    let well_behaved = requests(&server, Limits::default());
    let ok = script(&server, r#""do": "get", ~/ok""#);
    assert_delivers(&well_behaved, &ok).await;
    let before = memory::resident();
    for (what, ends) in SCRIPTS {
        // Calls that should not time out have all the time that a slow machine may need.
        let call_time = if ends.contains(&OUT_OF_TIME) { CALL_TIME } else { PATIENCE };
        let hostile = requests(&server, Limits { call_time, ..limits() });
        let attempt = publish(&hostile, &script(&server, what)).await;
        println!(
            "{what}: {} {}, {} MiB at the highest",
            attempt.outcome.name(),
            attempt.outcome.reason(),
            memory::highest() / MIB
        );
        assert_ended(what, &attempt, ends);
        assert_delivers(&well_behaved, &ok).await;
        assert_delivers(&hostile, &ok).await;
    }
    let growth = memory::highest().saturating_sub(before);
    println!("the host's memory grew by {} MiB at its highest", growth / MIB);
    assert!(growth <= GROWTH_BYTES_MAX, "the host's memory grew by {growth} bytes");
    drop(well_behaved);
    server.assert_all_hung_up();
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_where_it_leads_to_is_denied() {
    let server = Server::start();
    let publisher = requests(&server, Limits::default());
    let attempt = publish(&publisher, &script(&server, r#""do": "get", ~/redirect""#)).await;
    assert_ended("redirect", &attempt, &[("retry", "/redirect answered 302")]);

    let attempt = publish(&publisher, &script(&server, r#""do": "follow", ~/redirect""#)).await;
    let remedy = "denied: GET http://127.0.0.1:1 — to allow it: allow_http = [\"http://127.0.0.1:1\"]";
    assert_ended("followed", &attempt, &[("retry", remedy)]);
    assert_eq!(attempt.stderr, "answered 302");
}

#[tokio::test]
async fn each_request_of_a_port_scan_is_denied_and_counted() {
    let server = Server::start();
    let scan = |limits| {
        let publisher = requests(&server, limits);
        async move { publish(&publisher, r#"{"do": "scan", "count": 1000}"#).await }
    };
    let attempt = scan(Limits { http_requests: 100_000, ..Limits::default() }).await;
    assert_ended("scan", &attempt, &[("retry", "6000 denied, 0 let out")]);
    assert_ended("scan", &attempt, &[("retry", "allow_http = [\"http://127.0.0.1:3\"]")]);
    let attempt = scan(Limits { http_requests: 2, ..Limits::default() }).await;
    assert_ended("scan", &attempt, &[("retry", "6000 denied, 0 let out")]);
    assert_ended("scan", &attempt, &[("retry", "a call may make 2 HTTP requests (limit: http_requests)")]);
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0);
}

/// Idle ones are closed for the sake of another destination's, and those that wait get theirs in turn.
#[tokio::test]
async fn more_requests_than_connections_are_answered_in_turn() {
    let (server, other) = (Server::start(), Server::start());
    let mut settings = settings(&server, Limits { call_time: PATIENCE, ..Limits::default() });
    settings.grants.allow_http.push(other.url.parse().unwrap());
    let publisher = ComponentPublisher::load(&guest("requests"), settings).unwrap();
    let many = |server, count| script(server, &format!(r#""do": "many", "count": {count}, ~/ok""#));
    assert_delivers(&publisher, &many(&server, 300)).await;
    assert_delivers(&publisher, &many(&server, 256)).await;
    assert_delivers(&publisher, &many(&other, 20)).await;
    assert!((1..=20).contains(&other.accepted.load(Ordering::SeqCst)));
}

/// A response that the guest keeps, and does not read, keeps no connection where there is little in it.
#[tokio::test]
async fn answers_that_the_guest_holds_on_to_hold_no_connection() {
    let server = Server::start();
    for path in ["/no-content", "/ok", "/ok-in-chunks"] {
        let publisher = requests(&server, Limits { call_time: PATIENCE, ..Limits::default() });
        let hoard = script(&server, &format!(r#""do": "hoard", "what": "answers", "count": 300, ~{path}""#));
        assert_delivers(&publisher, &hoard).await;
    }
    let accepted = server.accepted.load(Ordering::SeqCst);
    assert!(accepted <= 30, "{accepted} connections for three times 300 requests, one after the other");
}

/// How many connections to this server this process has open: those that it has closed have no inode any more, even
/// where the other side does not know it yet.
fn open_connections(server: &Server) -> usize {
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let (remote, table) = (format!(":{port:04X}"), std::fs::read_to_string("/proc/self/net/tcp").unwrap());
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[2].ends_with(&remote) && fields[9] != "0").count()
}

#[tokio::test]
async fn a_destination_that_stops_reading_keeps_no_connection() {
    let server = Server::start();
    let publisher = requests(&server, limits());
    // An answer that comes before all is sent may be taken, or the rest be waited for.
    let or_delivered = [NO_ANSWER, DELIVERED].concat();
    for (path, ends) in [("/deaf", NO_ANSWER), ("/ok-and-deaf", or_delivered.as_slice())] {
        let post = script(&server, &format!(r#""do": "post", "bytes": 12000000, ~{path}""#));
        let calls = (0..4).map(|_| publish(&publisher, &post));
        for attempt in futures_util::future::join_all(calls).await {
            assert_ended(path, &attempt, ends);
        }
        until("each connection is closed", || open_connections(&server) == 0);
    }
    assert_delivers(&publisher, &script(&server, r#""do": "get", ~/ok""#)).await;
}

#[tokio::test]
async fn a_destination_that_never_answers_leaves_connections_for_another() {
    let (server, other) = (Server::start(), Server::start());
    let mut settings = settings(&server, Limits { call_time: PATIENCE, ..Limits::default() });
    settings.grants.allow_http.push(other.url.parse().unwrap());
    let publisher = Arc::new(ComponentPublisher::load(&guest("requests"), settings).unwrap());
    let hoard = script(&server, r#""do": "hoard", "what": "connections", "count": 900, ~/hang""#);
    let hostile = tokio::spawn({
        let publisher = publisher.clone();
        async move { publish(&publisher, &hoard).await }
    });
    let all_that_may_be = async {
        while server.accepted.load(Ordering::SeqCst) < 128 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_that_may_be).await.expect("the hostile call has as many as it may have");
    assert_delivers(&publisher, &script(&other, r#""do": "get", ~/ok""#)).await;
    assert!(!hostile.is_finished(), "the other one waited for the hostile call's end");
    hostile.abort();
}

/// Each takes a file descriptor, of which a process has often no more than 1,024.
#[tokio::test]
async fn the_connections_of_a_publisher_are_limited() {
    let server = Server::start();
    let publisher = requests(&server, limits());
    let hoard = script(&server, r#""do": "hoard", "what": "connections", "count": 900, ~/hang""#);
    assert_ended("connections", &publish(&publisher, &hoard).await, NO_TURN);
    let accepted = server.accepted.load(Ordering::SeqCst);
    assert!((1..=128).contains(&accepted), "{accepted}");
    // They go with the call that made them, and make room.
    server.assert_all_hung_up();
    assert_delivers(&publisher, &script(&server, r#""do": "get", ~/ok""#)).await;
}
