//! `outbox init`: makes the tables, beside whatever else the database has.

use std::process::Stdio;

use outbox_tests::workplace::{Ran, Workplace, rows};

#[test]
fn makes_the_tables_and_says_which_version() {
    let place = Workplace::empty();
    let said = place.outbox("init --db app.db").ok();
    assert_eq!(said, "app.db: made the outbox, schema version 4, journal mode WAL\n");
    let tables = place.tables("app.db");
    for expected in ["outbox", "outbox_waiting", "outbox_attempts", "outbox_dead_letters", "outbox_audit"] {
        assert!(tables[expected].is_empty(), "{expected}");
    }
    assert_eq!(tables["outbox_meta"], ["generation|0", "registry_generation|0", "schema_version|4"]);
    assert_eq!(place.query("PRAGMA journal_mode"), ["wal"]);
}

#[test]
fn is_harmless_when_repeated() {
    let place = Workplace::new();
    place.append(
        r#"{"name": "order.placed", "stream_id": "order-1", "data": {"do": "reject"}}
           {"name": "order.placed", "stream_id": "order-2", "data": {"do": "retry"}}
           {"name": "order.placed", "stream_id": "order-3", "data": {}}"#,
    );
    place.outbox("run --db app.db --publisher guests/scripted.wasm --limit 2").ok();
    let before = place.tables("app.db");
    assert_eq!(["outbox", "outbox_waiting", "outbox_dead_letters"].map(|table| before[table].len()), [2, 1, 1]);

    let said = place.outbox("init --db app.db").ok();
    assert_eq!(said, "app.db: the outbox has schema version 4 already\n");
    assert_eq!(place.tables("app.db"), before);
}

/// Repeated many times, since the outcome depends on a few microseconds.
#[test]
fn several_at_once_make_one_outbox() {
    for _ in 0..30 {
        let place = Workplace::empty();
        let started: Vec<_> = (0..8).map(|_| place.start("init --db app.db", Stdio::null())).collect();
        let said: Vec<String> =
            started.into_iter().map(|child| Ran::new("init", child.wait_with_output().unwrap()).ok()).collect();
        assert_eq!(said.iter().filter(|said| said.contains("made the outbox")).count(), 1, "{said:?}");
        assert_eq!(said.iter().filter(|said| said.contains("schema version 4 already")).count(), 7, "{said:?}");
        assert_eq!(place.query("PRAGMA journal_mode"), ["wal"]);
    }
}

#[test]
fn leaves_the_applications_tables_and_its_user_version_as_they_are() {
    let place = Workplace::empty();
    let application = "
        PRAGMA user_version = 42;
        PRAGMA application_id = 7;
        CREATE TABLE orders (id INTEGER PRIMARY KEY, product TEXT NOT NULL);
        CREATE INDEX orders_product ON orders (product);
        INSERT INTO orders (product) VALUES ('tea'), ('cake');";
    place.sql().execute_batch(application).unwrap();
    let of_application = |place: &Workplace| {
        let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name = 'orders'";
        [sql, "SELECT * FROM orders", "PRAGMA user_version", "PRAGMA application_id"].map(|sql| place.query(sql))
    };
    let before = of_application(&place);
    place.outbox("init --db app.db").ok();
    assert_eq!(of_application(&place), before);

    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
    place.outbox("run --db app.db --publisher guests/noop.wasm").ok();
    assert_eq!(of_application(&place), before);
}

#[test]
fn an_empty_file_is_a_database() {
    let place = Workplace::empty();
    place.write("app.db", "");
    assert!(place.outbox("init --db app.db").ok().contains("made the outbox"));
}

/// It names what is in its way, and leaves it as it is: the journal mode too.
#[test]
fn a_table_of_the_same_name_stays_as_it_is() {
    let foreign = "app.db has a table `outbox` of another shape: ";
    for (made, expected) in [
        ("CREATE TABLE outbox (id INTEGER PRIMARY KEY, payload TEXT)", format!("{foreign}it has no column `position`")),
        (
            "CREATE TABLE outbox (position TEXT PRIMARY KEY, tenant_id, stream_id, stream_name, category, uuid, name,
                                  version, created_at, content_type, context, data)",
            format!("{foreign}`position` is not its INTEGER PRIMARY KEY"),
        ),
        ("CREATE VIEW outbox AS SELECT 1 AS position", format!("{foreign}it has no column `tenant_id`")),
        (
            "CREATE TABLE outbox_waiting (id)",
            "cannot make the outbox's tables: table outbox_waiting already exists".to_owned(),
        ),
    ] {
        let place = Workplace::empty();
        place.sql().execute_batch(made).unwrap();
        let before = place.files();
        let message = place.outbox("init --db app.db").refused();
        assert!(message.starts_with(&expected) && message.lines().count() == 1, "{made}: {message}");
        assert_eq!(place.files(), before, "{made}");
    }
}

/// Whoever opens such a database is not sent to `init`, which could not help.
#[test]
fn a_foreign_table_is_named_by_the_other_commands_too() {
    let place = Workplace::empty();
    place.sql().execute_batch("CREATE TABLE outbox (id INTEGER PRIMARY KEY, payload TEXT)").unwrap();
    for command in ["status", "append", "run --publisher guests/noop.wasm", "dead list"] {
        let message = place.outbox(&format!("{command} --db app.db")).refused();
        assert!(message.ends_with("has a table `outbox` of another shape: it has no column `position`"), "{message}");
    }
}

