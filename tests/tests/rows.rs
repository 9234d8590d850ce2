//! Rows as applications of every kind write them: what each value of each column becomes, and which stream it names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outbox_host::outbox::{DeadLetterFilter, Hold, Page, PageBounds, Selection};
use outbox_host::{
    EntryId, Field, JsonSerde, NewEvent, OnDeadLetter, Outbox, OutboxStorageStrategy, Payload, PublishError, RawEntry,
    Recorded, RelayOptions, Row, StreamId, StreamKey,
};
use outbox_tests::act;
use outbox_tests::memory::MIB;
use outbox_tests::outboxes::{Kept, event, row};

outbox_tests::for_each_storage! {
    the_library_and_the_insert_take_an_empty_text_for_the_same
    what_is_read_is_counted_whole
    what_is_too_long_is_not_read
    the_first_and_the_last_position_are_positions
    a_list_tells_only_the_length_of_what_is_long
}

// A table with types refuses such rows.
outbox_tests::for_each_untyped_storage! {
    each_value_becomes_what_the_table_says
    streams_are_told_apart_by_what_they_are_decoded_to
    one_stream_that_fails_holds_up_no_other
    a_row_whose_stream_cannot_be_told_is_in_nobodys_way
    each_column_can_be_mended
}

const ALL: PageBounds = PageBounds { read_max: 1_000, bytes_max: usize::MAX, looked_at_max: 1_000 };

fn all(strategy: &impl OutboxStorageStrategy) -> Vec<RawEntry> {
    strategy.drain().unwrap().next_page(ALL, &mut |_, _| true).unwrap().entries
}

fn bytes(bytes: impl Into<Vec<u8>>) -> Field<'static> {
    Field::Bytes(bytes.into().into())
}

fn no_utf_8() -> Field<'static> {
    Field::Text(vec![0x66, 0xff].into())
}

const UUID: &str = "11111111-1111-1111-1111-111111111111";

/// A change of a good row, and its result: some decoded values, or the beginning of the reason.
type Case = (&'static str, fn(&mut Row<'static>), Result<fn(&Recorded) -> String, &'static str>, &'static str);

