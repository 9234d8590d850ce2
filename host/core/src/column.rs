//! What each column of the outbox may contain, and what it becomes. Anybody may have written it: each function either
//! returns a value of the contract, or a reason for people to read.

use std::borrow::Cow;

use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::{Timestamp, tz::TimeZone};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use uuid::Uuid;

use crate::jsonb;
use crate::recorded::DEFAULT_TENANT;
use crate::row::{Column, Field, Row};
use crate::serde::StoredValue;

/// The most bytes of `data`: no guest could be given more.
pub(crate) const DATA_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most bytes of any other column.
pub(crate) const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// The most characters of a value that a reason repeats.
const REPEATED_CHARS_MAX: usize = 60;
/// Whole numbers up to here are exact as floating point numbers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Column {
    /// The most bytes of it that a publisher may be given; longer values are not read.
    pub fn bytes_max(self) -> usize {
        if self == Self::Data { DATA_BYTES_MAX } else { TEXT_BYTES_MAX }
    }
}

impl Row<'_> {
    /// How a column is shown. None for NULL. An identity is shown as its decoded value, if it can be decoded.
    pub fn shown(&self, column: Column) -> Option<String> {
        let field = self.field(column);
        let decoded = match column {
            Column::TenantId => tenant_id(field).ok(),
            Column::StreamId => stream_id(field).ok(),
            Column::Uuid => self::uuid(field).ok().map(|uuid| uuid.to_string().into()),
            _ => None,
        };
        decoded.map(Cow::into_owned).or_else(|| field.shown())
    }
}

/// A text that may be left out. An empty text counts as left out: Go, for example, writes one if nothing was set.
pub(crate) fn optional<'f>(field: &'f Field<'_>) -> Result<Option<Cow<'f, str>>, String> {
    let text: Cow<'f, str> = match field {
        Field::Null => return Ok(None),
        Field::Integer(number) => number.to_string().into(),
        Field::Real(number) if number.is_finite() => real(*number).into(),
        Field::TooLong(bytes) => return Err(too_long(*bytes)),
        Field::Text(bytes) if bytes.len() > TEXT_BYTES_MAX => return Err(too_long(bytes.len() as u64)),
        field => field.text().ok_or_else(|| format!("text in UTF-8 is expected, not {}", field.kind()))?.into(),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A text that must be there.
pub(crate) fn required<'f>(field: &'f Field<'_>) -> Result<Cow<'f, str>, String> {
    optional(field)?.ok_or_else(|| missing(field))
}

/// The identity of a stream, as text; a number, and the 16 bytes of a UUID, stand for their text.
pub(crate) fn stream_id<'f>(field: &'f Field<'_>) -> Result<Cow<'f, str>, String> {
    identity(field)?.ok_or_else(|| missing(field))
}

/// The identity of a tenant: like that of a stream, and `default` if it is left out.
pub(crate) fn tenant_id<'f>(field: &'f Field<'_>) -> Result<Cow<'f, str>, String> {
    Ok(identity(field)?.unwrap_or(Cow::Borrowed(DEFAULT_TENANT)))
}

fn identity<'f>(field: &'f Field<'_>) -> Result<Option<Cow<'f, str>>, String> {
    match field {
        Field::Bytes(bytes) => match Uuid::from_slice(bytes) {
            Ok(uuid) => Ok(Some(uuid.to_string().into())),
            Err(_) => Err(format!(
                "text, a number or the 16 bytes of a UUID are expected, not a blob of {} bytes",
                bytes.len()
            )),
        },
        field => optional(field),
    }
}

/// A number's text. A whole number has no fraction, as in SQL's comparisons: 42.0 is `42`.
fn real(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        // Negative zero loses its sign.
        return format!("{:.0}", number + 0.0);
    }
    number.to_string()
}

