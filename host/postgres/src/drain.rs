//! Draining an outbox in PostgreSQL: one relay has all shares, and others stand by.

use std::time::Instant;

use jiff::Timestamp;
use outbox_engine::RawEntry;
use outbox_engine::outbox::{
    BroughtBack, Cursor, Drain, Held, Marks, Page, PageBounds, RelayState, Settled, StorageError, Wanted,
};
use outbox_engine::text::shown;
use parking_lot::Mutex;

use super::lease::Lease;
use super::link::Link;
use super::reader::{Known, Reader};
use super::settle::{SETTLE, Settlement};
use super::{PostgresOutbox, delayed, held, schema};

/// The most entries that one transaction settles.
const SETTLE_MAX: usize = 10_000;
/// Looking through everything that was passed takes one part in so many of all time: where a transaction holds back vacuum,
/// what was settled is still in the way. What is committed late is found without it.
const LOOK_SHARE: u32 = 50;

/// A commit that waits for the disk makes durable what was committed before it. The message goes into the log alone.
const FLUSH: &str = "
    BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'outbox', ''); COMMIT";
const SHOW: &str = "UPDATE outbox_relay SET state = $2 WHERE id = $1";

/// The right to drain an outbox, which the relay's row in the database gives.
pub(super) struct PostgresDrain<'a> {
    outbox: &'a PostgresOutbox,
    lease: Lease<'a>,
    known: &'a Mutex<Known>,
    reader: Reader<'a>,
    cursor: Mutex<Cursor>,
}

impl<'a> PostgresDrain<'a> {
    pub(super) fn take(outbox: &'a PostgresOutbox) -> Result<Self, StorageError> {
        let lease = Lease::take(outbox)?;
        let failed = outbox.error("read the outbox");
        // This makes the connections, if there are none.
        outbox.settling.lock().query("SELECT 1", &[]).map_err(failed)?;
        let state = schema::state(&mut outbox.reading.lock()).map_err(failed)?;
        let reader = Reader::new(&outbox.reading, &outbox.known, &outbox.settling_pid, outbox.options.patience);
        outbox.note_settling_pid();
        let cursor = Mutex::new(Cursor::new(state, Instant::now()).with_look_share(LOOK_SHARE));
        Ok(Self { outbox, lease, known: &outbox.known, reader, cursor })
    }

    /// After an operator's act, or over another connection, nothing that the reader knew counts any more.
    fn restarted(&self, page: Page) -> Page {
        if page.reload {
            self.reader.restart();
        }
        page
    }
}

impl Drain for PostgresDrain<'_> {
    fn next_page(&self, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        self.cursor.lock().next_page(&self.reader, bounds, wanted).map(|page| self.restarted(page))
    }

    fn look_back(&self, bounds: PageBounds, now: Instant, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        let mut cursor = self.cursor.lock();
        if self.reader.look_at().is_some_and(|at| now >= at) {
            let entries = self.reader.late(now, wanted)?;
            if !entries.is_empty() {
                return Ok(Page { entries, ..Page::default() });
            }
        }
        cursor.look_back(&self.reader, bounds, now, wanted).map(|page| self.restarted(page))
    }

    fn look_back_at(&self) -> Option<Instant> {
        let at = self.cursor.lock().look_back_at();
        Some(self.reader.look_at().map_or(at, |gaps| gaps.min(at)))
    }

    fn rewind(&self, position: i64) {
        self.cursor.lock().rewind(position);
    }

    fn changed(&self, knows_nothing: bool) {
        self.cursor.lock().changed(knows_nothing);
    }

    fn must_reload(&self) -> Result<bool, StorageError> {
        let mut cursor = self.cursor.lock();
        let state = schema::state(&mut self.outbox.reading.lock());
        let reload = cursor.must_reload(state.map_err(self.outbox.error("read the outbox's generation"))?);
        if reload {
            self.reader.restart();
        }
        Ok(reload)
    }

    fn entries_at(&self, positions: &[i64], bytes_max: usize) -> Result<Vec<Option<RawEntry>>, StorageError> {
        self.reader.entries_at(positions, bytes_max).map_err(self.outbox.error("read entries"))
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        held::held(&mut self.outbox.reading.lock()).map_err(self.outbox.error("read what waits in the outbox"))
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        let mut link: parking_lot::MutexGuard<'_, Link> = self.outbox.settling.lock();
        let settlement = Settlement { relay: self.lease.relay(), known: self.known };
        let found = settlement.settle(&mut link, settled).map_err(self.outbox.error(SETTLE));
        drop(link);
        self.outbox.note_settling_pid();
        found
    }

    fn next_put_off(&self) -> Result<Option<Timestamp>, StorageError> {
        delayed::next(&mut self.outbox.reading.lock()).map_err(self.outbox.error("read what is put off"))
    }

    fn bring_back(&self, due_by: Timestamp, until: Timestamp, max: usize) -> Result<BroughtBack, StorageError> {
        let settlement = Settlement { relay: self.lease.relay(), known: self.known };
        let back = settlement.bring_back(&mut self.outbox.settling.lock(), due_by, until, max);
        back.map_err(self.outbox.error("bring back entries that are due"))
    }

    fn settle_max(&self) -> usize {
        SETTLE_MAX
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut link = self.outbox.syncing.lock();
        link.script(FLUSH).map_err(self.outbox.error("make durable what was settled"))
    }

    fn mark(&self, slot: usize, positions: &[i64]) {
        if let Some(Err(error)) = self.outbox.marks.as_ref().map(|marks| marks.mark(slot, positions)) {
            tracing::warn!("cannot note which calls are under way: {}", shown(error));
        }
    }

    fn interrupted(&self) -> Vec<i64> {
        self.outbox.marks.as_ref().map(Marks::interrupted).unwrap_or_default()
    }

    fn clear(&self) {
        if let Some(Err(error)) = self.outbox.marks.as_ref().map(Marks::clear) {
            tracing::warn!("cannot forget which calls were under way: {}", shown(error));
        }
    }

    fn show(&self, state: &RelayState) {
        let text = serde_json::to_string(state).unwrap_or_default().replace("\\u0000", "\u{fffd}");
        if let Err(fault) = self.outbox.acting().execute(SHOW, &[&self.lease.relay(), &text]) {
            tracing::debug!("cannot show the relay's state: {}", shown(fault.text()));
        }
    }

    fn check(&self) -> Result<(), StorageError> {
        self.lease.check()
    }
}
