//! The limits of a publisher, as the command line and `outbox.toml` set them: each does what it says.

use outbox_tests::guest;
use outbox_tests::sink::Sink;
use outbox_tests::workplace::{Ran, Workplace};
use serde_json::{Value, json};

/// A line that tells the guest `scripted` what to do.
fn event(script: &Value) -> String {
    json!({"name": "order.placed", "stream_id": "order-1", "data": script}).to_string() + "\n"
}

/// One pass over one event, for which `scripted` does what `script` says.
fn run(script: &Value, options: &str) -> Ran {
    let place = Workplace::new();
    place.append(&event(script));
    place.outbox(&format!("run --db app.db --publisher guests/scripted.wasm {options}"))
}

fn run_with_file(script: &Value, file: &str, options: &str) -> Ran {
    let place = Workplace::new();
    place.append(&event(script));
    place.write("outbox.toml", format!("db = \"app.db\"\n[publisher]\nfile = \"guests/scripted.wasm\"\n{file}"));
    place.outbox(&format!("run --config outbox.toml {options}"))
}

#[track_caller]
fn assert_says(text: &str, expected: &str) {
    assert!(text.contains(expected), "{text} does not say: {expected}");
}

#[test]
fn call_time_ends_a_call_and_the_flag_goes_before_the_file() {
    let spin = json!({"do": "spin"});
    let expected = "timed-out: the call was not done within 300ms (limit: call_time)";
    assert_says(&run(&spin, "--call-time 300ms").ok(), expected);
    assert_says(&run_with_file(&spin, "limits.call_time = \"300ms\"", "").ok(), expected);
    assert_says(&run_with_file(&spin, "limits.call_time = \"1h\"", "--call-time 300ms").ok(), expected);
}

#[test]
fn a_call_time_without_an_end_is_taken() {
    for time in ["1h", "9223372036854775807s"] {
        assert_says(&run(&json!({"do": "sleep", "ms": 1}), &format!("--call-time {time}")).ok(), "published       1");
    }
}

#[test]
fn memory_and_the_components_own_size_are_limited() {
    let allocate = json!({"do": "allocate"});
    let expected = "limit-exceeded: the guest asked for more than its 4194304 bytes of memory (limit: memory_mib)";
    assert_says(&run(&allocate, "--memory-mib 4").ok(), expected);
    assert_says(&run_with_file(&allocate, "limits.memory_mib = 4", "").ok(), expected);
    assert_says(&run(&json!({}), "--module-mib 0").refused(), "limit: module_mib");
    assert_says(&run_with_file(&json!({}), "limits.module_mib = 0", "").refused(), "limit: module_mib");
}

#[test]
fn compile_time_is_limited_unless_the_code_is_there_already() {
    assert_says(&run(&json!({}), "--no-cache --compile-time 1us").refused(), "(limit: compile_time)");
    assert_says(&run_with_file(&json!({}), "limits.compile_time = \"1us\"", "--no-cache").refused(), "compile_time");
}

#[test]
fn output_is_cut_and_counted() {
    let print = json!({"do": "print", "bytes": 10_000});
    let ran = run(&print, "--log-lines 3");
    assert_eq!(ran.stderr.matches("xxxx").count(), ran.stderr.matches(&"x".repeat(99)).count() * 24, "{}", ran.stderr);
    assert_says(&ran.stderr, "98 more lines");
    // The log of a whole publisher has room for its first lines, which are 227 bytes each as they are counted.
    let ran = run_with_file(&print, "limits.log_bytes_per_second = 1_000", "");
    assert_says(&ran.stderr, "more lines are left out: too many in a second");
    assert!(ran.stderr.matches(&"x".repeat(99)).count() < 10, "{}", ran.stderr);
    let ran = run_with_file(&print, "limits.line_bytes = 50", "");
    assert!(!ran.stderr.contains(&"x".repeat(51)), "{}", ran.stderr);
    assert_says(&ran.stderr, &"x".repeat(50));
}

#[test]
fn a_reason_is_cut() {
    let reject = json!({"do": "reject", "reason": "a long story"});
    assert_says(&run_with_file(&reject, "limits.reason_chars = 6", "").ok(), "rejected: a long…");
}

#[test]
fn what_compiling_takes_is_limited() {
    let little = run(&json!({}), "--no-cache --limits compile_mib=8");
    assert_says(&little.refused(), "was not compiled within 8388608 bytes of memory (limit: compile_mib)");
    assert_says(&run(&json!({}), "--no-cache --compile-time 1ms").refused(), "limit: compile_time");
}

#[test]
fn what_a_call_may_hold_is_limited() {
    let sleep = json!({"do": "sleep", "ms": 1});
    assert_says(&run_with_file(&sleep, "limits.resources = 1", "").ok(), "limit-exceeded: the guest holds more");
    assert_says(&run_with_file(&sleep, "limits.instances = 1", "").refused(), "limit: instances");
    assert_says(&run_with_file(&sleep, "limits.table_elements = 1", "").ok(), "limit: table_elements");
    assert_says(&run_with_file(&sleep, "limits.hostcall_bytes = 1", "").ok(), "limit: hostcall_bytes");
}

#[test]
fn every_limit_may_be_a_flag_that_goes_before_the_file() {
    let sleep = json!({"do": "sleep", "ms": 1});
    assert_says(&run(&sleep, "--limits table_elements=1").ok(), "limit: table_elements");
    let ran =
        run_with_file(&sleep, "limits = { table_elements = 1, call_time = \"1h\" }", "--limits table_elements=100000");
    assert_says(&ran.ok(), "published       1");
    assert_says(&run(&sleep, "--limits tables=1").refused(), "unknown field `tables`");
}

#[test]
fn http_requests_are_limited() {
    let place = Workplace::new();
    let sink = Sink::start(&place.path("ledger"), env!("CARGO_BIN_EXE_outbox-sink"));
    place.append(&event(&json!({"order": 7})));
    let run = format!(
        "run --db app.db --publisher {} --allow-http {url} --env WEBHOOK_URL={url}",
        guest("rust-webhook").display(),
        url = sink.url()
    );
    assert_says(&place.outbox(&format!("{run} --http-requests 0")).ok(), "(limit: http_requests)");
    assert_eq!(sink.deliveries().len(), 0);
    place.sql().execute("UPDATE outbox_waiting SET retry_at_ms = failed_at_ms", []).unwrap();
    assert_says(&place.outbox(&format!("{run} --http-requests 1")).ok(), "published       1");
}

#[test]
fn each_event_may_have_an_instance_of_its_own() {
    let starts = |options: &str| {
        let place = Workplace::new();
        place.append(&event(&json!({})).repeat(5));
        let ran = place.outbox(&format!(
            "run --db app.db --publisher guests/lifecycle.wasm --env GREETING=hello --concurrency 1 {options}"
        ));
        assert_says(&ran.stdout, "published       5");
        ran.stderr.matches("configured").count()
    };
    assert_eq!(starts(""), 1);
    assert_eq!(starts("--isolation per-event"), 5);
    assert_eq!(starts("--recycle-after 2"), 3);
}
