//! Reading in turns: each tenant has a cursor of its own, so that nobody waits until another tenant's entries are read.
//!
//! Which tenants have something to read is told by the *tail*: it goes through what is new in the order of positions, and
//! reads nothing but the tenants. If much is new at once, the tail goes to the end, and the tenants are listed instead. To
//! forget a tenant, or to go back too far, is always harmless: what is under way is not read twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::sweep::{Looked, Sweep};
use super::{RELOAD, ReadTenants, Slice, TenantName};
use crate::outbox::StorageError;
use crate::outbox::drain::{Page, PageBounds, Share, Shares, Wanted};
use crate::raw::RawEntry;
use crate::stream::TenantKey;

/// If more entries are new, the tenants are listed.
const TAIL_MAX: usize = 1_024;
/// The most tenants that one call lists, or whose turns pass without a page.
const TENANTS_MAX: usize = 1_024;
/// The most tenants that one call looks behind, and the part of a page's bound that it looks at of each.
const LOOKED_BEHIND_MAX: usize = 64;
const LOOKED_AT_SHARE: usize = 16;
/// A page has entries for this many turns, or for as many as tenants wait.
const TURNS_A_PAGE: usize = 32;

/// The place of the reader in each tenant's entries, and of the second look behind them.
#[derive(Debug)]
pub struct FairCursor {
    /// The tenants that may have entries.
    tenants: BTreeMap<TenantName, Place>,
    /// Those that may have something to read, in the order of their turns.
    turns: VecDeque<TenantName>,
    /// How many turns have passed without a page.
    passed: usize,
    /// The tenant of each entry below this position is known.
    tail: i64,
    /// Whether entries may be from there on.
    has_news: bool,
    listing: Option<Listing>,
    /// Who is first, from 0 to 1, until that is decided.
    begin: Option<f64>,
    sweep: Sweep<Look>,
    generation: u64,
}

/// Where a tenant is read.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Everything below this position was read or passed over.
    next: i64,
    has_turn: bool,
    /// Whether the second look has found entries of it.
    seen: bool,
}

/// The last tenant that was listed, and whether more has become new meanwhile.
#[derive(Debug, Default)]
struct Listing {
    after: Option<TenantName>,
    again: bool,
}

/// Where the second look is: behind this tenant, or within the entries of another from a position on.
#[derive(Debug, Clone, Default)]
struct Look {
    after: Option<TenantName>,
    within: Option<(TenantName, i64)>,
}

impl FairCursor {
    /// At the start of an outbox that has this generation.
    pub(super) fn new(generation: u64, begin: f64, now: Instant) -> Self {
        Self {
            tenants: BTreeMap::new(),
            turns: VecDeque::new(),
            passed: 0,
            tail: i64::MIN,
            has_news: true,
            listing: None,
            begin: Some(begin),
            sweep: Sweep::new(now),
            generation,
        }
    }

    pub(super) fn next_page(
        &mut self,
        storage: &impl ReadTenants,
        bounds: PageBounds,
        shares: Shares<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        let page = self.notice_news(storage).and_then(|()| self.page(storage, bounds, shares, wanted));
        self.unless_reload(storage, page)
    }

    pub(super) fn look_back(
        &mut self,
        storage: &impl ReadTenants,
        bounds: PageBounds,
        now: Instant,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        let by_watchdog = self.sweep.is_watchdog_due(now);
        let Some(look) = self.sweep.next(now, Look::default()) else { return Ok(NOTHING) };
        let began = Instant::now();
        let looked = self.look(storage, look, bounds, wanted);
        let looked = match self.unless_reload(storage, looked.map(Some))? {
            Some(looked) => looked,
            None => return Ok(RELOAD),
        };
        let (entries, look) = looked;
        let (is_end, took) = (look.is_none() && entries.is_empty(), began.elapsed());
        if let Looked::Through { .. } = self.sweep.looked(look, None, took, now + took) {
            self.forget_those_without_entries();
            // The next entry may get a lower position than all entries before.
            let end = storage.last_position()?.map_or(i64::MIN, |last| last.saturating_add(1));
            self.tail = self.tail.min(end);
            // The watch may have missed a change.
            self.has_news |= by_watchdog;
        }
        Ok(Page { entries, end: is_end, unnoticed: by_watchdog, reload: false })
    }

