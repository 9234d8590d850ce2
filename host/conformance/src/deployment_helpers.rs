//! Helpers for the checks of versions.

use outbox_engine::outbox::{CanaryShare, Deployments, Failed, Fate, PublisherVersion, Settled, VersionState};
use outbox_engine::{Attempt, History, OutboxStorageStrategy, Outcome, StorageError};

use crate::helpers::{at, by, entry_at};

pub fn five_percent() -> Option<CanaryShare> {
    CanaryShare::from_parts(500)
}

pub fn deploy(deployments: &dyn Deployments, bytes: &str) -> u32 {
    deployments.deploy("hook", bytes.as_bytes(), None, "", &by()).unwrap().version
}

pub fn activate(deployments: &dyn Deployments, bytes: &str, seconds: i64) -> u32 {
    let version = deploy(deployments, bytes);
    assert!(deployments.activated("hook", version, at(seconds)).unwrap());
    version
}

/// Makes version 1, active, and version 2, the canary, with other bytes. Returns the digest of version 2.
pub fn with_canary(deployments: &dyn Deployments) -> String {
    activate(deployments, "one", 1);
    let canary = deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    assert!(deployments.canary_started("hook", 2, at(2)).unwrap());
    canary.digest
}

pub fn all(deployments: &dyn Deployments) -> Vec<PublisherVersion> {
    deployments.versions(Some("hook")).unwrap()
}

pub fn states(deployments: &dyn Deployments) -> Vec<VersionState> {
    all(deployments).iter().map(|version| version.state).collect()
}

pub fn reason(deployments: &dyn Deployments, version: u32) -> String {
    all(deployments).into_iter().find(|found| found.version == version).unwrap().reason
}

#[track_caller]
pub fn declined<T: std::fmt::Debug>(result: Result<T, StorageError>) -> String {
    match result {
        Err(StorageError::Declined(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

pub fn failed(
    strategy: &impl OutboxStorageStrategy,
    position: i64,
    attempts: u32,
    digest: &str,
    fate: Fate,
) -> Settled {
    let attempt = Attempt { digest: Some(digest.into()), ..Outcome::Trapped { reason: "oh".into() }.into() };
    let history = History { attempts, host_deaths: 0 };
    Settled::Failed(Box::new(Failed {
        entry: entry_at(strategy, position),
        at: at(i64::from(attempts)),
        attempt,
        others: vec![],
        delivered_to: vec![],
        history,
        fate,
    }))
}
