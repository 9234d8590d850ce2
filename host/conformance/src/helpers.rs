//! Helpers for the checks.

use jiff::{SignedDuration, Timestamp};
use outbox_engine::outbox::{Act, Failed, Fate, Held, PageBounds, Settled};
use outbox_engine::{
    Attempt, EntryId, Field, History, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Outcome, RawEntry, Row,
    StreamId,
};

use crate::TestStorage;

pub const PAGE: PageBounds = PageBounds { read_max: 1_000, bytes_max: usize::MAX, looked_at_max: 1_000 };

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

pub fn by() -> Act {
    Act { who: "ada".into(), at: at(5_000) }
}

pub fn outbox<S: TestStorage>(kept: &S) -> Outbox<S::Strategy> {
    Outbox::new(kept.open(), JsonSerde)
}

pub fn append<S: TestStorage>(kept: &S, streams: &[&str]) -> Vec<i64> {
    let events: Vec<NewEvent> = streams.iter().map(|stream| event(stream, "{}")).collect();
    outbox(kept).append(&events).unwrap()
}

pub fn all(strategy: &impl OutboxStorageStrategy) -> Vec<RawEntry> {
    strategy.drain().unwrap().next_page(PAGE, &mut |_, _| true).unwrap().entries
}

/// What is held back.
pub fn all_held(strategy: &impl OutboxStorageStrategy) -> Vec<Held> {
    strategy.drain().unwrap().held().unwrap()
}

/// Settles as a relay does, and returns how many entries were there.
pub fn settle(strategy: &impl OutboxStorageStrategy, settled: &[Settled]) -> usize {
    let drain = strategy.drain().unwrap();
    let found = drain.settle(settled).unwrap();
    drain.sync().unwrap();
    found
}

pub fn positions(strategy: &impl OutboxStorageStrategy) -> Vec<i64> {
    all(strategy).iter().map(|entry| entry.position).collect()
}

pub fn delivered(strategy: &impl OutboxStorageStrategy, position: i64) -> Settled {
    Settled::Delivered { entry: entry_at(strategy, position), tried_before: true }
}

pub fn failed(strategy: &impl OutboxStorageStrategy, position: i64, attempts: u32, fate: Fate) -> Settled {
    let outcome = Outcome::Trapped { reason: format!("trap {attempts}") };
    let attempt = Attempt { digest: Some("abc".into()), stderr: "oh".into(), ..outcome.into() };
    let history = History { attempts, host_deaths: 0 };
    Settled::Failed(Box::new(Failed {
        entry: entry_at(strategy, position),
        at: at(i64::from(attempts)),
        attempt,
        others: vec![],
        delivered_to: vec![],
        history,
        fate,
    }))
}

pub fn bury(strategy: &impl OutboxStorageStrategy, position: i64) {
    settle(strategy, &[failed(strategy, position, 1, Fate::DeadLetter { park: false })]);
}

/// The entry at this position, or an entry that never existed if there is none.
pub fn entry_at(strategy: &impl OutboxStorageStrategy, position: i64) -> EntryId {
    let entry = strategy.operator().entry(position).unwrap();
    entry.map_or_else(|| EntryId::of(position, &Field::Null), |entry| entry.id())
}

/// An event of a stream, with this data.
pub fn event(stream: &str, data: &str) -> NewEvent {
    NewEvent::json(StreamId::new(stream), "order.placed", data)
}

/// A row as an application's plain INSERT makes it.
pub fn row(stream: &str) -> Row<'_> {
    Row {
        tenant_id: "default".into(),
        stream_id: stream.into(),
        uuid: uuid::Uuid::new_v4().to_string().into(),
        name: "order.placed".into(),
        created_at: "2026-01-31T12:00:00.000Z".into(),
        context: "{}".into(),
        data: "{}".into(),
        ..Row::default()
    }
}
