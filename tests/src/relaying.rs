//! A relay at work beside a test.

use std::thread;

use outbox_host::{Outbox, OutboxStorageStrategy, Publishers, Report, Serde, Stop, stop};

/// Runs a relay beside `meanwhile`, stops it after that (and when that fails), and returns its report.
pub fn relaying<'p, S: OutboxStorageStrategy, D: Serde>(
    outbox: &Outbox<S, D>,
    publishers: impl Into<Publishers<'p>>,
    meanwhile: impl FnOnce(&Stop),
) -> Report {
    let (stop, stopping) = stop();
    let publishers = publishers.into();
    thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(publishers, &stopping));
        let stop = StopAtEnd(stop);
        meanwhile(&stop.0);
        drop(stop);
        relay.join().unwrap().unwrap()
    })
}

struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        if thread::panicking() { self.0.stop_now() } else { self.0.stop() }
    }
}
