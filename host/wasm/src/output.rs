//! Captures what a guest writes to its standard output and standard error, line by line.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use outbox_engine::text::{harmless, shown};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWrite;
use uuid::Uuid;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::secrets::Redactor;
use super::settings::Limits;
use super::text::tail;

/// The most bytes of one write: it is copied out of the guest before it is checked.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// How much of the digest is logged with each line: enough to tell versions apart.
const DIGEST_CHARS: usize = 12;
/// What the log adds to each line; it counts towards the bytes of a second.
const LOG_BYTES_OF_A_LINE: u64 = 128;
/// How much of the standard error of a failed call is kept with the attempt.
const TAIL_BYTES_MAX: usize = 4 * 1024;

/// A line that a guest wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestLine<'a> {
    /// The publisher's name.
    pub publisher: &'a str,
    /// The sha256 digest of the component's bytes, in hex.
    pub digest: &'a str,
    /// The uuid of the event of the call. None while an instance starts, and for several events at once.
    pub event: Option<Uuid>,
    /// The output to which the guest wrote it.
    pub stream: GuestStream,
    /// The line without its end. U+FFFD replaces what is no UTF-8, and characters that would steer a terminal
    /// ([`text::steers`](outbox_engine::text::steers)).
    pub line: &'a str,
}

/// The two outputs of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl GuestStream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Receives the lines. It is called on the thread that runs the guest, so it should be quick.
#[derive(Clone)]
pub struct OutputSink(Arc<dyn Fn(GuestLine<'_>) + Send + Sync>);

impl OutputSink {
    /// A sink that calls `receive` with each line.
    pub fn new(receive: impl Fn(GuestLine<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }
}

/// Sends each line to `tracing`, target `outbox::guest`, with the fields `publisher`, `digest` (its beginning), `event`
/// and `stream`.
impl Default for OutputSink {
    fn default() -> Self {
        Self::new(|line| {
            let (publisher, stream, event) =
                (line.publisher, line.stream.name(), line.event.map(tracing::field::display));
            let digest = line.digest.get(..DIGEST_CHARS).unwrap_or(line.digest);
            tracing::info!(target: "outbox::guest", publisher, digest, event, stream, "{}", shown(line.line));
        })
    }
}

impl fmt::Debug for OutputSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputSink")
    }
}

/// The log of one publisher, to which all of its instances write: how much they may write, and how much was left out.
pub(super) struct Log {
    publisher: Arc<str>,
    digest: Arc<str>,
    sink: OutputSink,
    redactor: Redactor,
    lines_left_out: AtomicU64,
    budget: Mutex<Budget>,
}

/// How many bytes may still be logged. It grows with time, up to the bytes of one second.
struct Budget {
    per_second: u64,
    bytes: u64,
    since: Instant,
    /// When the log last reported how much was left out.
    told: Instant,
}

impl Log {
    pub(super) fn new(
        publisher: Arc<str>,
        digest: Arc<str>,
        sink: OutputSink,
        redactor: Redactor,
        limits: &Limits,
    ) -> Self {
        let (now, per_second) = (Instant::now(), limits.log_bytes_per_second);
        let budget = Budget { per_second, bytes: per_second, since: now, told: now };
        Self { publisher, digest, sink, redactor, lines_left_out: AtomicU64::new(0), budget: Mutex::new(budget) }
    }

    /// Passes a line on, or counts it if there are too many.
    fn line(&self, event: Option<Uuid>, stream: GuestStream, line: &str) {
        if !self.may_write(line) {
            self.lines_left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.tell_left_out_when_due();
        self.emit(event, stream, line);
    }

    fn may_write(&self, line: &str) -> bool {
        let bytes = LOG_BYTES_OF_A_LINE + line.len() as u64;
        self.budget.lock().take(bytes, Instant::now())
    }

    /// Reports how many lines were left out, at most once a second.
    fn tell_left_out_when_due(&self) {
        if self.lines_left_out.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut budget = self.budget.lock();
        if budget.told.elapsed() >= Duration::from_secs(1) {
            budget.told = Instant::now();
            drop(budget);
            self.tell_left_out();
        }
    }

    fn tell_left_out(&self) {
        let lines = self.lines_left_out.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let note = format!("[{lines} more lines are left out: too many in a second]");
            self.emit(None, GuestStream::Stderr, &note);
        }
    }

    fn emit(&self, event: Option<Uuid>, stream: GuestStream, line: &str) {
        let (publisher, digest) = (&self.publisher, &self.digest);
        (self.sink.0)(GuestLine { publisher, digest, event, stream, line });
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.tell_left_out();
    }
}

impl Budget {
    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let micros = now.saturating_duration_since(self.since).as_micros();
        let grown = micros.saturating_mul(u128::from(self.per_second)) / 1_000_000;
        if grown > 0 {
            let all = u128::from(self.bytes) + grown;
            self.bytes = u64::try_from(all).unwrap_or(u64::MAX).min(self.per_second);
            self.since = now;
        }
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

/// Both outputs of one instance.
#[derive(Clone)]
pub(super) struct Capture(Arc<Mutex<Captured>>);

struct Captured {
    log: Arc<Log>,
    /// The event of the call.
    event: Option<Uuid>,
    line_bytes_max: usize,
    lines_max: usize,
    lines: usize,
    lines_left_out: usize,
    stdout: Line,
    stderr: Line,
    stderr_tail: String,
}

impl Capture {
    pub(super) fn new(log: Arc<Log>, limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Captured {
            log,
            event: None,
            line_bytes_max: limits.line_bytes,
            lines_max: limits.lines,
            lines: 0,
            lines_left_out: 0,
            stdout: Line::default(),
            stderr: Line::default(),
            stderr_tail: String::new(),
        })))
    }

    /// The guest's handle of one of its outputs.
    pub(super) fn stream(&self, stream: GuestStream) -> GuestOutput {
        GuestOutput { capture: self.clone(), stream }
    }

    /// Starts a call: what is written from now on is about this event.
    pub(super) fn begin_call(&self, event: Option<Uuid>) {
        self.lock().event = event;
    }

    /// Ends a call: passes on unfinished lines, reports how many were left out, and returns the last lines of standard
    /// error. The next call starts afresh.
    pub(super) fn end_call(&self) -> String {
        self.lock().end_call()
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.0.lock()
    }
}

