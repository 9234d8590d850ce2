//! Whatever lies in the places of the files beside a database: nothing else is overwritten, and nobody waits for it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use outbox_tests::skipped;
use outbox_tests::waiting::{PATIENCE, until};
use outbox_tests::workplace::{Ran, Workplace};

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
