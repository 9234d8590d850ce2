//! The seam between the relay and whatever publishes: a native closure or a WebAssembly component.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;

use crate::outbox::{Deployments, StorageError};
use crate::recorded::Recorded;

pub use crate::attempt::{Attempt, Outcome, PublishError};

/// A future that may be sent to another thread, as [`Publisher`] returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that brings one event to its destination.
///
/// A closure from `&Recorded` to `Result<(), PublishError>` is a publisher:
///
/// ```
/// use outbox_engine::{PublishError, Publisher, Recorded};
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

    /// Publishes several events, of one stream or of many, in the order given, and answers for each, in the same order. Called
    /// with two events or more, and at most [`max_batch`](Self::max_batch), unless the
    /// [options](crate::PublisherOptions::batch_max) ask for more.
    ///
    /// A stream's events are in order. Behind one that is to be tried again, the later ones of its stream are offered again,
    /// whatever was answered for them; those of other streams are settled by their own answers. When every event fails, or
    /// some trap or are out of time, the call is no attempt of those: each is offered again alone.
    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            let mut attempts = Vec::with_capacity(events.len());
            for event in events {
                attempts.push(self.publish(event).await);
            }
            attempts
        })
    }

    /// How many events [`publish_batch`](Self::publish_batch) takes at once; 1 if a batch gains nothing.
    fn max_batch(&self) -> usize {
        1
    }

    /// Follows the version changes in its deployments. The relay that holds the lease calls this before the first
    /// event, then on a thread of its own after each change of the outbox, and when [`Maintenance::again`] says so. It
    /// does not wait for slow work. A publisher without versions has nothing to do.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the relay calls it again.
    fn maintain(&self, _deployments: &dyn Deployments, _now: Timestamp) -> Result<Maintenance, StorageError> {
        Ok(Maintenance::default())
    }

    /// Called when the relay has ended its work, after the last call.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; it is not called again.
    fn leave(&self, _deployments: &dyn Deployments) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The result of [`Publisher::maintain`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maintenance {
    /// Whether other versions publish than before: an unavailable publisher may be available now.
    pub swapped: bool,
    /// Whether work is under way that will soon change which versions publish.
    pub busy: bool,
    /// Whether there is a version at work, and every version at work publishes.
    pub ready: bool,
    /// How soon to call it again, even if the outbox has not changed. None if there is no need.
    pub again: Option<Duration>,
    /// The canaries that no longer publish.
    pub withdrawn: Vec<Withdrawn>,
}

/// A canary that no longer publishes: the attempts that it used up are given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// The publisher's name.
    pub publisher: String,
    /// The sha256 digest of the module, in hex.
    pub digest: String,
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
