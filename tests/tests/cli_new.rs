//! `outbox publisher new`: in each language, from an empty folder to an event that is delivered, by the commands of the
//! project's own README.
//!
//! Tools that `examples/build.sh` has installed are used again. A language whose tools cannot be had on this machine is
//! skipped, which is said at the end of `make test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outbox_tests::workplace::Workplace;
use outbox_tests::{outbox_program, skipped};

/// The exit code of a script whose tools cannot be had.
const UNAVAILABLE: i32 = 69;

macro_rules! languages {
    ($($test:ident: $arguments:literal is $example:literal;)*) => { $(
        #[test]
        fn $test() {
            a_project_is_made_built_tested_and_tried($arguments, $example);
        }
    )* };
}

languages! {
    rust: "--lang rust" is "rust-webhook";
    c: "--lang c" is "c-webhook";
    go: "--lang go" is "go-webhook";
    python: "--lang python" is "python-webhook";
    javascript_quickjs: "--lang js" is "javascript-quickjs-webhook";
    javascript_starlingmonkey: "--lang js --engine starlingmonkey" is "javascript-starlingmonkey-webhook";
    typescript: "--lang ts" is "typescript-webhook";
}

/// The settings of the new project are valid, and name the file that `build.sh` makes.
#[test]
fn a_projects_settings_are_read_as_they_are() {
    for arguments in ["--lang rust", "--lang c", "--lang go", "--lang python", "--lang js", "--lang ts"] {
        let place = Workplace::new();
        place.outbox(&format!("publisher new shop-hook {arguments}")).ok();
        let run = "run --db app.db --config shop-hook/outbox.toml";
        assert!(place.outbox(run).refused().contains("shop-hook/build/shop-hook.wasm"), "{arguments}");
        fs::create_dir(place.path("shop-hook/build")).unwrap();
        fs::copy(place.path("guests/rust-webhook.wasm"), place.path("shop-hook/build/shop-hook.wasm")).unwrap();
        place.outbox(run).ok();
    }
    let place = Workplace::empty();
    for (name, arguments) in [("a", "--lang ts"), ("b", "--lang js --engine starlingmonkey")] {
        place.outbox(&format!("publisher new {name} {arguments}")).ok();
        assert!(fs::read_to_string(place.path(name).join("outbox.toml")).unwrap().contains("\nrecycle_after = 100\n"));
    }
}

fn a_project_is_made_built_tested_and_tried(arguments: &str, example: &str) {
    let place = Workplace::empty();
    let said = place.outbox(&format!("publisher new shop-hook {arguments}")).ok();
    let folder = place.path("shop-hook");
    let made = files(&folder);
    assert!(said.starts_with(&format!("shop-hook has {} files", made.len())), "{said}");
    // It stands alone, and under its own name.
    for file in &made {
        assert!(!file.is_symlink(), "{} is a link", file.display());
        let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        assert!(!text.contains(example) && !text.contains("../.."), "{} names what is not there", file.display());
    }
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.starts_with("# shop-hook\n"), "{readme}");
    let commands = readme.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    assert!(["./build.sh", "./test.sh", "outbox publisher test"].iter().all(|it| commands.contains(it)), "{commands}");
    let locks = || ["Cargo.lock", "package-lock.json"].map(|lock| fs::read(folder.join(lock)).ok());
    let before = locks();

    let ran = run(commands, &folder, example);
    let (stdout, log) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if ran.status.code() == Some(UNAVAILABLE) {
        let why = fs::read_to_string(folder.join("build/unavailable")).unwrap_or_else(|_| log.into_owned());
        skipped(&format!("`outbox publisher new {arguments}`"), &why);
        return;
    }
    assert!(ran.status.success(), "{stdout}\n{log}");
    for said in [
        "event 1, \"order.placed\": delivered",
        "POST https://hooks.example.com/orders",
        "event 2, \"order.viewed\": delivered",
        "calls           3, of which 3 delivered\n",
        "HTTP requests   2\n",
    ] {
        assert!(stdout.contains(said), "{said}: {stdout}\n{log}");
    }
    assert!(before == locks(), "a tool wrote another lock file");
}

/// The project's commands, with the tools and the compiled crates of `examples/`.
fn run(commands: &str, folder: &Path, example: &str) -> Output {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").canonicalize().unwrap();
    let program = outbox_program();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euc", commands]).current_dir(folder).env("PATH", path);
    shell
        .env("OUTBOX_TOOLS", target.join("toolchains").join(example))
        .env("CARGO_TARGET_DIR", target.join("guests-build"));
    shell.output().unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_nothing() {
    let place = Workplace::empty();
    let refused = |arguments: &str| place.outbox(&format!("publisher new {arguments}")).refused();
    for name in ["Shop", "7up", "a/b", "..", "a_b", "é", "/tmp/a"] {
        let message = refused(&format!("{name} --lang go"));
        assert_eq!(
            message,
            format!("invalid name {name:?}: use lower-case letters, digits and hyphens, starting with a letter")
        );
    }
    assert!(refused("hook --lang go --engine quickjs").contains("--engine is for --lang js"));
    assert!(refused("hook --lang ts --engine quickjs").contains("built for starlingmonkey"));
    assert!(refused("serde --lang rust").contains("the name of a crate"));
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1, "`guests` alone");

    let in_use = "hook exists already: take another name, or move it away";
    fs::create_dir(place.path("hook")).unwrap();
    fs::write(place.path("hook/notes"), "mine").unwrap();
    assert_eq!(refused("hook --lang go"), in_use);
    assert_eq!(files(&place.path("hook")), [place.path("hook/notes")]);
    fs::remove_file(place.path("hook/notes")).unwrap();
    place.outbox("publisher new hook --lang go").ok();
    assert!(refused("hook --lang c") == in_use && !place.path("hook/src").exists());
    place.write("taken", "a file");
    assert!(refused("taken --lang go").contains("taken exists already"));
}
