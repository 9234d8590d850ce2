//! A relay that kills its own process, by SIGKILL, at a named point or when it meets a certain event.
//!
//! Otherwise it is what `outbox relay` is, with the same publisher in the same sandbox. It ends in order when its standard
//! input closes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use outbox_host::publisher::component::{ComponentPublisher, Grants, Settings};
use outbox_host::{Backoff, JsonSerde, Outbox, Policy, RelayOptions, SqliteOutbox, stop};
use outbox_tests::crash::doomed::{DoomedPublisher, doomed};
use outbox_tests::crash::point::{Doom, Point};

#[derive(Parser)]
struct Options {
    #[arg(long)]
    db: PathBuf,
    #[arg(long)]
    publisher: PathBuf,
    /// The sink, without a path.
    #[arg(long)]
    sink: String,
    /// The name of this relay, which it sends to the sink with each event.
    #[arg(long)]
    source: String,
    /// Where to die.
    #[arg(long)]
    die_at: Option<Point>,
    /// At which pass of that point, counted from 1.
    #[arg(long, default_value_t = 1)]
    pass: u64,
    /// The name of events that kill this process.
    #[arg(long)]
    killer: Option<String>,
    /// How many deaths in its call an event may cause.
    #[arg(long, default_value_t = 1_000_000)]
    max_host_deaths: u32,
    /// The most calls at once.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let doom = Arc::new(Doom::new(options.die_at.map(|point| (point, options.pass))));
    let mut grants = Grants { allow_http: vec![options.sink.parse()?], ..Grants::default() };
    grants.env.insert("WEBHOOK_URL".into(), format!("{}/hook", options.sink));
    grants.env.insert("WEBHOOK_SOURCE".into(), options.source);
    let component = ComponentPublisher::load(&options.publisher, Settings { grants, ..Settings::default() })?;
    let publisher = DoomedPublisher { inner: component, doom: doom.clone(), killer: options.killer };
    let policy = Policy {
        max_attempts: 1_000_000,
        max_host_deaths: options.max_host_deaths,
        backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(50) },
        ..Policy::default()
    };
    let strategy = doomed(SqliteOutbox::open(&options.db)?, doom);
    let relay_options = RelayOptions { policy, concurrency: options.concurrency, ..RelayOptions::default() };
    let outbox = Outbox::new(strategy, JsonSerde).with_options(relay_options);
    let (stop, stopping) = stop();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        stop.stop();
    });
    outbox.relay(&publisher, &stopping)?;
    Ok(())
}
