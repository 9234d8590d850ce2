//! The reader of a drain: entries in the order of their positions, with those that were committed late.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use outbox_engine::outbox::{PageBounds, ReadRanges, Slice, StorageError, Wanted};
use outbox_engine::{EntryId, RawEntry};
use parking_lot::Mutex;
use uuid::Uuid;

use super::error::Fault;
use super::gaps::{Gaps, Holders, Range};
use super::link::Link;
use super::page::{self, Found, Next, Reach};
use super::{error, schema, value};

/// The most entries that one statement reads.
const ROWS_MAX: usize = 2_000;
/// Entries lie densely if as many positions have one entry at least, on average.
const DENSE: i64 = 8;
/// Where entries lie far apart, one statement reads this many times as many as are asked for, divided among the shares.
const SPARSE: usize = 2;
/// How often gaps are looked at again at once, before all of them are.
const LOOKS_MAX: usize = 3;
/// The most ranges of gaps that one statement reads; beyond, neighbours are read together.
const RANGES_MAX: usize = 32;
/// The pause between two looks at gaps: the first after there was a new one, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(40));
/// The most entries whose shares are remembered. Others are looked for in all shares.
const KNOWN_MAX: usize = 1_000_000;

const LAST_GIVEN: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_position_seq";
/// Who may commit an insert into the table. `$1` is the relay's own settling connection, which only deletes.
const HOLDERS: &str = "
    SELECT virtualtransaction, pid IS NULL FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = 'outbox'::regclass
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid IS DISTINCT FROM $1";

/// Where entries are that were read and not settled yet.
#[derive(Default)]
pub(super) struct Known(HashMap<i64, (i16, Uuid)>);

impl Known {
    /// Share and uuid of this entry.
    pub(super) fn get(&self, entry: EntryId) -> Option<(i16, Uuid)> {
        let (share, uuid) = self.0.get(&entry.position)?;
        (EntryId::of(entry.position, &value::uuid(Some(*uuid))) == entry).then_some((*share, *uuid))
    }

    fn share(&self, position: i64) -> Option<i16> {
        self.0.get(&position).map(|(share, _)| *share)
    }

    pub(super) fn forget(&mut self, position: i64) {
        self.0.remove(&position);
    }

    fn note(&mut self, found: &Found) {
        if self.0.len() >= KNOWN_MAX {
            self.0.clear();
        }
        self.0.insert(found.position, (found.share, found.uuid));
    }
}

/// Reads the entries of all shares.
pub(super) struct Reader<'a> {
    link: &'a Mutex<Link>,
    known: &'a Mutex<Known>,
    settling_pid: &'a AtomicI32,
    patience: Duration,
    state: Mutex<State>,
}

