//! File descriptors: a relay asks for as many as it may have, and greedy publishers leave enough for one another and
//! for the database.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};

const GREEDY: [&str; 4] = ["a", "b", "c", "d"];

/// A server that answers `/ok`, and leaves everything else waiting; how many connections it got.
fn server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::<AtomicUsize>::default();
    let count = accepted.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || serve(&stream));
        }
    });
    (url, accepted)
}

fn serve(stream: &TcpStream) {
    let (mut reader, mut line) = (BufReader::new(stream), String::new());
    while matches!(reader.read_line(&mut line), Ok(1..)) {
        if line.starts_with("GET /ok") {
            let _ = (&mut &*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        line.clear();
    }
}

/// A workplace with four greedy publishers and a good one.
fn place(url: &str) -> Workplace {
    let place = Workplace::new();
    let mut config = String::new();
    for name in GREEDY.iter().chain(&["good"]) {
        config += &format!("[publishers.{name}]\nfile = \"guests/requests.wasm\"\nallow_http = [\"{url}\"]\n");
        config += &format!("[[route]]\nmatch = {{ name = \"{name}\" }}\npublisher = \"{name}\"\n");
    }
    place.write("outbox.toml", config);
    for name in GREEDY {
        let data = format!(r#"{{"do": "hoard", "what": "connections", "count": 900, "url": "{url}/hang"}}"#);
        place.append(&format!(r#"{{"stream_id": "{name}", "name": "{name}", "data": {data}}}"#));
    }
    place
}

fn relay(place: &Workplace, limit: &str) -> std::process::Command {
    let relay = place.command("relay --db app.db --config outbox.toml");
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(format!("ulimit {limit}; exec \"$@\"")).arg("sh").arg(relay.get_program());
    command.args(relay.get_args()).current_dir(place.path(""));
    command
}

#[test]
fn greedy_publishers_leave_descriptors_for_a_good_one_and_the_database() {
    let (url, accepted) = server();
    let place = place(&url);
    let mut relay = place.log(relay(&place, "-n 200"));
    until("the greedy ones have what they can get", || accepted.load(Ordering::SeqCst) >= 80);
    for number in 0..20 {
        let data = format!(r#"{{"do": "get", "url": "{url}/ok"}}"#);
        place.append(&format!(r#"{{"stream_id": "good{number}", "name": "good", "data": {data}}}"#));
    }
    until("the good one's events are delivered", || {
        place.query("SELECT count(*) FROM outbox WHERE name = 'good'") == ["0"]
    });
    let log = relay.log();
    assert!(!log.contains("Too many open files") && !log.contains("cannot open"), "{log}");
    relay.signal(Signal::KILL);
    relay.wait();
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let (url, _) = server();
    let place = place(&url);
    let mut relay = place.log(relay(&place, "-Sn 100"));
    relay.wait_for_log("publishing");
    let limits = format!("/proc/{}/limits", relay.pid());
    let limits = std::fs::read_to_string(&limits).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(numbers[..], [soft, hard] if soft == hard.min(65_536)), "{line}");
    relay.signal(Signal::KILL);
    relay.wait();
}
