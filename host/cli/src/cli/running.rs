//! How a publisher is run: what it is granted, its limits, where its compiled code is kept.

use std::env;
use std::fmt::Display;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use outbox_host::publisher::component::{HttpGrant, HttpsProxy, Settings, TcpGrant};

use crate::config::{IsolationConfig, LimitsConfig, Mib, PublisherConfig, Time, limit};

/// What a publisher is granted, and how it is run.
#[derive(Args)]
pub struct Running {
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
    pub fn grant(&mut self, publisher: &mut PublisherConfig) {
        publisher.allow_http.append(&mut self.allow_http);
        publisher.allow_tcp.append(&mut self.allow_tcp);
        publisher.allow_private |= self.allow_private;
        publisher.env.extend(std::mem::take(&mut self.env));
    }

    /// The settings that follow, secrets included.
    pub fn settings(&self, publisher: &PublisherConfig) -> Result<Settings> {
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
    #[arg(long, value_name = "TIME", help = help("The longest time of one call, waiting included", |it| it.call_time))]
    call_time: Option<Time>,
    #[arg(long, value_name = "TIME", help = help("The longest time of compiling it", |it| it.compile_time))]
    compile_time: Option<Time>,
    #[arg(long, value_name = "MIB", help = help("The most memory of one instance", |it| it.memory_mib))]
    memory_mib: Option<usize>,
    #[arg(long, value_name = "MIB", help = help("The most bytes of the component itself", |it| it.module_mib))]
    module_mib: Option<usize>,
    #[arg(long, value_name = "N", help = help("The most HTTP requests of one call", |it| it.http_requests))]
    http_requests: Option<u32>,
    #[arg(long, value_name = "N", help = help("The most lines of output of one call that are logged", |it| it.lines))]
    log_lines: Option<usize>,
    /// Any limit of [publisher.limits], for example `tcp_sockets=4`; may be given again.
    #[arg(long, value_name = "KEY=VALUE", value_parser = limit)]
    limits: Vec<LimitsConfig>,
    /// Whether an instance serves many events [default: reuse].
    #[arg(long, value_enum)]
    isolation: Option<IsolationConfig>,
    /// How many events an instance serves before it is replaced [default: 1000].
    #[arg(long, value_name = "N")]
    recycle_after: Option<u32>,
}

/// What a flag sets, with its default.
fn help<T: Display>(what: &str, limit: impl Fn(LimitsConfig) -> Option<T>) -> String {
    let default = limit(LimitsConfig::defaults()).map(|default| format!(" [default: {default}]"));
    format!("{what}{}", default.unwrap_or_default())
}

impl Sandbox {
    /// A flag overrides what the file says.
    fn apply(&self, publisher: &mut PublisherConfig) {
        let limits = &mut publisher.limits;
        self.limits.iter().for_each(|limit| *limits = limit.clone().or(limits));
        limits.call_time = self.call_time.or(limits.call_time);
        limits.compile_time = self.compile_time.or(limits.compile_time);
        limits.memory_mib = self.memory_mib.map(Mib).or(limits.memory_mib);
        limits.module_mib = self.module_mib.map(Mib).or(limits.module_mib);
        limits.http_requests = self.http_requests.or(limits.http_requests);
        limits.lines = self.log_lines.or(limits.lines);
        publisher.isolation = self.isolation.unwrap_or(publisher.isolation);
        publisher.recycle_after = self.recycle_after.or(publisher.recycle_after);
    }
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
pub fn settings(publisher: &PublisherConfig) -> Settings {
    let settings = publisher.settings();
    Settings { cache: settings.cache.or_else(user_cache), ..settings }
}