struct State {
    gaps: Gaps,
    look_at: Option<Instant>,
    pause: Duration,
    is_sparse: bool,
    /// The last position that was given when it was last asked for.
    last_given: i64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        link: &'a Mutex<Link>,
        known: &'a Mutex<Known>,
        settling_pid: &'a AtomicI32,
        patience: Duration,
    ) -> Self {
        let gaps = Gaps::new();
        let state = State { gaps, look_at: None, pause: PAUSE.0, is_sparse: false, last_given: 0 };
        Self { link, known, settling_pid, patience, state: Mutex::new(state) }
    }

    /// When to look at gaps again. None if there are none.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.state.lock().look_at
    }

    /// Begins anew: whatever was known before does not count any more.
    pub(super) fn restart(&self) {
        let mut state = self.state.lock();
        (state.gaps, state.look_at, state.pause) = (Gaps::new(), None, PAUSE.0);
    }

    /// What was committed late, in positions that were passed.
    pub(super) fn late(&self, now: Instant, wanted: Wanted<'_>) -> Result<Vec<RawEntry>, StorageError> {
        let mut link = self.link.lock();
        let mut late = || -> Result<Vec<RawEntry>, Fault> {
            let mut state = self.state.lock();
            let found = self.look_at_gaps(&mut state, &mut link, None)?;
            state.pause = (state.pause * 2).min(PAUSE.1);
            state.look_at = (!state.gaps.is_empty()).then(|| now + state.pause);
            drop(state);
            let everything = PageBounds { read_max: usize::MAX, bytes_max: usize::MAX, looked_at_max: usize::MAX };
            Ok(self.take(&mut link, found, everything, wanted)?.entries)
        };
        let late = late();
        late.map_err(error::error("look for entries that were committed late", self.patience))
    }

    /// The entries at these positions; a short result once these bytes are read.
    pub(super) fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, Fault> {
        let mut link = self.link.lock();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for some in positions.chunks(ROWS_MAX / 4) {
            let mut found: HashMap<i64, Found> = HashMap::new();
            let places = self.places(&mut link, some)?;
            for it in page::at_places(&mut link, &places)? {
                found.insert(it.position, it);
            }
            for position in some {
                if bytes >= bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                let entry = match found.get(position) {
                    None => None,
                    Some(it) => {
                        let (id, stream) = it.identity(&mut link)?;
                        self.known.lock().note(it);
                        it.entry(&mut link, id, stream)?
                    }
                };
                bytes += entry.as_ref().map_or(0, RawEntry::bytes);
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn places(&self, link: &mut Link, positions: &[i64]) -> Result<Vec<(i16, i64)>, Fault> {
        let (mut places, mut elsewhere) = (Vec::new(), Vec::new());
        let known = self.known.lock();
        for position in positions {
            match known.share(*position) {
                Some(share) => places.push((share, *position)),
                None => elsewhere.push(*position),
            }
        }
        drop(known);
        if !elsewhere.is_empty() {
            places.extend(page::find(link, &elsewhere)?.into_iter().map(|(share, position, _)| (share, position)));
        }
        Ok(places)
    }

    /// Reads on from `first`, and what was committed late below.
    fn read_on(&self, link: &mut Link, first: i64, bounds: PageBounds) -> Result<(Vec<Found>, bool), Fault> {
        let mut state = self.state.lock();
        if state.gaps.is_empty() && state.last_given < first {
            // What was decided before this page needs no second look.
            let holders = self.holders(&mut state, link)?;
            let last_given = state.last_given;
            state.gaps.held_by(last_given, &holders);
        }
        let most = bounds.looked_at_max.min(bounds.read_max);
        let (mut found, mut next, mut is_end) = (Vec::new(), first, false);
        while found.len() < most {
            let more = self.read(&mut state, link, next, i64::MAX, most.saturating_sub(found.len()))?;
            is_end = more.end;
            let Some(last) = more.found.last().map(|it| it.position) else { break };
            state.gaps.passed(next, last, more.found.iter().map(|it| it.position));
            found.extend(more.found);
            next = last.saturating_add(1);
            if is_end {
                break;
            }
        }
        let late = self.look_at_gaps(&mut state, link, is_end.then_some(next))?;
        if !late.is_empty() {
            // Where the reader has gone back, a position that is a gap may have been read a second time.
            found.extend(late);
            found.sort_by_key(|it| (it.position, it.share));
            found.dedup_by_key(|it| (it.position, it.share));
        }
        if !state.gaps.is_empty() {
            state.pause = PAUSE.0;
            let soon = Instant::now() + state.pause;
            state.look_at = Some(state.look_at.map_or(soon, |at| at.min(soon)));
        }
        Ok((found, is_end))
    }

    /// One statement's worth of entries, as dense as they were before.
    fn read(&self, state: &mut State, link: &mut Link, first: i64, last: i64, most: usize) -> Result<Next, Fault> {
        let most = most.clamp(1, ROWS_MAX);
        let rows = i64::try_from(most).unwrap_or(i64::MAX);
        let reach = match state.is_sparse {
            false => Reach { span: rows.saturating_sub(1), of_share: most },
            true => Reach { span: i64::MAX, of_share: (most * SPARSE).div_ceil(page::SHARES.len()).max(2) },
        };
        if last < 0 {
            // The sequence starts at 1.
            return Ok(Next { end: true, ..Next::default() });
        }
        let mut next = page::next(link, first, last, reach)?;
        next.end &= next.found.len() <= most;
        next.found.truncate(most);
        if let (Some(first), Some(last)) = (next.found.first(), next.found.last()) {
            let count = i64::try_from(next.found.len()).unwrap_or(i64::MAX);
            let span = if state.is_sparse { last.position.saturating_sub(first.position) } else { rows };
            state.is_sparse = rows >= DENSE && span > count.saturating_mul(DENSE);
        }
        Ok(next)
    }

    /// Looks at the gaps that somebody may have filled, until nobody could have meanwhile: whatever was committed before
    /// what is in hand already is then in hand too. `end` is where the reader found no more entries.
    fn look_at_gaps(&self, state: &mut State, link: &mut Link, end: Option<i64>) -> Result<Vec<Found>, Fault> {
        let mut found = Vec::new();
        if state.gaps.is_empty() && end.is_none() {
            return Ok(found);
        }
        let mut tail = end;
        for look in 1.. {
            let holders = self.holders(state, link)?;
            if let Some(first) = tail {
                // Positions that were given, and that the reader has not seen.
                state.gaps.passed(first, state.last_given, []);
                tail = Some(first.max(state.last_given.saturating_add(1)));
            }
            state.gaps.held_by(state.last_given, &holders);
            let ranges = state.gaps.to_look_at(&holders);
            if ranges.is_empty() {
                break;
            }
            let ranges = if look < LOOKS_MAX { ranges } else { state.gaps.all() };
            let there = self.read_ranges(link, &ranges)?;
            let positions: HashSet<i64> = there.iter().map(|it| it.position).collect();
            state.gaps.looked_at(&ranges, &holders, &positions);
            found.extend(there);
            if look >= LOOKS_MAX {
                break;
            }
        }
        found.sort_by_key(|it: &Found| (it.position, it.share));
        found.dedup_by_key(|it| (it.position, it.share));
        Ok(found)
    }

    /// The entries of these ranges, and no others.
    fn read_ranges(&self, link: &mut Link, ranges: &[Range]) -> Result<Vec<Found>, Fault> {
        let at_once = ranges.len().div_ceil(RANGES_MAX).max(1);
        let together: Vec<Range> =
            ranges.chunks(at_once).filter_map(|some| Some((some.first()?.0, some.last()?.1))).collect();
        let mut found = page::of_ranges(link, &together, i64::MAX)?;
        let is_in = |position: i64| {
            let behind = ranges.partition_point(|range| range.0 <= position);
            behind.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|range| position <= range.1)
        };
        found.retain(|it| is_in(it.position));
        Ok(found)
    }

    /// Who holds a lock now, and the last position that was given before.
    fn holders(&self, state: &mut State, link: &mut Link) -> Result<Holders, Fault> {
        let given = link.first(LAST_GIVEN, &[])?;
        state.last_given = given.map_or(Ok(0), |row| row.try_get(0))?;
        let mut holders = Holders::default();
        for row in link.query(HOLDERS, &[&self.settling_pid.load(Ordering::Relaxed)])? {
            let set = if row.try_get(1)? { &mut holders.prepared } else { &mut holders.running };
            set.insert(row.try_get(0)?);
        }
        Ok(holders)
    }

    /// Takes out what is wanted, within bounds.
    fn take(&self, link: &mut Link, found: Vec<Found>, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Slice, Fault> {
        let (mut slice, mut looked_at, mut bytes) = (Slice::default(), 0_usize, 0_usize);
        for it in found {
            if slice.entries.len() >= bounds.read_max || bytes >= bounds.bytes_max || looked_at >= bounds.looked_at_max
            {
                return Ok(slice);
            }
            looked_at += 1;
            slice.last = Some(it.position);
            let (id, stream) = it.identity(link)?;
            if wanted(id, stream) {
                self.known.lock().note(&it);
                if let Some(entry) = it.entry(link, id, stream)? {
                    bytes += entry.bytes();
                    slice.entries.push(entry);
                }
            }
        }
        slice.end = true;
        Ok(slice)
    }

    fn slice(
        &self,
        link: &mut Link,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Slice, Fault> {
        let (first, last) = range.into_inner();
        if last < i64::MAX {
            // A look through what was passed: without a look at gaps.
            let most = bounds.looked_at_max.min(ROWS_MAX);
            let Next { found, end } = self.read(&mut self.state.lock(), link, first, last, most)?;
            let slice = self.take(link, found, bounds, wanted)?;
            return Ok(Slice { end: end && slice.end, ..slice });
        }
        let (found, is_end) = self.read_on(link, first, bounds)?;
        let slice = self.take(link, found, bounds, wanted)?;
        let end = is_end && slice.end;
        // What was late lies below: the reader need not go back.
        let last = slice.last.map(|last| if slice.end { last.max(first.saturating_sub(1)) } else { last });
        Ok(Slice { end, last, ..slice })
    }
}

impl ReadRanges for Reader<'_> {
    fn range(&self, range: RangeInclusive<i64>, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Slice, StorageError> {
        if range.is_empty() {
            return Ok(Slice { end: true, ..Slice::default() });
        }
        let mut link = self.link.lock();
        let slice = self.slice(&mut link, range, bounds, wanted);
        slice.map_err(error::error("read the outbox", self.patience))
    }

    fn generation(&self) -> Result<u64, StorageError> {
        schema::state(&mut self.link.lock()).map_err(error::error("read the outbox's generation", self.patience))
    }
}
