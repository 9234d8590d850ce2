//! The commits: each group of settled entries becomes durable in one transaction, or in few, on a thread of its own.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Message;
use super::lanes::LaneId;
use crate::outbox::{Act, Lease, OutboxStorageStrategy, Retention, Settled};

/// The pause before a commit that failed is tried again.
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

/// Carries out orders until there are no more. What cannot be committed is tried again until it can be, or until the
/// relay gives up: `give_up` is closed then.
pub(super) fn run(
    strategy: &dyn OutboxStorageStrategy,
    lease: &dyn Lease,
    orders: &Receiver<Order>,
    give_up: &Receiver<()>,
    results: &Sender<Message>,
) {
    for order in orders {
        let result = match order {
            Order::Commit(group) => commit(strategy, lease, group, give_up, results),
            Order::Prune { retention, by } => {
                Message::Pruned(strategy.operator().prune(&retention, &by, PRUNE_MAX, false))
            }
        };
        if results.send(result).is_err() {
            return;
        }
    }
}

fn commit(
    strategy: &dyn OutboxStorageStrategy,
    lease: &dyn Lease,
    group: Group,
    give_up: &Receiver<()>,
    results: &Sender<Message>,
) -> Message {
    let mut rest = group.settled.as_slice();
    while !rest.is_empty() {
        let (next, others) = rest.split_at(strategy.settle_max().clamp(1, rest.len()));
        match lease.check().and_then(|()| strategy.settle(next)) {
            Ok(()) => {
                rest = others;
                continue;
            }
            Err(error) if error.is_replaced() => return Message::Lost(error),
            Err(error) => {
                let _ = results.send(Message::NotCommitted(error));
            }
        }
        match give_up.recv_timeout(RETRY_PAUSE) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
            _ => return Message::GaveUp,
        }
    }
    Message::Committed(group)
}

#[cfg(test)]
#[path = "acker_tests.rs"]
mod tests;
