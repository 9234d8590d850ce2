//! `examples/need.sh` beside tools that are too old, do not start, or are not what they are called: it looks at all of them
//! before anything is built, and tells all of it in one message.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// A folder that comes first in PATH.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("a machine").tempdir().unwrap())
    }

    /// With a command that does what a shell script does.
    fn with(self, name: &str, script: &str) -> Self {
        let file = self.0.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn with_rust(self, cargo: &str, rustc: &str) -> Self {
        let says = |tool: &str, version: &str| format!("echo '{tool} {version} (f2d3ce0bd 2026-03-21)'");
        self.with("cargo", &says("cargo", cargo)).with("rustc", &says("rustc", rustc))
    }

    fn with_node(self, version: &str) -> Self {
        self.with("node", &format!("echo '{version}'")).with("npm", "echo 10.8.2")
    }

    /// With Debian's commands, none of which gets anything.
    fn without_packages(self) -> Self {
        self.with("apt-get", "echo 'E: Failed to fetch http://debian.example/' >&2; exit 100")
            .with("apt-cache", "true")
            .with("sudo", "[ \"$1\" != -n ] || shift; exec \"$@\"")
    }

    fn need(&self, things: &str) -> Output {
        let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/need.sh");
        let mut command = Command::new(need);
        command.args(things.split_whitespace()).env_clear();
        command.env("HOME", self.0.path()).env("PATH", format!("{}:/usr/bin:/bin", self.0.path().display()));
        command.output().unwrap()
    }

    fn has(&self, thing: &str) -> bool {
        let looked = self.need(&format!("--look {thing}"));
        assert!(looked.stdout.is_empty() && looked.stderr.is_empty(), "{looked:?}");
        looked.status.success()
    }

    /// The message about what is missing, and what to do.
    fn lacks(&self, things: &str) -> String {
        let output = self.need(things);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn node_is_looked_at_by_its_version() {
    for version in ["v20.19.0", "v20.20.2", "v22.13.0", "v22.20.1", "v23.5.0", "v24.0.0", "v26.1.0-nightly"] {
        assert!(Machine::new().with_node(version).has("node"), "{version} fits");
    }
    for version in
        ["v18.20.4", "v16.0.0", "v20.18.1", "v21.7.3", "v22.12.9", "v23.4.0", "v9.0.0", "", "v", "24", "no number"]
    {
        assert!(!Machine::new().with_node(version).has("node"), "{version} does not fit");
    }
    assert!(!Machine::new().with_node("v24.0.0").with("npm", "exit 1").has("node"), "npm does not start");
    assert!(!Machine::new().with_node("v24.0.0").with("node", "exit 127").has("node"), "node does not start");
}

#[test]
fn rust_is_looked_at_by_the_version_that_cargo_toml_asks_for() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).unwrap();
    let least = manifest.split_once("rust-version = \"").unwrap().1.split_once('"').unwrap().0;
    let minor: u32 = least.strip_prefix("1.").unwrap().parse().unwrap();
    let (fits, old, newer) = (format!("{least}.0"), format!("1.{}.1", minor - 1), format!("1.{}.0-nightly", minor + 1));
    for version in [&fits, &newer, "2.0.0"] {
        assert!(Machine::new().with_rust(version, version).has("cargo"), "{version} fits");
    }
    for (cargo, rustc) in [(&*old, &*fits), (&*fits, &*old), (&*old, &*old), ("", ""), ("1.9.0", "1.9.0")] {
        assert!(!Machine::new().with_rust(cargo, rustc).has("cargo"), "{cargo:?} and {rustc:?} do not fit");
    }
    let said = Machine::new().with_rust(&old, &fits).with("rustup", "true").lacks("cargo");
    assert!(said.contains(&format!("cargo {least} or newer: here is {old}")), "{said}");
    let pinned = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../rust-toolchain.toml")).unwrap();
    let pinned = pinned.split_once("channel = \"").unwrap().1.split_once('"').unwrap().0;
    let mends = format!("run: rustup toolchain install {pinned}\n");
    assert!(said.contains(&mends), "{said}");
    // As rustup's own stand-ins do where no toolchain was chosen.
    let none = "echo 'error: rustup could not choose a version of cargo to run' >&2; exit 1";
    let said = Machine::new().with_rust(&fits, &fits).with("cargo", none).with("rustup", "true").lacks("cargo");
    assert!(said.contains("does not start (error: rustup could not choose") && said.contains(&mends), "{said}");
}

#[test]
fn a_compiler_must_make_a_program_and_python_must_have_sqlite() {
    assert!(Machine::new().has("cc"));
    assert!(!Machine::new().with("cc", "echo 'cannot find crt1.o' >&2; exit 1").has("cc"));
    let python = |version: &str| Machine::new().with("python3", &format!("echo {version}"));
    assert!(
        python("3.9.0").has("python3") && python("3.14.0rc1").has("python3") && python("3.11.2").has("python3=3.11")
    );
    assert!(!python("3.8.20").has("python3") && !python("3.10.9").has("python3=3.11"));
    assert!(!Machine::new().with("python3", "echo \"No module named 'sqlite3'\" >&2; exit 1").has("python3"));
}

/// It may also be in Debian's folder, out of PATH.
#[test]
fn a_server_of_postgresql_is_found_in_path() {
    let machine = Machine::new().with("initdb", "true").with("postgres", "true");
    assert!(machine.has("postgres"));
    let in_debians_folder = fs::read_dir("/usr/lib/postgresql").is_ok_and(|folders| folders.count() > 0);
    assert_eq!(Machine::new().has("postgres"), in_debians_folder || Path::new("/usr/bin/initdb").exists());
}

/// Everything in one message, with the commands for root; packages are not reported one by one.
#[test]
fn all_that_is_missing_is_told_at_once() {
    let machine = Machine::new().without_packages().with_rust("1.60.0", "1.60.0").with("cc", "exit 1");
    let said = machine.with("python3", "exit 1").with_node("v18.20.4").lacks("cargo cc python3 -- venv node");
    for told in [
        "cargo 1.95 or newer: here is 1.60.0",
        "rustc 1.95 or newer: here is 1.60.0",
        "a C compiler that makes a program",
        "python3 3.9 or newer with its module sqlite3",
        "apt-get says:\n\n  Failed to fetch http://debian.example/",
        "some tests are skipped:\n\n  - python3 with venv and pip\n  - Node.js 20.19",
        "here is v18.20.4",
        "install Rust from https://rustup.rs",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_eq!(said.matches("this is missing").count(), 1, "{said}");
}

#[test]
fn what_may_be_missing_is_told_and_is_no_error() {
    let output = Machine::new().with_node("v18.0.0").need("cc -- node");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("here is v18.0.0"), "{said}");
}
