//! Reads entries from the outbox into memory.

use std::ops::RangeInclusive;
use std::time::Instant;

use super::{LOOK_AGAIN, Session, UNACKED_MAX};
use crate::outbox::{Page, PageBounds, Settled, StorageError};
use crate::raw::{EntryId, RawEntry};

/// The most entries that are read and not yet published, and the most bytes of their data; a page may exceed it.
pub(super) const IN_MEMORY_MAX: usize = 2_048;
const IN_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One read from the outbox.
const PAGE: PageBounds = PageBounds { read_max: 256, bytes_max: 4 * 1024 * 1024, looked_at_max: 4_096 };
/// How many due retries are read at once.
const DUE_MAX: usize = 64;

impl Session<'_> {
    /// Reads on, if there is room and something to read. Returns whether there may be more.
    pub(super) fn read(&mut self, now: Instant) -> Result<bool, StorageError> {
        if self.read_again_at.is_some_and(|at| now < at) {
            return Ok(false);
        }
        let read = self.take_in_what_is_held(now).and_then(|()| {
            if self.give_back {
                return Ok(false);
            }
            self.read_due(now)?;
            self.look_again(now)?;
            self.read_page(now)
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
        let now = if self.limit.is_some() { self.began } else { now };
        let mut read = 0;
        // Each entry may be as large as possible, so check the room before each.
        while read < DUE_MAX
            && self.room() > 0
            && let Some((lane, id)) = self.lanes.due(now, 1).pop()
        {
            read += 1;
            let one = PageBounds { read_max: 1, looked_at_max: 1, ..PAGE };
            let mut is_it = |found: EntryId, _| found == id;
            let page = self.context.strategy.entries(id.position..=id.position, one, &mut is_it)?;
            match page.entries.into_iter().next() {
                Some(entry) => self.push(entry),
                // Somebody deleted the entry by hand: its records are deleted too.
                None => {
                    self.lanes.vanished(lane, id);
                    self.context.strategy.settle(&[Settled::Vanished { entry: id }])?;
                }
            }
        }
        Ok(())
    }

    /// Reads the next entries, as far as nothing is in their way.
    fn read_page(&mut self, now: Instant) -> Result<bool, StorageError> {
        if let Some(from) = self.lanes.take_rewind() {
            self.cursor = self.cursor.min(from);
            self.at_end = false;
        }
        if self.at_end || self.room() == 0 {
            return Ok(false);
        }
        let page = self.read_range(self.cursor..=i64::MAX, now)?;
        self.at_end = page.end || page.last == Some(i64::MAX);
        self.cursor = page.last.map_or(self.cursor, |last| last.saturating_add(1));
        Ok(true)
    }

    /// Reads entries of a range, as far as nothing is in their way and there is room.
    pub(super) fn read_range(&mut self, range: RangeInclusive<i64>, now: Instant) -> Result<Page, StorageError> {
        let bounds = PageBounds { read_max: PAGE.read_max.min(self.room()), ..PAGE };
        let lanes = &mut self.lanes;
        let mut wanted = |entry, stream| lanes.wants(entry, stream, now);
        let strategy = self.context.strategy;
        let read = strategy.entries(range, bounds, &mut wanted).and_then(|page| Ok((page, strategy.generation()?)));
        let page = read.map(|(mut page, generation)| {
            if generation == self.generation {
                page.entries.drain(..).for_each(|entry| self.push(entry));
                return page;
            }
            // The table may have been replaced, and these positions may not be the next ones: start again.
            self.may_have_been_operated = true;
            Page::default()
        });
        self.lanes.page_ended();
        page
    }

    fn push(&mut self, entry: RawEntry) {
        let route = self.context.publishers.route(&entry);
        self.lanes.push(entry, route);
        if let Some(limit) = &mut self.limit {
            *limit = limit.saturating_sub(1);
        }
    }

    /// How many more entries may be read now.
    pub(super) fn room(&self) -> usize {
        let in_memory = self.lanes.in_memory();
        let is_full = in_memory.bytes >= IN_MEMORY_BYTES_MAX || self.lanes.unacked() >= UNACKED_MAX;
        if is_full || self.unsettled.is_full() {
            return 0;
        }
        IN_MEMORY_MAX.saturating_sub(in_memory.entries).min(self.limit.unwrap_or(usize::MAX))
    }
}
