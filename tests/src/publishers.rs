//! Native publishers for tests: they answer as configured, and remember their calls.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;

use outbox_host::{BoxFuture, Outcome, Publisher, PublisherOptions, RateBy, RateLimit, Recorded, Route};
use proptest::prelude::*;

/// The answers of a publisher, by the event's stream; other events are delivered.
type Answers = HashMap<String, Box<dyn Fn(&Recorded) -> Outcome + Send + Sync>>;

/// A publisher that remembers its calls.
#[derive(Default)]
pub struct Scripted {
    answers: Mutex<Answers>,
    calls: Mutex<Vec<Recorded>>,
}

impl Scripted {
    /// Answers so for events of this stream, from now on.
    pub fn answer(&self, stream: &str, answer: impl Fn(&Recorded) -> Outcome + Send + Sync + 'static) {
        self.answers.lock().unwrap().insert(stream.to_owned(), Box::new(answer));
    }

    /// A publisher that answers so for events of this stream.
    pub fn answering(stream: &str, answer: impl Fn(&Recorded) -> Outcome + Send + Sync + 'static) -> Self {
        let scripted = Self::default();
        scripted.answer(stream, answer);
        scripted
    }

    /// The calls since the last time this was called.
    pub fn take_calls(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// The same, as positions.
    pub fn take_positions(&self) -> Vec<u64> {
        self.take_calls().iter().map(|event| event.position).collect()
    }
}

impl Publisher for Scripted {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, outbox_host::Attempt> {
        self.calls.lock().unwrap().push(event.clone());
        let answers = self.answers.lock().unwrap();
        let outcome = answers.get(&event.stream_id.id).map_or(Outcome::Delivered, |answer| answer(event));
        Box::pin(std::future::ready(outcome.into()))
    }
}

/// Asks for another try.
pub fn retry() -> Outcome {
    Outcome::Retry { reason: "busy".into(), after: None }
}

/// Says that it never will succeed.
pub fn rejected() -> Outcome {
    Outcome::Rejected { reason: "no such order".into() }
}

/// Says that the destination is down.
pub fn unavailable() -> Outcome {
    Outcome::Unavailable { reason: "closed".into(), after: None }
}

/// A route that events of this name, in which `*` stands for anything, take to these publishers.
pub fn route(name: &str, publishers: &[&str]) -> Route {
    Route { name: Some(name.parse().unwrap()), ..Route::to(publishers.iter().copied()) }
}

/// Mostly none, or a rate limit that a test need not wait long for.
pub fn any_options() -> impl Strategy<Value = PublisherOptions> {
    let by = prop_oneof![Just(RateBy::Publisher), Just(RateBy::Tenant), Just(RateBy::Stream), Just(RateBy::Category)];
    let limit = (by, 1..4_u32).prop_map(|(by, burst)| {
        let rate = "1000/s".parse().expect("a rate");
        RateLimit { by, burst: NonZeroU32::new(burst), ..RateLimit::of(rate) }
    });
    prop::option::of(limit).prop_map(|rate| PublisherOptions { rate, ..PublisherOptions::default() })
}
