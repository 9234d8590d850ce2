//! An outbox in memory: for tests, and for applications whose events need not outlive the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::operator::{Act, AttemptRecord, AuditRecord, DeadLetter, End, Operator, Pruned, Retention, Selection};
use super::{
    BlockedStream, Failed, Fate, Held, Hold, Lease, OutboxStorageStrategy, Page, PageBounds, Registry, RelayState,
    Settled, Status, StorageError, Wanted, Watch,
};
use crate::entry::StreamKey;
use crate::publisher::{Attempt, Outcome};
use crate::recorded::NewEvent;
use crate::row::{Column, Field, RawEntry, Row};
use crate::serde::{StoredData, StoredValue};
use crate::settlement::History;

mod registry;

use super::blocked::{WAITING, first_of_each, shown_time};

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
    waiting: BTreeMap<i64, Waiting>,
    attempts: BTreeMap<i64, Vec<AttemptRecord>>,
    dead: BTreeMap<i64, Dead>,
    audit: Vec<AuditRecord>,
    generation: u64,
    /// Raised by every change.
    version: u64,
    leased: bool,
    calls: HashMap<usize, Vec<i64>>,
    state: Option<RelayState>,
    registered: registry::Registered,
}

struct Waiting {
    failed_at: Timestamp,
    retry_at: Timestamp,
    history: History,
    reason: String,
    delivered_to: Vec<String>,
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
        self.change(|kept| {
            kept.last_position += 1;
            kept.entries.insert(kept.last_position, RawEntry::new(kept.last_position, row));
            kept.last_position
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(events.iter().map(|(event, data)| self.append_raw(&row(event, data))).collect())
    }

    fn lease(&self) -> Result<Box<dyn Lease>, StorageError> {
        let mut kept = self.kept();
        if std::mem::replace(&mut kept.leased, true) {
            return Err(StorageError::Leased { by: "another relay".into() });
        }
        Ok(Box::new(MemoryLease(self.clone())))
    }

    fn entries(&self, after: i64, bounds: PageBounds, wanted: Wanted<'_>) -> Result<Page, StorageError> {
        let kept = self.kept();
        // The least position that there is stands for the beginning, and is one itself.
        let first = if after == i64::MIN { Bound::Unbounded } else { Bound::Excluded(after) };
        let mut rest = kept.entries.range((first, Bound::Unbounded)).take(bounds.looked_at_max);
        let mut page = Page::default();
        let (mut looked_at, mut bytes) = (0, 0);
        while page.entries.len() < bounds.read_max && bytes < bounds.bytes_max {
            let Some((position, entry)) = rest.next() else {
                page.end = looked_at < bounds.looked_at_max;
                break;
            };
            looked_at += 1;
            page.last = Some(*position);
            if wanted(*position, entry.stream_key()) {
                bytes += entry.bytes();
                page.entries.push(entry.clone());
            }
        }
        Ok(page)
    }

    fn held(&self) -> Result<Vec<Held>, StorageError> {
        let kept = self.kept();
        let stream = |position: &i64| kept.entries.get(position).map(RawEntry::stream_key);
        let waiting = kept.waiting.iter().filter_map(|(position, waiting)| {
            let Waiting { failed_at, retry_at, history, .. } = *waiting;
            let hold = Hold::Waiting { failed_at, retry_at, history };
            let delivered_to = waiting.delivered_to.clone();
            stream(position).map(|stream| Held { stream, position: *position, hold, delivered_to })
        });
        let parked = kept.dead.iter().filter(|(_, dead)| dead.parks_stream);
        // A dead letter whose stream cannot be told parks none.
        let parked = parked.filter_map(|(position, dead)| {
            let row = dead.entry.row();
            let stream = StreamKey::told(&row.tenant_id, &row.stream_id)?;
            Some(Held { stream, position: *position, hold: Hold::Parked, delivered_to: Vec::new() })
        });
        Ok(waiting.chain(parked).collect())
    }

    fn settle_max(&self) -> usize {
        usize::MAX
    }

    fn settle(&self, settled: &[Settled]) -> Result<(), StorageError> {
        self.change(|kept| {
            for entry in settled {
                match entry {
                    Settled::Delivered { position, .. } => kept.remove(*position),
                    Settled::Failed(failed) => kept.fail(failed),
                }
            }
        });
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn status(&self) -> Result<Status, StorageError> {
        let (first, blocked_streams_total) = first_of_each(&self.held()?);
        let kept = self.kept();
        let oldest = kept.entries.values().next();
        Ok(Status {
            pending: kept.entries.len() as u64,
            oldest_created_at: oldest.and_then(|entry| shown_time(&entry.row().created_at)),
            waiting: kept.waiting.len() as u64,
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

    fn registry(&self) -> &dyn Registry {
        self
    }
}

impl Kept {
    fn remove(&mut self, position: i64) {
        self.entries.remove(&position);
        self.waiting.remove(&position);
        self.attempts.remove(&position);
    }

    fn fail(&mut self, failed: &Failed) {
        let Failed { position, at, attempt, others, delivered_to, history, fate } = failed;
        if !self.entries.contains_key(position) {
            return;
        }
        let (outcome, reason) = (attempt.outcome.name(), attempt.outcome.reason().to_owned());
        // One that used up no attempt may be told again and again.
        let counted = |attempt: &&Attempt| !matches!(attempt.outcome, Outcome::Unavailable { .. });
        let records = std::iter::once(attempt).chain(others).filter(counted).map(|attempt| AttemptRecord {
            attempt: history.attempts,
            at: *at,
            outcome: attempt.outcome.name().into(),
            reason: attempt.outcome.reason().into(),
            digest: attempt.digest.as_deref().map(Into::into),
            stderr: attempt.stderr.clone(),
            given_back: false,
            publisher: attempt.publisher.as_deref().map(Into::into),
        });
        self.attempts.entry(*position).or_default().extend(records);
        let delivered_to = delivered_to.iter().map(ToString::to_string).collect();
        match *fate {
            Fate::Retry { at: retry_at } => {
                let waiting = Waiting { failed_at: *at, retry_at, history: *history, reason, delivered_to };
                self.waiting.insert(*position, waiting);
            }
            Fate::DeadLetter { park } => {
                self.waiting.remove(position);
                if let Some(entry) = self.entries.remove(position) {
                    let (history, died_at, parks_stream) = (*history, *at, park);
                    let dead = Dead { entry, history, outcome, reason, died_at, parks_stream, delivered_to };
                    self.dead.insert(*position, dead);
                }
            }
        }
    }

    fn blocked(&self, position: i64, state: &'static str) -> Option<BlockedStream> {
        let (waiting, dead) = (self.waiting.get(&position), self.dead.get(&position));
        let (entry, attempts, retry_at, reason) = match state {
            WAITING => {
                let Waiting { retry_at, history, reason, .. } = waiting?;
                (self.entries.get(&position)?, history.attempts, Some(*retry_at), reason)
            }
            _ => dead.map(|dead| (&dead.entry, dead.history.attempts, None, &dead.reason))?,
        };
        Some(BlockedStream::new(position, state, &entry.row(), attempts, retry_at, reason.clone()))
    }

    fn selected(&self, selection: &Selection) -> impl Iterator<Item = &Dead> {
        self.dead
            .iter()
            .filter(move |(position, dead)| match selection {
                Selection::Positions(positions) => positions.contains(position),
                Selection::Matching(filter) => filter.matches(**position, &dead.entry.row(), &dead.end()),
            })
            .map(|(_, dead)| dead)
    }

    fn record(&mut self, act: &str, position: i64, detail: String, by: &Act) {
        let uuid = self.dead.get(&position).and_then(|dead| dead.entry.row().shown(Column::Uuid));
        let (at, who, act) = (by.at, by.who.clone(), act.to_owned());
        self.audit.push(AuditRecord { at, who, act, position: Some(position), uuid, detail });
    }
}

impl Operator for MemoryOutbox {
    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let kept = self.kept();
        let selected = kept.selected(selection).take(limit);
        Ok(selected.map(|dead| DeadLetter::listed(dead.entry.position, dead.entry.row(), dead.end())).collect())
    }

    fn dead_letter(&self, position: i64) -> Result<Option<DeadLetter>, StorageError> {
        Ok(self.kept().dead.get(&position).map(|dead| DeadLetter::new(position, &dead.entry.row(), dead.end())))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        Ok(self.kept().dead.get(&position).map(|dead| dead.entry.clone()))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        Ok(self.kept().attempts.get(&position).cloned().unwrap_or_default())
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| {
            let positions: Vec<i64> = kept.selected(selection).map(|dead| dead.entry.position).collect();
            kept.generation += 1;
            let mut retried = Vec::new();
            for position in positions {
                if kept.dead.contains_key(&position) {
                    kept.record("retry", position, String::new(), by);
                }
                if let Some(dead) = kept.dead.remove(&position) {
                    kept.entries.insert(position, dead.entry);
                    let (at, reason) = (by.at, "retried by hand".into());
                    let (history, delivered_to) = (History::default(), dead.delivered_to);
                    let waiting = Waiting { failed_at: at, retry_at: at, history, reason, delivered_to };
                    kept.waiting.insert(position, waiting);
                    retried.push(position);
                }
            }
            retried
        }))
    }

    fn discard_dead_letters(&self, positions: &[i64], by: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| {
            kept.generation += 1;
            let found: Vec<i64> = positions.iter().copied().filter(|it| kept.dead.contains_key(it)).collect();
            for position in &found {
                kept.record("discard", *position, String::new(), by);
                kept.dead.remove(position);
                kept.attempts.remove(position);
            }
            found
        }))
    }

    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError> {
        Ok(self.change(|kept| {
            kept.generation += 1;
            for (column, new) in changes {
                let Some(dead) = kept.dead.get_mut(&position) else { return false };
                let row = dead.entry.row();
                let old = (row.field(*column) != new).then(|| row.field(*column).shown().unwrap_or_default());
                dead.entry = RawEntry::new(position, &row.with(*column, new.clone()));
                if let Some(old) = old {
                    kept.record("edit", position, format!("{} was: {old}", column.name()), by);
                }
            }
            kept.dead.contains_key(&position)
        }))
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError> {
        Ok(self.kept().audit.iter().rev().take(limit).cloned().collect())
    }

    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError> {
        let mut kept = self.kept();
        let old = |keep: Option<Duration>, at: Timestamp| {
            keep.is_some_and(|keep| Duration::try_from(by.at.duration_since(at)).is_ok_and(|age| age > keep))
        };
        let dead: Vec<i64> = (kept.dead.iter())
            .filter(|(_, dead)| !dead.parks_stream && old(retention.dead_letters, dead.died_at))
            .map(|(position, _)| *position)
            .collect();
        let is_old = |attempt: &AttemptRecord| old(retention.attempts, attempt.at);
        let attempts: usize = (kept.attempts.iter())
            .filter(|(position, _)| !kept.dead.contains_key(position))
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
        let still_dead: Vec<i64> = kept.dead.keys().copied().collect();
        for (_, attempts) in kept.attempts.iter_mut().filter(|(position, _)| !still_dead.contains(position)) {
            attempts.retain(|attempt| !(is_old(attempt) && take_one(&mut attempts_left)));
        }
        for position in dead.into_iter().take(limit) {
            kept.dead.remove(&position);
            kept.attempts.remove(&position);
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
        let kept = self.outbox.kept();
        let seen = self.seen;
        let waited = self.outbox.0.changed.wait_timeout_while(kept, patience, |kept| kept.version == seen);
        let (kept, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let changed = kept.version != self.seen;
        self.seen = kept.version;
        changed
    }
}
