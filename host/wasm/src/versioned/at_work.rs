//! The versions of a publisher that are at work, and which of them an event goes to.

use std::sync::Arc;

use outbox_engine::outbox::{CanaryShare, Counts};
use outbox_engine::{Attempt, Outcome, Publisher, Recorded, StreamKey};
use parking_lot::RwLock;

use super::tally::{Tally, one};
use crate::publisher::ComponentPublisher;

/// Where the versions at work are kept: calls read them, and the follower of the deployments swaps them.
pub(super) struct Versions(RwLock<Arc<AtWork>>);

impl Versions {
    /// No version is at work yet, for this reason.
    pub(super) fn none(without: String) -> Self {
        Self(RwLock::new(Arc::new(AtWork { without, ..AtWork::default() })))
    }

    pub(super) fn at_work(&self) -> Arc<AtWork> {
        self.0.read().clone()
    }

    /// Every call that begins from now on uses these versions.
    pub(super) fn swap(&self, next: AtWork) {
        *self.0.write() = Arc::new(next);
    }
}

/// The versions that publish.
#[derive(Clone, Default)]
pub(super) struct AtWork {
    pub(super) active: Option<Arc<Loaded>>,
    pub(super) canary: Option<(Arc<Loaded>, CanaryShare)>,
    /// Why there is no active version.
    pub(super) without: String,
}

/// A version that can be called.
pub(super) struct Loaded {
    pub(super) version: u32,
    pub(super) publisher: Arc<ComponentPublisher>,
    /// The outcomes of all calls since they were last stored.
    pub(super) calls: Tally,
    /// The outcomes of first attempts since the current trial began.
    pub(super) trial: Tally,
}

impl AtWork {
    /// The version for this event, and whether it is on trial. All events of a stream have the same version.
    pub(super) fn of(&self, event: &Recorded) -> Option<(&Arc<Loaded>, bool)> {
        let canary = self.canary.as_ref().filter(|(_, share)| {
            let stream = StreamKey::of(event.tenant_id.as_bytes(), event.stream_id.id.as_bytes());
            is_within(stream, *share)
        });
        match canary {
            Some((canary, _)) => Some((canary, true)),
            None => self.active.as_ref().map(|active| (active, false)),
        }
    }

    /// Publishes events of one version with one call.
    pub(super) async fn publish_batch(&self, events: &[Recorded]) -> Vec<Attempt> {
        let Some((loaded, on_trial)) = events.first().and_then(|event| self.of(event)) else {
            return events.iter().map(|_| self.unavailable()).collect();
        };
        let attempts = events.iter().zip(loaded.publisher.publish_batch(events).await);
        let mut has_trapped = false;
        let answered = attempts.map(|(event, attempt)| {
            // A call that traps does so for all of its events, and each of them is called again: it counts once.
            let counts = one(&attempt.outcome);
            if counts.trapped == 0 || !std::mem::replace(&mut has_trapped, true) {
                loaded.count(event, counts);
            }
            Loaded::marked(attempt, on_trial)
        });
        answered.collect()
    }

    /// The active version, then the canary.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.active.iter().chain(self.canary.as_ref().map(|(canary, _)| canary))
    }

    /// The version with this number.
    pub(super) fn find(&self, version: u32) -> Option<&Arc<Loaded>> {
        self.versions().find(|loaded| loaded.version == version)
    }

    pub(super) fn has(&self, loaded: &Arc<Loaded>) -> bool {
        self.versions().any(|at_work| Arc::ptr_eq(at_work, loaded))
    }

    pub(super) fn unavailable(&self) -> Attempt {
        Outcome::Unavailable { reason: self.without.clone(), after: None }.into()
    }
}

impl PartialEq for AtWork {
    fn eq(&self, other: &Self) -> bool {
        let versions = |at_work: &Self| {
            let canary = at_work.canary.as_ref().map(|(canary, share)| (canary.version, *share));
            (at_work.active.as_ref().map(|active| active.version), canary)
        };
        versions(self) == versions(other)
    }
}

/// Whether a stream is in this share of all streams. The answer is the same in every process, and a larger share
/// includes the streams of a smaller one.
fn is_within(stream: StreamKey, share: CanaryShare) -> bool {
    let mixed = stream.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed * u64::from(CanaryShare::WHOLE)) >> 32 < u64::from(share.parts())
}

impl Loaded {
    pub(super) fn new(version: u32, publisher: Arc<ComponentPublisher>) -> Self {
        Self { version, publisher, calls: Tally::default(), trial: Tally::default() }
    }

    /// Counts a call, and marks a canary's attempt as on trial.
    pub(super) fn answered(&self, event: &Recorded, attempt: Attempt, on_trial: bool) -> Attempt {
        self.count(event, one(&attempt.outcome));
        Self::marked(attempt, on_trial)
    }

    fn count(&self, event: &Recorded, counts: Counts) {
        self.calls.add(counts);
        if event.attempt == 1 {
            self.trial.add(counts);
        }
    }

    fn marked(attempt: Attempt, on_trial: bool) -> Attempt {
        if !on_trial {
            return attempt;
        }
        // The active version may be able to publish what the canary cannot: nothing is paused for the canary.
        let outcome = match attempt.outcome {
            Outcome::Unavailable { reason, after } => Outcome::Retry { reason, after },
            other => other,
        };
        Attempt { outcome, on_trial, ..attempt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_streams_is_nearly_that_and_grows_with_it() {
        let streams: Vec<StreamKey> =
            (0..100_000).map(|number| StreamKey::of(b"default", format!("order-{number}").as_bytes())).collect();
        let share = |parts| CanaryShare::from_parts(parts).unwrap();
        for (parts, about) in [(100, 1_000), (500, 5_000), (5_000, 50_000), (9_900, 99_000)] {
            let within = streams.iter().filter(|stream| is_within(**stream, share(parts))).count();
            assert!((about * 9 / 10..=about * 11 / 10).contains(&within), "{parts}: {within}");
        }
        assert!(streams.iter().all(|stream| !is_within(*stream, share(500)) || is_within(*stream, share(900))));
    }
}
