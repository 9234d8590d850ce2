//! The log of one publisher: how much its guests may write to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::sink::{GuestLine, GuestStream, OutputSink};
use crate::secrets::Redactor;
use crate::settings::Limits;

/// What the log adds to each line; it counts towards the bytes of a second.
const LOG_BYTES_OF_A_LINE: u64 = 128;

/// The log of one publisher, to which all of its instances write: how much they may write, and how much was left out.
pub(crate) struct Log {
    publisher: Arc<str>,
    digest: Arc<str>,
    sink: OutputSink,
    pub(super) redactor: Redactor,
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
    pub(crate) fn new(
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
    pub(super) fn line(&self, event: Option<Uuid>, stream: GuestStream, line: &str) {
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
    pub(super) fn tell_left_out_when_due(&self) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
