//! Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

mod cloud_event;
mod order;

use std::{
    env::{self, VarError},
    time::{Duration, SystemTime},
};

use outbox_guest::http::{self, NotFound, Url};
use outbox_guest::{BoxError, Error, Lifecycle, Publisher, Recorded, Trace};

use order::OrderPlaced;

const TIMEOUT: Duration = Duration::from_secs(10);

struct Webhook {
    url: Url,
    source: String,
    not_found: NotFound,
}

impl Lifecycle for Webhook {
    fn configure() -> Result<Self, BoxError> {
        let url = setting("WEBHOOK_URL")?.ok_or("the environment variable WEBHOOK_URL is missing: where to post to")?;
        let url = url.parse().map_err(|error| format!("the environment variable WEBHOOK_URL {error}"))?;
        let source = setting("WEBHOOK_SOURCE")?.unwrap_or_else(|| "/outbox".into());
        let not_found = setting("WEBHOOK_NOT_FOUND")?.map(|kind| kind.parse()).transpose();
        let not_found = not_found.map_err(|error| format!("the environment variable WEBHOOK_NOT_FOUND {error}"))?;
        Ok(Self { url, source, not_found: not_found.unwrap_or_default() })
    }
}

impl Publisher for Webhook {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        event
            .route(self)
            .on("order.placed", |webhook, placed: OrderPlaced| webhook.post(&event, Some(&placed.order)))
            .skip("order.viewed") // of no interest to the destination
            .otherwise(|webhook, event| webhook.post(event, None))
    }
}

impl Webhook {
    fn post(&self, event: &Recorded, order: Option<&str>) -> Result<(), Error> {
        let trace = event.trace();
        let body = cloud_event::json(event, &self.source, order, trace.as_ref())?;
        let mut headers =
            vec![("content-type", cloud_event::CONTENT_TYPE), ("idempotency-key", &event.wrapped_event.uuid)];
        headers.extend(trace.iter().flat_map(Trace::headers));
        let response = http::post(&self.url, &headers, body.as_bytes(), TIMEOUT)?;
        response.to_result_with(SystemTime::now(), self.not_found)
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
