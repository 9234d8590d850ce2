//! Draining an outbox in memory.

use std::ops::RangeInclusive;
use std::time::Instant;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::MemoryOutbox;
use crate::outbox::{
    BroughtBack, Cursor, Drain, Held, Page, PageBounds, ReadRanges, RelayState, Settled, Slice, StorageError, Wanted,
    entries_one_by_one,
};
use crate::raw::RawEntry;

/// Only one of an outbox's drains is there at a time.
pub(super) struct MemoryDrain<'a> {
    outbox: &'a MemoryOutbox,
    cursor: Mutex<Cursor>,
}

impl<'a> MemoryDrain<'a> {
    pub(super) fn take(outbox: &'a MemoryOutbox) -> Result<Self, StorageError> {
        let mut kept = outbox.kept();
        if std::mem::replace(&mut kept.leased, true) {
            return Err(StorageError::Leased { by: "another relay".into() });
        }
        Ok(Self { outbox, cursor: Mutex::new(Cursor::new(kept.generation, Instant::now())) })
    }
}

impl ReadRanges for MemoryOutbox {
    fn range(&self, range: RangeInclusive<i64>, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Slice, StorageError> {
        let kept = self.kept();
        if range.is_empty() {
            return Ok(Slice { end: true, ..Slice::default() });
        }
        let mut rest = kept.entries.range(range).take(bounds.looked_at_max);
        let mut slice = Slice::default();
        let (mut looked_at, mut bytes) = (0, 0);
        while slice.entries.len() < bounds.read_max && bytes < bounds.bytes_max {
            let Some((position, entry)) = rest.next() else {
                slice.end = looked_at < bounds.looked_at_max;
                break;
            };
            looked_at += 1;
            slice.last = Some(*position);
            if wanted(entry.id(), entry.stream_key()) {
                bytes += entry.bytes();
                slice.entries.push(entry.clone());
            }
        }
        Ok(slice)
    }

    fn generation(&self) -> Result<u64, StorageError> {
        Ok(self.kept().generation)
    }
}

impl Drain for MemoryDrain<'_> {
    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.cursor.lock().next_page(self.outbox, bounds, wanted)
    }

    fn look_back(&self, bounds: PageBounds, now: Instant, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.cursor.lock().look_back(self.outbox, bounds, now, wanted)
    }

    fn look_back_at(&self) -> Option<Instant> {
        Some(self.cursor.lock().look_back_at())
    }

    fn rewind(&self, position: i64) {
        self.cursor.lock().rewind(position);
    }

    fn changed(&self, knows_nothing: bool) {
        self.cursor.lock().changed(knows_nothing);
    }

    fn must_reload(&self) -> Result<bool, StorageError> {
        Ok(self.cursor.lock().must_reload(self.outbox.generation()?))
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        entries_one_by_one(positions, bytes_max, |position| Ok(self.outbox.kept().entries.get(&position).cloned()))
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        Ok(self.outbox.kept().held())
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        Ok(self.outbox.change(|kept| settled.iter().filter(|settled| kept.settle(settled)).count()))
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        Ok(self.outbox.kept().next_put_off())
    }

    fn bring_back(&self, _due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        Ok(self.outbox.change(|kept| kept.bring_back(until, max)))
    }

    fn settle_max(&self) -> usize {
        usize::MAX
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        self.outbox.kept().calls.insert(slot, positions.to_vec());
    }

    fn interrupted(&self) -> Vec<i64> {
        let mut positions: Vec<i64> = self.outbox.kept().calls.values().flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    fn clear(&self) {
        self.outbox.kept().calls.clear();
    }

    fn show(&self, state: &RelayState) {
        self.outbox.kept().state = Some(state.clone());
    }

    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for MemoryDrain<'_> {
    fn drop(&mut self) {
        self.outbox.kept().leased = false;
    }
}
