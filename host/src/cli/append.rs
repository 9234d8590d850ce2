use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use outbox_host::{DEFAULT_TENANT, JsonSerde, NewEvent, Outbox, Payload, StorageError, StreamId};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Database, print};

#[derive(Args)]
pub struct Append {
    #[command(flatten)]
    database: Database,
    /// NDJSON: one event a line; standard input where there is none, or `-`.
    file: Option<PathBuf>,
}

/// One line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    stream_id: Option<String>,
    stream_name: Option<String>,
    data: Box<RawValue>,
    category: Option<String>,
    tenant_id: Option<String>,
    version: Option<u64>,
    context: Option<Box<RawValue>>,
    uuid: Option<Uuid>,
    created_at: Option<Timestamp>,
}

impl Append {
    pub fn run(self) -> Result<()> {
        let outbox = Outbox::new(self.database.open()?, JsonSerde);
        // All of it is read before the transaction begins: a slow input must not hold up the application's writers.
        let (numbers, events) = self.read()?;
        let positions = outbox.append(&events).map_err(|error| match error {
            StorageError::Invalid { index, reason } => {
                let line = numbers.get(index).copied().unwrap_or_default();
                anyhow::anyhow!("line {line}: {reason}; nothing was appended")
            }
            error => error.into(),
        })?;
        match (positions.first(), positions.last()) {
            (Some(first), Some(last)) => {
                print(format!("appended {} events, positions {first} to {last}", positions.len()))
            }
            _ => print("appended 0 events"),
        }
    }

    fn read(&self) -> Result<(Vec<usize>, Vec<NewEvent>)> {
        let input: Box<dyn BufRead> = match self.file.as_deref().filter(|file| file.as_os_str() != "-") {
            Some(file) => {
                Box::new(BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
            }
            None => Box::new(stdin().lock()),
        };
        let (mut numbers, mut events) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(input.lines()) {
            let line = line.with_context(|| format!("line {number}: cannot be read; nothing was appended"))?;
            if !line.trim().is_empty() {
                events.push(event(&line).map_err(|error| {
                    anyhow::anyhow!("line {number}: {}; nothing was appended", super::text(&error))
                })?);
                numbers.push(number);
            }
        }
        Ok((numbers, events))
    }
}

fn event(line: &str) -> Result<NewEvent> {
    // An array would else be taken for the values of all keys, in their order.
    ensure!(line.trim_start().starts_with('{'), "it is not a JSON object");
    // The position within the line is told; that it is line 1 of one line is not worth telling.
    let line: Line = serde_json::from_str(line)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace(" at line 1 column", " at column")))?;
    let stream_id = match (line.stream_id, line.stream_name) {
        (Some(id), name) => StreamId { id, name, category: None },
        (None, Some(name)) => {
            ensure!(!name.is_empty(), "stream_name is empty");
            StreamId::from_name(name)
        }
        (None, None) => bail!("stream_id or stream_name is missing"),
    };
    Ok(NewEvent {
        uuid: line.uuid,
        name: line.name,
        version: line.version,
        created_at: line.created_at,
        data: Payload::Json(line.data.get().to_owned()),
        context: line.context.map_or_else(|| "{}".into(), |context| context.get().to_owned()),
        stream_id: StreamId { category: line.category, ..stream_id },
        tenant_id: line.tenant_id.unwrap_or_else(|| DEFAULT_TENANT.into()),
    })
}
