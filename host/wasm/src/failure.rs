//! Finds the cause of a call that ended without an answer: the time, a limit, or the guest's own fault.

use std::time::Duration;

use outbox_engine::Outcome;
use wasmtime::WasmBacktrace;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use super::host_memory::TooMuchHeld;
use super::output::WriteTooLong;
use super::settings::Limits;
use super::text::bounded;

/// The most characters of a guest's last line that go into the reason.
const LAST_WORDS_CHARS_MAX: usize = 300;

/// The call took longer than its time limit.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the call was not done within {limit:?} (limit: call_time)")]
pub(super) struct TimedOut {
    pub(super) limit: Duration,
}

/// The outcome of a call that ended with `error`. `refused` is what the limiter refused during it.
pub(super) fn outcome(error: &wasmtime::Error, refused: Option<String>, limits: &Limits) -> Outcome {
    let bound = |reason: String| bounded(reason, limits.reason_chars);
    if let Some(timed_out) = error.downcast_ref::<TimedOut>() {
        return Outcome::TimedOut { reason: timed_out.to_string() };
    }
    let cause = error.root_cause().to_string();
    if let Some(refused) = refused {
        return Outcome::LimitExceeded { reason: bound(format!("{refused}; then: {cause}")) };
    }
    if let Some(limit) = host_limit(error, &cause, limits) {
        return Outcome::LimitExceeded { reason: bound(limit) };
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Outcome::Trapped { reason: format!("the guest ended itself with exit code {}", exit.0) };
    }
    Outcome::Trapped { reason: bound(with_backtrace(error, cause)) }
}

/// Adds a guest's last line to the reason of its trap. The line is mostly the text of a panic or an exception, while
/// the trap itself only says that there was one.
pub(super) fn with_last_words(outcome: Outcome, stderr: &str) -> Outcome {
    let says_something = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
    match (outcome, stderr.lines().rev().find(says_something)) {
        (Outcome::Trapped { reason }, Some(words)) => {
            let (cause, rest) = reason.split_at(reason.find('\n').unwrap_or(reason.len()));
            let words = bounded(words.trim().to_owned(), LAST_WORDS_CHARS_MAX);
            Outcome::Trapped { reason: format!("{cause} (stderr: {words}){rest}") }
        }
        (outcome, _) => outcome,
    }
}

/// The limits that wasmtime enforces for us. Some of its errors have no type of their own: their text is matched, and a
/// test checks the text.
fn host_limit(error: &wasmtime::Error, cause: &str, limits: &Limits) -> Option<String> {
    if cause.contains("fuel allocated for hostcalls") {
        let max = limits.hostcall_bytes;
        return Some(format!("the guest handed over more than {max} bytes at once (limit: hostcall_bytes)"));
    }
    if error.is::<TooMuchHeld>() || error.is::<WriteTooLong>() {
        return Some(cause.to_owned());
    }
    if matches!(error.downcast_ref(), Some(FieldMapError::TotalSizeTooBig | FieldMapError::TooManyFields)) {
        return Some("the guest made headers of more than 128 KiB (limit: headers of an HTTP request)".to_owned());
    }
    if cause.starts_with("requested len ") && cause.contains(" exceeds limit ") {
        return Some("the guest asked for more than 64 KiB of random bytes at once (limit: random bytes)".to_owned());
    }
    let full = matches!(error.downcast_ref(), Some(ResourceTableError::Full));
    if full || cause.ends_with("handle limit exceeded") {
        let max = limits.resources;
        return Some(format!("the guest holds more than {max} resources (limit: resources)"));
    }
    if cause.contains("instance count too high") {
        let max = limits.instances;
        return Some(format!("the component is made of more than {max} core instances (limit: instances)"));
    }
    None
}

/// The cause, which an operator looks for first, followed by the place in the guest.
fn with_backtrace(error: &wasmtime::Error, cause: String) -> String {
    match error.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) if !backtrace.frames().is_empty() => format!("{cause}\n{backtrace}"),
        _ => cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_has_the_guests_last_words_in_its_first_line() {
        let trapped = || Outcome::Trapped { reason: "unreachable\nbacktrace".into() };
        let stderr = "\nthread panicked at src/lib.rs:7:5:\nout of luck\nnote: run with RUST_BACKTRACE=1\n";
        assert_eq!(with_last_words(trapped(), stderr).reason(), "unreachable (stderr: out of luck)\nbacktrace");
        assert_eq!(with_last_words(trapped(), " \n").reason(), "unreachable\nbacktrace");
        let timed_out = Outcome::TimedOut { reason: "late".into() };
        assert_eq!(with_last_words(timed_out, stderr).reason(), "late");
        assert!(with_last_words(trapped(), &"x".repeat(10_000)).reason().len() < 400);
    }
}
