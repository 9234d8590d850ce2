//! From a row, in which anything may stand, to a [`Recorded`].

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use uuid::Uuid;

use crate::publisher::Outcome;
use crate::recorded::{DEFAULT_TENANT, Recorded, StreamId, WrappedEvent};
use crate::row::{Field, RawEntry};
use crate::serde::{Serde, StoredData, StoredValue};

/// Which part of a row cannot be decoded, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {reason}")]
pub struct Undecodable {
    column: &'static str,
    reason: String,
}

impl From<Undecodable> for Outcome {
    fn from(undecodable: Undecodable) -> Self {
        Self::Undecodable { reason: undecodable.to_string() }
    }
}

impl RawEntry {
    /// Decodes the entry for its attempt number `attempt`.
    ///
    /// # Errors
    ///
    /// Which part of the row is no part of a valid event.
    pub fn decode(self, attempt: u32, serde: &dyn Serde) -> Result<Recorded, Undecodable> {
        let row = self.row();
        let version = version(&row.version)?;
        let content_type = optional("content_type", &row.content_type)?;
        let uuid = uuid(&row.uuid)?;
        let name = required("name", &row.name)?;
        let created_at = created_at(&row.created_at)?;
        let context = context(&row.context)?;
        let stream_id = StreamId {
            id: required("stream_id", &row.stream_id)?,
            name: optional("stream_name", &row.stream_name)?,
            category: optional("category", &row.category)?,
        };
        let tenant_id = optional("tenant_id", &row.tenant_id)?.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        let position = self.position;
        let data = StoredData { content_type, value: data(self.into_data())? };
        let data = serde.deserialize(data).map_err(|error| undecodable("data", error.to_string()))?;
        let position =
            u64::try_from(position).map_err(|_| undecodable("position", format!("{position} is less than 1")))?;
        let wrapped_event = WrappedEvent { uuid, name, version, created_at, data, context };
        Ok(Recorded { wrapped_event, stream_id, position, tenant_id, attempt })
    }
}

/// A stream of a tenant, in 64 bits. Two streams that share one would hold each other up, and lose nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub u64);

impl StreamKey {
    /// The key of the stream `stream_id` of `tenant_id`. It is the same in every process and every version.
    pub fn of(tenant_id: &[u8], stream_id: &[u8]) -> Self {
        // FNV-1a, eight bytes at a time: the keys are not an attacker's to gain from, and each entry needs one.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        for part in [tenant_id, stream_id] {
            mix(part.len() as u64);
            for chunk in part.chunks(8) {
                let mut word = [0; 8];
                word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                mix(u64::from_le_bytes(word));
            }
        }
        Self(hash ^ (hash >> 32))
    }
}

impl Field<'_> {
    /// Its text, where it is text in UTF-8.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    fn kind(&self) -> String {
        match self {
            Self::Null => "NULL".into(),
            Self::Integer(_) => "a whole number".into(),
            Self::Real(_) => "a floating point number".into(),
            Self::Text(_) if self.text().is_some() => "text".into(),
            Self::Text(_) => "text in another encoding".into(),
            Self::Bytes(_) => "a blob".into(),
            Self::TooLong(bytes) => format!("{bytes} bytes"),
        }
    }
}

fn undecodable(column: &'static str, reason: impl Into<String>) -> Undecodable {
    Undecodable { column, reason: reason.into() }
}

fn too_long(column: &'static str, bytes: u64) -> Undecodable {
    undecodable(
        column,
        format!("{bytes} bytes are too many: a publisher is given at most 32 MiB of data, and 1 MiB of anything else"),
    )
}

fn required(column: &'static str, field: &Field<'_>) -> Result<String, Undecodable> {
    match optional(column, field)? {
        Some(text) if !text.is_empty() => Ok(text),
        Some(_) => Err(undecodable(column, "it is empty")),
        None => Err(undecodable(column, "it is NULL")),
    }
}

fn optional(column: &'static str, field: &Field<'_>) -> Result<Option<String>, Undecodable> {
    match (field.text(), field) {
        (Some(text), _) => Ok(Some(text.to_owned())),
        (_, Field::Integer(number)) => Ok(Some(number.to_string())),
        (_, Field::Null) => Ok(None),
        (_, Field::TooLong(bytes)) => Err(too_long(column, *bytes)),
        _ => Err(undecodable(column, format!("text in UTF-8 is expected, not {}", field.kind()))),
    }
}

fn version(field: &Field<'_>) -> Result<Option<u64>, Undecodable> {
    match field {
        Field::Null => Ok(None),
        Field::Integer(version) => match u64::try_from(*version) {
            Ok(version) => Ok(Some(version)),
            Err(_) => Err(undecodable("version", format!("{version} is less than nothing"))),
        },
        other => Err(undecodable("version", format!("a whole number is expected, not {}", other.kind()))),
    }
}

