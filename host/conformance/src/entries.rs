//! Appending, reading and settling entries.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use outbox_engine::outbox::{Fate, Hold, Page, PageBounds, Settled, Status, StreamState};
use outbox_engine::{
    History, JsonSerde, NewEvent, Ordering, OutboxStorageStrategy, Payload, PublishError, Recorded, RelayOptions,
    StorageError, StreamId, StreamKey,
};

use crate::TestStorage;
use crate::helpers::{PAGE, all, all_held, append, at, delivered, entry_at, event, failed, outbox, positions, settle};

fn stream_of(strategy: &impl OutboxStorageStrategy, position: i64) -> StreamKey {
    strategy.operator().entry(position).unwrap().unwrap().stream_key()
}

pub fn what_was_appended_comes_out_whole_and_in_order<S: TestStorage>(kept: &S) {
    let full = NewEvent {
        uuid: Some(uuid::Uuid::from_u128(7)),
        name: "order.placed".into(),
        version: Some(3),
        created_at: Some("2026-01-31T12:00:00Z".parse().unwrap()),
        data: Payload::Json("{\"z\": 1.10, \"a\":\t\"\\u00e9\"}".into()),
        context: "{\"traceparent\": \"00-ab\"}".into(),
        stream_id: StreamId::from_name("order-42").with_category("order"),
        tenant_id: "acme".into(),
        publish_after: None,
        expires_at: None,
    };
    let binary = NewEvent {
        data: Payload::Binary { content_type: "image/png".into(), bytes: vec![0, 255, 128] },
        ..event("pictures", "{}")
    };
    let positions = outbox(kept).append(&[full.clone(), event("s", "1"), binary.clone()]).unwrap();
    let entries = all(&kept.open());
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions);
    assert!(positions.is_sorted() && positions[0] > 0);
    let decoded: Vec<Recorded> = entries.into_iter().map(|entry| entry.decode(1, &JsonSerde).unwrap()).collect();
    assert_eq!(decoded[0].stream_id, full.stream_id);
    assert_eq!(decoded[0].tenant_id, "acme");
    let event = &decoded[0].wrapped_event;
    assert_eq!((event.uuid, event.version, &event.name), (uuid::Uuid::from_u128(7), Some(3), &full.name));
    assert_eq!((&event.data, &event.context), (&full.data, &full.context));
    assert_eq!(event.created_at, "2026-01-31T12:00:00Z");
    assert_eq!(decoded[1].tenant_id, "default");
    assert_eq!(decoded[1].wrapped_event.uuid.get_version_num(), 4);
    assert_eq!(decoded[2].wrapped_event.data, binary.data);
}

pub fn positions_are_never_given_twice<S: TestStorage>(kept: &S) {
    let first = append(kept, &["a", "b"]);
    let strategy = kept.open();
    settle(&strategy, &first.iter().map(|position| delivered(&strategy, *position)).collect::<Vec<_>>());
    assert_eq!(strategy.status().unwrap(), Status { last_position: first[1], ..Status::default() });
    assert!(append(kept, &["a"])[0] > first[1]);
}

pub fn an_append_is_all_or_nothing<S: TestStorage>(kept: &S) {
    type Change = fn(&mut NewEvent);
    let bad: [(&str, Change); 5] = [
        ("name", |event| event.name.clear()),
        ("stream_id", |event| event.stream_id.id.clear()),
        ("data", |event| event.data = Payload::Json("{".into())),
        ("context", |event| event.context = "[]".into()),
        ("version", |event| event.version = Some(u64::MAX)),
    ];
    for (what, spoil) in bad {
        let mut events = vec![event("a", "{}"), event("b", "{}")];
        spoil(&mut events[1]);
        let error = outbox(kept).append(&events).unwrap_err();
        assert!(matches!(&error, StorageError::Invalid { index: 1, reason } if reason.contains(what)), "{error}");
    }
    assert_eq!(positions(&kept.open()), [0_i64; 0]);
}

