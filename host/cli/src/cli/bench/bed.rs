//! What the scenarios work on: a folder, and outboxes in it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::publisher::component::{ComponentPublisher, OutputSink, Settings};
use outbox_host::{JsonSerde, Outbox, Publisher, RelayOptions, SqliteOutbox};

use super::Options;
use crate::cli::say;

/// Over how many streams the entries are spread, unless a scenario needs another number.
pub const STREAMS: usize = 1_000;

/// The options, and a folder of the benchmark's own, which goes with it.
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

    /// A publisher that was given, which [`Scenario::missing`](super::Scenario) has looked for.
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

    /// A copy to be used up, whose writing is over.
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

/// An order of so many bytes of JSON, at least its own few.
pub fn order(bytes: usize) -> String {
    let without = r#"{"order":42,"filler":""}"#.len();
    format!(r#"{{"order":42,"filler":"{}"}}"#, "x".repeat(bytes.saturating_sub(without)))
}

/// As shipped; what a guest prints is nothing to measure.
pub fn settings() -> Settings {
    Settings { output: OutputSink::new(|_| ()), compiler: crate::config::compiler(), ..Settings::default() }
}

/// Drains so many entries, and returns how many a second that was.
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

/// How many a second that is, until now.
pub fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// A runtime for a component that is called without a relay, and for native baselines.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
