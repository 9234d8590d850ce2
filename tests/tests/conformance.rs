//! What holds for every storage that keeps entries: one suite, run for each.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use outbox_host::outbox::{
    Act, DeadLetterFilter, Failed, Fate, Hold, PageBounds, Pruned, RelayCondition, RelayState, Retention, Selection,
    Settled, Status,
};
use outbox_host::{
    Attempt, Field, History, JsonSerde, NewEvent, NoOutbox, Outbox, OutboxStorageStrategy, Outcome, Payload, RawEntry,
    Recorded, Row, StorageError, StreamId, StreamKey,
};
use outbox_tests::outboxes::{Kept, entry_at, event, row};

outbox_tests::for_each_storage! {
    what_was_appended_comes_out_whole_and_in_order
    positions_are_never_given_twice
    an_append_is_all_or_nothing
    an_append_is_seen_whole_or_not_at_all_beside_others
    only_what_is_wanted_is_read_and_within_bounds
    what_was_delivered_leaves_for_good
    what_failed_stays_and_is_held_with_its_attempts
    a_dead_letter_is_kept_whole
    any_row_survives_its_death
    bytes_that_are_text_are_shown_as_text
    dead_letters_are_found_by_what_they_are
    a_retried_dead_letter_is_back_in_its_place
    a_discarded_dead_letter_is_gone_and_on_record
    an_edited_dead_letter_has_the_new_data_and_the_old_is_on_record
    a_parked_stream_is_held_until_its_dead_letter_is_settled
    old_records_are_pruned_in_batches
    there_is_one_lease_and_it_ends
    calls_under_way_outlive_their_lease
    a_watch_notices_what_another_does
    the_relays_state_is_shown_while_it_has_the_lease
}

const PAGE: PageBounds = PageBounds { read_max: 1_000, bytes_max: usize::MAX, looked_at_max: 1_000 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn by() -> Act {
    Act { who: "ada".into(), at: at(5_000) }
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde)
}

fn append<K: Kept>(kept: &K, streams: &[&str]) -> Vec<i64> {
    let events: Vec<NewEvent> = streams.iter().map(|stream| event(stream, "{}")).collect();
    outbox(kept).append(&events).unwrap()
}

fn all(strategy: &impl OutboxStorageStrategy) -> Vec<RawEntry> {
    strategy.entries(i64::MIN..=i64::MAX, PAGE, &mut |_, _| true).unwrap().entries
}

fn positions(strategy: &impl OutboxStorageStrategy) -> Vec<i64> {
    all(strategy).iter().map(|entry| entry.position).collect()
}

fn delivered(strategy: &impl OutboxStorageStrategy, position: i64) -> Settled {
    Settled::Delivered { entry: entry_at(strategy, position), tried_before: true }
}