/// The event's version within its stream, 0 or more.
pub(crate) fn version(field: &Field<'_>) -> Result<Option<u64>, String> {
    let number = match field {
        Field::Null => return Ok(None),
        Field::Integer(number) => *number,
        Field::Real(number) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => *number as i64,
        Field::TooLong(bytes) => return Err(too_long(*bytes)),
        other => return Err(format!("a whole number is expected, not {}", other.kind())),
    };
    u64::try_from(number).map(Some).map_err(|_| format!("{number} must not be negative"))
}

/// The event's uuid: text in any of the usual forms, or 16 bytes.
pub(crate) fn uuid(field: &Field<'_>) -> Result<Uuid, String> {
    let parsed = match field {
        Field::Text(text) if text.is_empty() => return Err("it is empty: leave it out, and it gets a new one".into()),
        Field::Text(text) => Uuid::try_parse_ascii(text),
        Field::Bytes(bytes) => Uuid::from_slice(bytes),
        Field::TooLong(bytes) => return Err(too_long(*bytes)),
        other => return Err(format!("a UUID is expected, not {}", other.kind())),
    };
    parsed.map_err(|error| error.to_string())
}

/// RFC 3339 text, in UTC.
pub(crate) fn created_at<'f>(field: &'f Field<'_>) -> Result<Cow<'f, str>, String> {
    if let Field::TooLong(bytes) = field {
        return Err(too_long(*bytes));
    }
    let Some(text) = field.text() else {
        return Err(format!("a date and time is expected as text, not {}", field.kind()));
    };
    // The form of the table's own default, `2026-01-31T12:00:00.000Z`, is by far the most common. Most of it can be
    // checked without parsing.
    let usual = is_usual_form(text);
    if usual && text.get(8..10).is_some_and(|day| day <= "28") {
        return Ok(text.into());
    }
    let time = time(text)?;
    Ok(if usual { text.into() } else { time.to_string().into() })
}

/// The time in a column that may be NULL.
pub(crate) fn wanted_time(field: &Field<'_>) -> Result<Option<Timestamp>, String> {
    match field {
        Field::Null => Ok(None),
        Field::TooLong(bytes) => Err(too_long(*bytes)),
        field => match field.text() {
            Some(text) => time(text).map(Some),
            None => Err(format!("a date and time is expected as text, not {}", field.kind())),
        },
    }
}

/// A date and time: RFC 3339; without an offset, and in SQLite's own form with a space, it is UTC.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    let of_go = without_zone_name(text);
    let text = of_go.as_deref().unwrap_or(text);
    if let Ok(time) = text.parse::<Timestamp>()
        && TimeZone::UTC.to_datetime(time).year() >= 0
    {
        return Ok(time);
    }
    let written = Pieces::parse(text).ok().map(|pieces| {
        let has_zone = pieces.offset().is_some() || pieces.time_zone_annotation().is_some();
        (DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight())), has_zone)
    });
    match written {
        // RFC 3339 has no years before 0 and after 9999.
        Some((civil, _)) if civil.year() <= 0 || civil.year() == 9999 => Err(format!(
            "{} is out of range: the earliest time is 0000-01-01T00:00:00Z, and the latest {}",
            repeated(text),
            Timestamp::MAX
        )),
        Some((civil, false)) => TimeZone::UTC.to_timestamp(civil).map_err(|error| error.to_string()),
        _ => Err(format!(
            "`{}` is no date and time: write it as RFC 3339 has it, for example 2026-01-31T12:00:00Z",
            repeated(text)
        )),
    }
}

/// Reads Go's own form of a time, `2026-01-31 12:00:00.5 +0100 CET m=+0.1`, which some of Go's drivers store.
fn without_zone_name(text: &str) -> Option<String> {
    let mut parts = text.split(' ');
    let (date, time, offset) = (parts.next()?, parts.next()?, parts.next()?);
    let is_offset = offset.len() == 5 && offset.starts_with(['+', '-']);
    let names = parts.take(3).count();
    (is_offset && names <= 2).then(|| format!("{date}T{time}{offset}"))
}

