//! An outbox in memory: for tests, and for applications whose events need not outlive the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use uuid::Uuid;

use super::operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, End, Operator, Pruned, Retention, Selection, ambiguous,
};
use super::{
    BlockedStream, Deployments, Failed, Fate, Held, Hold, Lease, OutboxStorageStrategy, Page, PageBounds, RelayState,
    Settled, Status, StorageError, StreamState, Wanted, Watch,
};
use crate::attempt::{Attempt, Outcome};
use crate::new_event::NewEvent;
use crate::raw::{EntryId, RawEntry};
use crate::row::{Column, Field, Row};
use crate::serde::{StoredData, StoredValue};
use crate::settlement::History;
use crate::stream::StreamKey;

mod deployments;

use super::blocked::{first_of_each, shown_time};

/// An outbox in memory. Its clones are the same outbox.
#[derive(Clone, Default)]
pub struct MemoryOutbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Default)]
struct Kept {
    entries: BTreeMap<i64, RawEntry>,
    last_position: i64,
    waiting: BTreeMap<EntryId, Waiting>,
    attempts: BTreeMap<EntryId, Vec<AttemptRecord>>,
    dead: BTreeMap<EntryId, Dead>,
    audit: Vec<AuditRecord>,
    generation: u64,
    /// Every change raises it.
    version: u64,
    leased: bool,
    calls: HashMap<usize, Vec<i64>>,
    state: Option<RelayState>,
    registered: deployments::Registered,
}

struct Waiting {
    failed_at: Timestamp,
    retry_at: Timestamp,
    history: History,
    reason: String,
    delivered_to: Vec<String>,
    /// The entry was delivered, and is not to be published again.
    undeletable: bool,
}

struct Dead {
    entry: RawEntry,
    history: History,
    outcome: &'static str,
    reason: String,
    died_at: Timestamp,
    parks_stream: bool,
    delivered_to: Vec<String>,
}

impl MemoryOutbox {
    /// Appends a row as a foreign program might: with anything in it. Its position is given here.
    pub fn append_raw(&self, row: &Row<'_>) -> i64 {
        self.change(|kept| kept.append(row))
    }

    /// Puts a row at any position, as a foreign program might. It replaces an entry that has this position.
    pub fn put_raw(&self, position: i64, row: &Row<'_>) {
        self.change(|kept| kept.entries.insert(position, RawEntry::new(position, row)));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        let mut kept = self.kept();
        let result = change(&mut kept);
        kept.version += 1;
        self.0.changed.notify_all();
        result
    }
}

