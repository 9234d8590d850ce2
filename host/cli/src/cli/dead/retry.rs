//! `outbox dead retry`.

use anyhow::{Result, bail, ensure};
use clap::Args;
use outbox_host::SqliteOutbox;
use outbox_host::outbox::{Operator, Selection};

use super::filter::Filter;
use super::id::{Id, report_missing};
use super::list::line;
use crate::cli::database::{Database, act};
use crate::cli::terminal::print;

/// How many dead letters are read at once, if all are read.
const AT_A_TIME: usize = 100;

#[derive(Args)]
pub struct Retry {
    #[command(flatten)]
    database: Database,
    #[arg(allow_negative_numbers = true)]
    ids: Vec<Id>,
    /// All that match.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only show which.
    #[arg(long)]
    dry_run: bool,
}

impl Retry {
    pub fn run(self) -> Result<()> {
        let selection = match (self.all, self.ids.is_empty()) {
            (true, _) => Selection::Matching(self.filter.into_filter()),
            (false, true) => bail!("which dead letters? Name their ids, or give --all, alone or with conditions"),
            (false, false) if !self.filter.is_empty() => bail!("conditions go with --all, not with ids"),
            (false, false) => Id::selection(&self.ids)?,
        };
        if self.dry_run {
            return would_retry(&self.database, &selection);
        }
        let outbox = self.database.open()?;
        // If the command line named dead letters, report which of them were found.
        let found = if self.ids.is_empty() { Vec::new() } else { outbox.dead_letters(&selection, usize::MAX)? };
        let retried = outbox.retry_dead_letters(&selection, &act())?;
        report_missing(&self.ids, &found, retried.len(), "put back")?;
        let kept = found.len().saturating_sub(retried.len());
        ensure!(kept == 0, "put {} dead letters back; {kept} are in the outbox already: discard them", retried.len());
        print(format!("put {} dead letters back into the outbox", retried.len()))
    }
}

fn would_retry(database: &Database, selection: &Selection) -> Result<()> {
    let lines = database.look(|outbox| lines_of_all(outbox, selection))?;
    lines.iter().try_for_each(print)?;
    print(format!("would put {} dead letters back into the outbox; nothing was changed", lines.len()))
}

/// Reads some at a time, and keeps only one line of each.
fn lines_of_all(outbox: &SqliteOutbox, selection: &Selection) -> Result<Vec<String>> {
    let Selection::Matching(filter) = selection else {
        return Ok(outbox.dead_letters(selection, usize::MAX)?.iter().map(line).collect());
    };
    let mut filter = filter.clone();
    let mut lines = Vec::new();
    loop {
        let mut dead = outbox.dead_letters(&Selection::Matching(filter.clone()), AT_A_TIME)?;
        let ends = dead.first().zip(dead.last()).map(|(first, last)| (first.position, last.position));
        let Some((first, last)) = ends else { return Ok(lines) };
        // Several dead letters may have the same position. Those at the last position are read again, together with all
        // others that have it.
        let is_cut = dead.len() == AT_A_TIME && first < last;
        dead.retain(|dead| !is_cut || dead.position < last);
        lines.extend(dead.iter().map(line));
        filter.after = Some(if is_cut { last.saturating_sub(1) } else { last });
    }
}