impl Captured {
    fn write(&mut self, stream: GuestStream, bytes: &[u8]) {
        let line_bytes_max = self.line_bytes_max;
        let mut parts = bytes.split(|byte| *byte == b'\n');
        if let Some(first) = parts.next() {
            self.line(stream).push(first, line_bytes_max);
        }
        for part in parts {
            self.end_line(stream);
            self.line(stream).push(part, line_bytes_max);
        }
    }

    fn line(&mut self, stream: GuestStream) -> &mut Line {
        match stream {
            GuestStream::Stdout => &mut self.stdout,
            GuestStream::Stderr => &mut self.stderr,
        }
    }

    fn end_line(&mut self, stream: GuestStream) {
        if self.lines >= self.lines_max {
            self.lines_left_out += 1;
            self.line(stream).clear();
            return;
        }
        self.lines += 1;
        let log = self.log.clone();
        let line = self.line(stream).take(&log.redactor);
        if stream == GuestStream::Stderr {
            self.keep_tail(&line);
        }
        self.log.line(self.event, stream, &line);
    }

    fn keep_tail(&mut self, line: &str) {
        self.stderr_tail.push_str(line);
        self.stderr_tail.push('\n');
        if self.stderr_tail.len() > 2 * TAIL_BYTES_MAX {
            self.stderr_tail = tail(&self.stderr_tail, TAIL_BYTES_MAX).to_owned();
        }
    }