fn cases() -> Vec<Case> {
    let stream = |it: &Recorded| it.stream_id.id.clone();
    let tenant = |it: &Recorded| it.tenant_id.clone();
    let name = |it: &Recorded| format!("{:?}", it.stream_id.name);
    let category = |it: &Recorded| format!("{:?}", it.stream_id.category);
    let context = |it: &Recorded| it.wrapped_event.context.clone();
    let time = |it: &Recorded| it.wrapped_event.created_at.clone();
    let version = |it: &Recorded| format!("{:?}", it.wrapped_event.version);
    let data = |it: &Recorded| match &it.wrapped_event.data {
        Payload::Json(json) => json.clone(),
        Payload::Binary { content_type, bytes } => format!("{content_type}: {bytes:?}"),
    };
    vec![
        ("an integer", |row| row.stream_id = Field::Integer(-7), Ok(stream), "-7"),
        ("a real number", |row| row.stream_id = Field::Real(1.5), Ok(stream), "1.5"),
        ("a whole real number", |row| row.stream_id = Field::Real(42.0), Ok(stream), "42"),
        ("the 16 bytes of a UUID", |row| row.stream_id = bytes([0x11; 16]), Ok(stream), UUID),
        ("other bytes", |row| row.stream_id = bytes(*b"order-1"), Err("stream_id: text, a number or the 16 bytes"), ""),
        ("infinity", |row| row.stream_id = Field::Real(f64::INFINITY), Err("stream_id: text in UTF-8 is expected"), ""),
        ("no UTF-8", |row| row.stream_id = no_utf_8(), Err("stream_id: text in UTF-8 is expected, not text in an"), ""),
        ("no stream", |row| row.stream_id = "".into(), Err("stream_id: it is empty"), ""),
        ("a tenant that is a number", |row| row.tenant_id = Field::Integer(7), Ok(tenant), "7"),
        ("a tenant of 16 bytes", |row| row.tenant_id = bytes([0x11; 16]), Ok(tenant), UUID),
        ("an empty tenant", |row| row.tenant_id = "".into(), Ok(tenant), "default"),
        ("a tenant that is NULL", |row| row.tenant_id = Field::Null, Ok(tenant), "default"),
        ("a tenant that is none", |row| row.tenant_id = bytes([1]), Err("tenant_id: "), ""),
        ("an empty stream name", |row| row.stream_name = "".into(), Ok(name), "None"),
        ("an empty category", |row| row.category = "".into(), Ok(category), "None"),
        ("an empty content type", |row| row.content_type = "".into(), Ok(data), "{}"),
        ("a blank content type", |row| row.content_type = " ".into(), Ok(data), "{}"),
        ("an empty context", |row| row.context = "".into(), Ok(context), "{}"),
        ("a blank context", |row| row.context = " \n".into(), Ok(context), "{}"),
        ("SQLAlchemy's None", |row| row.context = "null".into(), Ok(context), "{}"),
        ("null with spaces", |row| row.context = " null\n".into(), Ok(context), "{}"),
        ("a context in a blob", |row| row.context = bytes(*b"{\"a\": 1}"), Ok(context), "{\"a\": 1}"),
        ("null in a blob", |row| row.context = bytes(*b"null"), Ok(context), "{}"),
        ("an empty blob", |row| row.context = bytes([]), Ok(context), "{}"),
        ("a context that is a number", |row| row.context = Field::Integer(1), Err("context: it is not a JSON obj"), ""),
        ("a context that is nullish", |row| row.context = "nul".into(), Err("context: it is not a JSON object"), ""),
        (
            "a context of JSONB",
            |row| row.context = bytes([0x0c]),
            Err("context: it is a blob in SQLite's own JSONB"),
            "",
        ),
        (
            "data of JSONB",
            |row| row.data = bytes([0x4c, 0x17, 0x61, 0x13, 0x31]),
            Err("data: data is a blob in SQLite's own JSONB"),
            "",
        ),
        ("data that is JSON's null", |row| row.data = "null".into(), Ok(data), "null"),
        ("data that is a real number", |row| row.data = Field::Real(42.0), Ok(data), "42.0"),
        ("a version that is real", |row| row.version = Field::Real(3.0), Ok(version), "Some(3)"),
        ("the last version", |row| row.version = Field::Integer(i64::MAX), Ok(version), "Some(9223372036854775807)"),
        ("a version with a fraction", |row| row.version = Field::Real(3.5), Err("version: a whole number"), ""),
        ("an empty uuid", |row| row.uuid = "".into(), Err("uuid: it is empty: leave it out"), ""),
        ("an empty time", |row| row.created_at = "".into(), Err("created_at: `` is no date and time: write it"), ""),
        (
            "a number of seconds",
            |row| row.created_at = Field::Integer(5),
            Err("created_at: a date and time is exp"),
            "",
        ),
        (
            "the end of time",
            |row| row.created_at = "9999-12-31T23:59:59.999Z".into(),
            Err("created_at: 9999-12-31T23:59:59.999Z is out of range: the earliest time is 0000-01-01T00:00:00Z"),
            "",
        ),
        (
            "before the year 0",
            |row| row.created_at = "-000001-01-01T00:00:00Z".into(),
            Err("created_at: -000001-01-01T00:00:00Z is out of range"),
            "",
        ),
        ("Go's zero", |row| row.created_at = "0001-01-01T00:00:00Z".into(), Ok(time), "0001-01-01T00:00:00Z"),
        (
            "Go's own form",
            |row| row.created_at = "2026-01-31 12:00:00.5 +0100 CET m=+0.01".into(),
            Ok(time),
            "2026-01-31T11:00:00.5Z",
        ),
        (
            "Django's",
            |row| row.created_at = "2026-01-31 12:00:00.123456".into(),
            Ok(time),
            "2026-01-31T12:00:00.123456Z",
        ),
        (
            "a zone and no offset",
            |row| row.created_at = "2026-01-31T12:00:00[Europe/Paris]".into(),
            Err("created_at: `2026-01-31T12:00:00[Europe/Paris]` is no date"),
            "",
        ),
    ]
}

fn each_value_becomes_what_the_table_says<K: Kept>(kept: &K) {
    kept.loosen();
    for (what, change, becomes, expected) in cases() {
        let mut changed = row("s");
        change(&mut changed);
        kept.insert(changed);
        let entry = all(&kept.open()).pop().unwrap();
        let decoded = entry.decode(1, &JsonSerde).map_err(|error| error.to_string());
        match (becomes, decoded) {
            (Ok(of), Ok(recorded)) => assert_eq!(of(&recorded), expected, "{what}"),
            (Err(reason), Err(said)) => assert!(said.starts_with(reason), "{what}: {said}"),
            (_, decoded) => panic!("{what}: {decoded:?}"),
        }
    }
}