fn failed(strategy: &impl OutboxStorageStrategy, position: i64, attempts: u32, fate: Fate) -> Settled {
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

fn bury(strategy: &impl OutboxStorageStrategy, position: i64) {
    strategy.settle(&[failed(strategy, position, 1, Fate::DeadLetter { park: false })]).unwrap();
}

fn what_was_appended_comes_out_whole_and_in_order<K: Kept>(kept: &K) {
    let full = NewEvent {
        uuid: Some(uuid::Uuid::from_u128(7)),
        name: "order.placed".into(),
        version: Some(3),
        created_at: Some("2026-01-31T12:00:00Z".parse().unwrap()),
        data: Payload::Json("{\"z\": 1.10, \"a\":\t\"\\u00e9\"}".into()),
        context: "{\"traceparent\": \"00-ab\"}".into(),
        stream_id: StreamId::from_name("order-42").with_category("order"),
        tenant_id: "acme".into(),
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

fn positions_are_never_given_twice<K: Kept>(kept: &K) {
    let first = append(kept, &["a", "b"]);
    let strategy = kept.open();
    strategy.settle(&first.iter().map(|position| delivered(&strategy, *position)).collect::<Vec<_>>()).unwrap();
    assert_eq!(strategy.status().unwrap(), Status { last_position: first[1], ..Status::default() });
    assert!(append(kept, &["a"])[0] > first[1]);
}

fn an_append_is_all_or_nothing<K: Kept>(kept: &K) {
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

/// Who reads while several append sees each append whole, or nothing of it, and each in its own order.
fn an_append_is_seen_whole_or_not_at_all_beside_others<K: Kept>(kept: &K) {
    const APPENDERS: u64 = 3;
    const APPENDS: u64 = 20;
    const EVENTS: u64 = 100;
    let reader = kept.open();
    let look = || {
        let page = PageBounds { read_max: usize::MAX, looked_at_max: usize::MAX, ..PAGE };
        let entries = reader.entries(i64::MIN..=i64::MAX, page, &mut |_, _| true).unwrap().entries;
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for entry in entries {
            let event = entry.decode(1, &JsonSerde).unwrap();
            seen.entry(event.stream_id.id).or_default().push(event.wrapped_event.version.unwrap());
        }
        for (append, events) in &seen {
            assert!(events.iter().copied().eq(0..EVENTS), "{append} is seen in part, or out of order: {events:?}");
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
                        // One whose last event is refused leaves nothing, however many are at work.
                        events[EVENTS as usize - 1].name.clear();
                        outbox.append(&events).unwrap_err();
                    }
                })
            })
            .collect();
        while appenders.iter().any(|appender| !appender.is_finished()) {
            look();
        }
    });
    assert_eq!(look(), APPENDERS * APPENDS);
}

fn only_what_is_wanted_is_read_and_within_bounds<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b", "a", "b", "a"]);
    let strategy = kept.open();
    let read = |from, bounds, stream: Option<&str>| {
        let wanted_key = stream.map(|stream| StreamKey::of(b"default", stream.as_bytes()));
        let mut wanted = |_, key| wanted_key.is_none_or(|wanted| wanted == key);
        let page = strategy.entries(from..=i64::MAX, bounds, &mut wanted).unwrap();
        (page.entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), page.last, page.end)
    };
    assert_eq!(read(i64::MIN, PAGE, None), (p.clone(), Some(p[4]), true));
    assert_eq!(read(p[1] + 1, PAGE, Some("a")), (vec![p[2], p[4]], Some(p[4]), true));
    assert_eq!(read(i64::MIN, PageBounds { read_max: 2, ..PAGE }, None), (p[..2].to_vec(), Some(p[1]), false));
    assert_eq!(read(i64::MIN, PageBounds { looked_at_max: 3, ..PAGE }, Some("b")), (vec![p[1]], Some(p[2]), false));
    assert_eq!(read(i64::MIN, PageBounds { bytes_max: 3, ..PAGE }, None).0, p[..1], "more than its data counts");
    assert_eq!(read(i64::MAX, PAGE, None), (vec![], None, true));
    assert_eq!(read(p[4] + 1, PAGE, None), (vec![], None, true));
}

fn what_was_delivered_leaves_for_good<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b", "c", "d"]);
    let strategy = kept.open();
    let once = |position| Settled::Delivered { entry: entry_at(&strategy, position), tried_before: false };
    strategy.settle(&[once(p[3]), once(p[0]), once(p[1])]).unwrap();
    assert_eq!(positions(&kept.open()), [p[2]]);
    // Once more, and one that never was: both are no errors.
    strategy
        .settle(&[once(p[0]), once(i64::MAX), failed(&strategy, p[1], 1, Fate::DeadLetter { park: true })])
        .unwrap();
    assert_eq!(positions(&kept.open()), [p[2]]);
    assert_eq!(strategy.status().unwrap().dead_letters, 0);
}

fn what_failed_stays_and_is_held_with_its_attempts<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b"]);
    let strategy = kept.open();
    strategy.settle(&[failed(&strategy, p[0], 1, Fate::Retry { at: at(100) })]).unwrap();
    strategy.settle(&[failed(&strategy, p[0], 2, Fate::Retry { at: at(200) })]).unwrap();
    assert_eq!(positions(&strategy), p);
    let held = strategy.held().unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].entry.position, held[0].stream), (p[0], StreamKey::of(b"default", b"a")));
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
    assert_eq!((blocked.state, blocked.attempts, blocked.retry_at), ("waiting", 2, Some(at(200))));

    strategy.settle(&[delivered(&strategy, p[0])]).unwrap();
    assert_eq!((strategy.held().unwrap(), strategy.operator().attempts(p[0]).unwrap()), (vec![], vec![]));
}

