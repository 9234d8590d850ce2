//! Any value of any type in any column of every table of the outbox: each command, and each method that reads, copes.

use std::collections::BTreeSet;
use std::time::Duration;

use outbox_host::outbox::{PageBounds, Retention, Selection};
use outbox_host::{
    JsonSerde, OnDeadLetter, Outbox, OutboxStorageStrategy, PublishError, Recorded, RelayOptions, SqliteOutbox,
    StorageError, Timestamp,
};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::workplace::{Workplace, rows};
use proptest::prelude::*;
use rusqlite::Connection;

/// Values as SQL has them, of every type and at every end.
const VALUES: [&str; 19] = [
    "NULL",
    "0",
    "-1",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "1.5",
    "-1e300",
    "9e999",
    "''",
    "'7'",
    "'text'",
    "'a' || char(0, 10, 27) || '[31m'",
    "CAST(x'ff00fe' AS TEXT)",
    "x''",
    "x'ff00fe'",
    "x'11111111111111111111111111111111'",
    "printf('%.*c', 1100000, 'x')",
    "zeroblob(1100000)",
];

/// When what is put off is due.
fn far_off() -> Timestamp {
    "2800-01-01T00:00:00Z".parse().unwrap()
}

/// Without these nothing could be found at all: they have tests of their own.
const KEYS_OF_META: &str = "outbox_meta";

/// Fills every table: entries, some that wait, and some that are put off, dead letters, one of which parks, attempts, acts, and versions.
fn fill(outbox: SqliteOutbox) {
    let options = RelayOptions { on_dead_letter: OnDeadLetter::Park, ..RelayOptions::default() };
    let outbox = Outbox::new(outbox, JsonSerde).with_options(options);
    let streams = ["wait", "park", "mend", "wait", "park", "wait too", "park too"];
    outbox.append(&streams.map(|stream| event(stream, "{}"))).unwrap();
    let later = ["later", "later too"].map(|stream| event(stream, "{}").with_publish_after(far_off()));
    outbox.append(&later).unwrap();
    let publisher = |event: &Recorded| match event.stream_id.id.as_str() {
        "park" | "park too" | "mend" => Err(PublishError::rejected("never")),
        _ => Err(PublishError::Retryable { reason: "later".into(), after: Some(Duration::from_secs(3_600)) }),
    };
    outbox.run(&publisher, None).unwrap();
    let strategy = outbox.strategy();
    strategy.operator().edit_dead_letter(3, "[1]", &act()).unwrap();
    strategy.deployments().deploy("hook", b"one", None, "a note", &act()).unwrap();
    strategy.deployments().activated("hook", 1, act().at).unwrap();
    strategy.deployments().deploy("hook", b"two", Some("5%".parse().unwrap()), "", &act()).unwrap();
}

/// The tables of the outbox with their columns, except the schema's version.
fn columns(connection: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT t.name || '|' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c
               WHERE t.type = 'table' AND t.name LIKE 'outbox%' ORDER BY 1";
    let pair = |row: String| row.split_once('|').map(|(table, column)| (table.to_owned(), column.to_owned())).unwrap();
    rows(connection, sql).into_iter().map(pair).filter(|(table, _)| table != KEYS_OF_META).collect()
}

/// Writes a value into a column, of one row or of all; a value that the table refuses changes nothing.
fn spoil(connection: &Connection, (table, column): &(String, String), value: &str, row: usize) {
    let which = if row == 0 { String::new() } else { format!("WHERE rowid % 3 = {}", row % 3) };
    let update = format!("PRAGMA foreign_keys = OFF; UPDATE OR IGNORE {table} SET {column} = {value}");
    if connection.execute_batch(&format!("{update} {which}")).is_err() {
        let _ = connection.execute_batch(&update);
    }
}

