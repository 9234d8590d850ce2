//! Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

mod answer;
mod cloud_event;
mod destination;
mod http;

use std::{
    env::{self, VarError},
    time::SystemTime,
};

use outbox_guest::{BoxError, Error, Lifecycle, Publisher, Recorded};

use crate::destination::Destination;

struct Webhook {
    destination: Destination,
    source: String,
}

impl Lifecycle for Webhook {
    fn configure() -> Result<Self, BoxError> {
        let url = setting("WEBHOOK_URL")?.ok_or("the environment variable WEBHOOK_URL is missing: where to post to")?;
        let destination = url.parse().map_err(|error| format!("the environment variable WEBHOOK_URL {error}"))?;
        let source = setting("WEBHOOK_SOURCE")?.unwrap_or_else(|| "/outbox".into());
        Ok(Self { destination, source })
    }
}

impl Publisher for Webhook {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        let body = cloud_event::json(&event, &self.source)?;
        let headers = [("content-type", cloud_event::CONTENT_TYPE), ("idempotency-key", &event.wrapped_event.uuid)];
        let response = http::post(&self.destination, &headers, body.as_bytes())?;
        answer::to_result(&self.destination, &response, SystemTime::now())
    }
}

outbox_guest::export!(Webhook, lifecycle);

/// An empty setting counts as none.
fn setting(name: &str) -> Result<Option<String>, BoxError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8").into()),
    }
}
