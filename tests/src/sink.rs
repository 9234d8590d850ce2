//! Starts the server `outbox-sink` and reads its ledger.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

/// A running `outbox-sink`; killed when it is dropped.
pub struct Sink {
    process: Child,
    address: String,
    ledger: PathBuf,
}

/// A request that the sink got.
#[derive(Debug, Clone, Deserialize)]
pub struct Delivery {
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    #[serde(default)]
    pub content_type: Option<String>,
    pub idempotency_key: Option<String>,
    #[serde(default)]
    pub traceparent: Option<String>,
    #[serde(default)]
    pub tracestate: Option<String>,
    pub body: String,
    /// The number of the request that it came with, of those that have several events.
    #[serde(default)]
    pub batch: Option<u64>,
}

impl Delivery {
    /// The body, which has to be JSON: a CloudEvent, mostly.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Sink {
    /// `program` is `env!("CARGO_BIN_EXE_outbox-sink")` in an integration test.
    pub fn start(ledger: &Path, program: &str) -> Self {
        Self::start_with(ledger, program, &[])
    }

    /// The same with more options, for example `["--status", "503"]`.
    pub fn start_with(ledger: &Path, program: &str, options: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.arg("--ledger").arg(ledger).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("sink said {line:?}"));
        Self { process, address: address.into(), ledger: ledger.into() }
    }

    /// Where it listens, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections are open, without the one of this question. Everything that came over closed connections is
    /// noted.
    pub fn connections(&self) -> usize {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let number = answer.lines().last().and_then(|line| line.parse::<usize>().ok());
        number.unwrap_or_else(|| panic!("sink said {answer:?}")) - 1
    }

    /// What it received so far, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        deliveries(&self.ledger)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The content of a ledger; empty if there is no ledger yet.
pub fn deliveries(ledger: &Path) -> Vec<Delivery> {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    // A line without an end is still being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
