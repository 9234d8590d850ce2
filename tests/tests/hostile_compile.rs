//! Components that are a few kilobytes as they are written, and gigabytes as they are compiled or instantiated: each is
//! refused, or done within its bounds, and neither the library nor the program takes up memory for it. They are made in
//! `src/unfolding.rs`. Those that are refused by counting are in `hostile_refused.rs`.

use std::time::Duration;

use outbox_host::outbox::Deployments;
use outbox_host::publisher::component::{Compiler, ComponentPublisher, Limits, LoadError, OutputSink, Settings};
use outbox_host::{Outcome, Publisher, SqliteOutbox};
use outbox_tests::act;
use outbox_tests::memory::{self, MIB};
use outbox_tests::outbox_program;
use outbox_tests::outboxes::recorded;
use outbox_tests::processes::{Watch, children};
use outbox_tests::unfolding::{self, Hostile};
use outbox_tests::waiting::until;
use outbox_tests::workplace::Workplace;

/// What the process that compiles may have beside the limit of its memory: the program's own pages.
const PROGRAM_BYTES: usize = 64 * MIB;

/// How the program compiles.
fn in_a_process() -> Compiler {
    Compiler::Process { program: outbox_program(), arguments: vec!["compile-component".into()] }
}

fn settings(compiler: Compiler, limits: Limits) -> Settings {
    Settings { limits, compiler, output: OutputSink::new(|_| ()), ..Settings::default() }
}

fn refusal(bytes: &[u8], settings: Settings) -> LoadError {
    ComponentPublisher::from_bytes("hostile", bytes, settings).unwrap_err()
}

/// What each real publisher has is far from what is too much: see also `languages.rs`, which loads those of each language.
#[test]
fn a_tenth_of_what_is_too_much_is_a_publisher() {
    let module = unfolding::globals(50_000);
    let publisher = ComponentPublisher::from_bytes(
        "large",
        &unfolding::instances(&module, 2),
        settings(Compiler::InThisProcess, Limits::default()),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(publisher.unwrap().publish(&recorded("{}"))).outcome, Outcome::Delivered);
}

#[test]
fn a_process_that_compiles_is_held_to_its_memory_and_its_time() {
    let hard = unfolding::hard_to_compile();
    let watch = Watch::begin(std::process::id());
    let compile_bytes = 128 * MIB;
    let little = refusal(&hard, settings(in_a_process(), Limits { compile_bytes, ..Limits::default() }));
    assert!(matches!(little, LoadError::CompileMemory { bytes_max, .. } if bytes_max == compile_bytes), "{little}");
    assert!(little.to_string().contains("limit: compile_mib"), "{little}");
    let compile_time = Duration::from_millis(300);
    let late = refusal(&hard, settings(in_a_process(), Limits { compile_time, ..Limits::default() }));
    assert!(matches!(late, LoadError::CompileTime { .. }), "{late}");
    // Those of the other tests are among them.
    let most = watch.end();
    assert!(most.values().all(|bytes| *bytes < Limits::default().compile_bytes + PROGRAM_BYTES), "{most:?}");
}

#[test]
fn a_process_compiles_what_this_one_would_have_compiled() {
    let bytes = unfolding::publisher("");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for compiler in [in_a_process(), Compiler::InThisProcess] {
        let publisher = ComponentPublisher::from_bytes("good", &bytes, settings(compiler, Limits::default())).unwrap();
        assert_eq!(runtime.block_on(publisher.publish(&recorded("{}"))).outcome, Outcome::Delivered);
    }
    // What it says of a component that is none is what the compiler says in this process.
    let damaged = &bytes[..bytes.len() - 9];
    let said = [in_a_process(), Compiler::InThisProcess]
        .map(|compiler| refusal(damaged, settings(compiler, Limits::default())).to_string());
    assert_eq!(said[0], said[1]);
    let nobody = Compiler::Process { program: "/nobody/is/here".into(), arguments: Vec::new() };
    let refusal = refusal(&bytes, settings(nobody, Limits::default())).to_string();
    assert!(refusal.contains("the process that compiles cannot be started"), "{refusal}");
}

/// As from a component that is a trick played on the compiler: of what has no end no more is taken than there may be.
#[test]
fn code_that_is_far_larger_than_its_component_is_refused() {
    let arguments = vec!["-c".into(), "printf p; cat /dev/zero".into()];
    let endless = Compiler::Process { program: "/bin/sh".into(), arguments };
    let refusal = refusal(&unfolding::publisher(""), settings(endless, Limits::default()));
    assert!(matches!(refusal, LoadError::CodeTooLarge { bytes_max, .. } if bytes_max < 17 * MIB), "{refusal}");
    assert!(refusal.to_string().contains("limit: compiled code"), "{refusal}");
}

