use anyhow::Result;
use clap::Args;
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
}

impl Init {
    pub fn run(self) -> Result<()> {
        let (_, db) = self.database.config()?;
        let done = match self.add_columns {
            true => SqliteOutbox::init_with_columns(&db)?,
            false => SqliteOutbox::init(&db)?,
        };
        let db = db.display();
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
            0 => print(format!("{db}: made the outbox, schema version {}, journal mode WAL", done.now)),
            before if before == done.now => print(format!("{db}: the outbox has schema version {before} already")),
            before => print(format!("{db}: upgraded the outbox from schema version {before} to {}", done.now)),
        }
    }
}
