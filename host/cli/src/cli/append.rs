use std::io::{self, BufRead, BufReader, ErrorKind, Read, stdin};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use outbox_host::recorded::parse_time;
use outbox_host::{
    DEFAULT_TENANT, JsonSerde, NewEvent, Outbox, Payload, Serde, StorageError, StoredData, StreamId, files,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::database::Database;
use super::terminal::{error_text, print};

/// The most bytes of a line: twice what an event may have. An event that is larger is refused with its own error.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Whole numbers below this are exact, also if they are written with a fraction, as in `42.0`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// The most bytes of the input, which is kept in memory until it is appended.
const INPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

#[derive(Args)]
pub struct Append {
    #[command(flatten)]
    database: Database,
    /// NDJSON: one event a line [default: standard input, as with `-`].
    file: Option<PathBuf>,
}

/// One line of the input. The values are kept as they are written: `data` has to arrive like this, and an error in
/// another value names its key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    /// Bytes, as CloudEvents writes them.
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    content_type: Option<&'a RawValue>,
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
    #[serde(borrow)]
    publish_after: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_at: Option<&'a RawValue>,
}

/// Reads a value as present, even if it is null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
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
                events.push(
                    event(line).map_err(|error| {
                        anyhow::anyhow!("line {number}: {}; nothing was appended", error_text(&error))
                    })?,
                );
                numbers.push(number);
            }
        }
        Ok((numbers, events))
    }
}

/// The lines of the input, as `BufRead::lines` gives them, but bounded: the input may have no end.
struct Lines {
    input: Box<dyn BufRead>,
    /// How many bytes may still come.
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
    let line = parsed(line)?;
    let name = required("name", line.name)?;
    let stream_name = text("stream_name", line.stream_name)?.filter(|name| !name.is_empty());
    let stream_id = match (line.stream_id, stream_name) {
        (Some(id), name) => StreamId { id: required("stream_id", id)?, name, category: None },
        (None, Some(name)) => StreamId::from_name(name),
        (None, None) if line.stream_name.is_some() => bail!("stream_name is empty"),
        (None, None) => bail!("stream_id or stream_name is missing"),
    };
    Ok(NewEvent {
        uuid: value("uuid", line.uuid)?,
        name,
        version: value("version", line.version)?,
        created_at: time("created_at", line.created_at)?,
        data: data(&line)?,
        context: line.context.map_or_else(|| "{}".into(), |context| context.get().to_owned()),
        stream_id: StreamId {
            category: text("category", line.category)?.filter(|category| !category.is_empty()),
            ..stream_id
        },
        tenant_id: text("tenant_id", line.tenant_id)?.unwrap_or_else(|| DEFAULT_TENANT.into()),
        publish_after: time("publish_after", line.publish_after)?,
        expires_at: time("expires_at", line.expires_at)?,
    })
}

fn time(key: &'static str, written: Option<&RawValue>) -> Result<Option<Timestamp>> {
    let text: Option<String> = value(key, written)?;
    let time = text.map(|text| parse_time(&text).map_err(|reason| anyhow::anyhow!("{key}: {reason}")));
    time.transpose()
}

fn parsed(line: &str) -> Result<Line<'_>> {
    let text = line.trim_start();
    let one_a_line = "write each event as an object on a line of its own";
    // Without this check, serde takes an array for the values of all keys, in their order.
    ensure!(!text.starts_with('['), "it is not a JSON object, but an array: {one_a_line}, as `jq -c '.[]'` does");
    ensure!(text.starts_with('{'), "it is not a JSON object");
    serde_json::from_str(line).map_err(|error| match error.is_eof() {
        true => anyhow::anyhow!(
            "{}: the object does not end on this line; {one_a_line}, as `jq -c .` does with pretty-printed JSON",
            column_only(&error)
        ),
        false => anyhow::anyhow!("{}", column_only(&error)),
    })
}

