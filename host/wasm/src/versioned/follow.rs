//! Follows the deployments of a publisher: loads the versions that they name, puts them to work, and judges a canary.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outbox_engine::outbox::{CanaryShare, Deployments, PublisherVersion, StorageError, VersionState};
use outbox_engine::text::shown;
use outbox_engine::{CanaryRules, Maintenance, Verdict, Withdrawn, judge};

use super::at_work::{AtWork, Loaded, Versions};
use super::count::{COUNT_PAUSE, Counting};
use crate::load_error::LoadError;
use crate::loading::Loading;
use crate::publisher::ComponentPublisher;
use crate::settings::Settings;

/// A version is refused after the host has died this many times while it activated it.
const ACTIVATIONS_MAX: u32 = 3;
/// How often to look whether a version has been loaded, and how often to judge a canary.
const LOADING_PAUSE: Duration = Duration::from_millis(5);
const TRIAL_PAUSE: Duration = Duration::from_millis(100);

/// Follows the deployments, with what it remembers from one maintenance to the next.
pub(super) struct Follower {
    name: Arc<str>,
    settings: Settings,
    rules: CanaryRules,
    versions: Arc<Versions>,
    counting: Counting,
    /// The generation of the deployments that was followed last.
    generation: Option<u64>,
    /// Whether to follow the deployments again although they have not changed, because a version has been loaded.
    look_again: bool,
    loading: Option<(PublisherVersion, Loading)>,
    /// The active version, if it could not be loaded.
    broken: Option<u32>,
}

impl Follower {
    pub(super) fn new(name: Arc<str>, settings: Settings, rules: CanaryRules, versions: Arc<Versions>) -> Self {
        Self {
            name,
            settings,
            rules,
            versions,
            counting: Counting::default(),
            generation: None,
            look_again: false,
            loading: None,
            broken: None,
        }
    }

    /// Does what is due.
    pub(super) fn maintain(
        &mut self,
        deployments: &dyn Deployments,
        now: Timestamp,
    ) -> Result<Maintenance, StorageError> {
        let mut maintenance = Maintenance::default();
        self.counting.count_when_due(&self.name, &self.versions.at_work(), deployments)?;
        self.judge_canary(deployments, now)?;
        let generation = deployments.registry_generation()?;
        let has_changed = self.generation != Some(generation);
        if has_changed {
            self.broken = None;
        }
        if has_changed || self.look_again {
            self.follow(deployments, &mut maintenance)?;
            (self.generation, self.look_again) = (Some(generation), false);
        }
        self.finish_loading(deployments, now, &mut maintenance)?;
        self.report(&mut maintenance);
        Ok(maintenance)
    }

    /// Reports whether the publisher is ready, and when to look again.
    fn report(&self, maintenance: &mut Maintenance) {
        let at_work = self.versions.at_work();
        // After one version, another one may have to be loaded: ask the deployments first.
        let is_followed = !self.look_again;
        let is_asked_for = |(version, _): &(PublisherVersion, Loading)| version.state == VersionState::Stored;
        maintenance.busy = self.loading.is_some() || !is_followed;
        maintenance.again = Some(match (maintenance.busy, at_work.canary.is_some()) {
            (true, _) => LOADING_PAUSE,
            (false, true) => TRIAL_PAUSE,
            (false, false) => COUNT_PAUSE,
        });
        maintenance.ready = at_work.active.is_some() && is_followed && self.loading.as_ref().is_none_or(is_asked_for);
    }

    /// Stores the last counts, and gives up what is being loaded.
    pub(super) fn leave(&mut self, deployments: &dyn Deployments) -> Result<(), StorageError> {
        self.generation = None;
        let counted = self.counting.count(&self.name, &self.versions.at_work(), deployments);
        match self.loading.take() {
            // The version is not to blame for the end of its activation.
            Some((version, _)) if version.state == VersionState::Stored => {
                deployments.activation_given_up(&self.name, version.version).and(counted)
            }
            _ => counted,
        }
    }

    /// Puts the versions to work that the deployments name, and begins to load those that are not loaded yet.
    fn follow(&mut self, deployments: &dyn Deployments, maintenance: &mut Maintenance) -> Result<(), StorageError> {
        let versions = deployments.versions(Some(&self.name))?;
        let find = |state| versions.iter().find(|version| version.state == state);
        let (active, canary) = (find(VersionState::Active), find(VersionState::Canary));
        let before = self.versions.at_work();
        let next = AtWork {
            // While it still has to be loaded, the previous active version goes on.
            active: active.and_then(|active| before.find(active.version).or(before.active.as_ref()).cloned()),
            canary: canary.and_then(|canary| Some((before.find(canary.version)?.clone(), canary.canary?))),
            without: before.without.clone(),
        };
        if let Some((gone, _)) = before.canary.as_ref().filter(|(gone, _)| !next.has(gone)) {
            tracing::info!(publisher = &*self.name, version = gone.version, "the canary is no longer at work");
            let (publisher, digest) = (self.name.to_string(), gone.publisher.digest().to_string());
            maintenance.withdrawn.push(Withdrawn { publisher, digest });
        }
        maintenance.swapped |= next != *before;
        self.put_to_work(next);
        // Versions at work come first; at most one version is requested.
        let is_missing = |version: &&PublisherVersion| {
            before.find(version.version).is_none() && self.broken != Some(version.version)
        };
        let missing = [active, canary].into_iter().flatten().find(is_missing);
        match missing.or_else(|| find(VersionState::Stored)) {
            None => self.loading = None,
            Some(version) if self.is_loading(version) => {}
            Some(version) => self.begin_to_load(deployments, version)?,
        }
        Ok(())
    }

