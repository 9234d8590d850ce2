//! `outbox publisher`: everything about publishers, from a new project to the versions in the outbox.

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use outbox_host::OutboxStorageStrategy;
use outbox_host::outbox::{Deployments, PublisherVersion, RolledBack, VersionState};
use serde::Serialize;

use super::database::{Database, act};
use super::table::{first_line, lines, second, short};
use super::terminal::{print, print_json};

mod deploy;
mod inspect;
mod new;
mod test;

/// What may be done with publishers.
#[derive(Subcommand)]
pub enum Publisher {
    /// Make a project for a publisher, in one of several languages.
    New(new::New),
    /// Store a new version, which the relay then activates.
    Deploy(deploy::Deploy),
    /// List the versions.
    Versions(Versions),
    /// Withdraw the requested version, or go back to an earlier one.
    Rollback(Rollback),
    /// Show what a component says about itself.
    Inspect(inspect::Inspect),
    /// Call a component with events, and show what it does: no outbox is touched.
    Test(Box<test::Test>),
    /// Remove a version, or a whole publisher.
    Remove(Remove),
}

impl Publisher {
    pub fn run(self) -> Result<()> {
        match self {
            Self::New(command) => command.run(),
            Self::Deploy(command) => command.run(),
            Self::Versions(command) => command.run(),
            Self::Rollback(command) => command.run(),
            Self::Inspect(command) => command.run(),
            Self::Test(command) => command.run(),
            Self::Remove(command) => command.run(),
        }
    }
}

#[derive(Args)]
pub struct Versions {
    #[command(flatten)]
    database: Database,
    /// The publisher [default: all].
    name: Option<String>,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

impl Versions {
    fn run(self) -> Result<()> {
        let versions = self.database.look(|outbox| Ok(outbox.versions(self.name.as_deref())?))?;
        if self.json {
            return print_json(&versions);
        }
        if versions.is_empty() {
            return print(match self.name {
                Some(name) => format!("no version of {name} is kept in this outbox"),
                None => "no publisher is kept in this outbox".into(),
            });
        }
        let titles = [
            "publisher",
            "version",
            "state",
            "canary",
            "digest",
            "bytes",
            "deployed",
            "by",
            "delivered",
            "failed",
            "trapped",
            "note",
            "reason",
        ];
        let rows = versions.iter().map(row).collect::<Result<Vec<_>>>()?;
        lines(titles, &rows).into_iter().try_for_each(print)
    }
}

fn row(version: &PublisherVersion) -> Result<[String; 13]> {
    Ok([
        version.publisher.clone(),
        version.version.to_string(),
        version.state.name().to_owned(),
        version.canary.map_or_else(String::new, |share| share.to_string()),
        short(&version.digest),
        version.size.to_string(),
        second(version.deployed_at).to_string(),
        first_line(&version.deployed_by),
        version.counts.delivered.to_string(),
        version.counts.failed.to_string(),
        version.counts.trapped.to_string(),
        first_line(&version.note),
        first_line(&version.reason),
    ])
}

#[derive(Args)]
pub struct Rollback {
    #[command(flatten)]
    database: Database,
    /// The publisher.
    name: String,
    /// The version to go back to. Without it: withdraw the requested version; if there is none, the canary; if there is
    /// none either, request the version that was active before.
    version: Option<u32>,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

impl Rollback {
    fn run(self) -> Result<()> {
        let (outbox, name) = (self.database.open()?, self.name);
        let done = outbox.rollback(&name, self.version, &act())?;
        if self.json {
            return print_json(&done);
        }
        let RolledBack { withdrawn, requested, active } = done;
        withdrawn.iter().try_for_each(|version| print(format!("withdrew version {version} of {name}")))?;
        if let Some(version) = requested {
            let who = if outbox.status()?.relay.is_some() { "the relay" } else { "the next relay" };
            print(format!("asked for version {version} of {name} again: {who} activates it"))?;
        }
        match active {
            Some(active) if requested.is_none() => print(format!("version {active} of {name} stays active")),
            Some(active) => print(format!("version {active} of {name} is active until then")),
            None => print(format!("no version of {name} is active")),
        }
    }
}

#[derive(Args)]
pub struct Remove {
    #[command(flatten)]
    database: Database,
    /// The publisher.
    name: String,
    /// The version [default: the whole publisher].
    version: Option<u32>,
    /// Remove the whole publisher without asking back.
    #[arg(long)]
    yes: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

impl Remove {
    fn run(self) -> Result<()> {
        let (outbox, name) = (self.database.open()?, self.name);
        if self.version.is_none() && !self.yes {
            let versions = outbox.versions(Some(&name))?;
            let active = versions.iter().find(|version| version.state == VersionState::Active);
            let active =
                active.map_or_else(String::new, |active| format!(", the active version {} too", active.version));
            ensure!(
                versions.is_empty(),
                "this removes all {} versions of {name} for good{active}: say so with --yes, or name one version",
                versions.len()
            );
        }
        let removed = outbox.remove(&name, self.version, &act())?;
        if self.json {
            #[derive(Serialize)]
            struct Removed {
                removed: u32,
            }
            return print_json(&Removed { removed });
        }
        match self.version {
            Some(version) => print(format!("removed version {version} of {name}")),
            None => print(format!("removed {name}, {removed} versions")),
        }
    }
}
