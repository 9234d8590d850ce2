//! The seam between what is stored and what is published: how an event's data is written and read.

use serde::de::IgnoredAny;

use crate::jsonb;
use crate::recorded::Payload;

/// An event's data as the outbox keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredData {
    /// The media type. None stands for JSON.
    pub content_type: Option<String>,
    /// The data: text or bytes. An application may have written either, even for JSON.
    pub value: StoredValue,
}

/// The stored form of an event's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredValue {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl StoredData {
    /// JSON as text.
    pub fn json(text: impl Into<String>) -> Self {
        Self { content_type: None, value: StoredValue::Text(text.into()) }
    }
}

/// Why data could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SerdeError(
    /// What is wrong with it.
    pub String,
);

/// Writes an event's data when it is appended, and reads it when it is published.
///
/// Implement it to compress, encrypt or translate data, or to check it:
///
/// ```
/// use outbox_engine::{JsonSerde, Payload, Serde, SerdeError, StoredData};
///
/// /// Refuses events of more than 64 KiB.
/// struct Small;
///
/// impl Serde for Small {
///     fn serialize(&self, data: &Payload) -> Result<StoredData, SerdeError> {
///         match data {
///             Payload::Json(text) if text.len() > 65_536 => Err(SerdeError("it has more than 64 KiB".into())),
///             data => JsonSerde.serialize(data),
///         }
///     }
///
///     fn deserialize(&self, data: StoredData) -> Result<Payload, SerdeError> {
///         JsonSerde.deserialize(data)
///     }
/// }
/// assert!(Small.serialize(&Payload::Json("{}".into())).is_ok());
/// ```
pub trait Serde: Send + Sync {
    /// The form in which `data` is stored.
    ///
    /// # Errors
    ///
    /// An error if it cannot be stored; nothing is appended then.
    fn serialize(&self, data: &Payload) -> Result<StoredData, SerdeError>;

    /// Reads stored data. Anybody may have written it: expect anything.
    ///
    /// # Errors
    ///
    /// An error if it cannot be read; the entry then becomes a dead letter, kept whole.
    fn deserialize(&self, data: StoredData) -> Result<Payload, SerdeError>;
}

/// The default: checks JSON, and passes it on byte for byte, never rebuilt. Passes on data with another media type as
/// it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonSerde;

impl Serde for JsonSerde {
    fn serialize(&self, data: &Payload) -> Result<StoredData, SerdeError> {
        match data {
            Payload::Json(text) => {
                check_json(text)?;
                Ok(StoredData::json(text.as_str()))
            }
            Payload::Binary { content_type, bytes } => {
                if is_left_out(content_type) {
                    return Err(SerdeError("binary data has to say its content_type".into()));
                }
                if is_json(content_type) {
                    return Err(SerdeError(format!("data of type {content_type} is JSON, not binary")));
                }
                Ok(StoredData { content_type: Some(content_type.clone()), value: StoredValue::Bytes(bytes.clone()) })
            }
        }
    }

    fn deserialize(&self, data: StoredData) -> Result<Payload, SerdeError> {
        match data.content_type {
            Some(content_type) if !is_left_out(&content_type) && !is_json(&content_type) => {
                let bytes = match data.value {
                    StoredValue::Text(text) => text.into_bytes(),
                    StoredValue::Bytes(bytes) => bytes,
                };
                Ok(Payload::Binary { content_type, bytes })
            }
            _ => json(data.value).map(Payload::Json),
        }
    }
}

/// Reads JSON from text or bytes: drivers of some languages store a byte string as a blob.
fn json(value: StoredValue) -> Result<String, SerdeError> {
    match value {
        StoredValue::Text(text) => check_json(&text).map(|()| text),
        StoredValue::Bytes(bytes) => {
            let no_text = "data is a blob that is not JSON: where it is meant to be binary, set content_type";
            let text = String::from_utf8(bytes).map_err(|error| (error.into_bytes(), SerdeError(no_text.into())));
            let json = text.and_then(|text| match check_json(&text) {
                Ok(()) => Ok(text),
                Err(error) => Err((text.into_bytes(), error)),
            });
            json.map_err(|(bytes, error)| match jsonb::is_one(&bytes) {
                true => SerdeError(format!("data is {}", jsonb::REASON)),
                false => error,
            })
        }
    }
}

