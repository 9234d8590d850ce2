//! The versions of one publisher, and every transition between their states: pure, so that all storages agree. A
//! storage reads [`Versions`], calls the method with the same name as its own method of
//! [`Deployments`](super::Deployments), and writes what differs, in one transaction.

use jiff::Timestamp;

use super::{CanaryShare, Counts, Deployed, PublisherVersion, RolledBack, VersionState};
use crate::outbox::error::StorageError;
use crate::outbox::operator::Act;

/// All versions of one publisher, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// By number.
    pub all: Vec<PublisherVersion>,
    /// The highest number that was ever given.
    pub last: u32,
    /// The digests of withdrawn canaries, whose attempts must be given back.
    pub withdrawn: Vec<String>,
}

/// A version to be deployed.
pub struct NewVersion<'a> {
    /// The publisher's name.
    pub publisher: &'a str,
    /// The sha256 digest of its bytes, in hex.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
    /// Its share as a canary. None if it becomes active without a trial.
    pub canary: Option<CanaryShare>,
    /// A note by the person who deploys it.
    pub note: &'a str,
}

impl Versions {
    /// Requests a new version, with the request number `requested`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Declined`] if it should be a canary, and there is no active version beside it.
    pub fn deploy(&mut self, new: NewVersion<'_>, by: &Act, requested: u64) -> Result<Deployed, StorageError> {
        let NewVersion { publisher, digest, size, canary, note } = new;
        let active = self.find(VersionState::Active);
        let nothing_asked = self.find(VersionState::Stored).is_none() && self.find(VersionState::Canary).is_none();
        if let Some(active) = active.filter(|active| nothing_asked && active.digest == digest) {
            return Ok(Deployed { version: active.version, digest, new: false, superseded: None });
        }
        if canary.is_some() && active.is_none() {
            return declined(format!(
                "{publisher} has no active version that a canary could stand beside: deploy it without --canary first"
            ));
        }
        let Some(version) = self.last.checked_add(1) else {
            return declined(format!("{publisher} has a version {}, and no number is left for another", self.last));
        };
        self.last = version;
        let superseded = self.retire(VersionState::Stored, &format!("superseded by version {version}"));
        self.all.push(PublisherVersion {
            publisher: publisher.to_owned(),
            version,
            digest: digest.clone(),
            size,
            state: VersionState::Stored,
            reason: String::new(),
            note: note.to_owned(),
            deployed_at: by.at,
            deployed_by: by.who.clone(),
            requested,
            activated_at: None,
            canary_since: None,
            canary,
            tries: 0,
            counts: Counts::default(),
        });
        Ok(Deployed { version, digest, new: true, superseded })
    }

    /// Takes a request back, or requests an earlier version again, with the request number `requested`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Declined`] if there is nothing to go back to.
    pub fn rollback(
        &mut self,
        publisher: &str,
        version: Option<u32>,
        by: &Act,
        requested: u64,
    ) -> Result<RolledBack, StorageError> {
        let withdrawn_by = format!("rolled back by {}", by.who);
        let active = self.find(VersionState::Active).map(|active| active.version);
        let state =
            version.map(|version| self.get(publisher, version).map(|found| (version, found.state))).transpose()?;
        let mut withdrawn = Vec::new();
        let again = match state {
            None => {
                withdrawn.extend(self.withdraw(VersionState::Stored, &withdrawn_by));
                if withdrawn.is_empty() {
                    withdrawn.extend(self.withdraw(VersionState::Canary, &withdrawn_by));
                }
                if withdrawn.is_empty() { Some(self.active_before(publisher)?) } else { None }
            }
            Some((version, VersionState::Active)) => {
                withdrawn.extend(self.withdraw(VersionState::Stored, &withdrawn_by));
                withdrawn.extend(self.withdraw(VersionState::Canary, &withdrawn_by));
                if withdrawn.is_empty() {
                    return declined(format!("version {version} of {publisher} is active, and no other is asked for"));
                }
                None
            }
            Some((version, VersionState::Stored)) => {
                return declined(format!(
                    "version {version} of {publisher} is asked for already: a relay activates it"
                ));
            }
            Some((version, VersionState::Canary)) => {
                return declined(format!(
                    "version {version} of {publisher} is on trial as the canary: `outbox publisher rollback {publisher}` \
                     withdraws it, and deploying its file without --canary makes it active"
                ));
            }
            Some((version, VersionState::Retired | VersionState::Refused)) => Some(version),
        };
        if let Some(version) = again {
            withdrawn.extend(self.retire(VersionState::Stored, &format!("superseded by version {version}")));
            if let Some(found) = self.find_version(version) {
                let reason = String::new();
                let state = VersionState::Stored;
                *found = PublisherVersion { state, reason, requested, tries: 0, canary: None, ..found.clone() };
            }
        }
        Ok(RolledBack { withdrawn, requested: again, active })
    }

