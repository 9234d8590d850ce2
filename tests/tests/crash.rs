//! Relays are killed, at random instants and at named points, and nothing is lost, invented, or out of order.
//!
//! `OUTBOX_CRASH_SEED` repeats a run's random choices, `OUTBOX_CRASH_KILLS` sets how many relays are killed.

use std::io::{Write, stderr};
use std::time::Duration;

use fastrand::Rng;
use outbox_tests::crash::arena::Arena;
use outbox_tests::crash::death::Death;
use outbox_tests::crash::lives::Lives;
use outbox_tests::crash::verdict;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn seed() -> u64 {
    number("OUTBOX_CRASH_SEED", fastrand::u64(..))
}

/// Shown even when the test passes: the test runner keeps back what `eprintln!` prints.
#[allow(clippy::explicit_write, reason = "it is not the same")]
fn say(text: &str) {
    writeln!(stderr(), "{text}").unwrap();
}

#[test]
fn no_kill_loses_an_event_or_breaks_the_order() {
    let (seed, kills) = (seed(), number("OUTBOX_CRASH_KILLS", 180));
    say(&format!("crash: {kills} kills, OUTBOX_CRASH_SEED={seed}"));
    let mut rng = Rng::with_seed(seed);
    let mut arena = Arena::new();
    let mut writer = arena.writer(rng.u64(..));
    let mut lives = Lives::default();
    for turn in 0..kills {
        let born = arena.ledger.seen.len();
        let death = Death::draw(turn.try_into().unwrap(), &mut rng);
        death.befall(&mut arena);
        arena.settle_down();
        lives.ended(death, &arena.ledger.seen[born..], &arena.pending());
        assert!(writer.is_alive());
    }
    writer.end();
    let born = arena.ledger.seen.len();
    arena.drain(None);
    let last = &arena.ledger.seen[born..];
    let truth = arena.truth();
    verdict::check(&truth, &arena.ledger.seen, &arena.dead_letters());
    assert_eq!(arena.dead_letters().len(), 0);
    for table in ["outbox_waiting", "outbox_attempts"] {
        assert_eq!(arena.count(table), 0, "{table} still knows of entries that have gone");
    }
    let _ = last;
    for death in &lives.list {
        say(death);
    }
    lives.unremoved.sort_unstable();
    say(&format!(
        "crash: {} kills, {} transactions, {} events, {} deliveries, {} duplicates, at most {} for one kill, median {}",
        lives.deaths,
        truth.len(),
        truth.iter().filter(|it| it.committed).map(|it| it.events.len()).sum::<usize>(),
        arena.ledger.seen.len(),
        lives.duplicates,
        lives.unremoved.last().unwrap(),
        lives.unremoved[lives.unremoved.len() / 2],
    ));
}

/// What is delivered does not wait for what is not: with a destination that takes its time only the calls under way come
/// again, and those that were answered while a commit was awaited.
#[test]
fn a_slow_destination_is_told_little_again() {
    const ANSWER: Duration = Duration::from_millis(100);
    /// A call each, and as many that were answered within a slow commit's time.
    const CALLS: usize = 8;
    let mut rng = Rng::with_seed(seed());
    let mut arena = Arena::with(&["--delay-ms", &ANSWER.as_millis().to_string()], "");
    arena.append(20, 40);
    let mut most = 0;
    for _ in 0..6 {
        let born = arena.ledger.seen.len();
        Death::AtWork(ANSWER * rng.u32(..1_000) / 100).befall(&mut arena);
        arena.settle_down();
        let pending = arena.pending();
        let unremoved = arena.ledger.seen[born..].iter().filter(|seen| pending.contains(&seen.uuid)).count();
        assert!(unremoved <= 3 * CALLS, "{unremoved} of {} come again", arena.ledger.seen.len() - born);
        most = most.max(unremoved);
    }
    say(&format!("crash: at most {most} duplicates for one kill, with {CALLS} calls that take {ANSWER:?}"));
}