    pub(super) fn look_back_at(&self) -> Instant {
        self.sweep.wake_at()
    }

    pub(super) fn rewind(&mut self, position: i64) {
        for (name, place) in &mut self.tenants {
            place.next = place.next.min(position);
            if !std::mem::replace(&mut place.has_turn, true) {
                self.turns.push_back(name.clone());
            }
        }
    }

    pub(super) fn changed(&mut self, knows_nothing: bool) {
        self.has_news = true;
        if knows_nothing { self.forget_all() } else { self.sweep.ask() }
    }

    pub(super) fn must_reload(&mut self, generation: u64) -> bool {
        let is_another = std::mem::replace(&mut self.generation, generation) != generation;
        if is_another {
            self.forget_all();
        }
        is_another
    }

    /// The next entry may have any position, and be of any tenant.
    fn forget_all(&mut self) {
        self.tenants.clear();
        self.turns.clear();
        (self.tail, self.has_news, self.listing) = (i64::MIN, true, None);
    }

    /// What was read, unless the table may have been replaced: then these may not be the next entries, and an error may be
    /// due to that.
    fn unless_reload<T: Reload>(
        &mut self,
        storage: &impl ReadTenants,
        read: Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.must_reload(storage.generation()?) { Ok(T::RELOAD) } else { read }
    }

    // --- who has something to read -----------------------------------------------------------------------------

    fn notice_news(&mut self, storage: &impl ReadTenants) -> Result<(), StorageError> {
        if self.has_news {
            let news = storage.tenants_from(self.tail, TAIL_MAX)?;
            let is_all = news.len() < TAIL_MAX;
            let last = if is_all { news.last().map(|(last, _)| *last) } else { storage.last_position()? };
            news.iter().for_each(|(position, tenant)| self.notice(tenant, *position));
            if !is_all {
                self.listing = Some(match self.listing.take() {
                    Some(listing) => Listing { again: true, ..listing },
                    None => Listing::default(),
                });
            }
            self.tail = last.map_or(self.tail, |last| last.saturating_add(1));
            self.has_news = false;
        }
        self.list(storage)?;
        if self.listing.is_none()
            && let Some(begin) = self.begin.take()
        {
            self.turns.rotate_left((begin * self.turns.len() as f64) as usize % self.turns.len().max(1));
        }
        Ok(())
    }

    /// Lists some tenants, if they are to be listed.
    fn list(&mut self, storage: &impl ReadTenants) -> Result<(), StorageError> {
        for _ in 0..TENANTS_MAX {
            let Some(listing) = &mut self.listing else { break };
            match storage.tenant_after(listing.after.as_ref())? {
                Some(tenant) => {
                    listing.after = Some(tenant.clone());
                    self.notice(&tenant, i64::MAX);
                }
                None => self.listing = listing.again.then(Listing::default),
            }
        }
        Ok(())
    }

    /// Gives a tenant a turn: it may have entries, the first of them at `position`.
    fn notice(&mut self, tenant: &TenantName, position: i64) {
        let place = match self.tenants.get_mut(tenant) {
            Some(place) => place,
            None => self.tenants.entry(tenant.clone()).or_insert(Place { next: i64::MIN, has_turn: false, seen: true }),
        };
        place.next = place.next.min(position);
        if !std::mem::replace(&mut place.has_turn, true) {
            self.turns.push_back(tenant.clone());
        }
    }

    // --- turns -------------------------------------------------------------------------------------------------

