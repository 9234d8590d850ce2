//! The command line of the outbox: see `outbox --help`.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

mod cli;
mod config;

/// One thread allocates each row, and another thread frees it. An allocator that is fast at this saves a tenth of the
/// relay's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
