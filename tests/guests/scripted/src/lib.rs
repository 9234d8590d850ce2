//! Behaves as each event says: see [`script`].

mod script;

use outbox_guest::{Error, Publisher, Recorded};

#[derive(Default)]
struct Scripted;

impl Publisher for Scripted {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        script::publish(&event)
    }
}

outbox_guest::export!(Scripted);
