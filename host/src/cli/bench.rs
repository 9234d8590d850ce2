//! `outbox bench`: rates of this machine, each beside its baseline in the same run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::publisher::component::{ComponentPublisher, Settings};
use outbox_host::{JsonSerde, Outbox, Publisher, Recorded, SqliteOutbox};
use serde::Serialize;

use super::{print, print_json};

mod wake;

/// How many entries the baseline deletes with one transaction.
const GROUP: usize = 1_000;
const STREAMS: usize = 1_000;

/// Measure this machine's rate beside bare SQLite's.
///
/// Drains entries through a publisher, and, in turn with it, drains the same entries in a single thread with nothing but
/// SQLite: read a group, delete it, commit. Then it measures how soon the relay notices what another process commits, and
/// what an idle relay costs.
#[derive(Args)]
pub struct Bench {
    /// The publisher: one that does nothing (tests/guests/noop) shows what the relay itself costs.
    #[arg(long, value_name = "FILE")]
    publisher: PathBuf,
    /// How many entries to drain.
    #[arg(long, default_value_t = 200_000)]
    entries: usize,
    /// The bytes of data of each.
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
    /// How often; medians are printed.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// How many commits of another process to wait for.
    #[arg(long, default_value_t = 500)]
    wakes: usize,
    /// Where the databases are made; on the disk that counts. A temporary folder where there is none.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Be the other process.
    #[arg(long, hide = true)]
    append_to: Option<PathBuf>,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Figures {
    entries: usize,
    bytes: usize,
    repeat: usize,
    bare_sqlite_per_s: f64,
    closure_per_s: f64,
    component_per_s: f64,
    /// Component over bare SQLite, the median of the pairs' ratios.
    component_to_bare: f64,
    /// Component over closure, likewise.
    component_to_closure: f64,
    wake: wake::Wake,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        if let Some(db) = &self.append_to {
            return wake::append(db, self.wakes);
        }
        ensure!(self.entries > 0 && self.repeat > 0 && self.wakes > 0, "there has to be something to measure");
        let publisher = ComponentPublisher::load(&self.publisher, Settings::default())?;
        let folder = Folder::new(self.folder.as_deref())?;
        let figures = self.figures(&publisher, folder.path())?;
        if self.json {
            return print_json(&figures);
        }
        let Figures { entries, bytes, repeat, .. } = figures;
        print(format!("drain of {entries} entries of {bytes} bytes, synchronous=FULL, median of {repeat}"))?;
        print(format!("  bare SQLite, one thread, groups of {GROUP}  {:>9.0} /s", figures.bare_sqlite_per_s))?;
        print(format!("  relay with a native closure             {:>9.0} /s", figures.closure_per_s))?;
        print(format!("  relay with the component                {:>9.0} /s", figures.component_per_s))?;
        print(format!("  component / bare SQLite                 {:>9.2}", figures.component_to_bare))?;
        print(format!("  component / closure                     {:>9.2}", figures.component_to_closure))?;
        figures.wake.print()
    }

    fn figures(&self, publisher: &ComponentPublisher, folder: &Path) -> Result<Figures> {
        let full = folder.join("full.db");
        fill(&full, self.entries, self.bytes)?;
        let nothing = |_: &Recorded| Ok(());
        let (mut bare, mut closure, mut component) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..self.repeat {
            eprintln!("drain {} of {}", turn + 1, self.repeat);
            bare.push(self.rate(&full, folder, drain_bare)?);
            closure.push(self.rate(&full, folder, |db| drain(db, &nothing, self.entries))?);
            component.push(self.rate(&full, folder, |db| drain(db, publisher, self.entries))?);
        }
        let ratios = |a: &[f64], b: &[f64]| median(a.iter().zip(b).map(|(a, b)| a / b).collect());
        eprintln!("waiting for {} commits of another process", self.wakes);
        Ok(Figures {
            entries: self.entries,
            bytes: self.bytes,
            repeat: self.repeat,
            component_to_bare: ratios(&component, &bare),
            component_to_closure: ratios(&component, &closure),
            bare_sqlite_per_s: median(bare),
            closure_per_s: median(closure),
            component_per_s: median(component),
            wake: wake::measure(&self.publisher, &folder.join("wake.db"), self.wakes)?,
        })
    }

    /// Entries a second of a drain, on a copy of its own.
    fn rate(&self, full: &Path, folder: &Path, drain: impl FnOnce(&Path) -> Result<Duration>) -> Result<f64> {
        let db = folder.join("drain.db");
        remove(&db)?;
        std::fs::copy(full, &db)?;
        std::fs::File::open(&db)?.sync_all()?;
        let took = drain(&db)?;
        remove(&db)?;
        Ok(self.entries as f64 / took.as_secs_f64())
    }
}

fn fill(db: &Path, entries: usize, bytes: usize) -> Result<()> {
    SqliteOutbox::init(db)?;
    let mut connection = Connection::open(db)?;
    let data = format!("{{\"filler\":\"{}\"}}", "x".repeat(bytes.saturating_sub(13)));
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction
            .prepare("INSERT INTO outbox (stream_id, name, data) VALUES ('order-' || ?1, 'order.placed', ?2)")?;
        for entry in 0..entries {
            insert.execute(params![i64::try_from(entry % STREAMS)?, data])?;
        }
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// The baseline: read a group whole, delete it, commit; the same pragmas as the relay's.
fn drain_bare(db: &Path) -> Result<Duration> {
    let connection = Connection::open(db)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    let mut read = connection.prepare(
        "SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
                data
         FROM outbox ORDER BY position LIMIT ?1",
    )?;
    let mut delete = connection.prepare("DELETE FROM outbox WHERE position BETWEEN ?1 AND ?2")?;
    let began = Instant::now();
    loop {
        let mut group: Vec<(i64, Vec<String>)> = Vec::with_capacity(GROUP);
        let mut rows = read.query([i64::try_from(GROUP)?])?;
        while let Some(row) = rows.next()? {
            let texts = [1, 2, 5, 6, 8, 10, 11].map(|column| row.get(column));
            group.push((row.get(0)?, texts.into_iter().collect::<Result<_, _>>()?));
        }
        drop(rows);
        let (Some(first), Some(last)) = (group.first(), group.last()) else { break };
        connection.execute_batch("BEGIN IMMEDIATE")?;
        delete.execute([first.0, last.0])?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(began.elapsed())
}

fn drain(db: &Path, publisher: &impl Publisher, entries: usize) -> Result<Duration> {
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let began = Instant::now();
    let report = outbox.run(publisher, entries)?;
    let took = began.elapsed();
    ensure!(report.published == entries as u64, "{} of {entries} entries were published", report.published);
    Ok(took)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn remove(db: &Path) -> Result<()> {
    for ending in ["", "-wal", "-shm", "-outbox.lock", "-outbox.calls"] {
        let mut file = db.as_os_str().to_owned();
        file.push(ending);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A folder of the benchmark's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = parent.join(format!("outbox-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