impl OutboxStorageStrategy for MemoryOutbox {
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| events.iter().map(|(event, data)| kept.append(&row(event, data))).collect()))
    }

    fn lease(&self) -> Result<Box<dyn Lease>, StorageError> {
        let mut kept = self.kept();
        if std::mem::replace(&mut kept.leased, true) {
            return Err(StorageError::Leased { by: "another relay".into() });
        }
        Ok(Box::new(MemoryLease(self.clone())))
    }

    fn entries(
        &self,
        range: RangeInclusive<i64>,
        bounds: PageBounds,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        let kept = self.kept();
        if range.is_empty() {
            return Ok(Page { end: true, ..Page::default() });
        }
        let mut rest = kept.entries.range(range).take(bounds.looked_at_max);
        let mut page = Page::default();
        let (mut looked_at, mut bytes) = (0, 0);
        while page.entries.len() < bounds.read_max && bytes < bounds.bytes_max {
            let Some((position, entry)) = rest.next() else {
                page.end = looked_at < bounds.looked_at_max;
                break;
            };
            looked_at += 1;
            page.last = Some(*position);
            if wanted(entry.id(), entry.stream_key()) {
                bytes += entry.bytes();
                page.entries.push(entry.clone());
            }
        }
        Ok(page)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        let kept = self.kept();
        let waiting = kept.waiting.iter().filter_map(|(id, waiting)| {
            let Waiting { failed_at, retry_at, history, undeletable, .. } = *waiting;
            let hold = if undeletable { Hold::Delivered } else { Hold::Waiting { failed_at, retry_at, history } };
            let delivered_to = waiting.delivered_to.clone();
            kept.entry(*id).map(|entry| Held { stream: entry.stream_key(), entry: *id, hold, delivered_to })
        });
        let parked = kept.dead.iter().filter(|(_, dead)| dead.parks_stream);
        // A dead letter whose stream cannot be determined parks none.
        let parked = parked.filter_map(|(id, dead)| {
            let row = dead.entry.row();
            let stream = StreamKey::told(&row.tenant_id, &row.stream_id)?;
            Some(Held { stream, entry: *id, hold: Hold::Parked, delivered_to: Vec::new() })
        });
        Ok(waiting.chain(parked).collect())
    }

    fn settle_max(&self) -> usize {
        usize::MAX
    }

    fn settle(&self, settled: &[Settled]) -> Result<usize, StorageError> {
        Ok(self.change(|kept| settled.iter().filter(|settled| kept.settle(settled)).count()))
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn status(&self) -> Result<Status, StorageError> {
        let (first, blocked_streams_total) = first_of_each(&self.held()?);
        let kept = self.kept();
        let oldest = kept.entries.values().next();
        let undeletable: Vec<&Waiting> = kept.waiting.values().filter(|waiting| waiting.undeletable).collect();
        Ok(Status {
            pending: kept.entries.len().saturating_sub(undeletable.len()) as u64,
            oldest_created_at: oldest.and_then(|entry| shown_time(&entry.row().created_at)),
            waiting: kept.waiting.values().filter(|waiting| !waiting.undeletable).count() as u64,
            undeletable: undeletable.len() as u64,
            undeletable_reason: undeletable.first().map(|waiting| waiting.reason.clone()),
            dead_letters: kept.dead.len() as u64,
            last_position: kept.last_position,
            blocked_streams_total,
            blocked_streams: first.into_iter().filter_map(|(position, state)| kept.blocked(position, state)).collect(),
            relay: kept.state.clone().filter(|_| kept.leased),
            relay_unknown: None,
        })
    }

    fn generation(&self) -> Result<u64, StorageError> {
        Ok(self.kept().generation)
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        let seen = self.kept().version;
        Ok(Box::new(MemoryWatch { outbox: self.clone(), seen }))
    }

    fn operator(&self) -> &dyn Operator {
        self
    }

    fn deployments(&self) -> &dyn Deployments {
        self
    }
}

impl Kept {
    fn append(&mut self, row: &Row<'_>) -> i64 {
        self.last_position += 1;
        self.entries.insert(self.last_position, RawEntry::new(self.last_position, row));
        self.last_position
    }

    /// The entry, if it is there. Another entry may have its position now.
    fn entry(&self, id: EntryId) -> Option<&RawEntry> {
        self.entries.get(&id.position).filter(|entry| entry.id() == id)
    }

    /// Settles one entry, and returns whether it was there.
    fn settle(&mut self, settled: &Settled) -> bool {
        let id = settled.entry();
        let is_there = self.entry(id).is_some();
        match settled {
            Settled::Vanished { .. } => {
                self.forget(id);
                return true;
            }
            Settled::Delivered { .. } => {
                self.forget(id);
                if is_there {
                    self.entries.remove(&id.position);
                }
            }
            Settled::Failed(failed) if is_there => self.fail(failed),
            Settled::Undeletable { at, reason, .. } if is_there => {
                let (history, reason, delivered_to) = (History::default(), reason.clone(), Vec::new());
                let waiting =
                    Waiting { failed_at: *at, retry_at: *at, history, reason, delivered_to, undeletable: true };
                self.waiting.insert(id, waiting);
            }
            Settled::Failed(_) | Settled::Undeletable { .. } => {}
        }
        is_there
    }

    fn forget(&mut self, id: EntryId) {
        self.waiting.remove(&id);
        self.attempts.remove(&id);
    }

