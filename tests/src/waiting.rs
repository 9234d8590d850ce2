//! Waiting for what other threads and processes do.

use std::process::{Child, Output};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what has to come: ample for a machine that has much else to do. Only a test that is about to
/// fail waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(16);

/// Waits until it is so: not all that a test waits for can send a signal.
///
/// # Panics
///
/// If it has not come about within [`PATIENCE`]: `what` says what has not.
#[track_caller]
pub fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_within(PATIENCE, what, is_so);
}

/// The same for what may take another time.
///
/// # Panics
///
/// If it has not come about within `patience`.
#[track_caller]
pub fn until_within(patience: Duration, what: &str, is_so: impl FnMut() -> bool) {
    assert!(came_about(patience, is_so), "not within {patience:?}: {what}");
}

/// Waits for the end of a process, and returns what it has printed.
///
/// # Panics
///
/// If it has not ended within `patience`: it is killed then.
#[track_caller]
pub fn output_of(what: &str, mut child: Child, patience: Duration) -> Output {
    let has_ended = came_about(patience, || child.try_wait().unwrap().is_some());
    if !has_ended {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(has_ended, "no end within {patience:?}: {what}: {output:?}");
    output
}

fn came_about(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    true
}
