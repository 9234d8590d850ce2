//! The command line of the outbox: see `outbox --help`.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

mod cli;
mod config;

/// Each row that is read is let go on another thread: an allocator for that is worth a tenth of the relay's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
