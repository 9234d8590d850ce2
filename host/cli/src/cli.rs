//! The commands. Each prints what it did to standard output, in words or with `--json` for machines; logs and errors go
//! to standard error, and any error ends with exit code 1.

use std::backtrace::BacktraceStatus;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use outbox_host::SqliteOutbox;
use outbox_host::publisher::component::compile_for_another;
use outbox_host::text::shown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::config::{COMPILE, Config};

mod append;
#[cfg(feature = "bench")]
mod bench;
mod dead;
mod init;
mod prune;
mod publish;
mod publisher;
mod status;
mod table;
mod terminal;

use self::terminal::{LogWriter, print, print_json, say, say_lines};

/// An outbox relay whose publishers are sandboxed WebAssembly components.
#[derive(Parser)]
#[command(name = "outbox", version, about)]
struct Cli {
    /// Write the log as JSON, one object a line.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the outbox's tables in a database, or upgrade them.
    Init(init::Init),
    /// Append events from NDJSON, all or none.
    Append(append::Append),
    /// Try each entry that is due once, and report the outcomes.
    Run(publish::Run),
    /// Publish until SIGINT or SIGTERM.
    Relay(publish::Relay),
    /// Show what is in the outbox.
    Status(status::ShowStatus),
    /// Show dead letters, and settle them.
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Make, try and deploy publishers, and manage their versions.
    #[command(subcommand)]
    Publisher(publisher::Publisher),
    /// Delete old dead letters and records.
    Prune(prune::Prune),
    /// Measure what this machine reaches, each figure beside its baseline.
    #[cfg(feature = "bench")]
    Bench(bench::Bench),
    /// Compile a component for the process that started this one.
    #[command(name = COMPILE, hide = true)]
    Compile { memory_bytes: usize, seconds: u64 },
}

/// Which outbox.
#[derive(Args, Clone)]
pub struct Database {
    /// The database that the outbox is in.
    #[arg(long, env = "OUTBOX_DB", value_name = "FILE")]
    db: Option<PathBuf>,
    /// Settings: outbox.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Database {
    fn settings(&self) -> Result<Config> {
        Ok(self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default())
    }

    /// The settings, and the database's file.
    fn config(&self) -> Result<(Config, PathBuf)> {
        let config = self.settings()?;
        let db = self.db.clone().or_else(|| config.db.clone());
        let db =
            db.context("no database: name it with --db FILE, OUTBOX_DB, or `db` in the file given with --config")?;
        Ok((config, db))
    }

    fn open(&self) -> Result<SqliteOutbox> {
        Ok(SqliteOutbox::open(&self.config()?.1)?)
    }

    /// Opens the outbox for reading only: users who may only read can do this too.
    fn look<T>(&self, read: impl FnMut(&SqliteOutbox) -> Result<T>) -> Result<T> {
        SqliteOutbox::look(&self.config()?.1, read)
    }
}

/// The most open files that the program asks for. The hard limit may be a thousand times higher, but nothing here needs
/// so many.
const OPEN_FILES_MAX: u64 = 65_536;

/// Raises the soft limit of open files. Systems set it to 1,024 for the sake of old programs that fail with more;
/// publishers' connections and the database need more.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES_MAX).min(OPEN_FILES_MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        // If it cannot be raised, the old limit stays, and the program keeps to it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

pub fn main() -> ExitCode {
    raise_open_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that was asked for is no error.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            say(error.render());
            return ExitCode::FAILURE;
        }
    };
    if let Command::Compile { memory_bytes, seconds } = cli.command {
        return compile_for_another(memory_bytes, seconds);
    }
    match log(cli.log_json, matches!(cli.command, Command::Relay(_))).and_then(|()| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_lines(&format!("error: {}", text(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Init(command) => command.run(),
        Command::Append(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Relay(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Dead(command) => command.run(),
        Command::Publisher(command) => command.run(),
        Command::Prune(command) => command.run(),
        #[cfg(feature = "bench")]
        Command::Bench(command) => command.run(),
        // `main` handles this command, and never comes here.
        Command::Compile { .. } => Ok(()),
    }
}

/// The error with its causes, each once.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        // An error in settings shows their line with a caret below it; the program itself made these lines, so they
        // stay as they are.
        let lines_are_ours = cause.is::<toml::de::Error>();
        let cause = if lines_are_ours { cause.to_string() } else { shown(cause).to_string() };
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    text
}

/// `OUTBOX_LOG` says how much is logged, for example `warn` or `info,outbox::guest=off`.
fn log(json: bool, with_time: bool) -> Result<()> {
    let directives = std::env::var("OUTBOX_LOG").unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::try_new(&directives).with_context(|| format!("OUTBOX_LOG is `{directives}`"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || LogWriter { json });
    match (json, with_time) {
        (true, _) => log.json().init(),
        (false, true) => log.with_ansi(false).init(),
        (false, false) => log.with_ansi(false).without_time().init(),
    }
    // A panic is logged: the log makes its text harmless, since it may repeat what a stranger wrote.
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
        tracing::error!("{}", shown(format_args!("{panic}{trace}")));
    }));
    Ok(())
}

/// A time rounded to seconds: nobody reads more digits.
fn second(at: jiff::Timestamp) -> jiff::Timestamp {
    // The last possible time cannot be rounded.
    at.round(jiff::Unit::Second).unwrap_or(at)
}

/// The user who acts, and the time, for the audit table.
fn act() -> outbox_host::outbox::Act {
    let who = ["OUTBOX_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    outbox_host::outbox::Act { who: who.unwrap_or_else(|| "unknown".into()), at: jiff::Timestamp::now() }
}
