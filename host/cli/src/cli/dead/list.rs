//! `outbox dead list`.

use anyhow::Result;
use clap::Args;
use outbox_host::outbox::{DeadLetter, Operator, Selection};

use super::filter::Filter;
use crate::cli::database::Database;
use crate::cli::table::cell;
use crate::cli::terminal::{print, print_json};

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    filter: Filter,
    /// The most to list.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

impl List {
    pub fn run(self) -> Result<()> {
        let selection = Selection::Matching(self.filter.into_filter());
        let dead = self.database.look(|outbox| Ok(outbox.dead_letters(&selection, self.limit)?))?;
        if self.json {
            return print_json(&dead);
        }
        dead.iter().try_for_each(|dead| print(line(dead)))?;
        print(format!("{} dead letters", dead.len()))
    }
}

/// A dead letter in one line.
pub fn line(dead: &DeadLetter) -> String {
    let DeadLetter { position, attempts, .. } = dead;
    let [name, tenant_id, stream_id, outcome] =
        [&dead.name, &dead.tenant_id, &dead.stream_id, &dead.outcome].map(|text| cell(text));
    let parks = if dead.parks_stream { ", its stream is parked" } else { "" };
    let reason = cell(dead.reason.lines().next().unwrap_or_default());
    format!("{position}  {name}  {tenant_id}/{stream_id}  {outcome} after {attempts} attempts{parks}: {reason}")
}
