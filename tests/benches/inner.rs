//! The inner parts of a relay, each alone: `cargo bench --workspace --bench inner [NAME]`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outbox_host::outbox::{OutboxStorageStrategy, PageBounds, Settled};
use outbox_host::publisher::component::{ComponentPublisher, Isolation, Settings};
use outbox_host::{JsonSerde, Outcome, Publisher, RawEntry, Row, SqliteOutbox};
use outbox_tests::guest;
use outbox_tests::outboxes::{Kept, Sqlite, entry_at, recorded, row};

/// The most entries that the relay commits at once.
const GROUP: u16 = 1_000;

criterion_group!(inner, call, decode, settle);
criterion_main!(inner);

/// One call of a component that does nothing, with data of several sizes, and in an instance of its own.
fn call(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("call");
    let per_event = Settings { isolation: Isolation::PerEvent, ..Settings::default() };
    let cases = [
        ("no data", 0, Settings::default()),
        ("1 KiB", 1_024, Settings::default()),
        ("16 KiB", 16 * 1_024, Settings::default()),
        ("1 KiB, an instance for each", 1_024, per_event),
    ];
    for (name, bytes, settings) in cases {
        let publisher = ComponentPublisher::load(&guest("noop"), settings).unwrap();
        let event = recorded(format!("\"{}\"", "x".repeat(bytes)));
        let time = async |calls| {
            let began = Instant::now();
            for _ in 0..calls {
                assert_eq!(publisher.publish(&event).await.outcome, Outcome::Delivered);
            }
            began.elapsed()
        };
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| runtime.block_on(time(calls))));
    }
}

/// One row of 1 KiB to an event.
fn decode(criterion: &mut Criterion) {
    let entry = RawEntry::new(1, &Row { data: order().into(), ..row("order-1") });
    criterion.bench_function("decode/1 KiB", |bencher| {
        let decode = |entry: RawEntry| entry.decode(1, &JsonSerde).unwrap();
        bencher.iter_batched(|| entry.clone(), decode, BatchSize::SmallInput);
    });
}

/// One group of delivered entries, which is durable afterwards; and reading as many.
fn settle(criterion: &mut Criterion) {
    let kept = Sqlite::new();
    let outbox = kept.open();
    let drain = outbox.drain().unwrap();
    let mut group = criterion.benchmark_group("a group of 1,000");
    group.throughput(Throughput::Elements(GROUP.into())).measurement_time(Duration::from_secs(5)).sample_size(20);
    group.bench_function("settle", |bencher| {
        let settle = |group: Vec<Settled>| drain.settle(&group).and_then(|_| drain.sync()).unwrap();
        bencher.iter_batched(|| appended(&kept, &outbox), settle, BatchSize::PerIteration);
    });
    appended(&kept, &outbox);
    let bounds = PageBounds { read_max: GROUP.into(), bytes_max: usize::MAX, looked_at_max: GROUP.into() };
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            drain.rewind(0);
            drain.next_page(bounds, &mut |_, _| true).unwrap()
        })
    });
}

/// Appends a group, and returns it as delivered.
fn appended(kept: &Sqlite, outbox: &SqliteOutbox) -> Vec<Settled> {
    let last = outbox.status().unwrap().last_position;
    let mut connection = kept.connection();
    let transaction = connection.transaction().unwrap();
    for _ in 0..GROUP {
        transaction
            .prepare_cached("INSERT INTO outbox (stream_id, name, data) VALUES ('order-1', 'order.placed', ?1)")
            .unwrap()
            .execute([order()])
            .unwrap();
    }
    transaction.commit().unwrap();
    let positions = last + 1..=last + i64::from(GROUP);
    positions.map(|position| Settled::Delivered { entry: entry_at(outbox, position), tried_before: false }).collect()
}

fn order() -> String {
    format!(r#"{{"order":42,"filler":"{}"}}"#, "x".repeat(1_000))
}
