//! Entries that are put off until they are due.

use jiff::Timestamp;
use outbox_engine::outbox::{Settled, Status};
use outbox_engine::{EntryId, Field, OutboxStorageStrategy, RawEntry, Row, StreamKey};

use crate::TestStorage;
use crate::helpers::{all, append, at, delivered, entry_at, positions, row, settle};

fn put_off(strategy: &impl OutboxStorageStrategy, position: i64, until: i64) -> Settled {
    Settled::PutOff { entry: entry_at(strategy, position), until: at(until) }
}

/// Brings back what is due, and returns the positions with the times.
fn back(strategy: &impl OutboxStorageStrategy, until: i64, max: usize) -> Vec<(i64, Timestamp)> {
    let drain = strategy.drain().unwrap();
    let back = drain.bring_back(at(until), at(until), max).unwrap();
    assert_eq!((back.refused, back.next), (vec![], drain.next_put_off().unwrap()));
    back.entries.into_iter().map(|(_, entry, due)| (entry.position, due)).collect()
}

pub fn what_is_put_off_is_nowhere_until_it_is_brought_back<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "a", "b", "c"]);
    let strategy = kept.open();
    assert_eq!(strategy.drain().unwrap().next_put_off().unwrap(), None);
    let put_off = [put_off(&strategy, p[0], 30), put_off(&strategy, p[2], 10), put_off(&strategy, p[3], 20)];
    assert_eq!((settle(&strategy, &put_off), settle(&strategy, &put_off)), (3, 0));
    assert_eq!(positions(&strategy), [p[1]]);
    let expected = Status { pending: 1, delayed: 3, delayed_until: Some(at(10)), ..strategy.status().unwrap() };
    assert_eq!(kept.open().status().unwrap(), expected);
    assert_eq!(kept.open().drain().unwrap().next_put_off().unwrap(), Some(at(10)));
    assert_eq!(back(&strategy, 9, 10), []);
    assert_eq!(back(&strategy, 25, 10), [(p[2], at(10)), (p[3], at(20))]);
    assert_eq!((positions(&strategy), strategy.status().unwrap().delayed), (vec![p[1], p[2], p[3]], 1));
    assert_eq!(back(&strategy, 30, 10), [(p[0], at(30))]);
    assert_eq!((positions(&strategy), back(&strategy, 99, 10)), (p, vec![]));
}

/// Whatever its row contains.
pub fn what_is_brought_back_is_the_same_entry<S: TestStorage>(kept: &S) {
    let odd = Row {
        name: Field::Null,
        uuid: Field::Bytes(vec![1, 2, 3].into()),
        version: Field::Real(1.5),
        data: Field::Bytes(vec![0, 1].into()),
        tenant_id: Field::Null,
        publish_after: "2026-01-31 12:00:00".into(),
        expires_at: Field::Bytes(vec![9].into()),
        ..row("s")
    };
    let odd = if S::TAKES_ANYTHING { odd } else { Row { publish_after: "2026-01-31 12:00:00".into(), ..row("s") } };
    let whole = [kept.insert(odd), kept.insert(Row { expires_at: "2999-01-31T12:00:00Z".into(), ..row("t") })];
    let strategy = kept.open();
    let before = all(&strategy);
    settle(&strategy, &whole.map(|position| put_off(&strategy, position, 10)));
    let drain = strategy.drain().unwrap();
    let entries = drain.bring_back(at(10), at(10), 10).unwrap().entries;
    drop(drain);
    let same: Vec<(StreamKey, EntryId, Timestamp)> =
        before.iter().map(|entry| (entry.stream_key(), entry.id(), at(10))).collect();
    assert_eq!((entries, all(&strategy)), (same, before));
}

pub fn what_is_due_comes_back_in_parts_the_earliest_first<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b", "c", "d"]);
    let strategy = kept.open();
    let times = [40, 20, 20, 10];
    let put_off: Vec<Settled> = (p.iter().zip(times)).map(|(at, until)| put_off(&strategy, *at, until)).collect();
    settle(&strategy, &put_off);
    assert_eq!(back(&strategy, 99, 1), [(p[3], at(10))]);
    assert_eq!(back(&strategy, 99, 2), [(p[1], at(20)), (p[2], at(20))]);
    assert_eq!(back(&strategy, 99, 2), [(p[0], at(40))]);
}

/// An entry of the same position that came meanwhile is another entry. Only the one that is meant is put off.
pub fn only_the_entry_that_is_meant_is_put_off<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b"]);
    let strategy = kept.open();
    let other = EntryId::of(p[0], &"another".into());
    assert_eq!(settle(&strategy, &[Settled::PutOff { entry: other, until: at(10) }]), 0);
    let both = [put_off(&strategy, p[0], 10), delivered(&strategy, p[1])];
    assert_eq!((settle(&strategy, &both), positions(&strategy)), (2, vec![]));
    assert_eq!(all(&strategy).first().map(RawEntry::id), None);
    assert_eq!(back(&strategy, 10, 10), [(p[0], at(10))]);
}
