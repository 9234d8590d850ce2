//! Several users on one outbox: what root makes, the service can use; who may only read can look; and what is in the way
//! is named.

use std::fs;

use outbox_tests::users::{OTHER, SERVICE, Shared, THIRD, belongs};
use outbox_tests::waiting::until;
use outbox_tests::workplace::Signal;

const RUN: &str = "run --db data/app.db --publisher noop.wasm --no-cache";
const RELAY: &str = "relay --db data/app.db --publisher noop.wasm --no-cache";

/// All that only reads.
const LOOKS: [&str; 9] = [
    "status --db data/app.db",
    "status --json --db data/app.db",
    "dead list --db data/app.db",
    "dead show 1 --db data/app.db",
    "dead retry --all --dry-run --db data/app.db",
    "publisher versions --db data/app.db",
    "publisher inspect kept --db data/app.db",
    "publisher test noop.wasm --no-cache --from-db data/app.db 1",
    "prune --dry-run --dead-letters 0s --db data/app.db",
];

/// An outbox with a dead letter, an entry, and a publisher that is kept in it.
fn shared() -> Option<Shared> {
    let shared = Shared::new()?;
    let event = r#"{"name": "order.placed", "stream_id": "order-1", "data": {"do": "reject"}}"#;
    fs::write(shared.place.path("rejected.ndjson"), event).unwrap();
    shared.run(SERVICE, "append --db data/app.db rejected.ndjson").ok();
    shared.run(SERVICE, "run --db data/app.db --publisher scripted.wasm --no-cache").ok();
    shared.run(SERVICE, "publisher deploy kept noop.wasm --db data/app.db").ok();
    shared.append("order-2");
    Some(shared)
}

