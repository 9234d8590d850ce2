//! The tests' own destination: its ledger is right.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use outbox_tests::sink::Sink;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outbox-sink");

/// Posts to the sink over one connection, and returns the statuses.
fn post(sink: &Sink, bodies: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect(sink.url().strip_prefix("http://").unwrap()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut statuses = Vec::new();
    for (key, body) in bodies.iter().enumerate() {
        let length = body.len();
        let request =
            format!("POST /hook HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let lines: Vec<String> = reader.by_ref().lines().map(Result::unwrap).take_while(|it| !it.is_empty()).collect();
        statuses.push(lines[0].clone());
    }
    statuses
}

#[test]
fn each_request_is_in_the_ledger_once_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let sink = Sink::start(&ledger, PROGRAM);
    assert!(sink.deliveries().is_empty());
    assert_eq!(post(&sink, &["{\"a\": 1}", "two\nlines"]), ["HTTP/1.1 200 Noted", "HTTP/1.1 200 Noted"]);
    drop(sink);

    let sink = Sink::start_with(&ledger, PROGRAM, &["--status", "503"]);
    assert_eq!(post(&sink, &["é"]), ["HTTP/1.1 503 Noted"]);
    let deliveries = sink.deliveries();
    let bodies: Vec<&str> = deliveries.iter().map(|delivery| delivery.body.as_str()).collect();
    assert_eq!(bodies, ["{\"a\": 1}", "two\nlines", "é"]);
    assert_eq!(deliveries[0].idempotency_key.as_deref(), Some("0"));
    assert_eq!(deliveries[0].json()["a"], 1);
    assert!(deliveries.is_sorted_by_key(|delivery| delivery.at_ns));
}
