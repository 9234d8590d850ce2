use anyhow::Result;
use clap::{Args, ValueEnum};
use outbox_host::SqliteOutbox;

use super::database::Database;
use super::terminal::{print, say};

#[derive(Args)]
pub struct Init {
    #[command(flatten)]
    database: Database,
    /// Add the columns publish_after and expires_at to a table that is without them. Programs that insert rows without
    /// naming the columns fail from then on.
    #[arg(long)]
    add_columns: bool,
    /// Make the index that a relay with `fair_by` needs. Each insert has to keep it up; on a large table, nobody can write while
    /// it is made.
    #[arg(long, value_enum, value_name = "BY")]
    fair_by: Option<By>,
}

/// Between whom a relay is to be fair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Between tenants.
    Tenant,
}

impl Init {
    pub fn run(self) -> Result<()> {
        let (_, db) = self.database.config()?;
        let done = match self.add_columns {
            true => SqliteOutbox::init_with_columns(&db)?,
            false => SqliteOutbox::init(&db)?,
        };
        let shown = db.display();
        done.warnings.iter().for_each(|warning| say(format_args!("warning: {warning}")));
        if !done.addable.is_empty() {
            say(format_args!(
                "note: the table outbox is without some columns for delays and expiry, and works as before. Programs that \
                 insert rows without naming the columns fail once there are more. Add them with `outbox init --add-columns`, or \
                 with: {};",
                done.addable.join("; ")
            ));
        }
        match done.before {
            0 => print(format!("{shown}: made the outbox, schema version {}, journal mode WAL", done.now))?,
            before if before == done.now => {
                print(format!("{shown}: the outbox has schema version {before} already"))?;
            }
            before => print(format!("{shown}: upgraded the outbox from schema version {before} to {}", done.now))?,
        }
        match self.fair_by {
            None => Ok(()),
            Some(By::Tenant) if SqliteOutbox::index_tenants(&db)? => {
                print(format!("{shown}: made the index outbox_tenant"))
            }
            Some(By::Tenant) => print(format!("{shown}: the index outbox_tenant is there already")),
        }
    }
}
