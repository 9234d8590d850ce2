//! Relays are killed, at random instants and at named points, and nothing is lost, invented, or out of order.
//!
//! `OUTBOX_CRASH_SEED` repeats a run's random choices, `OUTBOX_CRASH_KILLS` sets how many relays are killed.

use std::collections::{HashMap, HashSet};
use std::io::{Write, stderr};
use std::time::Duration;

use fastrand::Rng;
use outbox_tests::crash::arena::Arena;
use outbox_tests::crash::death::Death;
use outbox_tests::crash::lives::{Lives, check_life};
use outbox_tests::crash::verdict;
use outbox_tests::waiting::until;

/// How many relays the first test kills; the others of this file kill some 25.
const KILLS: u64 = 240;

/// Far above what a take-over needs, and below the time of anything that could be waited for.
const SOON: Duration = Duration::from_secs(10);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A test's random numbers; it says how to have them again.
fn random(test: &str) -> Rng {
    let seed = number("OUTBOX_CRASH_SEED", fastrand::u64(..));
    say(&format!("crash: {test}: OUTBOX_CRASH_SEED={seed}"));
    Rng::with_seed(seed)
}

/// Shown even when the test passes: the harness captures only what goes through `eprintln`.
fn say(text: &str) {
    stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

#[test]
fn no_kill_loses_an_event_or_breaks_the_order() {
    let mut rng = random("kills");
    let mut arena = Arena::new();
    arena.hold_a_stream();
    let mut writer = arena.writer(rng.u64(..));
    let mut lives = Lives::default();
    for turn in 0..number("OUTBOX_CRASH_KILLS", KILLS) {
        let born = arena.ledger.seen.len();
        let death = Death::draw(turn.try_into().unwrap(), &mut rng);
        // With one call at a time a death is held against the event that was being published.
        death.befall(&mut arena, [1, 2, 8, 8][rng.usize(..4)]);
        arena.settle_down();
        arena.check_that_none_is_there_twice();
        lives.ended(death, &arena.ledger.seen[born..], &arena.pending());
        assert!(writer.is_alive());
    }
    writer.end();
    let born = arena.ledger.seen.len();
    arena.let_the_stream_go();
    arena.drain(None);
    lives.ended_in_order(&arena.ledger.seen[born..]);
    let truth = arena.truth();
    verdict::check(&truth, &arena.ledger.seen, &HashSet::new());
    for table in ["outbox_dead_letters", "outbox_waiting", "outbox_attempts", "outbox_delayed"] {
        assert_eq!(arena.count(table), 0, "{table}");
    }
    arena.check_integrity();
    let later = arena.ledger.seen.iter().filter(|seen| seen.due_ns.is_some()).count();
    assert!(later > 0, "some were for later");
    say(&format!(
        "crash: {later} deliveries were for later; {} transactions, {} events committed, {} deliveries; {lives}",
        truth.len(),
        truth.iter().filter(|it| it.committed).map(|it| it.events.len()).sum::<usize>(),
        arena.ledger.seen.len(),
    ));
}

/// What is delivered does not wait for what is not: with a destination that takes its time only the calls under way come
/// again, and those that were answered while a commit was awaited.
#[test]
fn a_slow_destination_is_told_little_again() {
    const ANSWER: Duration = Duration::from_millis(100);
    /// A call each, and as many that were answered within a slow commit's time.
    const CALLS: usize = 8;
    let mut rng = random("a slow destination");
    let mut arena = Arena::with(&["--delay-ms", &ANSWER.as_millis().to_string()], "");
    arena.append(20, 40);
    let mut most = 0;
    for _ in 0..6 {
        let born = arena.ledger.seen.len();
        Death::AtWork(ANSWER * rng.u32(..1_000) / 100).befall(&mut arena, CALLS);
        arena.settle_down();
        let pending = arena.pending();
        let unremoved = arena.ledger.seen[born..].iter().filter(|seen| pending.contains(&seen.uuid)).count();
        assert!(unremoved <= 3 * CALLS, "{unremoved} of {} come again", arena.ledger.seen.len() - born);
        most = most.max(unremoved);
    }
    say(&format!("crash: at most {most} duplicates for one kill, with {CALLS} calls that take {ANSWER:?}"));
}

/// Whatever the streams: each relay begins where the last one was, or shortly before, and passes over nothing.
#[test]
fn in_total_order_no_kill_breaks_the_order() {
    const STREAMS: usize = 20;
    const EVENTS: i64 = 150;
    let mut rng = random("total order");
    let mut arena = Arena::with(&[], "ordering = \"total\"");
    arena.append(STREAMS, EVENTS);
    for _ in 0..15 {
        if arena.count("outbox") < 200 {
            arena.append(STREAMS, EVENTS);
        }
        Death::AtWork(Duration::from_micros(rng.u64(..50_000))).befall(&mut arena, 8);
        arena.settle_down();
    }
    arena.drain(None);
    let mut next = 1;
    for relay in arena.relays() {
        let positions: Vec<u64> = arena.ledger.of(&relay).map(|seen| seen.position).collect();
        let Some((first, last)) = positions.first().zip(positions.last()) else { continue };
        assert!(*first <= next, "{relay} began at {first}, and {next} was not delivered yet");
        assert!(positions.iter().copied().eq(*first..=*last), "{relay} left the order: {positions:?}");
        next = next.max(last + 1);
    }
    let (delivered, deliveries) = (arena.ledger.uuids().len() as u64, arena.ledger.seen.len());
    assert_eq!(delivered, next - 1, "each was delivered");
    say(&format!("crash: {delivered} events in total order, {deliveries} deliveries"));
}

/// Lanes that wait for a token keep nothing in memory here, and are read again and again.
#[test]
fn with_a_rate_limit_no_kill_loses_anything_or_leaves_the_order_of_a_stream() {
    let arena = Arena::with(&[], "[publisher]\nrate = \"200/s\"\nburst = 3\nrate_by = \"stream\"");
    no_kill_loses_anything_or_leaves_the_order(arena, &mut random("rate limit"), 50, 100_000);
}

/// Each request has events of many streams, and the destination stores all but some of them.
#[test]
fn in_batches_no_kill_loses_an_event_or_breaks_the_order() {
    let mut rng = random("batches");
    let sink = ["--late-ms", "60", "--one-fails-in", "100"];
    let mut arena = Arena::with(&sink, "[publisher]\nbatch_wait = \"1ms\"").in_bulk();
    let mut writer = arena.writer(rng.u64(..));
    for turn in 0..number("OUTBOX_CRASH_KILLS", 60) / 2 {
        Death::draw(turn.try_into().unwrap(), &mut rng).befall(&mut arena, [1, 2, 8, 8][rng.usize(..4)]);
        arena.settle_down();
        assert!(writer.is_alive());
    }
    writer.end();
    arena.drain(None);
    let truth = arena.truth();
    verdict::check(&truth, &arena.ledger.seen, &HashSet::new());
    for table in ["outbox_dead_letters", "outbox_waiting", "outbox_attempts"] {
        assert_eq!(arena.count(table), 0, "{table}");
    }
    arena.check_integrity();
    let (events, deliveries) = (arena.ledger.uuids().len(), arena.ledger.seen.len());
    say(&format!("crash: {events} events in batches, {deliveries} deliveries"));
}

#[test]
fn an_event_that_kills_the_host_is_set_aside() {
    is_set_aside_when_it_kills_the_host(Arena::new(), &mut random("a deadly event"));
}

/// The first death has many events in its calls.
#[test]
fn an_event_that_kills_the_host_in_a_batch_is_set_aside() {
    is_set_aside_when_it_kills_the_host(Arena::new().in_bulk(), &mut random("a deadly event in a batch"));
}

/// Each tenant has a cursor of its own, and nothing of them outlives the relay.
#[test]
fn with_turns_of_tenants_no_kill_loses_anything_or_leaves_the_order_of_a_stream() {
    let arena = Arena::with(&[], "fair_by = \"tenant\"");
    arena.index_tenants();
    no_kill_loses_anything_or_leaves_the_order(arena, &mut random("turns of tenants"), 150, 50_000);
}

/// Each relay is killed within so many microseconds of its first delivery. There are `events` or more for each stream.
fn no_kill_loses_anything_or_leaves_the_order(mut arena: Arena, rng: &mut Rng, events: i64, most_us: u64) {
    const STREAMS: usize = 20;
    let many = STREAMS * usize::try_from(events).unwrap();
    let mut appended = 0;
    for _ in 0..15 {
        if arena.pending().len() < many / 3 {
            arena.append(STREAMS, events);
            appended += many;
        }
        Death::AtWork(Duration::from_micros(rng.u64(..most_us))).befall(&mut arena, 8);
        arena.settle_down();
    }
    arena.drain(None);
    for relay in arena.relays() {
        let mut last = HashMap::new();
        for seen in arena.ledger.of(&relay) {
            let before = last.insert(seen.stream.clone(), seen.position);
            assert!(before.is_none_or(|before| before < seen.position), "{relay} left the order: {seen:?}");
        }
    }
    assert_eq!(arena.ledger.uuids().len(), appended, "each was delivered");
}

/// It is found out, tried alone, and set aside after the third time; nobody else is blamed.
fn is_set_aside_when_it_kills_the_host(mut arena: Arena, rng: &mut Rng) {
    const DEADLY: &str = "thing.deadly";
    arena.append(20, 30);
    let deadly = arena.rename_one(DEADLY, rng.usize(..20 * 30));
    let mut deaths = 0;
    loop {
        let mut relay = arena.crash_relay(&["--killer", DEADLY, "--max-host-deaths", "3"]);
        until("it dies, or the outbox is empty", || !relay.is_alive() || arena.count("outbox") == 0);
        if relay.is_alive() {
            relay.end();
            break;
        }
        relay.wait_for_its_death();
        deaths += 1;
        assert!(deaths <= 6, "position {} is still not found out", deadly.position);
    }
    arena.settle_down();
    say(&format!("crash: an event that kills the host is a dead letter after {deaths} deaths"));

    assert_eq!(arena.dead_letters(), HashSet::from([deadly.uuid]));
    assert_eq!(arena.blamed(), vec![(deadly.position, "host-died".to_owned()); 3]);
    assert_eq!(arena.count("outbox_waiting"), 0);
    let delivered = arena.ledger.uuids();
    assert_eq!(delivered.len(), 20 * 30 - 1, "all the others were delivered");
    assert!(!delivered.contains(&deadly.uuid));
    assert!(arena.ledger.seen.iter().all(|seen| seen.attempt == 1), "no attempt of theirs was counted");
    verdict::check_order(&arena.ledger.seen, &HashSet::from([deadly.uuid]));
}

/// The standby notices that the one at work is gone, and goes on with what that left: within 0.2 s on a machine that has
/// nothing else to do, and not only when somebody's time is up.
#[test]
fn a_standby_takes_over_soon() {
    let mut rng = random("standby");
    let mut arena = Arena::new();
    let writer = arena.writer(rng.u64(..));
    let mut at_work = arena.relay("is at work first");
    let mut take_overs = Vec::new();
    arena.first_delivery(&at_work);
    for _ in 0..15 {
        let standby = arena.relay("stands by");
        until("there is a standby", || arena.log_from(&standby).contains("standing by"));
        std::thread::sleep(Duration::from_micros(rng.u64(..150_000)));
        let killed_ns = at_work.kill();
        let first_ns = arena.first_delivery(&standby);
        let waited = first_ns.checked_sub(killed_ns).expect("the standby was at work before the kill");
        take_overs.push(Duration::from_nanos(waited));
        at_work = standby;
    }
    writer.end();
    arena.drain(Some(at_work));
    take_overs.sort_unstable();
    let (median, max) = (take_overs[take_overs.len() / 2], take_overs[take_overs.len() - 1]);
    say(&format!("crash: {} take-overs, median {median:.0?}, longest {max:.0?}", take_overs.len()));
    assert!(median < SOON, "{take_overs:?}");
    verdict::check(&arena.truth(), &arena.ledger.seen, &HashSet::new());
    for relay in arena.relays() {
        check_life(&arena.ledger.of(&relay).cloned().collect::<Vec<_>>());
    }
}
