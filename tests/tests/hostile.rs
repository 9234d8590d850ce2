//! A corpus of hostile publishers: each ends as its own outcome, takes up no more of the host than it may, and
//! holds up nobody. The core modules in `tests/wat` do what no compiler would let a publisher do; the guest
//! `scripted` does what a program can do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, Limits, LoadError, OutputSink, Settings};
use outbox_host::{Attempt, Outcome, Publisher};
use outbox_tests::guest;
use outbox_tests::memory::{self, MIB};
use outbox_tests::outboxes::recorded as event;
use outbox_tests::waiting::PATIENCE;
use proptest::prelude::*;

const CALL_TIME: Duration = Duration::from_secs(1);
const MEMORY_BYTES: usize = 80 * MIB;
/// What a hostile publisher's call may add to the host's memory: its own, and as much again for everything else, the
/// compiler's included.
const GROWTH_BYTES_MAX: usize = 2 * MEMORY_BYTES;

/// A publisher's file, the outcome of its call, and the reason.
const CORES: &[(&str, &str, &str)] = &[
    ("good", "delivered", ""),
    ("trap-in-start", "unavailable", "unreachable"),
    ("trap-in-realloc", "trapped", "unreachable"),
    ("trap-in-post-return", "trapped", "unreachable"),
    ("loop-in-start", "unavailable", "limit: call_time"),
    ("loop-in-realloc", "timed-out", "limit: call_time"),
    ("loop-in-post-return", "timed-out", "limit: call_time"),
    ("loop", "timed-out", "limit: call_time"),
    ("calls-without-a-loop", "timed-out", "limit: call_time"),
    ("bulk", "timed-out", "limit: call_time"),
    ("deep-recursion", "trapped", "stack"),
    ("grow-to-the-last-page", "limit-exceeded", "limit: memory_mib"),
    ("grow-and-cope", "delivered", ""),
    ("memory-bomb", "unavailable", "limit: memory_mib"),
    ("memories", "unavailable", "memory count too high"),
    ("table-bomb", "limit-exceeded", "limit: table_elements"),
    ("table-of-billions", "unavailable", "limit: table_elements"),
    ("invalid-utf-8", "trapped", "utf-8"),
    ("invalid-discriminant", "trapped", "discriminant"),
    ("invalid-inner-discriminant", "trapped", "discriminant"),
    ("list-out-of-bounds", "trapped", "out of bounds"),
    ("length-overflow", "trapped", "out of bounds"),
    ("answer-out-of-bounds", "trapped", "out of bounds"),
    ("answer-unaligned", "trapped", "aligned"),
    ("answer-of-48-mib", "limit-exceeded", "limit: hostcall_bytes"),
];

