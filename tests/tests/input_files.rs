//! Commands read only regular files, up to a bound, and never wait for anything else.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use outbox_tests::waiting::{PATIENCE, until};
use outbox_tests::workplace::{Ran, Workplace};

/// Every way in; `IN` stands for the file.
const WAYS: [&str; 13] = [
    "run --db app.db --publisher ./IN",
    "relay --db app.db --publisher ./IN",
    "relay --db app.db --watch ./IN",
    "run --config module.toml",
    "publisher deploy a ./IN --db app.db",
    "publisher inspect ./IN",
    "publisher test ./IN",
    "publisher test guests/noop.wasm --event ./IN",
    "publisher test guests/noop.wasm --stub-http ./IN",
    "status --config ./IN",
    "run --publisher guests/noop.wasm --config secret.toml",
    "append --db app.db ./IN",
    "dead edit 1 --data ./IN --db app.db",
];

fn place() -> Workplace {
    let place = Workplace::new();
    place.write("module.toml", "db = \"app.db\"\n[publisher]\nfile = \"IN\"\n");
    let secret = "db = \"app.db\"\n[publisher]\nallow_http = [\"https://a.test\"]\n[publisher.secrets.key]\nfile = \"IN\"\n\
                  header = \"x-key\"\nfor = \"https://a.test\"\n";
    place.write("secret.toml", secret);
    place
}

/// Runs a command with little memory, and kills it if it does not end by itself.
#[track_caller]
fn outbox(place: &Workplace, arguments: &str) -> Ran {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 16000000; exec \"$@\"", "sh"]);
    let command = place.command(arguments);
    limited.arg(command.get_program()).args(command.get_args()).current_dir(place.path(""));
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Ran::of(arguments, child, PATIENCE)
}

#[track_caller]
fn each_refuses(make: impl Fn(&Path), expected: &[&str]) {
    let place = place();
    make(&place.path("IN"));
    for way in WAYS {
        let message = outbox(&place, way).refused();
        assert!(expected.iter().any(|it| message.contains(it)) && message.contains("IN"), "outbox {way}: {message}");
    }
    assert_eq!(place.status()["pending"], 0);
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn nobody_waits_for_a_fifo() {
    each_refuses(fifo, &["it is a FIFO, and no regular file"]);
}

#[test]
fn a_device_is_not_read() {
    each_refuses(
        |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        &["it is a device, and no regular file"],
    );
}

#[test]
fn a_folder_and_a_socket_are_no_files() {
    each_refuses(|path| fs::create_dir(path).unwrap(), &["Is a directory, and no regular file"]);
    each_refuses(
        |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        &["it is a socket, and no regular file"],
    );
}

/// `append` is told of the line; the others of the file.
#[test]
fn of_an_endless_file_no_more_is_read_than_may_be_in_it() {
    let sparse = |path: &Path| File::create(path).unwrap().set_len(1 << 40).unwrap();
    let expected = ["it has more than ", "has more than 67108864 bytes (limit: module_mib)"];
    let place = place();
    sparse(&place.path("IN"));
    for way in WAYS {
        let message = outbox(&place, way).refused();
        assert!(expected.iter().any(|it| message.contains(it)), "outbox {way}: {message}");
    }
    let message = outbox(&place, "publisher inspect ./IN --config module.toml").refused();
    assert!(message.contains("limit: module_mib"), "{message}");
}

/// A secret is not cut: half of it would be sent.
#[test]
fn a_secret_that_is_too_long_is_refused() {
    let place = place();
    place.write("IN", "x".repeat(20_000));
    let message = outbox(&place, "run --publisher guests/noop.wasm --config secret.toml").refused();
    assert!(
        message.contains("the secret `key` cannot be read") && message.contains("more than 16384 bytes"),
        "{message}"
    );
}

/// The limit is the operator's: it holds for what is in the outbox too, and for bytes that somebody wrote there.
#[test]
fn module_mib_holds_for_what_is_deployed() {
    let place = place();
    place.outbox("publisher deploy kept guests/noop.wasm --db app.db").ok();
    place.write("limit.toml", "[publisher.limits]\nmodule_mib = 1\n");
    let module = "UPDATE outbox_modules SET size = 1, bytes = zeroblob(300000000)";
    place.sql().execute(module, []).unwrap();
    let message = outbox(&place, "publisher inspect kept --db app.db --config limit.toml").refused();
    assert!(message.contains("kept has more than 1048576 bytes (limit: module_mib)"), "{message}");
    let versions = place.outbox("publisher versions --db app.db --json").json();
    assert_eq!(versions[0]["size"], 300_000_000);
    place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
    let _relay = place.start_logged("relay --db app.db --config limit.toml");
    until("it is refused", || {
        let versions = place.outbox("publisher versions --db app.db --json").json();
        versions[0]["reason"].as_str().unwrap().contains("limit: module_mib")
    });
}

/// The last one that worked goes on, whatever lies in its place.
#[test]
fn a_watched_file_that_becomes_something_else_is_told() {
    let place = place();
    let guest = fs::read(place.path("guests/noop.wasm")).unwrap();
    for (make, expected) in [
        (fifo as fn(&Path), "it is a FIFO, and no regular file"),
        (|path| File::create(path).unwrap().set_len(1 << 40).unwrap(), "(limit: module_mib)"),
    ] {
        place.write("IN", &guest);
        let relay = place.start_logged("relay --db app.db --watch ./IN");
        relay.wait_for_log("publishing");
        let beside = place.path("IN.new");
        make(&beside);
        fs::rename(&beside, place.path("IN")).unwrap();
        relay.wait_for_log(expected);
        place.append(r#"{"name": "order.placed", "stream_id": "order-1", "data": {}}"#);
        until("the last one goes on", || place.status()["pending"] == 0);
        fs::remove_file(place.path("IN")).unwrap();
    }
}
