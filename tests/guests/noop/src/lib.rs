//! Does nothing, successfully: it shows what a call costs if the publisher costs nothing.

use outbox_guest::{Error, Publisher, Recorded};

#[derive(Default)]
struct Noop;

impl Publisher for Noop {
    fn publish(&mut self, _: Recorded) -> Result<(), Error> {
        Ok(())
    }
}

outbox_guest::export!(Noop);