    fn fail(&mut self, failed: &Failed) {
        let Failed { entry: id, at, attempt, others, delivered_to, history, fate } = failed;
        let (outcome, reason) = (attempt.outcome.name(), attempt.outcome.reason().to_owned());
        // An attempt that does not count may be reported again and again.
        let counted = |attempt: &&Attempt| !matches!(attempt.outcome, Outcome::Unavailable { .. });
        let uuid = self.entry(*id).and_then(|entry| entry.row().shown(Column::Uuid)).unwrap_or_default();
        let records = std::iter::once(attempt).chain(others).filter(counted).map(|attempt| AttemptRecord {
            uuid: uuid.clone(),
            attempt: history.attempts,
            at: *at,
            outcome: attempt.outcome.name().into(),
            reason: attempt.outcome.reason().into(),
            digest: attempt.digest.as_deref().map(Into::into),
            stderr: attempt.stderr.clone(),
            given_back: false,
            publisher: attempt.publisher.as_deref().map(Into::into),
        });
        self.attempts.entry(*id).or_default().extend(records);
        let delivered_to = delivered_to.iter().map(ToString::to_string).collect();
        match *fate {
            Fate::Retry { at: retry_at } => {
                let waiting =
                    Waiting { failed_at: *at, retry_at, history: *history, reason, delivered_to, undeletable: false };
                self.waiting.insert(*id, waiting);
            }
            Fate::DeadLetter { park } => {
                self.waiting.remove(id);
                if let Some(entry) = self.entries.remove(&id.position) {
                    let (history, died_at, parks_stream) = (*history, *at, park);
                    let dead = Dead { entry, history, outcome, reason, died_at, parks_stream, delivered_to };
                    self.dead.insert(*id, dead);
                }
            }
        }
    }

    fn blocked(&self, position: i64, state: StreamState) -> Option<BlockedStream> {
        let (entry, attempts, retry_at, reason) = if state == StreamState::Waiting {
            let entry = self.entries.get(&position)?;
            let Waiting { retry_at, history, reason, .. } = self.waiting.get(&entry.id())?;
            (entry, history.attempts, Some(*retry_at), reason)
        } else {
            let (_, dead) = self.dead.iter().find(|(id, dead)| id.position == position && dead.parks_stream)?;
            (&dead.entry, dead.history.attempts, None, &dead.reason)
        };
        Some(BlockedStream::new(position, state, &entry.row(), attempts, retry_at, reason.clone()))
    }

    fn selected(&self, selection: &Selection) -> Vec<EntryId> {
        let is_selected = |id: &EntryId, dead: &Dead| match selection {
            Selection::Positions(positions) => positions.contains(&id.position),
            Selection::Uuids(uuids) => dead.entry.row().shown(Column::Uuid).is_some_and(|uuid| uuids.contains(&uuid)),
            Selection::Matching(filter) => filter.matches(id.position, &dead.entry.row(), &dead.end()),
        };
        self.dead.iter().filter(|(id, dead)| is_selected(id, dead)).map(|(id, _)| *id).collect()
    }

    fn record(&mut self, act: &str, id: EntryId, detail: String, by: &Act) {
        let uuid = self.dead.get(&id).and_then(|dead| dead.entry.row().shown(Column::Uuid));
        let (at, who, act) = (by.at, by.who.clone(), act.to_owned());
        self.audit.push(AuditRecord { at, who, act, position: Some(id.position), uuid, detail });
    }