/// A refusal has a message.
fn copes<T>(what: &str, result: Result<T, StorageError>) {
    match result {
        Ok(_) | Err(StorageError::Declined(_) | StorageError::DamagedModule { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
    }
}

fn look_at_everything(outbox: &SqliteOutbox) {
    let (operator, deployments) = (outbox.operator(), outbox.deployments());
    let page = PageBounds { read_max: 100, bytes_max: usize::MAX, looked_at_max: 100 };
    let drain = outbox.drain().unwrap();
    copes("entries", drain.next_page(page, &mut |_, _| true));
    copes("held", drain.held());
    copes("what is put off", drain.next_put_off());
    copes("status", outbox.status());
    copes("generation", drain.must_reload());
    drop(drain);
    let dead = operator.dead_letters(&Selection::all(), 100).unwrap();
    for position in dead.iter().map(|dead| dead.position).chain([1]) {
        copes("a dead letter", operator.dead_letter(&Selection::Positions(vec![position])));
        copes("a dead entry", operator.dead_entry(position));
        copes("attempts", operator.attempts(position));
    }
    copes("audit", operator.audit(100));
    let keep = Some(Duration::ZERO);
    let retention = Retention { dead_letters: keep, attempts: keep, audit: keep };
    copes("a dry prune", operator.prune(&retention, &act(), 100, true));
    copes("deployments generation", deployments.registry_generation());
    for version in deployments.versions(None).unwrap() {
        copes("module", deployments.module(&version.digest));
        copes("versions", deployments.versions(Some(&version.publisher)));
    }
}

/// Then the commands that change something: they cope too, and nothing is lost or stands still.
fn work_on_everything(kept: &Sqlite) {
    let outbox = Outbox::new(kept.open(), JsonSerde);
    let (operator, deployments) = (outbox.strategy().operator(), outbox.strategy().deployments());
    copes("rollback", deployments.rollback("hook", None, &act()));
    copes("deploy", deployments.deploy("hook", b"three", None, "", &act()));
    copes("remove", deployments.remove("hook", Some(1), &act()));
    let drain = outbox.strategy().drain().unwrap();
    copes("retry", operator.retry_dead_letters(&Selection::all(), &act()));
    assert!(drain.must_reload().unwrap(), "a relay at work is told");
    copes("bring back", drain.bring_back(far_off(), far_off(), 100));
    drop(drain);
    outbox.run(&|_: &Recorded| Ok(()), 1_000).unwrap();
    let left = operator.dead_letters(&Selection::all(), 100).unwrap();
    for dead in &left {
        copes("edit", operator.edit_dead_letter(dead.position, "{}", &act()));
    }
    let positions: Vec<i64> = left.iter().map(|dead| dead.position).collect();
    copes("discard", operator.discard_dead_letters(&Selection::Positions(positions), &act()));
    copes(
        "prune",
        operator.prune(&Retention { audit: Some(Duration::ZERO), ..Retention::default() }, &act(), 100, false),
    );
}

#[test]
fn whatever_stands_in_one_column_everything_is_read() {
    for loose in [false, true] {
        let kept = Sqlite::new();
        fill(kept.open());
        if loose {
            kept.loosen();
        }
        let connection = kept.connection();
        for column in columns(&connection).iter().filter(|(table, _)| !loose || table == "outbox") {
            for value in VALUES {
                let saved = saved(&connection, &column.0);
                spoil(&connection, column, value, 0);
                look_at_everything(&kept.open());
                restore(&connection, &column.0, saved);
            }
        }
        work_on_everything(&kept);
    }
}

/// A copy of a table, to put it back: in a temporary table of the connection.
fn saved(connection: &Connection, table: &str) -> String {
    let copy = format!("temp.saved_{table}");
    connection
        .execute_batch(&format!("DROP TABLE IF EXISTS {copy}; CREATE TABLE {copy} AS SELECT * FROM main.{table}"))
        .unwrap();
    copy
}

fn restore(connection: &Connection, table: &str, copy: String) {
    let sql =
        format!("PRAGMA foreign_keys = OFF; DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM {copy}");
    connection.execute_batch(&sql).unwrap();
}

proptest! {
    #![proptest_config(outbox_tests::proptest_config!("any_value", 40))]

    #[test]
    fn whatever_stands_in_several_columns_everything_is_read_and_worked_on(
        loose: bool,
        changes in prop::collection::vec((0..1_000_usize, 0..VALUES.len(), 0..4_usize), 1..12),
    ) {
        let kept = Sqlite::new();
        fill(kept.open());
        if loose {
            kept.loosen();
        }
        let connection = kept.connection();
        let columns = columns(&connection);
        for (column, value, row) in changes {
            spoil(&connection, &columns[column % columns.len()], VALUES[value], row);
        }
        look_at_everything(&kept.open());
        work_on_everything(&kept);
    }
}

/// The same for the program: nothing that it prints is an error, or a surprise for the terminal.
#[test]
fn every_command_copes_with_every_value() {
    let place = Workplace::new();
    fill(SqliteOutbox::open(&place.path("app.db")).unwrap());
    let connection = place.sql();
    let tables: BTreeSet<String> = columns(&connection).into_iter().map(|(table, _)| table).collect();
    for value in VALUES {
        let copies: Vec<_> = tables.iter().map(|table| (table, saved(&connection, table))).collect();
        for column in columns(&connection).iter().filter(|(_, column)| column != "position") {
            spoil(&connection, column, value, 1);
        }
        for command in [
            "status",
            "status --json",
            "dead list",
            "dead list --json",
            "dead list --stream park --name order.* --reason never",
            "dead show 2",
            "dead show 2 --json",
            "dead retry --all --dry-run",
            "prune --dead-letters 1d --attempts 1d --audit 1d --dry-run",
            "publisher versions",
            "publisher versions --json",
        ] {
            let said = place.outbox(&format!("{command} --db app.db")).ok();
            let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
            assert!(said.chars().all(harmless), "{value}: {command}");
        }
        place.outbox("run --db app.db --publisher guests/noop.wasm --limit 0").ok();
        for (table, copy) in copies {
            restore(&connection, table, copy);
        }
    }
}

/// The table of the versions and the generations.
#[test]
fn what_outbox_meta_says_is_no_error_of_types() {
    for value in VALUES {
        let kept = Sqlite::new();
        fill(kept.open());
        let connection = kept.connection();
        let set = |key: &str| {
            let sql = format!("UPDATE OR IGNORE outbox_meta SET value = {value} WHERE key = '{key}'");
            let _ = connection.execute_batch(&sql);
        };
        set("generation");
        set("registry_generation");
        look_at_everything(&kept.open());
        work_on_everything(&kept);
        set("schema_version");
        match SqliteOutbox::open(&kept.file()) {
            Ok(outbox) => look_at_everything(&outbox),
            Err(error) => {
                assert!(error.to_string().contains("schema version") || error.to_string().contains("init"), "{error}")
            }
        }
    }
}
