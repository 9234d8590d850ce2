//! The commands. Each prints what it did to standard output, in words or with `--json` for machines; logs and errors go
//! to standard error, and any error ends with exit code 1.

use std::backtrace::BacktraceStatus;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use outbox_host::publisher::component::compile_for_another;
use outbox_host::text::shown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use self::terminal::{LogWriter, error_text, say, say_lines};
use crate::config::COMPILE;

mod append;
#[cfg(feature = "bench")]
mod bench;
mod database;
mod dead;
mod init;
mod prune;
mod publish;
mod publisher;
mod running;
mod status;
mod table;
mod terminal;

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
            say_lines(&format!("error: {}", error_text(&error)));
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
