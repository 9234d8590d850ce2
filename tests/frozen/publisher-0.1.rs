//! The source of `publisher-0.1.wasm`, which was built once and is kept: it stands for a component that somebody
//! deployed long ago.

use std::io::Write;

use outbox_guest::{BatchPublisher, BoxError, Error, Lifecycle, Payload, Publisher, Recorded};

struct Frozen;

impl Lifecycle for Frozen {
    fn configure() -> Result<Self, BoxError> {
        say(&["configured"]);
        Ok(Self)
    }
}

impl Publisher for Frozen {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        let data = match &event.wrapped_event.data {
            Payload::Json(text) => text,
            Payload::Binary { content_type, .. } => content_type,
        };
        say(&[&event.wrapped_event.name, " ", &event.stream_id.id, " ", data]);
        match &*event.wrapped_event.name {
            "reject" => Err(Error::rejected("rejected as asked")),
            "retry" => Err(Error::retryable("failed as asked")),
            "unavailable" => Err(Error::unavailable("unavailable as asked")),
            _ => Ok(()),
        }
    }
}

impl BatchPublisher for Frozen {
    fn publish_batch(&mut self, events: Vec<Recorded>) -> Vec<Result<(), Error>> {
        say(&["a batch"]);
        events.into_iter().map(|event| self.publish(event)).collect()
    }
}

/// A line of output, made without the formatter, which would be half of the component.
fn say(parts: &[&str]) {
    let _ = std::io::stdout().write_all((parts.concat() + "\n").as_bytes());
}

outbox_guest::export!(Frozen, batch, lifecycle);
