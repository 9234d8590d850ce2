use std::fmt;

use crate::Recorded;

/// Why an event did not decode. With `?` it becomes a *rejected* [`Error`](crate::Error): trying again would not help.
///
/// To treat it as something else, convert it by hand: `event.data::<T>().map_err(Error::retryable)?`.
#[derive(Debug)]
pub struct DecodeError {
    event: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    NotJson { content_type: String },
    Mismatch { part: Part, error: serde_json::Error },
}

/// Which part of an event was decoded.
#[derive(Debug)]
pub(crate) enum Part {
    Data,
    Context,
}

impl DecodeError {
    pub(crate) fn not_json(event: &Recorded, content_type: &str) -> Self {
        Self { event: describe(event), cause: Cause::NotJson { content_type: content_type.into() } }
    }

    pub(crate) fn mismatch(event: &Recorded, part: Part, error: serde_json::Error) -> Self {
        Self { event: describe(event), cause: Cause::Mismatch { part, error } }
    }
}

fn describe(event: &Recorded) -> String {
    let Recorded { wrapped_event, position, .. } = event;
    format!("event {} ({}, position {position})", wrapped_event.name, wrapped_event.uuid)
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, cause } = self;
        match cause {
            Cause::NotJson { content_type } => write!(f, "{event}: its data is {content_type}, not JSON"),
            Cause::Mismatch { part, error } => write!(f, "{event}: its {part} does not decode: {error}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Data => "data",
            Part::Context => "context",
        })
    }
}

impl std::error::Error for DecodeError {}