/// A reader beside several appenders sees each append whole, or nothing of it, and each in its own order. Where appends are
/// committed side by side, a page may end within one: it has the first events then, and no others.
pub fn an_append_is_seen_whole_or_not_at_all_beside_others<S: TestStorage>(kept: &S) {
    const APPENDERS: u64 = 3;
    const APPENDS: u64 = 20;
    const EVENTS: u64 = 100;
    let strategy = kept.open();
    let reader = strategy.drain().unwrap();
    let look = |all: bool| {
        let page = PageBounds { read_max: usize::MAX, looked_at_max: usize::MAX, ..PAGE };
        reader.rewind(i64::MIN);
        let entries = reader.next_page(page, &mut |_, _| true).unwrap().entries;
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for entry in entries {
            let event = entry.decode(1, &JsonSerde).unwrap();
            seen.entry(event.stream_id.id).or_default().push(event.wrapped_event.version.unwrap());
        }
        for (append, events) in &seen {
            let expected = if S::ONE_BY_ONE || all { EVENTS } else { events.len() as u64 };
            assert!(events.iter().copied().eq(0..expected), "{append} is seen in part, or out of order: {events:?}");
        }
        seen.len() as u64
    };
    std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let outbox = outbox(kept);
                scope.spawn(move || {
                    for append in 0..APPENDS {
                        let stream = format!("{appender}-{append}");
                        let numbered = |number| NewEvent { version: Some(number), ..event(&stream, "{}") };
                        let mut events: Vec<NewEvent> = (0..EVENTS).map(numbered).collect();
                        outbox.append(&events).unwrap();
                        // An append whose last event is refused leaves nothing, however many are at work.
                        events[EVENTS as usize - 1].name.clear();
                        outbox.append(&events).unwrap_err();
                    }
                })
            })
            .collect();
        while appenders.iter().any(|appender| !appender.is_finished()) {
            look(false);
        }
    });
    assert_eq!(look(true), APPENDERS * APPENDS);
}

pub fn only_what_is_wanted_is_read_and_within_bounds<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b", "a", "b", "a"]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    let next = |bounds, streams: &[StreamKey]| {
        let page = drain.next_page(bounds, &mut |_, stream| streams.contains(&stream)).unwrap();
        (page.entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), page.end)
    };
    let keys: Vec<StreamKey> = p[..2].iter().map(|p| stream_of(&strategy, *p)).collect();
    let (a, b) = (&keys[..1], &keys[1..]);
    assert_eq!(next(PAGE, &keys), (p.clone(), false));
    assert_eq!(next(PAGE, &keys), (vec![], true), "they were read");
    drain.rewind(p[1] + 1);
    assert_eq!(next(PAGE, a), (vec![p[2], p[4]], false));
    assert_eq!(next(PAGE, a), (vec![], true));
    drain.rewind(i64::MIN);
    let (two, three) = (PageBounds { read_max: 2, ..PAGE }, PageBounds { looked_at_max: 3, ..PAGE });
    assert_eq!(next(two, &keys), (p[..2].to_vec(), false));
    assert_eq!(next(two, &keys), (p[2..4].to_vec(), false), "it goes on where it was");
    drain.rewind(i64::MIN);
    assert_eq!(next(three, b), (vec![p[1]], false));
    assert_eq!(next(three, b).0, [p[3]]);
    drain.rewind(i64::MIN);
    assert_eq!(next(PageBounds { bytes_max: 3, ..PAGE }, &keys).0, p[..1], "more than its data counts");
    drain.rewind(i64::MAX);
    drain.rewind(p[4]);
    assert_eq!(next(PAGE, &keys).0, p[1..], "it never goes forward");
}

/// Pages in the order of positions are what total order is made of.
pub fn a_pass_in_total_order_takes_entries_by_their_positions<S: TestStorage>(kept: &S) {
    let p = append(kept, &["b", "a", "b", "c"]);
    let options = RelayOptions { ordering: Ordering::Total, ..RelayOptions::default() };
    let outbox = outbox(kept).with_options(options);
    let called = Mutex::new(Vec::new());
    let publisher = |event: &Recorded| {
        let mut called = called.lock().unwrap_or_else(PoisonError::into_inner);
        called.push(event.position.cast_signed());
        if event.stream_id.id == "c" { Err(PublishError::retryable("busy")) } else { Ok(()) }
    };
    assert_eq!(outbox.run(&publisher, 2).unwrap().published, 2);
    let last = append(kept, &["a"])[0];
    let report = outbox.run(&publisher, None).unwrap();
    assert_eq!((report.published, report.to_be_retried), (1, 1));
    assert_eq!(called.into_inner().unwrap(), p, "they are called in their order, and nothing behind one that failed");
    assert_eq!(positions(&kept.open()), [p[3], last]);
}

