//! Versions of a publisher are deployed, tried and taken back as an operator does it, with a relay process at work.

use std::fs::File;
use std::io::Write;
use std::time::SystemTime;

use outbox_tests::versions::{Sheet, logged, numbered_lines};
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Logged, Ran, Signal, Workplace};
use serde_json::{Value, json};

const STREAMS: u32 = 50;

/// A folder with an outbox, and how many events were appended to it.
struct World {
    place: Workplace,
    appended: u32,
}

impl World {
    fn new() -> Self {
        Self { place: Workplace::new(), appended: 0 }
    }

    fn relay(&self) -> Logged {
        self.place.start_logged("relay --db app.db --publisher hook")
    }

    fn append(&mut self, events: u32) {
        self.place.append(&numbered_lines(STREAMS, self.appended..self.appended + events));
        self.appended += events;
    }

    fn until_empty(&self) {
        until("all is delivered", || self.place.query("SELECT count(*) FROM outbox") == ["0"]);
    }

    /// The versions that deliver an event of each stream now, in order.
    fn versions_at_work(&mut self, relay: &Logged) -> Vec<u32> {
        let from = self.appended;
        self.append(STREAMS);
        self.until_empty();
        let mut versions: Vec<u32> = logged(&relay.log())
            .into_iter()
            .filter(|(number, _)| *number >= from)
            .map(|(_, version)| version)
            .collect();
        assert_eq!(versions.len(), STREAMS as usize, "{}", relay.log());
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    fn deploy(&self, sheet: Sheet, options: &str) -> Ran {
        self.place.write("hook.wasm", sheet.bytes());
        self.place.outbox(&format!("publisher deploy hook hook.wasm --db app.db {options}"))
    }

    fn version(&self, number: usize) -> Value {
        self.place.outbox("publisher versions hook --db app.db --json").json()[number - 1].clone()
    }

    /// The versions in the status, a line each.
    fn status(&self) -> Vec<String> {
        let said = self.place.outbox("status --db app.db").ok();
        let lines = said.lines().filter_map(|line| line.strip_prefix("publisher "));
        lines
            .map(|line| {
                let (before, after) = line.trim().split_once(" (").unwrap();
                format!("{before} {}", after.split_once(") ").unwrap().1)
            })
            .collect()
    }

    /// Appends events until a canary's trial has ended.
    fn until_the_trial_has_ended(&mut self, canary: usize) {
        until("the trial ends", || {
            self.append(500);
            self.until_empty();
            self.version(canary)["state"] != "canary"
        });
    }
}

#[test]
fn a_deployment_waits_for_the_relay_and_the_next_events_go_through_the_new_version() {
    let mut world = World::new();
    let relay = world.relay();
    relay.wait_for_log("publishing");
    for version in 1..=3 {
        let said = world.deploy(Sheet::good(version), "").ok();
        let pid = relay.pid();
        assert!(said.contains(&format!("stored version {version} of hook (")), "{said}");
        assert!(
            said.ends_with(&format!("; the relay (process {pid}) activates it\nversion {version} of hook is active\n"))
        );
        assert_eq!(world.versions_at_work(&relay), [version]);
        assert_eq!(world.status(), [format!("hook version {version} is active")]);
    }
    // A version that cannot be activated is refused, and changes nothing.
    let refused = world.deploy(Sheet { configure: "refuse", ..Sheet::good(4) }, "");
    assert_eq!(refused.code, Some(1));
    let expected = "error: the relay refused version 4 of hook: ";
    assert!(refused.stderr.starts_with(expected) && refused.stderr.contains("not today"), "{}", refused.stderr);
    assert_eq!(world.versions_at_work(&relay), [3]);

    let said = world.place.outbox("publisher rollback hook --db app.db").ok();
    assert_eq!(
        said,
        "asked for version 2 of hook again: the relay activates it\nversion 3 of hook is active until then\n"
    );
    until("it is active", || world.version(2)["state"] == "active");
    assert_eq!(world.versions_at_work(&relay), [2]);
    let states: Vec<Value> = (1..=4).map(|number| world.version(number)["state"].clone()).collect();
    assert_eq!(states, ["retired", "active", "retired", "refused"]);
}

#[test]
fn a_canary_that_is_as_good_is_promoted() {
    let mut world = World::new();
    let relay = world.relay();
    relay.wait_for_log("publishing");
    world.deploy(Sheet::good(1), "").ok();
    let said = world.deploy(Sheet::good(2), "--canary 20%").ok();
    assert!(said.ends_with("version 2 of hook is the canary\n"), "{said}");
    assert_eq!(world.status(), ["hook version 1 is active", "hook version 2 is canary"]);
    assert_eq!(world.versions_at_work(&relay), [1, 2]);
    world.until_the_trial_has_ended(2);
    assert_eq!((&world.version(1)["state"], &world.version(2)["state"]), (&json!("retired"), &json!("active")));
    assert!(relay.log().contains("the canary is promoted"), "{}", relay.log());
    assert_eq!(world.versions_at_work(&relay), [2]);
    assert_eq!(world.status(), ["hook version 2 is active"]);
    assert_eq!(world.place.status()["dead_letters"], 0);
}

#[test]
fn a_canary_that_is_worse_is_withdrawn_and_what_it_failed_at_is_delivered() {
    let mut world = World::new();
    let relay = world.relay();
    relay.wait_for_log("publishing");
    world.deploy(Sheet::good(1), "").ok();
    let shown = world.deploy(Sheet { fails: 100, ..Sheet::good(2) }, "--canary 20% --json").json();
    assert_eq!((&shown["version"], &shown["state"]), (&json!(2), &json!("canary")));
    world.until_the_trial_has_ended(2);
    let withdrawn = world.version(2);
    assert_eq!(withdrawn["state"], "refused");
    let reason = withdrawn["reason"].as_str().unwrap();
    assert!(reason.contains(" of the canary's ") && reason.contains("of the active version's"), "{reason}");
    assert!(relay.log().contains(&format!("the canary is withdrawn: {reason}")), "{}", relay.log());
    assert_eq!(world.versions_at_work(&relay), [1]);
    assert_eq!(world.status(), ["hook version 1 is active"]);
    // Nothing was lost, nothing was set aside, and no attempt of the canary's counts.
    let mut numbers: Vec<u32> = logged(&relay.log()).into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..world.appended).collect::<Vec<_>>());
    assert_eq!(world.place.status()["dead_letters"], 0);
}

