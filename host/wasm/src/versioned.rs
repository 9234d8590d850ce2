//! A publisher whose versions are kept in the outbox, and are swapped while it publishes.
//!
//! Each call uses the versions that are at work when it begins, and keeps its version until it ends. So a swap happens
//! between two calls, and an old version is dropped after its last call. A requested version is compiled, instantiated
//! and configured on a thread of its own, and swapped in only after that has succeeded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use outbox_engine::outbox::{CanaryShare, Counts, Deployments, PublisherVersion, StorageError, VersionState};
use outbox_engine::text::shown;
use outbox_engine::{
    Attempt, BoxFuture, CanaryRules, Maintenance, Outcome, Publisher, Recorded, StreamKey, Verdict, Withdrawn, judge,
};
use parking_lot::{Mutex, RwLock};

use super::load_error::LoadError;
use super::loading::Loading;
use super::publisher::ComponentPublisher;
use super::settings::Settings;

/// A version is refused after the host has died this many times while it activated it.
const ACTIVATIONS_MAX: u32 = 3;
/// How often the counts of the versions are stored.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// How often to look whether a version has been loaded, and how often to judge a canary.
const LOADING_PAUSE: Duration = Duration::from_millis(5);
const TRIAL_PAUSE: Duration = Duration::from_millis(100);

/// A publisher with the versions that the outbox's [`Deployments`] keeps under its name.
///
/// A relay keeps it up to date ([`Publisher::maintain`]): it loads the active version, activates a requested one, and
/// judges a canary. Until there is an active version, every call is [`Outcome::Unavailable`].
pub struct VersionedPublisher {
    name: Arc<str>,
    settings: Settings,
    rules: CanaryRules,
    at_work: RwLock<Arc<AtWork>>,
    upkeep: Mutex<Upkeep>,
}

/// The versions that publish.
#[derive(Clone, Default)]
struct AtWork {
    active: Option<Arc<Loaded>>,
    canary: Option<(Arc<Loaded>, CanaryShare)>,
    /// Why there is no active version.
    without: String,
}

/// A version that can be called.
struct Loaded {
    version: u32,
    publisher: Arc<ComponentPublisher>,
    /// The outcomes of all calls since they were last stored.
    calls: Tally,
    /// The outcomes of first attempts since the current trial began.
    trial: Tally,
}

#[derive(Default)]
struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
    trapped: AtomicU64,
}

/// What it remembers from one maintenance to the next.
#[derive(Default)]
struct Upkeep {
    /// The generation of the deployments that was followed last.
    generation: Option<u64>,
    /// Whether to follow the registry again although it has not changed, because a version has been loaded.
    look_again: bool,
    loading: Option<(PublisherVersion, Loading)>,
    /// The active version, if it could not be loaded.
    broken: Option<u32>,
    counted_at: Option<Instant>,
    /// Versions that are no longer at work, but whose last calls are not counted yet.
    leaving: Vec<Arc<Loaded>>,
}

impl VersionedPublisher {
    /// The publisher with this name in the outbox. All of its versions run with these settings.
    pub fn new(name: &str, settings: Settings, rules: CanaryRules) -> Self {
        let without = format!("no version of {name} is active: `outbox publisher deploy {name} FILE` deploys one");
        let at_work = AtWork { without, ..AtWork::default() };
        Self { name: name.into(), settings, rules, at_work: RwLock::new(Arc::new(at_work)), upkeep: Mutex::default() }
    }

    /// Its name in the outbox.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn at_work(&self) -> Arc<AtWork> {
        self.at_work.read().clone()
    }

    /// Every call that begins from now on uses these versions.
    fn swap(&self, next: AtWork) {
        *self.at_work.write() = Arc::new(next);
    }
}

// --- publishing --------------------------------------------------------------------------------------------------------

