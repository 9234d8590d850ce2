//! What is measured: with what, how much and where.

use std::path::PathBuf;

use clap::Args;

/// What to measure with, how much and where.
#[derive(Args)]
pub struct Options {
    /// The publisher: one that does nothing (tests/guests/noop) shows what the relay itself costs.
    #[arg(long, value_name = "FILE")]
    pub publisher: PathBuf,
    /// A publisher that waits 10 ms for each event (tests/guests/waits), for `waiting` and `memory`.
    #[arg(long, value_name = "FILE")]
    pub waits: Option<PathBuf>,
    /// A publisher that posts each event to WEBHOOK_URL (examples/rust-webhook), for `http` and `neighbour`.
    #[arg(long, value_name = "FILE")]
    pub webhook: Option<PathBuf>,
    /// A publisher that does what each event says (tests/guests/scripted), for `neighbour`.
    #[arg(long, value_name = "FILE")]
    pub scripted: Option<PathBuf>,
    /// A publisher that posts many events to WEBHOOK_URL with one request (examples/rust-bulk), for `batch`.
    #[arg(long, value_name = "FILE")]
    pub bulk: Option<PathBuf>,
    /// How many entries to drain; at most 64,000 of them, for `batch`, and 10,000, for `delay`.
    #[arg(long, default_value_t = 200_000)]
    pub entries: usize,
    /// How many entries a large outbox has, for `memory`, `backlog`, `delay` and `fairness`; at most 100,000 of them, for
    /// `neighbour`.
    #[arg(long, default_value_t = 1_000_000)]
    pub backlog: usize,
    /// How many bytes of data each entry has.
    #[arg(long, default_value_t = 1_024)]
    pub bytes: usize,
    /// How often to measure; the output has medians.
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// How many commits to wait for, for `wake`; at most 100 of them, for `neighbour`.
    #[arg(long, default_value_t = 500)]
    pub wakes: usize,
    /// The folder for the databases, on the disk that you will use [default: a temporary folder].
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}
