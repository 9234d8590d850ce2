//! Versions of a publisher are swapped while a relay is at work: nothing is lost, nothing comes twice, each stream's order
//! stays, and no stream goes back to an older version. The versions are made of `guests/versioned`.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use outbox_host::outbox::{Counts, PublisherVersion, VersionState};
use outbox_host::publisher::component::{OutputSink, Settings};
use outbox_host::{
    CanaryRules, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, RelayOptions, SqliteOutbox, StreamId,
    VersionedPublisher,
};
use outbox_tests::act;
use outbox_tests::guest;
use outbox_tests::memory;
use outbox_tests::outboxes::{Kept, Sqlite, event};
use outbox_tests::relaying::relaying;
use outbox_tests::versions::{Delivered, Ledger, Sheet};
use outbox_tests::waiting::until;
use uuid::Uuid;

const NAME: &str = "webhook";

/// An outbox whose publisher has versions, and what they delivered.
struct World {
    kept: Sqlite,
    outbox: Outbox<SqliteOutbox>,
    /// Another process's view of it.
    operator: SqliteOutbox,
    ledger: Ledger,
    cache: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let kept = Sqlite::new();
        let outbox = Outbox::new(kept.open(), JsonSerde);
        let operator = kept.open();
        Self { kept, outbox, operator, ledger: Ledger::default(), cache: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        Settings { cache: Some(self.cache.path().to_owned()), ..self.ledger.settings() }
    }

    fn publisher(&self) -> VersionedPublisher {
        VersionedPublisher::new(NAME, self.settings(), CanaryRules::default())
    }

    fn deploy(&self, bytes: &[u8]) -> u32 {
        self.operator.deployments().deploy(NAME, bytes, None, "", &act()).unwrap().version
    }

    fn version(&self, number: u32) -> PublisherVersion {
        let versions = self.operator.deployments().versions(Some(NAME)).unwrap();
        versions.into_iter().find(|version| version.version == number).unwrap()
    }

    fn until_state(&self, number: u32, state: VersionState) {
        until(&format!("version {number} is {}", state.name()), || self.version(number).state == state);
    }

    /// Deploys a version and waits until it is active.
    fn activate(&self, sheet: Sheet) -> u32 {
        let number = self.deploy(&sheet.bytes());
        self.until_state(number, VersionState::Active);
        number
    }

    fn append(&self, events: &[NewEvent]) -> Vec<i64> {
        self.outbox.append(events).unwrap()
    }

    fn pending(&self) -> u64 {
        self.operator.status().unwrap().pending
    }

    /// The calls that are under way, as the file beside the database has them.
    fn marked_calls(&self) -> Vec<u8> {
        let mut calls = self.kept.file().into_os_string();
        calls.push("-outbox.calls");
        std::fs::read(calls).unwrap_or_default().into_iter().filter(|byte| *byte != 0).collect()
    }

    fn until_empty(&self) {
        until("all is delivered", || self.pending() == 0);
    }
}

/// Events of these streams, in turn, with their uuids.
fn events(streams: u32, numbers: std::ops::Range<u32>) -> Vec<NewEvent> {
    numbers
        .map(|number| {
            let id = StreamId::new(format!("order-{}", number % streams));
            let uuid = Some(Uuid::from_u128(u128::from(number) << 96 | 0x4000_8000_0000_0000_0000));
            NewEvent { uuid, ..NewEvent::json(id, "order.placed", "{}") }
        })
        .collect()
}

fn number_of(delivered: &Delivered) -> u32 {
    (delivered.uuid.as_u128() >> 96) as u32
}

/// Each stream's deliveries, in the order in which they were made.
fn by_stream(ledger: &[Delivered], streams: u32) -> HashMap<u32, Vec<Delivered>> {
    let mut by_stream: HashMap<u32, Vec<Delivered>> = HashMap::new();
    for delivered in ledger {
        by_stream.entry(number_of(delivered) % streams).or_default().push(*delivered);
    }
    by_stream
}

