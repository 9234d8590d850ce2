//! Posts many events with one request, as a batch of CloudEvents 1.0. See the README for its settings, and for the answer that
//! it expects.

mod answer;
#[path = "../../rust-webhook/src/cloud_event.rs"]
#[allow(dead_code, reason = "a batch has a content type of its own")]
mod cloud_event;

use std::collections::HashSet;
use std::env;
use std::time::{Duration, SystemTime};

use outbox_guest::http::{self, Url};
use outbox_guest::{BatchPublisher, BoxError, Error, Lifecycle, Publisher, Recorded};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read: enough for a reason for each of 1,000 events.
const ANSWER_BYTES: usize = 1024 * 1024;

struct Bulk {
    url: Url,
    source: String,
}

impl Lifecycle for Bulk {
    fn configure() -> Result<Self, BoxError> {
        let url = env::var("WEBHOOK_URL").map_err(|error| format!("the environment variable WEBHOOK_URL: {error}"))?;
        let url = url.parse().map_err(|error| format!("the environment variable WEBHOOK_URL {error}"))?;
        Ok(Self { url, source: env::var("WEBHOOK_SOURCE").unwrap_or_else(|_| "/outbox".into()) })
    }
}

impl Publisher for Bulk {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        self.post(&[&event]).pop().unwrap_or_else(|| Err(Error::retryable("there is no answer")))
    }
}

impl BatchPublisher for Bulk {
    fn publish_batch(&mut self, events: Vec<Recorded>) -> Vec<Result<(), Error>> {
        in_rounds(&events, |events| self.post(events))
    }
}

outbox_guest::export!(Bulk, batch, lifecycle);

/// Publishes one event of each stream with a request, then the next one of each, and no more of a stream once one of it
/// has failed: a request may fail for one event, and not for the one behind it.
fn in_rounds<'a>(
    events: &'a [Recorded],
    mut post: impl FnMut(&[&'a Recorded]) -> Vec<Result<(), Error>>,
) -> Vec<Result<(), Error>> {
    let mut answers: Vec<_> =
        events.iter().map(|_| Err(Error::retryable("an earlier event of its stream failed"))).collect();
    let (mut left, mut failed): (Vec<usize>, _) = ((0..events.len()).collect(), HashSet::new());
    while !left.is_empty() {
        let mut seen = HashSet::new();
        let (round, later): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|event| seen.insert(stream(&events[*event])));
        let posted: Vec<&Recorded> = round.iter().map(|event| &events[*event]).collect();
        for (event, answer) in round.into_iter().zip(post(&posted)) {
            if answer.is_err() {
                failed.insert(stream(&events[event]));
            }
            answers[event] = answer;
        }
        left = later.into_iter().filter(|event| !failed.contains(&stream(&events[*event]))).collect();
    }
    answers
}

/// Streams of two tenants may have the same id.
fn stream(event: &Recorded) -> (&str, &str) {
    (&event.tenant_id, &event.stream_id.id)
}

impl Bulk {
    /// Posts these events with one request, and returns the answer for each.
    fn post(&self, events: &[&Recorded]) -> Vec<Result<(), Error>> {
        let all = |error: Error| events.iter().map(|_| Err(error.clone())).collect();
        let encoded = events.iter().map(|event| cloud_event::json(event, &self.source, None, event.trace().as_ref()));
        let body = match encoded.collect::<Result<Vec<_>, _>>() {
            Ok(events) => format!("[{}]", events.join(",")),
            Err(error) => return all(error),
        };
        let headers = [("content-type", "application/cloudevents-batch+json")];
        let answer = http::post_and_read(&self.url, &headers, body.as_bytes(), TIMEOUT, ANSWER_BYTES);
        let response = match answer.and_then(|response| response.to_result(SystemTime::now()).map(|()| response)) {
            // One of them may be to blame: the relay offers each alone.
            Err(error) if error.is_rejected() && events.len() > 1 => return all(Error::retryable(error)),
            Err(error) => return all(error),
            Ok(response) => response,
        };
        answer::of_each(&response.body, events).unwrap_or_else(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: u64, stream: &str) -> Recorded {
        let mut event = Recorded::example("e", "{}");
        (event.position, event.stream_id.id) = (position, stream.into());
        event
    }

    #[test]
    fn a_request_has_one_event_of_each_stream_and_none_behind_one_that_failed() {
        let streams = ["a", "b", "a", "c", "b", "a", "b"];
        let events: Vec<Recorded> = (1..).zip(streams).map(|(position, stream)| event(position, stream)).collect();
        let mut requests = Vec::new();
        let answers = in_rounds(&events, |events| {
            requests.push(events.iter().map(|event| event.position).collect::<Vec<_>>());
            let answer = |event: &&Recorded| if event.position == 3 { Err(Error::retryable("busy")) } else { Ok(()) };
            events.iter().map(answer).collect()
        });
        assert_eq!(requests, [vec![1, 2, 4], vec![3, 5], vec![7]]);
        let failed: Vec<usize> =
            (1..).zip(&answers).filter(|(_, answer)| answer.is_err()).map(|(number, _)| number).collect();
        assert_eq!(failed, [3, 6]);
    }

    #[test]
    fn streams_of_two_tenants_are_two() {
        let mut other = event(2, "a");
        other.tenant_id = "acme".into();
        let events = [event(1, "a"), other];
        let mut requests = 0;
        in_rounds(&events, |events| {
            requests += 1;
            events.iter().map(|_| Ok(())).collect()
        });
        assert_eq!(requests, 1);
    }
}