#[test]
fn a_standby_goes_on_with_the_same_versions() {
    let mut world = World::new();
    let first = world.relay();
    first.wait_for_log("publishing");
    let standby = world.relay();
    standby.wait_for_log("standing by");
    world.deploy(Sheet::good(1), "").ok();
    world.deploy(Sheet::good(2), "").ok();
    world.deploy(Sheet::good(3), "--canary 50%").ok();
    assert_eq!(world.versions_at_work(&first), [2, 3]);
    let of_streams = |log: &str| {
        let mut versions: Vec<(u32, u32)> =
            logged(log).into_iter().map(|(number, version)| (number % STREAMS, version)).collect();
        versions.sort_unstable();
        versions
    };
    first.signal(Signal::KILL);
    standby.wait_for_log("publishing");
    assert_eq!(world.versions_at_work(&standby), [2, 3]);
    // Each stream has the version that it had.
    assert_eq!(of_streams(&standby.log()), of_streams(&first.log()));
    let said = world.deploy(Sheet::good(4), "").ok();
    assert!(said.ends_with("version 4 of hook is active\n"), "{said}");
    assert_eq!(world.versions_at_work(&standby), [4]);
}

#[test]
fn a_pass_publishes_with_what_is_deployed() {
    let mut world = World::new();
    let run = |world: &World, options: &str| world.place.outbox(&format!("run --db app.db {options}"));
    let message = run(&world, "").refused();
    assert!(
        message.starts_with("no publisher: name a file") && message.contains("outbox publisher deploy"),
        "{message}"
    );
    let by = |ran: Ran, events: usize| {
        let versions: Vec<u32> = logged(&ran.stderr).into_iter().map(|(_, version)| version).collect();
        assert_eq!(versions.len(), events, "{ran:?}");
        versions[0]
    };
    // The only deployed publisher need not be named.
    world.deploy(Sheet::good(1), "").ok();
    world.append(3);
    assert_eq!(by(run(&world, ""), 3), 1);
    // A later one is activated by the pass itself.
    world.deploy(Sheet::good(2), "").ok();
    world.append(3);
    assert_eq!(by(run(&world, "--publisher hook"), 3), 2);
    // Of several, one has to be named.
    world.place.write("other.wasm", Sheet::good(7).bytes());
    world.place.outbox("publisher deploy other other.wasm --db app.db").ok();
    let message = run(&world, "").refused();
    let expected =
        "there are several publishers (hook, other): say which with --publisher NAME, or write a [[route]] to each";
    assert_eq!(message, expected);
    world.append(2);
    assert_eq!(by(run(&world, "--publisher other"), 2), 7);
    // A publisher that is not deployed publishes nothing, and the message says how to deploy it.
    world.append(1);
    let ran = run(&world, "--publisher nobody");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        said.contains("no version of nobody is active: `outbox publisher deploy nobody FILE` deploys one"),
        "{said}"
    );
    assert_eq!(world.place.status()["pending"], 1);
}

