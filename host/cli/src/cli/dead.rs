//! `outbox dead`: the dead letters, and what an operator does with them.

use anyhow::Result;
use clap::Subcommand;

mod discard;
mod edit;
mod filter;
mod id;
mod list;
mod retry;
mod show;

/// What may be done with dead letters. ID is the entry's position, or its event's uuid.
#[derive(Subcommand)]
pub enum Dead {
    /// List them.
    List(list::List),
    /// Show one whole, with its attempts.
    Show(show::Show),
    /// Put them back into the outbox, at their old places, with the same uuid.
    Retry(retry::Retry),
    /// Delete them for good.
    Discard(discard::Discard),
    /// Replace the data of one, or any other column of it.
    Edit(edit::Edit),
}

impl Dead {
    pub fn run(self) -> Result<()> {
        match self {
            Self::List(command) => command.run(),
            Self::Show(command) => command.run(),
            Self::Retry(command) => command.run(),
            Self::Discard(command) => command.run(),
            Self::Edit(command) => command.run(),
        }
    }
}
