use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use outbox_host::outbox::{Deployments, PublisherState, PublisherVersion, Status, StreamState, VersionState};
use outbox_host::{OutboxStorageStrategy, SqliteOutbox};
use serde::Serialize;

use super::database::Database;
use super::table::{cell, second, short};
use super::terminal::{print, print_json};

#[derive(Args)]
pub struct ShowStatus {
    #[command(flatten)]
    database: Database,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// The status as it is printed with `--json`.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    /// How long ago the oldest entry was made. None if there is no entry, or its time cannot be read.
    oldest_age_ms: Option<i64>,
    /// The versions of publishers that are at work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publishers: Vec<AtWork>,
}

/// A version of a publisher that is active, or the canary.
#[derive(Serialize)]
struct AtWork {
    name: String,
    version: u32,
    digest: String,
    state: VersionState,
}

fn at_work(outbox: &SqliteOutbox) -> Result<Vec<AtWork>> {
    let versions = outbox.versions(None)?.into_iter();
    let at_work = versions.filter(|it| matches!(it.state, VersionState::Active | VersionState::Canary));
    Ok(at_work
        .map(|PublisherVersion { publisher: name, version, digest, state, .. }| AtWork { name, version, digest, state })
        .collect())
}

impl ShowStatus {
    pub fn run(self) -> Result<()> {
        let (status, publishers) = self.database.look(|outbox| Ok((outbox.status()?, at_work(outbox)?)))?;
        let now = Timestamp::now();
        let oldest = status.oldest_created_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let oldest_age_ms = oldest.map(|oldest| now.as_millisecond() - oldest.as_millisecond());
        if self.json {
            return print_json(&Shown { status, oldest_age_ms, publishers });
        }
        print(format!("pending         {}", status.pending))?;
        if let Some(age_ms) = oldest_age_ms {
            let age = jiff::SignedDuration::from_millis(age_ms).round(jiff::Unit::Second)?;
            print(format!("oldest          {age:#} ago"))?;
        }
        print(format!("waiting         {}", status.waiting))?;
        if let Some(until) = status.delayed_until {
            print(format!("delayed         {}, the first until {}", status.delayed, second(until)))?;
        }
        print(format!("dead letters    {}", status.dead_letters))?;
        if status.undeletable > 0 {
            let reason = status.undeletable_reason.as_deref().unwrap_or_default();
            print(format!("undeletable     {} delivered, and cannot be removed: {}", status.undeletable, reason))?;
        }
        print(format!("last position   {}", status.last_position))?;
        print_relay(&status)?;
        for AtWork { name, version, digest, state } in &publishers {
            print(format!("publisher       {name} version {version} ({}) is {}", short(digest), state.name()))?;
        }
        print_blocked(&status)
    }
}

fn print_relay(status: &Status) -> Result<()> {
    match &status.relay {
        None => print(match &status.relay_unknown {
            None => "relay           none is at work".to_owned(),
            Some(reason) => format!("relay           it is not known whether one is at work: {reason}"),
        }),
        Some(relay) => {
            let (state, pid, since) = (relay.state.name(), relay.pid, second(relay.since));
            print(format!("relay           {state} (process {pid}) since {since}{}", because(&relay.reason)))?;
            relay.publishers.iter().try_for_each(print_publisher)
        }
    }
}

fn print_publisher(publisher: &PublisherState) -> Result<()> {
    let name = publisher.name.as_deref().map_or_else(String::new, |name| format!("{} is ", cell(name)));
    let (state, since) = (publisher.breaker.name(), second(publisher.since));
    let next = publisher.next_probe.map_or_else(String::new, |at| format!(", next probe {}", second(at)));
    let reason = cell(publisher.reason.lines().next().unwrap_or_default());
    print(format!("breaker         {name}{state} since {since}{next}{}", because(&reason)))?;
    publisher.next_token.map_or(Ok(()), |at| print(format!("rate limit      {name}waiting, next entry {}", second(at))))
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn print_blocked(status: &Status) -> Result<()> {
    if status.blocked_streams_total > 0 {
        print(format!("blocked streams {}", status.blocked_streams_total))?;
    }
    for stream in &status.blocked_streams {
        let what = match (stream.state, stream.retry_at) {
            (StreamState::Parked, _) => "parked behind dead letter".to_owned(),
            (StreamState::Waiting, Some(at)) => format!("until {} by entry", second(at)),
            (StreamState::Waiting, None) => "waiting behind entry".to_owned(),
        };
        let (tenant, id) = (cell(&stream.tenant_id), cell(&stream.stream_id));
        let (position, attempts) = (stream.position, stream.attempts);
        let reason = cell(stream.reason.lines().next().unwrap_or_default());
        print(format!("  {tenant}/{id} {what} {position} ({attempts} attempts): {reason}"))?;
    }
    Ok(())
}
