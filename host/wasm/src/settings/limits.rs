//! What a guest may use up.

use std::time::Duration;

use serde::Deserialize;

use super::units::{Mib, Time};

/// Makes [`Limits`] and [`LimitsConfig`] of one declaration. Each limit is written once: its field and type, its default,
/// and the key and unit by which it is set.
macro_rules! limits {
    ($($(#[$about:meta])+ $field:ident: $type:ty = $default:expr, set as $key:ident: $unit:ty;)+) => {
        /// What a guest may use up. Each limit is for one instance unless it says otherwise.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$about])+ pub $field: $type,)+
        }

        /// The limits that somebody has set, as in `[publisher.limits]` of `outbox.toml`. It can be read from any format
        /// that serde knows; an unknown key is an error.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitsConfig {
            $($(#[$about])+ pub $key: Option<$unit>,)+
        }

        impl LimitsConfig {
            /// Every limit, with its default.
            pub fn defaults() -> Self {
                Self { $($key: Some($default),)+ }
            }

            /// Each limit that is set here, or else the one that is set there.
            pub fn or(self, there: &Self) -> Self {
                Self { $($key: self.$key.or(there.$key),)+ }
            }

            /// All limits: what is not set has its default.
            pub fn limits(&self) -> Limits {
                Limits { $($field: self.$key.unwrap_or($default).into(),)+ }
            }
        }
    };
}

limits! {
    /// The longest time that one call may take, including waiting; at most a day. Starting an instance, with its
    /// `configure`, has the same limit.
    call_time: Duration = Time(Duration::from_secs(30)), set as call_time: Time;
    /// The longest time that compiling the component may take. After that the component is refused. A compiling process
    /// is killed then; in this process, the compiler cannot be interrupted and goes on ([`Compiler`](crate::Compiler)).
    compile_time: Duration = Time(Duration::from_secs(60)), set as compile_time: Time;
    /// The most memory that the compiling process may take.
    compile_bytes: usize = Mib(1_024), set as compile_mib: Mib;
    /// The most memory that all of its memories together may have.
    memory_bytes: usize = Mib(128), set as memory_mib: Mib;
    /// The largest size that the component itself may have.
    module_bytes: usize = Mib(64), set as module_mib: Mib;
    /// The most elements that all of its tables together may have.
    table_elements: usize = 100_000, set as table_elements: usize;
    /// The most core instances and components within the component; what is used several times counts several times.
    instances: usize = 1_000, set as instances: usize;
    /// The most bytes that may cross from guest to host with one host call, or with one answer.
    hostcall_bytes: usize = 4 * 1024 * 1024, set as hostcall_bytes: usize;
    /// The most resources (streams, requests, timers, ...) that the guest may hold at once.
    resources: usize = 1_000, set as resources: usize;
    /// The most characters of a reason that the guest gives; the rest is cut.
    reason_chars: usize = 2_000, set as reason_chars: usize;
    /// The most bytes of one line of output; the rest of the line is cut.
    line_bytes: usize = 8 * 1024, set as line_bytes: usize;
    /// The most lines of output that are kept of one call; the others are counted.
    lines: usize = 1_000, set as lines: usize;
    /// The most bytes of lines that a publisher may have logged in a second, over all of its calls; further lines are
    /// counted.
    log_bytes_per_second: u64 = 4 * 1024 * 1024, set as log_bytes_per_second: u64;
    /// The most TCP sockets that it may hold at once.
    tcp_sockets: usize = 16, set as tcp_sockets: usize;
    /// The most HTTP requests that one call may make.
    http_requests: u32 = 1_000, set as http_requests: u32;
    /// The most bytes of HTTP response bodies that one call may read.
    http_response_bytes: u64 = 16 * 1024 * 1024, set as http_response_bytes: u64;
}

impl Default for Limits {
    fn default() -> Self {
        LimitsConfig::default().limits()
    }
}

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