fn a_dead_letter_is_kept_whole<K: Kept>(kept: &K) {
    let new = NewEvent { context: "{\"a\":1}".into(), version: Some(3), ..event("a", "{\"x\": 1.0}") };
    let new = NewEvent { stream_id: StreamId::from_name("n").with_category("c"), ..new };
    let position = outbox(kept).append(&[NewEvent { uuid: Some(uuid::Uuid::from_u128(9)), ..new }]).unwrap()[0];
    let strategy = kept.open();
    strategy.settle(&[failed(&strategy, position, 1, Fate::Retry { at: at(1) })]).unwrap();
    strategy.settle(&[failed(&strategy, position, 2, Fate::DeadLetter { park: false })]).unwrap();
    assert_eq!((positions(&strategy), strategy.held().unwrap()), (vec![], vec![]));
    let dead = strategy.operator().dead_letters(&Selection::all(), 10).unwrap();
    let [dead] = dead.as_slice() else { panic!("{dead:?}") };
    assert_eq!((dead.position, dead.name.as_str(), dead.version), (position, "order.placed", Some(3)));
    assert_eq!((dead.data.as_str(), dead.context.as_str()), ("{\"x\": 1.0}", "{\"a\":1}"));
    assert_eq!((dead.stream_name.as_deref(), dead.category.as_deref()), (Some("n"), Some("c")));
    assert_eq!(dead.uuid, uuid::Uuid::from_u128(9).to_string());
    assert_eq!((dead.attempts, dead.outcome.as_str(), dead.reason.as_str()), (2, "trapped", "trap 2"));
    assert_eq!((dead.died_at, dead.parks_stream), (at(2), false));
    assert_eq!(strategy.operator().attempts(position).unwrap().len(), 2);
    assert_eq!(strategy.status().unwrap().dead_letters, 1);
}

/// What cannot be decoded can be buried, shown, retried, and is then what it was before.
fn any_row_survives_its_death<K: Kept>(kept: &K) {
    let odd = Row {
        name: Field::Null,
        uuid: Field::Bytes(vec![1, 2, 3].into()),
        stream_name: Field::Bytes(vec![0xff].into()),
        version: Field::Real(1.5),
        data: Field::Bytes(vec![0, 1].into()),
        tenant_id: Field::Null,
        context: Field::Null,
        ..row("s")
    };
    let empty = Row { stream_id: Field::Null, data: Field::Null, created_at: Field::Null, ..row("") };
    let rows = [kept.insert(odd), kept.insert(empty)];
    let strategy = kept.open();
    let before = all(&strategy);
    assert_eq!(before.len(), 2);
    let read = before[0].row();
    assert_eq!((read.name, read.data), (Field::Null, Field::Bytes(vec![0, 1].into())));
    let report = outbox(kept).run(&|_: &Recorded| panic!("it cannot be decoded"), None).unwrap();
    assert_eq!((report.dead_lettered, report.outcomes["undecodable"]), (2, 2));
    let dead = strategy.operator().dead_letters(&Selection::all(), 10).unwrap();
    assert_eq!(dead.iter().map(|dead| dead.position).collect::<Vec<_>>(), rows);
    assert!(dead[0].reason.starts_with("version:"), "{}", dead[0].reason);
    strategy.operator().retry_dead_letters(&Selection::Positions(rows.to_vec()), &by()).unwrap();
    assert_eq!(all(&strategy), before);
}

