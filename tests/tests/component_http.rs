//! What a publisher may reach over HTTP, with `examples/rust-webhook` as the guest and a server of the test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, Grants, Isolation, Limits, Settings};
use outbox_host::{Attempt, Outcome, Publisher};
use outbox_tests::guest;
use outbox_tests::outboxes::recorded;
use outbox_tests::skipped;
use outbox_tests::waiting::PATIENCE;

/// An HTTP/1.1 server on a port of its own.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    bodies: Receiver<String>,
}

impl Server {
    /// Gives this answer to each request; a none keeps the client waiting until it hangs up, which is then reported
    /// in place of a body.
    fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, bodies) = channel();
        let accepted = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let sender = sender.clone();
                thread::spawn(move || serve(&stream.unwrap(), answer, &sender));
            }
        });
        Self { port, connections, bodies }
    }

    fn url(&self, scheme_and_host: &str) -> String {
        format!("{scheme_and_host}:{}", self.port)
    }
}

fn serve(stream: &TcpStream, answer: Option<&str>, bodies: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    while let Some(body) = request_body(&mut reader) {
        let Some(answer) = answer else {
            let mut rest = Vec::new();
            let _ = reader.read_to_end(&mut rest);
            let _ = bodies.send("hung up".into());
            return;
        };
        (&mut &*stream).write_all(answer.as_bytes()).unwrap();
        let _ = bodies.send(body);
    }
}

fn request_body(reader: &mut impl BufRead) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

const OK: Option<&str> = Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");

fn settings(url: &str, allow_http: &[&str]) -> Settings {
    let mut grants =
        Grants { allow_http: allow_http.iter().map(|it| it.parse().unwrap()).collect(), ..Grants::default() };
    grants.env.insert("WEBHOOK_URL".into(), url.into());
    Settings { grants, ..Settings::default() }
}

fn webhook(settings: Settings) -> ComponentPublisher {
    ComponentPublisher::load(&guest("rust-webhook"), settings).unwrap()
}

async fn publish(publisher: &ComponentPublisher) -> Attempt {
    let event = recorded(r#"{"order": 42}"#);
    publisher.publish(&event).await
}

#[tokio::test]
async fn a_granted_destination_gets_the_event() {
    let server = Server::start(OK);
    let url = server.url("http://127.0.0.1");
    let attempt = publish(&webhook(settings(&url, &[&url]))).await;
    assert_eq!(attempt.outcome, Outcome::Delivered);
    assert!(server.bodies.recv().unwrap().contains(r#"{"order": 42}"#));
}

#[tokio::test]
async fn connections_are_used_again_across_calls_and_instances() {
    let server = Server::start(OK);
    let url = server.url("http://127.0.0.1");
    let publisher = webhook(Settings { isolation: Isolation::PerEvent, ..settings(&url, &[&url]) });
    for _ in 0..5 {
        assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered);
    }
    assert_eq!(publisher.instances_started(), 5);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

/// Nothing of a request stays behind in its instance.
#[tokio::test]
async fn an_instance_may_make_more_requests_than_it_may_hold_resources() {
    let server = Server::start(OK);
    let url = server.url("http://127.0.0.1");
    let limits = Limits { resources: 40, ..Limits::default() };
    let publisher = webhook(Settings { limits, ..settings(&url, &[&url]) });
    for request in 0..200 {
        assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered, "request {request}");
    }
    assert_eq!(publisher.instances_started(), 1);
}

#[test]
fn connections_outlive_the_runtime_that_asked_for_them() {
    let server = Server::start(OK);
    let url = server.url("http://127.0.0.1");
    let publisher = webhook(settings(&url, &[&url]));
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(publish(&publisher)).outcome, Outcome::Delivered);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = Server::start(Some("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"));
    let url = server.url("http://127.0.0.1");
    let publisher = webhook(settings(&url, &[&url]));
    for _ in 0..3 {
        assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

/// A server that treats each of its connections as configured, and counts them.
fn serve_each(serve: impl Fn(TcpStream, usize) + Clone + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::<AtomicUsize>::default();
    let count = accepted.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, number) = (serve.clone(), count.fetch_add(1, Ordering::SeqCst));
            thread::spawn(move || serve(stream.unwrap(), number));
        }
    });
    (url, accepted)
}

