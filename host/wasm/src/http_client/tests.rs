use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;

use super::super::resolver::Resolver;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_guest_may_shorten_its_time_limits_and_not_lengthen_them() {
    let call_time = Duration::from_secs(30);
    let asked = RequestOptions {
        connect_timeout: Some(Duration::from_secs(1)),
        first_byte_timeout: Some(Duration::from_secs(600)),
        between_bytes_timeout: None,
    };
    let timeouts = Timeouts::clamped(asked, call_time);
    assert_eq!(timeouts.connect, Duration::from_secs(1));
    assert_eq!(timeouts.first_byte, call_time);
    assert_eq!(timeouts.between_bytes, call_time);
}

/// Answers each request at this address, until its client hangs up; `closed` is told of that.
fn serve(listener: TcpListener, closed: mpsc::Sender<()>) -> Arc<AtomicUsize> {
    let accepted = Arc::<AtomicUsize>::default();
    let count = accepted.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let closed = closed.clone();
            thread::spawn(move || {
                answer_each(&stream);
                let _ = closed.send(());
            });
        }
    });
    accepted
}

fn answer_each(stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() && (&mut &*stream).write_all(OK).is_err() {
            return;
        }
    }
}

fn client(resolver: Resolver, times: Times) -> HttpClient {
    let process = Arc::new(Descriptors::new(1_000));
    HttpClient::with(&Net { resolver, ..Net::default() }, process, times)
}

fn request(uri: &str, time: Duration) -> Exchange {
    let body = GuestBody::new(Empty::<Bytes>::new().map_err(Error::from).boxed_unsync());
    let uri: Uri = uri.parse().unwrap();
    let destination = Destination::of(&uri).unwrap();
    let timeouts = Timeouts { connect: time, first_byte: time, between_bytes: time };
    Exchange { request: Request::get(uri).body(body).unwrap(), destination, rule: AddressRule::Any, timeouts }
}

/// The answer's body, or what the guest would be told.
async fn get(client: &HttpClient, uri: &str, time: Duration) -> Result<String, String> {
    match client.send(request(uri, time)).await {
        Ok(response) => {
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        }
        Err(SendError::Http(error)) => Err(format!("{error:?}")),
        Err(SendError::Noted(_, why)) => Err(why),
        Err(SendError::Denied(class)) => Err(class.to_string()),
    }
}

/// A resolver that gives each name these addresses.
fn always(addresses: &[&str]) -> Resolver {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Resolver::new(move |_| Ok(addresses.clone()))
}

/// A listener on each of two addresses, with the same port; nobody can wait to be accepted by the first one but one.
fn two_listeners() -> (TcpListener, TcpListener, u16) {
    loop {
        let one = tokio::net::TcpSocket::new_v4().unwrap();
        one.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let one = one.listen(1).unwrap().into_std().unwrap();
        one.set_nonblocking(false).unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(other) = TcpListener::bind(("127.0.0.2", port)) {
            return (one, other, port);
        }
    }
}

/// Fills the queue of those who wait to be accepted: the system then drops what else comes, as a broken network does.
fn swallow(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    std::iter::from_fn(connect).collect()
}

#[tokio::test]
async fn the_second_address_is_tried_while_the_first_one_swallows_what_is_sent() {
    let (swallowing, answering, port) = two_listeners();
    let _queue = swallow(&swallowing);
    serve(answering, mpsc::channel().0);
    let client = client(always(&["127.0.0.1", "127.0.0.2"]), Times::default());
    let uri = format!("http://two.example:{port}/");
    assert_eq!(get(&client, &uri, PATIENCE).await.unwrap(), "ok");
    // Even where the guest has little time, of which each address gets its part.
    let hasty = self::client(always(&["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"]), Times::default());
    let started = std::time::Instant::now();
    assert!(get(&hasty, &uri, Duration::from_secs(2)).await.is_ok(), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_no_address_answers_is_told_apart_from_what_is_refused_and_from_what_has_no_address() {
    let (swallowing, refusing, port) = two_listeners();
    let _queue = swallow(&swallowing);
    drop(refusing);
    let uri = format!("http://two.example:{port}/");
    let time = Duration::from_millis(500);
    let ask = async |resolver| get(&client(resolver, Times::default()), &uri, time).await.unwrap_err();
    assert_eq!(ask(always(&["127.0.0.1"])).await, "ConnectionTimeout");
    assert!(ask(always(&["127.0.0.2"])).await.contains("ConnectionRefused"));
    assert_eq!(ask(always(&[])).await, "DestinationNotFound");
    assert!(ask(Resolver::new(|_| Err(io::Error::other("no such name")))).await.contains("DnsError"));
    let slow = Resolver::new(|_| {
        thread::sleep(Duration::from_secs(2));
        Ok(vec![])
    });
    assert_eq!(ask(slow).await, "DnsTimeout");
}

#[tokio::test]
async fn a_connection_that_is_always_busy_is_given_up_with_age_and_the_name_looked_up_again() {
    let (one, other, port) = two_listeners();
    let (one, other) = (serve(one, mpsc::channel().0), serve(other, mpsc::channel().0));
    let moved = Arc::<AtomicUsize>::default();
    let address = moved.clone();
    let resolver =
        Resolver::new(move |_| Ok(vec![IpAddr::from([127, 0, 0, 1 + u8::from(address.load(Ordering::SeqCst) > 0)])]));
    let client = client(resolver, Times { age: Duration::from_millis(300), ..Times::default() });
    let uri = format!("http://moves.example:{port}/");
    get(&client, &uri, PATIENCE).await.unwrap();
    moved.store(1, Ordering::SeqCst);
    while other.load(Ordering::SeqCst) == 0 {
        assert_eq!(get(&client, &uri, PATIENCE).await.unwrap(), "ok");
    }
    assert_eq!(one.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_by_a_timer() {
    let (closed, closings) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = serve(listener, closed);
    let client = client(always(&[]), Times { idle: Duration::from_millis(200), ..Times::default() });
    for round in 1..3 {
        let requests = (0..20).map(|_| get(&client, &uri, PATIENCE));
        assert!(futures_util::future::join_all(requests).await.iter().all(Result::is_ok));
        for _ in 0..accepted.swap(0, Ordering::SeqCst) {
            closings.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("round {round}: a connection stays open"));
        }
    }
}

/// It answers, and takes nothing more.
#[tokio::test]
async fn a_connection_whose_exchange_is_given_up_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let client = client(always(&[]), Times::default());
    let request = client.send(request(&uri, PATIENCE));
    assert!(tokio::time::timeout(Duration::from_millis(500), request).await.is_err());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn one_publisher_leaves_descriptors_for_another() {
    let (hanging, answering) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let at = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
    let (hanging_uri, answering_uri) = (at(&hanging), at(&answering));
    serve(answering, mpsc::channel().0);
    let process = Arc::new(Descriptors::new(20));
    let client = || HttpClient::with(&Net::default(), process.clone(), Times::default());
    let greedy: Vec<HttpClient> = (0..3).map(|_| client()).collect();
    let short = Duration::from_millis(700);
    let asked = greedy.iter().flat_map(|client| (0..30).map(|_| get(client, &hanging_uri, short)));
    let all = futures_util::future::join_all(asked);
    let other = client();
    let (_, answer) = tokio::join!(all, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        get(&other, &answering_uri, PATIENCE).await
    });
    assert_eq!(answer.unwrap(), "ok");
}