    fn put_to_work(&mut self, next: AtWork) {
        self.counting.swapped(&self.versions.at_work(), &next);
        self.versions.swap(next);
    }

    /// Whether this request of the version is being loaded.
    fn is_loading(&self, version: &PublisherVersion) -> bool {
        let requested = |version: &PublisherVersion| (version.version, version.requested);
        self.loading.as_ref().is_some_and(|(loading, _)| requested(loading) == requested(version))
    }

    fn begin_to_load(&mut self, deployments: &dyn Deployments, version: &PublisherVersion) -> Result<(), StorageError> {
        self.loading = None;
        let number = version.version;
        if version.state == VersionState::Stored {
            // Counted before the activation begins, to find out a module that kills the host.
            let Some(tries) = deployments.begin_activation(&self.name, number)? else { return Ok(()) };
            if tries > ACTIVATIONS_MAX {
                let died = tries - 1;
                let reason = format!("the relay's process died {died} times while it activated this version");
                return self.refuse(deployments, version, &reason);
            }
        }
        let bytes = match self.bytes(deployments, version)? {
            Ok(bytes) => bytes,
            Err(reason) => return self.refuse(deployments, version, &reason),
        };
        tracing::info!(publisher = &*self.name, version = number, digest = version.digest, "loading");
        // A version at work was configured once. If this fails now, its calls report that, and are tried again.
        let is_new = version.state == VersionState::Stored;
        let loading = Loading::begin(&self.name, bytes, self.settings.clone(), is_new);
        self.loading = Some((version.clone(), loading));
        Ok(())
    }

    /// The version's bytes, or why they cannot be loaded.
    fn bytes(
        &self,
        deployments: &dyn Deployments,
        version: &PublisherVersion,
    ) -> Result<Result<Vec<u8>, String>, StorageError> {
        let bytes_max = self.settings.limits.module_bytes;
        if usize::try_from(version.size).is_ok_and(|size| size > bytes_max) {
            let too_large = LoadError::TooLarge { name: self.name.to_string(), bytes_max };
            return Ok(Err(too_large.to_string()));
        }
        match deployments.module(&version.digest) {
            Ok(Some(bytes)) => Ok(Ok(bytes)),
            Ok(None) => Ok(Err("its bytes are no longer in the database: deploy it again".into())),
            Err(error @ StorageError::DamagedModule { .. }) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Takes in a loaded version: a requested version becomes active or the canary, and a version that is at work by
    /// the deployments is put to work.
    fn finish_loading(
        &mut self,
        deployments: &dyn Deployments,
        now: Timestamp,
        maintenance: &mut Maintenance,
    ) -> Result<(), StorageError> {
        let Some((version, loading)) = &mut self.loading else { return Ok(()) };
        let Some(result) = loading.result() else { return Ok(()) };
        let version = version.clone();
        let number = version.version;
        let at_work = matches!(version.state, VersionState::Active | VersionState::Canary);
        let share = version.canary.filter(|_| version.state != VersionState::Active);
        // The deployments come first: a version that they do not take is not put to work. Nothing is forgotten before
        // they have answered.
        let taken = match (&result, share) {
            (Err(reason), _) => self.refuse(deployments, &version, reason).map(|()| false)?,
            (Ok(_), _) if at_work => true,
            (Ok(_), Some(_)) => deployments.canary_started(&self.name, number, now)?,
            (Ok(_), None) => deployments.activated(&self.name, number, now)?,
        };
        // The deployments are asked again what is next.
        (self.loading, self.look_again) = (None, true);
        // Not taken if somebody has requested another version meanwhile.
        let Some(publisher) = result.ok().filter(|_| taken) else { return Ok(()) };
        self.put_loaded_to_work(&version, share, publisher);
        maintenance.swapped = true;
        Ok(())
    }

    fn put_loaded_to_work(
        &mut self,
        version: &PublisherVersion,
        share: Option<CanaryShare>,
        publisher: Arc<ComponentPublisher>,
    ) {
        let number = version.version;
        let digest = publisher.digest().clone();
        let loaded = Arc::new(Loaded::new(number, publisher));
        let mut next = (*self.versions.at_work()).clone();
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
        self.put_to_work(next);
    }

    /// Refuses a requested version. An active version that cannot be loaded stays active: nothing replaces it, and the
    /// fault may be this machine's.
    fn refuse(
        &mut self,
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
            self.broken = Some(number);
            let mut next = (*self.versions.at_work()).clone();
            next.without = format!("version {number} of {} is active, and cannot be loaded: {reason}", self.name);
            self.versions.swap(next);
            return Ok(());
        }
        deployments.refused(&self.name, number, reason).map(|_| ())
    }

    /// Promotes or withdraws the canary, if there is one; following the deployments does the rest.
    fn judge_canary(&self, deployments: &dyn Deployments, now: Timestamp) -> Result<(), StorageError> {
        let at_work = self.versions.at_work();
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
}
