//! An outbox in memory: for tests, and for applications whose events need not outlive the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use uuid::Uuid;

use self::drain::MemoryDrain;
use self::entries::Entries;
use super::blocked::{first_of_each, shown_time};
use super::operator::{AttemptRecord, AuditRecord, Operator};
use super::{
    BlockedStream, BroughtBack, Deployments, Drain, Failed, Fate, Held, Hold, OutboxStorageStrategy, RelayState,
    Settled, Status, StorageError, StreamState, Watch,
};
use crate::attempt::{Attempt, Outcome};
use crate::new_event::NewEvent;
use crate::raw::{EntryId, RawEntry};
use crate::row::{Column, Field, Row};
use crate::serde::{StoredData, StoredValue};
use crate::settlement::History;
use crate::stream::{StreamKey, TenantKey};

mod deployments;
mod drain;
mod entries;
mod operator;

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
    entries: Entries,
    last_position: i64,
    waiting: BTreeMap<EntryId, Waiting>,
    attempts: BTreeMap<EntryId, Vec<AttemptRecord>>,
    /// Entries that are put off, by the time when they are due.
    put_off: BTreeMap<(Timestamp, EntryId), RawEntry>,
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
        self.change(|kept| kept.entries.insert(RawEntry::new(position, row)));
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

    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError> {
        Ok(Box::new(MemoryDrain::take(self)?))
    }

    fn status(&self) -> Result<Status, StorageError> {
        let kept = self.kept();
        let (first, blocked_streams_total) = first_of_each(&kept.held());
        let oldest = kept.entries.values().next();
        let undeletable: Vec<&Waiting> = kept.waiting.values().filter(|waiting| waiting.undeletable).collect();
        Ok(Status {
            pending: kept.entries.len().saturating_sub(undeletable.len()) as u64,
            oldest_created_at: oldest.and_then(|entry| shown_time(&entry.row().created_at)),
            waiting: kept.waiting.values().filter(|waiting| !waiting.undeletable).count() as u64,
            delayed: kept.put_off.len() as u64,
            delayed_until: kept.next_put_off(),
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
    fn held(&self) -> Vec<Held> {
        let waiting = self.waiting.iter().filter_map(|(id, waiting)| {
            let Waiting { failed_at, retry_at, history, undeletable, .. } = *waiting;
            let hold = if undeletable { Hold::Delivered } else { Hold::Waiting { failed_at, retry_at, history } };
            let delivered_to = waiting.delivered_to.clone();
            let held = |entry: &RawEntry| (entry.stream_key(), entry.tenant_key());
            let (stream, tenant) = self.entry(*id).map(held)?;
            Some(Held { stream, tenant, entry: *id, hold, delivered_to })
        });
        let parked = self.dead.iter().filter(|(_, dead)| dead.parks_stream);
        // A dead letter whose stream cannot be determined parks none.
        let parked = parked.filter_map(|(id, dead)| {
            let row = dead.entry.row();
            let stream = StreamKey::told(&row.tenant_id, &row.stream_id)?;
            let tenant = TenantKey::of_entry(&row.tenant_id);
            Some(Held { stream, tenant, entry: *id, hold: Hold::Parked, delivered_to: Vec::new() })
        });
        waiting.chain(parked).collect()
    }

    fn append(&mut self, row: &Row<'_>) -> i64 {
        let position = self.next_position();
        self.entries.insert(RawEntry::new(position, row));
        position
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
            Settled::PutOff { until, .. } if is_there => {
                let entry = self.entries.remove(&id.position);
                entry.into_iter().for_each(|entry| _ = self.put_off.insert((*until, id), entry));
            }
            Settled::Undeletable { at, reason, .. } if is_there => {
                let (history, reason, delivered_to) = (History::default(), reason.clone(), Vec::new());
                let waiting =
                    Waiting { failed_at: *at, retry_at: *at, history, reason, delivered_to, undeletable: true };
                self.waiting.insert(id, waiting);
            }
            Settled::Failed(_) | Settled::Undeletable { .. } | Settled::PutOff { .. } => {}
        }
        is_there
    }

    fn next_put_off(&self) -> Option<Timestamp> {
        self.put_off.first_key_value().map(|((until, _), _)| *until)
    }

    /// Brings back what is due by this time.
    fn bring_back(&mut self, until: Timestamp, max: usize) -> BroughtBack {
        let mut entries = Vec::new();
        while entries.len() < max
            && let Some(first) = self.put_off.first_entry()
            && first.key().0 <= until
        {
            let ((due, id), entry) = first.remove_entry();
            let position = match self.entries.get(&id.position).map(RawEntry::id) {
                // Somebody has put it back by hand.
                Some(there) if there == id => continue,
                None => id.position,
                Some(_) => self.next_position(),
            };
            let entry = RawEntry::new(position, &entry.row());
            entries.push((entry.stream_key(), entry.id(), due));
            self.entries.insert(entry);
        }
        BroughtBack { entries, refused: Vec::new(), next: self.next_put_off() }
    }

    fn next_position(&mut self) -> i64 {
        self.last_position += 1;
        self.last_position
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
        publish_after: time(event.publish_after),
        expires_at: time(event.expires_at),
    }
}

fn time(time: Option<Timestamp>) -> Field<'static> {
    time.map_or(Field::Null, |time| time.to_string().into())
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