/// A table with the right columns may have been made by anybody.
#[test]
fn a_table_of_the_right_shape_is_taken_as_it_is() {
    let place = Workplace::empty();
    let made = "
        CREATE TABLE outbox (position INTEGER PRIMARY KEY, tenant_id, stream_id, stream_name, category,
                             uuid DEFAULT '7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01', name, version,
                             created_at DEFAULT '2026-01-31T12:00:00Z', content_type, context, data, remark TEXT);
        INSERT INTO outbox (stream_id, name, data, remark) VALUES ('order-1', 'order.placed', '{}', 'mine');";
    place.sql().execute_batch(made).unwrap();
    place.outbox("init --db app.db").ok();
    assert_eq!(rows(&place.sql(), "SELECT stream_id, remark FROM outbox"), ["order-1|mine"]);
    let status = place.status();
    assert_eq!((&status["pending"], &status["last_position"]), (&1.into(), &1.into()));
    let report = place.outbox("run --db app.db --publisher guests/noop.wasm --json").json();
    assert_eq!((&report["published"], &report["remaining"]), (&1.into(), &0.into()));
}

/// Somebody may have dropped it: a relay says so, and `init` mends it.
#[test]
fn a_table_that_was_dropped_is_made_again() {
    let place = Workplace::new();
    place.outbox("init --db app.db").ok();
    place.sql().execute_batch("DROP TABLE outbox").unwrap();
    assert!(place.outbox("status --db app.db").refused().contains("has no outbox: run `outbox init"));
    place.outbox("init --db app.db").ok();
    assert!(place.outbox("status --db app.db").ok().starts_with("pending         0\n"));
}

/// What about a table of the application's own may hinder the relay is said at once, by `init` and by each start.
#[test]
fn warns_of_what_may_hinder_the_relay() {
    let columns =
        "tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, data";
    let cases = [
        (format!("CREATE TABLE outbox (position INTEGER PRIMARY KEY, {columns})"), "no AUTOINCREMENT"),
        (
            format!(
                "CREATE TABLE outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, {columns});
                     CREATE TRIGGER audit AFTER DELETE ON outbox BEGIN SELECT 1; END"
            ),
            "has triggers (audit)",
        ),
        (
            format!(
                "CREATE TABLE outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, {columns});
                     CREATE TABLE orders (id INTEGER PRIMARY KEY, event REFERENCES Outbox (position))"
            ),
            "point at the table outbox (orders)",
        ),
        (
            format!("CREATE TABLE outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, {columns}, shard TEXT NOT NULL)"),
            "must not be NULL (shard)",
        ),
    ];
    for (sql, expected) in cases {
        let place = Workplace::empty();
        place.sql().execute_batch(&sql).unwrap();
        let ran = place.outbox("init --db app.db");
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{sql}: {}", ran.stderr);
        let ran = place.outbox("run --db app.db --publisher guests/scripted.wasm");
        assert!(ran.stderr.contains(expected), "{sql}: {}", ran.stderr);
    }
}

#[test]
fn refuses_a_table_that_it_cannot_work_with_and_says_what_to_do() {
    let columns = "tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context";
    let cases = [
        (
            format!("CREATE TABLE outbox (position INTEGER, {columns}, data, PRIMARY KEY (tenant_id, position))"),
            "several columns",
        ),
        (
            format!(
                "CREATE TABLE outbox (position INTEGER, {columns}, data, PRIMARY KEY (position, tenant_id)) WITHOUT ROWID"
            ),
            "several columns",
        ),
        (
            format!("CREATE TABLE outbox (position INTEGER PRIMARY KEY, {columns}, body, data AS (body || ''))"),
            "`data` is a generated one",
        ),
        (format!("CREATE TABLE outbox (position TEXT PRIMARY KEY, {columns}, data)"), "`position` is not its INTEGER"),
        ("CREATE VIEW outbox AS SELECT 1 AS position".to_owned(), "no column `tenant_id`"),
    ];
    for (sql, expected) in cases {
        let place = Workplace::empty();
        place.sql().execute_batch(&sql).unwrap();
        let said = place.outbox("init --db app.db").refused();
        assert!(said.contains(expected), "{sql}: {said}");
    }
}

/// A run that cannot remove what it delivered ends with an error, publishes it no second time, and the status says why.
#[test]
fn a_run_that_cannot_settle_ends_with_an_error() {
    let place = Workplace::new();
    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
    place.sql().execute_batch("CREATE TRIGGER t AFTER DELETE ON outbox BEGIN SELECT app(OLD.data); END").unwrap();
    for _ in 0..2 {
        let ran = place.outbox("run --db app.db --publisher guests/scripted.wasm");
        assert_eq!(ran.code, Some(1));
        let said = ran.stderr;
        assert!(said.contains("1 entries cannot be settled") && said.contains("no such function: app"), "{said}");
    }
    let status = place.status();
    assert_eq!((status["pending"].as_u64(), status["undeletable"].as_u64()), (Some(0), Some(1)), "{status}");
    let said = place.outbox("status --db app.db").ok();
    assert!(said.contains("undeletable     1 delivered, and cannot be removed: "), "{said}");
}