/// A language may bind its strings as bytes. Whatever they are kept as, each storage shows and finds them alike.
fn bytes_that_are_text_are_shown_as_text<K: Kept>(kept: &K) {
    let bytes = |text: &'static str| Field::Bytes(text.as_bytes().into());
    let uuid = uuid::Uuid::from_u128(7);
    let text = Row {
        tenant_id: bytes("acme"),
        stream_id: bytes("órdér-1"),
        stream_name: bytes("orders"),
        category: bytes("shop"),
        uuid: Field::Bytes(uuid.as_bytes().into()),
        name: bytes("order.placed"),
        created_at: bytes("2026-01-31T12:00:00Z"),
        content_type: bytes("application/json"),
        context: bytes("{\"a\": \"é\"}"),
        data: bytes("{\"data\": \"é\"}"),
        ..row("")
    };
    let no_text = Row { data: Field::Bytes(vec![0xff, 0x00].into()), ..row("b") };
    let positions = [kept.insert(text), kept.insert(no_text)];
    let strategy = kept.open();
    for position in positions {
        bury(&strategy, position);
    }
    let operator = strategy.operator();
    let listed = operator.dead_letters(&Selection::all(), 10).unwrap();
    let whole = operator.dead_letter(&Selection::Uuids(vec![uuid.to_string()])).unwrap().unwrap();
    for dead in [&listed[0], &whole] {
        assert_eq!((dead.tenant_id.as_str(), dead.stream_id.as_str()), ("acme", "órdér-1"));
        assert_eq!((dead.stream_name.as_deref(), dead.category.as_deref()), (Some("orders"), Some("shop")));
        assert_eq!((dead.uuid.clone(), dead.name.as_str()), (uuid.to_string(), "order.placed"));
        assert_eq!(
            (dead.created_at.as_str(), dead.content_type.as_deref()),
            ("2026-01-31T12:00:00Z", Some("application/json"))
        );
        assert_eq!((dead.context.as_str(), dead.data.as_str()), ("{\"a\": \"é\"}", "{\"data\": \"é\"}"));
    }
    assert_eq!(listed[1].data, "0xff00");
    let filter = DeadLetterFilter { stream: Some("órdér-1".into()), ..DeadLetterFilter::default() };
    assert_eq!(operator.dead_letters(&Selection::Matching(filter), 10).unwrap(), listed[..1]);
    assert_eq!(operator.attempts(positions[0]).unwrap()[0].uuid, uuid.to_string());
    for (position, was) in positions.into_iter().zip(["data was: {\"data\": \"é\"}", "data was: 0xff00"]) {
        assert!(operator.edit_dead_letter(position, "1", &by()).unwrap());
        let audit = operator.audit(10).unwrap();
        assert!(audit.iter().any(|record| record.detail == was), "{was}: {audit:?}");
    }
}

fn dead_letters_are_found_by_what_they_are<K: Kept>(kept: &K) {
    let with_name = |name: &str, stream| NewEvent { name: name.into(), ..event(stream, "{}") };
    let p = outbox(kept)
        .append(&[
            with_name("order.placed", "a"),
            with_name("order.paid", "b").with_tenant("acme"),
            NewEvent { stream_id: StreamId::from_name("invoices"), ..with_name("invoice.sent", "") },
        ])
        .unwrap();
    let strategy = kept.open();
    strategy.settle(&[failed(&strategy, p[0], 1, Fate::DeadLetter { park: false })]).unwrap();
    strategy.settle(&[failed(&strategy, p[1], 2, Fate::DeadLetter { park: false })]).unwrap();
    strategy.settle(&[failed(&strategy, p[2], 3, Fate::DeadLetter { park: false })]).unwrap();
    let find = |filter| -> Vec<i64> {
        let found = strategy.operator().dead_letters(&Selection::Matching(filter), 10).unwrap();
        found.iter().map(|dead| dead.position).collect()
    };
    let filter = DeadLetterFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(find(filter()), p);
    assert_eq!(find(DeadLetterFilter { name: text("order.paid"), ..filter() }), [p[1]]);
    assert_eq!(find(DeadLetterFilter { name: text("order.*"), ..filter() }), p[..2]);
    assert_eq!(find(DeadLetterFilter { name: text("order"), ..filter() }), [0_i64; 0]);
    assert_eq!(find(DeadLetterFilter { stream: text("a"), ..filter() }), [p[0]]);
    assert_eq!(find(DeadLetterFilter { stream: text("invoices"), ..filter() }), [p[2]]);
    assert_eq!(find(DeadLetterFilter { tenant: text("acme"), ..filter() }), [p[1]]);
    assert_eq!(find(DeadLetterFilter { since: Some(at(2)), ..filter() }), p[1..]);
    assert_eq!(find(DeadLetterFilter { reason: text("TRAP 3"), ..filter() }), [p[2]]);
    assert_eq!(find(DeadLetterFilter { reason: text("trapped"), name: text("order.*"), ..filter() }), p[..2]);
    let operator = strategy.operator();
    assert_eq!(operator.dead_letters(&Selection::all(), 2).unwrap().len(), 2);
    assert_eq!(operator.dead_letters(&Selection::Positions(vec![p[2], 999]), 10).unwrap().len(), 1);
    let acme = Selection::Matching(DeadLetterFilter { tenant: text("acme"), ..filter() });
    assert_eq!(operator.retry_dead_letters(&acme, &by()).unwrap(), [p[1]]);
}

