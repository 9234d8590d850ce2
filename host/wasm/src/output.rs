//! Captures what a guest writes to its standard output and standard error, line by line.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Bytes;
use outbox_engine::text::harmless;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWrite;
use uuid::Uuid;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::secrets::Redactor;
use super::settings::Limits;
use super::text::tail;

mod log;
mod sink;

pub(super) use self::log::Log;
pub use self::sink::{GuestLine, GuestStream, OutputSink};

/// The most bytes of one write: it is copied out of the guest before it is checked.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// How much of the standard error of a failed call is kept with the attempt.
const TAIL_BYTES_MAX: usize = 4 * 1024;

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
    use std::time::Instant;

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
    fn the_tail_of_stderr_is_bounded() {
        let (capture, _) = capture(Limits { lines: 100_000, ..Limits::default() });
        for number in 0..10_000 {
            write(&capture, GuestStream::Stderr, &format!("line {number}\n"));
        }
        let tail = capture.end_call();
        assert!(tail.len() <= TAIL_BYTES_MAX && tail.ends_with("line 9999"));
    }
}
