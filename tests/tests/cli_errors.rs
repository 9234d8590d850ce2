//! If something is in a command's way, it says so plainly, on standard error, with exit code 1, and changes nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use outbox_tests::waiting::until;
use outbox_tests::workplace::{Ran, Signal, Workplace};

/// Every command that needs an outbox.
const COMMANDS: [&str; 11] = [
    "append events.ndjson",
    "run --publisher guests/noop.wasm",
    "relay --publisher guests/noop.wasm",
    "status",
    "status --json",
    "dead list",
    "dead show 1",
    "dead retry --all",
    "dead discard 1",
    "dead edit 1 --data data.json",
    "prune --dead-letters 0s",
];

/// A folder with the files that the commands need; where there is to be an outbox, it has an entry and a dead letter.
fn place(outbox: bool) -> Workplace {
    let place = if outbox { Workplace::new() } else { Workplace::empty() };
    place.write("events.ndjson", r#"{"name": "order.placed", "stream_id": "order-1", "data": {"do": "reject"}}"#);
    place.write("data.json", "{}");
    if outbox {
        place.outbox("append --db app.db events.ndjson").ok();
        place.outbox("run --db app.db --publisher guests/scripted.wasm").ok();
        place.outbox("append --db app.db events.ndjson").ok();
    }
    place
}

/// Each of these commands is refused with a message that `is_right`, and leaves every file as it is.
#[track_caller]
fn each_is_refused(place: &Workplace, commands: &[&str], is_right: impl Fn(&str) -> bool) {
    for command in commands {
        let before = place.files();
        let message = place.outbox(command).refused();
        assert!(is_right(&message), "outbox {command}: {message}");
        let after = place.files();
        assert!(after.keys().eq(before.keys()), "outbox {command} left {:?} of {:?}", after.keys(), before.keys());
        assert!(after == before, "outbox {command} changed a file");
    }
}

fn with_db(commands: &[&'static str]) -> Vec<String> {
    commands.iter().map(|command| format!("{command} --db app.db")).collect()
}

#[track_caller]
fn each_is_refused_on_app_db(place: &Workplace, commands: &[&'static str], is_right: impl Fn(&str) -> bool) {
    let commands = with_db(commands);
    each_is_refused(place, &commands.iter().map(String::as_str).collect::<Vec<_>>(), is_right);
}

#[test]
fn a_database_that_is_missing_stays_missing() {
    let place = place(false);
    each_is_refused_on_app_db(&place, &COMMANDS, |message| message == "there is no database app.db");
    each_is_refused(&place, &["init --db none/app.db"], |message| message.contains("unable to open database file: "));
}

#[test]
fn a_file_that_is_no_database() {
    let place = place(false);
    place.write(
        "app.db",
        "This is a text file, and long enough to be taken for the header of a database.\n".repeat(100),
    );
    each_is_refused_on_app_db(&place, &COMMANDS, |message| message.ends_with("app.db is not a SQLite database"));
    each_is_refused_on_app_db(&place, &["init"], |message| message == "app.db is not a SQLite database");
}

#[test]
fn a_folder_is_no_database() {
    let place = place(false);
    std::fs::create_dir(place.path("app.db")).unwrap();
    each_is_refused_on_app_db(&place, &COMMANDS, |message| message.starts_with("there is no database "));
    each_is_refused_on_app_db(&place, &["init"], |message| message.contains("unable to open database file: "));
}

#[test]
fn a_database_without_an_outbox() {
    let place = place(false);
    place.sql().execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let expected = "app.db has no outbox: run `outbox init --db ";
    each_is_refused_on_app_db(&place, &COMMANDS, |message| message.contains(expected) && message.ends_with("` first"));
}

#[test]
fn an_outbox_of_a_newer_version() {
    let place = place(true);
    place.sql().execute("UPDATE outbox_meta SET value = 99 WHERE key = 'schema_version'", []).unwrap();
    let expected = "app.db has schema version 99, and this program knows versions up to 4: use a newer one";
    each_is_refused_on_app_db(&place, &COMMANDS, |message| message.ends_with(expected));
    each_is_refused_on_app_db(&place, &["init"], |message| message.ends_with(expected));
}

#[test]
fn a_file_that_is_no_publisher() {
    let place = place(true);
    place.write("text.wasm", "(component)");
    place.write("empty.wasm", "");
    let whole = std::fs::read(place.path("guests/noop.wasm")).unwrap();
    place.write("half.wasm", &whole[..whole.len() / 2]);
    for (file, expected) in [
        ("guests/core-module.wasm", "core-module.wasm is a core WebAssembly module, and a publisher is a component"),
        (
            "guests/other-world.wasm",
            "is not a publisher: it does not export `outbox:publisher/publisher@0.1.0`; it exports `",
        ),
        ("none.wasm", "cannot read the publisher none.wasm: No such file or directory"),
        ("guests", "cannot read the publisher guests: Is a directory"),
        ("text.wasm", "text.wasm is not WebAssembly: a publisher is a component, a binary file"),
        ("empty.wasm", "empty.wasm is not WebAssembly"),
        ("half.wasm", "half.wasm is not a valid component: "),
    ] {
        let commands = [format!("run --db app.db --publisher {file}"), format!("relay --db app.db --publisher {file}")];
        each_is_refused(&place, &commands.each_ref().map(String::as_str), |message| message.contains(expected));
    }
    let expected = "no publisher: name a file with --publisher FILE or `file` in [publisher], or deploy one with `outbox publisher deploy \
                    NAME FILE`";
    each_is_refused_on_app_db(&place, &["run", "relay"], |message| message == expected);
}

#[test]
fn no_database_at_all() {
    let place = place(true);
    let expected = "no database: name it with --db FILE, OUTBOX_DB, or `db` in the file given with --config";
    each_is_refused(&place, &COMMANDS, |message| message == expected);
    each_is_refused(&place, &["init"], |message| message == expected);
    place.write("outbox.toml", "");
    each_is_refused(&place, &["status --config outbox.toml"], |message| message == expected);
}

#[test]
fn settings_that_are_not_understood_are_shown_with_line_column_and_caret() {
    let place = place(true);
    let publisher = "[publisher]\nfile = \"guests/noop.wasm\"\n";
    for (settings, line, column, pointed_at, reason) in [
        (
            "[relay]\nmax_attemps = 3\n",
            4,
            1,
            "max_attemps = 3\n  | ^^^^^^^^^^^\n",
            "unknown field `max_attemps`, expected one of",
        ),
        ("[publisher.limits]\ncall_time = \"soon\"\n", 4, 13, "^^^^^^", "`soon` is no duration: write for example"),
        ("allow_http = [\"example.com\"]\n", 3, 14, "^^^^", "`example.com` cannot be granted"),
        ("[relay]\nconcurrency = \"many\"\n", 4, 15, "^^^^^^", "invalid type: string \"many\""),
        ("rate = \"fast\"\n", 3, 8, "^^^^^^", "`fast` is no rate: write a whole number from 1 on and a unit"),
        ("batch_max = 0\n", 3, 13, "^", "batch_max is 1 to 1000"),
        ("batch_bytes = 16_777_217\n", 3, 15, "^^^^", "batch_bytes is 1 to 16777216"),
        ("batch_wait = \"2m\"\n", 3, 14, "^^^^", "batch_wait is at most 60 s"),
        ("rate = \"1/s\"\nburst = 0\n", 4, 9, "^", "expected a nonzero u32"),
        (
            "[relay]\nordering = \"backwards\"\n",
            4,
            12,
            "^^^^^^",
            "unknown variant `backwards`, expected one of `stream`, `total`, `none`",
        ),
        ("[relay\n", 3, 7, "[relay\n  |       ^", "expected `]`"),
    ] {
        place.write("outbox.toml", format!("{publisher}{settings}"));
        for command in ["run --db app.db", "status --db app.db"] {
            let said_right = |message: &str| {
                message.starts_with("outbox.toml is not valid: ")
                    && message.contains(&format!("at line {line}, column {column}\n"))
                    && message.contains(pointed_at)
                    && message.contains(reason)
            };
            each_is_refused(&place, &[&format!("{command} --config outbox.toml")], said_right);
        }
    }
    let expected = "cannot read none.toml: No such file or directory";
    each_is_refused(&place, &["run --db app.db --config none.toml"], |message| message.starts_with(expected));
}

#[test]
fn a_relay_that_is_at_work_already() {
    let place = place(true);
    place.outbox("dead discard 1 --db app.db").ok();
    let mut relay = place.start_logged("relay --db app.db --publisher guests/noop.wasm");
    until("the relay has published", || place.status()["pending"] == 0);
    place.outbox("append --db app.db events.ndjson").ok();
    until("the relay has published", || place.status()["pending"] == 0);
    let before = place.tables("app.db");
    let message = place.outbox("run --db app.db --publisher guests/noop.wasm").refused();
    let pid = relay.pid();
    assert_eq!(message, format!("a relay (process {pid}) is at work on this outbox: only one drains it at a time"));
    assert_eq!(place.tables("app.db"), before);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    place.outbox("run --db app.db --publisher guests/noop.wasm").ok();
}

/// Commands that write wait for 5 s, and then give up; commands that only read are not held up.
#[test]
fn a_database_that_is_locked() {
    let place = place(true);
    let before = place.tables("app.db");
    let other = place.sql();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let began = Instant::now();
    let writing = [
        "append events.ndjson",
        "dead retry 1",
        "dead discard 1",
        "dead edit 1 --data data.json",
        "init",
        "prune --dead-letters 0s",
    ];
    let started = with_db(&writing).into_iter().map(|command| (place.start(&command, Stdio::null()), command));
    let started: Vec<_> = started.collect();

    assert_eq!(place.status()["pending"], 1);
    assert!(place.outbox("dead list --db app.db").ok().starts_with("1  order.placed"));
    for (child, command) in started {
        let message = Ran::new(&command, child.wait_with_output().unwrap()).refused();
        let expected = "the database is locked: another program has been writing to it for longer than 5.0 s";
        assert_eq!(message, expected, "outbox {command}");
    }
    assert!(began.elapsed() >= Duration::from_secs(5));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(place.tables("app.db"), before);
}

/// The same if the database is not in WAL mode, and a lock keeps readers out too.
#[test]
fn a_database_that_is_locked_before_it_is_an_outbox() {
    let place = place(false);
    let other = place.sql();
    other.execute_batch("CREATE TABLE orders (id); BEGIN EXCLUSIVE").unwrap();
    let expected = "the database is locked: another program has been writing to it for longer than 5.0 s";
    assert_eq!(place.outbox("init --db app.db").refused(), expected);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(place.query("SELECT name FROM sqlite_schema"), ["orders"]);
}

/// Delivered entries must be settled: so a pass reports what is in its way, and goes on when that is gone.
#[test]
fn a_pass_waits_for_a_lock_that_is_longer_than_its_patience() {
    let place = place(true);
    place.append(r#"{"name": "order.placed", "stream_id": "order-2", "data": {}}"#);
    let other = place.sql();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut run = place.start_logged("run --db app.db --publisher guests/scripted.wasm --concurrency 1");
    run.wait_for_log("the database is locked: another program has been writing to it for longer than 5.0 s");
    assert_eq!(place.status()["pending"], 2);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(run.wait(), Some(0));
    let log = run.log();
    assert!(log.contains("published       1\n") && log.contains("dead letters    1\n"), "{log}");
    assert_eq!(log.matches("order.placed attempt=1").count(), 2, "each was called once: {log}");
    assert_eq!(place.status()["pending"], 0);
}

/// A damaged database is neither mended nor made worse.
#[test]
fn a_damaged_database() {
    let place = place(true);
    let mut bytes = std::fs::read(place.path("app.db")).unwrap();
    let tables = bytes.len();
    bytes[4_096..tables].fill(0x5a);
    place.write("app.db", bytes);
    each_is_refused_on_app_db(&place, &COMMANDS, |message| message.contains("malformed"));
}
