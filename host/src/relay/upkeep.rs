//! What the publisher needs beside its calls: it follows the registry of its versions.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::stop::{StopLevel, Stopping};
use super::{LOOK_AGAIN, Message, Parts, Session};
use crate::outbox::StorageError;
use crate::publisher::Kept;

/// The shortest time between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Waits until the publisher is what it is to be, before the first event.
pub(super) fn begin(parts: Parts<'_>, stopping: &Stopping) -> Result<(), StorageError> {
    while parts.publisher.keep_up(parts.strategy.registry(), (parts.clock)())?.busy {
        if stopping.level() != StopLevel::Go {
            break;
        }
        stopping.wait(PAUSE_MIN);
    }
    Ok(())
}

/// Keeps the publisher up until `changes` ends, which tells of each change of the outbox.
pub(super) fn run(parts: Parts<'_>, changes: &Receiver<()>, results: &Sender<Message>) {
    let registry = parts.strategy.registry();
    let (mut pause, mut failing) = (LOOK_AGAIN / 2, false);
    while changes.recv_timeout(pause) != Err(RecvTimeoutError::Disconnected) {
        match parts.publisher.keep_up(registry, (parts.clock)()) {
            Ok(kept) => {
                failing = false;
                pause = if kept.busy { PAUSE_MIN } else { LOOK_AGAIN / 2 };
                if kept.swapped || !kept.withdrawn.is_empty() {
                    let _ = results.send(Message::Kept(kept));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("cannot follow the publisher's versions: {error}; trying again");
                }
            }
        }
        // Under load every commit is a change.
        thread::sleep(PAUSE_MIN);
    }
}

/// The last call was made.
pub(super) fn end(parts: Parts<'_>) {
    if let Err(error) = parts.publisher.leave(parts.strategy.registry()) {
        tracing::warn!("cannot write down what the publisher's versions did: {error}");
    }
}

impl Session<'_> {
    /// The publisher is another one.
    pub(super) fn kept(&mut self, kept: Kept) {
        if kept.swapped {
            self.gate.hasten(Instant::now());
        }
        // What a canary's attempts used up is given back once none of them is under way.
        self.reload |= !kept.withdrawn.is_empty();
        self.withdrawn.extend(kept.withdrawn);
    }

    /// Called when nothing is under way.
    pub(super) fn give_back(&mut self) -> Result<(), StorageError> {
        while let Some(withdrawn) = self.withdrawn.last() {
            self.parts.strategy.registry().give_back(&withdrawn.publisher, &withdrawn.digest)?;
            self.withdrawn.pop();
        }
        Ok(())
    }
}
