//! `outbox dead discard`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::Args;
use outbox_host::outbox::{Operator, Selection};

use super::id::{Id, report_missing};
use super::list::line;
use crate::cli::database::{Database, act};
use crate::cli::terminal::print;

#[derive(Args)]
pub struct Discard {
    #[command(flatten)]
    database: Database,
    #[arg(required = true, allow_negative_numbers = true)]
    ids: Vec<Id>,
}

impl Discard {
    pub fn run(self) -> Result<()> {
        let outbox = self.database.open()?;
        let selection = Id::selection(&self.ids)?;
        let found = outbox.dead_letters(&selection, usize::MAX)?;
        // Several dead letters may have the same position: nobody discards one that they have not seen.
        let positions: BTreeSet<i64> = found.iter().map(|dead| dead.position).collect();
        if matches!(selection, Selection::Positions(_)) && positions.len() < found.len() {
            let lines: Vec<String> = found.iter().map(|dead| format!("  {}  {}", dead.uuid, line(dead))).collect();
            bail!("several dead letters have the same position: name each by its uuid\n{}", lines.join("\n"));
        }
        let discarded = outbox.discard_dead_letters(&selection, &act())?;
        report_missing(&self.ids, &found, discarded.len(), "discarded")?;
        print(format!("discarded {} dead letters", discarded.len()))
    }
}