impl AtWork {
    /// The version for this event, and whether it is on trial. All events of a stream have the same version.
    fn of(&self, event: &Recorded) -> Option<(&Arc<Loaded>, bool)> {
        let canary = self.canary.as_ref().filter(|(_, share)| {
            let stream = StreamKey::of(event.tenant_id.as_bytes(), event.stream_id.id.as_bytes());
            is_within(stream, *share)
        });
        match canary {
            Some((canary, _)) => Some((canary, true)),
            None => self.active.as_ref().map(|active| (active, false)),
        }
    }

    fn unavailable(&self) -> Attempt {
        Outcome::Unavailable { reason: self.without.clone(), after: None }.into()
    }
}

/// Whether a stream is in this share of all streams. The answer is the same in every process, and a larger share
/// includes the streams of a smaller one.
fn is_within(stream: StreamKey, share: CanaryShare) -> bool {
    let mixed = stream.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed * u64::from(CanaryShare::WHOLE)) >> 32 < u64::from(share.parts())
}

impl Loaded {
    /// Counts a call, and marks a canary's attempt as on trial.
    fn answered(&self, event: &Recorded, attempt: Attempt, on_trial: bool) -> Attempt {
        let counts = counts(&attempt.outcome);
        self.calls.add(counts);
        if event.attempt == 1 {
            self.trial.add(counts);
        }
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

fn counts(outcome: &Outcome) -> Counts {
    let (delivered, failed, trapped) = match outcome {
        Outcome::Delivered => (1, 0, 0),
        Outcome::Trapped { .. } | Outcome::TimedOut { .. } | Outcome::LimitExceeded { .. } => (0, 0, 1),
        _ => (0, 1, 0),
    };
    Counts { delivered, failed, trapped }
}

impl Tally {
    fn add(&self, counts: Counts) {
        for (sum, more) in self.sums().into_iter().zip([counts.delivered, counts.failed, counts.trapped]) {
            if more > 0 {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> Counts {
        let [delivered, failed, trapped] = self.sums().map(|sum| sum.load(Ordering::Relaxed));
        Counts { delivered, failed, trapped }
    }

    fn take(&self) -> Counts {
        let [delivered, failed, trapped] = self.sums().map(|sum| sum.swap(0, Ordering::Relaxed));
        Counts { delivered, failed, trapped }
    }

    fn sums(&self) -> [&AtomicU64; 3] {
        [&self.delivered, &self.failed, &self.trapped]
    }
}

impl Publisher for VersionedPublisher {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let at_work = self.at_work();
        Box::pin(async move {
            let Some((loaded, on_trial)) = at_work.of(event) else { return at_work.unavailable() };
            let attempt = loaded.publisher.publish_one(event).await;
            loaded.answered(event, attempt, on_trial)
        })
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        let at_work = self.at_work();
        Box::pin(async move {
            let mut attempts = Vec::with_capacity(events.len());
            let version = |event: &Recorded| at_work.of(event).map(|(loaded, _)| loaded.version);
            for same in events.chunk_by(|a, b| version(a) == version(b)) {
                let Some((loaded, on_trial)) = same.first().and_then(|event| at_work.of(event)) else {
                    attempts.extend(same.iter().map(|_| at_work.unavailable()));
                    continue;
                };
                let answers = loaded.publisher.publish_batch(same).await;
                let answers = same.iter().zip(answers);
                attempts.extend(answers.map(|(event, attempt)| loaded.answered(event, attempt, on_trial)));
            }
            attempts
        })
    }

    fn max_batch(&self) -> usize {
        let at_work = self.at_work();
        let versions = at_work.active.iter().chain(at_work.canary.as_ref().map(|(canary, _)| canary));
        versions.map(|loaded| loaded.publisher.max_batch()).max().unwrap_or(1)
    }

    fn maintain(&self, deployments: &dyn Deployments, now: Timestamp) -> Result<Maintenance, StorageError> {
        let mut upkeep = self.upkeep.lock();
        let mut maintenance = Maintenance::default();
        self.count_when_due(&mut upkeep, deployments)?;
        self.judge_canary(deployments, now)?;
        let generation = deployments.registry_generation()?;
        let has_changed = upkeep.generation != Some(generation);
        if has_changed {
            upkeep.broken = None;
        }
        if has_changed || upkeep.look_again {
            self.follow(&mut upkeep, deployments, &mut maintenance)?;
            (upkeep.generation, upkeep.look_again) = (Some(generation), false);
        }
        self.finish_loading(&mut upkeep, deployments, now, &mut maintenance)?;
        // After one version, another one may have to be loaded: ask the deployments first.
        let is_followed = !upkeep.look_again;
        let is_asked_for = |(version, _): &(PublisherVersion, Loading)| version.state == VersionState::Stored;
        maintenance.busy = upkeep.loading.is_some() || !is_followed;
        let is_on_trial = self.at_work().canary.is_some();
        maintenance.again = Some(match (maintenance.busy, is_on_trial) {
            (true, _) => LOADING_PAUSE,
            (false, true) => TRIAL_PAUSE,
            (false, false) => COUNT_PAUSE,
        });
        maintenance.ready =
            self.at_work().active.is_some() && is_followed && upkeep.loading.as_ref().is_none_or(is_asked_for);
        Ok(maintenance)
    }

    fn leave(&self, deployments: &dyn Deployments) -> Result<(), StorageError> {
        let mut upkeep = self.upkeep.lock();
        upkeep.generation = None;
        let counted = self.count(&mut upkeep, deployments);
        match upkeep.loading.take() {
            // The version is not to blame for the end of its activation.
            Some((version, _)) if version.state == VersionState::Stored => {
                deployments.activation_given_up(&self.name, version.version).and(counted)
            }
            _ => counted,
        }
    }
}

// --- following the deployments --------------------------------------------------------------------------------------------

impl VersionedPublisher {
    /// Puts the versions to work that the deployments name, and begins to load those that are not loaded yet.
    fn follow(
        &self,
        upkeep: &mut Upkeep,
        deployments: &dyn Deployments,
        maintenance: &mut Maintenance,
    ) -> Result<(), StorageError> {
        let versions = deployments.versions(Some(&self.name))?;
        let find = |state| versions.iter().find(|version| version.state == state);
        let (active, canary) = (find(VersionState::Active), find(VersionState::Canary));
        let before = self.at_work();
        let loaded = |version: &PublisherVersion| {
            let canary = before.canary.as_ref().map(|(canary, _)| canary);
            before.active.iter().chain(canary).find(|loaded| loaded.version == version.version).cloned()
        };
        let next = AtWork {
            // While it still has to be loaded, the previous active version goes on.
            active: active.and_then(|active| loaded(active).or_else(|| before.active.clone())),
            canary: canary.and_then(|canary| Some((loaded(canary)?, canary.canary?))),
            without: before.without.clone(),
        };
        if let Some((gone, _)) = before.canary.as_ref().filter(|(gone, _)| !next.has(gone)) {
            tracing::info!(publisher = &*self.name, version = gone.version, "the canary is no longer at work");
            let (publisher, digest) = (self.name.to_string(), gone.publisher.digest().to_string());
            maintenance.withdrawn.push(Withdrawn { publisher, digest });
        }
        maintenance.swapped |= next != *before;
        self.put_to_work(upkeep, next);
        // Versions at work come first; at most one version is requested.
        let missing = |version: &&PublisherVersion| loaded(version).is_none() && upkeep.broken != Some(version.version);
        let missing = [active, canary].into_iter().flatten().find(missing);
        let wanted = missing.or_else(|| find(VersionState::Stored));
        let is_loading = |version: &PublisherVersion| {
            upkeep.loading.as_ref().is_some_and(|(loading, _)| {
                (loading.version, loading.requested) == (version.version, version.requested)
            })
        };
        match wanted {
            None => upkeep.loading = None,
            Some(version) if is_loading(version) => {}
            Some(version) => self.begin_to_load(upkeep, deployments, version)?,
        }
        Ok(())
    }

    fn put_to_work(&self, upkeep: &mut Upkeep, next: AtWork) {
        let before = self.at_work();
        let were = before.active.iter().chain(before.canary.as_ref().map(|(canary, _)| canary));
        upkeep.leaving.extend(were.filter(|loaded| !next.has(loaded)).cloned());
        self.swap(next);
    }

    fn begin_to_load(
        &self,
        upkeep: &mut Upkeep,
        deployments: &dyn Deployments,
        version: &PublisherVersion,
    ) -> Result<(), StorageError> {
        upkeep.loading = None;
        let number = version.version;
        if version.state == VersionState::Stored {
            // Counted before the activation begins, to find out a module that kills the host.
            let Some(tries) = deployments.begin_activation(&self.name, number)? else { return Ok(()) };
            if tries > ACTIVATIONS_MAX {
                let died = tries - 1;
                let reason = format!("the relay's process died {died} times while it activated this version");
                return self.refuse(upkeep, deployments, version, &reason);
            }
        }
        let bytes_max = self.settings.limits.module_bytes;
        if usize::try_from(version.size).is_ok_and(|size| size > bytes_max) {
            let too_large = LoadError::TooLarge { name: self.name.to_string(), bytes_max };
            return self.refuse(upkeep, deployments, version, &too_large.to_string());
        }
        let bytes = match deployments.module(&version.digest) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let reason = "its bytes are no longer in the database: deploy it again";
                return self.refuse(upkeep, deployments, version, reason);
            }
            Err(error @ StorageError::DamagedModule { .. }) => {
                return self.refuse(upkeep, deployments, version, &error.to_string());
            }
            Err(error) => return Err(error),
        };
        tracing::info!(publisher = &*self.name, version = number, digest = version.digest, "loading");
        // A version at work was configured once. If this fails now, its calls report that, and are tried again.
        let is_new = version.state == VersionState::Stored;
        let loading = Loading::begin(&self.name, bytes, self.settings.clone(), is_new);
        upkeep.loading = Some((version.clone(), loading));
        Ok(())
    }

    /// Takes in a loaded version: a requested version becomes active or the canary, and a version that is at work by
    /// the registry is put to work.
    fn finish_loading(
        &self,
        upkeep: &mut Upkeep,
        deployments: &dyn Deployments,
        now: Timestamp,
        maintenance: &mut Maintenance,
    ) -> Result<(), StorageError> {
        let Some((version, loading)) = &mut upkeep.loading else { return Ok(()) };
        let Some(result) = loading.result() else { return Ok(()) };
        let version = version.clone();
        let number = version.version;
        let at_work = matches!(version.state, VersionState::Active | VersionState::Canary);
        let share = version.canary.filter(|_| version.state != VersionState::Active);
        // The deployments come first: a version that they do not take is not put to work. Nothing is forgotten before
        // they have answered.
        let taken = match (&result, share) {
            (Err(reason), _) => self.refuse(upkeep, deployments, &version, reason).map(|()| false)?,
            (Ok(_), _) if at_work => true,
            (Ok(_), Some(_)) => deployments.canary_started(&self.name, number, now)?,
            (Ok(_), None) => deployments.activated(&self.name, number, now)?,
        };
        // The registry is asked again what is next.
        (upkeep.loading, upkeep.look_again) = (None, true);
        // Not taken if somebody has requested another version meanwhile.
        let Some(publisher) = result.ok().filter(|_| taken) else { return Ok(()) };
        let loaded = Arc::new(Loaded { version: number, publisher, calls: Tally::default(), trial: Tally::default() });
        let mut next = (*self.at_work()).clone();
        let digest = loaded.publisher.digest().clone();
        match share {
            Some(share) => {
                // Both versions are compared by their calls from now on.
                if let Some(active) = &next.active {
                    active.trial.take();
                }
                next.canary = Some((loaded, share));
                tracing::info!(
                    publisher = &*self.name,
                    version = number,
                    digest = &*digest,
                    "canary: {} of the streams",
                    shown(share)
                );
            }
            None => {
                next.active = Some(loaded);
                if version.state == VersionState::Stored {
                    next.canary = None;
                }
                tracing::info!(publisher = &*self.name, version = number, digest = &*digest, "active");
            }
        }
        self.put_to_work(upkeep, next);
        maintenance.swapped = true;
        Ok(())
    }

    /// Refuses a requested version. An active version that cannot be loaded stays active: nothing replaces it, and the
    /// fault may be this machine's.
    fn refuse(
        &self,
        upkeep: &mut Upkeep,
        deployments: &dyn Deployments,
        version: &PublisherVersion,
        reason: &str,
    ) -> Result<(), StorageError> {
        let number = version.version;
        tracing::error!(
            publisher = &*self.name,
            version = number,
            "the version cannot be activated: {}",
            shown(reason)
        );
        if version.state == VersionState::Active {
            upkeep.broken = Some(number);
            let mut next = (*self.at_work()).clone();
            next.without = format!("version {number} of {} is active, and cannot be loaded: {reason}", self.name);
            self.swap(next);
            return Ok(());
        }
        deployments.refused(&self.name, number, reason).map(|_| ())
    }

    /// Promotes or withdraws the canary, if there is one; following the deployments does the rest.
    fn judge_canary(&self, deployments: &dyn Deployments, now: Timestamp) -> Result<(), StorageError> {
        let at_work = self.at_work();
        let (Some((canary, _)), Some(active)) = (&at_work.canary, &at_work.active) else { return Ok(()) };
        let number = canary.version;
        match judge(canary.trial.read(), active.trial.read(), &self.rules) {
            Verdict::Continue => Ok(()),
            Verdict::Promote => {
                tracing::info!(publisher = &*self.name, version = number, "the canary is promoted");
                deployments.activated(&self.name, number, now).map(|_| ())
            }
            Verdict::Withdraw { reason } => {
                tracing::error!(
                    publisher = &*self.name,
                    version = number,
                    "the canary is withdrawn: {}",
                    shown(&reason)
                );
                deployments.refused(&self.name, number, &reason).map(|_| ())
            }
        }
    }

    fn count_when_due(&self, upkeep: &mut Upkeep, deployments: &dyn Deployments) -> Result<(), StorageError> {
        if upkeep.counted_at.is_some_and(|at| at.elapsed() < COUNT_PAUSE) {
            return Ok(());
        }
        self.count(upkeep, deployments)
    }

    /// Stores the counts of the versions since the last time.
    fn count(&self, upkeep: &mut Upkeep, deployments: &dyn Deployments) -> Result<(), StorageError> {
        upkeep.counted_at = Some(Instant::now());
        let at_work = self.at_work();
        let present = at_work.active.iter().chain(at_work.canary.as_ref().map(|(canary, _)| canary));
        for loaded in present.chain(&upkeep.leaving) {
            let counts = loaded.calls.take();
            if counts != Counts::default()
                && let Err(error) = deployments.count(&self.name, loaded.version, counts)
            {
                loaded.calls.add(counts);
                return Err(error);
            }
        }
        // A version is dropped from the list once nothing else holds it, and its last calls are counted.
        upkeep.leaving.retain(|loaded| Arc::strong_count(loaded) > 1 || loaded.calls.read() != Counts::default());
        Ok(())
    }
}

impl AtWork {
    fn has(&self, loaded: &Arc<Loaded>) -> bool {
        let canary = self.canary.as_ref().map(|(canary, _)| canary);
        self.active.iter().chain(canary).any(|at_work| Arc::ptr_eq(at_work, loaded))
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

impl fmt::Debug for VersionedPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_work = self.at_work();
        f.debug_struct("VersionedPublisher")
            .field("name", &self.name)
            .field("active", &at_work.active.as_ref().map(|active| active.version))
            .field("canary", &at_work.canary.as_ref().map(|(canary, _)| canary.version))
            .finish()
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
