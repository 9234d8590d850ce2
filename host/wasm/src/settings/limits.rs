//! What a guest may use up.

use std::time::Duration;

/// What a guest may use up. Each limit is for one instance unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest time that one call may take, including waiting; at most a day. Starting an instance, with its
    /// `configure`, has the same limit.
    pub call_time: Duration,
    /// The longest time that compiling the component may take. After that the component is refused. A compiling process
    /// is killed then; in this process, the compiler cannot be interrupted and goes on ([`Compiler`](crate::Compiler)).
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
    pub(crate) fn bounded(mut self) -> Self {
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
