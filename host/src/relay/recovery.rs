//! What a session begins with: what the last host was doing when it died, and what waits from earlier times.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Session;
use super::lanes::Lanes;
use crate::outbox::{Failed, Fate, Held, Hold, PageBounds, Settled, StorageError};
use crate::publisher::{Attempt, Outcome};
use crate::publishers::Legs;
use crate::row::RawEntry;
use crate::settlement::{Settlement, settle};

const ONE: PageBounds = PageBounds { read_max: 1, bytes_max: usize::MAX, looked_at_max: 1 };

impl Session<'_> {
    /// Finds out whether the last host died in a call.
    ///
    /// If it died in a single one, that counts as an attempt of its entry: if it was the event that killed it, it will be
    /// set aside when that has happened often enough. If there were several, any of them may have done it, or none: each
    /// is tried with nothing beside it, so that the next death, if there is one, tells which.
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), StorageError> {
        let mut entries = Vec::new();
        for position in self.lease.interrupted() {
            entries.extend(self.entry(position)?);
        }
        if let [entry] = entries.as_slice() {
            self.host_died_of(entry)?;
        }
        self.lease.clear();
        self.load_holds(now)?;
        if entries.len() > 1 {
            tracing::warn!("the last relay died with {} calls under way: trying their entries alone", entries.len());
            entries.iter().for_each(|entry| self.lanes.suspect(entry.stream_key(), entry.position, now));
        }
        Ok(())
    }

    fn entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        let page = self.parts.strategy.entries(position.saturating_sub(1), ONE, &mut |found, _| found == position)?;
        Ok(page.entries.into_iter().next())
    }

    fn host_died_of(&mut self, entry: &RawEntry) -> Result<(), StorageError> {
        let held = self.parts.strategy.held()?.into_iter().find(|held| held.position == entry.position);
        let history = held.as_ref().and_then(|held| match held.hold {
            Hold::Waiting { history, .. } => Some(history),
            Hold::Parked => None,
        });
        let delivered_to = held.map_or_else(Vec::new, |held| held.delivered_to);
        let delivered_to = delivered_to.into_iter().map(Into::into).collect();
        let reason = "the relay's process died while it was publishing this event, and no other".to_owned();
        let attempt = Attempt::from(Outcome::HostDied { reason });
        let at = (self.parts.clock)();
        let options = self.parts.options;
        let history = history.unwrap_or_default();
        let (fate, history, then) = match settle(history, 0, &attempt.outcome, &options.policy, (self.parts.random)()) {
            Settlement::DeadLetter { history } => {
                (Fate::DeadLetter { park: options.on_dead_letter == super::OnDeadLetter::Park }, history, "dead-letter")
            }
            Settlement::Retry { delay, history } => (
                Fate::Retry { at: at.saturating_add(super::signed(delay)).unwrap_or(Timestamp::MAX) },
                history,
                "retry",
            ),
            Settlement::Ack | Settlement::PausePublisher { .. } => return Ok(()),
        };
        self.note_failure(entry.position, history.attempts, &attempt, then);
        let (position, others) = (entry.position, Vec::new());
        let failed = Failed { position, at, attempt, others, delivered_to, history, fate };
        self.parts.strategy.settle(&[Settled::Failed(Box::new(failed))])?;
        self.parts.strategy.sync()
    }

    /// Reads what is held back.
    pub(super) fn load_holds(&mut self, now: Instant) -> Result<(), StorageError> {
        self.generation = self.parts.strategy.generation()?;
        self.lanes = Lanes::new(self.parts.options.ordering);
        let wall_clock = (self.parts.clock)();
        for Held { stream, position, hold, delivered_to } in self.parts.strategy.held()? {
            match hold {
                Hold::Waiting { failed_at, retry_at, history } => {
                    let due = now + remaining(failed_at, retry_at, wall_clock);
                    let legs = delivered_to.iter().filter_map(|name| self.parts.publishers.named(name));
                    let delivered = legs.fold(Legs::NONE, |legs, leg| legs | Legs::one(leg));
                    self.lanes.hold(stream, position, due, history, delivered);
                }
                Hold::Parked => self.lanes.park(stream),
            }
        }
        Ok(())
    }

    /// After an operator's act everything that was known of what is held back is read again, once nothing is under way.
    pub(super) fn reload_when_quiet(&mut self, now: Instant) -> Result<(), StorageError> {
        if std::mem::take(&mut self.may_have_been_operated) {
            self.reload |= self.parts.strategy.generation()? != self.generation;
        }
        if self.reload && self.lanes.running() == 0 && self.lanes.unacked() == 0 {
            self.give_back()?;
            self.load_holds(now)?;
            (self.cursor, self.at_end, self.reload) = (i64::MIN, false, false);
        }
        Ok(())
    }
}

/// How long until an entry is due. Its times may be those of another clock: it never waits longer than it was to wait.
fn remaining(failed_at: Timestamp, retry_at: Timestamp, now: Timestamp) -> Duration {
    let positive = |duration| Duration::try_from(duration).unwrap_or(Duration::ZERO);
    positive(retry_at.duration_since(now)).min(positive(retry_at.duration_since(failed_at)))
}
