//! `outbox run` makes one pass over the entries; `outbox relay` makes passes until it is stopped.

use std::env;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use outbox_host::publisher::component::{HttpGrant, HttpsProxy, Settings, TcpGrant};
use outbox_host::{DEFAULT_LIMIT, JsonSerde, Outbox, OutboxStorageStrategy, Report, SqliteOutbox, Stop, stop};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::publishers::{Chosen, Source};
use super::{Database, print, print_json};
use crate::config::{IsolationConfig, LimitsConfig, PublisherConfig, Time};

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
    /// The most calls at once.
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
}

/// What a publisher is granted, and how it is run.
#[derive(Args)]
pub(super) struct Running {
    /// Let it send HTTP requests there, for example `https://api.example.com`; may be given again.
    #[arg(long, value_name = "ORIGIN")]
    allow_http: Vec<HttpGrant>,
    /// Let it open TCP connections there, for example db.example.com:5432; may be given again.
    #[arg(long, value_name = "HOST:PORT")]
    allow_tcp: Vec<TcpGrant>,
    /// Let the names in --allow-http and --allow-tcp resolve to loopback and private addresses.
    #[arg(long)]
    allow_private: bool,
    /// Set an environment variable of the publisher's; may be given again.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Keep compiled code in this folder [default: ~/.cache/outbox].
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Compile the publisher at each start.
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    #[command(flatten)]
    sandbox: Sandbox,
}

impl Running {
    /// Adds the grants of the command line to those of the file.
    pub(super) fn grant(&mut self, publisher: &mut PublisherConfig) {
        publisher.allow_http.append(&mut self.allow_http);
        publisher.allow_tcp.append(&mut self.allow_tcp);
        publisher.allow_private |= self.allow_private;
        publisher.env.extend(std::mem::take(&mut self.env));
    }

    /// The settings that follow, secrets included.
    pub(super) fn settings(&self, publisher: &PublisherConfig) -> Result<Settings> {
        let mut publisher = publisher.clone();
        self.sandbox.apply(&mut publisher);
        let mut settings = publisher.settings();
        settings.grants.secrets = publisher.secrets()?;
        settings.grants.check_secrets()?;
        settings.net.authorities = publisher.authorities()?;
        if settings.grants.allow_http.iter().any(HttpGrant::is_https) {
            settings.net.proxy = HttpsProxy::of_environment()?;
        }
        settings.cache = self.cache.clone().or(settings.cache).or_else(user_cache).filter(|_| !self.no_cache);
        Ok(settings)
    }
}

/// The publisher's limits.
#[derive(Args)]
#[command(next_help_heading = "Limits of the publisher")]
struct Sandbox {
    /// The longest time of one call, waiting included [default: 30s].
    #[arg(long, value_name = "TIME")]
    call_time: Option<Time>,
    /// The longest time of compiling it [default: 1m].
    #[arg(long, value_name = "TIME")]
    compile_time: Option<Time>,
    /// The most memory of one instance [default: 128].
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<usize>,
    /// The most bytes of the component itself [default: 64].
    #[arg(long, value_name = "MIB")]
    module_mib: Option<usize>,
    /// The most HTTP requests of one call [default: 1000].
    #[arg(long, value_name = "N")]
    http_requests: Option<u32>,
    /// The most lines of output of one call that are logged [default: 1000].
    #[arg(long, value_name = "N")]
    log_lines: Option<usize>,
    /// Any limit of [publisher.limits], for example `tcp_sockets=4`; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    limits: Vec<LimitsConfig>,
    /// Whether an instance serves many events [default: reuse].
    #[arg(long, value_enum)]
    isolation: Option<IsolationConfig>,
    /// How many events an instance serves before it is replaced [default: 1000].
    #[arg(long, value_name = "N")]
    recycle_after: Option<u32>,
}

impl Sandbox {
    /// A flag overrides what the file says.
    fn apply(&self, publisher: &mut PublisherConfig) {
        let limits = &mut publisher.limits;
        self.limits.iter().for_each(|limit| *limits = limit.clone().or(limits));
        limits.call_time = self.call_time.or(limits.call_time);
        limits.compile_time = self.compile_time.or(limits.compile_time);
        limits.memory_mib = self.memory_mib.or(limits.memory_mib);
        limits.module_mib = self.module_mib.or(limits.module_mib);
        limits.http_requests = self.http_requests.or(limits.http_requests);
        limits.lines = self.log_lines.or(limits.lines);
        publisher.isolation = self.isolation.unwrap_or(publisher.isolation);
        publisher.recycle_after = self.recycle_after.or(publisher.recycle_after);
    }
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

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

/// The user's folder for caches: `$XDG_CACHE_HOME`, or `~/.cache`.
fn user_cache() -> Option<PathBuf> {
    let folder = |variable, within: &str| {
        let folder = PathBuf::from(env::var_os(variable)?).join(within);
        folder.is_absolute().then_some(folder)
    };
    folder("XDG_CACHE_HOME", "outbox").or_else(|| folder("HOME", ".cache/outbox"))
}

/// How a component is loaded by commands that do not run it: without secrets.
pub(super) fn settings(publisher: &PublisherConfig) -> Settings {
    let settings = publisher.settings();
    Settings { cache: settings.cache.or_else(user_cache), ..settings }
}

impl Publishing {
    fn prepare(mut self, watched: Option<PathBuf>) -> Result<(Outbox<SqliteOutbox>, Chosen)> {
        let (mut config, db) = self.database.config()?;
        let outbox = SqliteOutbox::open(&db)?;
        let named = watched.map(Source::Watched).or_else(|| self.publisher.map(Source::named));
        self.running.grant(&mut config.publisher);
        config.relay.max_attempts = self.max_attempts.or(config.relay.max_attempts);
        config.relay.concurrency = self.concurrency.or(config.relay.concurrency);
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
        let Report { published, to_be_retried, dead_lettered, .. } = report;
        tracing::info!(published, to_be_retried, dead_lettered, "stopped");
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