fn a_retried_dead_letter_is_back_in_its_place<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a"]);
    let strategy = kept.open();
    let before = all(&strategy);
    let generation = strategy.generation().unwrap();
    bury(&strategy, p[0]);
    assert_eq!(strategy.generation().unwrap(), generation, "the relay's own doings are no operator's acts");
    let retried = strategy.operator().retry_dead_letters(&Selection::Positions(vec![p[0], 999]), &by()).unwrap();
    assert_eq!(retried, [p[0]]);
    assert_eq!(all(&strategy), before, "with its uuid, before what is behind it");
    assert_ne!(strategy.generation().unwrap(), generation);
    let held = strategy.held().unwrap();
    assert!(matches!(held[0].hold, Hold::Waiting { history: History { attempts: 0, host_deaths: 0 }, .. }), "{held:?}");
    assert_eq!(strategy.operator().attempts(p[0]).unwrap().len(), 1, "what is on record stays");
    let audit = strategy.operator().audit(10).unwrap();
    assert_eq!((audit.len(), audit[0].act.as_str(), audit[0].position), (1, "retry", Some(p[0])));
    assert_eq!((audit[0].who.as_str(), audit[0].at), ("ada", at(5_000)));
    assert!(audit[0].uuid.is_some());
    // Delivered at last, nothing is left of it.
    let report = outbox(kept).run(&|_: &Recorded| Ok(()), None).unwrap();
    assert_eq!(report.published, 2);
    assert_eq!(strategy.operator().attempts(p[0]).unwrap(), []);
    assert_eq!(strategy.held().unwrap(), []);
}

fn a_discarded_dead_letter_is_gone_and_on_record<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b"]);
    let strategy = kept.open();
    p.iter().for_each(|position| bury(&strategy, *position));
    assert_eq!(
        strategy.operator().discard_dead_letters(&Selection::Positions(vec![p[0], 999]), &by()).unwrap(),
        [p[0]]
    );
    let left = strategy.operator().dead_letters(&Selection::all(), 10).unwrap();
    assert_eq!(left.iter().map(|dead| dead.position).collect::<Vec<_>>(), [p[1]]);
    assert_eq!(strategy.operator().attempts(p[0]).unwrap(), []);
    let audit = strategy.operator().audit(10).unwrap();
    assert_eq!((audit.len(), audit[0].act.as_str(), audit[0].position), (1, "discard", Some(p[0])));
}

fn an_edited_dead_letter_has_the_new_data_and_the_old_is_on_record<K: Kept>(kept: &K) {
    let p = append(kept, &["a"]);
    let strategy = kept.open();
    bury(&strategy, p[0]);
    assert!(strategy.operator().edit_dead_letter(p[0], "{\"new\": 1}", &by()).unwrap());
    assert!(!strategy.operator().edit_dead_letter(999, "{}", &by()).unwrap());
    assert_eq!(strategy.operator().dead_letters(&Selection::all(), 1).unwrap()[0].data, "{\"new\": 1}");
    let audit = strategy.operator().audit(10).unwrap();
    assert_eq!((audit.len(), audit[0].act.as_str(), audit[0].detail.as_str()), (1, "edit", "data was: {}"));
}

