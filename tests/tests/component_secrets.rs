//! Secrets: the destination gets them, and nobody else sees them. The guest is `examples/rust-webhook`, the server is the
//! test's own: it keeps the heads of all requests, and can send one back as its answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use outbox_host::publisher::component::{ComponentPublisher, Grants, HeaderSecret, OutputSink, Settings};
use outbox_host::{Attempt, Outcome, Publisher};
use outbox_tests::outboxes::recorded;
use outbox_tests::workplace::Workplace;
use outbox_tests::{guest, outbox_program};

const TOKEN: &str = "tok-3fd9c1f0-secret";

struct Server {
    url: String,
    heads: Receiver<String>,
}

impl Server {
    /// Answers with 200, or with 500 and the request's own head.
    fn start(echo: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, heads) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                thread::spawn(move || serve(&stream.unwrap(), echo, &sender));
            }
        });
        Self { url, heads }
    }

    fn head(&self) -> String {
        self.heads.recv().unwrap()
    }
}

fn serve(stream: &TcpStream, echo: bool, heads: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_request(&mut reader) {
        let (status, body) = if echo { ("500 Failed", head.as_str()) } else { ("200 OK", "ok") };
        write!(&mut &*stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let _ = heads.send(head);
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        reader.read_line(&mut head).ok().filter(|bytes| *bytes > 0)?;
        let line = head[start..].trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

fn token(header: &str, to: &str) -> HeaderSecret {
    HeaderSecret::new("api_token", TOKEN, header, "Bearer ", to.parse().unwrap()).unwrap()
}

fn webhook(server: &Server, allow_http: &[&str], secrets: Vec<HeaderSecret>) -> (ComponentPublisher, Lines) {
    let lines = Lines::default();
    let kept = lines.clone();
    let output = OutputSink::new(move |line| kept.lock().unwrap().push(line.line.to_owned()));
    let grants = Grants {
        allow_http: allow_http.iter().map(|it| it.parse().unwrap()).collect(),
        env: [("WEBHOOK_URL".to_owned(), server.url.clone())].into(),
        secrets,
        ..Grants::default()
    };
    let settings = Settings { grants, output, ..Settings::default() };
    (ComponentPublisher::load(&guest("rust-webhook"), settings).unwrap(), lines)
}

type Lines = Arc<Mutex<Vec<String>>>;

async fn publish(publisher: &ComponentPublisher) -> Attempt {
    let event = recorded("{}");
    publisher.publish(&event).await
}

#[tokio::test]
async fn the_destination_gets_the_secret_and_no_other_does() {
    let (server, other) = (Server::start(false), Server::start(false));
    let granted = [server.url.as_str(), other.url.as_str()];
    let secrets = || vec![token("authorization", &server.url)];
    assert_eq!(publish(&webhook(&server, &granted, secrets()).0).await.outcome, Outcome::Delivered);
    assert!(server.head().contains(&format!("\r\nauthorization: Bearer {TOKEN}\r\n")));
    assert_eq!(publish(&webhook(&other, &granted, secrets()).0).await.outcome, Outcome::Delivered);
    assert!(!other.head().contains("authorization"));
}

#[tokio::test]
async fn what_the_guest_sets_in_the_header_is_replaced() {
    let server = Server::start(false);
    let (publisher, _) = webhook(&server, &[&server.url], vec![token("idempotency-key", &server.url)]);
    assert_eq!(publish(&publisher).await.outcome, Outcome::Delivered);
    let head = server.head();
    let keys: Vec<&str> = head.lines().filter(|line| line.starts_with("idempotency-key")).collect();
    assert_eq!(keys, [format!("idempotency-key: Bearer {TOKEN}")]);
}

/// What asks for the request's own head, or for a tunnel, would show the secret or carry it elsewhere.
#[tokio::test]
async fn methods_that_show_the_request_are_denied_where_a_secret_would_be_added() {
    let server = Server::start(false);
    let requests = |secrets| {
        let grants = Grants { allow_http: vec![server.url.parse().unwrap()], secrets, ..Grants::default() };
        ComponentPublisher::load(&guest("requests"), Settings { grants, ..Settings::default() }).unwrap()
    };
    let ask = |method: &str| recorded(format!(r#"{{"do": "ask", "what": "{method}", "url": "{}/"}}"#, server.url));
    let with_secret = requests(vec![token("authorization", &server.url)]);
    for method in ["TRACE", "trace", "CONNECT", "Connect", "TRACK"] {
        let outcome = with_secret.publish(&ask(method)).await.outcome;
        assert!(outcome.reason().contains("HttpRequestDenied"), "{method}: {outcome:?}");
        assert!(outcome.reason().contains("it could show the secret"), "{method}: {outcome:?}");
    }
    assert!(server.heads.try_recv().is_err(), "a request was let out");
    assert_eq!(with_secret.publish(&ask("POST")).await.outcome, Outcome::Delivered);
    assert_eq!(requests(vec![]).publish(&ask("TRACE")).await.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn a_trailer_with_the_secrets_name_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (mut reader, mut request) = (BufReader::new(&stream), String::new());
        while !(request.contains("\r\n0\r\n") && request.ends_with("\r\n\r\n")) {
            reader.read_line(&mut request).unwrap();
        }
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        sender.send(request).unwrap();
    });
    let grants =
        Grants { allow_http: vec![url.parse().unwrap()], secrets: vec![token("x-key", &url)], ..Grants::default() };
    let publisher = ComponentPublisher::load(&guest("requests"), Settings { grants, ..Settings::default() }).unwrap();
    let event = recorded(format!(r#"{{"do": "ask", "what": "POST", "url": "{url}/"}}"#));
    assert_eq!(publisher.publish(&event).await.outcome, Outcome::Delivered);
    let request = received.recv().unwrap();
    let trailers = request.rsplit("\r\n0\r\n").next().unwrap();
    assert!(trailers.contains("x-more: more") && !trailers.contains("x-key"), "{request}");
    assert!(request.contains(&format!("x-key: Bearer {TOKEN}")), "{request}");
}

#[tokio::test]
async fn a_secret_that_comes_back_is_blotted_out_of_the_reason_and_the_output() {
    let server = Server::start(true);
    let (publisher, lines) = webhook(&server, &[&server.url], vec![token("authorization", &server.url)]);
    let attempt = publish(&publisher).await;
    assert!(server.head().contains(TOKEN), "it was sent, and came back");
    let reason = attempt.outcome.reason();
    assert!(attempt.outcome.name() == "retry" && reason.contains("Bearer [secret api_token]"), "{reason}");
    let shown = format!("{attempt:?} {:?} {publisher:?}", lines.lock().unwrap());
    assert!(!shown.contains("3fd9c1f0"), "{shown}");
}

/// `outbox` in a folder with this configuration, with everything logged that can be.
fn outbox(place: &Workplace, arguments: &str, token: Option<&str>) -> Output {
    let mut command = Command::new(outbox_program());
    command.args(arguments.split_whitespace()).current_dir(place.path("")).env("OUTBOX_LOG", "trace");
    command.env("XDG_CACHE_HOME", place.path("cache"));
    command.env_remove("OUTBOX_TEST_TOKEN").envs(token.map(|token| ("OUTBOX_TEST_TOKEN", token)));
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn configured(server: &Server, secret: &str) -> Workplace {
    let place = Workplace::new();
    let url = &server.url;
    place.write(
        "outbox.toml",
        format!(
            "db = \"app.db\"\n[publisher]\nfile = \"guests/rust-webhook.wasm\"\nallow_http = [\"{url}\"]\n\
             env = {{ WEBHOOK_URL = \"{url}\" }}\n[publisher.secrets.api_token]\nheader = \"authorization\"\n\
             prefix = \"Bearer \"\n{secret}\n"
        ),
    );
    place
}

#[test]
fn no_log_no_error_no_status_and_no_record_has_it() {
    let server = Server::start(true);
    for source in ["env = \"OUTBOX_TEST_TOKEN\"", "file = \"token\""] {
        let place = configured(&server, &format!("{source}\nfor = \"{}\"", server.url));
        place.append("{\"stream_id\": \"order-1\", \"name\": \"order.placed\", \"data\": {\"order\": 42}}\n");
        if source.starts_with("file") {
            place.write("token", format!("{TOKEN}\n"));
        }
        let ran = outbox(&place, "run --config outbox.toml --max-attempts 1 --json", Some(TOKEN));
        assert!(ran.status.success(), "{}", said(&ran));
        assert!(server.head().contains(&format!("Bearer {TOKEN}")));
        assert!(said(&ran).contains("Bearer [secret api_token]"), "{}", said(&ran));
        let dead = outbox(&place, "dead list --db app.db --json", None);
        let status = outbox(&place, "status --db app.db --json", None);
        let everything = [said(&ran), said(&dead), said(&status)].concat();
        assert!(!everything.contains("3fd9c1f0"), "{everything}");
        assert_eq!(place.status()["dead_letters"], 1, "{everything}");
        let files = place.files();
        let has_it = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"3fd9c1f0");
        let leaks = files.iter().filter(|(path, bytes)| !path.ends_with("token") && has_it(bytes));
        assert_eq!(leaks.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&std::path::PathBuf>::new());
    }
}

#[test]
fn a_secret_that_is_missing_or_of_no_use_is_refused_before_anything_is_sent() {
    let server = Server::start(false);
    let url = &server.url;
    for (secret, expected) in [
        ("env = \"OUTBOX_TEST_TOKEN\"", "the environment variable OUTBOX_TEST_TOKEN is not set"),
        ("file = \"missing\"", "No such file"),
        ("file = \"outbox.toml\"", "one line of visible ASCII"),
        ("file = \"guests/rust-webhook.wasm\"", "more than 16384 bytes"),
        ("", "either `env` or `file`"),
        ("env = \"HOME\"\nfile = \"token\"", "either `env` or `file`"),
    ] {
        let place = configured(&server, &format!("{secret}\nfor = \"{url}\""));
        let ran = outbox(&place, "run --config outbox.toml", None);
        let said = said(&ran);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains("the secret `api_token`") && said.contains(expected), "{secret}: {said}");
    }
    let place = configured(&server, "env = \"OUTBOX_TEST_TOKEN\"\nfor = \"https://elsewhere.example\"");
    let ran = outbox(&place, "run --config outbox.toml", Some(TOKEN));
    let said = said(&ran);
    assert!(said.contains("to grant it: allow_http = [\"https://elsewhere.example\"]"), "{said}");
    assert!(ran.status.code() == Some(1) && !said.contains(TOKEN), "{said}");
    assert!(server.heads.try_recv().is_err());
}
