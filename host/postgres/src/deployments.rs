//! The versions of publishers. Each change reads them, applies a transition of [`Versions`], and writes back what differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use outbox_engine::StorageError;
use outbox_engine::outbox::deployments::{
    CanaryShare, Counts, Deployed, Deployments, NewVersion, PublisherVersion, RolledBack, VersionState, Versions,
    check, deployment, digest, removal, rolled_back, unknown, verified,
};
use outbox_engine::outbox::operator::Act;
use tokio_postgres::Row;

use super::error::Fault;
use super::link::Link;
use super::operator::audit;
use super::{PostgresOutbox, schema, value};

/// The most bytes of a module: a value of PostgreSQL takes up to 1 GB of memory, several times while it is sent.
pub(super) const MODULE_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// The size is measured on the bytes themselves, since somebody may have replaced them.
const VERSIONS: &str = "
    SELECT publisher, version, digest, octet_length(bytes)::bigint, state, reason, note, deployed_at_ms, deployed_by,
           requested_at, activated_at_ms, canary_since_ms, canary_share, tries, delivered, failed, trapped
    FROM outbox_versions LEFT JOIN outbox_modules USING (digest)
    WHERE publisher = $1 OR $1 IS NULL ORDER BY publisher, version";
const NAMES: &str = "SELECT DISTINCT publisher FROM outbox_versions ORDER BY 1";
const WRITE: &str = "
    INSERT INTO outbox_versions
           (publisher, version, digest, state, reason, note, deployed_at_ms, deployed_by, requested_at, activated_at_ms,
            canary_since_ms, canary_share, tries, delivered, failed, trapped)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
    ON CONFLICT (publisher, version) DO UPDATE
    SET digest = excluded.digest, state = excluded.state, reason = excluded.reason, note = excluded.note,
        deployed_at_ms = excluded.deployed_at_ms, deployed_by = excluded.deployed_by, requested_at = excluded.requested_at,
        activated_at_ms = excluded.activated_at_ms, canary_since_ms = excluded.canary_since_ms,
        canary_share = excluded.canary_share, tries = excluded.tries, delivered = excluded.delivered,
        failed = excluded.failed, trapped = excluded.trapped";
const REMOVE: &str = "DELETE FROM outbox_versions WHERE publisher = $1 AND version = $2";
const COUNT: &str = "
    UPDATE outbox_versions SET delivered = delivered + $3, failed = failed + $4, trapped = trapped + $5
    WHERE publisher = $1 AND version = $2";
const LAST_VERSION: &str = "SELECT last_version FROM outbox_publishers WHERE publisher = $1";
const KEEP_LAST_VERSION: &str = "
    INSERT INTO outbox_publishers (publisher, last_version) VALUES ($1, $2)
    ON CONFLICT (publisher) DO UPDATE SET last_version = excluded.last_version";
/// An existing module stays, unless it is damaged.
const KEEP_MODULE: &str = "
    INSERT INTO outbox_modules (digest, size, bytes) VALUES ($1, $2, $3)
    ON CONFLICT (digest) DO UPDATE SET size = excluded.size, bytes = excluded.bytes
    WHERE outbox_modules.bytes <> excluded.bytes";
const MODULE: &str = "SELECT bytes FROM outbox_modules WHERE digest = $1";
const SWEEP_MODULES: &str = "DELETE FROM outbox_modules WHERE digest NOT IN (SELECT digest FROM outbox_versions)";
/// Changes of versions come one after the other.
const LOCK: &str = "SELECT value FROM outbox_meta WHERE key = 'registry_generation' FOR UPDATE";

/// Entries are due at once: their retry time becomes the time of their failure.
const GIVE_ATTEMPTS_BACK: &str = "
    UPDATE outbox_waiting w
    SET attempts = greatest(0, w.attempts - made.number), host_deaths = greatest(0, w.host_deaths - made.deaths),
        retry_at_ms = failed_at_ms
    FROM (SELECT position, uuid, count(*) AS number, count(*) FILTER (WHERE outcome = 'host-died') AS deaths
          FROM outbox_attempts
          WHERE digest = $2 AND coalesce(publisher, $1) = $1 AND outcome <> 'unavailable' AND NOT given_back
          GROUP BY position, uuid) AS made
    WHERE w.position = made.position AND w.uuid = made.uuid";
const MARK_GIVEN_BACK: &str = "
    UPDATE outbox_attempts SET given_back = true
    WHERE digest = $2 AND coalesce(publisher, $1) = $1 AND outcome <> 'unavailable'
      AND position IN (SELECT position FROM outbox_waiting)";

