use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use outbox_host::outbox::{CanaryShare, Deployed, Deployments, PublisherVersion, VersionState, Watch};
use outbox_host::publisher::component::ComponentPublisher;
use outbox_host::{OutboxStorageStrategy, SqliteOutbox};
use serde::Serialize;

use crate::cli::database::{Database, act};
use crate::cli::running;
use crate::cli::table::short;
use crate::cli::terminal::{print, print_json};
use crate::config::Time;

/// How often to look whether a relay that may decide is still there.
const RELAY_LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Deploy {
    #[command(flatten)]
    database: Database,
    /// The publisher: 1 to 64 of the characters a-z, 0-9, _ and -.
    name: String,
    /// The component.
    file: PathBuf,
    /// Let it publish this share of the streams first, beside the active version: for example 5%.
    #[arg(long, value_name = "SHARE")]
    canary: Option<CanaryShare>,
    /// A note that the list of versions shows.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// How long to wait for the decision of a relay at work.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    wait: Time,
    /// Do not wait for the relay's decision.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// A deployment as it is printed with `--json`.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    deployed: Deployed,
    /// The version's state when this was printed.
    state: VersionState,
    /// Why it was refused or retired.
    reason: String,
}

impl Deploy {
    pub fn run(self) -> Result<()> {
        let (config, db) = self.database.config()?;
        let outbox = SqliteOutbox::open(&db)?;
        let settings = running::settings(config.of_publisher(&self.name));
        let bytes = ComponentPublisher::read(&self.file, &settings.limits)?;
        // Only a version that can be loaded is stored. The relay finds in the cache what is compiled here.
        ComponentPublisher::from_bytes(&self.file.to_string_lossy(), &bytes, settings)?;

        let mut watch = outbox.watch()?;
        let deployed = outbox.deploy(&self.name, &bytes, self.canary, &self.note, &act())?;
        let relay = outbox.status()?.relay;
        if !self.json {
            print(said(&self.name, &deployed, relay.as_ref().map(|relay| relay.pid)))?;
        }
        if self.no_wait || !deployed.new || relay.is_none() {
            let state = if deployed.new { VersionState::Stored } else { VersionState::Active };
            let shown = Shown { deployed, state, reason: String::new() };
            return if self.json { print_json(&shown) } else { Ok(()) };
        }
        let verdict = verdict(&outbox, &mut *watch, &self.name, deployed.version, self.wait.0)?;
        self.end(deployed, &verdict)
    }

    fn end(&self, deployed: Deployed, verdict: &Verdict) -> Result<()> {
        let (name, version, patience) = (&self.name, deployed.version, self.wait.0);
        let PublisherVersion { state, reason, activated_at, .. } = &verdict.found;
        if self.json {
            print_json(&Shown { deployed, state: *state, reason: reason.clone() })?;
        }
        match state {
            VersionState::Active | VersionState::Canary if self.json => Ok(()),
            VersionState::Active => print(format!("version {version} of {name} is active")),
            VersionState::Canary => print(format!("version {version} of {name} is the canary")),
            VersionState::Refused => bail!("the relay refused version {version} of {name}: {reason}"),
            VersionState::Retired if activated_at.is_some() && self.json => Ok(()),
            VersionState::Retired if activated_at.is_some() => {
                print(format!("version {version} of {name} was active, and is retired again: {reason}"))
            }
            VersionState::Retired => bail!("version {version} of {name} was retired before it was active: {reason}"),
            VersionState::Stored if verdict.relay => bail!(
                "version {version} of {name} is stored, and the relay has not decided on it within {patience:?}: it still \
                 may; look with `outbox publisher versions {name}`"
            ),
            VersionState::Stored if self.json => Ok(()),
            VersionState::Stored => print("the relay has ended before it decided: the next one does"),
        }
    }
}

fn said(name: &str, deployed: &Deployed, relay: Option<u32>) -> String {
    let Deployed { version, digest, new, superseded } = deployed;
    let digest = short(digest);
    if !new {
        return format!("version {version} of {name}, which is active, has the same bytes ({digest}): nothing to do");
    }
    let superseded =
        superseded.map_or_else(String::new, |old| format!(" in place of version {old}, not activated yet"));
    let who = relay.map_or_else(
        || "no relay is at work: the next one activates it".to_owned(),
        |pid| format!("the relay (process {pid}) activates it"),
    );
    format!("stored version {version} of {name} ({digest}){superseded}; {who}")
}

struct Verdict {
    found: PublisherVersion,
    /// Whether a relay that may still decide is there.
    relay: bool,
}

/// Waits until a relay has decided about the version, or no relay will decide any more. Returns the version as it then
/// is.
fn verdict(
    outbox: &SqliteOutbox,
    watch: &mut dyn Watch,
    name: &str,
    version: u32,
    patience: Duration,
) -> Result<Verdict> {
    let until = Instant::now() + patience;
    let (mut seen, mut looked, mut relay) = (None, None::<Instant>, false);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A relay at work commits all the time: the costly look is taken only now and then.
        if looked.is_none_or(|looked| looked.elapsed() >= RELAY_LOOK) {
            relay = outbox.status()?.relay.is_some();
            looked = Some(Instant::now());
        }
        let generation = Some(outbox.registry_generation()?);
        if generation != seen || left.is_zero() || !relay {
            seen = generation;
            let found = outbox.versions(Some(name))?.into_iter().find(|found| found.version == version);
            let Some(found) = found else { bail!("version {version} of {name} was removed by somebody else") };
            if found.state != VersionState::Stored || left.is_zero() || !relay {
                return Ok(Verdict { found, relay });
            }
        }
        watch.wait(left.min(RELAY_LOOK));
    }
}