fn data(field: Field<'_>) -> Result<StoredValue, Undecodable> {
    match field {
        Field::Text(bytes) => Ok(String::from_utf8(bytes.into_owned())
            .map_or_else(|error| StoredValue::Bytes(error.into_bytes()), StoredValue::Text)),
        Field::Bytes(bytes) => Ok(StoredValue::Bytes(bytes.into_owned())),
        Field::Integer(number) => Ok(StoredValue::Text(number.to_string())),
        Field::TooLong(bytes) => Err(too_long("data", bytes)),
        other => Err(undecodable("data", format!("JSON text is expected, not {}", other.kind()))),
    }
}

/// As text in any of its usual forms, or as its 16 bytes.
fn uuid(field: &Field<'_>) -> Result<Uuid, Undecodable> {
    let parsed = match field {
        Field::Text(text) => Uuid::try_parse_ascii(text),
        Field::Bytes(bytes) => Uuid::from_slice(bytes),
        other => return Err(undecodable("uuid", format!("a UUID is expected, not {}", other.kind()))),
    };
    parsed.map_err(|error| undecodable("uuid", error.to_string()))
}

/// As RFC 3339 text; without an offset, and in SQLite's own form with a space, it is UTC.
fn created_at(field: &Field<'_>) -> Result<String, Undecodable> {
    let Some(text) = field.text() else {
        return Err(undecodable("created_at", format!("a date and time is expected, not {}", field.kind())));
    };
    // What the table's own default writes, `2026-01-31T12:00:00.000Z`, is by far the most common: most of it is known to
    // be right without parsing it.
    let usual = is_usual_form(text);
    if usual && text.get(8..10).is_some_and(|day| day <= "28") {
        return Ok(text.to_owned());
    }
    let parsed = text
        .parse::<Timestamp>()
        .or_else(|_| text.parse::<DateTime>().and_then(|civil| TimeZone::UTC.to_timestamp(civil)));
    match parsed {
        Ok(_) if usual => Ok(text.to_owned()),
        Ok(timestamp) => Ok(timestamp.to_string()),
        Err(error) => Err(undecodable("created_at", error.to_string())),
    }
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

fn context(field: &Field<'_>) -> Result<String, Undecodable> {
    let Some(text) = optional("context", field)? else {
        return Ok("{}".to_owned());
    };
    check_context(&text).map_err(|reason| undecodable("context", reason))?;
    Ok(text)
}

/// Whether `text` is a JSON object; else why not.
pub(crate) fn check_context(text: &str) -> Result<(), String> {
    if text == "{}" {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recorded::Payload;
    use crate::row::Row;
    use crate::serde::JsonSerde;

    fn row() -> Row<'static> {
        Row {
            tenant_id: "acme".into(),
            stream_id: "order-1".into(),
            stream_name: Field::Null,
            category: "order".into(),
            uuid: "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01".into(),
            name: "order.placed".into(),
            version: Field::Integer(3),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            content_type: Field::Null,
            context: "{}".into(),
            data: "{\"order\": 7}".into(),
        }
    }

    fn decoded(change: impl FnOnce(&mut Row<'static>)) -> Result<Recorded, String> {
        decoded_at(7, change)
    }

    fn decoded_at(position: i64, change: impl FnOnce(&mut Row<'static>)) -> Result<Recorded, String> {
        let mut row = row();
        change(&mut row);
        RawEntry::new(position, &row).decode(2, &JsonSerde).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_row() {
        let recorded = decoded(|_| {}).unwrap();
        assert_eq!((recorded.position, recorded.attempt, recorded.tenant_id.as_str()), (7, 2, "acme"));
        assert_eq!(recorded.stream_id, StreamId::new("order-1").with_category("order"));
        assert_eq!(recorded.wrapped_event.version, Some(3));
        assert_eq!(recorded.wrapped_event.data, Payload::Json("{\"order\": 7}".into()));
    }

    #[test]
    fn what_may_be_missing_and_what_may_have_another_form() {
        let recorded = decoded(|entry| {
            entry.tenant_id = Field::Null;
            entry.context = Field::Null;
            entry.version = Field::Null;
            entry.category = Field::Null;
            entry.stream_id = Field::Integer(42);
            entry.uuid = Field::Bytes(vec![0x11; 16].into());
            entry.data = Field::Integer(5);
        });
        let recorded = recorded.unwrap();
        assert_eq!((recorded.tenant_id.as_str(), recorded.stream_id.id.as_str()), ("default", "42"));
        assert_eq!(recorded.wrapped_event.uuid.to_string(), "11111111-1111-1111-1111-111111111111");
        assert_eq!(recorded.wrapped_event.data, Payload::Json("5".into()));
        assert_eq!(recorded.wrapped_event.context, "{}");
    }

    #[test]
    fn times_come_out_in_utc() {
        for (written, expected) in [
            ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31 12:00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.5+02:00", "2026-01-31T10:00:00.5Z"),
            ("2026-03-31T12:00:00.000Z", "2026-03-31T12:00:00.000Z"),
        ] {
            let recorded = decoded(|entry| entry.created_at = written.into()).unwrap();
            assert_eq!(recorded.wrapped_event.created_at, expected, "{written}");
        }
        for written in ["yesterday", "", "2026-13-31T12:00:00.000Z", "2026-02-30T12:00:00.000Z"] {
            assert!(decoded(|entry| entry.created_at = written.into()).is_err(), "{written}");
        }
    }

    #[test]
    fn anything_else_names_the_column() {
        type Change = fn(&mut Row<'static>);
        let changes: [(&str, Change); 14] = [
            ("stream_id: it is NULL", |entry| entry.stream_id = Field::Null),
            ("stream_id: it is empty", |entry| entry.stream_id = "".into()),
            ("name: it is NULL", |entry| entry.name = Field::Null),
            ("name: text in UTF-8 is expected, not a blob", |entry| entry.name = Field::Bytes(vec![0xff].into())),
            ("name: text in UTF-8 is expected, not text in another", |entry| {
                entry.name = Field::Text(vec![0xff].into())
            }),
            ("uuid: a UUID is expected, not NULL", |entry| entry.uuid = Field::Null),
            ("uuid: ", |entry| entry.uuid = "seven".into()),
            ("uuid: ", |entry| entry.uuid = Field::Bytes(vec![1].into())),
            ("version: -1 is less", |entry| entry.version = Field::Integer(-1)),
            ("version: a whole number", |entry| entry.version = "v1".into()),
            ("data: JSON text is expected, not NULL", |entry| entry.data = Field::Null),
            ("data: data is not JSON", |entry| entry.data = "{".into()),
            ("context: it is not a JSON object", |entry| entry.context = "[]".into()),
            ("created_at: a date and time", |entry| entry.created_at = Field::Integer(5)),
        ];
        for (expected, change) in changes {
            let error = decoded(change).unwrap_err();
            assert!(error.starts_with(expected), "{error} does not start with {expected}");
        }
        assert_eq!(decoded_at(-1, |_| {}).unwrap_err().to_string(), "position: -1 is less than 1");
    }

    #[test]
    fn the_streams_of_two_tenants_and_shifted_names_have_keys_of_their_own() {
        let key = |tenant: &str, stream: &str| StreamKey::of(tenant.as_bytes(), stream.as_bytes());
        assert_eq!(key("a", "b"), entry_key("a", "b"));
        let keys = [key("a", "b"), key("b", "a"), key("ab", ""), key("", "ab"), key("a", "b\0"), key("a", "")];
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
        let many: std::collections::HashSet<_> = (0..100_000).map(|n| key("default", &format!("order-{n}"))).collect();
        assert_eq!(many.len(), 100_000);
    }

    /// Anything that a row can hold, what is nearly right among it.
    fn any_field() -> impl Strategy<Value = Field<'static>> {
        const NEARLY: &[&str] = &[
            "",
            "{}",
            "{\"a\":",
            "[1e999]",
            "\u{0}",
            "2026-02-30T12:00:00.000Z",
            "2026-01-31T12:00:00.00é",
            "9999-12-31T23:59:59.999Z",
            "-009999-01-02T01:59:59Z",
            "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a0",
            "{7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01}",
        ];
        prop_oneof![
            Just(Field::Null),
            any::<i64>().prop_map(Field::Integer),
            any::<f64>().prop_map(Field::Real),
            any::<String>().prop_map(Field::from),
            prop::sample::select(NEARLY).prop_map(Field::from),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Field::Bytes(bytes.into())),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Field::Text(bytes.into())),
            any::<u64>().prop_map(Field::TooLong),
        ]
    }

    proptest! {
        /// Each part of a good row, or several, replaced by anything.
        #[test]
        fn whatever_a_row_holds_it_is_decoded_to_a_valid_event_or_refused(
            position in any::<i64>(),
            changes in prop::collection::vec((0..11_usize, any_field()), 0..4),
        ) {
            let mut changed = row();
            for (column, field) in changes {
                let Row { tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                    content_type, context, data } = &mut changed;
                let columns = [tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type,
                    context, data];
                for (_, it) in columns.into_iter().enumerate().filter(|(index, _)| *index == column) {
                    *it = field.clone();
                }
            }
            let entry = RawEntry::new(position, &changed);
            entry.stream_key();
            match entry.decode(1, &JsonSerde) {
                Ok(Recorded { wrapped_event: event, stream_id, .. }) => {
                    prop_assert!(!event.name.is_empty() && !stream_id.id.is_empty());
                    prop_assert!(event.created_at.parse::<Timestamp>().is_ok(), "{}", event.created_at);
                    prop_assert!(serde_json::from_str::<serde_json::Map<_, _>>(&event.context).is_ok());
                }
                Err(refused) => prop_assert!(refused.to_string().contains(": ")),
            }
        }
    }

    fn entry_key(tenant: &str, stream: &str) -> StreamKey {
        RawEntry::new(1, &Row { tenant_id: tenant.into(), stream_id: stream.into(), ..row() }).stream_key()
    }
}
