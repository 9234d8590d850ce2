//! What the session does beside its reader, so that nothing is missed: it looks for entries that have appeared behind
//! the reader, reads again what is held back, and tries refused settlements again.

use std::time::{Duration, Instant};

use super::channels::Channels;
use super::group::{Order, Refused};
use super::log::Line;
use super::options::FairBy;
use super::session::{COMPARE_PAUSE, ORDERS_MAX, Session};
use super::unsettled::is_done_with;
use tracing::Level;

use crate::outbox::StorageError;
use crate::raw::EntryId;
use crate::text::shown;

/// How soon to try again to take in a change that found its stream busy.
const RECONCILE_AGAIN: Duration = Duration::from_millis(20);
/// Comparing may take one part in this many of all time: if it takes long, it happens less often.
const COMPARE_SHARE: u32 = 100;
/// A notice of an entry counts as lost after this time.
const NEWS_MAX: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Looks for entries that have appeared behind the place of the reader, if it is time.
    pub(super) fn look_again(&mut self, now: Instant) -> Result<(), StorageError> {
        self.report_found(now);
        if self.limit.is_some() || self.room() == 0 {
            return Ok(());
        }
        let page = self.take_in_page(now, |drain, bounds, _, wanted| drain.look_back(bounds, now, wanted))?;
        if let Some(first) = page.first.filter(|_| page.unnoticed) {
            self.found.get_or_insert((now, page.entries, first.position));
        }
        Ok(())
    }

    /// Reports entries that were found without any notice of a change, if the notice did not come later either.
    fn report_found(&mut self, now: Instant) {
        if let Some((_, number, from)) = self.found.take_if(|(at, ..)| now.duration_since(*at) >= NEWS_MAX) {
            tracing::warn!(
                "the watchdog found {} entries, from position {} on, that nothing held back and nobody had read: they \
                 are published now",
                shown(number),
                shown(from)
            );
        }
    }

    /// Reads again what is held back, after an operator's act, after the database was restored or its tables changed,
    /// and while a change still has to be taken in.
    pub(super) fn take_in_what_is_held(&mut self, now: Instant) -> Result<(), StorageError> {
        if self.may_have_been_operated {
            if self.drain.must_reload()? {
                self.reconcile_at = Some(now);
            }
            self.may_have_been_operated = false;
        }
        self.give_back_when_committed(now)?;
        if self.reconcile_at.is_some_and(|at| now >= at) {
            self.ask_for_delayed()?;
            self.take_turns(now)?;
            let held = self.held(now)?;
            let reconciled = self.lanes.reconcile(&held, true);
            self.reconcile_at = reconciled.again.then_some(now + RECONCILE_AGAIN);
        }
        if now >= self.compare_at && self.limit.is_none() {
            self.compare(now)?;
        }
        Ok(())
    }

    /// Has the outbox read in turns of tenants, if it can be. Its tables may have changed.
    pub(super) fn take_turns(&mut self, now: Instant) -> Result<(), StorageError> {
        if self.context.options.fair_by == FairBy::Tenant && !self.has_turns {
            self.log.line(Line::new(Level::WARN, "fair_by has no effect with total order"), now);
        }
        if !self.has_turns || self.drain.take_turns((self.context.random)())? {
            return Ok(());
        }
        let text = "tenants do not have turns in reading, although fair_by says so: the outbox has no index of its tenants. Make \
                    it with `outbox init --fair-by tenant`; until then, entries of one tenant wait until the reader has passed \
                    those of another in front of them";
        self.log.line(Line::new(Level::WARN, text), now);
        Ok(())
    }

    /// Compares what is held back with the storage, and takes over what differs.
    fn compare(&mut self, now: Instant) -> Result<(), StorageError> {
        self.ask_for_delayed()?;
        let held = self.held(now)?;
        let changes = self.lanes.reconcile(&held, false).changes;
        let lost = self.lanes.wake_lost();
        if lost > 0 {
            tracing::error!(
                "the watchdog found {} streams that waited for nothing: they go on; please report this",
                shown(lost)
            );
        }
        if changes > 0 {
            tracing::warn!("other programs have held back or released {} entries or streams", shown(changes));
        }
        let ended = Instant::now();
        self.compare_at = ended + COMPARE_PAUSE.max(ended.duration_since(now) * COMPARE_SHARE);
        Ok(())
    }

    /// Takes in the settlements that the storage refused.
    pub(super) fn refused(&mut self, refused: Vec<Refused>) {
        if refused.is_empty() {
            return;
        }
        for Refused { settled, .. } in refused.iter().filter(|refused| is_done_with(&refused.settled)) {
            self.lanes.keep_unsettled(settled.entry());
        }
        self.unsettled.refused(refused, Instant::now());
        if let Some(error) = self.unsettled.error() {
            self.degraded(&error);
        }
    }

    pub(super) fn try_again_what_was_refused(&mut self, channels: &Channels, now: Instant) {
        if self.orders_out < ORDERS_MAX
            && let Some(settled) = self.unsettled.due(now)
        {
            self.orders_out += 1;
            let _ = channels.orders.try_send(Order::TryAgain(settled));
        }
    }

    pub(super) fn tried_again(&mut self, settled: Vec<EntryId>, refused: Vec<Refused>) {
        self.orders_out -= 1;
        settled.into_iter().for_each(|entry| self.lanes.no_longer_unsettled(entry));
        self.refused(refused);
        self.not_degraded();
    }
}
