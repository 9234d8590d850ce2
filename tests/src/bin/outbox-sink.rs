//! A destination for tests: an HTTP/1.1 server in a process of its own, which keeps a ledger of what it got.
//!
//! Each POST becomes one line of the ledger before it is answered, or one for each event of a batch of CloudEvents, so that whatever the client knows to be delivered is
//! in the ledger, however either process ends. A GET is answered with the number of open connections, its own among
//! them. The server ends when its standard input closes: with its test.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use outbox_tests::now_ns;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Parser)]
struct Options {
    /// Where each request is noted, one a line; appended to.
    #[arg(long)]
    ledger: PathBuf,
    /// The answer to each request.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The value of a header `Retry-After` that each answer has.
    #[arg(long)]
    retry_after: Option<String>,
    /// The body that each POST is answered with.
    #[arg(long, default_value = "")]
    body: String,
    /// How long each answer is held back, after the request was noted.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// The longest time by which a request is noted late: one of 32 is. If its client has gone by then, the request
    /// never came.
    #[arg(long, default_value_t = 0)]
    late_ms: u64,
    /// One in so many events of batches is not stored when it comes for the first time, and named in the answer.
    #[arg(long, default_value_t = 0)]
    one_fails_in: u64,
}

struct Server {
    ledger: Mutex<File>,
    status: u16,
    retry_after: Option<String>,
    body: String,
    delay: Duration,
    late_ms: u64,
    open: AtomicUsize,
    one_fails_in: u64,
    /// The events that were not stored.
    failed: Mutex<HashSet<String>>,
    requests: AtomicUsize,
}

fn main() -> Result<()> {
    let Options { ledger, status, retry_after, body, delay_ms, late_ms, one_fails_in } = Options::parse();
    let file = OpenOptions::new().create(true).append(true).open(&ledger);
    let ledger = Mutex::new(file.with_context(|| format!("cannot open {}", ledger.display()))?);
    let delay = Duration::from_millis(delay_ms);
    let (open, failed, requests) = (AtomicUsize::new(0), Mutex::default(), AtomicUsize::new(0));
    let server = Server { ledger, status, retry_after, body, delay, late_ms, open, one_fails_in, failed, requests };
    let server = Arc::new(server);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            // Counted here, so that later connections see it.
            server.open.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                // A client that dies leaves its connection in any state: these tests are about that.
                let _ = server.serve(&stream);
                server.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

impl Server {
    /// Answers the requests of one connection, one after the other, until the client closes it.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            let late = request.method == "POST" && self.late_ms > 0 && fastrand::u8(..32) == 0;
            if late && has_gone(&mut reader, fastrand::u64(1..=self.late_ms))? {
                break;
            }
            let (status, body) = self.answer(&request)?;
            let retry_after =
                self.retry_after.iter().map(|value| format!("retry-after: {value}\r\n")).collect::<String>();
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} Noted\r\ncontent-length: {length}\r\n{retry_after}\r\n{body}");
            (&mut &*stream).write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> io::Result<(u16, String)> {
        match request.method.as_str() {
            "POST" => {
                let body = match request.content_type.as_deref() {
                    Some("application/cloudevents-batch+json") if self.status < 300 => self.note_batch(request)?,
                    _ => self.note(request, None).map(|()| self.body.clone())?,
                };
                thread::sleep(self.delay);
                Ok((self.status, body))
            }
            "GET" => Ok((200, self.open.load(Ordering::SeqCst).to_string())),
            _ => Ok((405, String::new())),
        }
    }

    /// Notes the events of a batch, each as if it had come alone, and returns the answer: which are not stored.
    fn note_batch(&self, request: &Request) -> io::Result<String> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let mut failed = Vec::new();
        for event in serde_json::from_str::<Vec<&RawValue>>(&request.body)? {
            let id = serde_json::from_str::<Value>(event.get())?["id"].as_str().unwrap_or_default().to_owned();
            if self.fails(&id) {
                failed.push(json!({"id": id, "reason": "one in some fails"}));
                continue;
            }
            let event = Request { body: event.get().to_owned(), idempotency_key: Some(id), ..request.clone() };
            self.note(&event, Some(number))?;
        }
        Ok(if failed.is_empty() { String::new() } else { json!({ "failed": failed }).to_string() })
    }

    /// Whether this event is not stored now.
    fn fails(&self, id: &str) -> bool {
        let number = id.bytes().fold(0_u64, |number, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.one_fails_in > 0 && number.is_multiple_of(self.one_fails_in) && self.failed.lock().insert(id.to_owned())
    }

    /// One line in one write, which a reader sees whole or not at all. Lines are in the order of their times. An event of a
    /// batch has the number of its request.
    fn note(&self, request: &Request, batch: Option<usize>) -> io::Result<()> {
        let mut ledger = self.ledger.lock();
        let Request { content_type, idempotency_key, traceparent, tracestate, body, .. } = request;
        let line = json!({
            "at_ns": now_ns(), "content_type": content_type, "idempotency_key": idempotency_key,
            "traceparent": traceparent, "tracestate": tracestate, "body": body, "batch": batch
        });
        let line = format!("{line}\n");
        match ledger.write(line.as_bytes())? {
            written if written == line.len() => Ok(()),
            written => Err(io::Error::other(format!("only {written} bytes of a line were written"))),
        }
    }
}

#[derive(Clone)]
struct Request {
    method: String,
    content_type: Option<String>,
    idempotency_key: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    body: String,
}

impl Request {
    /// None when the client has closed the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first) = line(reader)? else { return Ok(None) };
        let method = first.split(' ').next().unwrap_or_default().to_owned();
        let (mut length, mut content_type, mut idempotency_key) = (0, None, None);
        let (mut traceparent, mut tracestate) = (None, None);
        while let Some(header) = line(reader)?.filter(|line| !line.is_empty()) {
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                "transfer-encoding" => return Err(io::Error::other("only bodies with a content-length are read")),
                "content-type" => content_type = Some(value.trim().to_owned()),
                "idempotency-key" => idempotency_key = Some(value.trim().to_owned()),
                "traceparent" => traceparent = Some(value.trim().to_owned()),
                "tracestate" => tracestate = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Some(Self { method, content_type, idempotency_key, traceparent, tracestate, body }))
    }
}

/// Whether the client hangs up within this time.
fn has_gone(reader: &mut BufReader<&TcpStream>, within_ms: u64) -> io::Result<bool> {
    reader.get_ref().set_read_timeout(Some(Duration::from_millis(within_ms)))?;
    let gone = match reader.fill_buf() {
        Ok(sent) => sent.is_empty(),
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    reader.get_ref().set_read_timeout(None)?;
    Ok(gone)
}

fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = reader.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}