/// Entries that appear behind the reader: with lower positions, or after they were passed over.
pub fn what_appears_behind_the_reader_is_found<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b", "c"]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    let positions = |page: Page| page.entries.iter().map(|entry| entry.position).collect::<Vec<_>>();
    assert_eq!(positions(drain.next_page(PAGE, &mut |entry, _| entry.position != p[1]).unwrap()), [p[0], p[2]]);
    assert_eq!(positions(drain.next_page(PAGE, &mut |_, _| true).unwrap()), [0_i64; 0]);
    // Nothing has changed; from time to time it looks all the same.
    let Some(at) = drain.look_back_at() else { return };
    let page = drain.look_back(PAGE, at, &mut |entry, _| entry.position == p[1]).unwrap();
    assert!(page.unnoticed);
    assert_eq!(positions(page), [p[1]]);
    // After a change it looks soon, but need not do so at once.
    drain.changed(false);
    let soon = drain.look_back_at().unwrap();
    let page = drain.look_back(PAGE, soon, &mut |entry, _| entry.position == p[0]).unwrap();
    assert!(!page.unnoticed);
    assert_eq!(positions(page), [p[0]]);
    // Who has nothing in hand reads everything again.
    drain.changed(true);
    assert_eq!(positions(drain.next_page(PAGE, &mut |_, _| true).unwrap()), p);
}

pub fn entries_are_read_by_their_positions<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b", "c"]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    let at = |positions: &[i64], bytes_max| -> Vec<Option<i64>> {
        let entries = drain.entries_at(positions, bytes_max).unwrap();
        entries.into_iter().map(|entry| entry.map(|entry| entry.position)).collect()
    };
    assert_eq!(at(&[p[2], i64::MAX, p[0]], usize::MAX), [Some(p[2]), None, Some(p[0])]);
    assert_eq!(at(&[p[2], p[0]], 1), [Some(p[2])], "more than its data counts, and one is read");
    assert_eq!(at(&[p[2], p[0]], 0), [Some(p[2])]);
    assert_eq!(at(&[], usize::MAX), []);
}

pub fn what_was_delivered_leaves_for_good<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b", "c", "d"]);
    let strategy = kept.open();
    let once = |position| Settled::Delivered { entry: entry_at(&strategy, position), tried_before: false };
    settle(&strategy, &[once(p[3]), once(p[0]), once(p[1])]);
    assert_eq!(positions(&kept.open()), [p[2]]);
    // The same again, and for an entry that never existed: neither is an error.
    settle(&strategy, &[once(p[0]), once(i64::MAX), failed(&strategy, p[1], 1, Fate::DeadLetter { park: true })]);
    assert_eq!(positions(&kept.open()), [p[2]]);
    assert_eq!(strategy.status().unwrap().dead_letters, 0);
}

pub fn what_failed_stays_and_is_held_with_its_attempts<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b"]);
    let strategy = kept.open();
    settle(&strategy, &[failed(&strategy, p[0], 1, Fate::Retry { at: at(100) })]);
    settle(&strategy, &[failed(&strategy, p[0], 2, Fate::Retry { at: at(200) })]);
    assert_eq!(positions(&strategy), p);
    let held = all_held(&strategy);
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].entry.position, held[0].stream), (p[0], stream_of(&strategy, p[0])));
    assert_eq!(
        held[0].hold,
        Hold::Waiting { failed_at: at(2), retry_at: at(200), history: History { attempts: 2, host_deaths: 0 } }
    );
    let attempts = strategy.operator().attempts(p[0]).unwrap();
    assert_eq!(attempts.iter().map(|it| (it.attempt, it.at)).collect::<Vec<_>>(), [(1, at(1)), (2, at(2))]);
    assert_eq!((attempts[1].outcome.as_str(), attempts[1].reason.as_str()), ("trapped", "trap 2"));
    assert_eq!((attempts[1].digest.as_deref(), attempts[1].stderr.as_str()), (Some("abc"), "oh"));
    let status = strategy.status().unwrap();
    assert_eq!((status.pending, status.waiting, status.blocked_streams_total), (2, 1, 1));
    let blocked = &status.blocked_streams[0];
    assert_eq!((blocked.tenant_id.as_str(), blocked.stream_id.as_str(), blocked.position), ("default", "a", p[0]));
    assert_eq!((blocked.state, blocked.attempts, blocked.retry_at), (StreamState::Waiting, 2, Some(at(200))));

    settle(&strategy, &[delivered(&strategy, p[0])]);
    assert_eq!((all_held(&strategy), strategy.operator().attempts(p[0]).unwrap()), (vec![], vec![]));
}
