//! An event that an application appends.

use jiff::Timestamp;
use uuid::Uuid;

use crate::column;
use crate::recorded::{DEFAULT_TENANT, Payload, StreamId};

/// A date and time as the table takes it: RFC 3339; without an offset, or in SQLite's form with a space, it is UTC.
///
/// ```
/// use outbox_engine::parse_time;
///
/// assert_eq!(parse_time("2026-01-31 12:00:00"), parse_time("2026-01-31T13:00:00+01:00"));
/// assert!(parse_time("yesterday").is_err());
/// ```
///
/// # Errors
///
/// Why the text is no time, in words.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    column::time(text)
}

/// An event that an application appends to the outbox.
///
/// ```
/// use outbox_engine::{NewEvent, StreamId};
///
/// let event = NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#);
/// assert_eq!(event.tenant_id, "default");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The event's identity. None stands for a new random one.
    pub uuid: Option<Uuid>,
    /// The event's type, for example `order.placed`; never empty.
    pub name: String,
    /// The event's version within its stream, if the application numbers them.
    pub version: Option<u64>,
    /// When the event was made. None stands for the time of the append.
    pub created_at: Option<Timestamp>,
    /// The event's data.
    pub data: Payload,
    /// What travels with the event: the text of a JSON object. An empty text and `null` stand for no context.
    pub context: String,
    /// The stream that the event belongs to.
    pub stream_id: StreamId,
    /// The tenant whose event it is. An empty text stands for [`DEFAULT_TENANT`].
    pub tenant_id: String,
    /// The event is not published before this time. None for now.
    pub publish_after: Option<Timestamp>,
    /// After this time the event is not published any more. None for no end.
    pub expires_at: Option<Timestamp>,
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
            publish_after: None,
            expires_at: None,
        }
    }

    /// Checks that a publisher could be given this event. The serde checks its data.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
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

    /// Whether it has a time before or after which it is not published.
    pub fn has_times(&self) -> bool {
        self.publish_after.is_some() || self.expires_at.is_some()
    }

    /// The tenant as it is stored: the default if it is empty.
    pub fn stored_tenant(&self) -> &str {
        if self.tenant_id.is_empty() { DEFAULT_TENANT } else { &self.tenant_id }
    }

    /// The context as it is stored: `{}` if it is empty, or JSON's null.
    pub fn stored_context(&self) -> &str {
        column::context_text(&self.context).unwrap_or(&self.context)
    }

    /// The same event of another tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = tenant_id.into();
        self
    }

    /// The same event, not to be published before `time`.
    ///
    /// ```
    /// use outbox_engine::{NewEvent, StreamId, Timestamp};
    ///
    /// let tomorrow = Timestamp::now() + std::time::Duration::from_secs(24 * 60 * 60);
    /// let event = NewEvent::json(StreamId::new("user-7"), "trial.ended", "{}").with_publish_after(tomorrow);
    /// assert_eq!(event.publish_after, Some(tomorrow));
    /// ```
    #[must_use]
    pub fn with_publish_after(mut self, time: Timestamp) -> Self {
        self.publish_after = Some(time);
        self
    }

    /// The same event, which becomes a dead letter if it was not published before `time`.
    ///
    /// ```
    /// use outbox_engine::{NewEvent, StreamId, Timestamp};
    ///
    /// let soon = Timestamp::now() + std::time::Duration::from_secs(60);
    /// let event = NewEvent::json(StreamId::new("user-7"), "code.sent", "{}").with_expires_at(soon);
    /// assert_eq!(event.expires_at, Some(soon));
    /// ```
    #[must_use]
    pub fn with_expires_at(mut self, time: Timestamp) -> Self {
        self.expires_at = Some(time);
        self
    }
}
