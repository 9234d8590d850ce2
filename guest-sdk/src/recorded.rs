use serde::Deserialize;

use crate::decode::{DecodeError, Part};

/// One entry of the outbox: an event, the stream it belongs to, and its place in the outbox.
///
/// ```
/// use outbox_guest::Recorded;
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct OrderPlaced<'a> { order: u64, customer: &'a str }
///
/// let event = Recorded::example("order.placed", r#"{"order": 7, "customer": "Ada"}"#);
/// let placed = event.data::<OrderPlaced>()?;
/// assert_eq!((placed.order, placed.customer), (7, "Ada"));
/// # Ok::<(), outbox_guest::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recorded {
    /// The event itself.
    pub wrapped_event: WrappedEvent,
    /// The stream the event belongs to. Events of one stream of one tenant arrive in `position` order.
    pub stream_id: StreamId,
    /// The entry's place in the outbox: 1 or more, growing with each commit, never used twice, with gaps.
    pub position: u64,
    /// The tenant whose event it is; `default` if the application has no tenants.
    pub tenant_id: String,
    /// Which attempt this is, counted from 1. Above 1 the event may have reached its destination already.
    pub attempt: u32,
}

impl Recorded {
    /// Decodes the event's data. `T` may borrow from the event (`&str`, `&RawValue`).
    ///
    /// # Errors
    ///
    /// An error if the data is not JSON, or does not fit `T`. With `?` the error becomes a *rejected*
    /// [`Error`](crate::Error) that names the event and the place in the JSON:
    ///
    /// ```
    /// use outbox_guest::{Error, Recorded};
    ///
    /// let event = Recorded::example("order.placed", r#"{"order": "seven"}"#);
    /// let error = event.data::<std::collections::HashMap<String, u64>>().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "event order.placed (00000000-0000-4000-8000-000000000001, position 1): its data does not decode: \
    ///      invalid type: string \"seven\", expected u64 at line 1 column 17",
    /// );
    /// assert!(Error::from(error).is_rejected());
    /// ```
    pub fn data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        match &self.wrapped_event.data {
            Payload::Json(text) => self.decode(Part::Data, text),
            Payload::Binary { content_type, .. } => Err(DecodeError::not_json(self, content_type)),
        }
    }

    /// Decodes what travels with the event, such as correlation ids. For a trace, use [`trace`](Self::trace).
    ///
    /// # Errors
    ///
    /// An error if the context does not fit `T`; see [`data`](Self::data).
    ///
    /// ```
    /// use outbox_guest::Recorded;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Tracing<'a> { traceparent: Option<&'a str> }
    ///
    /// let mut event = Recorded::example("order.placed", "{}");
    /// event.wrapped_event.context = r#"{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#.into();
    /// assert!(event.context::<Tracing>()?.traceparent.is_some());
    /// # Ok::<(), outbox_guest::DecodeError>(())
    /// ```
    pub fn context<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        self.decode(Part::Context, &self.wrapped_event.context)
    }

    /// Makes an event for the tests of a publisher. Its other fields have fixed values, which you can change.
    ///
    /// `data` is JSON text, or anything that prints as JSON, such as `serde_json::json!({"order": 7})`.
    ///
    /// # Panics
    ///
    /// If `data` is not JSON.
    ///
    /// ```
    /// use outbox_guest::Recorded;
    ///
    /// let mut event = Recorded::example("order.placed", serde_json::json!({"order": 7}));
    /// event.attempt = 2;
    /// event.stream_id.id = "order-7".into();
    /// ```
    #[allow(clippy::panic, reason = "the contract promises valid JSON, and a test that breaks it should fail")]
    pub fn example(name: &str, data: impl std::fmt::Display) -> Self {
        let data = data.to_string();
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&data) {
            panic!("the data of the example {name} is not JSON: {error}");
        }
        Recorded {
            wrapped_event: WrappedEvent {
                uuid: "00000000-0000-4000-8000-000000000001".into(),
                name: name.into(),
                version: None,
                created_at: "2026-01-31T12:00:00.000Z".into(),
                data: Payload::Json(data),
                context: "{}".into(),
            },
            stream_id: StreamId { id: "example-1".into(), name: None, category: None },
            position: 1,
            tenant_id: "default".into(),
            attempt: 1,
        }
    }

    fn decode<'a, T: Deserialize<'a>>(&self, part: Part, text: &'a str) -> Result<T, DecodeError> {
        serde_json::from_str(text).map_err(|error| DecodeError::mismatch(self, part, error))
    }
}

/// An event as the application wrote it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WrappedEvent {
    /// The event's identity, a UUID in its lower-case text form. It stays the same for every attempt, every redelivery
    /// and every replay: consumers recognise duplicates by it.
    pub uuid: String,
    /// The event's type, for example `order.placed`.
    pub name: String,
    /// The event's version within its stream, if the application numbers them.
    pub version: Option<u64>,
    /// When the event was made: RFC 3339 text in UTC, for example `2026-01-31T12:00:00.000Z`.
    pub created_at: String,
    /// The event's data, not decoded; [`Recorded::data`] decodes it.
    pub data: Payload,
    /// What travels with the event: the text of a JSON object, `{}` if there is nothing. [`Recorded::context`] decodes
    /// it.
    pub context: String,
}

/// An event's data.
///
/// ```
/// use outbox_guest::Payload;
///
/// fn size(data: &Payload) -> usize {
///     match data {
///         Payload::Json(text) => text.len(),
///         Payload::Binary { bytes, .. } => bytes.len(),
///     }
/// }
/// assert_eq!(size(&Payload::Json("{}".into())), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Valid JSON, byte for byte as the application wrote it.
    Json(String),
    /// Anything else.
    Binary {
        /// The media type of `bytes`, for example `application/x-protobuf`.
        content_type: String,
        /// The data as the application wrote it.
        bytes: Vec<u8>,
    },
}

/// Which stream an event belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StreamId {
    /// The stream's identity within its tenant: often a UUID, at least one character.
    pub id: String,
    /// The stream's name, if it has one.
    pub name: Option<String>,
    /// The kind of stream, for example `order`.
    pub category: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_data_does_not_decode_and_names_its_media_type() {
        let mut event = Recorded::example("image.stored", "null");
        event.wrapped_event.data = Payload::Binary { content_type: "image/png".into(), bytes: vec![1] };
        let error = event.data::<()>().unwrap_err();
        assert!(error.to_string().ends_with("its data is image/png, not JSON"), "{error}");
    }

    #[test]
    fn a_context_that_does_not_fit_is_called_context() {
        let event = Recorded::example("order.placed", "{}");
        let error = event.context::<Vec<u8>>().unwrap_err();
        assert!(error.to_string().contains("its context does not decode"), "{error}");
    }

    #[test]
    #[should_panic(expected = "the data of the example order.placed is not JSON")]
    fn an_example_refuses_what_the_contract_rules_out() {
        Recorded::example("order.placed", "{order}");
    }
}
