//! What only one relay at a time may do: drain a share of the streams.

use std::time::Instant;

use jiff::Timestamp;

use super::{Held, RelayState, Settled, StorageError};
use crate::raw::{EntryId, RawEntry};
use crate::stream::{StreamKey, TenantKey};

/// The right to drain a share of the streams of an outbox: to read its entries, and to settle them.
///
/// A stream lies wholly in a share, so only one relay publishes it at a time. A storage that serves one relay has one
/// share, with all streams. The share may grow or shrink while the relay works: see [`must_reload`](Self::must_reload).
/// The right ends when this is dropped, and with the process, however the process ends.
///
/// The storage remembers how far it was read. Nobody above it assumes that entries appear in the order of their
/// positions: [`look_back`](Self::look_back) finds those that have appeared behind that place.
///
/// Two threads call reading and settling at the same time. No method waits for a publisher, and no transaction stays
/// open between two calls.
///
/// ```
/// use outbox_engine::outbox::{PageBounds, Settled};
/// use outbox_engine::{JsonSerde, MemoryOutbox, NewEvent, Outbox, OutboxStorageStrategy, StreamId};
///
/// let outbox = Outbox::new(MemoryOutbox::default(), JsonSerde);
/// outbox.append(&[NewEvent::json(StreamId::new("order-42"), "order.placed", "{}")])?;
///
/// let drain = outbox.strategy().drain()?;
/// let page = drain.next_page(PageBounds::default(), &mut |_entry, _stream| true)?;
/// let delivered = |entry: &outbox_engine::RawEntry| Settled::Delivered { entry: entry.id(), tried_before: false };
/// let settled: Vec<Settled> = page.entries.iter().map(delivered).collect();
/// assert_eq!(drain.settle(&settled)?, 1);
/// drain.sync()?;
/// assert_eq!(outbox.strategy().status()?.pending, 0);
/// # Ok::<(), outbox_engine::StorageError>(())
/// ```
pub trait Drain: Send + Sync {
    // --- reading -----------------------------------------------------------------------------------------------

    /// Reads on, from where the last page ended. `wanted` decides for each entry whether to read it.
    ///
    /// The entries are in the order of their positions. Within a stream a relay relies on it; with
    /// [`Ordering::Total`](crate::Ordering::Total), over all streams, and then it needs all of them: a share that is only a part
    /// of the outbox has a total order of its own.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the same entries come with the next call then.
    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError>;

    /// From now on, pages come in turns: each has entries of one tenant, and then the next tenant has its turn, so that nobody
    /// waits until all of another tenant is read. `begin` is a random number from 0 to 1, and says whose turn is first. Call it
    /// again after a [reload](Self::must_reload).
    ///
    /// Returns false if this outbox cannot be read so: then pages come as before.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn take_turns(&self, _begin: f64) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// As [`next_page`](Self::next_page), in [turns](Self::take_turns). A tenant that has no room keeps its place, and its turn
    /// passes. Entries of one tenant are in the order of their positions; a stream belongs to one tenant.
    ///
    /// # Errors
    ///
    /// As [`next_page`](Self::next_page).
    fn next_page_in_turns(
        &self,
        bounds: PageBounds,
        _shares: Shares<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        self.next_page(bounds, wanted)
    }

    /// Looks for entries that have appeared behind the place to which was read, if it is time for that: after a change,
    /// and from time to time without one. An empty page if it is not.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn look_back(&self, bounds: PageBounds, now: Instant, wanted: Wanted<'_>) -> Result<Page, StorageError>;

    /// When to call [`look_back`](Self::look_back) next. None if there is nothing to look for.
    fn look_back_at(&self) -> Option<Instant>;

    /// Goes back to this position: an entry there that was not wanted may be wanted now.
    fn rewind(&self, position: i64);

    /// Takes in that somebody may have committed something. `knows_nothing` says that the caller has no entry in hand
    /// and none that waits, so that it may read everything again.
    fn changed(&self, knows_nothing: bool);

    /// Whether, since the last call, an operator has acted, the outbox was restored or its table rebuilt, or the share
    /// has changed. Then [`held`](Self::held) is to be read again, and pages begin at the start again.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn must_reload(&self) -> Result<bool, StorageError>;

    /// Reads the entries at these positions, in this order: None for a position without one. Once `bytes_max` bytes are
    /// read it stops, so that the result may be shorter than `positions`; it has at least one.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError>;

    /// What is held back: entries that wait for a retry, and streams that are parked behind a dead letter.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn held(&self) -> Result<Vec<Held>, StorageError>;

    // --- settling ----------------------------------------------------------------------------------------------

