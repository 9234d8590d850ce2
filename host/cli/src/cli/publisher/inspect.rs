use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use outbox_host::SqliteOutbox;
use outbox_host::outbox::{Deployments, PublisherVersion, VersionState};
use outbox_host::publisher::component::{ComponentPublisher, Inspection, Limits, LoadError, inspect};
use serde::Serialize;

use crate::cli::database::Database;
use crate::cli::running;
use crate::cli::terminal::{print, print_json};

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    database: Database,
    /// A file, or the name of a publisher in the outbox. Of a publisher, its active version is shown, or else the
    /// version that was requested last.
    #[arg(value_name = "FILE|NAME")]
    what: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Shown {
    name: String,
    /// The version. None for a file.
    version: Option<u32>,
    #[serde(flatten)]
    inspection: Inspection,
    /// Why it cannot be a publisher. None if it can.
    refusal: Option<String>,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let settings = running::settings(&self.database.settings()?.publisher);
        let (version, bytes) = find(&self.what, &self.database, &settings.limits)?;
        let inspection = inspect(&self.what, &bytes)?;
        let refusal = ComponentPublisher::from_bytes(&self.what, &bytes, settings).err().map(|error| error.to_string());
        let shown = Shown { name: self.what, version, inspection, refusal };
        if self.json { print_json(&shown) } else { print_shown(&shown) }
    }
}

/// Finds a component: in a file, or as a publisher's version in the outbox: the active one, or else the one that was
/// requested last.
pub fn find(what: &str, database: &Database, limits: &Limits) -> Result<(Option<u32>, Vec<u8>)> {
    let file = Path::new(what);
    if file.exists() {
        return Ok((None, ComponentPublisher::read(file, limits)?));
    }
    let look = database.look(|outbox| Ok(deployed(outbox, what, limits)));
    look.with_context(|| format!("there is no file {what}, and no outbox to look in"))?
}

/// A publisher's active version in the outbox, or else the version that was requested last.
fn deployed(outbox: &SqliteOutbox, what: &str, limits: &Limits) -> Result<(Option<u32>, Vec<u8>)> {
    let versions = outbox.versions(Some(what))?;
    let rank = |version: &&PublisherVersion| (version.state == VersionState::Active, version.requested);
    let found = versions.iter().max_by_key(rank);
    let found = found.with_context(|| format!("there is no file {what}, and no publisher of that name"))?;
    let (name, bytes_max) = (what.to_owned(), limits.module_bytes);
    ensure!(found.size <= bytes_max as u64, LoadError::TooLarge { name, bytes_max });
    let bytes = outbox.module(&found.digest)?;
    let bytes = bytes.with_context(|| format!("the module {} is missing: deploy its file again", found.digest))?;
    Ok((Some(found.version), bytes))
}

fn print_shown(shown: &Shown) -> Result<()> {
    let Shown { name, version, inspection, refusal } = shown;
    let yes = |is: bool| if is { "yes" } else { "no" };
    let line = |title: &str, text: &str| print(format!("{title:<15} {text}"));
    line("name", name)?;
    if let Some(version) = version {
        line("version", &version.to_string())?;
    }
    line("digest", &inspection.digest)?;
    line("size", &format!("{} bytes", inspection.size))?;
    let contract = inspection.contract.as_ref().map(|version| format!("outbox:publisher@{version}"));
    line("contract", contract.as_deref().unwrap_or("none: it is no publisher"))?;
    line("batch-publisher", yes(inspection.batch_publisher))?;
    line("lifecycle", yes(inspection.lifecycle))?;
    inspection.toolchain.iter().try_for_each(|tool| line("made with", tool))?;
    inspection.imports.iter().try_for_each(|import| line("imports", import))?;
    for hint in &inspection.grants {
        line("may need", &format!("{}, for {}", hint.setting, hint.import.trim_end_matches('/')))?;
    }
    match refusal {
        None => line("deployable", "yes"),
        Some(refusal) => line("deployable", &format!("no: {refusal}")),
    }
}
