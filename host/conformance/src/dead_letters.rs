//! Dead letters, and what an operator does with them.

use std::time::Duration;

use outbox_engine::outbox::{Act, DeadLetterFilter, Fate, Hold, Pruned, Retention, Selection, StreamState};
use outbox_engine::{Field, History, NewEvent, OutboxStorageStrategy, Recorded, Row, StreamId};

use crate::TestStorage;
use crate::helpers::{all, all_held, append, at, bury, by, event, failed, outbox, positions, row, settle};

pub fn a_dead_letter_is_kept_whole<S: TestStorage>(kept: &S) {
    let new = NewEvent { context: "{\"a\":1}".into(), version: Some(3), ..event("a", "{\"x\": 1.0}") };
    let new = NewEvent { stream_id: StreamId::from_name("n").with_category("c"), ..new };
    let position = outbox(kept).append(&[NewEvent { uuid: Some(uuid::Uuid::from_u128(9)), ..new }]).unwrap()[0];
    let strategy = kept.open();
    settle(&strategy, &[failed(&strategy, position, 1, Fate::Retry { at: at(1) })]);
    settle(&strategy, &[failed(&strategy, position, 2, Fate::DeadLetter { park: false })]);
    assert_eq!((positions(&strategy), all_held(&strategy)), (vec![], vec![]));
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

/// A row that cannot be decoded can become a dead letter, be shown and retried, and is then the same row as before.
pub fn any_row_survives_its_death<S: TestStorage>(kept: &S) {
    if !S::TAKES_ANYTHING {
        return;
    }
    let odd = Row {
        name: Field::Null,
        uuid: Field::Bytes(vec![1, 2, 3].into()),
        stream_name: Field::Bytes(vec![0xff].into()),
        version: Field::Real(1.5),
        data: Field::Bytes(vec![0, 1].into()),
        tenant_id: Field::Null,
        context: Field::Null,
        publish_after: Field::Integer(7),
        expires_at: "never".into(),
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

/// A language may bind its strings as bytes. However they are kept, each storage shows and finds them in the same way.
pub fn bytes_that_are_text_are_shown_as_text<S: TestStorage>(kept: &S) {
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

pub fn dead_letters_are_found_by_what_they_are<S: TestStorage>(kept: &S) {
    let with_name = |name: &str, stream| NewEvent { name: name.into(), ..event(stream, "{}") };
    let p = outbox(kept)
        .append(&[
            with_name("order.placed", "a"),
            with_name("order.paid", "b").with_tenant("acme"),
            NewEvent { stream_id: StreamId::from_name("invoices"), ..with_name("invoice.sent", "") },
        ])
        .unwrap();
    let strategy = kept.open();
    settle(&strategy, &[failed(&strategy, p[0], 1, Fate::DeadLetter { park: false })]);
    settle(&strategy, &[failed(&strategy, p[1], 2, Fate::DeadLetter { park: false })]);
    settle(&strategy, &[failed(&strategy, p[2], 3, Fate::DeadLetter { park: false })]);
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

pub fn a_retried_dead_letter_is_back_in_its_place<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "a"]);
    let strategy = kept.open();
    let before = all(&strategy);
    let drain = strategy.drain().unwrap();
    drain.settle(&[failed(&strategy, p[0], 1, Fate::DeadLetter { park: false })]).unwrap();
    assert!(!drain.must_reload().unwrap(), "the relay's own doings are no operator's acts");
    let retried = strategy.operator().retry_dead_letters(&Selection::Positions(vec![p[0], 999]), &by()).unwrap();
    assert_eq!(retried, [p[0]]);
    assert!(drain.must_reload().unwrap());
    assert!(!drain.must_reload().unwrap(), "it says so once");
    drop(drain);
    assert_eq!(all(&strategy), before, "with its uuid, before what is behind it");
    let held = all_held(&strategy);
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
    assert_eq!(all_held(&strategy), []);
}

pub fn a_discarded_dead_letter_is_gone_and_on_record<S: TestStorage>(kept: &S) {
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

pub fn an_edited_dead_letter_has_the_new_data_and_the_old_is_on_record<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a"]);
    let strategy = kept.open();
    bury(&strategy, p[0]);
    assert!(strategy.operator().edit_dead_letter(p[0], "{\"new\": 1}", &by()).unwrap());
    assert!(!strategy.operator().edit_dead_letter(999, "{}", &by()).unwrap());
    assert_eq!(strategy.operator().dead_letters(&Selection::all(), 1).unwrap()[0].data, "{\"new\": 1}");
    let audit = strategy.operator().audit(10).unwrap();
    assert_eq!((audit.len(), audit[0].act.as_str(), audit[0].detail.as_str()), (1, "edit", "data was: {}"));
}

pub fn a_parked_stream_is_held_until_its_dead_letter_is_settled<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "a", "b", "b"]);
    let strategy = kept.open();
    settle(&strategy, &[failed(&strategy, p[0], 1, Fate::DeadLetter { park: true })]);
    settle(&strategy, &[failed(&strategy, p[2], 1, Fate::DeadLetter { park: true })]);
    let parked = |strategy: &S::Strategy| -> Vec<i64> {
        let held = all_held(strategy);
        held.iter().filter(|held| held.hold == Hold::Parked).map(|held| held.entry.position).collect()
    };
    assert_eq!(parked(&strategy), [p[0], p[2]]);
    let blocked = strategy.status().unwrap().blocked_streams;
    assert_eq!(
        blocked.iter().map(|it| (it.position, it.state)).collect::<Vec<_>>(),
        [(p[0], StreamState::Parked), (p[2], StreamState::Parked)]
    );
    strategy.operator().discard_dead_letters(&Selection::Positions(vec![p[0]]), &by()).unwrap();
    strategy.operator().retry_dead_letters(&Selection::Positions(vec![p[2]]), &by()).unwrap();
    assert_eq!(parked(&strategy), [0_i64; 0]);
}

pub fn old_records_are_pruned_in_batches<S: TestStorage>(kept: &S) {
    let p = append(kept, &["a", "b", "c", "d", "e"]);
    let strategy = kept.open();
    let operator = strategy.operator();
    for (position, second) in p.iter().zip(1..4) {
        settle(&strategy, &[failed(&strategy, *position, second, Fate::DeadLetter { park: false })]);
    }
    settle(&strategy, &[failed(&strategy, p[3], 9, Fate::DeadLetter { park: true })]);
    settle(
        &strategy,
        &[failed(&strategy, p[4], 2, Fate::Retry { at: at(9) }), failed(&strategy, p[4], 7, Fate::Retry { at: at(9) })],
    );
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
