//! What a publisher may reach over TCP, with `tests/guests/tcp` as the guest and a server of the test's own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, Grants, Limits, Settings};
use outbox_host::{Outcome, Publisher};
use outbox_tests::guest;
use outbox_tests::outboxes::recorded;
use outbox_tests::waiting::PATIENCE;

/// A server that sends each line back.
struct Echo {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                thread::spawn(move || {
                    for line in BufReader::new(&stream).lines() {
                        let Ok(line) = line else { return };
                        let _ = writeln!(&stream, "{line}");
                    }
                });
            }
        });
        Self { port, connections }
    }

    fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn granted(allow_tcp: &[&str]) -> Grants {
    Grants { allow_tcp: allow_tcp.iter().map(|it| it.parse().unwrap()).collect(), ..Grants::default() }
}

fn tcp(grants: Grants) -> ComponentPublisher {
    ComponentPublisher::load(&guest("tcp"), Settings { grants, ..Settings::default() }).unwrap()
}

async fn publish(publisher: &ComponentPublisher, script: &str) -> Outcome {
    let event = recorded(format!("{script:?}"));
    publisher.publish(&event).await.outcome
}

async fn assert_denied(grants: Grants, script: &str, note: &str) {
    let outcome = publish(&tcp(grants), script).await;
    assert!(outcome.name() == "retry" && outcome.reason().ends_with(note), "{script}: {outcome:?}");
}

#[tokio::test]
async fn a_granted_address_is_connected_to() {
    let server = Echo::start();
    let address = server.at("127.0.0.1");
    assert_eq!(publish(&tcp(granted(&[&address])), &address).await, Outcome::Delivered);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_was_not_granted_is_denied_with_the_line_that_allows_it() {
    let server = Echo::start();
    let address = server.at("127.0.0.1");
    let note = format!("connecting: access-denied · denied: TCP {address} — to allow it: allow_tcp = [\"{address}\"]");
    assert_denied(Grants::default(), &address, &note).await;
    assert_denied(granted(&["127.0.0.1:1", &server.at("127.0.0.2")]), &address, &note).await;
    let open = Grants { allow_private: true, ..Grants::default() };
    assert_denied(open, &address, &note).await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn localhost_may_be_granted_by_its_name_and_then_only_with_its_port() {
    let server = Echo::start();
    let name = server.at("localhost");
    // Which of localhost's addresses come first is the machine's to say, and the server has one of them.
    let outcome = publish(&tcp(granted(&[&name])), &name).await;
    let refused = outcome.reason().contains("connecting: connection-refused");
    assert!(outcome == Outcome::Delivered || refused, "{outcome:?}");
    let note = format!("denied: TCP {name} — to allow it: allow_tcp = [\"{name}\"]");
    assert_denied(granted(&["localhost:1"]), &name, &note).await;
}

/// `127.1` is no address as it is written, and is resolved like a name.
#[tokio::test]
async fn a_name_that_resolves_to_an_inner_address_is_denied_until_that_is_granted() {
    let server = Echo::start();
    let name = server.at("127.1");
    let note = "denied: TCP 127.1, which resolves to a loopback address — to allow it: allow_private = true";
    assert_denied(granted(&[&name]), &name, note).await;
    assert_eq!(server.connections(), 0);
    let open = Grants { allow_private: true, ..granted(&[&name]) };
    assert_eq!(publish(&tcp(open), &name).await, Outcome::Delivered);
}

#[tokio::test]
async fn only_granted_names_are_looked_up() {
    let grants = || granted(&["127.0.0.1:9000", "db.example.com:5432"]);
    let note = "looking up: access-denied · denied: to look up localhost — to allow it: \
                allow_tcp = [\"localhost:PORT\"], with the port to connect to";
    assert_denied(grants(), "look-up localhost", note).await;
    assert_denied(grants(), "look-up exfiltrated.evil.example", "with the port to connect to").await;
    assert_denied(grants(), "look-up 10.0.0.1", "[IpAddress::Ipv4((10, 0, 0, 1))]").await;
}

/// A server of which nothing good comes: it does this to each connection, until the guest hangs up.
fn hostile_server(serve: impl Fn(&TcpStream) -> io::Result<u64> + Copy + Send + 'static) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, hung_up) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            thread::spawn(move || {
                let _ = serve(&stream.unwrap());
                let _ = sender.send(());
            });
        }
    });
    (address, hung_up)
}

#[tokio::test]
async fn a_server_that_is_silent_or_never_ends_is_left_when_the_call_is_over() {
    type Serve = fn(&TcpStream) -> io::Result<u64>;
    let silent: Serve = |mut stream| io::copy(&mut stream, &mut io::sink());
    let endless: Serve = |mut stream| io::copy(&mut io::repeat(b'x'), &mut stream);
    let cases = [(silent, "timed-out", "limit: call_time"), (endless, "limit-exceeded", "limit: memory_mib")];
    for (serve, outcome, says) in cases {
        let (address, hung_up) = hostile_server(serve);
        let call_time = Duration::from_secs(if outcome == "timed-out" { 1 } else { 60 });
        let limits = Limits { call_time, memory_bytes: 16 << 20, ..Limits::default() };
        let settings = Settings { limits, grants: granted(&[&address]), ..Settings::default() };
        let publisher = ComponentPublisher::load(&guest("tcp"), settings).unwrap();
        let ended = publish(&publisher, &address).await;
        assert!(ended.name() == outcome && ended.reason().contains(says), "{ended:?}");
        hung_up.recv_timeout(PATIENCE).unwrap();
    }
}

/// A socket lives on a runtime of the publisher's own: that of the first caller is gone when the second one comes.
#[test]
fn connections_outlive_the_runtime_that_asked_for_them() {
    let server = Echo::start();
    let address = server.at("127.0.0.1");
    let publisher = tcp(granted(&[&address]));
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(publish(&publisher, &format!("keep {address}"))), Outcome::Delivered);
    }
    assert_eq!((server.connections(), publisher.instances_started()), (1, 1));
}

#[tokio::test]
async fn the_sockets_of_an_instance_are_limited() {
    let server = Echo::start();
    let address = server.at("127.0.0.1");
    let publisher = tcp(granted(&[&address]));
    let outcome = publish(&publisher, &format!("hoard {address}")).await;
    assert!(outcome.reason().contains("new-socket-limit"), "{outcome:?}");
    assert!(
        outcome.reason().ends_with("an instance may hold 16 TCP sockets at once (limit: tcp_sockets)"),
        "{outcome:?}"
    );
    // What the hoarder kept is enough for the next event, in the same instance.
    assert_eq!(publish(&publisher, &format!("keep {address}")).await, Outcome::Delivered);
    assert_eq!((server.connections(), publisher.instances_started()), (16, 1));
}

#[tokio::test]
async fn sockets_that_were_dropped_make_room() {
    let server = Echo::start();
    let address = server.at("127.0.0.1");
    let publisher = tcp(granted(&[&address]));
    for _ in 0..40 {
        assert_eq!(publish(&publisher, &address).await, Outcome::Delivered);
    }
    assert_eq!((server.connections(), publisher.instances_started()), (40, 1));
}
