//! The README's walk-through of a swap, run as it is written, in a copy of this repository.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use outbox_tests::outbox_program;
use outbox_tests::sink::Sink;
use outbox_tests::waiting::{until, until_within};
use outbox_tests::workplace::Workplace;

/// How long the commands may take, the first time, when they build everything.
const BUILDING_MAX: Duration = Duration::from_secs(30 * 60);
const DESTINATION: &str = "https://hooks.example.com";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The commands between the README's two comments.
fn commands() -> String {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- walk-through -->\n```sh\n").unwrap();
    rest.split_once("```\n<!-- end of the walk-through -->").unwrap().0.to_owned()
}

/// Copies the sources; guests are built in a folder that is kept from run to run.
fn copy(to: &Path) {
    let entries = fs::read_dir(repository()).unwrap().map(|entry| entry.unwrap());
    for entry in entries.filter(|it| it.file_name() != "target" && !it.file_name().to_string_lossy().starts_with('.')) {
        assert!(Command::new("cp").arg("-r").arg(entry.path()).arg(to).status().unwrap().success());
    }
    let built = repository().join("target/walkthrough");
    fs::create_dir_all(&built).unwrap();
    fs::create_dir(to.join("target")).unwrap();
    std::os::unix::fs::symlink(built, to.join("target/guests-build")).unwrap();
}

#[test]
fn the_readmes_commands_do_what_they_say() {
    let (place, folder) = (Workplace::empty(), tempfile::tempdir().unwrap());
    copy(folder.path());
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    let commands = commands();
    assert_eq!(commands.matches(DESTINATION).count(), 2);
    // The relay goes on until the test has seen enough.
    let script = format!(
        "set -e\n{}\necho walked\nread -r _ || true\nkill %1\nwait\n",
        commands.replace(DESTINATION, &sink.url())
    );
    let program = outbox_program();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let log = fs::File::create(place.path("log")).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-m", "-c", &script]).current_dir(folder.path()).env("PATH", path).env_remove("OUTBOX_LOG");
    shell.env("XDG_CACHE_HOME", folder.path().join("cache"));
    if let Ok(home) = std::env::var("HOME") {
        let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
        shell.env("WASI_RUST_DIR", std::env::var("WASI_RUST_DIR").unwrap_or_else(|_| format!("{cache}/outbox-wasm")));
    }
    let mut shell = shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let said = || {
        let mut text = String::new();
        fs::File::open(place.path("log")).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let mut ended = None;
    until_within(BUILDING_MAX, "the walk-through is over", || {
        ended = shell.try_wait().unwrap();
        ended.is_some() || said().contains("\nwalked\n")
    });
    assert_eq!(ended, None, "{}", said());

    let outbox =
        |arguments: &str| place.outbox(&format!("{arguments} --db {}", folder.path().join("shop.db").display()));
    until("version 1 is active again", || outbox("publisher versions webhook --json").json()[0]["state"] == "active");
    let sources = || -> Vec<String> {
        sink.deliveries().iter().map(|it| it.json()["source"].as_str().unwrap().to_owned()).collect()
    };
    until("both are delivered", || sources().len() == 2);
    assert_eq!(sources(), ["/outbox", "/shop"]);
    let line = "{\"stream_id\": \"order-42\", \"name\": \"order.shipped\", \"data\": {}}\n";
    place.outbox_fed(&format!("append --db {}", folder.path().join("shop.db").display()), line).ok();
    until("the third is delivered", || sources().len() == 3);
    assert_eq!(sources(), ["/outbox", "/shop", "/outbox"]);
    let said_so_far = said();
    assert!(said_so_far.contains("\nversion 2 of webhook is active\n"), "{said_so_far}");

    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert!(said().contains("stopped published=3"), "{}", said());
}