fn a_parked_stream_is_held_until_its_dead_letter_is_settled<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "a", "b", "b"]);
    let strategy = kept.open();
    strategy.settle(&[failed(&strategy, p[0], 1, Fate::DeadLetter { park: true })]).unwrap();
    strategy.settle(&[failed(&strategy, p[2], 1, Fate::DeadLetter { park: true })]).unwrap();
    let parked = |strategy: &K::Strategy| -> Vec<i64> {
        let held = strategy.held().unwrap();
        held.iter().filter(|held| held.hold == Hold::Parked).map(|held| held.entry.position).collect()
    };
    assert_eq!(parked(&strategy), [p[0], p[2]]);
    let blocked = strategy.status().unwrap().blocked_streams;
    assert_eq!(
        blocked.iter().map(|it| (it.position, it.state)).collect::<Vec<_>>(),
        [(p[0], "parked"), (p[2], "parked")]
    );
    strategy.operator().discard_dead_letters(&Selection::Positions(vec![p[0]]), &by()).unwrap();
    strategy.operator().retry_dead_letters(&Selection::Positions(vec![p[2]]), &by()).unwrap();
    assert_eq!(parked(&strategy), [0_i64; 0]);
}

fn old_records_are_pruned_in_batches<K: Kept>(kept: &K) {
    let p = append(kept, &["a", "b", "c", "d", "e"]);
    let strategy = kept.open();
    let operator = strategy.operator();
    for (position, second) in p.iter().zip(1..4) {
        strategy.settle(&[failed(&strategy, *position, second, Fate::DeadLetter { park: false })]).unwrap();
    }
    strategy.settle(&[failed(&strategy, p[3], 9, Fate::DeadLetter { park: true })]).unwrap();
    strategy
        .settle(&[
            failed(&strategy, p[4], 2, Fate::Retry { at: at(9) }),
            failed(&strategy, p[4], 7, Fate::Retry { at: at(9) }),
        ])
        .unwrap();
    operator.edit_dead_letter(p[2], "1", &Act { at: at(1), ..by() }).unwrap();
    let keep = |seconds| Some(Duration::from_secs(seconds));
    let retention = Retention { dead_letters: keep(98), attempts: keep(95), audit: keep(50) };
    let now = Act { at: at(101), ..by() };
    let everything_old = Pruned { dead_letters: 2, attempts: 1, audit: 1 };
    assert_eq!(operator.prune(&retention, &now, 1, true).unwrap(), everything_old, "a dry run counts all");
    assert_eq!(operator.dead_letters(&Selection::all(), 10).unwrap().len(), 4, "and deletes none");
    assert_eq!(operator.prune(&Retention::default(), &now, 1, false).unwrap(), Pruned::default());
    assert_eq!(operator.prune(&retention, &now, 1, false).unwrap(), Pruned { dead_letters: 1, ..everything_old });
    assert_eq!(operator.prune(&retention, &now, 1, false).unwrap(), Pruned { dead_letters: 1, ..Pruned::default() });
    assert_eq!(operator.prune(&retention, &now, 1, false).unwrap(), Pruned::default());
    let left = operator.dead_letters(&Selection::all(), 10).unwrap();
    assert_eq!(left.iter().map(|dead| dead.position).collect::<Vec<_>>(), [p[2], p[3]]);
    assert_eq!(operator.attempts(p[0]).unwrap(), [], "they went with their dead letter");
    assert_eq!(operator.attempts(p[2]).unwrap().len(), 1);
    assert_eq!(operator.attempts(p[4]).unwrap().iter().map(|it| it.attempt).collect::<Vec<_>>(), [7]);
    let acts: Vec<_> = operator.audit(10).unwrap().into_iter().map(|record| (record.act, record.who)).collect();
    assert_eq!(acts, [("prune".into(), "ada".into()), ("prune".into(), "ada".into())]);
    let parked = Retention { dead_letters: Some(Duration::ZERO), ..Retention::default() };
    operator.prune(&parked, &Act { at: at(1_000_000), ..by() }, 100, false).unwrap();
    assert_eq!(operator.dead_letters(&Selection::all(), 10).unwrap()[0].position, p[3], "it parks a stream");
}