fn assert_each_once_and_in_order(ledger: &[Delivered], streams: u32, events: u32) {
    assert_eq!(ledger.len(), events as usize);
    assert_eq!(ledger.iter().map(|delivered| delivered.uuid).collect::<HashSet<_>>().len(), events as usize);
    for (stream, deliveries) in by_stream(ledger, streams) {
        let numbers: Vec<u32> = deliveries.iter().map(number_of).collect();
        assert!(numbers.is_sorted(), "stream {stream}: {numbers:?}");
    }
}

#[test]
fn a_hundred_swaps_under_full_load_lose_nothing_repeat_nothing_and_keep_every_order() {
    const SWAPS: u32 = 100;
    const STREAMS: u32 = 16;
    const BACKLOG: u64 = 3_000;
    let world = World::new();
    let publisher = world.publisher();
    let mut appended = 0;
    let mut resident = 0;
    relaying(&world.outbox, &publisher, |_| {
        world.activate(Sheet::good(1));
        for swap in 2..=SWAPS + 1 {
            // There is always more to do than is done before the next swap.
            let more = u32::try_from(BACKLOG.saturating_sub(world.pending())).unwrap();
            world.append(&events(STREAMS, appended..appended + more));
            appended += more;
            world.activate(Sheet::good(swap));
            if swap == SWAPS / 2 {
                resident = memory::resident();
            }
        }
        world.until_empty();
    });
    let ledger = world.ledger.all();
    assert_each_once_and_in_order(&ledger, STREAMS, appended);
    for (stream, deliveries) in by_stream(&ledger, STREAMS) {
        assert!(deliveries.is_sorted_by_key(|delivered| delivered.version), "stream {stream} went back");
    }
    let versions: HashSet<u32> = ledger.iter().map(|delivered| delivered.version).collect();
    assert!(versions.len() > SWAPS as usize / 2, "only {} versions had a turn", versions.len());
    // What each delivered is on record, the last call of each counted.
    let counted: u64 = (1..=SWAPS + 1).map(|number| world.version(number).counts.delivered).sum();
    assert_eq!(counted, u64::from(appended));
    let growth = memory::resident().saturating_sub(resident);
    println!("{SWAPS} swaps, {appended} entries; the last 50 versions left {} KiB behind", growth / 1024);
    assert!(growth < 48 << 20, "old versions are not let go: {growth} bytes");
}

#[test]
fn a_call_ends_on_the_version_that_it_began_with_and_the_next_event_runs_on_the_new_one() {
    // On a busy machine the call may be over before the new version is there: then it gets more time.
    let mut lengths = [1, 5, 25].map(Duration::from_secs).into_iter();
    assert!(lengths.any(others_do_not_wait_for_a_call_of), "the new version waited for the old one's call");
}

/// Whether the new version delivered another stream's event while a call of the old one was under way.
fn others_do_not_wait_for_a_call_of(length: Duration) -> bool {
    let world = World::new();
    let publisher = world.publisher();
    relaying(&world.outbox, &publisher, |_| {
        world.activate(Sheet { sleeps: length, ..Sheet::good(1) });
        world.append(&events(1, 0..2));
        until("a call is under way", || !world.marked_calls().is_empty());
        world.activate(Sheet::good(2));
        world.append(&[event("another", "{}")]);
        world.until_empty();
    });
    let ledger = world.ledger.all();
    // The other's uuid is random, and its number high.
    let is_of_the_stream = |it: &&Delivered| number_of(it) < 2;
    let of_the_stream: Vec<(u32, u32)> =
        ledger.iter().filter(is_of_the_stream).map(|it| (number_of(it), it.version)).collect();
    assert_eq!(of_the_stream, [(0, 1), (1, 2)]);
    !is_of_the_stream(&&ledger[0])
}

fn wat(name: &str) -> Vec<u8> {
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("wat").join(format!("{name}.wat"))).unwrap()
    };
    let contract = read("contract").replacen("\n  ;; core\n", &format!("\n{}\n", read(name)), 1);
    wat::parse_str(contract).unwrap()
}

