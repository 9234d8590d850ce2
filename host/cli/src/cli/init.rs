use anyhow::Result;
use clap::Args;
use outbox_host::SqliteOutbox;

use super::database::Database;
use super::terminal::{print, say};

#[derive(Args)]
pub struct Init {
    #[command(flatten)]
    database: Database,
}

impl Init {
    pub fn run(self) -> Result<()> {
        let (_, db) = self.database.config()?;
        let done = SqliteOutbox::init(&db)?;
        let db = db.display();
        done.warnings.iter().for_each(|warning| say(format_args!("warning: {warning}")));
        match done.before {
            0 => print(format!("{db}: made the outbox, schema version {}, journal mode WAL", done.now)),
            before if before == done.now => print(format!("{db}: the outbox has schema version {before} already")),
            before => print(format!("{db}: upgraded the outbox from schema version {before} to {}", done.now)),
        }
    }
}
