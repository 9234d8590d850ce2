//! `outbox dead show`.

use anyhow::{Context, Result, bail};
use clap::Args;
use outbox_host::SqliteOutbox;
use outbox_host::outbox::{AttemptRecord, DeadLetter, Operator};
use serde::Serialize;

use super::id::Id;
use crate::cli::database::Database;
use crate::cli::terminal::{print, print_json};

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    database: Database,
    #[arg(allow_negative_numbers = true)]
    id: Id,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// A dead letter with its attempts, as `show` prints it.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    dead: DeadLetter,
    attempts_on_record: Vec<AttemptRecord>,
}

impl Show {
    pub fn run(self) -> Result<()> {
        let read = |outbox: &SqliteOutbox| {
            let dead = find(outbox, &self.id)?;
            let mut attempts = outbox.attempts(dead.position)?;
            attempts.retain(|attempt| attempt.uuid == dead.uuid);
            Ok((dead, attempts))
        };
        let (dead, attempts_on_record) = self.database.look(read)?;
        if self.json {
            return print_json(&Whole { dead, attempts_on_record });
        }
        print_dead(&dead)?;
        attempts_on_record.iter().try_for_each(print_attempt)
    }
}

fn print_dead(dead: &DeadLetter) -> Result<()> {
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    for (title, value) in [
        ("id", dead.position.to_string()),
        ("name", dead.name.clone()),
        ("uuid", dead.uuid.clone()),
        ("tenant", dead.tenant_id.clone()),
        ("stream", dead.stream_id.clone()),
        ("stream name", optional(&dead.stream_name)),
        ("category", optional(&dead.category)),
        ("version", dead.version.map_or_else(|| "-".into(), |version| version.to_string())),
        ("created at", dead.created_at.clone()),
        ("died at", dead.died_at.to_string()),
        ("parks stream", dead.parks_stream.to_string()),
        ("delivered to", dead.delivered_to.join(", ")),
        ("context", dead.context.clone()),
        ("content type", optional(&dead.content_type)),
        ("data", dead.data.clone()),
    ] {
        print(format!("{title:<13} {value}"))?;
    }
    Ok(())
}

fn print_attempt(made: &AttemptRecord) -> Result<()> {
    let AttemptRecord { attempt, at, outcome, reason, digest, stderr, given_back, publisher, .. } = made;
    let by = [publisher, digest].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    let by = if by.is_empty() { by } else { format!(" by {by}") };
    let given_back = if *given_back { " (given back)" } else { "" };
    print(format!("attempt {attempt}{given_back} at {at}{by}: {outcome}: {reason}"))?;
    stderr.lines().try_for_each(|line| print(format!("    stderr: {line}")))
}

fn find(outbox: &SqliteOutbox, id: &Id) -> Result<DeadLetter> {
    let selection = Id::selection(std::slice::from_ref(id))?;
    let found = outbox.dead_letters(&selection, 2)?;
    if let [one, other] = found.as_slice() {
        bail!("several dead letters have position {id}: name one by its uuid, {} or {}", one.uuid, other.uuid);
    }
    outbox.dead_letter(&selection)?.with_context(|| format!("there is no dead letter {id}"))
}
