//! How far an outbox was read, for storages that read in the order of positions.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use super::StorageError;
use super::drain::{Page, PageBounds, Wanted};
use crate::raw::RawEntry;

use self::sweep::Sweep;

mod fair;
mod reading;
mod sweep;

pub use self::reading::Reading;

/// The place of the reader, and of the [second look](super::Drain::look_back) behind it.
#[derive(Debug)]
pub struct Cursor {
    /// Everything below this position was read or passed over.
    next: i64,
    /// Whether nothing is known to be behind it.
    at_end: bool,
    sweep: Sweep<i64>,
    generation: u64,
}

/// Entries of a range of positions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Slice {
    /// The wanted ones, in position order.
    pub entries: Vec<RawEntry>,
    /// The position of the last entry that was looked at. None if there was none.
    pub last: Option<i64>,
    /// Whether the range had no further entries.
    pub end: bool,
}

/// A storage whose entries can be read by ranges of positions.
pub trait ReadRanges {
    /// Reads the entries whose positions are in `range`, in position order.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn range(&self, range: RangeInclusive<i64>, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Slice, StorageError>;

    /// A number that differs after an operator's act (a retry, a discard, ...) from what it was before, and after the
    /// outbox was restored or its table rebuilt.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn generation(&self) -> Result<u64, StorageError>;
}

/// The name by which a storage knows a tenant. All spellings of a tenant have the same.
pub type TenantName = Arc<[u8]>;

/// A storage whose entries can be read by their tenants too.
pub trait ReadTenants: ReadRanges {
    /// Whether they can be read so now.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn knows_tenants(&self) -> Result<bool, StorageError>;

    /// The first tenant with entries behind this one, in the storage's own order of names; the first of all for None.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn tenant_after(&self, tenant: Option<&TenantName>) -> Result<Option<TenantName>, StorageError>;

    /// The entries from this position on, at most `max`, and their tenants.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn tenants_from(&self, position: i64, max: usize) -> Result<Vec<(i64, TenantName)>, StorageError>;

    /// The highest position of all entries.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn last_position(&self) -> Result<Option<i64>, StorageError>;

    /// As [`range`](ReadRanges::range), of the entries of this tenant alone.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn range_of(
        &self,
        tenant: &TenantName,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, StorageError>;
}

impl Cursor {
    /// At the start of an outbox that has this generation.
    pub fn new(generation: u64, now: Instant) -> Self {
        Self { next: i64::MIN, at_end: false, sweep: Sweep::new(now), generation }
    }

    /// The same, whose second look takes one part in `share` of the time, instead of one in four.
    #[must_use]
    pub fn with_look_share(self, share: u32) -> Self {
        Self { sweep: self.sweep.with_share(share), ..self }
    }

    /// See [`Drain::next_page`](super::Drain::next_page).
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn next_page(
        &mut self,
        storage: &impl ReadRanges,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        if self.at_end {
            return Ok(Page { end: true, ..Page::default() });
        }
        let Some(slice) = self.read(storage, self.next..=i64::MAX, bounds, wanted)? else { return Ok(RELOAD) };
        self.at_end = slice.end || slice.last == Some(i64::MAX);
        self.next = slice.last.map_or(self.next, |last| last.saturating_add(1));
        Ok(Page { entries: slice.entries, end: slice.last.is_none(), ..Page::default() })
    }

    /// See [`Drain::look_back`](super::Drain::look_back).
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn look_back(
        &mut self,
        storage: &impl ReadRanges,
        bounds: PageBounds,
        now: Instant,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        let by_watchdog = self.sweep.is_watchdog_due(now);
        let Some(from) = self.sweep.next(now, i64::MIN) else { return Ok(Page { end: true, ..Page::default() }) };
        let began = Instant::now();
        let read = self.read(storage, from..=self.next.saturating_sub(1), bounds, wanted)?;
        let Some(slice) = read else { return Ok(RELOAD) };
        let took = began.elapsed();
        let at = slice.last.and_then(|last| last.checked_add(1)).filter(|_| !slice.end);
        let through = self.sweep.looked(at, slice.last, took, now + took);
        if let sweep::Looked::Through { highest } = through {
            if self.at_end {
                // The next entry may get a lower position than all entries before.
                self.next = self.next.min(highest.map_or(i64::MIN, |highest| highest.saturating_add(1)));
            }
            // The watch may have missed a change.
            self.at_end &= !by_watchdog;
        }
        Ok(Page { entries: slice.entries, end: slice.last.is_none(), unnoticed: by_watchdog, reload: false })
    }

    /// See [`Drain::look_back_at`](super::Drain::look_back_at).
    pub fn look_back_at(&self) -> Instant {
        self.sweep.wake_at()
    }

    /// See [`Drain::rewind`](super::Drain::rewind).
    pub fn rewind(&mut self, position: i64) {
        self.next = self.next.min(position);
        self.at_end = false;
    }

    /// See [`Drain::changed`](super::Drain::changed).
    pub fn changed(&mut self, knows_nothing: bool) {
        self.at_end = false;
        if knows_nothing {
            // The next entry may have any position: applications need not append in the order of positions.
            self.next = i64::MIN;
        } else {
            self.sweep.ask();
        }
    }

    /// See [`Drain::must_reload`](super::Drain::must_reload). A rebuilt table counts from the start again, so the next
    /// entry is at the beginning.
    pub fn must_reload(&mut self, generation: u64) -> bool {
        let is_another = std::mem::replace(&mut self.generation, generation) != generation;
        if is_another {
            self.rewind(i64::MIN);
        }
        is_another
    }

    /// None if the table may have been replaced, so that these positions may not be the next ones.
    fn read(
        &mut self,
        storage: &impl ReadRanges,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Option<Slice>, StorageError> {
        let slice = storage.range(range, bounds, wanted)?;
        Ok((!self.must_reload(storage.generation()?)).then_some(slice))
    }
}

const RELOAD: Page = Page { entries: Vec::new(), end: false, reload: true, unnoticed: false };
