//! Reads entries from the outbox into memory.

use std::cell::RefCell;
use std::time::Instant;

use super::bulkheads::IN_MEMORY;
use super::lanes::NO_PUBLISHER;
use super::session::{LOOK_AGAIN, Session, UNACKED_MAX};
use crate::outbox::{Drain, Page, PageBounds, Settled, Shares, StorageError, Wanted};
use crate::publishers::Destination;
use crate::raw::{EntryId, RawEntry};

/// One read from the outbox.
const PAGE: PageBounds = PageBounds { read_max: 256, bytes_max: 4 * 1024 * 1024, looked_at_max: 4_096 };
/// How many due retries are read at once.
const DUE_MAX: usize = 64;

/// What was taken in of a page.
pub(super) struct TakenIn {
    pub(super) entries: usize,
    /// The first of them.
    pub(super) first: Option<EntryId>,
    pub(super) end: bool,
    pub(super) unnoticed: bool,
}

impl Session<'_> {
    /// Reads on, if there is room and something to read. Returns whether there may be more.
    pub(super) fn read(&mut self, now: Instant) -> Result<bool, StorageError> {
        if self.read_again_at.is_some_and(|at| now < at) {
            return Ok(false);
        }
        let read = self.take_in_what_is_held(now).and_then(|()| {
            self.bulkheads.update(now, |leg| self.lanes.load(leg));
            self.lanes.update_shares(now);
            self.read_due(now)?;
            let read_missed = self.read_missed(now)?;
            self.look_again(now)?;
            Ok(self.read_page(now)? || read_missed)
        });
        match read {
            Err(error) if (error.is_passing() || error.is_refusal()) && self.limit.is_none() => {
                self.degraded(&error);
                self.read_again_at = Some(now + LOOK_AGAIN);
                Ok(false)
            }
            Ok(read) => {
                if self.read_again_at.take().is_some() {
                    self.not_degraded();
                }
                Ok(read)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the waiting entries whose time has come.
    fn read_due(&mut self, now: Instant) -> Result<(), StorageError> {
        let due = self.lanes.due(self.due_by(now), DUE_MAX.min(self.room()));
        if due.is_empty() {
            return Ok(());
        }
        let positions: Vec<i64> = due.iter().map(|(_, entry)| entry.position).collect();
        let read = self.drain.entries_at(&positions, PAGE.bytes_max);
        let (read, failed) = read.map_or_else(|error| (Vec::new(), Some(error)), |read| (read, None));
        let unread = due.iter().skip(read.len());
        unread.for_each(|(lane, _)| self.lanes.rearm(*lane));
        let mut gone = Vec::new();
        for ((lane, id), found) in due.into_iter().zip(read) {
            match found.filter(|found| found.id() == id) {
                Some(entry) => self.push(entry),
                // Somebody deleted the entry by hand: its records are deleted too.
                None => {
                    self.lanes.vanished(lane, id);
                    gone.push(Settled::Vanished { entry: id });
                }
            }
        }
        if !gone.is_empty() {
            self.drain.settle(&gone)?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Reads entries that were passed over and may go now. Returns whether there were any.
    fn read_missed(&mut self, now: Instant) -> Result<bool, StorageError> {
        let mut any = false;
        while self.room() > 0
            && let Some((lane, positions)) = self.lanes.next_missed(DUE_MAX.min(self.room()))
        {
            any = true;
            let (entries, failed) = match self.drain.entries_at(&positions, PAGE.bytes_max) {
                Ok(entries) => (entries, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let rest = positions.get(entries.len()..).unwrap_or_default();
            // One after the other: an entry that waits holds those behind it.
            for entry in entries.into_iter().flatten() {
                if self.lanes.wants_missed(entry.id(), entry.stream_key(), self.due_by(now)) {
                    self.push(entry);
                }
            }
            self.lanes.missed_read(lane, rest);
            self.bulkheads.update(now, |leg| self.lanes.load(leg));
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(any)
    }

    /// Reads the next entries, as far as nothing is in their way.
    fn read_page(&mut self, now: Instant) -> Result<bool, StorageError> {
        if let Some(from) = self.lanes.take_rewind() {
            self.drain.rewind(from);
        }
        // In a pass, what comes back has its turn among the others.
        let comes_first = self.limit.is_some() && self.has_to_bring_back();
        if self.room() == 0 || self.lanes.everything_waits() || comes_first {
            return Ok(false);
        }
        let has_turns = self.has_turns;
        let page = self.take_in_page(now, |drain, bounds, shares, wanted| match has_turns {
            true => drain.next_page_in_turns(bounds, shares, wanted),
            false => drain.next_page(bounds, wanted),
        })?;
        Ok(!page.end)
    }

    /// Reads entries, as far as nothing is in their way and there is room, and takes them in.
    pub(super) fn take_in_page(
        &mut self,
        now: Instant,
        read: impl FnOnce(&dyn Drain, PageBounds, Shares<'_>, Wanted<'_>) -> Result<Page, StorageError>,
    ) -> Result<TakenIn, StorageError> {
        let (bounds, due_by) = (PageBounds { read_max: self.room(), ..PAGE }, self.due_by(now));
        let lanes = RefCell::new(&mut self.lanes);
        let shares = &mut |tenant| lanes.borrow().share(tenant);
        let read =
            read(self.drain, bounds, shares, &mut |entry, stream| lanes.borrow_mut().wants(entry, stream, due_by));
        let taken_in = read.map(|page| {
            let Page { entries, end, reload, unnoticed } = page;
            if reload {
                self.reconcile_at = Some(now);
            }
            let taken_in = TakenIn { entries: entries.len(), first: entries.first().map(RawEntry::id), end, unnoticed };
            entries.into_iter().for_each(|entry| self.push(entry));
            taken_in
        });
        self.lanes.page_ended();
        taken_in
    }

    /// The time by which a waiting entry must be due to be tried now: a pass tries only what was due when it began.
    fn due_by(&self, now: Instant) -> Instant {
        if self.limit.is_some() { self.began } else { now }
    }

    fn push(&mut self, entry: RawEntry) {
        match self.context.publishers.route(&entry) {
            Destination::Publishers(route) => match self.not_before(&entry) {
                None => self.lanes.push(entry, route, self.full()),
                // It does not count as tried.
                Some(until) => return self.delay(&entry, until),
            },
            Destination::Dropped { route } => self.drop_entry(&entry, route),
        }
        if let Some(limit) = &mut self.limit {
            *limit = limit.saturating_sub(1);
        }
    }

    /// Settles an entry that was read, and that this route drops.
    fn drop_entry(&mut self, entry: &RawEntry, route: usize) {
        self.log.dropped_by(route, entry.position);
        let (lane, tried_before) = self.lanes.settle_uncalled(entry);
        self.dropping.insert(entry.id());
        self.await_commit(lane, Settled::Delivered { entry: entry.id(), tried_before }, Instant::now());
    }

    /// Whether lanes that were let in since the last read can be read now.
    pub(super) fn may_read_on(&self) -> bool {
        self.lanes.has_missed() && self.room() > 0 && self.read_again_at.is_none()
    }

    /// How many more entries may be read now.
    pub(super) fn room(&self) -> usize {
        let is_full = self.bulkheads.makes_wait()
            || self.lanes.load(NO_PUBLISHER).entries >= IN_MEMORY.entries
            || self.lanes.unacked() >= UNACKED_MAX
            || self.lanes.too_many_wait()
            || (!self.give_back.legs().is_empty() && self.give_back.legs() == self.context.publishers.all())
            || self.unsettled.is_full();
        if is_full { 0 } else { PAGE.read_max.min(self.limit.unwrap_or(usize::MAX)) }
    }
}
