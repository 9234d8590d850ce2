//! What the largest rows cost in memory: one test, since the peak is the whole process's.

use outbox_host::outbox::{PageBounds, Selection};
use outbox_host::{JsonSerde, Outbox, OutboxStorageStrategy, Recorded};
use outbox_tests::memory::{self, MIB};
use outbox_tests::outboxes::{Kept, Sqlite};

/// Much longer than a publisher could be given.
const LONG: usize = 64 * MIB;
/// Columns that are as long in a row each; the others are read in the same way.
const LONG_COLUMNS: [&str; 4] = ["stream_id", "uuid", "name", "data"];
/// How much memory looking at it may take.
const LOOKING_MAX: usize = 24 * MIB;
/// Rows, each with nine columns of 1 MiB: ten times what a relay reads ahead.
const ROWS: usize = 24;
/// 16 MiB that are read ahead, a page beyond, and of each a copy that is decoded.
const PUBLISHING_MAX: usize = 128 * MIB;

/// Sets what [`memory::highest`] says back to what there is.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// How far the memory grew meanwhile.
fn growth<T>(during: impl FnOnce() -> T) -> (usize, T) {
    let before = memory::resident();
    forget_peak();
    let result = during();
    (memory::highest().saturating_sub(before), result)
}

#[test]
fn what_is_long_is_never_in_memory_and_all_that_is_read_is_counted() {
    let kept = Sqlite::new();
    let strategy = kept.open();
    let connection = kept.connection();
    for column in LONG_COLUMNS {
        let insert = "INSERT INTO outbox (stream_id, name, data) VALUES ('long', 'n', '{}')";
        connection.execute(insert, []).unwrap();
        let update = format!("UPDATE outbox SET {column} = zeroblob({LONG}) WHERE position = last_insert_rowid()");
        connection.execute(&update, []).unwrap();
    }
    let all = PageBounds { read_max: 1_000, bytes_max: usize::MAX, looked_at_max: 1_000 };
    let (grown, page) = growth(|| strategy.drain().unwrap().next_page(all, &mut |_, _| true).unwrap());
    assert_eq!(page.entries.len(), LONG_COLUMNS.len());
    assert!(grown < LOOKING_MAX, "reading them took {} MiB", grown / MIB);
    drop(page);

    let report = Outbox::new(kept.open(), JsonSerde).run(&|_: &Recorded| Ok(()), None).unwrap();
    assert_eq!(report.dead_lettered, LONG_COLUMNS.len() as u64);
    let operator = strategy.operator();
    let (grown, _) = growth(|| {
        let listed = operator.dead_letters(&Selection::all(), 100).unwrap();
        assert_eq!(listed.iter().filter(|dead| dead.data == format!("({LONG} bytes)")).count(), 1);
        listed.iter().for_each(|dead| {
            assert!(operator.dead_letter(&Selection::Positions(vec![dead.position])).unwrap().is_some())
        });
        strategy.status().unwrap();
        strategy.drain().unwrap().held().unwrap();
    });
    assert!(grown < LOOKING_MAX, "listing and showing them took {} MiB", grown / MIB);

    let large = format!("printf('%.*c', {MIB}, 'x')");
    let insert = format!(
        "WITH RECURSIVE row(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM row LIMIT {ROWS})
         INSERT INTO outbox (tenant_id, stream_id, stream_name, category, name, content_type, data)
         SELECT {large}, {large}, {large}, {large}, {large}, {large}, {large} || {large} || {large} FROM row"
    );
    connection.execute(&insert, []).unwrap();
    let (grown, report) = growth(|| Outbox::new(kept.open(), JsonSerde).run(&|_: &Recorded| Ok(()), None).unwrap());
    assert_eq!(report.published, ROWS as u64);
    assert!(grown < PUBLISHING_MAX, "publishing {ROWS} rows of 9 MiB took {} MiB", grown / MIB);
}