fn there_is_one_lease_and_it_ends<K: Kept>(kept: &K) {
    let (one, other) = (kept.open(), kept.open());
    let lease = one.lease().unwrap();
    lease.check().unwrap();
    assert!(other.lease().is_err_and(|error| error.is_leased()));
    assert!(outbox(kept).run(&|_: &Recorded| Ok(()), None).is_err_and(|error| error.is_leased()));
    drop(lease);
    other.lease().unwrap();
}

fn calls_under_way_outlive_their_lease<K: Kept>(kept: &K) {
    let (one, other) = (kept.open(), kept.open());
    let lease = one.lease().unwrap();
    lease.mark(0, &[3]);
    lease.mark(1, &[9, 8]);
    lease.mark(0, &[4]);
    lease.mark(2, &[1]);
    lease.mark(2, &[]);
    drop(lease);
    let lease = other.lease().unwrap();
    assert_eq!(lease.interrupted(), [4, 8, 9]);
    lease.clear();
    assert_eq!(lease.interrupted(), [0_i64; 0]);
}

fn a_watch_notices_what_another_does<K: Kept>(kept: &K) {
    let mut watch = kept.open().watch().unwrap();
    assert!(!watch.wait(Duration::from_millis(1)));
    append(kept, &["a"]);
    assert!(watch.wait(Duration::from_secs(10)));
    std::thread::scope(|scope| {
        let noticed = scope.spawn(move || watch.wait(Duration::from_secs(10)));
        append(kept, &["a"]);
        assert!(noticed.join().unwrap());
    });
}

fn the_relays_state_is_shown_while_it_has_the_lease<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let state = RelayState { pid: 7, state: RelayCondition::Paused, since: at(3), reason: "closed".into() };
    let lease = strategy.lease().unwrap();
    lease.show(&state);
    assert_eq!(kept.open().status().unwrap().relay, Some(state));
    drop(lease);
    assert_eq!(kept.open().status().unwrap().relay, None);
}

/// The storage that keeps nothing: whatever is done with it, there is nothing.
#[test]
fn no_outbox_takes_every_event_and_calls_nobody() {
    let outbox = Outbox::new(NoOutbox, JsonSerde);
    assert_eq!(outbox.append(&[event("a", "{}")]).unwrap(), [0_i64; 0]);
    let report = outbox.run(&|_: &Recorded| panic!("nothing is ever published"), None).unwrap();
    assert_eq!(report.published, 0);
    let strategy = outbox.strategy();
    strategy.settle(&[delivered(strategy, 1), failed(strategy, 2, 1, Fate::DeadLetter { park: true })]).unwrap();
    assert_eq!(positions(strategy), [0_i64; 0]);
    assert_eq!(strategy.status().unwrap(), Status::default());
    assert_eq!(strategy.operator().dead_letters(&Selection::all(), 10).unwrap(), []);
    assert!(!strategy.watch().unwrap().wait(Duration::ZERO));
}

/// Of SQLite only: nobody can delete anything from another one's memory.
#[test]
fn an_entry_that_waits_and_is_deleted_by_hand_holds_nothing_back() {
    let kept = outbox_tests::outboxes::Sqlite::new();
    let strategy = kept.open();
    let position = append(&kept, &["a"])[0];
    strategy.settle(&[failed(&strategy, position, 1, Fate::Retry { at: at(9) })]).unwrap();
    assert_eq!((strategy.held().unwrap().len(), strategy.status().unwrap().waiting), (1, 1));
    kept.connection().execute("DELETE FROM outbox", []).unwrap();
    assert_eq!((strategy.held().unwrap().len(), strategy.status().unwrap().waiting), (0, 0));
    assert_eq!(strategy.status().unwrap().blocked_streams, []);
}
