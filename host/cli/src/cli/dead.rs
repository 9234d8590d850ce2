use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use outbox_host::outbox::{AttemptRecord, DeadLetter, DeadLetterFilter, Operator, Selection};
use outbox_host::{Column, Field, JsonSerde, Payload, RawEntry, Row, Serde, SqliteOutbox, files};
use serde::Serialize;

use super::table::cell;
use super::{Database, act, print, print_json};
use crate::config::Time;

/// The most bytes of a file with new data: more than an event may have, so that the error about the event is shown.
const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How many dead letters are read at once, if all are read.
const AT_A_TIME: usize = 100;

/// What may be done with dead letters. ID is the entry's position, or its event's uuid.
#[derive(Subcommand)]
pub enum Dead {
    /// List them.
    List(List),
    /// Show one whole, with its attempts.
    Show(Show),
    /// Put them back into the outbox, at their old places, with the same uuid.
    Retry(Retry),
    /// Delete them for good.
    Discard(Discard),
    /// Replace the data of one, or any other column of it.
    Edit(Edit),
}

/// Which ones. Each condition that is given has to hold.
#[derive(Args)]
struct Filter {
    /// Those with this event name; `order.*` stands for every name that starts so.
    #[arg(long)]
    name: Option<String>,
    /// Those of the stream with this id or name.
    #[arg(long)]
    stream: Option<String>,
    /// Those of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Those that died since: a time (2026-01-31T12:00:00Z), or how long ago (2h, 7d).
    #[arg(long, value_parser = since)]
    since: Option<Timestamp>,
    /// Those whose reason, or outcome, has this in it.
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    filter: Filter,
    /// The most to list.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

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

#[derive(Args)]
pub struct Retry {
    #[command(flatten)]
    database: Database,
    #[arg(allow_negative_numbers = true)]
    ids: Vec<Id>,
    /// All that match.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only show which.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub struct Discard {
    #[command(flatten)]
    database: Database,
    #[arg(required = true, allow_negative_numbers = true)]
    ids: Vec<Id>,
}

#[derive(Args)]
pub struct Edit {
    #[command(flatten)]
    database: Database,
    #[arg(allow_negative_numbers = true)]
    id: i64,
    /// A file with the new data; `-` is standard input. It is JSON, unless a content_type is set too.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The new value of a column of the table, for example `name=order.placed`; an empty value stands for no value. May
    /// be given again.
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = change)]
    set: Vec<(Column, String)>,
}

fn change(text: &str) -> Result<(Column, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as COLUMN=VALUE")?;
    let names = Column::ALL.map(Column::name).join(", ");
    let column = Column::ALL.into_iter().find(|column| column.name() == name);
    Ok((column.ok_or_else(|| format!("`{name}` is none of {names}"))?, value.to_owned()))
}

/// A dead letter's position, or its event's uuid: positions can be given again.
#[derive(Debug, Clone, PartialEq)]
enum Id {
    Position(i64),
    Uuid(String),
}

impl std::str::FromStr for Id {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Uuid(text.to_owned()), Self::Position))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Position(position) => position.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

impl Id {
    fn is_of(&self, dead: &DeadLetter) -> bool {
        match self {
            Self::Position(position) => *position == dead.position,
            Self::Uuid(uuid) => *uuid == dead.uuid,
        }
    }

    fn selection(ids: &[Self]) -> Result<Selection> {
        let positions: Vec<i64> =
            ids.iter().filter_map(|id| if let Self::Position(it) = id { Some(*it) } else { None }).collect();
        let uuids: Vec<String> =
            ids.iter().filter_map(|id| if let Self::Uuid(it) = id { Some(it.clone()) } else { None }).collect();
        ensure!(positions.is_empty() || uuids.is_empty(), "name all of them by their positions, or all by their uuids");
        Ok(if uuids.is_empty() { Selection::Positions(positions) } else { Selection::Uuids(uuids) })
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Time = text.parse()?;
    Timestamp::now().checked_sub(ago.0).map_err(|error| error.to_string())
}

impl Dead {
    pub fn run(self) -> Result<()> {
        match self {
            Self::List(command) => command.run(),
            Self::Show(command) => command.run(),
            Self::Retry(command) => command.run(),
            Self::Discard(command) => command.run(),
            Self::Edit(command) => command.run(),
        }
    }
}

impl Filter {
    fn into_filter(self) -> DeadLetterFilter {
        let Self { name, stream, tenant, since, reason } = self;
        DeadLetterFilter { name, stream, tenant, since, reason, after: None }
    }

