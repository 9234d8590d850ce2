//! The application's side: another process commits 1,000 entries a second, alone at first, and then beside a full drain.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outbox_host::Publisher;
use outbox_host::outbox::sqlite::rusqlite::Connection;

use super::bed::{self, Bed, STREAMS};
use super::figures::{Figure, Measured, median, percentile};
use super::other::{Other, Part, monotonic_ns};
use crate::cli::terminal::say;

const PERIOD: Duration = Duration::from_millis(1);

/// The times of commits, in milliseconds.
#[derive(Default)]
struct Commits {
    alone: Vec<f64>,
    beside: Vec<f64>,
    /// How many a second there were beside the drain.
    rate: f64,
    /// How many entries a second were drained meanwhile.
    drained: f64,
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let full = bed.filled(bed.entries, bed.bytes, STREAMS)?;
    let publisher = bed.publisher()?;
    let mut turns = Vec::new();
    for turn in 0..bed.repeat {
        say(format_args!("writer: {} of {}", turn + 1, bed.repeat));
        turns.push(commits(bed, &bed.copy(&full)?, &publisher)?);
    }
    let of = |figure: fn(&Commits) -> f64| turns.iter().map(figure).collect::<Vec<_>>();
    let (alone, beside) = (of(|it| percentile(&it.alone, 99)), of(|it| percentile(&it.beside, 99)));
    Ok(Measured {
        what: format!("1,000 commits a second of another process, beside a drain of {} entries", bed.entries),
        figures: vec![
            Figure::ratio("99 of 100, beside / alone", &beside, &alone),
            Figure::new("a commit alone, 99 of 100", "ms", alone),
            Figure::new("a commit beside the drain, 99 of 100", "ms", beside),
            Figure::new("a commit alone, median", "ms", of(|it| median(&it.alone))),
            Figure::new("a commit beside the drain, median", "ms", of(|it| median(&it.beside))),
            Figure::new("commits beside the drain", "/s", of(|it| it.rate)),
            Figure::new("entries drained meanwhile", "/s", of(|it| it.drained)),
        ],
    })
}

fn commits(bed: &Bed, db: &Path, publisher: &impl Publisher) -> Result<Commits> {
    let mut other = Other::start(bed, Part::Write, Some(db), 1)?;
    let mut commits = Commits::default();
    // About as many as there will be beside the drain.
    for _ in 0..(bed.entries / 100).clamp(20, 2_000) {
        commits.alone.push(parsed(other.line()?)?.1);
    }
    let drained = AtomicBool::new(false);
    let (sender, lines) = mpsc::channel();
    let (began, ended, rate) = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            while let Some(line) = other.line()? {
                sender.send(line)?;
                if drained.load(Ordering::Relaxed) {
                    other.ask_to_end();
                }
            }
            Ok(())
        });
        let began = monotonic_ns();
        let rate = bed::drain(db, publisher, bed.entries);
        let ended = monotonic_ns();
        drained.store(true, Ordering::Relaxed);
        reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        rate.map(|rate| (began, ended, rate))
    })?;
    drop(sender);
    for line in lines {
        let (at, took_ms) = parsed(Some(line))?;
        if (began..ended).contains(&at) {
            commits.beside.push(took_ms);
        }
    }
    ensure!(!commits.beside.is_empty(), "the drain was over before anything was committed beside it: more --entries");
    commits.drained = rate;
    commits.rate = commits.beside.len() as f64 / ((ended - began) as f64 / 1e9);
    other.end()?;
    Ok(commits)
}

/// When the commit began, and how long it took.
fn parsed(line: Option<String>) -> Result<(i64, f64)> {
    let line = line.context("the writer ended")?;
    let (at, took_ns) = line.split_once(' ').context("the writer printed something else")?;
    Ok((at.parse()?, took_ns.parse::<f64>()? / 1e6))
}

/// The other process: commits until its standard input closes.
pub fn commit(db: &Path) -> Result<()> {
    let connection = Connection::open(db)?;
    let mut insert = connection.prepare("INSERT INTO outbox (stream_id, name, data) VALUES ('s', 'written', '{}')")?;
    let mut output = std::io::stdout().lock();
    let closed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            closed.store(true, Ordering::Relaxed);
        });
        let mut due = monotonic_ns();
        while !closed.load(Ordering::Relaxed) {
            due += i64::try_from(PERIOD.as_nanos())?;
            thread::sleep(Duration::from_nanos(u64::try_from(due - monotonic_ns()).unwrap_or(0)));
            let began = monotonic_ns();
            insert.execute([])?;
            writeln!(output, "{began} {}", monotonic_ns() - began)?;
        }
        Ok(())
    })
}
