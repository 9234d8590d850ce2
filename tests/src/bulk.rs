//! A native publisher that takes batches, answers as configured, and remembers its calls.

use std::collections::HashSet;
use std::sync::Mutex;

use outbox_host::{Attempt, BoxFuture, Outcome, Publisher, Recorded};

/// The answer for an event.
type Answers = Box<dyn Fn(&Recorded) -> Outcome + Send + Sync>;

/// A publisher that takes up to 1,000 events at once. Within a call it publishes no event behind one of its stream that
/// failed, as the contract asks for. If an event traps, so does its whole call.
pub struct Bulk {
    answer: Answers,
    calls: Mutex<Vec<Vec<Recorded>>>,
    delivered: Mutex<Vec<Recorded>>,
}

impl Bulk {
    /// Answers so for each event.
    pub fn answering(answer: impl Fn(&Recorded) -> Outcome + Send + Sync + 'static) -> Self {
        Self { answer: Box::new(answer), calls: Mutex::default(), delivered: Mutex::default() }
    }

    /// Delivers everything.
    pub fn delivering() -> Self {
        Self::answering(|_| Outcome::Delivered)
    }

    /// How many events each call had so far, in order.
    pub fn sizes(&self) -> Vec<usize> {
        self.calls.lock().unwrap().iter().map(Vec::len).collect()
    }

    /// What each call had so far.
    pub fn calls(&self) -> Vec<Vec<Recorded>> {
        self.calls.lock().unwrap().clone()
    }

    /// What it has delivered so far, in order.
    pub fn delivered(&self) -> Vec<Recorded> {
        self.delivered.lock().unwrap().clone()
    }

    fn answers(&self, events: &[Recorded]) -> Vec<Outcome> {
        let mut failed = HashSet::new();
        let mut outcomes = Vec::new();
        for event in events {
            let stream = (&event.tenant_id, &event.stream_id.id);
            if failed.contains(&stream) {
                outcomes.push(Outcome::Retry { reason: "behind one that failed".into(), after: None });
                continue;
            }
            let outcome = (self.answer)(event);
            match &outcome {
                // What was before it is delivered all the same.
                Outcome::Trapped { .. } => return events.iter().map(|_| outcome.clone()).collect(),
                Outcome::Delivered => self.delivered.lock().unwrap().push(event.clone()),
                _ => _ = failed.insert(stream),
            }
            outcomes.push(outcome);
        }
        outcomes
    }
}

impl Publisher for Bulk {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let mut attempts = self.publish_batch(std::slice::from_ref(event)).await;
            attempts.remove(0)
        })
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        self.calls.lock().unwrap().push(events.to_vec());
        let attempts = self.answers(events).into_iter().map(Attempt::from).collect();
        Box::pin(std::future::ready(attempts))
    }

    fn max_batch(&self) -> usize {
        1_000
    }
}