/// Values that stand for one stream each, and one name for all of them.
fn streams() -> Vec<(&'static str, Vec<Field<'static>>)> {
    vec![
        ("42", vec!["42".into(), Field::Integer(42), Field::Real(42.0)]),
        ("43", vec![Field::Integer(43), "43".into()]),
        ("1.5", vec![Field::Real(1.5), "1.5".into()]),
        ("2.5", vec![Field::Real(2.5)]),
        ("0", vec![Field::Integer(0), Field::Real(0.0), Field::Real(-0.0)]),
        ("-9223372036854775808", vec![Field::Integer(i64::MIN)]),
        ("9223372036854775807", vec![Field::Integer(i64::MAX), "9223372036854775807".into()]),
        (UUID, vec![bytes([0x11; 16]), UUID.into()]),
        ("22222222-2222-2222-2222-222222222222", vec![bytes([0x22; 16])]),
        ("order-1", vec!["order-1".into()]),
        ("a\0", vec!["a\0".into()]),
        ("a", vec!["a".into()]),
    ]
}

/// Values that name no stream.
fn nothings() -> Vec<Field<'static>> {
    vec![Field::Null, "".into(), bytes([0xff; 15]), bytes([]), no_utf_8(), Field::Real(f64::INFINITY)]
}

fn outbox<K: Kept>(kept: &K, on_dead_letter: OnDeadLetter) -> Outbox<K::Strategy> {
    Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions { on_dead_letter, ..RelayOptions::default() })
}

fn later() -> PublishError {
    PublishError::Retryable { reason: "later".into(), after: Some(Duration::from_secs(3_600)) }
}

/// Wherever a stream is compared, its key is that of what it is decoded to.
fn streams_are_told_apart_by_what_they_are_decoded_to<K: Kept>(kept: &K) {
    kept.loosen();
    let mut expected = BTreeMap::new();
    for tenants in [("default", vec![Field::Null, "".into(), "default".into()]), ("7", vec![Field::Integer(7)])] {
        for (stream, forms) in streams() {
            for (tenant_id, stream_id) in tenants.1.iter().flat_map(|tenant| forms.iter().map(move |it| (tenant, it))) {
                let row = Row { tenant_id: tenant_id.clone(), stream_id: stream_id.clone(), ..row("") };
                let key = StreamKey::of(tenants.0.as_bytes(), stream.as_bytes());
                expected.insert(kept.insert(row), (tenants.0, stream, key));
            }
        }
    }
    let strategy = kept.open();
    let keys = expected.iter().map(|(position, (.., key))| (*position, *key)).collect::<BTreeMap<_, _>>();
    let mut seen = BTreeMap::new();
    let mut wanted = |entry: EntryId, key| seen.insert(entry.position, key).is_none();
    let entries = strategy.drain().unwrap().next_page(ALL, &mut wanted).unwrap();
    assert_eq!(seen, keys, "while a page is read");
    let of_entries = entries.entries.iter().map(|entry| (entry.position, entry.stream_key()));
    assert_eq!(of_entries.collect::<BTreeMap<_, _>>(), keys, "of an entry that was read");

    // With no order each of them is tried, and waits.
    let unordered = RelayOptions { ordering: outbox_host::Ordering::None, ..RelayOptions::default() };
    let report = Outbox::new(kept.open(), JsonSerde)
        .with_options(unordered)
        .run(
            &|event: &Recorded| {
                let (tenant, stream, _) = expected[&i64::try_from(event.position).unwrap()];
                assert_eq!((event.tenant_id.as_str(), event.stream_id.id.as_str()), (tenant, stream));
                Err(later())
            },
            1_000,
        )
        .unwrap();
    assert_eq!(report.to_be_retried, expected.len() as u64);
    let held = strategy.drain().unwrap().held().unwrap().into_iter().map(|held| (held.entry.position, held.stream));
    assert_eq!(held.collect::<BTreeMap<_, _>>(), keys, "of what waits");
    let names: BTreeSet<(&str, &str)> = expected.values().map(|(tenant, stream, _)| (*tenant, *stream)).collect();
    let status = strategy.status().unwrap();
    assert_eq!((status.waiting, status.blocked_streams_total), (expected.len() as u64, names.len() as u64));
    for blocked in status.blocked_streams {
        assert!(names.contains(&(blocked.tenant_id.as_str(), blocked.stream_id.as_str())), "{blocked:?}");
    }
}