    fn end_call(&mut self) -> String {
        for stream in [GuestStream::Stdout, GuestStream::Stderr] {
            if !self.line(stream).is_empty() {
                self.end_line(stream);
            }
        }
        if self.lines_left_out > 0 {
            let note = format!("[{} more lines of this call are left out]", self.lines_left_out);
            self.log.line(self.event, GuestStream::Stderr, &note);
        }
        self.log.tell_left_out_when_due();
        self.lines = 0;
        self.lines_left_out = 0;
        let kept = std::mem::take(&mut self.stderr_tail);
        tail(kept.trim_end_matches('\n'), TAIL_BYTES_MAX).to_owned()
    }
}

/// A line that is being written.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    bytes_left_out: usize,
}

impl Line {
    fn push(&mut self, bytes: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.bytes.len());
        let (kept, left_out) = bytes.split_at(room.min(bytes.len()));
        self.bytes.extend_from_slice(kept);
        self.bytes_left_out += left_out.len();
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.bytes_left_out == 0
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes_left_out = 0;
    }

    fn take(&mut self, redactor: &Redactor) -> String {
        let text = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        let line = harmless(&String::from_utf8_lossy(text)).into_owned();
        let whole = self.bytes_left_out == 0;
        let mut line = if whole { redactor.redacted(line) } else { redactor.redacted_beginning(line) };
        if !whole {
            line.push_str(&format!(" [{} more bytes are left out]", self.bytes_left_out));
        }
        self.clear();
        line
    }
}

/// One output of a guest. Writing never waits and never fails: lines beyond the limits are counted and left out.
pub(super) struct GuestOutput {
    capture: Capture,
    stream: GuestStream,
}

impl GuestOutput {
    fn handle(&self) -> Self {
        self.capture.stream(self.stream)
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.handle())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.handle())
    }
}

/// The guest wrote more than it had asked permission for.
#[derive(Debug, thiserror::Error)]
#[error("the guest wrote more than {WRITE_BYTES_MAX} bytes at once (limit: one write)")]
pub(super) struct WriteTooLong;

