//! The seam to what publishes: a native closure and a WebAssembly component are both a [`Publisher`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::outbox::{Registry, StorageError};
use crate::recorded::Recorded;

pub mod component;
mod loading;
mod versioned;
mod watched;

pub use versioned::VersionedPublisher;
pub use watched::WatchedPublisher;

/// A future that may be sent to another thread, as [`Publisher`] returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that brings one event to its destination.
///
/// A closure from `&Recorded` to `Result<(), PublishError>` is a publisher:
///
/// ```
/// use outbox_host::{PublishError, Publisher, Recorded};
///
/// fn check(_publisher: &impl Publisher) {}
///
/// check(&|event: &Recorded| match event.wrapped_event.name.as_str() {
///     "order.placed" => Ok(()),
///     other => Err(PublishError::rejected(format!("no route for {other}"))),
/// });
/// ```
pub trait Publisher: Send + Sync {
    /// Publishes one event. Called at least once for each entry, never while a database transaction is open, and for
    /// one stream never twice at once. A panic counts as a trap.
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt>;

    /// Publishes several events, in the order given, and answers for each, in the same order. Called with two events
    /// or more and at most [`max_batch`](Self::max_batch).
    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            let mut attempts = Vec::with_capacity(events.len());
            for event in events {
                attempts.push(self.publish(event).await);
            }
            attempts
        })
    }

    /// How many events [`publish_batch`](Self::publish_batch) takes at once; 1 where a batch gains nothing.
    fn max_batch(&self) -> usize {
        1
    }

    /// Becomes what the registry says that it is to be. A relay that has the lease calls this before the first event, and
    /// on a thread of its own after each change of the outbox, and when [`Kept::again`] says. It does not wait for what takes
    /// long. A publisher without versions has nothing to do.
    ///
    /// # Errors
    ///
    /// [`StorageError`]: it is called again.
    fn keep_up(&self, _registry: &dyn Registry, _now: Timestamp) -> Result<Kept, StorageError> {
        Ok(Kept::default())
    }

    /// The relay has ended its work: the last call was made.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; it is not called again.
    fn leave(&self, _registry: &dyn Registry) -> Result<(), StorageError> {
        Ok(())
    }
}

/// What came of [`Publisher::keep_up`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Whether other versions publish than before: one that was unavailable may be there now.
    pub swapped: bool,
    /// Whether something is under way that will change it soon.
    pub busy: bool,
    /// Whether every version that is at work publishes, one at least.
    pub ready: bool,
    /// How soon it is to be called again, though the outbox has not changed; none where there is no need.
    pub again: Option<Duration>,
    /// The canaries that publish no longer.
    pub withdrawn: Vec<Withdrawn>,
}

/// A canary that publishes no longer: the attempts that it used up are given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// The publisher's name.
    pub publisher: String,
    /// The sha256 digest of the module, in hex.
    pub digest: String,
}

/// What became of one attempt to publish, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// The name of the publisher that made it, where it has one.
    pub publisher: Option<Arc<str>>,
    /// The sha256 digest (hex) of the module that made it; none for a native publisher.
    pub digest: Option<Arc<str>>,
    /// The last lines that the guest wrote to its standard error during a failed call; empty otherwise.
    pub stderr: String,
    /// Whether a version on trial made it: no entry is set aside for its failure.
    pub on_trial: bool,
}

impl From<Outcome> for Attempt {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, publisher: None, digest: None, stderr: String::new(), on_trial: false }
    }
}

/// How an attempt to publish one event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has the event.
    Delivered,
    /// The publisher asks for another try.
    Retry {
        /// What went wrong.
        reason: String,
        /// The shortest time until the next attempt, where the publisher named one.
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
        /// The shortest time until the next attempt, where the publisher named one.
        after: Option<Duration>,
    },
    /// The guest trapped, or broke the contract.
    Trapped {
        /// The trap's message and backtrace.
        reason: String,
    },
    /// The call was not done within its time limit.
    TimedOut {
        /// Which limit it was.
        reason: String,
    },
    /// The guest ran into a limit other than time: memory, size of its answer, host calls.
    LimitExceeded {
        /// Which limit it was.
        reason: String,
    },
    /// The row is no valid [`Recorded`]; no publisher was called.
    Undecodable {
        /// Which part of the row, and why.
        reason: String,
    },
    /// No route leads from this event to a publisher; none was called.
    Unrouted {
        /// What the event's name, category and tenant are.
        reason: String,
    },
    /// The host died while this event was being published; found out by the next host.
    HostDied {
        /// What is known about it.
        reason: String,
    },
}

impl Outcome {
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

    /// The same outcome with its reason changed, where it has one.
    pub(crate) fn map_reason(mut self, change: impl FnOnce(&mut String)) -> Self {
        if let Self::Retry { reason, .. }
        | Self::Rejected { reason }
        | Self::Unavailable { reason, .. }
        | Self::Trapped { reason }
        | Self::TimedOut { reason }
        | Self::LimitExceeded { reason }
        | Self::Undecodable { reason }
        | Self::Unrouted { reason }
        | Self::HostDied { reason } = &mut self
        {
            change(reason);
        }
        self
    }

    /// Why it ended so; empty for [`Outcome::Delivered`].
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

impl<F> Publisher for F
where
    F: Fn(&Recorded) -> Result<(), PublishError> + Send + Sync,
{
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let attempt = Attempt::from(Outcome::from(self(event)));
        Box::pin(std::future::ready(attempt))
    }
}
