//! The begin of a session: what the last host was doing when it died, and what waits from earlier sessions.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::lanes::{HeldBy, HeldEntry};
use super::session::Session;
use super::settle::fate;
use crate::attempt::{Attempt, Outcome};
use crate::outbox::{Failed, Held, Hold, Settled, StorageError};
use crate::publishers::PublisherSet;
use crate::raw::RawEntry;
use crate::settlement::settle;
use crate::text::shown;

impl Session<'_> {
    /// Finds out whether the last host died in a call.
    ///
    /// If a single call was under way, the death counts as an attempt of its entry: an event that kills the host again
    /// and again is set aside. If there were several calls, any of them may be the cause, or none: each entry is tried
    /// alone, so that the next death, if there is one, shows which.
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), StorageError> {
        let entries = self.drain.entries_at(&self.drain.interrupted(), usize::MAX)?;
        let entries: Vec<RawEntry> = entries.into_iter().flatten().collect();
        if let [entry] = entries.as_slice() {
            self.host_died_of(entry)?;
        }
        self.drain.clear();
        self.load_holds(now)?;
        self.ask_for_delayed()?;
        if entries.len() > 1 {
            tracing::warn!(
                "the last relay died with {} calls under way: trying their entries alone",
                shown(entries.len())
            );
            entries.iter().for_each(|entry| self.lanes.suspect(entry.stream_key(), entry.id(), now));
        }
        Ok(())
    }

    fn host_died_of(&mut self, entry: &RawEntry) -> Result<(), StorageError> {
        let held = self.drain.held()?.into_iter().find(|held| held.entry == entry.id());
        let history = held.as_ref().and_then(|held| match held.hold {
            Hold::Waiting { history, .. } => Some(history),
            Hold::Parked | Hold::Delivered => None,
        });
        let delivered_to = held.map_or_else(Vec::new, |held| held.delivered_to);
        let delivered_to = delivered_to.into_iter().map(Into::into).collect();
        let reason = "the relay's process died while it was publishing this event, and no other".to_owned();
        let attempt = Attempt::from(Outcome::HostDied { reason });
        let at = (self.context.clock)();
        let options = self.context.options;
        let history = history.unwrap_or_default();
        let settlement = settle(history, &attempt.outcome, &options.policy, (self.context.random)());
        let Some((fate, history)) = fate(settlement, at, options.on_dead_letter) else { return Ok(()) };
        self.note_failure(entry.position, history.attempts, &attempt, fate.into());
        let (entry, others) = (entry.id(), Vec::new());
        let failed = Failed { entry, at, attempt, others, delivered_to, history, fate };
        self.drain.settle(&[Settled::Failed(Box::new(failed))])?;
        self.drain.sync()
    }

    /// Reads what is held back, for the first time.
    fn load_holds(&mut self, now: Instant) -> Result<(), StorageError> {
        let held = self.held(now)?;
        self.lanes.reconcile(&held, true);
        Ok(())
    }

    /// Reads what the storage holds back. Entries that it could not remove are tried again.
    pub(super) fn held(&mut self, now: Instant) -> Result<Vec<HeldEntry>, StorageError> {
        let wall_clock = (self.context.clock)();
        let held = self.drain.held()?.into_iter().map(|Held { stream, tenant, entry, hold, delivered_to }| {
            let hold = match hold {
                Hold::Waiting { failed_at, retry_at, history } => {
                    let due = now + remaining(failed_at, retry_at, wall_clock);
                    let legs = delivered_to.iter().filter_map(|name| self.context.publishers.named(name));
                    let delivered = legs.fold(PublisherSet::NONE, |legs, leg| legs | PublisherSet::one(leg));
                    HeldBy::Waiting { due, history, delivered }
                }
                Hold::Parked => HeldBy::Parked,
                Hold::Delivered => {
                    if !self.lanes.is_unsettled(entry) {
                        self.unsettled.found(entry, now);
                    }
                    HeldBy::Delivered
                }
            };
            HeldEntry { stream, tenant, entry, hold }
        });
        Ok(held.collect())
    }
}

/// How long until an entry is due. Its times may come from another clock, so it never waits longer than its wait was at
/// first.
fn remaining(failed_at: Timestamp, retry_at: Timestamp, now: Timestamp) -> Duration {
    let positive = |duration| Duration::try_from(duration).unwrap_or(Duration::ZERO);
    positive(retry_at.duration_since(now)).min(positive(retry_at.duration_since(failed_at)))
}
