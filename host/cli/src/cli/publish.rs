//! `outbox run` makes one pass over the entries; `outbox relay` makes passes until it is stopped.

use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use outbox_host::{DEFAULT_LIMIT, JsonSerde, Outbox, OutboxStorageStrategy, Report, SqliteOutbox, Stop, stop};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::publishers::{Chosen, Source};
use super::database::Database;
use super::running::Running;
use super::terminal::{print, print_json};

mod publishers;

/// The publisher, and how to publish.
#[derive(Args)]
struct Publishing {
    #[command(flatten)]
    database: Database,
    /// The publisher: a file, which is a WebAssembly component, or the name of one that is deployed [default: the one that
    /// is deployed].
    #[arg(long, value_name = "FILE|NAME")]
    publisher: Option<String>,
    #[command(flatten)]
    running: Running,
    /// How many attempts an entry gets before it becomes a dead letter.
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// The most calls of each publisher at once.
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
}

/// One pass.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    publishing: Publishing,
    /// The most entries to try.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Passes without end.
#[derive(Args)]
pub struct Relay {
    #[command(flatten)]
    publishing: Publishing,
    /// Publish with this file, and swap to its new content whenever that changes: for the publisher's author.
    #[arg(long, value_name = "FILE", conflicts_with = "publisher")]
    watch: Option<PathBuf>,
}

impl Publishing {
    fn prepare(mut self, watched: Option<PathBuf>) -> Result<(Outbox<SqliteOutbox>, Chosen)> {
        let (mut config, db) = self.database.config()?;
        let outbox = SqliteOutbox::open(&db)?;
        let named = watched.map(Source::Watched).or_else(|| self.publisher.map(Source::named));
        self.running.grant(&mut config.publisher);
        config.relay.max_attempts = self.max_attempts.or(config.relay.max_attempts);
        if let Some(calls) = self.concurrency {
            (config.relay.concurrency, config.publisher.concurrency) = (Some(calls), None);
        }
        let chosen = Chosen::load(named, &config, &outbox, |publisher| self.running.settings(publisher))?;
        Ok((Outbox::new(outbox, JsonSerde).with_options(config.options()), chosen))
    }
}

impl Run {
    pub fn run(self) -> Result<()> {
        let (outbox, chosen) = self.publishing.prepare(None)?;
        let report = outbox.run(chosen.publishers()?, self.limit)?;
        let remaining = outbox.strategy().status()?.pending;
        if self.json {
            #[derive(Serialize)]
            struct Pass {
                #[serde(flatten)]
                report: Report,
                remaining: u64,
            }
            return print_json(&Pass { report, remaining });
        }
        print_report(&report)?;
        print(format!("remaining       {remaining}"))
    }
}

fn print_report(report: &Report) -> Result<()> {
    print(format!("published       {}", report.published))?;
    if report.dropped > 0 {
        print(format!("dropped         {}", report.dropped))?;
    }
    print(format!("to be retried   {}", report.to_be_retried))?;
    print(format!("dead letters    {}", report.dead_lettered))?;
    if report.unavailable > 0 {
        print(format!("unavailable     {}", report.unavailable))?;
    }
    for failure in &report.failures {
        let (position, attempt, outcome) = (failure.position, failure.attempt, failure.outcome);
        let reason = failure.reason.lines().next().unwrap_or_default();
        let by = failure.publisher.as_deref().map_or_else(String::new, |name| format!(" by {name}"));
        print(format!("  entry {position}, attempt {attempt}{by}: {outcome}: {reason} -> {}", failure.then.name()))?;
    }
    Ok(())
}

impl Relay {
    pub fn run(self) -> Result<()> {
        let (outbox, chosen) = self.publishing.prepare(self.watch)?;
        let (stop, stopping) = stop();
        stop_on_signals(stop)?;
        let report = outbox.relay(chosen.publishers()?, &stopping)?;
        let Report { published, dropped, to_be_retried, dead_lettered, .. } = report;
        let dropped = (dropped > 0).then_some(dropped);
        tracing::info!(published, dropped, to_be_retried, dead_lettered, "stopped");
        Ok(())
    }
}

/// The first signal asks for an orderly end, the second for an immediate one. A third signal kills the process.
fn stop_on_signals(stop: Stop) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
    let wait = move || {
        for (count, signal) in (1..).zip(signals.forever()) {
            match count {
                1 => {
                    tracing::info!(signal, "stopping: waiting for calls under way; a second signal stops at once");
                    stop.stop();
                }
                2 => stop.stop_now(),
                _ => std::process::exit(128 + signal),
            }
        }
    };
    thread::Builder::new().name("outbox-signals".into()).spawn(wait).context("cannot listen to signals")?;
    Ok(())
}