/// The payload, as the table takes it: JSON; or with another content type any text, or bytes.
fn data(line: &Line<'_>) -> Result<Payload> {
    let content_type = text("content_type", line.content_type)?.filter(|content_type| !content_type.trim().is_empty());
    match (line.data, line.data_base64) {
        (Some(_), Some(_)) => bail!("there is data, and data_base64 too"),
        (None, None) => bail!("missing field `data`"),
        (Some(data), None) => {
            match JsonSerde.deserialize(StoredData { content_type, ..StoredData::json(data.get()) })? {
                // The text itself, without JSON's quotes and escapes.
                Payload::Binary { content_type, bytes } if bytes.starts_with(b"\"") => {
                    let text: Option<String> = value("data", Some(data))?;
                    Ok(Payload::Binary { content_type, bytes: text.unwrap_or_default().into_bytes() })
                }
                data => Ok(data),
            }
        }
        (None, Some(data)) => {
            let content_type = content_type.context("data_base64 needs a content_type")?;
            let text: String = value("data_base64", Some(data))?.context("data_base64: it is null")?;
            let bytes = decoded(&text).context("data_base64: it is not base64")?;
            Ok(Payload::Binary { content_type, bytes })
        }
    }
}

/// Decodes base64 (RFC 4648), with or without padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.as_bytes().chunks(4) {
        let bits = group.iter().try_fold(0_u32, |bits, digit| {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            Some(bits << 6 | u32::try_from(value).ok()?)
        })?;
        // A byte takes eight bits: a single digit makes no byte.
        let whole = (bits << (6 * (4 - group.len()))).to_be_bytes();
        let count = group.len().checked_sub(1).filter(|count| *count > 0)?;
        bytes.extend_from_slice(whole.get(1..=count)?);
    }
    Some(bytes)
}

fn required(key: &str, raw: &RawValue) -> Result<String> {
    text(key, Some(raw))?.with_context(|| format!("{key}: it is null"))
}

/// A text, or a number that stands for its text, as in the table. None if it is left out, or null.
fn text(key: &str, raw: Option<&RawValue>) -> Result<Option<String>> {
    match raw.map(RawValue::get) {
        Some(number) if number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            let whole = number.parse::<i64>().map(|number| number.to_string());
            let exact = number.parse::<f64>().ok().filter(|number| number.abs() < EXACT_MAX);
            // Negative zero loses its sign.
            let text = whole.ok().or_else(|| exact.map(|number| (number + 0.0).to_string()));
            text.map(Some)
                .with_context(|| format!("{key}: {number} is too large to be exact as a number: write it as text"))
        }
        _ => value(key, raw),
    }
}

/// The value of a key. None if it is left out, or null.
fn value<T: DeserializeOwned>(key: &str, raw: Option<&RawValue>) -> Result<Option<T>> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|error| {
        let error = error.to_string();
        anyhow::anyhow!("{key}: {}", error.split(" at line ").next().unwrap_or(&error))
    })
}

/// Drops the line number, which is always 1, from an error.
fn column_only(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines that somebody may write: known keys with values of any kind, and noise.
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
            "content_type",
            "data_base64",
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
                    if let Payload::Json(data) = event.data {
                        prop_assert!(line.contains(&data) && serde_json::from_str::<&RawValue>(&data).is_ok());
                    }
                }
                Err(error) => prop_assert!(!error_text(&error).is_empty()),
            }
        }
    }

    #[test]
    fn base64_is_read_with_padding_and_without() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYg", "foob")] {
            assert_eq!(decoded(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decoded("/wAB").unwrap(), [0xff, 0, 1]);
        for text in ["Z", "Zm9vY", "Zm 9v", "Zm9-", "====", "é"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn a_line_of_very_deep_brackets_is_refused_or_taken_and_does_no_harm() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let _ = event(&format!("{{\"name\": \"n\", \"stream_id\": \"s\", \"data\": {deep}}}"));
        let _ = event(&deep);
    }
}