#[async_trait::async_trait]
impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::Trap(WriteTooLong.into()));
        }
        self.capture.lock().write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.capture.lock().write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::HeaderSecret;
    use super::*;

    fn capture(limits: Limits) -> (Capture, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let received = lines.clone();
        let sink = OutputSink::new(move |line| {
            received.lock().push(format!("{}: {}", line.stream.name(), line.line));
        });
        let secret = HeaderSecret::new("token", "s3cr3t-value", "authorization", "", "https://a.b".parse().unwrap());
        let log = Log::new("p".into(), "d1ge57".into(), sink, Redactor::of(&[secret.unwrap()]), &Limits::default());
        (Capture::new(Arc::new(log), &limits), lines)
    }

    fn write(capture: &Capture, stream: GuestStream, text: &str) {
        capture.lock().write(stream, text.as_bytes());
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_streams_kept_apart() {
        let (capture, lines) = capture(Limits::default());
        write(&capture, GuestStream::Stdout, "on");
        write(&capture, GuestStream::Stderr, "err\r\n");
        write(&capture, GuestStream::Stdout, "e\n\ntwo");
        assert_eq!(*lines.lock(), ["stderr: err", "stdout: one", "stdout: "]);
        assert_eq!(capture.end_call(), "err");
        assert_eq!(lines.lock().last().unwrap(), "stdout: two");
        assert_eq!(capture.end_call(), "");
        assert_eq!(lines.lock().len(), 4);
    }

    #[test]
    fn control_characters_are_replaced() {
        let (capture, lines) = capture(Limits::default());
        write(&capture, GuestStream::Stdout, "a\tb\u{1b}[2J\n");
        assert_eq!(*lines.lock(), ["stdout: a\tb\u{FFFD}[2J"]);
    }

    #[test]
    fn a_long_line_is_cut_and_counted() {
        let (capture, lines) = capture(Limits { line_bytes: 4, ..Limits::default() });
        for _ in 0..10 {
            write(&capture, GuestStream::Stdout, "abc");
        }
        write(&capture, GuestStream::Stdout, "\nok\n");
        assert_eq!(*lines.lock(), ["stdout: abca [26 more bytes are left out]", "stdout: ok"]);
    }

    #[test]
    fn secrets_are_blotted_out_also_where_a_line_is_cut() {
        let (capture, lines) = capture(Limits { line_bytes: 20, ..Limits::default() });
        write(&capture, GuestStream::Stderr, "a s3cr3t-");
        write(&capture, GuestStream::Stderr, "value\nsent with: s3cr3t-value\n");
        let expected = ["stderr: a [secret token]", "stderr: sent with: [secret token] [3 more bytes are left out]"];
        assert_eq!(*lines.lock(), expected);
        assert!(!capture.end_call().contains("s3cr3t"));
    }

    #[test]
    fn a_flood_is_cut_and_counted_for_each_call() {
        let (capture, lines) = capture(Limits { lines: 2, ..Limits::default() });
        write(&capture, GuestStream::Stdout, "1\n2\n3\n4\n5");
        capture.end_call();
        write(&capture, GuestStream::Stdout, "6\n");
        let expected = ["stdout: 1", "stdout: 2", "stderr: [3 more lines of this call are left out]", "stdout: 6"];
        assert_eq!(*lines.lock(), expected);
    }

    #[test]
    fn lines_tell_which_publisher_and_event_they_are_of() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let received = lines.clone();
        let sink = OutputSink::new(move |line| {
            let event = line.event.map(|uuid| uuid.as_u128());
            received.lock().push((line.publisher.to_owned(), line.digest.to_owned(), event, line.stream));
        });
        let log = Log::new("p".into(), "d1ge57".into(), sink, Redactor::default(), &Limits::default());
        let capture = Capture::new(Arc::new(log), &Limits::default());
        write(&capture, GuestStream::Stdout, "starting\n");
        capture.end_call();
        capture.begin_call(Some(Uuid::from_u128(7)));
        write(&capture, GuestStream::Stderr, "no end");
        capture.end_call();
        let of = |event, stream| ("p".to_owned(), "d1ge57".to_owned(), event, stream);
        assert_eq!(*lines.lock(), [of(None, GuestStream::Stdout), of(Some(7), GuestStream::Stderr)]);
    }

    #[test]
    fn a_flood_over_many_calls_is_cut_and_counted_and_the_attempt_keeps_its_tail() {
        let (capture, lines) = capture(Limits::default());
        let line = "x".repeat(1_000);
        let per_second = Limits::default().log_bytes_per_second;
        let written = 5 * per_second / 1_000;
        let started = Instant::now();
        for number in 0..written {
            write(&capture, GuestStream::Stderr, &format!("{line}{number}\n"));
            assert!(capture.end_call().ends_with(&number.to_string()));
        }
        let seconds = started.elapsed().as_secs() + 2;
        drop(capture);
        let lines = lines.lock();
        let (notes, passed): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains("more lines are left out"));
        assert!(passed.len() as u64 <= seconds * per_second / 1_000, "{} lines", passed.len());
        let left_out = |note: &String| note.split(['[', ' ']).find_map(|word| word.parse::<u64>().ok()).unwrap();
        assert_eq!(passed.len() as u64 + notes.into_iter().map(left_out).sum::<u64>(), written);
    }

    #[test]
    fn the_budget_grows_with_time_up_to_that_of_a_second() {
        let start = Instant::now();
        let mut budget = Budget { per_second: 1_000, bytes: 100, since: start, told: start };
        assert!(budget.take(100, start) && !budget.take(1, start));
        assert!(!budget.take(501, start + Duration::from_millis(500)));
        assert!(budget.take(500, start + Duration::from_millis(500)));
        let later = start + Duration::from_secs(3_600);
        assert!(budget.take(1_000, later) && !budget.take(1, later));
    }

    #[test]
    fn the_tail_of_stderr_is_bounded() {
        let (capture, _) = capture(Limits { lines: 100_000, ..Limits::default() });
        for number in 0..10_000 {
            write(&capture, GuestStream::Stderr, &format!("line {number}\n"));
        }
        let tail = capture.end_call();
        assert!(tail.len() <= TAIL_BYTES_MAX && tail.ends_with("line 9999"));
    }
}
