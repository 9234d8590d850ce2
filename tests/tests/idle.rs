//! An idle relay sleeps: the clock that cuts off guests ticks only while one computes.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde_json::{Value, json};

/// The most ticks in a second without a guest at work. With one there are 100, and fewer on a busy machine.
const IDLE_MAX: u64 = 5;

fn event(script: &Value) -> String {
    json!({"name": "order.placed", "stream_id": "order-1", "data": script}).to_string() + "\n"
}

/// How often the thread that ticks for the guests was woken so far.
fn ticks(pid: u32) -> u64 {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|it| it.unwrap().path()).collect();
    let name = |thread: &PathBuf| fs::read_to_string(thread.join("comm")).unwrap_or_default();
    let ticker = threads.iter().find(|thread| name(thread) == "outbox-epoch\n").unwrap();
    let status = fs::read_to_string(ticker.join("status")).unwrap();
    let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    switches.trim().parse().unwrap()
}

#[test]
fn the_clock_of_the_guests_ticks_only_while_one_computes() {
    let place = Workplace::new();
    place.append(&event(&json!({})));
    let mut relay = place.start_logged("relay --db app.db --publisher guests/scripted.wasm --call-time 1s");
    until("what was there is published", || place.status()["pending"] == 0);
    // The tick that was due.
    thread::sleep(Duration::from_millis(100));
    let before = ticks(relay.pid());
    thread::sleep(Duration::from_secs(1));
    let idle = ticks(relay.pid()) - before;
    assert!(idle <= IDLE_MAX, "{idle} ticks while nothing was to be done");

    let before = ticks(relay.pid());
    place.append(&event(&json!({"do": "spin"})));
    relay.wait_for_log("timed-out");
    let busy = ticks(relay.pid()) - before;
    assert!(busy > 2 * IDLE_MAX, "{busy} ticks in a second");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
}