/// Whoever may only read can do all that only reads, and nothing is left behind by it.
#[track_caller]
fn assert_can_look(shared: &Shared, user: u32, entries: u64) {
    let before = shared.beside();
    for look in LOOKS {
        let ran = shared.run(user, look);
        assert_eq!(ran.code, Some(0), "user {user}: outbox {look}: {}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(shared.pending(user), entries);
    assert_eq!(shared.beside(), before);
}

#[test]
fn what_root_makes_belongs_to_whom_the_database_belongs_to() {
    let Some(shared) = shared() else { return };
    shared.allow("data/app.db", 0o660);
    for name in ["app.db-outbox.lock", "app.db-outbox.calls"] {
        fs::remove_file(shared.data().join(name)).unwrap();
    }
    let mut relay = shared.start(0, RELAY);
    until("root's relay has published", || shared.pending(SERVICE) == 0);
    let beside = shared.beside();
    assert_eq!(beside, ["app.db", "app.db-outbox.calls", "app.db-outbox.lock", "app.db-shm", "app.db-wal"]);
    for name in &beside {
        assert_eq!(belongs(&shared.data().join(name)), (SERVICE, SERVICE, 0o660), "{name}");
    }
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    shared.append("order-3");
    assert!(shared.run(SERVICE, RUN).ok().contains("published       1\n"));
}

/// They were made before root gave them away.
#[test]
fn roots_files_beside_the_database_are_named_and_given_back_by_root() {
    let Some(shared) = shared() else { return };
    for ending in ["lock", "calls"] {
        let name = format!("data/app.db-outbox.{ending}");
        shared.give(&name, 0);
        let refused = shared.run(SERVICE, RUN).refused();
        assert!(refused.contains(&format!("/{name}: Permission denied")), "{refused}");
        let whose = "it belongs to the user 0 (mode 644), and this is the user 65534";
        assert!(refused.contains(whose), "{refused}");
        shared.run(0, RUN).ok();
        shared.append("order-3");
        assert!(shared.run(SERVICE, RUN).ok().contains("published       1\n"));
    }
}

/// Whoever may write to the folder may have moved them there.
#[test]
fn roots_other_files_are_neither_written_nor_given_away() {
    let Some(shared) = shared() else { return };
    for ending in ["lock", "calls"] {
        let name = format!("data/app.db-outbox.{ending}");
        let file = shared.place.path(&name);
        fs::write(&file, "root's own\n").unwrap();
        shared.give(&name, 0);
        shared.allow(&name, 0o600);
        let refused = shared.run(0, RUN).refused();
        assert!(refused.contains(&format!("/{name}: it is not what a relay writes there")), "{refused}");
        assert_eq!((belongs(&file), fs::read(&file).unwrap()), ((0, 0, 0o600), b"root's own\n".to_vec()));
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_database_that_root_makes_belongs_to_whom_its_folder_belongs_to() {
    let Some(shared) = shared() else { return };
    shared.run(0, "init --db data/new.db").ok();
    assert_eq!(belongs(&shared.data().join("new.db")), (SERVICE, SERVICE, 0o644));
    shared.run(SERVICE, "run --db data/new.db --publisher noop.wasm --no-cache").ok();
    // Elsewhere it is root's.
    shared.run(0, "init --db new.db").ok();
    assert_eq!(belongs(&shared.place.path("new.db")), (0, 0, 0o644));
}

#[test]
fn root_makes_no_folder_of_compiled_code_among_somebody_elses() {
    let Some(shared) = shared() else { return };
    let run = "run --db data/app.db --publisher noop.wasm --cache data/home/.cache/outbox";
    let said = shared.run(0, run);
    assert!(said.stderr.contains("compiled code is not kept"), "{}", said.stderr);
    said.ok();
    assert!(!shared.data().join("home").exists());
    let said = shared.run(SERVICE, run);
    assert_eq!(said.stderr.lines().filter(|line| line.contains("WARN")).count(), 0, "{}", said.stderr);
    assert_eq!(belongs(&shared.data().join("home/.cache/outbox")).0, SERVICE);
}

#[test]
fn who_may_only_read_looks_where_nobody_has_the_database_open() {
    let Some(shared) = shared() else { return };
    assert_eq!(shared.beside(), ["app.db", "app.db-outbox.calls", "app.db-outbox.lock"]);
    assert_can_look(&shared, OTHER, 1);
    assert_can_look(&shared, 0, 1);
    // The same in a folder where they could make files, which the service could not write to.
    shared.allow("data", 0o777);
    assert_can_look(&shared, OTHER, 1);
    assert!(shared.run(SERVICE, RUN).ok().contains("published       1\n"));
}

#[test]
fn who_may_only_read_looks_beside_a_relay() {
    let Some(shared) = shared() else { return };
    let _relay = shared.start(SERVICE, "relay --db data/app.db --publisher scripted.wasm --no-cache");
    until("the relay has published", || shared.pending(OTHER) == 0);
    let status = shared.run(OTHER, "status --db data/app.db --json").json();
    assert_eq!((&status["relay"]["state"], &status["dead_letters"]), (&"running".into(), &1.into()));
    let waits = r#"{"name": "order.placed", "stream_id": "order-9", "data": {"do": "retry", "after_ms": 3600000}}"#;
    fs::write(shared.place.path("waits.ndjson"), waits).unwrap();
    shared.run(SERVICE, "append --db data/app.db waits.ndjson").ok();
    until("it waits", || shared.run(OTHER, "status --db data/app.db --json").json()["waiting"] == 1);
    assert_can_look(&shared, OTHER, 1);
    shared.allow("data", 0o777);
    assert_can_look(&shared, THIRD, 1);
}

/// The last commit is only in the WAL.
#[test]
fn who_may_only_read_looks_at_what_a_killed_relay_left() {
    let Some(shared) = shared() else { return };
    let mut relay = shared.start(SERVICE, RELAY);
    until("the relay has published", || shared.pending(SERVICE) == 0);
    shared.append("order-3");
    until("the relay has published", || shared.pending(SERVICE) == 0);
    relay.signal(Signal::KILL);
    relay.wait();
    assert!(fs::metadata(shared.data().join("app.db-wal")).unwrap().len() > 0);
    assert_can_look(&shared, OTHER, 0);
    let shm = shared.data().join("app.db-shm");
    fs::remove_file(&shm).unwrap();
    let refused = shared.run(OTHER, "status --db data/app.db").refused();
    assert!(refused.contains("app.db-shm is missing, without which") && refused.contains("open the database once"));
    assert_eq!(shared.pending(SERVICE), 0);
    assert_can_look(&shared, OTHER, 0);
}

/// The application opens the database, appends and closes it, again and again: what is seen is always what was there.
#[test]
fn who_may_only_read_looks_while_others_open_and_close_the_database() {
    let Some(shared) = shared() else { return };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..60).for_each(|number| shared.append(&format!("order-{number}"))));
        let mut seen = 1;
        while !writer.is_finished() {
            let now = shared.pending(OTHER);
            assert!((seen..=61).contains(&now), "{now} after {seen}");
            seen = now;
        }
    });
    assert_can_look(&shared, OTHER, 61);
}

