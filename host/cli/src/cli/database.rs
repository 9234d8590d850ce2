//! Which outbox a command is for, and who acts on it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use outbox_host::SqliteOutbox;
use outbox_host::outbox::Act;

use crate::config::Config;

/// Which outbox.
#[derive(Args, Clone)]
pub struct Database {
    /// The database that the outbox is in.
    #[arg(long, env = "OUTBOX_DB", value_name = "FILE")]
    db: Option<PathBuf>,
    /// Settings: outbox.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Database {
    pub fn settings(&self) -> Result<Config> {
        Ok(self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default())
    }

    /// The settings, and the database's file.
    pub fn config(&self) -> Result<(Config, PathBuf)> {
        let config = self.settings()?;
        let db = self.db.clone().or_else(|| config.db.clone());
        let db =
            db.context("no database: name it with --db FILE, OUTBOX_DB, or `db` in the file given with --config")?;
        Ok((config, db))
    }

    pub fn open(&self) -> Result<SqliteOutbox> {
        Ok(SqliteOutbox::open(&self.config()?.1)?)
    }

    /// Opens the outbox for reading only: users who may only read can do this too.
    pub fn look<T>(&self, read: impl FnMut(&SqliteOutbox) -> Result<T>) -> Result<T> {
        SqliteOutbox::look(&self.config()?.1, read)
    }
}

/// The user who acts, and the time, for the audit table.
pub fn act() -> Act {
    let who = ["OUTBOX_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    Act { who: who.unwrap_or_else(|| "unknown".into()), at: Timestamp::now() }
}