/// The same for scripts of the guest `scripted`.
const SCRIPTS: &[(&str, &str, &str)] = &[
    (r#"{"do": "trap"}"#, "trapped", "unreachable"),
    (r#"{"do": "exit"}"#, "trapped", "exit"),
    (r#"{"do": "recurse"}"#, "trapped", ""),
    (r#"{"do": "spin"}"#, "timed-out", "limit: call_time"),
    (r#"{"do": "sleep"}"#, "timed-out", "limit: call_time"),
    (r#"{"do": "allocate"}"#, "limit-exceeded", "limit: memory_mib"),
    (r#"{"do": "print", "bytes": 1000000000}"#, "timed-out", "limit: call_time"),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder("wat").join(format!("{name}.wat"))).unwrap()
}

/// The core module `core` in the contract's component, with more exports where there are any.
fn component(core: &str, exports: &str) -> Vec<u8> {
    let contract = with_core(&read("contract"), core);
    wat::parse_str(contract.replacen("  ;; exports\n", exports, 1)).unwrap()
}

fn with_core(contract: &str, core: &str) -> String {
    contract.replacen("\n  ;; core\n", &format!("\n{core}\n"), 1)
}

fn settings(call_time: Duration) -> Settings {
    let limits = Limits { call_time, memory_bytes: MEMORY_BYTES, ..Limits::default() };
    Settings { limits, output: OutputSink::new(|_| {}), ..Settings::default() }
}

/// What is to end otherwise than by its time has all the time that a busy machine may need for it.
fn call_time(says: &str) -> Duration {
    if says == "limit: call_time" { CALL_TIME } else { PATIENCE }
}

fn load(name: &str, bytes: &[u8]) -> ComponentPublisher {
    load_with(name, bytes, PATIENCE)
}

fn load_with(name: &str, bytes: &[u8], call_time: Duration) -> ComponentPublisher {
    ComponentPublisher::from_bytes(name, bytes, settings(call_time)).unwrap()
}

async fn publish(publisher: &ComponentPublisher, script: &str) -> Attempt {
    publisher.publish(&event(script)).await
}

fn assert_ended(name: &str, attempt: &Attempt, outcome: &str, says: &str) {
    let reason = attempt.outcome.reason().to_lowercase();
    assert!(attempt.outcome.name() == outcome && reason.contains(says), "{name}: {:?}", attempt.outcome);
    assert!(reason.len() < 20_000, "{name}: a reason of {} bytes", reason.len());
}

/// Within the time of a call, which is [`PATIENCE`] or less.
async fn assert_delivers(well_behaved: &ComponentPublisher) {
    assert_eq!(publish(well_behaved, "{}").await.outcome, Outcome::Delivered);
}

/// One test, since the memory is the whole process's; what the others of this file take up meanwhile is counted too.
#[tokio::test]
async fn each_ends_as_its_own_outcome_within_its_memory_and_the_next_event_is_delivered() {
    let well_behaved = ComponentPublisher::load(&guest("noop"), settings(PATIENCE)).unwrap();
    assert_delivers(&well_behaved).await;
    let scripted = |call_time| ComponentPublisher::load(&guest("scripted"), settings(call_time)).unwrap();
    let (hasty, patient) = (scripted(CALL_TIME), scripted(PATIENCE));
    let before = memory::resident();
    for (name, outcome, says) in CORES {
        let publisher = load_with(name, &component(&read(name), ""), call_time(says));
        // Twice: what the first left behind must not help the second.
        for _ in 0..2 {
            assert_ended(name, &publish(&publisher, "{}").await, outcome, says);
            assert_delivers(&well_behaved).await;
        }
    }
    for (script, outcome, says) in SCRIPTS {
        let scripted = if call_time(says) == CALL_TIME { &hasty } else { &patient };
        assert_ended(script, &publish(scripted, script).await, outcome, says);
        assert_delivers(&well_behaved).await;
        assert_delivers(&patient).await;
    }
    let growth = memory::highest().saturating_sub(before);
    println!("the host's memory grew by {} MiB at its highest", growth / MIB);
    assert!(growth <= GROWTH_BYTES_MAX, "the host's memory grew by {growth} bytes");
}

const CONFIGURE: &str = r#"
  (func $configure (result (result (error string)))
    (canon lift (core func $i "configure") (memory $i "memory")))
  (instance $lifecycle (export "configure" (func $configure)))
  (export "outbox:publisher/lifecycle@0.1.0" (instance $lifecycle))
"#;

#[tokio::test]
async fn a_trap_in_configure_makes_the_publisher_unavailable() {
    let publisher = load("trap-in-configure", &component(&read("trap-in-configure"), CONFIGURE));
    assert!(publisher.has_lifecycle());
    assert_ended("trap-in-configure", &publish(&publisher, "{}").await, "unavailable", "unreachable");
}

const BATCH: &str = r#"
  (func $batch (param "events" (list $recorded)) (result (list (result (error $error))))
    (canon lift (core func $i "publish-batch") (memory $i "memory") (realloc (func $i "realloc"))))
  (instance $batch-publisher (export "publish-batch" (func $batch)))
  (export "outbox:publisher/batch-publisher@0.1.0" (instance $batch-publisher))
"#;

#[tokio::test]
async fn a_million_answers_of_one_byte_are_too_much() {
    let publisher = load("million-strings", &component(&read("million-strings"), BATCH));
    for attempt in publisher.publish_batch(&[event("{}"), event("{}")]).await {
        assert_ended("million-strings", &attempt, "limit-exceeded", "limit: hostcall_bytes");
    }
    assert_delivers(&publisher).await;
}

const TIMERS: &str = r#"
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $timer (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $timer))))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core instance $i (instantiate $core (with "host" (instance (export "subscribe" (func $subscribe))))))
"#;

#[tokio::test]
async fn leaked_handles_are_limited() {
    let contract = with_core(&read("contract"), &read("handle-leak"));
    let text = contract.replacen("  (core instance $i (instantiate $core))\n", TIMERS, 1);
    let publisher = load("handle-leak", &wat::parse_str(text).unwrap());
    assert_ended("handle-leak", &publish(&publisher, "{}").await, "limit-exceeded", "limit: resources");
}

/// What the component model's async part makes is held by the host as well.
#[tokio::test]
async fn leaked_streams_and_futures_are_limited() {
    for kind in ["stream", "future"] {
        let make = format!(
            "(type $made ({kind} u8)) (core func $make (canon {kind}.new $made))
             (core instance $i (instantiate $core (with \"host\" (instance (export \"make\" (func $make))))))"
        );
        let contract = with_core(&read("contract"), &read("built-in-leak"));
        let text = contract.replacen("(core instance $i (instantiate $core))", &make, 1);
        let publisher = load("built-in-leak", &wat::parse_str(text).unwrap());
        let before = memory::resident();
        assert_ended(kind, &publish(&publisher, "{}").await, "limit-exceeded", "limit: resources");
        assert!(memory::resident().saturating_sub(before) < GROWTH_BYTES_MAX);
    }
}

const SAME_UNDER_VERSION_2: &str = r#"(export "outbox:publisher/publisher@0.2.0" (instance $publisher))"#;

#[tokio::test]
async fn of_two_versions_the_known_one_is_called_and_an_unknown_one_alone_is_refused() {
    let both = load("both", &component(&read("version-two-too"), SAME_UNDER_VERSION_2));
    assert_delivers(&both).await;

    let known = r#"(export "outbox:publisher/publisher@0.1.0" (instance $publisher))"#;
    let bytes = with_core(&read("contract").replacen(known, SAME_UNDER_VERSION_2, 1), &read("version-two-only"));
    let refusal = refusal(&wat::parse_str(bytes).unwrap(), Settings::default());
    assert!(matches!(&refusal, LoadError::OtherVersion { found, .. } if found == "0.2.0"), "{refusal}");
}

fn refusal(bytes: &[u8], settings: Settings) -> LoadError {
    ComponentPublisher::from_bytes("hostile", bytes, settings).unwrap_err()
}

/// A function that is a challenge to the compiler: very many values that are all alive at its end.
fn slow_to_compile() -> Vec<u8> {
    let mut body = String::new();
    for value in 0..40_000 {
        write!(body, "(local.get 0) (i32.const {value}) i32.add ").unwrap();
    }
    body.push_str(&"i32.xor ".repeat(39_999));
    let slow = format!("(func (export \"slow\") (param i32) (result i32) {body})");
    let core = read("good");
    let end = core.rfind(')').unwrap();
    component(&format!("{}{slow})", &core[..end]), "")
}

#[test]
fn a_module_that_compiles_too_slowly_is_left_and_the_next_one_is_compiled() {
    let compile_time = Duration::from_millis(50);
    let settings = Settings { limits: Limits { compile_time, ..Limits::default() }, ..Settings::default() };
    let slow = slow_to_compile();
    let refusal = refusal(&slow, settings);
    assert!(matches!(&refusal, LoadError::CompileTime { .. }), "{refusal}");
    assert!(refusal.to_string().contains("50ms (limit: compile_time)"), "{refusal}");
    load("good", &component(&read("good"), ""));
}

#[test]
fn a_huge_module_is_refused() {
    let mut bytes = component(&read("good"), "");
    bytes.resize(Limits::default().module_bytes + 1, 0);
    let refusal = refusal(&bytes, Settings::default());
    assert!(refusal.to_string().contains("limit: module_mib"), "{refusal}");
}

#[test]
fn a_component_cut_off_anywhere_is_refused() {
    let bytes = component(&read("good"), "");
    for length in (0..bytes.len()).step_by(7) {
        refusal(&bytes[..length], Settings::default());
    }
}

proptest! {
    #![proptest_config(outbox_tests::proptest_config!("hostile", 64))]

    /// Each is refused, or is a publisher whose call ends.
    #[test]
    fn a_mutated_component_does_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = component(&read("good"), "");
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        let settings = settings(Duration::from_millis(100));
        if let Ok(publisher) = ComponentPublisher::from_bytes("mutated", &bytes, settings) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(publish(&publisher, "{}"));
        }
    }
}

/// Every guest is there for a test.
#[test]
fn each_guest_is_named_by_a_test() {
    let tests: String = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for folder in [folder("guests"), folder("wat")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let named = tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("guests/{name}"));
            assert!(named, "no test names the guest {}", path.display());
        }
    }
}
