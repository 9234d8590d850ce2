//! Publishers that are components: what they answer, how they fail, and what is refused when they are loaded.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outbox_host::publisher::component::{ComponentPublisher, Isolation, Limits, LoadError, OutputSink, Settings};
use outbox_host::{Attempt, Outcome, Payload, Publisher};
use outbox_tests::guest;
use outbox_tests::outboxes::recorded as event;
use uuid::Uuid;

fn load(name: &str, settings: Settings) -> ComponentPublisher {
    ComponentPublisher::load(&guest(name), settings).unwrap()
}

fn limits(limits: Limits) -> Settings {
    Settings { limits, ..Settings::default() }
}

fn call_time_ms(ms: u64) -> Settings {
    limits(Limits { call_time: Duration::from_millis(ms), ..Limits::default() })
}

/// Settings whose output is collected, as `stream: line`.
fn collected() -> (Settings, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    let output = OutputSink::new(move |line| {
        kept.lock().unwrap().push(format!("{} {}: {}", line.publisher, line.stream.name(), line.line));
    });
    (Settings { output, ..Settings::default() }, lines)
}

async fn publish(publisher: &ComponentPublisher, script: &str) -> Attempt {
    publisher.publish(&event(script)).await
}

async fn assert_still_works(publisher: &ComponentPublisher) {
    assert_eq!(publish(publisher, "{}").await.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn a_delivered_event_names_the_module_and_has_no_stderr() {
    let publisher = load("noop", Settings::default());
    let attempt = publish(&publisher, "{}").await;
    assert_eq!(attempt, Attempt { digest: Some(publisher.digest().clone()), ..Outcome::Delivered.into() });
    assert_eq!(publisher.digest().len(), 64);
    assert_eq!(publisher.name(), "noop");
    assert_eq!(publisher.max_batch(), 1);
}

#[tokio::test]
async fn the_guests_three_errors_are_passed_through() {
    let publisher = load("scripted", Settings::default());
    let attempt = publish(&publisher, r#"{"do": "retry", "reason": "busy", "after_ms": 1500}"#).await;
    let after = Some(Duration::from_millis(1500));
    assert_eq!(attempt.outcome, Outcome::Retry { reason: "busy".into(), after });
    assert_eq!(attempt.stderr, "failing: busy");

    let attempt = publish(&publisher, r#"{"do": "reject", "reason": "no such order"}"#).await;
    assert_eq!(attempt.outcome, Outcome::Rejected { reason: "no such order".into() });

    let attempt = publish(&publisher, r#"{"do": "unavailable", "reason": "closed"}"#).await;
    assert_eq!(attempt.outcome, Outcome::Unavailable { reason: "closed".into(), after: None });
    assert_eq!(publisher.instances_started(), 1, "an error is an answer: the instance stays");
}

#[tokio::test]
async fn a_binary_payload_and_missing_values_reach_the_guest() {
    let publisher = load("scripted", Settings::default());
    let mut event = event("");
    event.wrapped_event.version = None;
    event.wrapped_event.data = Payload::Binary { content_type: "image/png".into(), bytes: vec![0, 255, 128] };
    assert_eq!(publisher.publish(&event).await.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn a_long_reason_is_cut() {
    let publisher = load("scripted", Settings::default());
    let script = format!(r#"{{"do": "reject", "reason": "{}"}}"#, "é".repeat(5_000));
    let attempt = publish(&publisher, &script).await;
    assert_eq!(attempt.outcome.reason().chars().count(), 2_001);
}

#[tokio::test]
async fn a_trap_ends_the_instance_and_the_next_event_gets_a_new_one() {
    let publisher = load("scripted", Settings::default());
    assert_still_works(&publisher).await;
    let attempt = publish(&publisher, r#"{"do": "trap", "reason": "no luck"}"#).await;
    assert_eq!(attempt.outcome.name(), "trapped");
    assert!(attempt.outcome.reason().contains("unreachable"), "{}", attempt.outcome.reason());
    assert!(attempt.stderr.contains("no luck"), "{}", attempt.stderr);
    assert_still_works(&publisher).await;
    assert_eq!(publisher.instances_started(), 2);
}

#[tokio::test]
async fn ending_itself_and_overflowing_the_stack_are_traps() {
    let publisher = load("scripted", Settings::default());
    let exit = publish(&publisher, r#"{"do": "exit"}"#).await.outcome;
    assert_eq!(exit.name(), "trapped");
    assert!(exit.reason().contains("exit"), "{}", exit.reason());
    let recurse = publish(&publisher, r#"{"do": "recurse"}"#).await.outcome;
    assert_eq!(recurse.name(), "trapped");
    assert_still_works(&publisher).await;
}

#[tokio::test]
async fn a_spinning_guest_is_cut_off_and_holds_up_nobody_on_its_thread() {
    // On a busy machine the spin may be over before the others had a chance: then it gets more time.
    for call_time in [500, 5_000, 50_000].map(Duration::from_millis) {
        if others_are_delivered_beside_a_spin_of(call_time).await {
            return;
        }
    }
    panic!("the others waited until the spinning guest was cut off");
}

async fn others_are_delivered_beside_a_spin_of(call_time: Duration) -> bool {
    let publisher = load("scripted", limits(Limits { call_time, ..Limits::default() }));
    let (started, spins) = (Instant::now(), Cell::new(true));
    let spin = async {
        let attempt = publish(&publisher, r#"{"do": "spin"}"#).await;
        spins.set(false);
        attempt
    };
    let others = async {
        let mut delivered = 0;
        for _ in 0..5 {
            delivered += u32::from(publish(&publisher, "{}").await.outcome == Outcome::Delivered);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        delivered == 5 && spins.get()
    };
    let (spin, are_delivered_beside_it) = tokio::join!(spin, others);
    assert_eq!(spin.outcome.name(), "timed-out");
    assert!(spin.outcome.reason().contains(&format!("{call_time:?}")), "{}", spin.outcome.reason());
    assert_eq!(spin.stderr, "spinning");
    assert!(started.elapsed() >= call_time, "{:?}", started.elapsed());
    assert_still_works(&publisher).await;
    are_delivered_beside_it
}

#[tokio::test]
async fn a_guest_blocked_in_a_host_call_is_cut_off() {
    let publisher = load("scripted", call_time_ms(200));
    // For an hour, if nobody cuts it off.
    let sleep = publish(&publisher, r#"{"do": "sleep"}"#).await;
    assert_eq!(sleep.outcome.name(), "timed-out");
    assert_still_works(&publisher).await;
    assert_eq!(publisher.instances_started(), 2);
}

#[tokio::test]
async fn waiting_guests_share_a_thread() {
    let publisher = load("scripted", Settings::default());
    let sleep = || publish(&publisher, r#"{"do": "sleep", "ms": 100}"#);
    let (a, b, c) = tokio::join!(sleep(), sleep(), sleep());
    for attempt in [a, b, c] {
        assert_eq!(attempt.outcome, Outcome::Delivered);
    }
    // One after the other, they would have shared an instance.
    assert_eq!(publisher.instances_started(), 3);
}

#[tokio::test]
async fn a_dropped_call_ends_its_instance() {
    let publisher = load("scripted", Settings::default());
    let slow = publish(&publisher, r#"{"do": "sleep"}"#);
    assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
    assert_still_works(&publisher).await;
    assert_eq!(publisher.instances_started(), 2);
}

#[tokio::test]
async fn memory_is_limited_and_the_limit_is_named() {
    let publisher = load("scripted", limits(Limits { memory_bytes: 16 << 20, ..Limits::default() }));
    let attempt = publish(&publisher, r#"{"do": "allocate"}"#).await;
    assert_eq!(attempt.outcome.name(), "limit-exceeded");
    assert!(attempt.outcome.reason().contains("16777216 bytes of memory"), "{}", attempt.outcome.reason());
    assert_still_works(&publisher).await;
    let within = publish(&publisher, r#"{"do": "allocate", "bytes": 4000000}"#).await;
    assert_eq!(within.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn an_answer_is_limited_in_size() {
    let publisher = load("scripted", limits(Limits { hostcall_bytes: 100_000, ..Limits::default() }));
    let script = format!(r#"{{"do": "reject", "reason": "{}"}}"#, "x".repeat(200_000));
    let attempt = publish(&publisher, &script).await;
    assert_eq!(attempt.outcome.name(), "limit-exceeded");
    assert!(attempt.outcome.reason().contains("100000 bytes"), "{}", attempt.outcome.reason());
}

#[tokio::test]
async fn output_is_captured_line_by_line() {
    let (settings, lines) = collected();
    let publisher = load("scripted", settings);
    publish(&publisher, r#"{"do": "retry", "reason": "busy"}"#).await;
    let lines = lines.lock().unwrap();
    assert_eq!(
        *lines,
        [
            format!("scripted stdout: published {} order.paid attempt=1", Uuid::from_u128(0x1234)),
            "scripted stderr: failing: busy".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_does_no_harm() {
    let (settings, lines) = collected();
    let publisher = load("scripted", settings);
    assert_eq!(publish(&publisher, r#"{"do": "print", "bytes": 1000000}"#).await.outcome, Outcome::Delivered);
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 1_001);
    assert!(lines.last().unwrap().contains("9001 more lines"), "{:?}", lines.last());
}

#[tokio::test]
async fn instances_are_reused_and_recycled() {
    let isolation = Isolation::Reuse { recycle_after: 3 };
    let publisher = load("noop", Settings { isolation, ..Settings::default() });
    for _ in 0..9 {
        assert_still_works(&publisher).await;
    }
    assert_eq!(publisher.instances_started(), 3);

    let publisher = load("noop", Settings { isolation: Isolation::PerEvent, ..Settings::default() });
    for _ in 0..3 {
        assert_still_works(&publisher).await;
    }
    assert_eq!(publisher.instances_started(), 3);
}

#[tokio::test]
async fn configure_is_called_once_an_instance_with_what_was_granted() {
    let (mut settings, lines) = collected();
    settings.grants.env.insert("GREETING".into(), "hello".into());
    let publisher = load("lifecycle", settings);
    assert!(publisher.has_lifecycle());
    publisher.warm_up().await.unwrap();
    for _ in 0..2 {
        assert_still_works(&publisher).await;
    }
    let greeting = format!("lifecycle stdout: hello {}", Uuid::from_u128(0x1234));
    assert_eq!(*lines.lock().unwrap(), ["lifecycle stdout: configured".to_owned(), greeting.clone(), greeting]);
    assert_eq!(publisher.instances_started(), 1);
}

#[tokio::test]
async fn a_refused_configuration_makes_the_publisher_unavailable() {
    let (settings, lines) = collected();
    let publisher = load("lifecycle-refuses", settings);
    let expected =
        Outcome::Unavailable { reason: "the publisher's configure failed: TOKEN is missing".into(), after: None };
    assert_eq!(publish(&publisher, "{}").await.outcome, expected);
    assert_eq!(publisher.warm_up().await.unwrap_err().outcome, expected);
    assert_eq!(*lines.lock().unwrap(), Vec::<String>::new());

    let ungranted = load("lifecycle", Settings::default());
    assert!(publish(&ungranted, "{}").await.outcome.reason().contains("GREETING"));
}

#[tokio::test]
async fn a_publisher_that_cannot_even_start_is_unavailable() {
    let publisher = load("noop", limits(Limits { memory_bytes: 1 << 16, ..Limits::default() }));
    let outcome = publish(&publisher, "{}").await.outcome;
    assert_eq!(outcome.name(), "unavailable");
    assert!(outcome.reason().contains("65536 bytes of memory"), "{}", outcome.reason());
}

#[tokio::test]
async fn a_batch_takes_one_call_and_gives_an_answer_for_each_event() {
    let (settings, lines) = collected();
    let publisher = load("batch", settings);
    assert_eq!((publisher.takes_batches(), publisher.max_batch()), (true, 100));
    let events = [event("{}"), event(r#"{"do": "reject", "reason": "no"}"#), event(r#"{"until_attempt": 1}"#)];
    let outcomes: Vec<_> = publisher.publish_batch(&events).await.into_iter().map(|it| it.outcome.name()).collect();
    assert_eq!(outcomes, ["delivered", "rejected", "retry"]);
    assert_eq!(lines.lock().unwrap()[0], "batch stdout: batch of 3");
}

#[tokio::test]
async fn a_batch_with_an_answer_too_few_is_a_trap_for_each_event() {
    let publisher = load("batch", Settings::default());
    let mut events = vec![event("{}"); 3];
    events[1].wrapped_event.name = "miscount".into();
    let attempts = publisher.publish_batch(&events).await;
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        assert_eq!(attempt.outcome.name(), "trapped");
        assert!(attempt.outcome.reason().contains("2 answers for 3 events"), "{}", attempt.outcome.reason());
    }
    assert_eq!(publisher.publish_batch(&[event("{}"), event("{}")]).await.len(), 2);
    assert_eq!(publisher.instances_started(), 2);
}

#[tokio::test]
async fn without_a_batch_interface_events_go_one_by_one() {
    let publisher = load("scripted", Settings::default());
    let events = [event("{}"), event(r#"{"do": "trap"}"#), event("{}")];
    let outcomes: Vec<_> = publisher.publish_batch(&events).await.into_iter().map(|it| it.outcome.name()).collect();
    assert_eq!(outcomes, ["delivered", "trapped", "delivered"]);
}

/// The guest `scripted` with one more definition: a built-in function of the component model's async part (section 8,
/// one function, `waitable-set.new`). It is never called, and still only an engine that knows it accepts the component.
fn scripted_with_async_built_in(settings: Settings) -> ComponentPublisher {
    let mut bytes = std::fs::read(guest("scripted")).unwrap();
    bytes.extend([8, 2, 1, 0x1f]);
    ComponentPublisher::from_bytes("async", &bytes, settings).unwrap()
}

#[tokio::test]
async fn a_component_that_uses_async_built_ins_runs_under_the_same_rules() {
    let call_time = Duration::from_secs(1);
    let limits = limits(Limits { call_time, memory_bytes: 16 << 20, ..Limits::default() });
    let publisher = scripted_with_async_built_in(limits);
    assert_still_works(&publisher).await;
    for (script, expected) in [
        (r#"{"do": "reject"}"#, "rejected"),
        (r#"{"do": "trap"}"#, "trapped"),
        (r#"{"do": "exit"}"#, "trapped"),
        (r#"{"do": "spin"}"#, "timed-out"),
        (r#"{"do": "sleep"}"#, "timed-out"),
        (r#"{"do": "allocate"}"#, "limit-exceeded"),
    ] {
        assert_eq!(publish(&publisher, script).await.outcome.name(), expected, "{script}");
        assert_still_works(&publisher).await;
    }
    assert_eq!(publisher.instances_started(), 6);
}

#[test]
fn threads_share_a_publisher() {
    let publisher = load("scripted", limits(Limits { lines: 0, ..Limits::default() }));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for turn in 0..300 {
                        let script = if turn % 50 == 7 { r#"{"do": "trap"}"# } else { "{}" };
                        let expected = if turn % 50 == 7 { "trapped" } else { "delivered" };
                        assert_eq!(publish(&publisher, script).await.outcome.name(), expected);
                    }
                });
            });
        }
    });
    assert!(publisher.instances_started() >= 24);
}

fn refusal(path: &Path) -> LoadError {
    ComponentPublisher::load(path, Settings::default()).unwrap_err()
}

fn refusal_of(bytes: &[u8]) -> LoadError {
    ComponentPublisher::from_bytes("p", bytes, Settings::default()).unwrap_err()
}

fn refusal_of_text(wat: &str) -> String {
    refusal_of(&wat::parse_str(wat).unwrap()).to_string()
}

#[test]
fn a_missing_file_a_folder_and_a_text_are_refused() {
    let missing = refusal(Path::new("/nowhere/p.wasm"));
    assert!(missing.to_string().starts_with("cannot read the publisher /nowhere/p.wasm: No such file"), "{missing}");
    assert!(matches!(refusal(Path::new("/")), LoadError::Unreadable { .. }));
    let text = refusal(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").as_path());
    assert!(matches!(&text, LoadError::NotWasm { .. }), "{text}");
    assert!(matches!(refusal_of(b""), LoadError::NotWasm { .. }));
}

#[test]
fn a_core_module_and_another_world_are_refused() {
    let module = refusal(&guest("core-module"));
    assert!(module.to_string().contains("wasm-tools component new"), "{module}");
    let other = refusal(&guest("other-world"));
    assert!(matches!(&other, LoadError::NotAPublisher { .. }), "{other}");
    assert!(other.to_string().contains("it does not export `outbox:publisher/publisher@0.1.0`"), "{other}");
    assert!(refusal_of_text("(component)").contains("it exports nothing"));
}

#[test]
fn an_interface_that_differs_is_refused_and_the_difference_named() {
    let refusal = refusal_of_text(
        r#"(component
            (core module $m (func (export "f") (param i32)))
            (core instance $i (instantiate $m))
            (func $f (param "event" u32) (canon lift (core func $i "f")))
            (instance $p (export "publish" (func $f)))
            (export "outbox:publisher/publisher@0.1.0" (instance $p)))"#,
    );
    let expected = "it has `publish: func(event: u32)`, and the contract has \
                    `publish: func(event: recorded) -> result<_, publish-error>`: ";
    assert!(refusal.contains(expected), "{refusal}");
    let empty =
        refusal_of_text(r#"(component (instance $p) (export "outbox:publisher/publisher@0.1.0" (instance $p)))"#);
    assert!(empty.contains("no function `publish`"), "{empty}");
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    let refusal =
        refusal_of_text(r#"(component (import "acme:queue/sender@1.0.0" (instance (export "send" (func)))))"#);
    assert!(refusal.contains("`acme:queue/sender@1.0.0`"), "{refusal}");
}

#[test]
fn a_large_module_is_refused_before_it_is_read_to_its_end() {
    let settings = limits(Limits { module_bytes: 1_000, ..Limits::default() });
    let refusal = ComponentPublisher::load(&guest("noop"), settings.clone()).unwrap_err();
    assert!(matches!(refusal, LoadError::TooLarge { .. }));
    // Something that is no file may have no end, and is not read at all.
    let refusal = ComponentPublisher::load(Path::new("/dev/zero"), settings).unwrap_err();
    assert!(matches!(refusal, LoadError::Unreadable { .. }), "{refusal}");
}

#[test]
fn a_damaged_component_is_refused() {
    let bytes = std::fs::read(guest("noop")).unwrap();
    assert!(matches!(refusal_of(&bytes[..bytes.len() / 2]), LoadError::Invalid { .. }));
    for position in (8..bytes.len()).step_by(bytes.len() / 40) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 0x41;
        // Some of these are still valid: all that matters is that each is refused or loaded.
        let _ = ComponentPublisher::from_bytes("flipped", &flipped, Settings::default());
    }
}
