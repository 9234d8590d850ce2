//! The versions of publishers. Each change reads them, applies a transition of [`Versions`], and writes back what
//! differs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::StorageError;
use outbox_engine::outbox::deployments::{
    CanaryShare, Counts, Deployed, Deployments, NewVersion, PublisherVersion, RolledBack, VersionState, Versions,
    check, deployment, digest, removal, rolled_back, unknown, verified,
};
use outbox_engine::outbox::operator::Act;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::value::{self, bounded};
use super::{SqliteOutbox, schema};

/// The size is measured on the bytes themselves, since somebody may have replaced them.
static VERSIONS: LazyLock<String> = LazyLock::new(|| {
    let [publisher, digest, state, reason, note, deployed_by] =
        ["publisher", "digest", "state", "reason", "note", "deployed_by"].map(bounded);
    format!(
        "SELECT {publisher}, version, {digest}, octet_length(bytes), {state}, {reason}, {note}, deployed_at_ms, {deployed_by},
                requested_at, activated_at_ms, canary_since_ms, canary_share, tries, delivered, failed, trapped
         FROM outbox_versions LEFT JOIN outbox_modules USING (digest)
         WHERE publisher = ?1 OR ?1 IS NULL ORDER BY outbox_versions.publisher, version"
    )
});
static NAMES: LazyLock<String> =
    LazyLock::new(|| format!("SELECT DISTINCT {} FROM outbox_versions ORDER BY 1", bounded("publisher")));
const WRITE: &str = "
    INSERT OR REPLACE INTO outbox_versions
           (publisher, version, digest, state, reason, note, deployed_at_ms, deployed_by, requested_at, activated_at_ms,
            canary_since_ms, canary_share, tries, delivered, failed, trapped)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
const REMOVE: &str = "DELETE FROM outbox_versions WHERE publisher = ?1 AND version = ?2";
const COUNT: &str = "
    UPDATE outbox_versions SET delivered = delivered + ?3, failed = failed + ?4, trapped = trapped + ?5
    WHERE publisher = ?1 AND version = ?2";

const LAST_VERSION: &str = "SELECT last_version FROM outbox_publishers WHERE publisher = ?1";
const KEEP_LAST_VERSION: &str = "INSERT OR REPLACE INTO outbox_publishers (publisher, last_version) VALUES (?1, ?2)";

/// An existing module stays, unless it is damaged.
const KEEP_MODULE: &str = "
    INSERT INTO outbox_modules (digest, size, bytes) VALUES (?1, ?2, ?3)
    ON CONFLICT (digest) DO UPDATE SET size = excluded.size, bytes = excluded.bytes WHERE bytes <> excluded.bytes";
const MODULE: &str = "SELECT bytes FROM outbox_modules WHERE digest = ?1";
const SWEEP_MODULES: &str = "DELETE FROM outbox_modules WHERE digest NOT IN (SELECT digest FROM outbox_versions)";

const AUDIT: &str = "INSERT INTO outbox_audit (at_ms, who, act, detail) VALUES (?1, ?2, ?3, ?4)";

/// Entries are due at once: their retry time becomes the time of their failure.
const GIVE_ATTEMPTS_BACK: &str = "
    UPDATE outbox_waiting
    SET attempts = max(0, attempts - made.number), host_deaths = max(0, host_deaths - made.deaths),
        retry_at_ms = failed_at_ms
    FROM (SELECT position, uuid, count(*) AS number, sum(outcome = 'host-died') AS deaths FROM outbox_attempts
          WHERE digest = ?2 AND coalesce(publisher, ?1) = ?1 AND outcome <> 'unavailable' AND NOT given_back
          GROUP BY position, uuid) AS made
    WHERE outbox_waiting.position = made.position AND outbox_waiting.uuid IS made.uuid";
const MARK_GIVEN_BACK: &str = "
    UPDATE outbox_attempts SET given_back = 1
    WHERE digest = ?2 AND coalesce(publisher, ?1) = ?1 AND outcome <> 'unavailable'
      AND position IN (SELECT position FROM outbox_waiting)";