/// While one of them waits, and while one is parked.
fn one_stream_that_fails_holds_up_no_other<K: Kept>(kept: &K) {
    kept.loosen();
    let forms: Vec<(&str, Field<'static>)> =
        streams().into_iter().flat_map(|(name, forms)| forms.into_iter().map(move |form| (name, form))).collect();
    let mut position_of_first = 0;
    for (_, stream_id) in &forms {
        let position = kept.insert(Row { stream_id: stream_id.clone(), ..row("") });
        position_of_first = if position_of_first == 0 { position } else { position_of_first };
    }
    let reject_first = |event: &Recorded| match i64::try_from(event.position) == Ok(position_of_first) {
        true => Err(PublishError::rejected("never")),
        false => Ok(()),
    };
    let report = outbox(kept, OnDeadLetter::Park).run(&reject_first, 1_000).unwrap();
    let of_the_first = forms.iter().filter(|(name, _)| *name == forms[0].0).count() as u64;
    assert_eq!((report.dead_lettered, report.published), (1, forms.len() as u64 - of_the_first));
    let strategy = kept.open();
    let held = strategy.drain().unwrap().held().unwrap();
    assert_eq!((held.len(), held[0].hold, held[0].stream), (1, Hold::Parked, StreamKey::of(b"default", b"42")));
    let status = strategy.status().unwrap();
    assert_eq!((status.blocked_streams_total, status.blocked_streams[0].stream_id.as_str()), (1, "42"));

    // Each form of it is found by its name, and goes on.
    let find = |stream: &str| {
        let filter = DeadLetterFilter { stream: Some(stream.into()), ..DeadLetterFilter::default() };
        strategy.operator().dead_letters(&Selection::Matching(filter), 100).unwrap()
    };
    assert_eq!((find("42").len(), find("43").len()), (1, 0));
    strategy.operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
    let reject_all = |_: &Recorded| Err(PublishError::rejected("never"));
    let report = outbox(kept, OnDeadLetter::Continue).run(&reject_all, 1_000).unwrap();
    assert_eq!(report.dead_lettered, of_the_first);
    assert_eq!(find("42").len() as u64, of_the_first, "as text, as a number, as a real number");
}

/// Neither of those that tell no stream either: each is set aside by itself.
fn a_row_whose_stream_cannot_be_told_is_in_nobodys_way<K: Kept>(kept: &K) {
    kept.loosen();
    let mut rows = 0;
    for stream_id in nothings().into_iter().chain(nothings()) {
        kept.insert(Row { stream_id, ..row("") });
        rows += 1;
    }
    kept.insert(Row { tenant_id: bytes([1]), ..row("s") });
    kept.insert(row("s"));
    let strategy = kept.open();
    let keys: BTreeSet<u64> = all(&strategy).iter().map(|entry| entry.stream_key().0).collect();
    assert_eq!(keys.len(), rows + 2, "each has a stream of its own");
    let report = outbox(kept, OnDeadLetter::Park).run(&|_: &Recorded| Ok(()), 1_000).unwrap();
    assert_eq!((report.dead_lettered, report.published), (rows as u64 + 1, 1));
    let status = strategy.status().unwrap();
    assert_eq!((status.dead_letters, status.blocked_streams_total), (rows as u64 + 1, 0), "they park nobody");
    let dead = strategy.operator().dead_letters(&Selection::all(), 1_000).unwrap();
    assert!(dead.iter().all(|dead| !dead.parks_stream && dead.outcome == "undecodable"));
    strategy.operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
    let report = outbox(kept, OnDeadLetter::Park).run(&|_: &Recorded| Ok(()), 1_000).unwrap();
    assert_eq!(report.dead_lettered, rows as u64 + 1);
}

fn the_library_and_the_insert_take_an_empty_text_for_the_same<K: Kept>(kept: &K) {
    let empty = NewEvent {
        tenant_id: "".into(),
        context: "".into(),
        stream_id: StreamId { id: "s".into(), name: Some("".into()), category: Some("".into()) },
        ..event("s", "1")
    };
    let null = NewEvent { context: " null ".into(), ..empty.clone() };
    let outbox = Outbox::new(kept.open(), JsonSerde);
    outbox.append(&[empty, null]).unwrap();
    let text = || Field::from("");
    kept.insert(Row { tenant_id: text(), context: text(), stream_name: text(), category: text(), ..row("s") });
    let entries = all(&kept.open());
    for entry in entries {
        let position = entry.position;
        assert_eq!(entry.stream_key(), StreamKey::of(b"default", b"s"), "{position}");
        let event = entry.decode(1, &JsonSerde).unwrap();
        assert_eq!((event.tenant_id.as_str(), event.wrapped_event.context.as_str()), ("default", "{}"), "{position}");
        assert_eq!(event.stream_id, StreamId::new("s"), "{position}");
    }
    let untyped = NewEvent { data: Payload::Binary { content_type: "".into(), bytes: vec![0xff] }, ..event("s", "1") };
    let refused = outbox.append(&[untyped]).unwrap_err().to_string();
    assert!(refused.contains("content_type"), "{refused}");
}

/// Not the data alone: a page, and with it what a relay keeps, has an end whichever column is the large one.
fn what_is_read_is_counted_whole<K: Kept>(kept: &K) {
    let large = "x".repeat(MIB / 4);
    let field = || Field::from(large.as_str());
    for _ in 0..20 {
        kept.insert(Row { stream_name: field(), category: field(), name: field(), content_type: field(), ..row("s") });
    }
    let bounds = PageBounds { bytes_max: 3 * MIB, ..ALL };
    let page = kept.open().drain().unwrap().next_page(bounds, &mut |_, _| true).unwrap();
    assert_eq!((page.entries.len(), page.end), (3, false));
}

fn what_is_too_long_is_not_read<K: Kept>(kept: &K) {
    let (long, longer) = ("x".repeat(MIB + 1), " ".repeat(32 * MIB + 1));
    kept.insert(Row { name: long.as_str().into(), ..row("s") });
    kept.insert(Row { stream_id: long.as_str().into(), ..row("") });
    kept.insert(Row { data: longer.as_str().into(), ..row("s") });
    let largest = format!("\"{}\"", "x".repeat(32 * MIB - 2));
    kept.insert(Row { data: largest.as_str().into(), name: long[..MIB].into(), ..row("s") });
    kept.insert(row("s"));
    let report = outbox(kept, OnDeadLetter::Continue)
        .run(
            &|event: &Recorded| {
                assert!(event.position >= 4);
                Ok(())
            },
            None,
        )
        .unwrap();
    assert_eq!((report.dead_lettered, report.published), (3, 2));
    let strategy = kept.open();
    let dead = strategy.operator().dead_letters(&Selection::all(), 10).unwrap();
    let reasons: Vec<&str> = dead.iter().map(|dead| dead.reason.as_str()).collect();
    for (reason, column) in reasons.iter().zip(["name: 1048577 bytes", "stream_id: 1048577 bytes", "data: 33554433 b"])
    {
        assert!(reason.starts_with(column), "{reason}");
    }
    assert_eq!((dead[0].name.as_str(), dead[1].stream_id.as_str()), ("(1048577 bytes)", "(1048577 bytes)"));
    // They are still there, whole, whatever is shown of them.
    strategy.operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
    assert_eq!(all(&strategy).len(), 3);
}

fn the_first_and_the_last_position_are_positions<K: Kept>(kept: &K) {
    let strategy = kept.open();
    kept.insert(row("s"));
    let drain = strategy.drain().unwrap();
    let page = |from| {
        drain.rewind(from);
        drain.next_page(ALL, &mut |_, _| true).unwrap()
    };
    let read = |page: Page| (page.entries.len(), page.end);
    assert_eq!(read(page(i64::MAX)), (1, false));
    assert_eq!(read(page(i64::MAX)), (0, true));
    assert_eq!([2, 1, 0, i64::MIN].map(|from| read(page(from)).0), [0, 1, 1, 1]);
}

fn a_list_tells_only_the_length_of_what_is_long<K: Kept>(kept: &K) {
    let long = format!("\"{}\"", "x".repeat(100_000));
    let position = kept.insert(Row { data: long.as_str().into(), stream_name: long.as_str().into(), ..row("s") });
    let reject = |_: &Recorded| Err(PublishError::rejected("never"));
    outbox(kept, OnDeadLetter::Continue).run(&reject, None).unwrap();
    let strategy = kept.open();
    let listed = &strategy.operator().dead_letters(&Selection::all(), 1).unwrap()[0];
    assert_eq!((listed.data.as_str(), listed.stream_name.as_deref()), ("(100002 bytes)", Some("(100002 bytes)")));
    let whole = strategy.operator().dead_letter(&Selection::Positions(vec![position])).unwrap().unwrap();
    assert_eq!((&whole.data, whole.stream_name.as_ref()), (&long, Some(&long)));
    assert_eq!(strategy.operator().dead_letter(&Selection::Positions(vec![position + 1])).unwrap(), None);
    // What is not listed is compared all the same.
    let filter = DeadLetterFilter { stream: Some(long), ..DeadLetterFilter::default() };
    assert_eq!(strategy.operator().dead_letters(&Selection::Matching(filter), 1).unwrap().len(), 1);
    let behind = |after| Selection::Matching(DeadLetterFilter { after: Some(after), ..DeadLetterFilter::default() });
    assert_eq!(strategy.operator().dead_letters(&behind(position - 1), 1).unwrap().len(), 1);
    assert_eq!(strategy.operator().dead_letters(&behind(position), 1).unwrap().len(), 0);
    assert_eq!(strategy.operator().dead_letters(&behind(i64::MAX), 1).unwrap().len(), 0);
}

fn each_column_can_be_mended<K: Kept>(kept: &K) {
    use outbox_host::Column;
    kept.loosen();
    let bad = Row {
        tenant_id: bytes([1]),
        stream_id: Field::Null,
        stream_name: no_utf_8(),
        category: bytes([2]),
        uuid: "seven".into(),
        name: "".into(),
        version: "v1".into(),
        created_at: "yesterday".into(),
        content_type: bytes([3]),
        context: "[]".into(),
        data: "{".into(),
        publish_after: bytes([4]),
        expires_at: "tomorrow".into(),
    };
    let position = kept.insert(bad);
    let report = outbox(kept, OnDeadLetter::Continue).run(&|_: &Recorded| Ok(()), None).unwrap();
    assert_eq!(report.outcomes["undecodable"], 1);
    let strategy = kept.open();
    let operator = strategy.operator();
    let good = row("s");
    let mended = [
        (Column::TenantId, good.tenant_id),
        (Column::StreamId, good.stream_id),
        (Column::StreamName, Field::Null),
        (Column::Category, "c".into()),
        (Column::Uuid, UUID.into()),
        (Column::Name, good.name),
        (Column::Version, Field::Integer(3)),
        (Column::CreatedAt, good.created_at),
        (Column::ContentType, Field::Null),
        (Column::Context, good.context),
        (Column::PublishAfter, Field::Null),
        (Column::ExpiresAt, "2999-01-31T12:00:00Z".into()),
    ];
    assert!(operator.mend_dead_letter(position, &mended, &act()).unwrap());
    assert!(operator.edit_dead_letter(position, "{\"a\": 1}", &act()).unwrap());
    assert!(!operator.mend_dead_letter(position + 1, &mended, &act()).unwrap());
    let said: Vec<String> = operator.audit(20).unwrap().into_iter().rev().map(|record| record.detail).collect();
    let expected = [
        "tenant_id was: \u{1}",
        "stream_id was: ",
        "stream_name was: 0x66ff",
        "category was: \u{2}",
        "uuid was: seven",
        "name was: ",
        "version was: v1",
        "created_at was: yesterday",
        "content_type was: \u{3}",
        "context was: []",
        "publish_after was: \u{4}",
        "expires_at was: tomorrow",
        "data was: {",
    ];
    assert_eq!(said, expected, "what it was is on record");
    operator.retry_dead_letters(&Selection::all(), &act()).unwrap();
    let report = outbox(kept, OnDeadLetter::Continue)
        .run(
            &|event: &Recorded| {
                let wrapped = &event.wrapped_event;
                assert_eq!((wrapped.uuid.to_string().as_str(), wrapped.version), (UUID, Some(3)));
                assert_eq!(
                    (wrapped.data.clone(), event.stream_id.category.as_deref()),
                    (Payload::Json("{\"a\": 1}".into()), Some("c"))
                );
                Ok(())
            },
            None,
        )
        .unwrap();
    assert_eq!(report.published, 1);
}
