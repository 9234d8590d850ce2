//! The commits: each group of settled entries leaves the outbox in one transaction, or in few, on a thread of its own.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Message;
use super::lanes::LaneId;
use crate::outbox::{Act, Lease, OutboxStorageStrategy, Retention, Settled, StorageError};

/// The pause before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How many records are pruned in one transaction.
const PRUNE_MAX: usize = 500;

/// Settled entries, and the lanes they are of.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) lanes: Vec<LaneId>,
    pub(super) settled: Vec<Settled>,
    /// When the first of them was settled.
    pub(super) since: Option<Instant>,
}

/// What the acker is to do.
#[derive(Debug)]
pub(super) enum Order {
    Commit(Group),
    Prune { retention: Retention, by: Act },
}

/// Carries out orders until there are no more, and hands on what is committed, to be synced.
pub(super) fn run(
    strategy: &dyn OutboxStorageStrategy,
    lease: &dyn Lease,
    orders: &Receiver<Order>,
    give_up: &Receiver<()>,
    committed: &Sender<Option<Group>>,
    results: &Sender<Message>,
) {
    for order in orders {
        let result = match order {
            Order::Commit(group) => {
                let mut rest = group.settled.as_slice();
                match until_done(|| commit(strategy, lease, &mut rest, committed), give_up, results) {
                    Ok(()) => {
                        let _ = committed.send(Some(group));
                        continue;
                    }
                    Err(ended) => ended,
                }
            }
            Order::Prune { retention, by } => {
                Message::Pruned(strategy.operator().prune(&retention, &by, PRUNE_MAX, false))
            }
        };
        if results.send(result).is_err() {
            return;
        }
    }
}

/// Commits what is left of a group, in as many pieces as the storage asks for.
fn commit(
    strategy: &dyn OutboxStorageStrategy,
    lease: &dyn Lease,
    rest: &mut &[Settled],
    committed: &Sender<Option<Group>>,
) -> Result<(), StorageError> {
    while !rest.is_empty() {
        let (next, others) = rest.split_at(strategy.settle_max().clamp(1, rest.len()));
        lease.check()?;
        strategy.settle(next)?;
        *rest = others;
        if !rest.is_empty() {
            // Synced at once, it is no burden to another program's sync.
            let _ = committed.send(None);
        }
    }
    Ok(())
}

/// Tries something again until it can be done, or until the relay gives up: `give_up` is closed then.
pub(super) fn until_done(
    mut step: impl FnMut() -> Result<(), StorageError>,
    give_up: &Receiver<()>,
    results: &Sender<Message>,
) -> Result<(), Message> {
    loop {
        match step() {
            Ok(()) => return Ok(()),
            Err(error) if error.is_replaced() => return Err(Message::Lost(error)),
            Err(error) => {
                let _ = results.send(Message::NotCommitted(error));
            }
        }
        match give_up.recv_timeout(RETRY_PAUSE) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Err(Message::GaveUp),
        }
    }
}

#[cfg(test)]
#[path = "acker_tests.rs"]
mod tests;
