//! Follows version changes, beside the calls.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tracing::Level;

use super::channels::Message;
use super::log::{Line, Log};
use super::session::{LOOK_AGAIN, RelayContext, Session};
use super::stop::{StopLevel, Stopping};
use crate::outbox::StorageError;
use crate::publisher::Maintenance;
use crate::text::shown;

/// The shortest time between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Waits until some publisher can publish, before the first event: one that is not ready yet is unavailable until it is, and
/// holds up no other. In a pass, waits until all requested versions of all of them are at work, since nobody keeps them up
/// later.
pub(super) fn begin(context: RelayContext<'_>, in_pass: bool, stopping: &Stopping) -> Result<(), StorageError> {
    loop {
        let mut waiting = 0;
        for (_, publisher) in context.publishers.iter() {
            let maintenance = publisher.maintain(context.strategy.deployments(), (context.clock)())?;
            waiting += usize::from(maintenance.busy && (in_pass || !maintenance.ready));
        }
        let may_begin = waiting == 0 || (!in_pass && waiting < context.publishers.len());
        if may_begin || stopping.level() != StopLevel::Go {
            return Ok(());
        }
        stopping.wait(PAUSE_MIN);
    }
}

/// Keeps the publishers up to date until `changes` ends, which reports each change of the outbox.
pub(super) fn run(context: RelayContext<'_>, changes: &Receiver<()>, results: &Sender<Message>) {
    let deployments = context.strategy.deployments();
    let (mut again, mut log) = (Some(Duration::ZERO), Log::default());
    while wait(changes, again) {
        let mut failed = None;
        again = None;
        for (leg, publisher) in context.publishers.iter() {
            match publisher.maintain(deployments, (context.clock)()) {
                Ok(maintenance) => {
                    again = again.into_iter().chain(maintenance.again).min();
                    if maintenance.swapped || !maintenance.withdrawn.is_empty() {
                        let _ = results.send(Message::Maintenance(leg, maintenance));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = &failed {
            again = Some(LOOK_AGAIN);
            let text = format!("cannot follow the publishers' versions: {error}; trying again");
            log.line(Line::new(Level::WARN, text), Instant::now());
        }
        // Under load every commit is a change.
        thread::sleep(PAUSE_MIN);
    }
}

/// Waits for a change, at most for `again`. Returns whether there may be more changes.
fn wait(changes: &Receiver<()>, again: Option<Duration>) -> bool {
    match again {
        Some(again) => changes.recv_timeout(again) != Err(RecvTimeoutError::Disconnected),
        None => changes.recv().is_ok(),
    }
}

/// Called after the last call of a publisher.
pub(super) fn end(context: RelayContext<'_>) {
    for (_, publisher) in context.publishers.iter() {
        if let Err(error) = publisher.leave(context.strategy.deployments()) {
            tracing::warn!("cannot store the counts of the publisher's versions: {}", shown(&error));
        }
    }
}

impl Session<'_> {
    /// Takes in the result of keeping up a publisher.
    pub(super) fn maintenance(&mut self, leg: usize, maintenance: Maintenance) {
        if maintenance.swapped {
            self.breakers.hasten(leg, Instant::now());
        }
        self.give_back.withdrawn.extend(maintenance.withdrawn.into_iter().map(|withdrawn| (leg, withdrawn)));
    }
}
