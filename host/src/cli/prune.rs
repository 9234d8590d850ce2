use anyhow::{Result, ensure};
use clap::Args;
use outbox_host::outbox::{Operator, Pruned, Retention};

use super::{Database, act, print};
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
        let outbox = self.database.open()?;
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
        let mut pruned = outbox.prune(&retention, &by, BATCH, self.dry_run)?;
        let mut last = pruned;
        while !self.dry_run && last.total() > 0 {
            last = outbox.prune(&retention, &by, BATCH, false)?;
            pruned += last;
        }
        let Pruned { dead_letters, attempts, audit } = pruned;
        let verb = if self.dry_run { "would delete" } else { "deleted" };
        print(format!("{verb} {dead_letters} dead letters, {attempts} records of attempts, {audit} records of acts"))
    }
}
