//! Makes commits durable, on a thread of its own, so that more can be committed meanwhile. If the disk is slow, one
//! sync serves several groups.

use std::iter::once;

use crossbeam_channel::Receiver;

use super::acker::{Patience, until_done};
use super::channels::Message;
use super::group::Group;
use crate::outbox::Drain;

/// Makes committed groups durable, and reports them, until there are no more. None stands for a piece of a group.
pub(super) fn run(drain: &dyn Drain, committed: &Receiver<Option<Group>>, patience: Patience<'_>) {
    for first in committed {
        // A sync covers what was committed before it began.
        let groups: Vec<Group> = once(first).chain(committed.try_iter()).flatten().collect();
        let mut synced = until_done(|| drain.sync(), patience);
        for group in groups {
            let result = match &mut synced {
                Ok(()) => Message::Committed(group),
                Err(ended) => std::mem::replace(ended, Message::GaveUp),
            };
            if patience.results.send(result).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "syncer_tests.rs"]
mod tests;
