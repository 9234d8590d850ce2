//! A publisher whose versions are kept in the outbox, and are swapped while it publishes.
//!
//! Each call uses the versions that are at work when it begins, and keeps its version until it ends. So a swap happens
//! between two calls, and an old version is dropped after its last call. A requested version is compiled, instantiated
//! and configured on a thread of its own, and swapped in only after that has succeeded.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use outbox_engine::outbox::{Deployments, StorageError};
use outbox_engine::{Attempt, BoxFuture, CanaryRules, Maintenance, Publisher, Recorded};
use parking_lot::Mutex;

use self::at_work::Versions;
use self::follow::Follower;
use super::settings::Settings;

mod at_work;
mod count;
mod follow;
mod tally;

/// A publisher with the versions that the outbox's [`Deployments`] keeps under its name.
///
/// A relay keeps it up to date ([`Publisher::maintain`]): it loads the active version, activates a requested one, and
/// judges a canary. Until there is an active version, every call is
/// [`Outcome::Unavailable`](outbox_engine::Outcome::Unavailable).
pub struct VersionedPublisher {
    name: Arc<str>,
    versions: Arc<Versions>,
    follower: Mutex<Follower>,
}

impl VersionedPublisher {
    /// The publisher with this name in the outbox. All of its versions run with these settings.
    pub fn new(name: &str, settings: Settings, rules: CanaryRules) -> Self {
        let without = format!("no version of {name} is active: `outbox publisher deploy {name} FILE` deploys one");
        let (name, versions) = (Arc::from(name), Arc::new(Versions::none(without)));
        let follower = Follower::new(Arc::clone(&name), settings, rules, Arc::clone(&versions));
        Self { name, versions, follower: Mutex::new(follower) }
    }

    /// Its name in the outbox.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Publisher for VersionedPublisher {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let at_work = self.versions.at_work();
        Box::pin(async move {
            let Some((loaded, on_trial)) = at_work.of(event) else { return at_work.unavailable() };
            let attempt = loaded.publisher.publish_one(event).await;
            loaded.answered(event, attempt, on_trial)
        })
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        let at_work = self.versions.at_work();
        Box::pin(async move {
            let is_on_trial = |event: &Recorded| at_work.of(event).map(|(_, on_trial)| on_trial);
            let Some(first) = events.first().map(is_on_trial) else { return Vec::new() };
            if events.iter().all(|event| is_on_trial(event) == first) {
                return at_work.publish_batch(events).await;
            }
            // Each version gets its own events with one call, at the same time: a canary that hangs holds up no others.
            let of = |on_trial| events.iter().filter(|event| is_on_trial(event) == Some(on_trial)).cloned().collect();
            let (active, canary): (Vec<Recorded>, Vec<Recorded>) = (of(false), of(true));
            let (active, canary) = tokio::join!(at_work.publish_batch(&active), at_work.publish_batch(&canary));
            let (mut active, mut canary) = (active.into_iter(), canary.into_iter());
            let answer = |event| if is_on_trial(event) == Some(true) { canary.next() } else { active.next() };
            events.iter().filter_map(answer).collect()
        })
    }

    fn max_batch(&self) -> usize {
        let at_work = self.versions.at_work();
        at_work.versions().map(|loaded| loaded.publisher.max_batch()).max().unwrap_or(1)
    }

    fn maintain(&self, deployments: &dyn Deployments, now: Timestamp) -> Result<Maintenance, StorageError> {
        self.follower.lock().maintain(deployments, now)
    }

    fn leave(&self, deployments: &dyn Deployments) -> Result<(), StorageError> {
        self.follower.lock().leave(deployments)
    }
}

impl fmt::Debug for VersionedPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_work = self.versions.at_work();
        f.debug_struct("VersionedPublisher")
            .field("name", &self.name)
            .field("active", &at_work.active.as_ref().map(|active| active.version))
            .field("canary", &at_work.canary.as_ref().map(|(canary, _)| canary.version))
            .finish()
    }
}
