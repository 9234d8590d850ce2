//! What the application wrote and a publisher receives: an event, its stream, and its place in the outbox.

use std::fmt;

use uuid::Uuid;

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
    /// The event's version within its stream, if the application numbers them.
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
/// use outbox_engine::StreamId;
///
/// let stream = StreamId::from_name("order-42").with_category("order");
/// assert_eq!(stream.id, "8622a318-a563-5b28-ab9c-e7fa4de2e4ea");
/// assert_eq!(stream.name.as_deref(), Some("order-42"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// The stream's identity within its tenant: often a UUID, never empty.
    pub id: String,
    /// The stream's name, if it has one.
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