    /// The page of the next tenant that has something to read, and room.
    fn page(
        &mut self,
        storage: &impl ReadTenants,
        bounds: PageBounds,
        shares: Shares<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        let waiting = self.turns.len();
        if self.begin.is_some() {
            // Who is first is not decided yet.
            return Ok(Page::default());
        }
        let each = (bounds.read_max / waiting.clamp(1, TURNS_A_PAGE)).max(1);
        for _ in 0..waiting.min(TENANTS_MAX) {
            let Some(tenant) = self.turns.pop_front() else { break };
            let Share { room, weight } = shares(TenantKey::of(&tenant));
            let read_max = each.saturating_mul(weight as usize).min(room).min(bounds.read_max);
            let slice = match read_max {
                0 => Ok(None),
                read_max => self.turn(storage, &tenant, PageBounds { read_max, ..bounds }, wanted).map(Some),
            };
            if self.tenants.get(&tenant).is_some_and(|place| place.has_turn) {
                self.turns.push_back(tenant);
            }
            self.passed += 1;
            if let Some(Slice { entries, last: Some(_), .. }) = slice? {
                self.passed = 0;
                return Ok(Page { entries, ..Page::default() });
            }
        }
        let has_asked_all = self.passed >= self.turns.len();
        if has_asked_all {
            self.passed = 0;
        }
        Ok(Page { end: has_asked_all && self.listing.is_none(), ..Page::default() })
    }

    /// Reads on in the entries of this tenant. It has no further turn if there are no more.
    fn turn(
        &mut self,
        storage: &impl ReadTenants,
        tenant: &TenantName,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, StorageError> {
        let Some(place) = self.tenants.get_mut(tenant) else { return Ok(Slice::default()) };
        let slice = storage.range_of(tenant, place.next..=i64::MAX, bounds, wanted)?;
        place.next = slice.last.map_or(place.next, |last| last.saturating_add(1));
        place.has_turn = !slice.end && slice.last != Some(i64::MAX);
        Ok(slice)
    }

    // --- the second look ---------------------------------------------------------------------------------------

    /// Looks behind the places of some tenants. Returns what it has found, and where to go on.
    fn look(
        &mut self,
        storage: &impl ReadTenants,
        mut look: Look,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<(Vec<RawEntry>, Option<Look>), StorageError> {
        if look.after.is_none() && look.within.is_none() {
            self.tenants.values_mut().for_each(|place| place.seen = false);
        }
        let bounds = PageBounds { looked_at_max: (bounds.looked_at_max / LOOKED_AT_SHARE).max(1), ..bounds };
        for _ in 0..LOOKED_BEHIND_MAX {
            let (tenant, from) = match look.within.take() {
                Some(within) => within,
                None => match storage.tenant_after(look.after.as_ref())? {
                    Some(tenant) => (tenant, i64::MIN),
                    None => return Ok((Vec::new(), None)),
                },
            };
            let slice = self.look_behind(storage, &tenant, from, bounds, wanted)?;
            let on = slice.last.and_then(|last| last.checked_add(1)).filter(|_| !slice.end);
            let is_through = on.is_none();
            match on {
                Some(on) => look.within = Some((tenant, on)),
                None => look.after = Some(tenant),
            }
            if !is_through || !slice.entries.is_empty() {
                return Ok((slice.entries, Some(look)));
            }
        }
        Ok((Vec::new(), Some(look)))
    }

    /// Looks behind a tenant's place; a tenant that has no turn may have entries ahead too.
    fn look_behind(
        &mut self,
        storage: &impl ReadTenants,
        tenant: &TenantName,
        from: i64,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, StorageError> {
        let nothing = Slice { end: true, ..Slice::default() };
        let Some(place) = self.tenants.get_mut(tenant) else {
            self.notice(tenant, i64::MIN);
            return Ok(nothing);
        };
        place.seen = true;
        let to = if place.has_turn { place.next.checked_sub(1) } else { Some(i64::MAX) };
        match to {
            Some(to) if from <= to => storage.range_of(tenant, from..=to, bounds, wanted),
            _ => Ok(nothing),
        }
    }

    fn forget_those_without_entries(&mut self) {
        self.tenants.retain(|_, place| place.seen || place.has_turn);
    }
}

const NOTHING: Page = Page { entries: Vec::new(), end: true, reload: false, unnoticed: false };

/// What is returned in place of what was read, if that may have been replaced.
trait Reload {
    const RELOAD: Self;
}

impl Reload for Page {
    const RELOAD: Self = RELOAD;
}

impl<T> Reload for Option<T> {
    const RELOAD: Self = None;
}
