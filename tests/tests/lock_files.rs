//! Whatever lies in the places of the files beside a database: nothing else is overwritten, and nobody waits for it. And a
//! relay whose lock file or database is no longer in its place settles nothing.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use outbox_host::outbox::{Drain, OutboxStorageStrategy, PageBounds, Settled};
use outbox_host::{RawEntry, SqliteOutbox};
use outbox_tests::skipped;
use outbox_tests::waiting::{PATIENCE, until};
use outbox_tests::workplace::{Ran, Workplace, rows};

const RUN: &str = "run --db app.db --publisher guests/noop.wasm";
const OURS: [&str; 2] = ["app.db-outbox.lock", "app.db-outbox.calls"];

fn place() -> Workplace {
    let place = Workplace::new();
    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
    place
}

/// As `Workplace::outbox`, but kills the program if it does not end by itself.
#[track_caller]
fn outbox(place: &Workplace, arguments: &str) -> Ran {
    Ran::of(arguments, place.start(arguments, std::process::Stdio::null()), PATIENCE)
}

/// With this in the place of one of our files, it is named, and neither a pass nor the status waits for it.
#[track_caller]
fn refused(make: impl Fn(&Path), expected: &str) {
    for name in OURS {
        let place = place();
        make(&place.path(name));
        let message = outbox(&place, RUN).refused();
        assert!(message.contains(&format!("/{name}: {expected}")), "{message}");
        assert!(outbox(&place, "status --db app.db").ok().contains("pending         1\n"));
    }
}

/// What was there is still there, unchanged.
#[track_caller]
fn linked_file_stays(link: impl Fn(&Path, &Path), expected: &str) {
    let other = tempfile::tempdir().unwrap();
    let victim = other.path().join("accounts");
    fs::write(&victim, "not to be lost\n").unwrap();
    refused(|path| link(&victim, path), expected);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "not to be lost\n");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn a_link_is_not_followed() {
    linked_file_stays(|victim, path| symlink(victim, path).unwrap(), "it is a symbolic link, and no regular file");
    linked_file_stays(
        |victim, path| symlink(victim.with_file_name("to be made"), path).unwrap(),
        "it is a symbolic link, and no regular file",
    );
}

#[test]
fn a_file_that_has_another_name_is_not_written() {
    let expected = "it has 2 names (hard links), and may be another file as well";
    let link = |victim: &Path, path: &Path| {
        // Both have to be on one file system.
        let beside = path.with_file_name("accounts");
        fs::copy(victim, &beside).unwrap();
        fs::hard_link(&beside, path).unwrap();
    };
    linked_file_stays(link, expected);
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn nobody_waits_for_a_fifo() {
    refused(fifo, "it is a FIFO, and no regular file");
}

#[test]
fn a_folder_and_a_socket_are_no_lock_files() {
    refused(|path| fs::create_dir(path).unwrap(), "Is a directory, and no regular file");
    refused(|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()), "it is a socket, and no regular file");
}

/// As in a folder where everybody may make files.
#[test]
fn a_file_of_somebody_who_has_no_say_in_the_database_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        skipped("a lock file that belongs to somebody else", "only root can make one");
        return;
    }
    let give = |path: &Path| {
        fs::write(path, "").unwrap();
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
    };
    refused(
        give,
        "it belongs to the user 65534 (mode 644), and this is the user 0; the database belongs to the user 0",
    );
}

#[test]
fn of_an_endless_file_no_more_is_read_than_may_be_in_it() {
    for name in OURS {
        let place = place();
        File::create(place.path(name)).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(outbox(&place, "status --db app.db --json").json()["relay"], serde_json::Value::Null);
        assert!(outbox(&place, RUN).ok().contains("published       1\n"));
        // A relay at work shows what it does in spite of it.
        let _relay = place.start_logged("relay --db app.db --publisher guests/noop.wasm");
        let status = || outbox(&place, "status --db app.db --json").json();
        until("the relay is at work", || status()["relay"]["state"] == "running");
        if name.ends_with("calls") {
            assert!(fs::metadata(place.path(name)).unwrap().size() < 1 << 20);
        }
    }
}