#[test]
fn a_watched_file_is_swapped_in_when_its_content_is_another_one() {
    let mut world = World::new();
    world.place.write("mine.wasm", Sheet::good(1).bytes());
    let relay = world.place.start_logged("relay --db app.db --watch mine.wasm");
    let until_logged = |text: &str, times: usize| {
        until(&format!("{text:?}, {times} times"), || relay.log().matches(text).count() == times);
    };
    assert_eq!(world.versions_at_work(&relay), [1]);

    // Another one is moved into its place.
    world.place.write("new.wasm", Sheet::good(2).bytes());
    std::fs::rename(world.place.path("new.wasm"), world.place.path("mine.wasm")).unwrap();
    until_logged("the file has changed: swapped", 1);
    assert_eq!(world.versions_at_work(&relay), [2]);

    // The file is written in place, and looked at when half of it is there.
    let bytes = Sheet::good(3).bytes();
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = File::create(world.place.path("mine.wasm")).unwrap();
    file.write_all(half).unwrap();
    until_logged("the file has changed, and cannot be loaded yet", 1);
    assert_eq!(world.versions_at_work(&relay), [2]);
    file.write_all(rest).unwrap();
    until_logged("the file has changed: swapped", 2);
    assert_eq!(world.versions_at_work(&relay), [3]);

    // The same content once more is nothing new.
    file.set_modified(SystemTime::now()).unwrap();
    drop(file);
    until_logged("the file was written anew, with the same content", 1);
    assert_eq!(relay.log().matches("swapped").count(), 2);

    // A broken file is reported once, and then mended.
    assert_eq!(relay.log().matches("the last one goes on").count(), 0, "{}", relay.log());
    world.place.write("mine.wasm", "no component");
    until_logged("the file has changed, and the last one goes on: ", 1);
    assert!(relay.log().contains("is not WebAssembly"), "{}", relay.log());
    assert_eq!(world.versions_at_work(&relay), [3]);
    world.place.write("mine.wasm", Sheet { configure: "refuse", ..Sheet::good(4) }.bytes());
    until_logged("the file has changed, and the last one goes on: ", 2);
    assert!(relay.log().contains("not today"), "{}", relay.log());
    std::fs::remove_file(world.place.path("mine.wasm")).unwrap();
    assert_eq!(world.versions_at_work(&relay), [3]);
    world.place.write("mine.wasm", Sheet::good(5).bytes());
    until_logged("the file has changed: swapped", 3);
    assert_eq!(world.versions_at_work(&relay), [5]);
    assert_eq!(relay.log().matches("the last one goes on").count(), 2, "{}", relay.log());
}
