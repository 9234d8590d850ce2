//! The outcome of an attempt to publish.

use std::sync::Arc;
use std::time::Duration;

/// The result of one attempt to publish, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// The name of the publisher that made it. None if it has no name.
    pub publisher: Option<Arc<str>>,
    /// The sha256 digest (hex) of the module that made it. None for a native publisher.
    pub digest: Option<Arc<str>>,
    /// The last lines that the guest wrote to its standard error during a failed call; empty otherwise.
    pub stderr: String,
    /// Whether a version on trial made it: its failures set no entry aside.
    pub on_trial: bool,
}

impl From<Outcome> for Attempt {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, publisher: None, digest: None, stderr: String::new(), on_trial: false }
    }
}

/// The name of [`Outcome::Expired`].
pub const EXPIRED: &str = "expired";

/// How an attempt to publish one event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has the event.
    Delivered,
    /// The publisher asks for another try.
    Retry {
        /// What went wrong.
        reason: String,
        /// The shortest time until the next attempt. None if the publisher named none.
        after: Option<Duration>,
    },
    /// The publisher says that this event will never succeed.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Nothing can be published now: the destination is down, or the publisher itself cannot start.
    Unavailable {
        /// Why.
        reason: String,
        /// The shortest time until the next attempt. None if the publisher named none.
        after: Option<Duration>,
    },
    /// The guest trapped, or broke the contract.
    Trapped {
        /// The trap's message and backtrace.
        reason: String,
    },
    /// The call took longer than its time limit.
    TimedOut {
        /// Which limit it was.
        reason: String,
    },
    /// The guest exceeded a limit other than time: memory, size of its answer, host calls.
    LimitExceeded {
        /// Which limit it was.
        reason: String,
    },
    /// The row is no valid [`Recorded`](crate::Recorded); no publisher was called.
    Undecodable {
        /// Which part of the row, and why.
        reason: String,
    },
    /// No route matches this event; no publisher was called.
    Unrouted {
        /// The event's name, category and tenant.
        reason: String,
    },
    /// The event's `expires_at` is past; no publisher was called.
    Expired {
        /// When it expired.
        reason: String,
    },
    /// The host died while this event was being published; the next host found out.
    HostDied {
        /// What is known about it.
        reason: String,
    },
}

impl Outcome {
    /// Whether the call failed, through the entry or the destination, and may succeed later.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Retry { .. } | Self::Trapped { .. } | Self::TimedOut { .. } | Self::LimitExceeded { .. } => true,
            Self::Delivered
            | Self::Rejected { .. }
            | Self::Unavailable { .. }
            | Self::Undecodable { .. }
            | Self::Unrouted { .. }
            | Self::Expired { .. }
            | Self::HostDied { .. } => false,
        }
    }

    /// The outcome's name, as it is stored with an attempt and shown by the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Rejected { .. } => "rejected",
            Self::Unavailable { .. } => "unavailable",
            Self::Trapped { .. } => "trapped",
            Self::TimedOut { .. } => "timed-out",
            Self::LimitExceeded { .. } => "limit-exceeded",
            Self::Undecodable { .. } => "undecodable",
            Self::Unrouted { .. } => "unrouted",
            Self::Expired { .. } => EXPIRED,
            Self::HostDied { .. } => "host-died",
        }
    }

    /// The same outcome with a reason of at most `chars_max` characters; the rest is cut.
    #[must_use]
    pub fn with_bounded_reason(self, chars_max: usize) -> Self {
        self.map_reason(|reason| {
            if let Some((at, _)) = reason.char_indices().nth(chars_max) {
                reason.truncate(at);
                reason.push('…');
            }
        })
    }

    /// The same outcome with its reason changed, if it has one.
    #[must_use]
    pub fn map_reason(mut self, change: impl FnOnce(&mut String)) -> Self {
        if let Self::Retry { reason, .. }
        | Self::Rejected { reason }
        | Self::Unavailable { reason, .. }
        | Self::Trapped { reason }
        | Self::TimedOut { reason }
        | Self::LimitExceeded { reason }
        | Self::Undecodable { reason }
        | Self::Unrouted { reason }
        | Self::Expired { reason }
        | Self::HostDied { reason } = &mut self
        {
            change(reason);
        }
        self
    }

    /// Why it ended like this; empty for [`Outcome::Delivered`].
    pub fn reason(&self) -> &str {
        match self {
            Self::Delivered => "",
            Self::Retry { reason, .. }
            | Self::Rejected { reason }
            | Self::Unavailable { reason, .. }
            | Self::Trapped { reason }
            | Self::TimedOut { reason }
            | Self::LimitExceeded { reason }
            | Self::Undecodable { reason }
            | Self::Unrouted { reason }
            | Self::Expired { reason }
            | Self::HostDied { reason } => reason,
        }
    }
}

/// Why a native publisher did not publish an event: the same three answers that a component can give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// This event failed now and may succeed later; uses up one attempt.
    #[error("retryable: {reason}")]
    Retryable {
        /// What went wrong.
        reason: String,
        /// The shortest time until the next attempt.
        after: Option<Duration>,
    },
    /// This event will never succeed: it becomes a dead letter at once.
    #[error("rejected: {reason}")]
    Rejected {
        /// Why.
        reason: String,
    },
    /// No event can be published now; the publisher is paused and no attempt is used up.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// The shortest time until the next attempt.
        after: Option<Duration>,
    },
}

impl PublishError {
    /// This event failed now and may succeed later.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable { reason: reason.into(), after: None }
    }

    /// This event will never succeed.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected { reason: reason.into() }
    }

    /// No event can be published now.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), after: None }
    }

    /// The same error with the shortest time until the next attempt; a rejection has none and stays as it is.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        match &mut self {
            Self::Retryable { after, .. } | Self::Unavailable { after, .. } => *after = Some(delay),
            Self::Rejected { .. } => {}
        }
        self
    }
}

impl From<Result<(), PublishError>> for Outcome {
    fn from(result: Result<(), PublishError>) -> Self {
        match result {
            Ok(()) => Self::Delivered,
            Err(PublishError::Retryable { reason, after }) => Self::Retry { reason, after },
            Err(PublishError::Rejected { reason }) => Self::Rejected { reason },
            Err(PublishError::Unavailable { reason, after }) => Self::Unavailable { reason, after },
        }
    }
}