/// What garbage says was under way does not keep a relay from its work.
#[test]
fn a_file_full_of_garbage_is_forgotten() {
    let place = place();
    place.write("app.db-outbox.calls", vec![0x11; 20 << 20]);
    place.write("app.db-outbox.lock", vec![0x11; 20 << 20]);
    assert!(outbox(&place, RUN).ok().contains("published       1\n"));
}

/// SQLite follows no link either, but it would wait for a FIFO that it may only read.
#[test]
fn what_lies_in_the_places_of_sqlites_files_is_neither_written_nor_waited_for() {
    let commands = [RUN, "status --db app.db", "append --db app.db events.ndjson", "init --db app.db"];
    for name in ["app.db-wal", "app.db-shm", "app.db-journal"] {
        let place = place();
        place.write("accounts", "not to be lost\n");
        place.write("events.ndjson", r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
        let refused = |expected: &str| {
            for command in commands {
                let message = outbox(&place, command).refused();
                assert!(message.contains(&format!("{name}: {expected}")), "outbox {command}: {message}");
            }
            fs::remove_file(place.path(name)).unwrap();
        };
        symlink(place.path("accounts"), place.path(name)).unwrap();
        refused("it is a symbolic link, and no regular file");
        fifo(&place.path(name));
        refused("it is a FIFO, and no regular file");
        assert_eq!(fs::read_to_string(place.path("accounts")).unwrap(), "not to be lost\n");
    }
}

/// Reads the only entry as a relay of this process, lets `happens` happen, and settles the entry as delivered: that is refused
/// with this message.
#[track_caller]
fn settles_nothing_after(place: &Workplace, happens: impl FnOnce(), message: &str) {
    let outbox = SqliteOutbox::open(&place.path("app.db")).unwrap();
    let drain: Box<dyn Drain> = outbox.drain().unwrap();
    let page = drain.next_page(PageBounds::default(), &mut |_, _| true).unwrap();
    let delivered = |entry: &RawEntry| Settled::Delivered { entry: entry.id(), tried_before: false };
    let settled: Vec<Settled> = page.entries.iter().map(delivered).collect();
    assert_eq!(settled.len(), 1);
    happens();
    let refused = drain.settle(&settled).unwrap_err();
    assert!(refused.is_replaced() && refused.to_string().contains(message), "{refused}");
}

#[test]
fn without_its_lock_file_a_relay_settles_nothing() {
    let place = place();
    let remove = || fs::remove_file(place.path("app.db-outbox.lock")).unwrap();
    settles_nothing_after(&place, remove, "app.db-outbox.lock was removed");
    assert_eq!(place.query("SELECT position FROM outbox"), ["1"]);
}

/// Neither in the database that it has open, nor in the one that is in its place now.
#[test]
fn in_a_replaced_database_a_relay_settles_nothing() {
    let place = place();
    let open = place.sql();
    let replace = || {
        open.execute("VACUUM INTO ?1", [place.path("copy.db").to_str().unwrap()]).unwrap();
        fs::rename(place.path("copy.db"), place.path("app.db")).unwrap();
    };
    settles_nothing_after(&place, replace, "app.db was replaced by another file");
    assert_eq!(rows(&open, "SELECT position FROM outbox"), ["1"]);
    drop(open);
    assert_eq!(rows(&place.sql(), "SELECT position FROM outbox"), ["1"]);
}

/// Another process has got the right to drain, and has the entry wait for its retry.
#[test]
fn once_another_relay_has_taken_over_a_relay_settles_nothing() {
    let place = Workplace::new();
    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {"do": "retry", "reason": "busy"}}"#);
    let mut other = None;
    let take_over = || {
        fs::remove_file(place.path("app.db-outbox.lock")).unwrap();
        other = Some(place.start_logged("relay --db app.db --publisher guests/scripted.wasm"));
        until("the other relay has settled it", || place.status()["waiting"] == 1);
    };
    settles_nothing_after(&place, take_over, "app.db-outbox.lock was removed");
    assert_eq!(place.query("SELECT position FROM outbox"), ["1"]);
    assert_eq!(place.query("SELECT position FROM outbox_waiting"), ["1"]);
    assert_eq!(place.status()["relay"]["pid"], other.unwrap().pid());
}
