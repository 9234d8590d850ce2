//! What an operator may set for a publisher: its limits, its grants, how its instances are reused, where its output goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::authorities::Authorities;
use super::compiler::Compiler;
use super::grants::Grants;
use super::http_tap::HttpTap;
use super::output::OutputSink;
use super::proxy::HttpsProxy;
use super::resolver::Resolver;

/// How to run a component. The default grants nothing, limits everything, and sends the guest's output to `tracing`.
#[derive(Clone, Default)]
pub struct Settings {
    /// What the guest may use up.
    pub limits: Limits,
    /// What the guest may reach outside the sandbox.
    pub grants: Grants,
    /// How long an instance lives.
    pub isolation: Isolation,
    /// The folder that keeps compiled code for the next start. None compiles each time. The folder is made if it is
    /// missing, and not used if anybody but this user may write to it.
    pub cache: Option<PathBuf>,
    /// Where to compile what is not in that folder.
    pub compiler: Compiler,
    /// Receives the lines that the guest writes to its standard output and standard error.
    pub output: OutputSink,
    /// How it reaches destinations.
    pub net: Net,
    /// Observes the guest's HTTP requests, for testing. None otherwise.
    pub http_tap: Option<Arc<HttpTap>>,
}

/// How a publisher reaches destinations. The default trusts the system's certificate authorities, asks the system for
/// addresses, and uses no proxy.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// The certificate authorities that its TLS connections trust.
    pub authorities: Authorities,
    /// The proxy that its HTTPS requests go through.
    pub proxy: HttpsProxy,
    /// Turns names into addresses.
    pub resolver: Resolver,
}

/// How long an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// An instance serves many events, and is replaced after about `recycle_after` of them. The exact number varies by
    /// up to a tenth, so that instances that started together do not end together.
    Reuse {
        /// The number of events after which an instance is replaced; at least 1.
        recycle_after: u32,
    },
    /// Each call gets an instance of its own. So no event sees what an earlier one left behind in the guest, at the
    /// price of an instantiation for each call.
    PerEvent,
}

impl Default for Isolation {
    fn default() -> Self {
        Self::Reuse { recycle_after: 1_000 }
    }
}

impl Isolation {
    /// The number of events that the instance with this serial number may serve.
    pub(super) fn events_max(self, serial: u64) -> u32 {
        match self {
            Self::PerEvent => 1,
            Self::Reuse { recycle_after } => recycle_after.saturating_add(jitter(serial, recycle_after / 10)).max(1),
        }
    }
}

/// A number from 0 to `below` (exclusive; 0 if `below` is 0). Consecutive serial numbers are spread evenly.
fn jitter(serial: u64, below: u32) -> u32 {
    let mixed = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    u32::try_from(mixed).unwrap_or(0).checked_rem(below).unwrap_or(0)
}

/// What a guest may use up. Each limit is for one instance unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest time that one call may take, including waiting; at most a day. Starting an instance, with its
    /// `configure`, has the same limit.
    pub call_time: Duration,
    /// The longest time that compiling the component may take. After that the component is refused. A compiling process
    /// is killed then; in this process, the compiler cannot be interrupted and goes on ([`Compiler`]).
    pub compile_time: Duration,
    /// The most bytes of memory that the compiling process may take.
    pub compile_bytes: usize,
    /// The most bytes that all of its memories together may have.
    pub memory_bytes: usize,
    /// The most elements that all of its tables together may have.
    pub table_elements: usize,
    /// The most core instances and components within the component; what is used several times counts several times.
    pub instances: usize,
    /// The most bytes that may cross from guest to host with one host call, or with one answer.
    pub hostcall_bytes: usize,
    /// The most resources (streams, requests, timers, ...) that the guest may hold at once.
    pub resources: usize,
    /// The most characters of a reason that the guest gives; the rest is cut.
    pub reason_chars: usize,
    /// The most bytes that the component itself may have.
    pub module_bytes: usize,
    /// The most bytes of one line of output; the rest of the line is cut.
    pub line_bytes: usize,
    /// The most lines of output that are kept of one call; the others are counted.
    pub lines: usize,
    /// The most bytes of lines that a publisher may have logged in a second, over all of its calls; further lines are
    /// counted.
    pub log_bytes_per_second: u64,
    /// The most TCP sockets that it may hold at once.
    pub tcp_sockets: usize,
    /// The most HTTP requests that one call may make.
    pub http_requests: u32,
    /// The most bytes of HTTP response bodies that one call may read.
    pub http_response_bytes: u64,
}

const MIB: usize = 1024 * 1024;
/// No time limit is longer than a day, so that adding it to a time cannot overflow.
const TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

impl Limits {
    /// The same limits, with times cut to a day.
    pub(super) fn bounded(mut self) -> Self {
        self.call_time = self.call_time.min(TIME_MAX);
        self.compile_time = self.compile_time.min(TIME_MAX);
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_time: Duration::from_secs(30),
            compile_time: Duration::from_secs(60),
            compile_bytes: 1_024 * MIB,
            memory_bytes: 128 * MIB,
            table_elements: 100_000,
            instances: 1_000,
            hostcall_bytes: 4 * MIB,
            resources: 1_000,
            reason_chars: 2_000,
            module_bytes: 64 * MIB,
            line_bytes: 8 * 1024,
            lines: 1_000,
            log_bytes_per_second: 4 * MIB as u64,
            tcp_sockets: 16,
            http_requests: 1_000,
            http_response_bytes: 16 * MIB as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycling_is_spread_over_a_tenth_and_repeatable() {
        let isolation = Isolation::Reuse { recycle_after: 1_000 };
        let counts: Vec<u32> = (0..100).map(|serial| isolation.events_max(serial)).collect();
        assert!(counts.iter().all(|count| (1_000..1_100).contains(count)));
        assert!(counts.iter().collect::<std::collections::HashSet<_>>().len() > 50);
        assert_eq!(isolation.events_max(7), isolation.events_max(7));
    }

    #[test]
    fn small_numbers_are_exact_and_zero_is_one() {
        assert_eq!(Isolation::Reuse { recycle_after: 3 }.events_max(5), 3);
        assert_eq!(Isolation::Reuse { recycle_after: 0 }.events_max(5), 1);
        assert_eq!(Isolation::PerEvent.events_max(5), 1);
    }
}
