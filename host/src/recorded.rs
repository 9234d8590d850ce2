//! What the application wrote and a publisher receives: an event, its stream, and its place in the outbox.

use std::fmt;

use uuid::Uuid;

use crate::column;

/// The namespace in which a stream's id is derived from its name (UUIDv5), as in the pattern's reference
/// implementation, python-event-sourcery.
pub const STREAM_NAMESPACE: Uuid = Uuid::from_u128(0x3a24a3ee_d33d_4266_93ab_7d8e256a6d44);

/// The tenant of an event whose application has no tenants.
pub const DEFAULT_TENANT: &str = "default";

/// One entry of the outbox, decoded: what a publisher is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The event.
    pub wrapped_event: WrappedEvent,
    /// The stream that the event belongs to.
    pub stream_id: StreamId,
    /// The entry's place in the outbox: 1 or more, growing with each commit, never used twice, with gaps.
    pub position: u64,
    /// The tenant whose event it is.
    pub tenant_id: String,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
}

/// An event as the application wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedEvent {
    /// The event's identity: the same for every attempt and replay, and so the consumer's idempotency key.
    pub uuid: Uuid,
    /// The event's type, for example `order.placed`.
    pub name: String,
    /// The event's version within its stream, where the application numbers them.
    pub version: Option<u64>,
    /// When the event was made: RFC 3339 text, in UTC.
    pub created_at: String,
    /// The event's data.
    pub data: Payload,
    /// What travels with the event: the text of a JSON object.
    pub context: String,
}

/// An event's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Valid JSON, byte for byte as the application wrote it.
    Json(String),
    /// Anything else, with its media type.
    Binary {
        /// The media type (RFC 2046) of `bytes`.
        content_type: String,
        /// The data as the application wrote it.
        bytes: Vec<u8>,
    },
}

/// Which stream an event belongs to. Its identity is `id`, within a tenant; name and category describe it.
///
/// ```
/// use outbox_host::StreamId;
///
/// let stream = StreamId::from_name("order-42").with_category("order");
/// assert_eq!(stream.id, "8622a318-a563-5b28-ab9c-e7fa4de2e4ea");
/// assert_eq!(stream.name.as_deref(), Some("order-42"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// The stream's identity within its tenant: often a UUID, never empty.
    pub id: String,
    /// The stream's name, where it has one.
    pub name: Option<String>,
    /// The kind of stream, for example `order`.
    pub category: Option<String>,
}

impl StreamId {
    /// A stream with this id and neither name nor category.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), name: None, category: None }
    }

    /// A stream whose id is derived from its name: the UUIDv5 of `name` in [`STREAM_NAMESPACE`].
    pub fn from_name(name: impl Into<String>) -> Self {
        let name = name.into();
        let id = Uuid::new_v5(&STREAM_NAMESPACE, name.as_bytes()).to_string();
        Self { id, name: Some(name), category: None }
    }

    /// The same stream with a category.
    #[must_use]
    pub fn with_category(mut self, category: impl Into<String>) -> Self {
        self.category = Some(category.into());
        self
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or(&self.id))
    }
}

/// A date and time as the table takes it: RFC 3339; without an offset, or in SQLite's form with a space, it is UTC.
///
/// ```
/// use outbox_host::recorded::parse_time;
///
/// assert_eq!(parse_time("2026-01-31 12:00:00"), parse_time("2026-01-31T13:00:00+01:00"));
/// assert!(parse_time("yesterday").is_err());
/// ```
///
/// # Errors
///
/// Why it is none, in words.
pub fn parse_time(text: &str) -> Result<jiff::Timestamp, String> {
    column::time(text)
}

/// An event that an application appends to the outbox.
///
/// ```
/// use outbox_host::{NewEvent, StreamId};
///
/// let event = NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#);
/// assert_eq!(event.tenant_id, "default");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The event's identity; a new random one where it is none.
    pub uuid: Option<Uuid>,
    /// The event's type, for example `order.placed`; never empty.
    pub name: String,
    /// The event's version within its stream, where the application numbers them.
    pub version: Option<u64>,
    /// When the event was made; the time of the append where it is none.
    pub created_at: Option<jiff::Timestamp>,
    /// The event's data.
    pub data: Payload,
    /// What travels with the event: the text of a JSON object; an empty one, and `null`, stand for none.
    pub context: String,
    /// The stream that the event belongs to.
    pub stream_id: StreamId,
    /// The tenant whose event it is; an empty one stands for [`DEFAULT_TENANT`].
    pub tenant_id: String,
}

impl NewEvent {
    /// An event with JSON data, which is checked when it is appended. The other fields have their defaults.
    pub fn json(stream_id: StreamId, name: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            uuid: None,
            name: name.into(),
            version: None,
            created_at: None,
            data: Payload::Json(data.into()),
            context: "{}".into(),
            stream_id,
            tenant_id: DEFAULT_TENANT.into(),
        }
    }

    /// Whether a publisher could be given this event; else why not. Its data is for the serde to check.
    pub(crate) fn check(&self) -> Result<(), String> {
        let missing = |what: &str| Err(format!("{what} is empty"));
        match self {
            Self { name, .. } if name.is_empty() => missing("name"),
            Self { stream_id, .. } if stream_id.id.is_empty() => missing("stream_id"),
            Self { version: Some(version), .. } if i64::try_from(*version).is_err() => {
                Err(format!("version {version} is more than {}", i64::MAX))
            }
            Self { context, .. } => {
                column::context_text(context).map(|_| ()).map_err(|reason| format!("context: {reason}"))
            }
        }
    }

    /// The tenant as it is stored: an empty one is none.
    pub(crate) fn stored_tenant(&self) -> &str {
        if self.tenant_id.is_empty() { DEFAULT_TENANT } else { &self.tenant_id }
    }

    /// The context as it is stored: an empty one, and JSON's null, are none.
    pub(crate) fn stored_context(&self) -> &str {
        column::context_text(&self.context).unwrap_or(&self.context)
    }

    /// The same event of another tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = tenant_id.into();
        self
    }
}
