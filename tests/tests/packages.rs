//! Each crate alone: what it depends on, and that its package has all that it takes to build it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What running an example leaves in its folder.
const MADE: [&str; 4] = ["build", "target", "node_modules", "__pycache__"];

fn cargo(arguments: &str) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments.split(' ')).arg("--offline").current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The crates that the library of a package is compiled with.
fn dependencies(package: &str) -> BTreeSet<String> {
    let tree = cargo(&format!("tree --locked -e normal --prefix none --format {{p}} -p {package}"));
    tree.lines().filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect()
}

fn packaged(package: &str) -> BTreeSet<String> {
    cargo(&format!("package --list --allow-dirty -p {package}")).lines().map(ToOwned::to_owned).collect()
}

#[test]
fn who_only_appends_compiles_no_more_than_it_takes() {
    let least = dependencies("outbox-sqlite --no-default-features");
    assert!(least.contains("outbox-engine") && least.contains("rusqlite"), "{least:?}");
    for (package, never) in [
        ("outbox-sqlite --no-default-features", &["wasmtime", "rustls", "clap", "tokio", "hyper"][..]),
        ("outbox-sqlite", &["wasmtime", "rustls", "clap", "hyper"]),
        ("outbox-postgres", &["wasmtime", "rustls", "clap", "hyper", "rusqlite"]),
        ("outbox-engine", &["wasmtime", "rustls", "clap", "hyper", "rusqlite", "tokio-postgres"]),
        ("outbox-wasm", &["rusqlite", "clap", "outbox-sqlite"]),
    ] {
        let found = dependencies(package);
        for name in never {
            assert!(!found.contains(*name), "{package} depends on {name}");
        }
    }
}

/// The crates that the workspace is compiled with, and the features of each.
fn compiled(edges: &str) -> BTreeSet<String> {
    let tree = cargo(&format!("tree --locked --workspace -e {edges} --prefix none --format {{p}}|{{f}}"));
    tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn the_tests_use_what_was_compiled_without_them() {
    let with_tests = compiled("normal,build,dev");
    let again: Vec<_> = compiled("normal,build").into_iter().filter(|built| !with_tests.contains(built)).collect();
    assert!(again.is_empty(), "`cargo test` compiles these again, since a dev-dependency adds features: {again:?}");
}

#[test]
fn a_package_has_all_that_it_takes_to_build_it() {
    for package in [
        "outbox-engine",
        "outbox-conformance",
        "outbox-sqlite",
        "outbox-postgres",
        "outbox-wasm",
        "outbox-templates",
        "outbox-host",
        "outbox-guest",
    ] {
        let files = packaged(package);
        assert!(files.contains("LICENSE") && files.contains("README.md"), "{package}: {files:?}");
    }
    for (package, contract) in [
        ("outbox-wasm", "wit/0.1/publisher.wit"),
        ("outbox-host", "wit/0.1/publisher.wit"),
        ("outbox-guest", "wit/publisher.wit"),
    ] {
        assert!(packaged(package).contains(contract), "{package} has no {contract}");
    }
    let files = packaged("outbox-templates");
    for template in outbox_templates::TEMPLATES {
        for file in template.files {
            let path = format!("projects/{}/{}", template.name, file.path);
            assert!(files.contains(&path) || files.contains(&format!("{path}.template")), "it has no {path}");
        }
    }
}

#[test]
fn the_templates_are_the_examples_as_they_are() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let names = names(&examples).into_iter().filter(|name| name.ends_with("-webhook"));
    assert_eq!(names.clone().count(), outbox_templates::TEMPLATES.len());
    for name in names {
        let mut files = BTreeSet::new();
        walk(&examples.join(&name), "", &mut files);
        let template = outbox_templates::template(&name).unwrap_or_else(|| panic!("there is no template {name}"));
        let made: BTreeSet<String> = template.files.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(made, files, "link what is new in {name} in host/templates/projects");
        for file in template.files {
            assert!(fs::read(examples.join(&name).join(file.path)).unwrap() == file.content, "{name}/{}", file.path);
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn walk(folder: &Path, within: &str, files: &mut BTreeSet<String>) {
    for name in names(folder).into_iter().filter(|name| !MADE.contains(&name.as_str())) {
        if folder.join(&name).is_dir() {
            walk(&folder.join(&name), &format!("{within}{name}/"), files);
        } else {
            files.insert(format!("{within}{name}"));
        }
    }
}