impl Deployments for SqliteOutbox {
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
        self.change("store a version of a publisher", publisher, |change| {
            let module = params![digest, size.cast_signed(), bytes];
            change.sql(|sql| sql.execute(KEEP_MODULE, module))?;
            let new = NewVersion { publisher, digest, size, canary, note };
            let deployed = change.versions.deploy(new, by, change.generation)?;
            if deployed.new {
                change.audit("deploy", &deployment(publisher, &deployed, canary), by)?;
            }
            Ok(deployed)
        })
    }

    fn versions(&self, publisher: Option<&str>) -> Result<Vec<PublisherVersion>, StorageError> {
        versions(&self.reader(), publisher).map_err(self.error("read the versions of publishers"))
    }

    fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let read = self.reader().query_row(MODULE, [digest], |row| Ok(bytes(row.get_ref(0)?))).optional();
        let bytes: Option<Vec<u8>> = read.map_err(self.error("read a module"))?;
        bytes.map(|bytes| verified(digest, bytes)).transpose()
    }

    fn rollback(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<RolledBack, StorageError> {
        self.change("roll a publisher back", publisher, |change| {
            change.check_known()?;
            let done = change.versions.rollback(publisher, version, by, change.generation)?;
            change.audit("rollback", &rolled_back(publisher, &done), by)?;
            Ok(done)
        })
    }

    fn remove(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<u32, StorageError> {
        self.change("remove a publisher", publisher, |change| {
            change.check_known()?;
            let removed = change.versions.remove(publisher, version)?;
            change.audit("remove", &removal(publisher, version, removed), by)?;
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
        let mut writer = self.writer();
        let given_back = writer.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            give_attempts_back(&transaction, publisher, digest)?;
            transaction.commit()
        });
        given_back.map_err(self.error("give a canary's attempts back"))
    }

    fn count(&self, publisher: &str, version: u32, more: Counts) -> Result<(), StorageError> {
        let Counts { delivered, failed, trapped } = more;
        let [delivered, failed, trapped] = [delivered, failed, trapped].map(u64::cast_signed);
        let counted = count(&mut self.writer(), params![publisher, version, delivered, failed, trapped]);
        counted.map_err(self.error("count what a publisher did"))
    }

    fn registry_generation(&self) -> Result<u64, StorageError> {
        schema::generation(&self.reader(), schema::REGISTRY_GENERATION)
            .map_err(self.error("read the publishers' generation"))
    }
}

/// A change of one publisher's versions, within its transaction.
struct Change<'a> {
    transaction: &'a Transaction<'a>,
    failed: &'a dyn Fn(rusqlite::Error) -> StorageError,
    publisher: &'a str,
    versions: Versions,
    /// The generation of the deployments after this change.
    generation: u64,
}

impl SqliteOutbox {
    /// An error leaves everything as it was.
    fn change<T>(
        &self,
        doing: &'static str,
        publisher: &str,
        change: impl FnOnce(&mut Change<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let failed = self.error(doing);
        let mut writer = self.writer();
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let before = of_publisher(&transaction, publisher).map_err(&failed)?;
        let generation = schema::generation(&transaction, schema::REGISTRY_GENERATION).map_err(&failed)?;
        let generation = generation.wrapping_add(1);
        let versions = before.clone();
        let mut changing = Change { transaction: &transaction, failed: &failed, publisher, versions, generation };
        let done = change(&mut changing)?;
        let after = changing.versions;
        if after != before {
            write(&transaction, publisher, &before, &after).map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)?;
        Ok(done)
    }
}

impl Change<'_> {
    fn sql<T>(&self, does: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StorageError> {
        does(self.transaction).map_err(self.failed)
    }

    fn audit(&self, act: &str, detail: &str, by: &Act) -> Result<(), StorageError> {
        let record = params![by.at.as_millisecond(), by.who, act, detail];
        self.sql(|sql| sql.execute(AUDIT, record)).map(|_| ())
    }

    fn check_known(&self) -> Result<(), StorageError> {
        if !self.versions.all.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            self.sql(|sql| sql.prepare(&NAMES)?.query_map([], |row| value::text(row, 0))?.collect())?;
        Err(unknown(self.publisher, &names))
    }
}

fn of_publisher(connection: &Connection, publisher: &str) -> rusqlite::Result<Versions> {
    let last = connection.query_row(LAST_VERSION, [publisher], |row| value::count(row, 0)).optional()?;
    let all = versions(connection, Some(publisher))?;
    // Whatever the table contains, no version is overwritten.
    let last = all.iter().map(|version| version.version).max().max(last).unwrap_or(0);
    Ok(Versions { all, last, withdrawn: Vec::new() })
}

fn versions(connection: &Connection, publisher: Option<&str>) -> rusqlite::Result<Vec<PublisherVersion>> {
    connection.prepare_cached(&VERSIONS)?.query_map([publisher], version)?.collect()
}

fn version(row: &Row<'_>) -> rusqlite::Result<PublisherVersion> {
    let number = |column| value::number(row, column).map(|number| number.max(0).unsigned_abs());
    let has = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)? != ValueRef::Null);
    let time = |column| Ok::<_, rusqlite::Error>(has(column)?.then_some(value::time(row, column)?));
    let (state, reason) = state(value::text(row, 4)?, value::text(row, 5)?);
    Ok(PublisherVersion {
        publisher: value::text(row, 0)?,
        version: value::count(row, 1)?,
        digest: value::text(row, 2)?,
        // None if somebody has deleted the module by hand.
        size: number(3)?,
        state,
        reason,
        note: value::text(row, 6)?,
        deployed_at: value::time(row, 7)?,
        deployed_by: value::text(row, 8)?,
        requested: number(9)?,
        activated_at: time(10)?,
        canary_since: time(11)?,
        canary: CanaryShare::from_parts(value::count(row, 12)?),
        tries: value::count(row, 13)?,
        counts: Counts { delivered: number(14)?, failed: number(15)?, trapped: number(16)? },
    })
}

