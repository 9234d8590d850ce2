//! Waits 10 ms for each event, as for the answer of a near destination.

use std::time::Duration;

use outbox_guest::{Error, Publisher, Recorded};

#[derive(Default)]
struct Waits;

impl Publisher for Waits {
    fn publish(&mut self, _: Recorded) -> Result<(), Error> {
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    }
}

outbox_guest::export!(Waits);
