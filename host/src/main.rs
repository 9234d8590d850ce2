//! The command line of the outbox: see `outbox --help`.

use std::process::ExitCode;

mod cli;
mod config;

fn main() -> ExitCode {
    cli::main()
}