/// The state with this name. A version with an unknown state counts as refused, and may be requested again.
fn state(name: String, reason: String) -> (VersionState, String) {
    match VersionState::ALL.into_iter().find(|state| state.name() == name) {
        Some(state) => (state, reason),
        None => (VersionState::Refused, format!("its state was `{name}`, which is unknown. {reason}")),
    }
}

/// The bytes of a blob or a text; any other value has none.
fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    }
}

/// Writes what differs, and what follows from it.
fn write(transaction: &Transaction<'_>, publisher: &str, before: &Versions, after: &Versions) -> rusqlite::Result<()> {
    let by_number = |versions: &Versions| -> BTreeMap<u32, PublisherVersion> {
        versions.all.iter().map(|version| (version.version, version.clone())).collect()
    };
    let (old, new) = (by_number(before), by_number(after));
    for gone in old.keys().filter(|version| !new.contains_key(version)) {
        transaction.prepare_cached(REMOVE)?.execute(params![publisher, gone])?;
    }
    for changed in new.values().filter(|version| old.get(&version.version) != Some(version)) {
        write_version(transaction, changed)?;
    }
    if after.last != before.last {
        transaction.execute(KEEP_LAST_VERSION, params![publisher, after.last])?;
    }
    if new.len() < old.len() {
        transaction.execute(SWEEP_MODULES, [])?;
    }
    for digest in &after.withdrawn {
        give_attempts_back(transaction, publisher, digest)?;
        schema::raise(transaction, schema::GENERATION)?;
    }
    schema::raise(transaction, schema::REGISTRY_GENERATION)
}

fn give_attempts_back(transaction: &Transaction<'_>, publisher: &str, digest: &str) -> rusqlite::Result<()> {
    transaction.execute(GIVE_ATTEMPTS_BACK, [publisher, digest])?;
    transaction.execute(MARK_GIVEN_BACK, [publisher, digest])?;
    Ok(())
}

fn write_version(transaction: &Transaction<'_>, version: &PublisherVersion) -> rusqlite::Result<()> {
    let Counts { delivered, failed, trapped } = version.counts;
    transaction.prepare_cached(WRITE)?.execute(params![
        version.publisher,
        version.version,
        version.digest,
        version.state.name(),
        version.reason,
        version.note,
        version.deployed_at.as_millisecond(),
        version.deployed_by,
        version.requested.cast_signed(),
        version.activated_at.map(Timestamp::as_millisecond),
        version.canary_since.map(Timestamp::as_millisecond),
        version.canary.map(CanaryShare::parts),
        version.tries,
        delivered.cast_signed(),
        failed.cast_signed(),
        trapped.cast_signed(),
    ])?;
    Ok(())
}

fn count(connection: &mut Connection, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.prepare_cached(COUNT)?.execute(values)?;
    transaction.commit()
}
