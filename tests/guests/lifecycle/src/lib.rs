//! Is configured by the environment variable GREETING, and prints it with each event.

use outbox_guest::{BoxError, Error, Lifecycle, Publisher, Recorded};

struct Greeter {
    greeting: String,
}

impl Lifecycle for Greeter {
    fn configure() -> Result<Self, BoxError> {
        let greeting = std::env::var("GREETING").map_err(|error| format!("GREETING: {error}"))?;
        println!("configured");
        Ok(Self { greeting })
    }
}

impl Publisher for Greeter {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        println!("{} {}", self.greeting, event.wrapped_event.uuid);
        Ok(())
    }
}

outbox_guest::export!(Greeter, lifecycle);
