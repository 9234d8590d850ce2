//! A relay is asked to stop, and what was under way is neither lost nor counted.

use std::time::{Duration, Instant};

use outbox_tests::crash::arena::Arena;
use outbox_tests::crash::process::Process;
use outbox_tests::waiting::until;
use rustix::process::Signal;

const STREAMS: usize = 20;
const CALLS: usize = 8;
/// Longer than any of these tests waits for an end.
const NO_ANSWER: [&str; 2] = ["--delay-ms", "120000"];
/// Far below that, and far above what an end takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A relay with an event of each stream to publish, and as many calls under way as it may have.
fn busy(arena: &mut Arena) -> Process {
    arena.append(STREAMS, 1);
    let relay = arena.relay("is to be stopped");
    until("calls are under way", || {
        arena.ledger.read_on();
        arena.ledger.seen.len() >= CALLS
    });
    relay
}

fn ends_soon(relay: &mut Process) {
    let asked = Instant::now();
    let status = relay.wait();
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
}

/// All entries but `delivered` are there as if nobody had tried them, and the next relay suspects none.
fn nothing_is_counted(arena: &mut Arena, delivered: usize) {
    assert_eq!(arena.count("outbox"), (STREAMS - delivered) as i64);
    for table in ["outbox_attempts", "outbox_waiting", "outbox_dead_letters"] {
        assert_eq!(arena.count(table), 0, "{table}");
    }
    let mut next = arena.relay("goes on");
    until("a relay is at work", || arena.log_from(&next).contains("publishing"));
    let log = arena.log_from(&next);
    assert!(!log.contains("died"), "{log}");
    next.kill();
}

#[test]
fn calls_under_way_may_end_and_nothing_new_is_begun() {
    let mut arena = Arena::with(&["--delay-ms", "1500"], "");
    let mut relay = busy(&mut arena);
    relay.signal(Signal::TERM);
    ends_soon(&mut relay);
    arena.settle_down();
    assert_eq!(arena.ledger.seen.len(), CALLS);
    let pending = arena.pending();
    assert!(arena.ledger.seen.iter().all(|seen| !pending.contains(&seen.uuid)), "what was delivered is removed");
    nothing_is_counted(&mut arena, CALLS);
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let mut arena = Arena::with(&NO_ANSWER, "");
    let mut relay = busy(&mut arena);
    relay.signal(Signal::TERM);
    until("it says that it stops", || arena.log_from(&relay).contains("stopping"));
    assert!(relay.is_alive());
    relay.signal(Signal::TERM);
    ends_soon(&mut relay);
    nothing_is_counted(&mut arena, 0);
}

#[test]
fn calls_that_do_not_end_are_cut_off_when_the_grace_is_over() {
    let mut arena = Arena::with(&NO_ANSWER, "shutdown_grace = \"700ms\"");
    let mut relay = busy(&mut arena);
    relay.signal(Signal::TERM);
    ends_soon(&mut relay);
    let log = arena.log_from(&relay);
    assert!(log.contains("8 calls did not end in time"), "{log}");
    nothing_is_counted(&mut arena, 0);
}
