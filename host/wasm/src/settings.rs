//! What an operator may set for a publisher: its limits, its grants, how its instances are reused, where its output goes.

use std::path::PathBuf;
use std::sync::Arc;

use super::authorities::Authorities;
use super::compiler::Compiler;
use super::grants::Grants;
use super::http_tap::HttpTap;
use super::output::OutputSink;
use super::proxy::HttpsProxy;
use super::resolver::Resolver;

mod limits;
mod units;

pub use self::limits::{Limits, LimitsConfig};
pub use self::units::{Mib, Time};

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
