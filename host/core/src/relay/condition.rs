//! The relay's condition: logged when it changes, and shown by the status.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::Level;

use super::log::Line;
use super::session::Session;
use crate::outbox::{BreakerState, PublisherState, RelayCondition, StorageError};

const TOO_MANY_WAIT: &str = "millions of streams wait for publishers that are paused, slow or limited: nothing more is read until some \
                             of them go on; see which publishers the status names";
/// A wait for a rate limit is shown if it is longer than this.
const TOKEN_SHOWN: Duration = Duration::from_secs(1);
const PARKED: &str = "in total order, everything waits until an operator retries or discards the dead letter that parks it: \
                      `outbox dead list` shows it";

impl Session<'_> {
    /// A publisher is unavailable, or its calls fail.
    pub(super) fn paused(&mut self, leg: usize) {
        let reason = self.breakers.reason(leg).to_owned();
        match self.context.publishers.name(leg) {
            Some(name) => self.set_condition(RelayCondition::Paused, &format!("{name}: {reason}")),
            None => self.set_condition(RelayCondition::Paused, &reason),
        }
    }

    /// Shows the state of each publisher, if one has changed, or waits for another time.
    pub(super) fn show_publishers(&mut self, now: Instant) {
        let tokens = self.next_tokens(now);
        if !self.breakers.take_changed() && tokens == self.tokens_shown {
            return;
        }
        self.tokens_shown = tokens;
        let clock = (self.context.clock)();
        let names = (0..self.context.publishers.len()).map(|leg| self.context.publishers.name(leg));
        let states = names.zip(self.breakers.states()).enumerate().map(|(leg, (name, (breaker, until, reason)))| {
            let before =
                self.condition.publishers.get(leg).filter(|it| it.is_called() == (breaker == BreakerState::Closed));
            PublisherState {
                name: name.map(|name| (**name).to_owned()),
                breaker,
                since: before.map_or(clock, |before| before.since),
                reason: reason.to_owned(),
                next_probe: until.map(|until| after(clock, until.saturating_duration_since(now))),
                next_token: (self.tokens_shown.get(leg).copied().flatten())
                    .map(|at| after(clock, at.saturating_duration_since(now))),
            }
        });
        self.condition.publishers = states.collect();
        self.drain.show(&self.condition);
    }

    /// For each publisher, when the next entry that waits for its rate limit may pass, if that is worth showing.
    fn next_tokens(&self, now: Instant) -> Vec<Option<Instant>> {
        let legs = if self.lanes.has_limits() { 0..self.context.publishers.len() } else { 0..0 };
        legs.map(|leg| self.lanes.next_token_of(leg).filter(|at| *at > now + TOKEN_SHOWN)).collect()
    }

    /// The database cannot be read or written. Settled entries stay settled, and are committed when that is possible.
    pub(super) fn degraded(&mut self, error: &StorageError) {
        self.set_condition(RelayCondition::Degraded, &error.to_string());
    }

    /// The database can be read and written.
    pub(super) fn not_degraded(&mut self) {
        if self.condition.state == RelayCondition::Degraded && self.unsettled.error().is_none() {
            self.set_condition(RelayCondition::Running, "");
        }
    }

    /// Publishers that answer are no longer unavailable.
    pub(super) fn not_paused(&mut self) {
        if self.condition.state == RelayCondition::Paused && self.breakers.all_closed() {
            self.set_condition(RelayCondition::Running, "");
        }
    }

    /// In total order, a dead letter that parks its stream parks everything.
    pub(super) fn show_whether_parked(&mut self) {
        match (self.lanes.everything_is_parked(), self.condition.state) {
            (true, RelayCondition::Running) => self.set_condition(RelayCondition::Parked, PARKED),
            (false, RelayCondition::Parked) => self.set_condition(RelayCondition::Running, ""),
            _ => {}
        }
    }

    /// So many streams wait for publishers that no more can be remembered.
    pub(super) fn show_whether_too_many_wait(&mut self) {
        let is_shown = self.condition.state == RelayCondition::Degraded && self.condition.reason == TOO_MANY_WAIT;
        match self.lanes.too_many_wait() {
            true if !is_shown => self.set_condition(RelayCondition::Degraded, TOO_MANY_WAIT),
            false if is_shown => self.set_condition(RelayCondition::Running, ""),
            _ => {}
        }
    }

    fn set_condition(&mut self, state: RelayCondition, reason: &str) {
        if self.condition.state == state && self.condition.reason == reason {
            return;
        }
        let (level, text) = match state {
            RelayCondition::Running => {
                (Level::INFO, format!("running again: no longer {}", self.condition.state.name()))
            }
            RelayCondition::Paused => (Level::WARN, format!("the publisher is unavailable and paused: {reason}")),
            RelayCondition::Parked => (Level::WARN, format!("nothing is published: {reason}")),
            RelayCondition::Degraded => (Level::ERROR, format!("{reason}; entries stay in the outbox, trying again")),
        };
        self.log.line(Line::new(level, text), Instant::now());
        if self.condition.state != state {
            self.condition.since = (self.context.clock)();
        }
        self.condition.state = state;
        reason.clone_into(&mut self.condition.reason);
        self.drain.show(&self.condition);
    }
}

fn after(time: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    time.saturating_add(delay).unwrap_or(Timestamp::MAX)
}
