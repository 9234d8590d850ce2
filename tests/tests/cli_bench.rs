//! `outbox bench`: a small run of each scenario. This tests that it measures, and not what.

use outbox_tests::workplace::Workplace;
use serde_json::Value;

const PUBLISHERS: &str = "--publisher guests/noop.wasm --waits guests/waits.wasm --webhook guests/rust-webhook.wasm \
                          --scripted guests/scripted.wasm --bulk guests/rust-bulk.wasm";
const SMALL: &str = "--entries 2000 --backlog 2000 --wakes 5 --repeat 1";

#[track_caller]
fn measures(scenario: &str, ratios: &[&str]) {
    measures_with(scenario, &format!("{PUBLISHERS} {SMALL}"), ratios);
}

/// Runs a scenario, and holds each of its figures to be a number.
#[track_caller]
fn measures_with(scenario: &str, options: &str, ratios: &[&str]) {
    let place = Workplace::empty();
    let json = place.outbox(&format!("bench {scenario} {options} --folder . --json")).json();
    let figures = json[scenario]["figures"].as_object().unwrap_or_else(|| panic!("{json:#}"));
    for (name, figure) in figures {
        let samples = figure["samples"].as_array().unwrap();
        let numbers = samples.iter().chain([&figure["median"]]);
        assert!(
            !samples.is_empty() && numbers.map(Value::as_f64).all(|it| it.is_some_and(f64::is_finite)),
            "{name}: {json:#}"
        );
    }
    for name in ratios {
        assert!(figures[*name]["median"].as_f64() > Some(0.0), "{name}: {json:#}");
    }
    let left: Vec<_> = place.files().into_keys().collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

#[test]
fn drain() {
    measures("drain", &["component / bare SQLite", "component / native closure", "component / without limits"]);
}

#[test]
fn delay() {
    measures("delay", &["late, median", "putting off, processor time of an entry", "idle: with them / without"]);
}

#[test]
fn append() {
    measures("append", &["append / INSERT, one a transaction", "append / INSERT, 100 a transaction"]);
}

#[test]
fn wake() {
    measures("wake", &[]);
}

#[test]
fn waiting() {
    measures("waiting", &["component / native publisher, 64 streams", "component / native publisher, 256 streams"]);
}

#[test]
fn http() {
    measures("http", &["relay / native client, answered after 10 ms", "relay / native client, answered at once"]);
}

#[test]
fn batch() {
    let ratios =
        ["batches / one request an entry, answered after 10 ms", "calls with 100 events, answered after 10 ms"];
    measures("batch", &ratios);
}

#[test]
fn writer() {
    measures("writer", &["99 of 100, beside / alone"]);
}

#[test]
fn start() {
    measures("start", &["compiled code from the cache"]);
}

#[test]
fn swap() {
    // A publisher that waits has a load of many seconds, which outlasts the swaps on any machine.
    let options = "--publisher guests/waits.wasm --entries 20000 --repeat 1";
    measures_with("swap", options, &["under load, pause at a swap"]);
}

/// A pause in which there was nothing to deliver is no figure of a swap.
#[test]
fn a_swap_whose_load_ends_before_it_says_so_and_has_no_figure_under_load() {
    let place = Workplace::empty();
    let bench = "bench swap --publisher guests/noop.wasm --entries 1 --repeat 1 --folder .";
    let says = "no figure of the pause under load: the load ended before the last swap (give more --entries)";
    let json = place.outbox(&format!("{bench} --json")).json();
    let names: Vec<&String> = json["swap"]["figures"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["deployed to first delivery, compiled", "deployed to first delivery, from the cache"]);
    assert!(json["swap"]["what"].as_str().unwrap().ends_with(says), "{json:#}");
    let printed = place.outbox(bench).ok();
    assert!(printed.contains(says) && !printed.contains("under load, "), "{printed}");
}

#[test]
fn memory() {
    measures("memory", &["2000 entries / 20", "an idle instance"]);
}

#[test]
fn backlog() {
    measures("backlog", &["cost of an entry, many / few"]);
}

#[test]
fn neighbour() {
    measures("neighbour", &["one that answers after 2 s: median / aim", "one with many entries in front: worst / aim"]);
}

#[test]
fn fairness() {
    measures("fairness", &["drain, in turns / without", "INSERT, index / without, one a transaction"]);
}

#[test]
fn a_scenario_says_which_publisher_it_needs() {
    let place = Workplace::empty();
    let refused = place.outbox("bench http --publisher guests/noop.wasm").refused();
    assert_eq!(refused, "http needs --webhook FILE");
}
