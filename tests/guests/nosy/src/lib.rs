//! Looks for everything outside the sandbox, and asks the host for more than it may give. The event's data says for
//! what.

mod clocks;
mod config;
mod files;
mod sockets;

use std::io::Read;

use outbox_guest::{Error, Publisher, Recorded};
use wasip2::cli::stdout::get_stdout;
use wasip2::random::insecure::get_insecure_random_bytes;
use wasip2::random::random::get_random_bytes;

#[derive(Default)]
struct Nosy;

impl Publisher for Nosy {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        let script: String = event.data().unwrap_or_default();
        let (what, argument) = script.split_once(' ').unwrap_or((&script, ""));
        match what {
            "surroundings" => surroundings(),
            "files" => files::look(),
            "sockets" => sockets::open(argument),
            "random" => found(get_random_bytes(u64::MAX).len()),
            "insecure-random" => found(get_insecure_random_bytes(u64::MAX).len()),
            "clocks" => clocks::abuse(argument),
            "long-write" => get_stdout().write(&vec![b'x'; 1 << 20]).map_err(Error::retryable),
            "long-line" => {
                print!("{}", "x".repeat(1 << 20).repeat(64));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Returns what was found as the event's reason; the host removes secrets from it.
fn found(what: impl std::fmt::Debug) -> Result<(), Error> {
    Err(Error::rejected(format!("found {what:?}")))
}

fn surroundings() -> Result<(), Error> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let variables: Vec<_> = std::env::vars_os().collect();
    let arguments: Vec<_> = std::env::args_os().collect();
    found((variables, arguments, input, config::all()))
}

outbox_guest::export!(Nosy);