/// Checks JSON without building a value, and without a limit on its nesting.
fn check_json(text: &str) -> Result<(), SerdeError> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(SerdeError(format!("data is not JSON: {error}"))),
    }
}

/// Whether a media type counts as left out. Go, for example, writes an empty text if nothing was set.
fn is_left_out(content_type: &str) -> bool {
    content_type.trim().is_empty()
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(content_type: Option<&str>, value: StoredValue) -> StoredData {
        StoredData { content_type: content_type.map(Into::into), value }
    }

    fn text(text: &str) -> StoredValue {
        StoredValue::Text(text.into())
    }

    fn bytes(bytes: &[u8]) -> StoredValue {
        StoredValue::Bytes(bytes.into())
    }

    #[test]
    fn json_is_passed_on_byte_for_byte() {
        let data = "{\"z\": 1.10, \"a\":\t1e2,\n \"z\": \"\\u00e9\"} ";
        let json = Payload::Json(data.into());
        assert_eq!(JsonSerde.serialize(&json), Ok(StoredData::json(data)));
        for content_type in
            [None, Some(""), Some(" "), Some("application/json"), Some("Application/JSON; charset=utf-8")]
        {
            assert_eq!(JsonSerde.deserialize(stored(content_type, text(data))), Ok(json.clone()));
            assert_eq!(JsonSerde.deserialize(stored(content_type, bytes(data.as_bytes()))), Ok(json.clone()));
        }
    }

    #[test]
    fn deep_json_is_json() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(JsonSerde.deserialize(StoredData::json(&deep)), Ok(Payload::Json(deep)));
    }

    #[test]
    fn other_types_are_binary_however_they_are_stored() {
        let expected = Payload::Binary { content_type: "text/csv".into(), bytes: b"1,2".to_vec() };
        assert_eq!(JsonSerde.deserialize(stored(Some("text/csv"), text("1,2"))), Ok(expected.clone()));
        assert_eq!(JsonSerde.deserialize(stored(Some("text/csv"), bytes(b"1,2"))), Ok(expected.clone()));
        let kept = JsonSerde.serialize(&expected).unwrap();
        assert_eq!(JsonSerde.deserialize(kept), Ok(expected));
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_place() {
        let refusal = JsonSerde.deserialize(StoredData::json("{\"order\": }")).unwrap_err().to_string();
        assert!(refusal.contains("line 1 column 11"), "{refusal}");
        let blob = JsonSerde.deserialize(stored(None, bytes(&[0xff]))).unwrap_err().to_string();
        assert!(blob.contains("set content_type"), "{blob}");
        assert!(JsonSerde.deserialize(StoredData::json("")).is_err());
        assert!(JsonSerde.serialize(&Payload::Json("{} {}".into())).is_err());
        let mislabelled = Payload::Binary { content_type: "application/json".into(), bytes: vec![] };
        assert!(JsonSerde.serialize(&mislabelled).is_err());
        let unlabelled = Payload::Binary { content_type: "".into(), bytes: vec![] };
        assert!(JsonSerde.serialize(&unlabelled).is_err(), "it would be read as JSON");
    }

    #[test]
    fn jsonb_is_told_for_what_it_is() {
        // SELECT hex(jsonb('{"a":1}'))
        let jsonb = bytes(&[0x4c, 0x17, 0x61, 0x13, 0x31]);
        let refusal = JsonSerde.deserialize(stored(None, jsonb.clone())).unwrap_err().to_string();
        assert!(refusal.contains("JSONB") && refusal.contains("json()"), "{refusal}");
        assert!(JsonSerde.deserialize(stored(Some("application/octet-stream"), jsonb)).is_ok());
    }
}
