//! Commits settled entries: each group leaves the outbox in one transaction, or in a few, on a thread of its own.
//!
//! If a commit fails for now (the database is busy, the disk is full), it is tried again. If the storage refuses a
//! group, its entries are settled one by one, so that only the entries at fault stay.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use jiff::Timestamp;

use super::channels::Message;
use super::group::{Group, Order, Refused};
use crate::outbox::{BroughtBack, Drain, Operator, Settled, StorageError};
use crate::text::shown;

/// The pause before a failed commit is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a pass tries to commit before it ends with an error.
const PASS_PATIENCE: Duration = Duration::from_secs(30);
/// How many entries come back in one transaction.
const BRING_BACK_MAX: usize = 500;
/// How many records are pruned in one transaction.
const PRUNE_MAX: usize = 500;

/// What the acker works with.
pub(super) struct Acker<'a> {
    pub(super) drain: &'a dyn Drain,
    pub(super) operator: &'a dyn Operator,
    pub(super) clock: fn() -> Timestamp,
    pub(super) patience: Patience<'a>,
    /// To the syncer, which ends when the acker drops this.
    pub(super) committed: Sender<Option<Group>>,
}

/// How long to keep trying what fails for now.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    /// Closed when the relay gives up.
    pub(super) give_up: &'a Receiver<()>,
    /// Whether this is a pass, which is to end.
    pub(super) in_pass: bool,
    pub(super) results: &'a Sender<Message>,
}

impl Acker<'_> {
    /// Carries out orders until there are no more, and hands committed groups to the syncer.
    pub(super) fn run(self, orders: &Receiver<Order>) {
        for order in orders {
            let result = match order {
                Order::Commit(mut group) => {
                    let (mut rest, mut refused) = (group.settled.as_slice(), Vec::new());
                    match until_done(|| self.commit(&mut rest, &mut refused), self.patience) {
                        Ok(()) => {
                            group.refused = refused;
                            let _ = self.committed.send(Some(group));
                            continue;
                        }
                        Err(ended) => ended,
                    }
                }
                Order::TryAgain(settled) => self.try_again(settled),
                Order::BringBack { due_by, until } => self.bring_back(due_by, until),
                Order::Prune { retention, by } => {
                    Message::Pruned(self.operator.prune(&retention, &by, PRUNE_MAX, false))
                }
            };
            if self.patience.results.send(result).is_err() {
                return;
            }
        }
    }

    /// Commits the rest of a group, in pieces of the size that the storage wants.
    fn commit(&self, rest: &mut &[Settled], refused: &mut Vec<Refused>) -> Result<(), StorageError> {
        while !rest.is_empty() {
            let (next, others) = rest.split_at(self.drain.settle_max().clamp(1, rest.len()));
            match self.settle(next) {
                Err(error) if error.is_refusal() => self.commit_each(rest, next.len(), refused)?,
                settled => {
                    settled?;
                    *rest = others;
                }
            }
            if !rest.is_empty() {
                // If each piece is synced at once, another program's sync does not have to write it.
                let _ = self.committed.send(None);
            }
        }
        Ok(())
    }

    /// Commits the first `number` of the rest one by one. A refused entry stays; if it was delivered, that is recorded,
    /// so that no later relay publishes it again.
    fn commit_each(
        &self,
        rest: &mut &[Settled],
        number: usize,
        refused: &mut Vec<Refused>,
    ) -> Result<(), StorageError> {
        for _ in 0..number {
            let Some((next, others)) = rest.split_first() else { break };
            match self.settle(std::slice::from_ref(next)) {
                Err(error) if error.is_refusal() => {
                    let reason = error.to_string();
                    self.write_down(next, &reason)?;
                    refused.push(Refused { settled: next.clone(), reason });
                }
                settled => settled?,
            }
            *rest = others;
        }
        Ok(())
    }

    fn write_down(&self, refused: &Settled, reason: &str) -> Result<(), StorageError> {
        let Settled::Delivered { entry, .. } = *refused else { return Ok(()) };
        let undeletable = Settled::Undeletable { entry, at: (self.clock)(), reason: reason.to_owned() };
        match self.settle(&[undeletable]) {
            Err(error) if error.is_refusal() => {
                tracing::error!(
                    position = entry.position,
                    "this entry was delivered, but it can neither be removed nor recorded as delivered ({}): the next \
                     relay publishes it again",
                    shown(error)
                );
                Ok(())
            }
            settled => settled,
        }
    }

    fn settle(&self, settled: &[Settled]) -> Result<(), StorageError> {
        if self.drain.settle(settled)? < settled.len() {
            // Somebody has removed or replaced entries.
            let _ = self.patience.results.send(Message::Changed);
        }
        Ok(())
    }

    /// Brings back what was put off and is due.
    fn bring_back(&self, due_by: Timestamp, until: Timestamp) -> Message {
        let (mut brought_back, most) = (None, BRING_BACK_MAX.min(self.drain.settle_max()).max(1));
        let mut bring_back = || match self.drain.bring_back(due_by, until, most) {
            Err(error) if !error.is_refusal() => Err(error),
            result => {
                brought_back = Some(result);
                Ok(())
            }
        };
        let done = until_done(&mut bring_back, self.patience);
        match (done, brought_back) {
            (Ok(()), Some(result)) => Message::BroughtBack(result),
            (Err(ended), _) => ended,
            (Ok(()), None) => Message::BroughtBack(Ok(BroughtBack::default())),
        }
    }

    /// Tries refused settlements once more.
    fn try_again(&self, settled: Vec<Settled>) -> Message {
        let (mut rest, mut refused) = (settled.as_slice(), Vec::new());
        let tried = self.commit(&mut rest, &mut refused).and_then(|()| self.drain.sync());
        if let Err(error) = tried {
            let reason = error.to_string();
            let all = settled.into_iter().map(|settled| Refused { settled, reason: reason.clone() });
            return Message::TriedAgain { settled: Vec::new(), refused: all.collect() };
        }
        let is_refused = |settled: &Settled| refused.iter().any(|it| it.settled.entry() == settled.entry());
        let settled = settled.iter().filter(|settled| !is_refused(settled)).map(Settled::entry).collect();
        Message::TriedAgain { settled, refused }
    }
}

/// Repeats a failing action until it succeeds, or until the relay gives up; a pass gives up by itself. An error that
/// does not pass ends the session.
pub(super) fn until_done(
    mut step: impl FnMut() -> Result<(), StorageError>,
    patience: Patience<'_>,
) -> Result<(), Message> {
    let Patience { give_up, in_pass, results } = patience;
    let since = Instant::now();
    loop {
        match step() {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_passing() || (in_pass && since.elapsed() >= PASS_PATIENCE) => {
                return Err(Message::Lost(error));
            }
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
