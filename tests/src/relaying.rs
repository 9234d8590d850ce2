//! A relay at work beside a test.

use std::thread;
use std::time::Duration;

use outbox_host::{Outbox, OutboxStorageStrategy, Publishers, Report, Stop, stop};

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a relay beside `meanwhile`, stops it after that (and when that fails), and returns its report.
pub fn relaying<'p, S: OutboxStorageStrategy>(
    outbox: &Outbox<S>,
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

/// Waits until it is so: not all that a test waits for can tell.
pub fn until(what: &str, is_so: impl FnMut() -> bool) {
    crate::wait_until(what, PATIENCE, is_so);
}