impl Deployments for PostgresOutbox {
    fn deploy(
        &self,
        publisher: &str,
        bytes: &[u8],
        canary: Option<CanaryShare>,
        note: &str,
        by: &Act,
    ) -> Result<Deployed, StorageError> {
        check(publisher, bytes)?;
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(StorageError::Declined(format!(
                "the module for {publisher} has {} bytes, and PostgreSQL has room for {MODULE_BYTES_MAX}: build it without \
                 debug information, or strip it",
                bytes.len()
            )));
        }
        let (digest, size) = (digest(bytes), bytes.len() as u64);
        self.change("store a version of a publisher", publisher, |change| {
            change.link.execute(KEEP_MODULE, &[&digest, &size.cast_signed(), &bytes])?;
            let new = NewVersion { publisher, digest, size, canary, note };
            let deployed = change.versions.deploy(new, by, change.generation)?;
            if deployed.new {
                audit::record(change.link, "deploy", &deployment(publisher, &deployed, canary), by)?;
            }
            Ok(deployed)
        })
    }

    fn versions(&self, publisher: Option<&str>) -> Result<Vec<PublisherVersion>, StorageError> {
        versions(&mut self.acting(), publisher).map_err(self.error("read the versions of publishers"))
    }

    fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let read = self.acting().first(MODULE, &[&digest]);
        let row = read.map_err(self.error("read a module"))?;
        let bytes = row.map(|row| row.try_get(0)).transpose();
        let bytes: Option<Vec<u8>> = bytes.map_err(|error| self.error("read a module")(error.into()))?;
        bytes.map(|bytes| verified(digest, bytes)).transpose()
    }

    fn rollback(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<RolledBack, StorageError> {
        self.change("roll a publisher back", publisher, |change| {
            change.check_known()?;
            let done = change.versions.rollback(publisher, version, by, change.generation)?;
            audit::record(change.link, "rollback", &rolled_back(publisher, &done), by)?;
            Ok(done)
        })
    }

    fn remove(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<u32, StorageError> {
        self.change("remove a publisher", publisher, |change| {
            change.check_known()?;
            let removed = change.versions.remove(publisher, version)?;
            audit::record(change.link, "remove", &removal(publisher, version, removed), by)?;
            Ok(removed)
        })
    }

    fn begin_activation(&self, publisher: &str, version: u32) -> Result<Option<u32>, StorageError> {
        let doing = "note that a publisher is activated";
        self.change(doing, publisher, |change| Ok(change.versions.begin_activation(version)))
    }

    fn activation_given_up(&self, publisher: &str, version: u32) -> Result<(), StorageError> {
        let doing = "note that an activation was given up";
        self.change(doing, publisher, |change| {
            change.versions.activation_given_up(version);
            Ok(())
        })
    }

    fn activated(&self, publisher: &str, version: u32, at: Timestamp) -> Result<bool, StorageError> {
        self.change("activate a publisher", publisher, |change| Ok(change.versions.activated(version, at)))
    }

    fn canary_started(&self, publisher: &str, version: u32, at: Timestamp) -> Result<bool, StorageError> {
        self.change("start a canary", publisher, |change| Ok(change.versions.canary_started(version, at)))
    }

    fn refused(&self, publisher: &str, version: u32, reason: &str) -> Result<bool, StorageError> {
        self.change("refuse a publisher", publisher, |change| Ok(change.versions.refused(version, reason)))
    }

    fn give_back(&self, publisher: &str, digest: &str) -> Result<(), StorageError> {
        let given_back = self.acting().transaction(|link| give_attempts_back(link, publisher, digest));
        given_back.map_err(self.error("give a canary's attempts back"))
    }

    fn count(&self, publisher: &str, version: u32, more: Counts) -> Result<(), StorageError> {
        let Counts { delivered, failed, trapped } = more;
        let [delivered, failed, trapped] = [delivered, failed, trapped].map(u64::cast_signed);
        let counted = self.acting().execute(COUNT, &[&publisher, &i64::from(version), &delivered, &failed, &trapped]);
        counted.map(|_| ()).map_err(self.error("count what a publisher did"))
    }

    fn registry_generation(&self) -> Result<u64, StorageError> {
        schema::generation(&mut self.acting(), schema::REGISTRY_GENERATION)
            .map_err(self.error("read the publishers' generation"))
    }
}

/// A change of one publisher's versions, within its transaction.
struct Change<'a> {
    link: &'a mut Link,
    publisher: &'a str,
    versions: Versions,
    /// The generation of the deployments after this change.
    generation: u64,
}

impl PostgresOutbox {
    /// An error leaves everything as it was.
    fn change<T>(
        &self,
        doing: &'static str,
        publisher: &str,
        change: impl FnOnce(&mut Change<'_>) -> Result<T, Fault>,
    ) -> Result<T, StorageError> {
        let changed = self.acting().transaction(|link| {
            link.query(LOCK, &[])?;
            let before = of_publisher(link, publisher)?;
            let generation = schema::generation(link, schema::REGISTRY_GENERATION)?.wrapping_add(1);
            let mut changing = Change { link, publisher, versions: before.clone(), generation };
            let done = change(&mut changing)?;
            let Change { link, versions: after, .. } = changing;
            if after != before {
                write(link, publisher, &before, &after)?;
            }
            Ok(done)
        });
        changed.map_err(self.error(doing))
    }
}

impl Change<'_> {
    fn check_known(&mut self) -> Result<(), Fault> {
        if !self.versions.all.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        for row in self.link.query(NAMES, &[])? {
            names.push(row.try_get(0)?);
        }
        Err(unknown(self.publisher, &names).into())
    }
}