    /// Settles entries in one transaction, all or none. Others see the result when this returns; it is durable after
    /// the next [`sync`](Self::sync). Entries that are no longer there are skipped, also if another entry has their
    /// position now.
    ///
    /// Within the transaction, the storage proves that this relay still has the share: nobody else can have got it
    /// before the transaction ends.
    ///
    /// Returns how many entries were there.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is changed then, and the entries may be settled again. If the error [does not pass by
    /// itself](StorageError::is_passing), a single entry may be its cause: the others can be settled without it.
    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError>;

    /// When the first of the entries is due that were [put off](Settled::PutOff). None if there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError>;

    /// Brings back entries that were put off and are due by `until`, at most `max`, in the order of their times: each is in
    /// the outbox then, at its old position, or behind all others if another entry has that. It is `due_by` now; an entry
    /// whose `publish_after` the outbox cannot keep stays until it is due.
    ///
    /// An entry that the outbox refuses is tried again later, and keeps no other from coming back. As with
    /// [`settle`](Self::settle), the storage proves within the transaction that this relay still has the share.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is changed then.
    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError>;

    /// How many entries to settle with one call. It is less while another program writes, so that this program does not
    /// wait long for the write lock.
    fn settle_max(&self) -> usize;

    /// Makes durable whatever was settled so far.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; it is then unknown whether it is durable.
    fn sync(&self) -> Result<(), StorageError>;

    // --- the relay itself --------------------------------------------------------------------------------------

    /// Notes that the call of this slot is for these entries; no entries when the call has ended. The next holder of
    /// the share learns from it in which calls the host died. This record has to outlive the process, but not the
    /// machine.
    fn mark(&self, slot: usize, positions: &[i64]);

    /// The entries whose calls were under way when the last holder died.
    fn interrupted(&self) -> Vec<i64>;

    /// Forgets what was under way.
    fn clear(&self);

    /// Publishes what the relay is doing, for the status.
    fn show(&self, state: &RelayState);

    /// Checks that the outbox is still in its place, and the share still this relay's.
    ///
    /// # Errors
    ///
    /// [`StorageError::Replaced`] if it is not.
    fn check(&self) -> Result<(), StorageError>;
}

/// The entries that were brought back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BroughtBack {
    /// Which they are now, their streams, and when they are due.
    pub entries: Vec<(StreamKey, EntryId, Timestamp)>,
    /// The positions of those that the outbox refuses, and why.
    pub refused: Vec<(i64, String)>,
    /// When the first of those is due that are still put off.
    pub next: Option<Timestamp>,
}

/// Decides whether to read an entry of a stream.
pub type Wanted<'a> = &'a mut dyn FnMut(EntryId, StreamKey) -> bool;

/// Tells a tenant's share.
pub type Shares<'a> = &'a mut dyn FnMut(TenantKey) -> Share;

/// What a tenant may have read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many more of its entries.
    pub room: usize,
    /// How much it gets at its turn, compared with others.
    pub weight: u32,
}

impl Share {
    /// All that it has.
    pub const ALL: Self = Self { room: usize::MAX, weight: 1 };
}

/// How much one call of [`Drain::next_page`] may do, so that no read transaction lasts long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    /// The most entries that are read.
    pub read_max: usize,
    /// The most bytes that are read, in all columns; the last entry may exceed it.
    pub bytes_max: usize,
    /// The most entries that are looked at.
    pub looked_at_max: usize,
}

/// 1,000 entries, 16 MiB.
impl Default for PageBounds {
    fn default() -> Self {
        Self { read_max: 1_000, bytes_max: 16 * 1024 * 1024, looked_at_max: 1_000 }
    }
}

/// Entries that were read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The wanted ones.
    pub entries: Vec<RawEntry>,
    /// Whether there was nothing to look at. While this is false, there may be more.
    pub end: bool,
    /// Whether [`Drain::must_reload`] would have said so: the page is empty then.
    pub reload: bool,
    /// Whether these entries were there although nobody had reported a change.
    pub unnoticed: bool,
}

/// The entries at these positions, for a storage that reads them one by one: see [`Drain::entries_at`].
///
/// # Errors
///
/// The first that `entry` returns.
pub fn entries_one_by_one(
    positions: &[i64],
    bytes_max: usize,
    mut entry: impl FnMut(i64) -> Result<Option<RawEntry>, StorageError>,
) -> Result<Vec<Option<RawEntry>>, StorageError> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for position in positions {
        if bytes >= bytes_max && !entries.is_empty() {
            break;
        }
        let found = entry(*position)?;
        bytes += found.as_ref().map_or(0, RawEntry::bytes);
        entries.push(found);
    }
    Ok(entries)
}
