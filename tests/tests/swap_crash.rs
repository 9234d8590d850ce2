//! Relay processes are killed while they activate versions: the version that was asked for last is active in the end, no
//! version and no event is lost, and each stream keeps its order.
//!
//! `OUTBOX_CRASH_SEED` repeats a run's random choices.

use std::collections::{HashMap, HashSet};
use std::io::{Write, stderr};
use std::time::Duration;

use fastrand::Rng;
use outbox_host::SqliteOutbox;
use outbox_host::outbox::{Deployments, PublisherVersion, VersionState};
use outbox_tests::act;
use outbox_tests::versions::{Sheet, logged, number_in, numbered_lines};
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Logged, Signal, Workplace};

const KILLS: u32 = 60;
const STREAMS: u32 = 16;
/// There is always so much to do that a relay dies at work.
const BACKLOG: u32 = 1_500;
/// The most settled entries whose commit a relay awaits, plus its calls under way.
const UNREMOVED_MAX: usize = 4_096 + 8;

struct World {
    place: Workplace,
    outbox: SqliteOutbox,
    appended: u32,
    asked: u32,
}

impl World {
    fn new() -> Self {
        let place = Workplace::new();
        let outbox = SqliteOutbox::open(&place.path("app.db")).unwrap();
        Self { place, outbox, appended: 0, asked: 0 }
    }

    fn deploy(&mut self) {
        self.asked += 1;
        let deployed = self.outbox.deploy("hook", &Sheet::good(self.asked).bytes(), None, "", &act()).unwrap();
        assert_eq!(deployed.version, self.asked);
    }

    fn pending(&self) -> HashSet<u32> {
        self.place.query("SELECT uuid FROM outbox").iter().map(|uuid| number_in(uuid)).collect()
    }

    fn refill(&mut self) {
        let missing = BACKLOG.saturating_sub(u32::try_from(self.pending().len()).unwrap());
        self.place.append(&numbered_lines(STREAMS, self.appended..self.appended + missing));
        self.appended += missing;
    }

    fn versions(&self) -> Vec<PublisherVersion> {
        self.outbox.versions(Some("hook")).unwrap()
    }

    fn is_active(&self, number: u32) -> bool {
        self.versions().iter().any(|it| it.version == number && it.state == VersionState::Active)
    }

    /// Each version is there, one at the most is active, and the last is active or asked for.
    fn check_versions(&self, active_before: u32) -> u32 {
        let versions = self.versions();
        assert_eq!(versions.iter().map(|it| it.version).collect::<Vec<_>>(), (1..=self.asked).collect::<Vec<_>>());
        let active: Vec<u32> =
            versions.iter().filter(|it| it.state == VersionState::Active).map(|it| it.version).collect();
        assert!(active.len() <= 1, "{active:?}");
        let active = active.first().copied().unwrap_or_default();
        assert!(active >= active_before, "{active} is active after {active_before}");
        let last = versions.last().unwrap();
        assert!(matches!(last.state, VersionState::Stored | VersionState::Active), "{last:?}");
        for version in &versions[..versions.len() - 1] {
            let expected = if version.version == active { VersionState::Active } else { VersionState::Retired };
            assert_eq!(version.state, expected, "{version:?}");
        }
        active
    }
}

/// The deliveries of all relays.
#[derive(Default)]
struct Deliveries {
    delivered: HashSet<u32>,
    /// Delivered, and in the outbox still, when the last relay died.
    may_come_again: HashSet<u32>,
    /// Each stream's last version, and the last event that was delivered for the first time.
    last: HashMap<u32, (u32, u32)>,
    duplicates: usize,
}

impl Deliveries {
    fn ended(&mut self, relay: &Logged, pending: &HashSet<u32>) -> usize {
        let life = logged(&relay.log());
        let mut in_this_life: HashMap<u32, u32> = HashMap::new();
        for (number, version) in &life {
            let stream = number % STREAMS;
            let before = in_this_life.insert(stream, *number);
            assert!(before.is_none_or(|before| before < *number), "{number} came after {before:?}");
            let (last_version, last_number) = self.last.get(&stream).copied().unwrap_or_default();
            assert!(*version >= last_version, "stream {stream} went back from version {last_version} to {version}");
            if self.delivered.insert(*number) {
                let next = if last_version == 0 { stream } else { last_number + STREAMS };
                assert_eq!(*number, next, "out of order");
                self.last.insert(stream, (*version, *number));
            } else {
                assert!(self.may_come_again.contains(number), "{number} came again, and had been removed");
                self.last.insert(stream, (*version, last_number));
                self.duplicates += 1;
            }
        }
        let unremoved = life.iter().filter(|(number, _)| pending.contains(number)).count();
        assert!(unremoved <= UNREMOVED_MAX, "{unremoved}");
        self.may_come_again = pending.intersection(&self.delivered).copied().collect();
        life.len()
    }
}

/// Shown even when the test passes.
fn say(text: &str) {
    stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

#[test]
fn no_kill_during_an_activation_loses_a_version_or_an_event() {
    let seed = std::env::var("OUTBOX_CRASH_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    say(&format!("swap_crash: OUTBOX_CRASH_SEED={seed}"));
    let mut rng = Rng::with_seed(seed);
    let (mut world, mut deliveries) = (World::new(), Deliveries::default());
    let (mut active, mut died_activating, mut died_at_work) = (0, 0, 0);
    for _ in 0..KILLS {
        world.refill();
        // Half of them activate what their predecessor died with, or begin with what is active, when they are killed.
        let at_work = rng.bool();
        if !at_work {
            world.deploy();
        }
        let mut relay = world.place.start_logged("relay --db app.db --publisher hook");
        if at_work {
            let due = world.asked;
            relay.wait_for_log("publishing");
            until("it is at work", || due == 0 || world.is_active(due) && !logged(&relay.log()).is_empty());
            world.deploy();
        }
        std::thread::sleep(Duration::from_micros(rng.u64(..150_000)));
        relay.signal(Signal::KILL);
        assert_eq!(relay.wait(), None, "{}", relay.log());
        let delivered = deliveries.ended(&relay, &world.pending());
        active = world.check_versions(active);
        died_activating += u32::from(active < world.asked);
        died_at_work += u32::from(delivered > 0);
    }
    let mut relay = world.place.start_logged("relay --db app.db --publisher hook");
    until("the last version is active", || world.is_active(world.asked));
    world.refill();
    until("all is delivered", || world.pending().is_empty());
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    deliveries.ended(&relay, &HashSet::new());
    assert_eq!(deliveries.delivered.len(), world.appended as usize);
    assert!(logged(&relay.log()).last().is_some_and(|(_, version)| *version == world.asked), "{}", relay.log());
    assert_eq!(world.place.status()["dead_letters"], 0);
    assert_eq!(world.place.query("PRAGMA integrity_check"), ["ok"]);
    say(&format!(
        "swap_crash: {KILLS} kills, {died_activating} before the version was active, {died_at_work} at work; {} events, {} \
         duplicates",
        world.appended, deliveries.duplicates
    ));
}