#[test]
fn whatever_goes_wrong_with_a_new_version_the_old_one_goes_on_and_the_new_one_says_why() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.call_time = Duration::from_millis(500);
    let publisher = VersionedPublisher::new(NAME, settings, CanaryRules::default());
    let configure = |configure| Sheet { configure, ..Sheet::good(9) }.bytes();
    let good = Sheet::good(9).bytes();
    let bad: Vec<(&str, Vec<u8>, &str)> = vec![
        ("not wasm", b"#!/bin/sh".to_vec(), "not WebAssembly"),
        ("a core module", std::fs::read(guest("core-module")).unwrap(), "core WebAssembly module"),
        ("cut off", good[..good.len() / 2].to_vec(), "not a valid component"),
        ("another world", std::fs::read(guest("other-world")).unwrap(), "not a publisher"),
        ("a missing import", wat::parse_str(r#"(component (import "acme:shop/till" (instance)))"#).unwrap(), "webhook"),
        ("traps at its start", wat("trap-in-start"), "unreachable"),
        ("loops at its start", wat("loop-in-start"), "limit: call_time"),
        ("configure refuses", configure("refuse"), "not today"),
        ("configure traps", configure("trap"), "unreachable"),
        ("configure hangs", configure("hang"), "limit: call_time"),
        ("configure spins", configure("spin"), "limit: call_time"),
    ];
    relaying(&world.outbox, &publisher, |_| {
        let old = world.activate(Sheet::good(1));
        for (number, (what, bytes, says)) in (1..).zip(bad) {
            let refused = world.deploy(&bytes);
            // While it is tried, the old one delivers.
            world.append(&events(1, number..number + 1));
            world.until_empty();
            world.until_state(refused, VersionState::Refused);
            let reason = world.version(refused).reason;
            assert!(reason.contains(says), "{what}: {reason}");
            assert_eq!(world.version(old).state, VersionState::Active, "{what}");
        }
        assert_eq!(world.ledger.by_version(), HashMap::from([(1, 11)]));
        // And none of them is in the way of a good one.
        world.activate(Sheet::good(2));
    });
}

#[test]
fn a_version_in_whose_activation_the_host_dies_again_and_again_is_refused() {
    let world = World::new();
    let publisher = world.publisher();
    let version = world.deploy(&Sheet::good(1).bytes());
    for _ in 0..3 {
        world.operator.deployments().begin_activation(NAME, version).unwrap();
    }
    relaying(&world.outbox, &publisher, |_| {
        world.until_state(version, VersionState::Refused);
        assert!(world.version(version).reason.contains("process died 3 times"), "{}", world.version(version).reason);
        world.activate(Sheet::good(2));
    });
}

#[test]
fn a_relay_that_stops_while_it_activates_a_version_is_no_death_of_its() {
    let world = World::new();
    let version = world.deploy(&Sheet { configure: "hang", ..Sheet::good(1) }.bytes());
    for _ in 0..5 {
        relaying(&world.outbox, &world.publisher(), |_| {
            until("the activation has begun", || world.version(version).tries == 1);
        });
        assert_eq!((world.version(version).state, world.version(version).tries), (VersionState::Stored, 0));
    }
}

#[test]
fn a_relay_begins_with_the_active_version_while_another_is_still_tried() {
    let world = World::new();
    relaying(&world.outbox, &world.publisher(), |_| {
        world.activate(Sheet::good(1));
    });
    let hanging = world.deploy(&Sheet { configure: "hang", ..Sheet::good(2) }.bytes());
    world.append(&events(1, 0..3));
    relaying(&world.outbox, &world.publisher(), |_| {
        world.until_empty();
        assert_eq!(world.version(hanging).state, VersionState::Stored);
    });
}

#[test]
fn an_active_version_that_cannot_be_configured_now_is_unavailable_and_tried_again_like_any_publisher() {
    let world = World::new();
    let version = world.deploy(&std::fs::read(guest("lifecycle")).unwrap());
    let with = |greeting: Option<&str>| {
        let mut settings = world.settings();
        settings.output = OutputSink::new(|_| {});
        settings.grants.env = greeting.map(|greeting| ("GREETING".into(), greeting.into())).into_iter().collect();
        VersionedPublisher::new(NAME, settings, CanaryRules::default())
    };
    relaying(&world.outbox, &with(Some("hello")), |_| world.until_state(version, VersionState::Active));
    world.append(&events(1, 0..1));
    // Somebody forgot its environment. A pass ends, says why, and nothing is refused.
    let report = world.outbox.run(&with(None), None).unwrap();
    assert_eq!((report.published, report.unavailable), (0, 1));
    assert!(report.failures[0].reason.contains("GREETING"), "{}", report.failures[0].reason);
    assert_eq!(world.version(version).state, VersionState::Active);
    assert_eq!(world.outbox.run(&with(Some("hello")), None).unwrap().published, 1);
}

#[test]
fn an_active_version_that_cannot_be_loaded_is_told_once_and_ends_no_pass_and_no_relay() {
    let world = World::new();
    let version = world.deploy(&Sheet::good(1).bytes());
    relaying(&world.outbox, &world.publisher(), |_| world.until_state(version, VersionState::Active));
    world.append(&events(1, 0..1));
    let mut settings = world.settings();
    settings.limits.module_bytes = 1;
    let publisher = VersionedPublisher::new(NAME, settings, CanaryRules::default());
    let report = world.outbox.run(&publisher, None).unwrap();
    assert!(report.failures[0].reason.contains("limit: module_mib"), "{}", report.failures[0].reason);
    assert_eq!(world.version(version).state, VersionState::Active);
    assert_eq!(world.outbox.run(&world.publisher(), None).unwrap().published, 1);
}

#[test]
fn a_version_whose_bytes_are_damaged_is_refused_and_is_in_nobodys_way() {
    let world = World::new();
    let publisher = world.publisher();
    relaying(&world.outbox, &publisher, |_| {
        world.activate(Sheet::good(1));
        let damaged = world.deploy(&Sheet { configure: "hang", ..Sheet::good(2) }.bytes());
        until("it is being tried", || world.version(damaged).tries == 1);
    });
    let damage = "UPDATE outbox_modules SET bytes = zeroblob(9)
                  WHERE digest = (SELECT digest FROM outbox_versions WHERE version = 2)";
    world.kept.connection().execute(damage, []).unwrap();
    relaying(&world.outbox, &world.publisher(), |_| {
        world.until_state(2, VersionState::Refused);
        world.append(&events(1, 0..1));
        world.until_empty();
    });
    assert!(world.version(2).reason.contains("digest"), "{}", world.version(2).reason);
}

#[test]
fn without_an_active_version_entries_wait_and_the_first_one_is_used_at_once() {
    let world = World::new();
    let publisher = world.publisher();
    world.append(&events(3, 0..30));
    relaying(&world.outbox, &publisher, |_| {
        until("the relay says so", || {
            let relay = world.operator.status().unwrap().relay;
            relay.is_some_and(|relay| relay.reason.contains("no version of webhook is active"))
        });
        world.activate(Sheet::good(1));
        world.until_empty();
    });
    assert_each_once_and_in_order(&world.ledger.all(), 3, 30);
    // The next relay begins with what is active.
    world.append(&events(3, 30..40));
    let report = world.outbox.run(&world.publisher(), None).unwrap();
    assert_eq!((report.published, report.unavailable), (10, 0));
}

#[test]
fn a_rollback_brings_the_last_version_back() {
    let world = World::new();
    let publisher = world.publisher();
    relaying(&world.outbox, &publisher, |_| {
        let (first, second) = (world.activate(Sheet::good(1)), world.activate(Sheet::good(2)));
        world.operator.deployments().rollback(NAME, None, &act()).unwrap();
        world.until_state(first, VersionState::Active);
        assert_eq!(world.version(second).state, VersionState::Retired);
        world.append(&events(1, 0..1));
        world.until_empty();
    });
    assert_eq!(world.ledger.by_version(), HashMap::from([(1, 1)]));
}

// --- canaries ---------------------------------------------------------------------------------------------------------

const STREAMS: u32 = 200;

/// A trial of `canary` on a fifth of the streams, with events coming until it has ended.
fn trial(canary: Sheet, rules: CanaryRules, meanwhile: impl Fn(&World, u32)) -> (World, u32, u32) {
    let world = World::new();
    let publisher = VersionedPublisher::new(NAME, world.settings(), rules);
    // A failing entry is tried again soon, so that the test is done soon.
    let mut options = RelayOptions::default();
    options.policy.backoff.initial = Duration::from_millis(20);
    options.policy.backoff.max = Duration::from_millis(20);
    options.policy.max_attempts = 2;
    let world = World { outbox: world.outbox.with_options(options), ..world };
    let (mut appended, mut number) = (0, 0);
    relaying(&world.outbox, &publisher, |_| {
        world.activate(Sheet::good(1));
        let share = "20%".parse().unwrap();
        number = world.operator.deployments().deploy(NAME, &canary.bytes(), Some(share), "", &act()).unwrap().version;
        world.until_state(number, VersionState::Canary);
        meanwhile(&world, number);
        until("the trial has ended", || {
            if world.pending() < 500 {
                world.append(&events(STREAMS, appended..appended + 500));
                appended += 500;
            }
            world.version(number).state != VersionState::Canary
        });
        world.until_empty();
    });
    (world, number, appended)
}

#[test]
fn a_good_canary_is_promoted_and_until_then_has_its_share_of_the_streams() {
    let (world, number, appended) = trial(Sheet::good(2), CanaryRules::default(), |_, _| {});
    assert_eq!(world.version(number).state, VersionState::Active);
    let ledger = world.ledger.all();
    assert_each_once_and_in_order(&ledger, STREAMS, appended);
    let mut switched = 0;
    for (stream, deliveries) in by_stream(&ledger, STREAMS) {
        assert!(deliveries.is_sorted_by_key(|delivered| delivered.version), "stream {stream} went back");
        switched += u32::from(deliveries[0].version == 2);
    }
    assert!((STREAMS / 10..=STREAMS * 3 / 10).contains(&switched), "{switched} of {STREAMS} streams");
}

#[test]
fn a_canary_that_fails_a_hundredth_is_promoted() {
    let (world, number, appended) = trial(Sheet { fails: 1, ..Sheet::good(2) }, CanaryRules::default(), |_, _| {});
    assert_eq!(world.version(number).state, VersionState::Active);
    // Nothing is lost: what it fails at is set aside once it is no longer on trial.
    let dead_letters = world.operator.status().unwrap().dead_letters;
    assert!(dead_letters > 0);
    assert_eq!(world.ledger.len() as u64 + dead_letters, u64::from(appended));
}

#[test]
fn a_canary_that_fails_a_fifth_or_always_is_withdrawn_and_its_failures_count_for_nothing() {
    for fails in [20, 100] {
        let (world, number, appended) = trial(Sheet { fails, ..Sheet::good(2) }, CanaryRules::default(), |_, _| {});
        assert_each_once_and_in_order(&world.ledger.all(), STREAMS, appended);
        let version = world.version(number);
        assert_eq!(version.state, VersionState::Refused, "{fails}%");
        assert!(version.reason.contains("of the canary's"), "{}", version.reason);
        let Counts { delivered, failed, .. } = version.counts;
        println!(
            "{fails} % failing: withdrawn after {delivered} deliveries and {failed} failures, of {appended} entries"
        );
        // With two attempts an entry, and every one of the canary's used up, they would be dead letters.
        assert_eq!(world.operator.status().unwrap().dead_letters, 0, "{fails}%");
    }
}

#[test]
fn a_rollback_during_a_trial_withdraws_the_canary() {
    let withdraw = |world: &World, _| {
        let from = Cell::new(900_000);
        let versions_of_all_streams = || {
            world.ledger.clear();
            world.append(&events(STREAMS, from.get()..from.get() + STREAMS));
            from.set(from.get() + STREAMS);
            world.until_empty();
            world.ledger.by_version().len()
        };
        assert_eq!(versions_of_all_streams(), 2);
        world.operator.deployments().rollback(NAME, None, &act()).unwrap();
        until("the relay has taken it back", || versions_of_all_streams() == 1);
        world.ledger.clear();
    };
    let (world, number, _) = trial(Sheet::good(2), CanaryRules::default(), withdraw);
    assert_eq!(world.version(number).state, VersionState::Retired);
    assert_eq!(world.ledger.by_version().keys().collect::<Vec<_>>(), [&1]);
    assert!(world.kept.file().exists());
}