    fn is_empty(&self) -> bool {
        let Self { name, stream, tenant, since, reason } = self;
        name.is_none() && stream.is_none() && tenant.is_none() && since.is_none() && reason.is_none()
    }
}

impl List {
    fn run(self) -> Result<()> {
        let selection = Selection::Matching(self.filter.into_filter());
        let dead = self.database.look(|outbox| Ok(outbox.dead_letters(&selection, self.limit)?))?;
        if self.json {
            return print_json(&dead);
        }
        dead.iter().try_for_each(|dead| print(line(dead)))?;
        print(format!("{} dead letters", dead.len()))
    }
}

fn line(dead: &DeadLetter) -> String {
    let DeadLetter { position, attempts, .. } = dead;
    let [name, tenant_id, stream_id, outcome] =
        [&dead.name, &dead.tenant_id, &dead.stream_id, &dead.outcome].map(|text| cell(text));
    let parks = if dead.parks_stream { ", its stream is parked" } else { "" };
    let reason = cell(dead.reason.lines().next().unwrap_or_default());
    format!("{position}  {name}  {tenant_id}/{stream_id}  {outcome} after {attempts} attempts{parks}: {reason}")
}

/// A dead letter with its attempts, as `show` prints it.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    dead: DeadLetter,
    attempts_on_record: Vec<AttemptRecord>,
}

impl Show {
    fn run(self) -> Result<()> {
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
        for made in attempts_on_record {
            let AttemptRecord { attempt, at, outcome, reason, digest, stderr, given_back, publisher, .. } = made;
            let by = [publisher, digest].into_iter().flatten().collect::<Vec<_>>().join(" ");
            let by = if by.is_empty() { by } else { format!(" by {by}") };
            let given_back = if given_back { " (given back)" } else { "" };
            print(format!("attempt {attempt}{given_back} at {at}{by}: {outcome}: {reason}"))?;
            stderr.lines().try_for_each(|line| print(format!("    stderr: {line}")))?;
        }
        Ok(())
    }
}

fn find(outbox: &SqliteOutbox, id: &Id) -> Result<DeadLetter> {
    let selection = Id::selection(std::slice::from_ref(id))?;
    let found = outbox.dead_letters(&selection, 2)?;
    if let [one, other] = found.as_slice() {
        bail!("several dead letters have position {id}: name one by its uuid, {} or {}", one.uuid, other.uuid);
    }
    outbox.dead_letter(&selection)?.with_context(|| format!("there is no dead letter {id}"))
}

impl Retry {
    fn run(self) -> Result<()> {
        let selection = match (self.all, self.ids.is_empty()) {
            (true, _) => Selection::Matching(self.filter.into_filter()),
            (false, true) => bail!("which dead letters? Name their ids, or give --all, alone or with conditions"),
            (false, false) if !self.filter.is_empty() => bail!("conditions go with --all, not with ids"),
            (false, false) => Id::selection(&self.ids)?,
        };
        if self.dry_run {
            return would_retry(&self.database, &selection);
        }
        let outbox = self.database.open()?;
        // If the command line named dead letters, report which of them were found.
        let found = if self.ids.is_empty() { Vec::new() } else { outbox.dead_letters(&selection, usize::MAX)? };
        let retried = outbox.retry_dead_letters(&selection, &act())?;
        report_missing(&self.ids, &found, retried.len(), "put back")?;
        let kept = found.len().saturating_sub(retried.len());
        ensure!(kept == 0, "put {} dead letters back; {kept} are in the outbox already: discard them", retried.len());
        print(format!("put {} dead letters back into the outbox", retried.len()))
    }
}

fn would_retry(database: &Database, selection: &Selection) -> Result<()> {
    let lines = database.look(|outbox| lines_of_all(outbox, selection))?;
    lines.iter().try_for_each(print)?;
    print(format!("would put {} dead letters back into the outbox; nothing was changed", lines.len()))
}

/// Reads some at a time, and keeps only one line of each.
fn lines_of_all(outbox: &SqliteOutbox, selection: &Selection) -> Result<Vec<String>> {
    let Selection::Matching(filter) = selection else {
        return Ok(outbox.dead_letters(selection, usize::MAX)?.iter().map(line).collect());
    };
    let mut filter = filter.clone();
    let mut lines = Vec::new();
    loop {
        let mut dead = outbox.dead_letters(&Selection::Matching(filter.clone()), AT_A_TIME)?;
        let ends = dead.first().zip(dead.last()).map(|(first, last)| (first.position, last.position));
        let Some((first, last)) = ends else { return Ok(lines) };
        // Several dead letters may have the same position. Those at the last position are read again, together with all
        // others that have it.
        let is_cut = dead.len() == AT_A_TIME && first < last;
        dead.retain(|dead| !is_cut || dead.position < last);
        lines.extend(dead.iter().map(line));
        filter.after = Some(if is_cut { last.saturating_sub(1) } else { last });
    }
}