/// The server answers one request, takes the next one, and hangs up: as if it had been idle for too long.
#[tokio::test]
async fn a_kept_connection_that_turns_out_to_be_closed_costs_no_attempt() {
    let (url, accepted) = serve_each(|stream, _| {
        let mut reader = BufReader::new(&stream);
        request_body(&mut reader);
        (&stream).write_all(OK.unwrap().as_bytes()).unwrap();
        request_body(&mut reader);
    });
    let publisher = webhook(settings(&url, &[&url]));
    for _ in 0..4 {
        assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 4);
}

/// If the server began to answer, or had a new connection, it is unknown whether it did something with the request.
#[tokio::test]
async fn a_request_is_tried_on_one_more_connection_and_only_where_nothing_was_answered() {
    let (url, accepted) = serve_each(|stream, number| {
        let mut reader = BufReader::new(&stream);
        if number == 0 {
            request_body(&mut reader);
            (&stream).write_all(OK.unwrap().as_bytes()).unwrap();
        }
        request_body(&mut reader);
    });
    let publisher = webhook(settings(&url, &[&url]));
    assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered);
    let outcome = publish(&publisher).await.outcome;
    assert!(outcome.name() == "retry" && outcome.reason().contains("ConnectionTerminated"), "{outcome:?}");
    assert_eq!(accepted.load(Ordering::SeqCst), 2);

    let (url, accepted) = serve_each(|stream, _| {
        let mut reader = BufReader::new(&stream);
        request_body(&mut reader);
        (&stream).write_all(OK.unwrap().as_bytes()).unwrap();
        request_body(&mut reader);
        (&stream).write_all(b"HTTP/1.1 2").unwrap();
    });
    let publisher = webhook(settings(&url, &[&url]));
    assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered);
    assert_eq!(publish(&publisher).await.outcome.name(), "retry");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

/// A guest with a garbage collector lets a response go when it likes: more of them than there may be connections, and
/// each is still only one request on the same connection. Where the language's toolchain is missing there is none.
#[tokio::test]
async fn a_garbage_collector_holds_no_connections() {
    const ANSWERS: [&[u8]; 2] = [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"];
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests/javascript-starlingmonkey-webhook.wasm");
    if !built.exists() {
        skipped("connections of a guest with a garbage collector", "javascript-starlingmonkey-webhook is not built");
        return;
    }
    let (url, accepted) = serve_each(move |stream, _| {
        let (mut reader, mut answers) = (BufReader::new(&stream), ANSWERS.iter().cycle());
        while request_body(&mut reader).is_some() {
            let _ = (&stream).write_all(answers.next().unwrap());
        }
    });
    // It is large: a busy machine may need minutes to compile it.
    let limits = Limits { resources: 10_000, compile_time: Duration::from_secs(600), ..Limits::default() };
    let cache = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cache/outbox"));
    let publisher = ComponentPublisher::load(&built, Settings { limits, cache, ..settings(&url, &[&url]) }).unwrap();
    for event in 0..300 {
        assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered, "event {event}");
    }
    let accepted = accepted.load(Ordering::SeqCst);
    assert!(accepted <= 10, "{accepted} connections");
}

const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 9\r\n\r\ntoo large";