    /// Puts one back. Returns its position, or None if somebody has put it back by hand.
    fn retry(&mut self, id: EntryId, by: &Act) -> Option<i64> {
        let taken = self.entries.get(&id.position).map(RawEntry::id);
        if taken == Some(id) {
            return None;
        }
        let put_back = match taken {
            None => id,
            Some(_) => {
                self.last_position += 1;
                EntryId { position: self.last_position, ..id }
            }
        };
        let moved =
            format!("another entry has its place: it is at position {} now, behind all others", put_back.position);
        self.record("retry", id, if put_back == id { String::new() } else { moved }, by);
        let dead = self.dead.remove(&id)?;
        self.entries.insert(put_back.position, RawEntry::new(put_back.position, &dead.entry.row()));
        let (at, reason, delivered_to) = (by.at, "retried by hand".into(), dead.delivered_to);
        let history = History::default();
        let waiting = Waiting { failed_at: at, retry_at: at, history, reason, delivered_to, undeletable: false };
        self.waiting.insert(put_back, waiting);
        if let Some(attempts) = self.attempts.remove(&id) {
            self.attempts.insert(put_back, attempts);
        }
        Some(put_back.position)
    }

    /// Replaces columns of a dead letter. A new uuid makes it another entry.
    fn mend(&mut self, mut id: EntryId, changes: &[(Column, Field<'_>)], by: &Act) {
        for (column, new) in changes {
            let Some(dead) = self.dead.get(&id) else { return };
            let row = dead.entry.row();
            let old = (row.field(*column) != new).then(|| row.field(*column).shown().unwrap_or_default());
            let mended = RawEntry::new(id.position, &row.with(*column, new.clone()));
            if let Some(old) = old {
                self.record("edit", id, format!("{} was: {old}", column.name()), by);
            }
            let Some(dead) = self.dead.remove(&id) else { return };
            let attempts = self.attempts.remove(&id);
            id = mended.id();
            self.dead.insert(id, Dead { entry: mended, ..dead });
            attempts.into_iter().for_each(|attempts| _ = self.attempts.insert(id, attempts));
        }
    }
}

impl Operator for MemoryOutbox {
    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let kept = self.kept();
        let selected = kept.selected(selection).into_iter().take(limit).filter_map(|id| kept.dead.get(&id));
        Ok(selected.map(|dead| DeadLetter::listed(dead.entry.position, dead.entry.row(), dead.end())).collect())
    }

    fn dead_letter(&self, selection: &Selection) -> Result<Option<DeadLetter>, StorageError> {
        let kept = self.kept();
        let first = kept.selected(selection).first().and_then(|id| kept.dead.get(id));
        Ok(first.map(|dead| DeadLetter::new(dead.entry.position, &dead.entry.row(), dead.end())))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        let kept = self.kept();
        let selected = kept.selected(&Selection::Positions(vec![position]));
        Ok(selected.first().and_then(|id| kept.dead.get(id)).map(|dead| dead.entry.clone()))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        let kept = self.kept();
        let made = kept.attempts.iter().filter(|(id, _)| id.position == position);
        Ok(made.flat_map(|(_, attempts)| attempts).cloned().collect())
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| {
            kept.generation += 1;
            let selected = kept.selected(selection);
            selected.into_iter().filter_map(|id| kept.retry(id, by)).collect()
        }))
    }

    fn discard_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| {
            kept.generation += 1;
            let found = kept.selected(selection);
            for id in &found {
                kept.record("discard", *id, String::new(), by);
                kept.dead.remove(id);
                kept.attempts.remove(id);
            }
            found.into_iter().map(|id| id.position).collect()
        }))
    }

    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError> {
        self.change(|kept| {
            kept.generation += 1;
            match kept.selected(&Selection::Positions(vec![position])).as_slice() {
                [] => Ok(false),
                [id] => {
                    kept.mend(*id, changes, by);
                    Ok(true)
                }
                several => Err(ambiguous(several.len(), position)),
            }
        })
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError> {
        Ok(self.kept().audit.iter().rev().take(limit).cloned().collect())
    }

    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError> {
        let mut kept = self.kept();
        let old = |keep: Option<Duration>, at: Timestamp| {
            keep.is_some_and(|keep| Duration::try_from(by.at.duration_since(at)).is_ok_and(|age| age > keep))
        };
        let dead: Vec<EntryId> = (kept.dead.iter())
            .filter(|(_, dead)| !dead.parks_stream && old(retention.dead_letters, dead.died_at))
            .map(|(id, _)| *id)
            .collect();
        let is_old = |attempt: &AttemptRecord| old(retention.attempts, attempt.at);
        let attempts: usize = (kept.attempts.iter())
            .filter(|(id, _)| !kept.dead.contains_key(id))
            .map(|(_, attempts)| attempts.iter().filter(|attempt| is_old(attempt)).count())
            .sum();
        let audit = kept.audit.iter().filter(|record| old(retention.audit, record.at)).count();
        let bound = |count: usize| if dry_run { count } else { count.min(limit) };
        let pruned = Pruned {
            dead_letters: bound(dead.len()) as u64,
            attempts: bound(attempts) as u64,
            audit: bound(audit) as u64,
        };
        if dry_run {
            return Ok(pruned);
        }
        let (mut attempts_left, mut audit_left) = (bound(attempts), bound(audit));
        kept.audit.retain(|record| !(old(retention.audit, record.at) && take_one(&mut audit_left)));
        let still_dead: Vec<EntryId> = kept.dead.keys().copied().collect();
        for (_, attempts) in kept.attempts.iter_mut().filter(|(id, _)| !still_dead.contains(id)) {
            attempts.retain(|attempt| !(is_old(attempt) && take_one(&mut attempts_left)));
        }
        for id in dead.into_iter().take(limit) {
            kept.dead.remove(&id);
            kept.attempts.remove(&id);
        }
        if pruned.dead_letters > 0 {
            let (who, act, detail) = (by.who.clone(), "prune".into(), format!("{} dead letters", pruned.dead_letters));
            kept.audit.push(AuditRecord { at: by.at, who, act, position: None, uuid: None, detail });
        }
        Ok(pruned)
    }
}

