//! What a call that ended without an answer came from: the time, a limit, or the guest's own fault.

use std::time::Duration;

use wasmtime::WasmBacktrace;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use super::held::TooMuchHeld;
use super::output::WriteTooLong;
use super::settings::Limits;
use super::text::bounded;
use crate::publisher::Outcome;

/// The call was not done within its time limit.
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

/// The limits that wasmtime keeps for us. Some of its errors have no type that could be asked for: their text is
/// matched, and a test holds it in place.
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

/// The cause first: it is what an operator looks for. Then where in the guest it happened.
fn with_backtrace(error: &wasmtime::Error, cause: String) -> String {
    match error.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) if !backtrace.frames().is_empty() => format!("{cause}\n{backtrace}"),
        _ => cause,
    }
}
