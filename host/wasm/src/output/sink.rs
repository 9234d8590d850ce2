//! Receives the lines that a guest writes.

use std::fmt;
use std::sync::Arc;

use outbox_engine::text::shown;
use uuid::Uuid;

/// How much of the digest is logged with each line: enough to tell versions apart.
const DIGEST_CHARS: usize = 12;

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
pub struct OutputSink(pub(super) Arc<dyn Fn(GuestLine<'_>) + Send + Sync>);

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
