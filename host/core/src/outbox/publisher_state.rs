//! What a relay says about each of its publishers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a relay says about a publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherState {
    /// Its name. None for a single publisher, which needs no name.
    pub name: Option<String>,
    /// Whether it is called.
    pub breaker: BreakerState,
    /// Since when it is called, or since when it is not.
    pub since: Timestamp,
    /// Why it is not called, in words; empty while it is.
    pub reason: String,
    /// When it is tried again, with a single entry. None while it is called.
    pub next_probe: Option<Timestamp>,
    /// When its rate limit lets the next entry pass, if entries wait for that and it is more than a second away.
    #[serde(default)]
    pub next_token: Option<Timestamp>,
}

impl PublisherState {
    /// Whether it is called.
    pub fn is_called(&self) -> bool {
        self.breaker == BreakerState::Closed
    }
}

/// The state of a publisher's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// The publisher is called.
    Closed,
    /// It is not called for a while.
    Open,
    /// It is called with a single entry, whose answer decides.
    HalfOpen,
}

impl BreakerState {
    /// The state's name, as the status shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}