/// The server answers before it has read everything. Whether it then hangs up or just reads no more, the status counts.
#[tokio::test]
async fn an_early_answer_is_the_answer() {
    let event = recorded(format!(r#"{{"order": "{}"}}"#, "x".repeat(3 << 20)));
    for hangs_up in [true, false] {
        let (url, _) = serve_each(move |stream, _| {
            (&stream).read_exact(&mut [0; 1000]).unwrap();
            (&stream).write_all(TOO_LARGE).unwrap();
            if !hangs_up {
                std::mem::forget(stream);
            }
        });
        let publisher = webhook(settings(&url, &[&url]));
        for _ in 0..20 {
            let outcome = publisher.publish(&event).await.outcome;
            assert!(outcome.name() == "rejected" && outcome.reason().contains("413"), "{hangs_up}: {outcome:?}");
        }
    }
}

/// An answer's status says whether the event was delivered; waiting for the end of its body may take for ever.
#[tokio::test]
async fn a_body_without_an_end_takes_nothing_from_the_status() {
    for (status, expected) in [("200 OK", "delivered"), ("422 No", "rejected")] {
        let (url, _) = serve_each(move |stream, _| {
            request_body(&mut BufReader::new(&stream));
            let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
            (&stream).write_all(head.as_bytes()).unwrap();
            while (&stream).write_all(b"3\r\nwhy\r\n").is_ok() {
                thread::sleep(Duration::from_millis(300));
            }
        });
        let publisher = webhook(settings(&url, &[&url]));
        let outcome = publish(&publisher).await.outcome;
        assert_eq!(outcome.name(), expected, "{outcome:?}");
        assert!(outcome.name() == "delivered" || outcome.reason().contains("422: why"), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_was_not_granted_is_denied_with_the_line_that_allows_it() {
    let server = Server::start(OK);
    let url = server.url("http://127.0.0.1");
    let outcome = publish(&webhook(settings(&url, &["https://example.com"]))).await.outcome;
    assert_eq!(outcome.name(), "unavailable");
    let expected = format!("denied: POST {url} — to allow it: allow_http = [\"{url}\"]");
    assert!(outcome.reason().ends_with(&expected), "{}", outcome.reason());
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn localhost_may_be_granted_by_its_name() {
    let server = Server::start(OK);
    let url = server.url("http://localhost");
    assert_eq!(publish(&webhook(settings(&url, &[&url]))).await.outcome, Outcome::Delivered);
}

/// `127.1` is no address as it is written, and is resolved like a name.
#[tokio::test]
async fn a_name_that_resolves_to_an_inner_address_is_denied_until_that_is_granted() {
    let server = Server::start(OK);
    let url = server.url("http://127.1");
    let outcome = publish(&webhook(settings(&url, &[&url]))).await.outcome;
    let reason = outcome.reason();
    assert!(reason.ends_with("resolves to a loopback address — to allow it: allow_private = true"), "{reason}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);

    let mut settings = settings(&url, &[&url]);
    settings.grants.allow_private = true;
    assert_eq!(publish(&webhook(settings)).await.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn a_server_that_hangs_is_left_when_the_call_is_over() {
    let server = Server::start(None);
    let url = server.url("http://127.0.0.1");
    let limits = Limits { call_time: Duration::from_millis(300), ..Limits::default() };
    let outcome = publish(&webhook(Settings { limits, ..settings(&url, &[&url]) })).await.outcome;
    // The guest's own time limit is clamped to the call's: whichever ends first, the connection goes with it.
    assert!(["timed-out", "retry"].contains(&outcome.name()), "{outcome:?}");
    assert_eq!(server.bodies.recv_timeout(PATIENCE).unwrap(), "hung up");
}

#[tokio::test]
async fn a_refused_connection_and_a_server_without_tls_are_no_events_fault() {
    let free_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{free_port}");
    let outcome = publish(&webhook(settings(&url, &[&url]))).await.outcome;
    assert!(outcome.name() == "unavailable" && outcome.reason().contains("ConnectionRefused"), "{outcome:?}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap());
    let outcome = publish(&webhook(settings(&url, &[&url]))).await.outcome;
    assert!(outcome.name() == "unavailable" && outcome.reason().contains("TlsProtocolError"), "{outcome:?}");
}

#[tokio::test]
async fn the_requests_of_a_call_are_limited() {
    let server = Server::start(OK);
    let url = server.url("http://127.0.0.1");
    let limits = Limits { http_requests: 0, ..Limits::default() };
    let outcome = publish(&webhook(Settings { limits, ..settings(&url, &[&url]) })).await.outcome;
    assert!(outcome.reason().contains("limit: http_requests"), "{outcome:?}");
}
