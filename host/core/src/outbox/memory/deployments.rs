//! The versions of publishers, in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Kept, MemoryOutbox};
use crate::outbox::StorageError;
use crate::outbox::deployments::{
    CanaryShare, Counts, Deployed, Deployments, NewVersion, PublisherVersion, RolledBack, Versions, check, deployment,
    digest, removal, rolled_back, unknown, verified,
};
use crate::outbox::operator::{Act, AuditRecord};

#[derive(Default)]
pub(super) struct Registered {
    publishers: BTreeMap<String, Versions>,
    modules: BTreeMap<String, Vec<u8>>,
    generation: u64,
}

impl Registered {
    fn keep(&mut self, publisher: &str, versions: Versions) {
        self.publishers.insert(publisher.to_owned(), versions);
        let used: Vec<&str> = self.all().map(|version| version.digest.as_str()).collect();
        let unused: Vec<String> =
            self.modules.keys().filter(|digest| !used.contains(&digest.as_str())).cloned().collect();
        unused.iter().for_each(|digest| drop(self.modules.remove(digest)));
        self.generation += 1;
    }

    fn all(&self) -> impl Iterator<Item = &PublisherVersion> {
        self.publishers.values().flat_map(|versions| &versions.all)
    }
}

impl Kept {
    /// An error leaves everything as it was.
    fn change_versions<T>(
        &mut self,
        publisher: &str,
        change: impl FnOnce(&mut Versions, u64) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let before = self.registered.publishers.get(publisher).cloned().unwrap_or_default();
        let mut after = before.clone();
        let done = change(&mut after, self.registered.generation + 1)?;
        if after != before {
            for digest in std::mem::take(&mut after.withdrawn) {
                self.give_attempts_back(&digest);
            }
            self.registered.keep(publisher, after);
        }
        Ok(done)
    }

    fn check_known(&self, publisher: &str) -> Result<(), StorageError> {
        let known = self.registered.publishers.iter().filter(|(_, versions)| !versions.all.is_empty());
        let names: Vec<String> = known.map(|(name, _)| name.clone()).collect();
        if names.iter().any(|name| name == publisher) { Ok(()) } else { Err(unknown(publisher, &names)) }
    }

    fn record_publishing(&mut self, act: &str, detail: String, by: &Act) {
        let (at, who, act) = (by.at, by.who.clone(), act.to_owned());
        self.audit.push(AuditRecord { at, who, act, position: None, uuid: None, detail });
    }

    /// Gives attempts back; their entries are due at once.
    fn give_attempts_back(&mut self, digest: &str) {
        for (position, waiting) in &mut self.waiting {
            let attempts = self.attempts.entry(*position).or_default().iter_mut();
            let counts = |attempt: &&mut super::AttemptRecord| {
                attempt.digest.as_deref() == Some(digest) && attempt.outcome != "unavailable" && !attempt.given_back
            };
            for attempt in attempts.filter(counts) {
                attempt.given_back = true;
                let history = &mut waiting.history;
                history.attempts = history.attempts.saturating_sub(1);
                history.host_deaths = history.host_deaths.saturating_sub(u32::from(attempt.outcome == "host-died"));
                waiting.retry_at = waiting.failed_at;
            }
        }
        self.generation += 1;
    }
}

impl Deployments for MemoryOutbox {
    fn deploy(
        &self,
        publisher: &str,
        bytes: &[u8],
        canary: Option<CanaryShare>,
        note: &str,
        by: &Act,
    ) -> Result<Deployed, StorageError> {
        check(publisher, bytes)?;
        let (digest, size) = (digest(bytes), bytes.len() as u64);
        self.change(|kept| {
            let new = NewVersion { publisher, digest: digest.clone(), size, canary, note };
            let deployed =
                kept.change_versions(publisher, |versions, requested| versions.deploy(new, by, requested))?;
            kept.registered.modules.insert(digest, bytes.to_vec());
            if deployed.new {
                kept.record_publishing("deploy", deployment(publisher, &deployed, canary), by);
            }
            Ok(deployed)
        })
    }

    fn versions(&self, publisher: Option<&str>) -> Result<Vec<PublisherVersion>, StorageError> {
        let kept = self.kept();
        let wanted = |version: &&PublisherVersion| publisher.is_none_or(|name| name == version.publisher);
        Ok(kept.registered.all().filter(wanted).cloned().collect())
    }

    fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let bytes = self.kept().registered.modules.get(digest).cloned();
        bytes.map(|bytes| verified(digest, bytes)).transpose()
    }

    fn rollback(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<RolledBack, StorageError> {
        self.change(|kept| {
            kept.check_known(publisher)?;
            let done = kept.change_versions(publisher, |versions, requested| {
                versions.rollback(publisher, version, by, requested)
            })?;
            kept.record_publishing("rollback", rolled_back(publisher, &done), by);
            Ok(done)
        })
    }

    fn remove(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<u32, StorageError> {
        self.change(|kept| {
            kept.check_known(publisher)?;
            let removed = kept.change_versions(publisher, |versions, _| versions.remove(publisher, version))?;
            kept.record_publishing("remove", removal(publisher, version, removed), by);
            Ok(removed)
        })
    }

    fn begin_activation(&self, publisher: &str, version: u32) -> Result<Option<u32>, StorageError> {
        self.change(|kept| kept.change_versions(publisher, |versions, _| Ok(versions.begin_activation(version))))
    }

    fn activation_given_up(&self, publisher: &str, version: u32) -> Result<(), StorageError> {
        self.change(|kept| {
            kept.change_versions(publisher, |versions, _| {
                versions.activation_given_up(version);
                Ok(())
            })
        })
    }

    fn activated(&self, publisher: &str, version: u32, at: Timestamp) -> Result<bool, StorageError> {
        self.change(|kept| kept.change_versions(publisher, |versions, _| Ok(versions.activated(version, at))))
    }

    fn canary_started(&self, publisher: &str, version: u32, at: Timestamp) -> Result<bool, StorageError> {
        self.change(|kept| kept.change_versions(publisher, |versions, _| Ok(versions.canary_started(version, at))))
    }

    fn refused(&self, publisher: &str, version: u32, reason: &str) -> Result<bool, StorageError> {
        self.change(|kept| kept.change_versions(publisher, |versions, _| Ok(versions.refused(version, reason))))
    }

    fn give_back(&self, _: &str, digest: &str) -> Result<(), StorageError> {
        self.change(|kept| kept.give_attempts_back(digest));
        Ok(())
    }

    fn count(&self, publisher: &str, version: u32, more: Counts) -> Result<(), StorageError> {
        self.change(|kept| {
            let versions = kept.registered.publishers.get_mut(publisher);
            let mut all = versions.into_iter().flat_map(|versions| &mut versions.all);
            if let Some(found) = all.find(|found| found.version == version) {
                found.counts += more;
            }
        });
        Ok(())
    }

    fn registry_generation(&self) -> Result<u64, StorageError> {
        Ok(self.kept().registered.generation)
    }
}
