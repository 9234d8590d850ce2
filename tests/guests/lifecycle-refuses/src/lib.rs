//! Refuses to be configured. It must never get an event, and reports it if it does.

use outbox_guest::{BoxError, Error, Lifecycle, Publisher, Recorded};

struct Refuser;

impl Lifecycle for Refuser {
    fn configure() -> Result<Self, BoxError> {
        Err("TOKEN is missing".into())
    }
}

impl Publisher for Refuser {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        println!("published {} without being configured", event.wrapped_event.uuid);
        Ok(())
    }
}

outbox_guest::export!(Refuser, lifecycle);