impl Discard {
    fn run(self) -> Result<()> {
        let outbox = self.database.open()?;
        let selection = Id::selection(&self.ids)?;
        let found = outbox.dead_letters(&selection, usize::MAX)?;
        // Several dead letters may have the same position: nobody discards one that they have not seen.
        let positions: BTreeSet<i64> = found.iter().map(|dead| dead.position).collect();
        if matches!(selection, Selection::Positions(_)) && positions.len() < found.len() {
            let lines: Vec<String> = found.iter().map(|dead| format!("  {}  {}", dead.uuid, line(dead))).collect();
            bail!("several dead letters have the same position: name each by its uuid\n{}", lines.join("\n"));
        }
        let discarded = outbox.discard_dead_letters(&selection, &act())?;
        report_missing(&self.ids, &found, discarded.len(), "discarded")?;
        print(format!("discarded {} dead letters", discarded.len()))
    }
}

fn report_missing(asked: &[Id], found: &[DeadLetter], done: usize, what: &str) -> Result<()> {
    let is_missing = |id: &&Id| !found.iter().any(|dead| id.is_of(dead));
    let missing: Vec<String> = asked.iter().filter(is_missing).map(ToString::to_string).collect();
    ensure!(missing.is_empty(), "{done} {what}; there is no dead letter {}", missing.join(", "));
    Ok(())
}

impl Edit {
    fn run(self) -> Result<()> {
        let id = self.id;
        let mut changes: Vec<(Column, Field<'_>)> =
            self.set.iter().map(|(column, value)| (*column, field(*column, value))).collect();
        let data =
            self.data.as_deref().map(|file| read(file).with_context(|| format!("cannot read {}", file.display())));
        let data = data.transpose()?;
        if let (Some(data), Some(file)) = (&data, &self.data) {
            let has_type = changes.iter().any(|(column, _)| *column == Column::ContentType);
            if !has_type {
                let data = Payload::Json(data.trim().to_owned());
                JsonSerde.serialize(&data).with_context(|| file.display().to_string())?;
                changes.push((Column::ContentType, Field::Null));
            }
            changes.push((Column::Data, if has_type { data.as_str() } else { data.trim() }.into()));
        }
        ensure!(!changes.is_empty(), "what is to be replaced? Give --data FILE, or --set COLUMN=VALUE");
        let outbox = self.database.open()?;
        let entry = outbox.dead_entry(id)?.with_context(|| format!("there is no dead letter {id}"))?;
        check(&changes)?;
        ensure!(outbox.mend_dead_letter(id, &changes, &act())?, "there is no dead letter {id}");
        let asked = |column: &Column| *column != Column::ContentType || self.set.iter().any(|(set, _)| set == column);
        let what: Vec<String> =
            changes.iter().map(|(column, _)| *column).filter(asked).map(|it| format!("the {}", it.name())).collect();
        print(format!(
            "replaced {} of dead letter {id}; put it back with: outbox dead retry {id}",
            what.join(" and ")
        ))?;
        let mended = changes.into_iter().fold(entry.row(), |row, (column, field)| row.with(column, field));
        match RawEntry::new(entry.position, &mended).decode(1, &JsonSerde) {
            Ok(_) => Ok(()),
            Err(error) => print(format!("it would still be no event: {error}")),
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() != "-" {
        return files::read_text(file, DATA_BYTES_MAX);
    }
    let mut data = String::new();
    io::stdin().take(DATA_BYTES_MAX).read_to_string(&mut data)?;
    Ok(data)
}

fn field(column: Column, value: &str) -> Field<'_> {
    match value.parse::<i64>() {
        _ if value.is_empty() => Field::Null,
        Ok(version) if column == Column::Version => Field::Integer(version),
        _ => value.into(),
    }
}

/// Checks that a valid entry with these columns would still be an event.
fn check(changes: &[(Column, Field<'_>)]) -> Result<()> {
    let good = Row {
        stream_id: "s".into(),
        uuid: "00000000-0000-4000-8000-000000000000".into(),
        name: "n".into(),
        created_at: "2026-01-31T12:00:00Z".into(),
        data: "{}".into(),
        ..Row::default()
    };
    let changed = changes.iter().cloned().fold(good, |row, (column, field)| row.with(column, field));
    RawEntry::new(1, &changed).decode(1, &JsonSerde)?;
    Ok(())
}
