//! What the scenarios work with: a folder, and outboxes in it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::publisher::component::{ComponentPublisher, OutputSink, Settings};
use outbox_host::{JsonSerde, Outbox, Publisher, RelayOptions, SqliteOutbox};

use super::options::Options;
use crate::cli::terminal::say;

/// The number of streams over which the entries are spread, unless a scenario needs another number.
pub const STREAMS: usize = 1_000;

/// The options, and a folder of the benchmark's own, which is removed when this is dropped.
pub struct Bed {
    options: Options,
    folder: PathBuf,
}

impl Bed {
    pub fn new(options: Options) -> Result<Self> {
        let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
        let folder = parent.join(format!("outbox-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { options, folder })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The publisher that does nothing.
    pub fn publisher(&self) -> Result<ComponentPublisher> {
        Ok(ComponentPublisher::load(&self.publisher, settings())?)
    }

    /// A publisher that the command line names. [`Scenario::missing`](super::Scenario) has checked that it does.
    pub fn given<'a>(&self, file: &'a Option<PathBuf>) -> Result<&'a Path> {
        file.as_deref().context("its publisher was not given")
    }

    /// An outbox without entries.
    pub fn empty(&self) -> Result<Db> {
        let db = Db(self.folder.join(format!("{}.db", uuid::Uuid::new_v4())));
        SqliteOutbox::init(&db)?;
        Ok(db)
    }

    /// An outbox with entries.
    pub fn filled(&self, entries: usize, bytes: usize, streams: usize) -> Result<Db> {
        say(format_args!("making {entries} entries of {bytes} bytes"));
        let db = self.empty()?;
        let mut connection = Connection::open(&*db)?;
        let data = order(bytes);
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction
                .prepare("INSERT INTO outbox (stream_id, name, data) VALUES ('order-' || ?1, 'order.placed', ?2)")?;
            for entry in 0..entries {
                insert.execute(params![i64::try_from(entry % streams)?, data])?;
            }
        }
        transaction.commit()?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(db)
    }

    /// A copy for one drain, after everything in it has been written to the disk.
    pub fn copy(&self, of: &Db) -> Result<Db> {
        let copy = Db(self.folder.join(format!("{}.db", uuid::Uuid::new_v4())));
        std::fs::copy(&**of, &*copy)?;
        std::fs::File::open(&*copy)?.sync_all()?;
        Ok(copy)
    }
}

impl Deref for Bed {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A database, which is removed with this.
pub struct Db(PathBuf);

impl Deref for Db {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        for ending in ["", "-wal", "-shm", "-outbox.lock", "-outbox.calls"] {
            let mut file = self.0.as_os_str().to_owned();
            file.push(ending);
            let _ = std::fs::remove_file(file);
        }
    }
}

/// An order that takes this many bytes of JSON, or a few more if that is too short.
pub fn order(bytes: usize) -> String {
    let without = r#"{"order":42,"filler":""}"#.len();
    format!(r#"{{"order":42,"filler":"{}"}}"#, "x".repeat(bytes.saturating_sub(without)))
}

/// The default settings, except that what a guest prints is not logged.
pub fn settings() -> Settings {
    Settings { output: OutputSink::new(|_| ()), compiler: crate::config::compiler(), ..Settings::default() }
}

/// Drains this many entries, and returns the rate in entries a second.
pub fn drain(db: &Path, publisher: &impl Publisher, entries: usize) -> Result<f64> {
    drain_with(db, publisher, entries, RelayOptions::default())
}

pub fn drain_with(db: &Path, publisher: &impl Publisher, entries: usize, options: RelayOptions) -> Result<f64> {
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde).with_options(options);
    let began = Instant::now();
    let report = outbox.run(publisher, entries)?;
    let rate = per_second(entries, began);
    ensure!(
        report.published == entries as u64,
        "{} of {entries} entries were published: {:?}",
        report.published,
        report.failures.first()
    );
    Ok(rate)
}

/// The rate since `since`, each second.
pub fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// A runtime for a component that is called without a relay, and for native baselines.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
