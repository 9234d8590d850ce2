//! Stops a relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Makes a pair: one side stops the relay, the other is passed to the relay.
///
/// ```
/// let (stop, stopping) = outbox_engine::stop();
/// stop.stop(); // for example from a signal handler's thread
/// # drop(stopping);
/// ```
pub fn stop() -> (Stop, Stopping) {
    let level = Arc::new(AtomicU8::new(0));
    let (wake, woken) = bounded(1);
    (Stop { level: level.clone(), wake }, Stopping { level, woken })
}

/// Stops a relay.
#[derive(Debug, Clone)]
pub struct Stop {
    level: Arc<AtomicU8>,
    wake: Sender<()>,
}

impl Stop {
    /// Asks for an orderly end: calls under way may end within the grace time, and nothing new begins.
    pub fn stop(&self) {
        self.raise(StopLevel::Drain);
    }

    /// Asks for an immediate end: calls under way are cut off, and count as no attempts.
    pub fn stop_now(&self) {
        self.raise(StopLevel::Now);
    }

    fn raise(&self, level: StopLevel) {
        self.level.fetch_max(level as u8, Ordering::SeqCst);
        // If a wake-up is already queued, it is enough.
        let _ = self.wake.try_send(());
    }
}

/// The relay's side of a [`Stop`].
#[derive(Debug)]
pub struct Stopping {
    level: Arc<AtomicU8>,
    woken: Receiver<()>,
}

/// How urgent the stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StopLevel {
    Go = 0,
    Drain = 1,
    Now = 2,
}

impl Stopping {
    pub(super) fn level(&self) -> StopLevel {
        match self.level.load(Ordering::SeqCst) {
            0 => StopLevel::Go,
            1 => StopLevel::Drain,
            _ => StopLevel::Now,
        }
    }

    /// Gets a message each time the level is raised.
    pub(super) fn woken(&self) -> &Receiver<()> {
        &self.woken
    }

    /// Waits for the level to be raised, at most for `patience`.
    pub(super) fn wait(&self, patience: Duration) {
        let _ = self.woken.recv_timeout(patience);
    }
}
