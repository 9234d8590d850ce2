//! Connects the session with the other stages: their threads, and the channels between them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use super::answers::Finished;
use super::group::{Group, Order, Refused};
use super::panics::panic_text;
use super::queue::JobQueue;
use crate::attempt::Attempt;
use crate::outbox::{BroughtBack, Pruned, StorageError};
use crate::publisher::Maintenance;
use crate::raw::EntryId;

/// The messages to the session while it works.
#[derive(Debug)]
pub(super) enum Message {
    Changed,
    TriedAgain {
        settled: Vec<EntryId>,
        refused: Vec<Refused>,
    },
    Finished(Vec<Finished>),
    /// A call of so many events failed, and nobody knows which of them is to blame.
    CallFailed {
        events: usize,
        attempt: Attempt,
    },
    Committed(Group),
    NotCommitted(StorageError),
    GaveUp,
    Lost(StorageError),
    Broken(StorageError),
    BroughtBack(Result<BroughtBack, StorageError>),
    Pruned(Result<Pruned, StorageError>),
    /// The result of keeping up this publisher.
    Maintenance(usize, Maintenance),
}

/// The session's ends of the channels to the other stages.
pub(super) struct Channels {
    pub(super) inbox: Receiver<Message>,
    /// The queue of each publisher, and one for what needs no call.
    pub(super) jobs: Vec<JobQueue>,
    pub(super) orders: Sender<Order>,
    /// Closed to cut off the calls under way.
    pub(super) give_up_calls: async_channel::Sender<()>,
    /// Dropped, with the rest, to give up commits and to end watching.
    pub(super) _give_up: Sender<()>,
}

/// Starts a stage. If it panics, the session ends: nobody else would do its work.
pub(super) fn spawn<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    results: &'scope Sender<Message>,
    part: &'static str,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), StorageError> {
    let work = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let reason = panic_text(panic.as_ref());
            let _ = results.send(Message::Broken(StorageError::Panicked { part, reason }));
        }
    };
    let spawned = thread::Builder::new().name(part.into()).spawn_scoped(scope, work);
    let failed = |error| StorageError::Other { doing: "start a thread", cause: Box::new(error) };
    spawned.map(|_| ()).map_err(failed)
}
