//! What the sandbox's limits cost: a whole drain with all of them as shipped, beside a drain through the same component
//! with nothing but wasmtime, as `outbox bench` measures it.

use outbox_tests::workplace::Workplace;

/// The aim is 0.9, which `make bench SCENARIOS=drain` shows on a quiet machine. What is below half is no noise: a limit is
/// looked at too often, or in a wrong way.
const RATIO_MIN: f64 = 0.5;

#[test]
fn a_drain_with_all_limits_is_nearly_as_fast_as_one_without() {
    let bench = "bench drain --publisher guests/noop.wasm --entries 20000 --repeat 7 --json";
    let json = Workplace::empty().outbox(bench).json();
    let ratio = &json["drain"]["figures"]["component / without limits"];
    println!("with all limits, of the rate without: {}", ratio["median"]);
    assert!(ratio["median"].as_f64() >= Some(RATIO_MIN), "{ratio:#}");
}