fn is_usual_form(text: &str) -> bool {
    const PATTERN: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
    let digit_or_same = |(byte, pattern): (&u8, &u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    let within = |range: std::ops::Range<usize>, low: &str, high: &str| {
        text.get(range).is_some_and(|part| (low..=high).contains(&part))
    };
    text.len() == PATTERN.len()
        && text.as_bytes().iter().zip(PATTERN).all(digit_or_same)
        && within(5..7, "01", "12")
        && within(8..10, "01", "31")
        && within(11..13, "00", "23")
        && within(14..16, "00", "59")
        && within(17..19, "00", "59")
}

/// The text of a JSON object; `{}` if it is left out, empty, or JSON's `null`, which mappers write for no value.
pub(crate) fn context<'f>(field: &'f Field<'_>) -> Result<Cow<'f, str>, String> {
    match field {
        // Drivers of some languages store a byte string as a blob.
        Field::Bytes(bytes) if bytes.len() <= TEXT_BYTES_MAX => match std::str::from_utf8(bytes).map(context_text) {
            Ok(Ok(text)) => Ok(text.into()),
            _ if jsonb::is_one(bytes) => Err(format!("it is {}", jsonb::REASON)),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err("a JSON object is expected as text, not a blob".into()),
        },
        Field::Bytes(bytes) => Err(too_long(bytes.len() as u64)),
        field => match optional(field)? {
            Some(Cow::Borrowed(text)) => context_text(text).map(Cow::Borrowed),
            Some(number) => check_context(&number).map(|()| number),
            None => Ok(NO_CONTEXT.into()),
        },
    }
}

/// The context that this text stands for: `{}` if it says that there is none.
pub(crate) fn context_text(text: &str) -> Result<&str, String> {
    match text.trim_matches([' ', '\t', '\n', '\r']) {
        "" | "null" => Ok(NO_CONTEXT),
        _ => check_context(text).map(|()| text),
    }
}

/// The context of an event that has none.
const NO_CONTEXT: &str = "{}";

/// Whether `text` is a JSON object; else why not.
fn check_context(text: &str) -> Result<(), String> {
    if text == NO_CONTEXT {
        return Ok(());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let checked = json.deserialize_map(AnyObject).and_then(|()| json.end());
    checked.map_err(|error| format!("it is not a JSON object: {error}"))
}

struct AnyObject;

impl<'de> Visitor<'de> for AnyObject {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// The data for the serde; a number is JSON.
pub(crate) fn data(field: Field<'_>) -> Result<StoredValue, String> {
    match field {
        Field::Text(bytes) | Field::Bytes(bytes) if bytes.len() > DATA_BYTES_MAX => Err(too_long(bytes.len() as u64)),
        Field::Text(bytes) => Ok(String::from_utf8(bytes.into_owned())
            .map_or_else(|error| StoredValue::Bytes(error.into_bytes()), StoredValue::Text)),
        Field::Bytes(bytes) => Ok(StoredValue::Bytes(bytes.into_owned())),
        Field::Integer(number) => Ok(StoredValue::Text(number.to_string())),
        // As SQLite writes it in a column of texts: 42.0.
        Field::Real(number) if number.is_finite() => Ok(StoredValue::Text(format!("{number:?}"))),
        Field::TooLong(bytes) => Err(too_long(bytes)),
        other => Err(format!("JSON text is expected, not {}", other.kind())),
    }
}

fn missing(field: &Field<'_>) -> String {
    if *field == Field::Null { "it is NULL".into() } else { "it is empty".into() }
}

fn too_long(bytes: u64) -> String {
    format!("{bytes} bytes are too many: a publisher is given at most 32 MiB of data, and 1 MiB of anything else")
}

fn repeated(text: &str) -> String {
    let cut = text.chars().nth(REPEATED_CHARS_MAX).is_some();
    text.chars().take(REPEATED_CHARS_MAX).chain(cut.then_some('…')).collect()
}