fn take_one(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

fn row<'a>(event: &'a NewEvent, data: &'a StoredData) -> Row<'a> {
    let stream = &event.stream_id;
    Row {
        tenant_id: event.stored_tenant().into(),
        stream_id: stream.id.as_str().into(),
        stream_name: stream.name.as_deref().into(),
        category: stream.category.as_deref().into(),
        uuid: event.uuid.unwrap_or_else(Uuid::new_v4).to_string().into(),
        name: event.name.as_str().into(),
        version: event
            .version
            .map_or(Field::Null, |version| Field::Integer(i64::try_from(version).unwrap_or(i64::MAX))),
        created_at: event.created_at.unwrap_or_else(Timestamp::now).to_string().into(),
        content_type: data.content_type.as_deref().into(),
        context: event.stored_context().into(),
        data: match &data.value {
            StoredValue::Text(text) => text.as_str().into(),
            StoredValue::Bytes(bytes) => Field::Bytes(bytes.into()),
        },
    }
}

impl Dead {
    fn end(&self) -> End {
        End {
            attempts: self.history.attempts,
            outcome: self.outcome.into(),
            reason: self.reason.clone(),
            died_at: self.died_at,
            parks_stream: self.parks_stream,
            delivered_to: self.delivered_to.clone(),
        }
    }
}

struct MemoryLease(MemoryOutbox);

impl Lease for MemoryLease {
    fn mark(&self, slot: usize, positions: &[i64]) {
        self.0.kept().calls.insert(slot, positions.to_vec());
    }

    fn interrupted(&self) -> Vec<i64> {
        let mut positions: Vec<i64> = self.0.kept().calls.values().flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    fn clear(&self) {
        self.0.kept().calls.clear();
    }

    fn show(&self, state: &RelayState) {
        self.0.kept().state = Some(state.clone());
    }

    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.0.kept().leased = false;
    }
}

struct MemoryWatch {
    outbox: MemoryOutbox,
    seen: u64,
}

impl Watch for MemoryWatch {
    fn wait(&mut self, patience: Duration) -> bool {
        let (mut kept, seen) = (self.outbox.kept(), self.seen);
        self.outbox.0.changed.wait_while_for(&mut kept, |kept| kept.version == seen, patience);
        let changed = kept.version != self.seen;
        self.seen = kept.version;
        changed
    }
}
