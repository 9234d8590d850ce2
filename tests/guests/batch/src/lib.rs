//! Takes batches, prints the size of each, and behaves for each event as the guest `scripted` does. A batch in which
//! an event is named `miscount` gets one answer too few.

#[path = "../../scripted/src/script.rs"]
mod script;

use std::collections::HashSet;

use outbox_guest::{BatchPublisher, Error, Publisher, Recorded};

#[derive(Default)]
struct Batch;

impl Publisher for Batch {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        script::publish(&event)
    }
}

impl BatchPublisher for Batch {
    fn publish_batch(&mut self, events: Vec<Recorded>) -> Vec<Result<(), Error>> {
        println!("batch of {}", events.len());
        let mut answers = in_stream_order(&events);
        if events.iter().any(|event| event.wrapped_event.name == "miscount") {
            answers.pop();
        }
        answers
    }
}

/// A stream's later events are not published once one of it has failed.
fn in_stream_order(events: &[Recorded]) -> Vec<Result<(), Error>> {
    let mut failed = HashSet::new();
    let mut answer = |event: &Recorded| {
        let stream = (event.tenant_id.clone(), event.stream_id.id.clone());
        if failed.contains(&stream) {
            return Err(Error::retryable("an earlier event of its stream failed"));
        }
        script::publish(event).inspect_err(|_| {
            failed.insert(stream);
        })
    };
    events.iter().map(&mut answer).collect()
}

outbox_guest::export!(Batch, batch);