/// Somebody who may write to the folder may have put them there.
#[test]
fn who_may_only_read_does_not_wait_for_a_fifo_in_the_place_of_the_wal() {
    let Some(shared) = shared() else { return };
    for name in ["app.db-wal", "app.db-shm", "app.db-journal"] {
        let path = shared.data().join(name);
        assert!(std::process::Command::new("mkfifo").args(["-m", "644"]).arg(&path).status().unwrap().success());
        let refused = shared.run(OTHER, "status --db data/app.db").refused();
        assert!(refused.contains(&format!("{name}: it is a FIFO, and no regular file")), "{refused}");
        fs::remove_file(path).unwrap();
    }
    assert_can_look(&shared, OTHER, 1);
}

#[test]
fn what_is_in_the_way_is_named() {
    let Some(shared) = shared() else { return };
    for command in ["append --db data/app.db rejected.ndjson", "dead discard 1 --db data/app.db", RUN, RELAY] {
        let refused = shared.run(OTHER, command).refused();
        let expected = "data/app.db cannot be written (Permission denied (os error 13)): it belongs to the user 65534 (mode \
                        644), and this is the user 65533";
        assert!(refused.contains(expected), "outbox {command}: {refused}");
    }
    shared.allow("data/app.db", 0o666);
    let refused = shared.run(OTHER, RUN).refused();
    assert!(refused.contains("no file can be made beside ") && refused.contains("of the folder "), "{refused}");
    // Who may read it can look all the same.
    assert_can_look(&shared, OTHER, 1);

    let relay = shared.start(SERVICE, RELAY);
    until("the relay has published", || shared.pending(SERVICE) == 0);
    shared.allow("data/app.db-wal", 0o600);
    for command in ["status --db data/app.db", RUN] {
        let refused = shared.run(OTHER, command).refused();
        assert!(refused.contains("data/app.db-wal cannot be "), "outbox {command}: {refused}");
    }
    shared.allow("data/app.db-wal", 0o666);
    shared.allow("data/app.db-outbox.lock", 0o600);
    let status = shared.run(OTHER, "status --db data/app.db --json").json();
    let unknown = status["relay_unknown"].as_str().unwrap();
    assert!(unknown.contains("app.db-outbox.lock: Permission denied"), "{unknown}");
    drop(relay);

    shared.allow("data/app.db", 0o600);
    let refused = shared.run(OTHER, "status --db data/app.db").refused();
    assert!(
        refused.contains("data/app.db cannot be read (Permission denied (os error 13)): it belongs to"),
        "{refused}"
    );
    shared.allow("data", 0o700);
    let refused = shared.run(OTHER, "status --db data/app.db").refused();
    assert!(refused.contains("data/app.db cannot be read (Permission denied (os error 13)): its folder is closed"));
}
