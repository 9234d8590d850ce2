//! `outbox bench`: figures of this machine, each beside its baseline in the same run. A scenario is a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use self::bed::Bed;
use self::figures::Measured;
use self::options::Options;
use self::other::Part;
use super::terminal::{print, print_json, say};

mod append;
mod backlog;
mod batch;
mod bed;
mod delay;
mod drain;
mod fairness;
mod figures;
mod http;
mod memory;
mod neighbour;
mod options;
mod other;
mod start;
mod swap;
mod unlimited;
mod waiting;
mod wake;
mod writer;

/// Measure what this machine reaches, each figure beside its baseline.
///
/// A figure and its baseline are measured in turn, several times. The output has their medians, and for ratios the
/// median of the pairs' ratios. docs/performance.md says what each scenario does.
#[derive(Args)]
pub struct Bench {
    /// What to measure [default: all but `memory`, `backlog`, `delay` and `fairness`, whose databases are large].
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    #[command(flatten)]
    options: Options,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Run as the other process of a scenario.
    #[arg(long, hide = true, value_enum)]
    part: Option<Part>,
    /// The database of the other process.
    #[arg(long, hide = true)]
    db: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Scenario {
    /// Draining, beside bare SQLite in one thread, a native closure, and a component without limits.
    Drain,
    /// Appending within a transaction, beside a plain INSERT.
    Append,
    /// From another process's commit to the call, and what an idle relay costs.
    Wake,
    /// A publisher that waits, beside native ones.
    Waiting,
    /// Webhooks over real HTTP, beside a native client.
    Http,
    /// The commits of another process, alone and beside a drain.
    Writer,
    /// From the relay's start to the first delivery.
    Start,
    /// From a deployment to the first delivery, and the pause under load.
    Swap,
    /// Resident memory with a large outbox, large entries, and of an idle instance.
    Memory,
    /// An entry's cost in a large outbox.
    Backlog,
    /// How exactly events for later are published, and what a million of them costs an idle relay.
    Delay,
    /// A fast destination beside a publisher that is slow, hangs, is down, spins, traps or has much to do.
    Neighbour,
    /// Batches of many streams to a destination that takes bulk, beside one request for each entry.
    Batch,
    /// A tenant's few entries beside another's many, with `fair_by` and without, and what it costs.
    Fairness,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let Self { scenarios, options, json, part, db } = self;
        if let Some(part) = part {
            return part.play(&options, db.as_deref());
        }
        ensure!(
            options.entries > 0 && options.backlog > 0 && options.repeat > 0 && options.wakes > 0,
            "there is nothing to measure: --entries, --backlog, --repeat and --wakes must be at least 1"
        );
        let chosen = options.chosen(scenarios)?;
        let bed = Bed::new(options)?;
        let mut all = BTreeMap::new();
        for scenario in chosen {
            let measured = scenario.measure(&bed)?;
            if !json {
                print(&measured)?;
            }
            all.insert(scenario, measured);
        }
        if json { print_json(&all) } else { Ok(()) }
    }
}

impl Options {
    /// The scenarios that the command line names. If it names none: all that are quick and have the publisher that they
    /// need.
    fn chosen(&self, asked: Vec<Scenario>) -> Result<Vec<Scenario>> {
        for scenario in &asked {
            let missing = scenario.missing(self);
            ensure!(missing.is_none(), "{} needs {}", scenario.name(), missing.unwrap_or_default());
        }
        if !asked.is_empty() {
            return Ok(asked);
        }
        let quick = Scenario::value_variants().iter().copied().filter(|scenario| !scenario.is_large());
        Ok(quick
            .filter(|scenario| match scenario.missing(self) {
                Some(flag) => {
                    say(format_args!("{} is left out: it needs {flag}", scenario.name()));
                    false
                }
                None => true,
            })
            .collect())
    }
}

impl Scenario {
    fn is_large(self) -> bool {
        matches!(self, Self::Memory | Self::Backlog | Self::Delay | Self::Fairness)
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The flag that the scenario needs, if it is missing.
    fn missing(self, options: &Options) -> Option<&'static str> {
        match self {
            Self::Waiting | Self::Memory if options.waits.is_none() => Some("--waits FILE"),
            Self::Http | Self::Neighbour if options.webhook.is_none() => Some("--webhook FILE"),
            Self::Neighbour if options.scripted.is_none() => Some("--scripted FILE"),
            Self::Batch if options.bulk.is_none() => Some("--bulk FILE"),
            _ => None,
        }
    }

    fn measure(self, bed: &Bed) -> Result<Measured> {
        match self {
            Self::Drain => drain::measure(bed),
            Self::Append => append::measure(bed),
            Self::Wake => wake::measure(bed),
            Self::Waiting => waiting::measure(bed),
            Self::Http => http::measure(bed),
            Self::Writer => writer::measure(bed),
            Self::Start => start::measure(bed),
            Self::Swap => swap::measure(bed),
            Self::Memory => memory::measure(bed),
            Self::Backlog => backlog::measure(bed),
            Self::Delay => delay::measure(bed),
            Self::Neighbour => neighbour::measure(bed),
            Self::Batch => batch::measure(bed),
            Self::Fairness => fairness::measure(bed),
        }
    }
}

impl Part {
    /// Plays this part, in the other process.
    fn play(self, options: &Options, db: Option<&Path>) -> Result<()> {
        let db = || db.context("--part needs --db");
        match self {
            Self::Wake => wake::commit(db()?, options.wakes),
            Self::Write => writer::commit(db()?),
            Self::Serve => http::server::serve(),
            Self::Drain => memory::drain(options, db()?),
            Self::Instances => memory::instances(options),
        }
    }
}