    /// Removes one version, or all. Returns how many were removed.
    ///
    /// # Errors
    ///
    /// [`StorageError::Declined`] if the version is requested or at work.
    pub fn remove(&mut self, publisher: &str, version: Option<u32>) -> Result<u32, StorageError> {
        let before = self.all.len();
        match version {
            None => self.all.clear(),
            Some(version) => {
                let state = self.get(publisher, version)?.state;
                if is_wanted(state) {
                    return declined(format!(
                        "version {version} of {publisher} is {}, and is not removed alone: roll it back first, or remove \
                         the whole publisher",
                        state.name()
                    ));
                }
                self.all.retain(|found| found.version != version);
            }
        }
        Ok(u32::try_from(before - self.all.len()).unwrap_or(u32::MAX))
    }

    /// Notes that an activation begins. Returns how many have begun and not ended. None if the version is neither
    /// requested nor at work.
    pub fn begin_activation(&mut self, version: u32) -> Option<u32> {
        let found = self.find_version(version).filter(|found| is_wanted(found.state))?;
        found.tries = found.tries.saturating_add(1);
        Some(found.tries)
    }

    /// Notes that an activation was given up, through no fault of the version.
    pub fn activation_given_up(&mut self, version: u32) {
        if let Some(found) = self.find_version(version) {
            found.tries = found.tries.saturating_sub(1);
        }
    }

    /// Makes the version active. Returns false if it is neither requested nor at work any more.
    pub fn activated(&mut self, version: u32, at: Timestamp) -> bool {
        let Some(found) = self.find_version(version).filter(|found| is_wanted(found.state)) else { return false };
        found.tries = 0;
        if found.state == VersionState::Active {
            return true;
        }
        (found.state, found.activated_at, found.canary) = (VersionState::Active, Some(at), None);
        self.retire_others(version, VersionState::Active);
        self.retire_others(version, VersionState::Canary);
        true
    }

    /// Makes the version the canary. Returns false if it is neither requested nor at work any more.
    pub fn canary_started(&mut self, version: u32, at: Timestamp) -> bool {
        let may = |state| matches!(state, VersionState::Stored | VersionState::Canary);
        let Some(found) = self.find_version(version).filter(|found| may(found.state)) else { return false };
        found.tries = 0;
        if found.state == VersionState::Canary {
            return true;
        }
        (found.state, found.canary_since) = (VersionState::Canary, Some(at));
        self.retire_others(version, VersionState::Canary);
        true
    }

    /// Refuses the version. Returns false if it is neither requested nor at work any more.
    pub fn refused(&mut self, version: u32, reason: &str) -> bool {
        let Some(found) = self.find_version(version).filter(|found| is_wanted(found.state)) else { return false };
        let was = found.state;
        (found.state, found.reason, found.tries) = (VersionState::Refused, reason.to_owned(), 0);
        let digest = found.digest.clone();
        if was == VersionState::Canary {
            self.withdrawn.push(digest);
        }
        true
    }

    fn find(&self, state: VersionState) -> Option<&PublisherVersion> {
        self.all.iter().find(|version| version.state == state)
    }

    fn find_version(&mut self, version: u32) -> Option<&mut PublisherVersion> {
        self.all.iter_mut().find(|found| found.version == version)
    }

    /// Finds a version. The error names the versions that exist.
    fn get(&self, publisher: &str, version: u32) -> Result<&PublisherVersion, StorageError> {
        let numbers = || self.all.iter().map(|found| found.version.to_string()).collect::<Vec<_>>().join(", ");
        let found = self.all.iter().find(|found| found.version == version);
        found.ok_or_else(|| {
            StorageError::Declined(format!("{publisher} has no version {version}; it has {}", numbers()))
        })
    }

    /// The version that was active before the active one.
    fn active_before(&self, publisher: &str) -> Result<u32, StorageError> {
        let retired = self.all.iter().filter(|found| found.state == VersionState::Retired);
        let before = retired.filter_map(|found| found.activated_at.map(|at| (at, found.version))).max();
        before.map(|(_, version)| version).ok_or_else(|| {
            let all = self.all.iter().map(|found| format!("{} ({})", found.version, found.state.name()));
            StorageError::Declined(format!(
                "no version of {publisher} was active before: name the one to go back to; there is {}",
                all.collect::<Vec<_>>().join(", ")
            ))
        })
    }

    /// Retires the version in this state. At most one version is in it.
    fn retire(&mut self, state: VersionState, reason: &str) -> Option<u32> {
        let found = self.all.iter_mut().find(|found| found.state == state)?;
        (found.state, found.reason, found.tries) = (VersionState::Retired, reason.to_owned(), 0);
        Some(found.version)
    }

    fn retire_others(&mut self, version: u32, state: VersionState) {
        for other in self.all.iter_mut().filter(|found| found.version != version && found.state == state) {
            let reason = format!("superseded by version {version}");
            (other.state, other.reason, other.tries) = (VersionState::Retired, reason, 0);
        }
    }

    fn withdraw(&mut self, state: VersionState, reason: &str) -> Option<u32> {
        if state == VersionState::Canary {
            let digest = self.find(state).map(|canary| canary.digest.clone());
            self.withdrawn.extend(digest);
        }
        self.retire(state, reason)
    }
}

/// Whether a version is requested or at work.
fn is_wanted(state: VersionState) -> bool {
    matches!(state, VersionState::Stored | VersionState::Canary | VersionState::Active)
}

fn declined<T>(reason: String) -> Result<T, StorageError> {
    Err(StorageError::Declined(reason))
}
