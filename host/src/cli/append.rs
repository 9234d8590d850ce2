use std::io::{self, BufRead, BufReader, ErrorKind, Read, stdin};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use outbox_host::{DEFAULT_TENANT, JsonSerde, NewEvent, Outbox, Payload, StorageError, StreamId, files};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Database, print};

/// The most bytes of a line: twice what an event may have, which is told with the event.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most bytes of the input, all of which is held until it is appended.
const INPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

#[derive(Args)]
pub struct Append {
    #[command(flatten)]
    database: Database,
    /// NDJSON: one event a line; standard input where there is none, or `-`.
    file: Option<PathBuf>,
}

/// One line of the input. The values are kept as they are written: data has to arrive so, and what is wrong with the
/// others is told with their keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    stream_id: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_name: Option<&'a RawValue>,
    #[serde(borrow)]
    category: Option<&'a RawValue>,
    #[serde(borrow)]
    tenant_id: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
    #[serde(borrow)]
    uuid: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
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
                let opened = files::open(file).map_err(|error| match error.kind() {
                    ErrorKind::InvalidInput => io::Error::other(format!("{error}: give it on standard input")),
                    _ => error,
                });
                Box::new(BufReader::new(opened.with_context(|| format!("cannot read {}", file.display()))?))
            }
            None => Box::new(stdin().lock()),
        };
        let (mut numbers, mut events) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(Lines { input, left: INPUT_BYTES_MAX }) {
            let line = line.map_err(|error| anyhow::anyhow!("line {number}: {error}; nothing was appended"))?;
            // Some editors begin a file with a byte-order mark.
            let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { &line };
            if !line.trim().is_empty() {
                events.push(event(line).map_err(|error| {
                    anyhow::anyhow!("line {number}: {}; nothing was appended", super::text(&error))
                })?);
                numbers.push(number);
            }
        }
        Ok((numbers, events))
    }
}

/// The lines of the input, as `BufRead::lines` gives them, but bounded: it may have no end.
struct Lines {
    input: Box<dyn BufRead>,
    /// How many bytes there may still be.
    left: u64,
}

impl Iterator for Lines {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        let most = self.left.min(LINE_BYTES_MAX as u64) + 1;
        match (&mut self.input).take(most).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(bytes) if bytes as u64 == most => return Some(Err(io::Error::other(self.too_long()))),
            Ok(bytes) => self.left -= bytes as u64,
            Err(error) => return Some(Err(error)),
        }
        line.pop_if(|last| *last == b'\n');
        line.pop_if(|last| *last == b'\r');
        Some(String::from_utf8(line).map_err(|_| io::Error::other("it is not UTF-8")))
    }
}

impl Lines {
    fn too_long(&self) -> String {
        if self.left > LINE_BYTES_MAX as u64 {
            return format!("it has more than {LINE_BYTES_MAX} bytes");
        }
        format!("there are more than {INPUT_BYTES_MAX} bytes in all: append them in parts")
    }
}

pub(super) fn event(line: &str) -> Result<NewEvent> {
    // An array would else be taken for the values of all keys, in their order.
    ensure!(line.trim_start().starts_with('{'), "it is not a JSON object");
    let line: Line = serde_json::from_str(line).map_err(|error| anyhow::anyhow!("{}", column_only(&error)))?;
    let name = text("name", line.name)?;
    let stream_name = line.stream_name.map(|raw| text("stream_name", raw)).transpose()?;
    let stream_id = match (line.stream_id, stream_name) {
        (Some(id), name) => StreamId { id: text("stream_id", id)?, name, category: None },
        (None, Some(name)) => {
            ensure!(!name.is_empty(), "stream_name is empty");
            StreamId::from_name(name)
        }
        (None, None) => bail!("stream_id or stream_name is missing"),
    };
    Ok(NewEvent {
        uuid: value("uuid", line.uuid)?,
        name,
        version: value("version", line.version)?,
        created_at: value("created_at", line.created_at)?,
        data: Payload::Json(line.data.get().to_owned()),
        context: line.context.map_or_else(|| "{}".into(), |context| context.get().to_owned()),
        stream_id: StreamId { category: value("category", line.category)?, ..stream_id },
        tenant_id: value("tenant_id", line.tenant_id)?.unwrap_or_else(|| DEFAULT_TENANT.into()),
    })
}

fn text(key: &str, raw: &RawValue) -> Result<String> {
    value(key, Some(raw))?.with_context(|| format!("{key}: it is null"))
}

/// The value of a key; none where it is left out, or null.
fn value<T: DeserializeOwned>(key: &str, raw: Option<&RawValue>) -> Result<Option<T>> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|error| {
        let error = error.to_string();
        anyhow::anyhow!("{key}: {}", error.split(" at line ").next().unwrap_or(&error))
    })
}

/// That it is line 1 of one line is not worth telling.
fn column_only(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines as somebody may write them: known keys with values of any kind, and noise.
    fn line() -> impl Strategy<Value = String> {
        const KEYS: &[&str] = &[
            "name",
            "data",
            "stream_id",
            "stream_name",
            "category",
            "tenant_id",
            "version",
            "context",
            "uuid",
            "created_at",
            "nmae",
        ];
        const VALUES: &[&str] = &[
            "null",
            "true",
            "-1",
            "3",
            "18446744073709551616",
            "1e400",
            "\"\"",
            "\"order-1\"",
            "\"\\ud800\"",
            "\"2026-01-31\"",
            "{}",
            "{\"a\": [1, {}]}",
            "[[[",
            "\"unended",
        ];
        let member =
            (prop::sample::select(KEYS), prop::sample::select(VALUES)).prop_map(|(k, v)| format!("\"{k}\": {v}"));
        let object = prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(", ")));
        let good = |rest: String| format!("{{\"name\": \"n\", \"data\": 1, \"stream_id\": \"s\", {}", &rest[1..]);
        prop_oneof![2 => object.clone(), 2 => object.prop_map(good), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn no_line_breaks_it_and_the_data_of_a_good_one_stays_as_it_is(line in line()) {
            match event(&line) {
                Ok(event) => {
                    let Payload::Json(data) = event.data else { panic!("{line}") };
                    prop_assert!(line.contains(&data) && serde_json::from_str::<&RawValue>(&data).is_ok());
                }
                Err(error) => prop_assert!(!super::super::text(&error).is_empty()),
            }
        }
    }

    #[test]
    fn a_line_of_very_deep_brackets_is_refused_or_taken_and_does_no_harm() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let _ = event(&format!("{{\"name\": \"n\", \"stream_id\": \"s\", \"data\": {deep}}}"));
        let _ = event(&deep);
    }
}