fn of_publisher(link: &mut Link, publisher: &str) -> Result<Versions, Fault> {
    let last = link.first(LAST_VERSION, &[&publisher])?.map(|row| value::count(&row, 0)).transpose()?;
    let all = versions(link, Some(publisher))?;
    // Whatever the table contains, no version is overwritten.
    let last = all.iter().map(|version| version.version).max().max(last).unwrap_or(0);
    Ok(Versions { all, last, withdrawn: Vec::new() })
}

fn versions(link: &mut Link, publisher: Option<&str>) -> Result<Vec<PublisherVersion>, Fault> {
    link.query(VERSIONS, &[&publisher])?.iter().map(version).collect()
}

fn version(row: &Row) -> Result<PublisherVersion, Fault> {
    let time = |column| Ok::<_, Fault>(row.try_get::<_, Option<i64>>(column)?.map(value::at_ms));
    let (state, reason) = state(row.try_get(4)?, row.try_get(5)?);
    let share = value::number(row, 12)?;
    Ok(PublisherVersion {
        publisher: row.try_get(0)?,
        version: value::count(row, 1)?,
        digest: row.try_get(2)?,
        // None if somebody has deleted the module by hand.
        size: value::number(row, 3)?,
        state,
        reason,
        note: row.try_get(6)?,
        deployed_at: value::at(row, 7)?,
        deployed_by: row.try_get(8)?,
        requested: value::number(row, 9)?,
        activated_at: time(10)?,
        canary_since: time(11)?,
        canary: u32::try_from(share).ok().and_then(CanaryShare::from_parts),
        tries: value::count(row, 13)?,
        counts: Counts {
            delivered: value::number(row, 14)?,
            failed: value::number(row, 15)?,
            trapped: value::number(row, 16)?,
        },
    })
}

/// The state with this name. A version with an unknown state counts as refused, and may be requested again.
fn state(name: String, reason: String) -> (VersionState, String) {
    match VersionState::ALL.into_iter().find(|state| state.name() == name) {
        Some(state) => (state, reason),
        None => (VersionState::Refused, format!("its state was `{name}`, which is unknown. {reason}")),
    }
}

/// Writes what differs, and what follows from it.
fn write(link: &mut Link, publisher: &str, before: &Versions, after: &Versions) -> Result<(), Fault> {
    let by_number = |versions: &Versions| -> BTreeMap<u32, PublisherVersion> {
        versions.all.iter().map(|version| (version.version, version.clone())).collect()
    };
    let (old, new) = (by_number(before), by_number(after));
    for gone in old.keys().filter(|version| !new.contains_key(version)) {
        link.execute(REMOVE, &[&publisher, &i64::from(*gone)])?;
    }
    for changed in new.values().filter(|version| old.get(&version.version) != Some(version)) {
        write_version(link, changed)?;
    }
    if after.last != before.last {
        link.execute(KEEP_LAST_VERSION, &[&publisher, &i64::from(after.last)])?;
    }
    if new.len() < old.len() {
        link.execute(SWEEP_MODULES, &[])?;
    }
    for digest in &after.withdrawn {
        give_attempts_back(link, publisher, digest)?;
        schema::raise(link, schema::GENERATION)?;
    }
    schema::raise(link, schema::REGISTRY_GENERATION).map(|_| ())
}

fn give_attempts_back(link: &mut Link, publisher: &str, digest: &str) -> Result<(), Fault> {
    link.execute(GIVE_ATTEMPTS_BACK, &[&publisher, &digest])?;
    link.execute(MARK_GIVEN_BACK, &[&publisher, &digest]).map(|_| ())
}

fn write_version(link: &mut Link, version: &PublisherVersion) -> Result<(), Fault> {
    let Counts { delivered, failed, trapped } = version.counts;
    link.execute(
        WRITE,
        &[
            &version.publisher,
            &i64::from(version.version),
            &version.digest,
            &version.state.name(),
            &version.reason.replace('\0', "\u{fffd}"),
            &version.note.replace('\0', "\u{fffd}"),
            &version.deployed_at.as_millisecond(),
            &version.deployed_by,
            &version.requested.cast_signed(),
            &version.activated_at.map(Timestamp::as_millisecond),
            &version.canary_since.map(Timestamp::as_millisecond),
            &version.canary.map(|share| i64::from(share.parts())),
            &i64::from(version.tries),
            &delivered.cast_signed(),
            &failed.cast_signed(),
            &trapped.cast_signed(),
        ],
    )
    .map(|_| ())
}