const CONFIG: &str = r#"
db = "app.db"
[publisher.limits]
compile_mib = 256
compile_time = "3s"
"#;

/// How much more memory a relay may take for components that it refuses.
const RELAY_BYTES_MAX: usize = 256 * MIB;

fn delivers(place: &Workplace) {
    place.sql().execute("INSERT INTO outbox (stream_id, name, data) VALUES ('s', 'n', '{}')", []).unwrap();
    let gone = || place.query("SELECT count(*) FROM outbox") == ["0"];
    until("a well-behaved publisher delivers beside it", gone);
}

/// A module in the database may reach the relay without having been compiled by `deploy`.
fn store(place: &Workplace, bytes: &[u8]) -> u32 {
    let outbox = SqliteOutbox::open(&place.path("app.db")).unwrap();
    outbox.deploy("it", bytes, None, "", &act()).unwrap().version
}

#[test]
fn a_relay_refuses_them_within_its_memory_and_delivers_meanwhile() {
    let place = Workplace::new();
    place.write("good.wasm", unfolding::publisher(""));
    place.outbox("publisher deploy it good.wasm --db app.db").ok();
    place.write("outbox.toml", CONFIG);
    let relay = place.start_logged("relay --config outbox.toml");
    relay.wait_for_log("publishing");
    delivers(&place);
    let before = memory::resident_of(relay.pid()).unwrap();
    let watch = Watch::begin(relay.pid());
    let hard = Hostile { name: "hard to compile", bytes: unfolding::hard_to_compile(), says: "limit: compile_" };
    for Hostile { name, bytes, says } in unfolding::refused().into_iter().chain([hard]) {
        let version = store(&place, &bytes);
        let reason = || {
            let reason = format!("SELECT state, reason FROM outbox_versions WHERE version = {version}");
            place.query(&reason).concat()
        };
        delivers(&place);
        until(name, || reason().starts_with("refused"));
        assert!(reason().contains(says), "{name}: {}", reason());
        delivers(&place);
    }
    let grown = memory::highest_of(relay.pid()).unwrap().saturating_sub(before);
    println!("the relay's memory grew by {} MiB at its highest", grown / MIB);
    assert!(grown < RELAY_BYTES_MAX, "{grown}");
    until("what was given up is killed", || children(relay.pid()).is_empty());
    let compiling = watch.end();
    println!(
        "the processes that compiled had {:?} MiB",
        compiling.values().map(|bytes| bytes / MIB).collect::<Vec<_>>()
    );
    assert!(
        !compiling.is_empty() && compiling.values().all(|bytes| *bytes < 256 * MIB + PROGRAM_BYTES),
        "{compiling:?}"
    );
}

#[test]
fn a_watched_file_is_refused_within_the_relays_memory_too() {
    let place = Workplace::new();
    place.write("it.wasm", unfolding::publisher(""));
    place.write("outbox.toml", CONFIG);
    let relay = place.start_logged("relay --config outbox.toml --watch it.wasm");
    relay.wait_for_log("publishing");
    delivers(&place);
    let before = memory::resident_of(relay.pid()).unwrap();
    let refused = |bytes: &[u8], says: &str| {
        place.write("it.wasm", bytes);
        delivers(&place);
        relay.wait_for_log(says);
        delivers(&place);
    };
    let named = |name: &str| unfolding::refused().into_iter().find(|hostile| hostile.name == name).unwrap();
    for name in ["three levels of 900", "20,000 loops"] {
        let Hostile { bytes, says, .. } = named(name);
        refused(&bytes, says);
    }
    refused(&unfolding::hard_to_compile(), "limit: compile_");
    // A file that is too long is not read to its end.
    std::fs::File::create(place.path("it.wasm")).unwrap().set_len(1 << 40).unwrap();
    relay.wait_for_log("limit: module_mib");
    delivers(&place);
    let grown = memory::highest_of(relay.pid()).unwrap().saturating_sub(before);
    println!("the relay's memory grew by {} MiB at its highest", grown / MIB);
    assert!(grown < RELAY_BYTES_MAX, "{grown}");
    assert!(children(relay.pid()).is_empty(), "nothing goes on");
}
