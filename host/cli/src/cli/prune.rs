use anyhow::{Result, ensure};
use clap::Args;
use outbox_host::outbox::{Operator, Pruned, Retention};

use super::database::{Database, act};
use super::terminal::print;
use crate::config::Time;

/// How many records are deleted in one transaction.
const BATCH: usize = 500;

/// Delete what is older than the retention says.
#[derive(Args)]
pub struct Prune {
    #[command(flatten)]
    database: Database,
    /// Keep dead letters, with their attempts, for so long: for example 30d.
    #[arg(long, value_name = "TIME")]
    dead_letters: Option<Time>,
    /// Keep records of attempts of entries that are still there for so long.
    #[arg(long, value_name = "TIME")]
    attempts: Option<Time>,
    /// Keep records of operators' acts for so long.
    #[arg(long, value_name = "TIME")]
    audit: Option<Time>,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    pub fn run(self) -> Result<()> {
        let (config, _) = self.database.config()?;
        let configured = config.options().retention;
        let or = |flag: Option<Time>, configured| flag.map(|time| time.0).or(configured);
        let retention = Retention {
            dead_letters: or(self.dead_letters, configured.dead_letters),
            attempts: or(self.attempts, configured.attempts),
            audit: or(self.audit, configured.audit),
        };
        ensure!(
            retention != Retention::default(),
            "nothing says how long records are kept: give --dead-letters, --attempts or --audit, or [retention] in the config"
        );
        let by = act();
        if self.dry_run {
            let prunable = self.database.look(|outbox| Ok(outbox.prune(&retention, &by, BATCH, true)?))?;
            return print_pruned("would delete", prunable);
        }
        let outbox = self.database.open()?;
        let mut pruned = Pruned::default();
        loop {
            let last = outbox.prune(&retention, &by, BATCH, false)?;
            if last.total() == 0 {
                return print_pruned("deleted", pruned);
            }
            pruned += last;
        }
    }
}

fn print_pruned(verb: &str, pruned: Pruned) -> Result<()> {
    let Pruned { dead_letters, attempts, audit } = pruned;
    print(format!("{verb} {dead_letters} dead letters, {attempts} records of attempts, {audit} records of acts"))
}
