//! The versions of publishers: what holds for every storage that keeps them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use outbox_host::outbox::{
    Act, CanaryShare, Counts, Deployed, Deployments, Failed, Fate, Hold, MODULE_BYTES_MAX, PublisherVersion,
    RolledBack, Settled, VersionState,
};
use outbox_host::{
    Attempt, History, JsonSerde, NoOutbox, Outbox, OutboxStorageStrategy, Outcome, SqliteOutbox, StorageError,
};
use outbox_tests::outboxes::{Kept, Memory, Sqlite, entry_at, event};

use VersionState::{Active, Canary, Refused, Retired, Stored};

outbox_tests::for_each_storage! {
    a_new_version_is_kept_whole_and_asked_for
    a_later_request_supersedes_an_earlier_one
    the_same_bytes_as_the_active_ones_are_no_new_version
    each_content_is_kept_once_and_goes_with_its_last_version
    an_activated_version_takes_the_place_of_the_active_one
    a_canary_stands_beside_the_active_version
    a_canary_needs_an_active_version_beside_it
    a_rollback_withdraws_what_is_asked_for_then_the_canary_then_goes_back
    a_rollback_to_a_version_asks_for_it_again
    a_rollback_to_the_active_version_withdraws_everything_else
    what_is_wanted_is_not_removed_alone
    no_number_is_given_twice
    activations_that_do_not_end_are_counted
    a_transition_that_comes_too_late_changes_nothing
    a_withdrawn_canary_gives_its_attempts_back
    attempts_are_given_back_once
    counts_add_up_and_tell_nobody
    every_change_is_noticed
    what_cannot_be_deployed_is_refused_with_a_reason
    operators_acts_are_on_record
    several_deploy_at_once
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn by() -> Act {
    Act { who: "ada".into(), at: at(5_000) }
}

fn five_percent() -> Option<CanaryShare> {
    CanaryShare::from_parts(500)
}

fn deploy(deployments: &dyn Deployments, bytes: &str) -> u32 {
    deployments.deploy("hook", bytes.as_bytes(), None, "", &by()).unwrap().version
}

fn activate(deployments: &dyn Deployments, bytes: &str, seconds: i64) -> u32 {
    let version = deploy(deployments, bytes);
    assert!(deployments.activated("hook", version, at(seconds)).unwrap());
    version
}

/// Versions 1, active, and 2, the canary, of other bytes; returns the digest of the latter.
fn with_canary(deployments: &dyn Deployments) -> String {
    activate(deployments, "one", 1);
    let canary = deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    assert!(deployments.canary_started("hook", 2, at(2)).unwrap());
    canary.digest
}

fn all(deployments: &dyn Deployments) -> Vec<PublisherVersion> {
    deployments.versions(Some("hook")).unwrap()
}

fn states(deployments: &dyn Deployments) -> Vec<VersionState> {
    all(deployments).iter().map(|version| version.state).collect()
}

fn reason(deployments: &dyn Deployments, version: u32) -> String {
    all(deployments).into_iter().find(|found| found.version == version).unwrap().reason
}

#[track_caller]
fn declined<T: std::fmt::Debug>(result: Result<T, StorageError>) -> String {
    match result {
        Err(StorageError::Declined(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn a_new_version_is_kept_whole_and_asked_for<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let deployed = deployments.deploy("hook", b"one", None, "a note", &by()).unwrap();
    let sha256_of_one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    assert_eq!(deployed, Deployed { version: 1, digest: sha256_of_one.into(), new: true, superseded: None });
    let expected = PublisherVersion {
        publisher: "hook".into(),
        version: 1,
        digest: sha256_of_one.into(),
        size: 3,
        state: Stored,
        reason: String::new(),
        note: "a note".into(),
        deployed_at: at(5_000),
        deployed_by: "ada".into(),
        requested: 1,
        activated_at: None,
        canary_since: None,
        canary: None,
        tries: 0,
        counts: Counts::default(),
    };
    let strategy = kept.open();
    let deployments = strategy.deployments();
    assert_eq!(deployments.versions(None).unwrap(), std::slice::from_ref(&expected));
    assert_eq!(deployments.versions(Some("hook")).unwrap(), [expected]);
    assert_eq!(deployments.versions(Some("other")).unwrap(), []);
    assert_eq!(deployments.module(sha256_of_one).unwrap().as_deref(), Some(b"one".as_slice()));
    assert_eq!(deployments.module("none").unwrap(), None);
}

fn a_later_request_supersedes_an_earlier_one<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    deploy(deployments, "one");
    let second = deployments.deploy("hook", b"two", None, "", &by()).unwrap();
    assert_eq!((second.version, second.superseded), (2, Some(1)));
    assert_eq!(
        (states(deployments), reason(deployments, 1)),
        (vec![Retired, Stored], "superseded by version 2".into())
    );
    let requested: Vec<u64> = all(deployments).iter().map(|version| version.requested).collect();
    assert!(requested[0] < requested[1], "{requested:?}");
    // Another publisher's are its own.
    deployments.deploy("other", b"two", None, "", &by()).unwrap();
    assert_eq!(states(deployments), [Retired, Stored]);
    let names = deployments.versions(None).unwrap().into_iter().map(|it| format!("{} {}", it.publisher, it.version));
    assert_eq!(names.collect::<Vec<_>>(), ["hook 1", "hook 2", "other 1"]);
}

fn the_same_bytes_as_the_active_ones_are_no_new_version<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "one", 1);
    let generation = deployments.registry_generation().unwrap();
    let again = deployments.deploy("hook", b"one", None, "", &by()).unwrap();
    assert_eq!((again.version, again.new), (1, false));
    assert_eq!((all(deployments).len(), deployments.registry_generation().unwrap()), (1, generation));
    // While something else is asked for, they are what is wanted instead.
    deploy(deployments, "two");
    let back = deployments.deploy("hook", b"one", None, "", &by()).unwrap();
    assert_eq!((back.version, back.new, back.superseded), (3, true, Some(2)));
    assert_eq!(states(deployments), [Active, Retired, Stored]);
}

fn each_content_is_kept_once_and_goes_with_its_last_version<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let digest = deployments.deploy("hook", b"one", None, "", &by()).unwrap().digest;
    assert_eq!(deployments.deploy("other", b"one", None, "", &by()).unwrap().digest, digest);
    deploy(deployments, "two");
    assert_eq!(deployments.remove("hook", Some(1), &by()).unwrap(), 1);
    assert!(deployments.module(&digest).unwrap().is_some(), "the other publisher has it too");
    assert_eq!(deployments.remove("other", None, &by()).unwrap(), 1);
    assert_eq!(deployments.module(&digest).unwrap(), None);
    assert!(deployments.module(&all(deployments)[0].digest).unwrap().is_some());
}

fn an_activated_version_takes_the_place_of_the_active_one<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "one", 1);
    activate(deployments, "two", 2);
    assert_eq!(
        (states(deployments), reason(deployments, 1)),
        (vec![Retired, Active], "superseded by version 2".into())
    );
    let times: Vec<_> = all(deployments).iter().map(|version| version.activated_at).collect();
    assert_eq!(times, [Some(at(1)), Some(at(2))]);
    // A relay that starts activates the active one: it has been active all along.
    assert!(deployments.activated("hook", 2, at(9)).unwrap());
    assert_eq!(all(deployments)[1].activated_at, Some(at(2)));
    // One that is refused leaves the active one alone.
    deploy(deployments, "three");
    assert!(deployments.refused("hook", 3, "no such import").unwrap());
    assert_eq!(
        (states(deployments), reason(deployments, 3)),
        (vec![Retired, Active, Refused], "no such import".into())
    );
}

fn a_canary_stands_beside_the_active_version<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    with_canary(deployments);
    let canary = &all(deployments)[1];
    assert_eq!((states(deployments), canary.canary), (vec![Active, Canary], five_percent()));
    assert_eq!((canary.canary_since, canary.activated_at), (Some(at(2)), None));
    // The next canary takes its place, and a version that becomes active the next one's.
    deployments.deploy("hook", b"three", five_percent(), "", &by()).unwrap();
    assert_eq!(states(deployments), [Active, Canary, Stored]);
    assert!(deployments.canary_started("hook", 3, at(3)).unwrap());
    assert_eq!(
        (states(deployments), reason(deployments, 2)),
        (vec![Active, Retired, Canary], "superseded by version 3".into())
    );
    activate(deployments, "four", 4);
    assert_eq!(states(deployments), [Retired, Retired, Retired, Active]);
}

/// A canary that proves itself is activated as it is.
#[test]
fn a_canary_may_become_active() {
    let kept = Sqlite::new();
    let strategy = kept.open();
    let deployments = strategy.deployments();
    with_canary(deployments);
    assert!(
        deployments.canary_started("hook", 2, at(9)).unwrap(),
        "a relay that starts says so of the canary that is one"
    );
    assert_eq!(all(deployments)[1].canary_since, Some(at(2)));
    assert!(deployments.activated("hook", 2, at(10)).unwrap());
    assert_eq!((states(deployments), all(deployments)[1].activated_at), (vec![Retired, Active], Some(at(10))));
    assert_eq!(all(deployments)[1].canary, None);
}

fn a_canary_needs_an_active_version_beside_it<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let reason = declined(deployments.deploy("hook", b"one", five_percent(), "", &by()));
    assert_eq!(reason, "hook has no active version that a canary could stand beside: deploy it without --canary first");
    deploy(deployments, "one");
    declined(deployments.deploy("hook", b"two", five_percent(), "", &by()));
    assert_eq!(states(deployments), [Stored]);
}

fn a_rollback_withdraws_what_is_asked_for_then_the_canary_then_goes_back<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "zero", 1);
    activate(deployments, "one", 2);
    deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    deployments.canary_started("hook", 3, at(3)).unwrap();
    deploy(deployments, "three");
    assert_eq!(states(deployments), [Retired, Active, Canary, Stored]);
    let back = |deployments: &dyn Deployments| deployments.rollback("hook", None, &by()).unwrap();
    assert_eq!(back(deployments), RolledBack { withdrawn: vec![4], requested: None, active: Some(2) });
    assert_eq!(
        (states(deployments), reason(deployments, 4)),
        (vec![Retired, Active, Canary, Retired], "rolled back by ada".into())
    );
    assert_eq!(back(deployments), RolledBack { withdrawn: vec![3], requested: None, active: Some(2) });
    assert_eq!(
        (states(deployments), reason(deployments, 3)),
        (vec![Retired, Active, Retired, Retired], "rolled back by ada".into())
    );
    // Neither of those two was ever active.
    assert_eq!(back(deployments), RolledBack { withdrawn: vec![], requested: Some(1), active: Some(2) });
    assert_eq!((states(deployments), reason(deployments, 1)), (vec![Stored, Active, Retired, Retired], String::new()));
    let all = all(deployments);
    assert!(all.iter().all(|version| version.requested <= all[0].requested), "it was asked for last");
    deployments.activated("hook", 1, at(4)).unwrap();
    assert_eq!(
        (states(deployments)[..2].to_vec(), self::all(deployments)[0].activated_at),
        (vec![Active, Retired], Some(at(4)))
    );
    assert_eq!(back(deployments).requested, Some(2));
}

fn a_rollback_to_a_version_asks_for_it_again<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    assert_eq!(
        declined(deployments.rollback("hook", None, &by())),
        "there is no publisher hook; none was deployed yet"
    );
    deploy(deployments, "one");
    assert!(deployments.refused("hook", 1, "it was too slow").unwrap());
    assert_eq!(
        declined(deployments.rollback("hook", None, &by())),
        "no version of hook was active before: name the one to go back to; there is 1 (refused)"
    );
    assert_eq!(declined(deployments.rollback("hook", Some(7), &by())), "hook has no version 7; it has 1");
    assert_eq!(declined(deployments.rollback("hok", Some(1), &by())), "there is no publisher hok; there is hook");
    deploy(deployments, "two");
    let done = deployments.rollback("hook", Some(1), &by()).unwrap();
    assert_eq!(done, RolledBack { withdrawn: vec![2], requested: Some(1), active: None });
    assert_eq!((states(deployments), reason(deployments, 1)), (vec![Stored, Retired], String::new()));
    assert_eq!(reason(deployments, 2), "superseded by version 1");
    let reason = declined(deployments.rollback("hook", Some(1), &by()));
    assert_eq!(reason, "version 1 of hook is asked for already: a relay activates it");
}

fn a_rollback_to_the_active_version_withdraws_everything_else<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    with_canary(deployments);
    let reason = declined(deployments.rollback("hook", Some(2), &by()));
    assert!(reason.starts_with("version 2 of hook is on trial as the canary: `outbox publisher rollback hook` "));
    deploy(deployments, "three");
    let done = deployments.rollback("hook", Some(1), &by()).unwrap();
    assert_eq!(done, RolledBack { withdrawn: vec![3, 2], requested: None, active: Some(1) });
    assert_eq!(states(deployments), [Active, Retired, Retired]);
    let reason = declined(deployments.rollback("hook", Some(1), &by()));
    assert_eq!(reason, "version 1 of hook is active, and no other is asked for");
}

fn what_is_wanted_is_not_removed_alone<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "zero", 1);
    activate(deployments, "one", 2);
    deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    deployments.canary_started("hook", 3, at(3)).unwrap();
    deploy(deployments, "three");
    for (version, state) in [(2, "active"), (3, "canary"), (4, "stored")] {
        let reason = declined(deployments.remove("hook", Some(version), &by()));
        let expected = format!("version {version} of hook is {state}, and is not removed alone: roll it back first");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    assert_eq!(deployments.remove("hook", Some(1), &by()).unwrap(), 1);
    assert_eq!(declined(deployments.remove("hook", Some(1), &by())), "hook has no version 1; it has 2, 3, 4");
    assert_eq!(deployments.remove("hook", None, &by()).unwrap(), 3);
    assert_eq!(deployments.versions(None).unwrap(), []);
    assert!(declined(deployments.remove("hook", None, &by())).starts_with("there is no publisher hook"));
}

/// A relay that is late with a verdict must not give it on another version.
fn no_number_is_given_twice<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    deploy(deployments, "one");
    deployments.remove("hook", None, &by()).unwrap();
    assert_eq!(deploy(deployments, "two"), 2);
    deployments.refused("hook", 2, "").unwrap();
    deployments.remove("hook", Some(2), &by()).unwrap();
    assert_eq!(deploy(deployments, "three"), 3);
    assert!(!deployments.activated("hook", 2, at(1)).unwrap());
}

fn activations_that_do_not_end_are_counted<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let begin = |version| deployments.begin_activation("hook", version).unwrap();
    deploy(deployments, "one");
    assert_eq!([begin(1), begin(1)], [Some(1), Some(2)]);
    assert_eq!(all(deployments)[0].tries, 2);
    deployments.activated("hook", 1, at(1)).unwrap();
    assert_eq!(all(deployments)[0].tries, 0);
    assert_eq!(begin(1), Some(1), "a relay that starts activates what is active");
    deployments.activated("hook", 1, at(2)).unwrap();
    deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    assert_eq!([begin(2), begin(2)], [Some(1), Some(2)]);
    deployments.refused("hook", 2, "it ends the relay").unwrap();
    assert_eq!((all(deployments)[1].tries, begin(2)), (0, None));
    deployments.rollback("hook", Some(2), &by()).unwrap();
    assert_eq!(begin(2), Some(1), "it is a new request");
}

fn a_transition_that_comes_too_late_changes_nothing<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let late = |version| {
        assert_eq!(deployments.begin_activation("hook", version).unwrap(), None);
        assert!(!deployments.activated("hook", version, at(1)).unwrap());
        assert!(!deployments.canary_started("hook", version, at(1)).unwrap());
        assert!(!deployments.refused("hook", version, "late").unwrap());
    };
    late(1);
    assert_eq!(deployments.versions(None).unwrap(), []);
    deploy(deployments, "one");
    deploy(deployments, "two");
    let (before, generation) = (all(deployments), deployments.registry_generation().unwrap());
    late(1);
    late(9);
    assert_eq!((all(deployments), deployments.registry_generation().unwrap()), (before, generation));
    deployments.activated("hook", 2, at(1)).unwrap();
    assert!(!deployments.canary_started("hook", 2, at(2)).unwrap(), "what is active is no canary any more");
}

fn failed(strategy: &impl OutboxStorageStrategy, position: i64, attempts: u32, digest: &str, fate: Fate) -> Settled {
    let attempt = Attempt { digest: Some(digest.into()), ..Outcome::Trapped { reason: "oh".into() }.into() };
    let history = History { attempts, host_deaths: 0 };
    Settled::Failed(Box::new(Failed {
        entry: entry_at(strategy, position),
        at: at(i64::from(attempts)),
        attempt,
        others: vec![],
        delivered_to: vec![],
        history,
        fate,
    }))
}

fn append<K: Kept>(kept: &K, streams: &[&str]) -> Vec<i64> {
    let events: Vec<_> = streams.iter().map(|stream| event(stream, "{}")).collect();
    Outbox::new(kept.open(), JsonSerde).append(&events).unwrap()
}

/// The attempts and the time in seconds of each entry that waits.
fn waiting(strategy: &impl OutboxStorageStrategy) -> Vec<(i64, u32, i64)> {
    let held = strategy.held().unwrap().into_iter();
    let mut waiting: Vec<_> = held
        .filter_map(|held| match held.hold {
            Hold::Waiting { retry_at, history, .. } => {
                Some((held.entry.position, history.attempts, retry_at.as_second()))
            }
            Hold::Parked | Hold::Delivered => None,
        })
        .collect();
    waiting.sort_unstable();
    waiting
}

fn a_withdrawn_canary_gives_its_attempts_back<K: Kept>(_: &K) {
    for refused in [true, false] {
        let kept = &K::new();
        let strategy = kept.open();
        let deployments = strategy.deployments();
        let (canary, p) = (with_canary(deployments), append(kept, &["a", "b", "c", "d"]));
        let retry = Fate::Retry { at: at(1_000) };
        let settled = [
            failed(&strategy, p[0], 1, &canary, retry),
            failed(&strategy, p[0], 2, &canary, retry),
            failed(&strategy, p[1], 1, "other", retry),
            failed(&strategy, p[1], 2, &canary, retry),
            failed(&strategy, p[1], 3, "other", retry),
            failed(&strategy, p[2], 1, "other", retry),
            failed(&strategy, p[3], 1, &canary, Fate::DeadLetter { park: false }),
        ];
        strategy.settle(&settled).unwrap();
        let generation = strategy.generation().unwrap();
        if refused {
            assert!(deployments.refused("hook", 2, "it fails too often").unwrap());
        } else {
            deployments.rollback("hook", None, &by()).unwrap();
        }
        assert_eq!(
            waiting(&strategy),
            [(p[0], 0, 2), (p[1], 2, 3), (p[2], 1, 1_000)],
            "the times are those of failing"
        );
        assert_ne!(strategy.generation().unwrap(), generation, "the relay reads anew what waits");
        let attempts = strategy.operator().attempts(p[1]).unwrap();
        assert_eq!(attempts.iter().map(|it| it.given_back).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(strategy.status().unwrap().dead_letters, 1);
    }
}

/// Also where the same bytes are a canary again; and what a version that is no canary used up stays used up.
fn attempts_are_given_back_once<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let (canary, p) = (with_canary(deployments), append(kept, &["a"]));
    let retry = Fate::Retry { at: at(1_000) };
    strategy.settle(&[failed(&strategy, p[0], 1, "other", retry), failed(&strategy, p[0], 2, &canary, retry)]).unwrap();
    deployments.rollback("hook", None, &by()).unwrap();
    assert_eq!(waiting(&strategy), [(p[0], 1, 2)]);
    strategy.settle(&[failed(&strategy, p[0], 2, &canary, retry)]).unwrap();
    deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    deployments.canary_started("hook", 3, at(9)).unwrap();
    deployments.refused("hook", 3, "").unwrap();
    assert_eq!(waiting(&strategy), [(p[0], 1, 2)]);

    let generation = strategy.generation().unwrap();
    strategy.settle(&[failed(&strategy, p[0], 2, &canary, retry)]).unwrap();
    deploy(deployments, "two");
    deployments.refused("hook", 4, "").unwrap();
    assert_eq!((waiting(&strategy), strategy.generation().unwrap()), (vec![(p[0], 2, 1_000)], generation));
}

fn counts_add_up_and_tell_nobody<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    deploy(deployments, "one");
    let generation = deployments.registry_generation().unwrap();
    let more = Counts { delivered: 3, failed: 2, trapped: 1 };
    deployments.count("hook", 1, more).unwrap();
    deployments.count("hook", 1, Counts { delivered: 10, ..Counts::default() }).unwrap();
    deployments.count("hook", 9, more).unwrap();
    assert_eq!(all(deployments)[0].counts, Counts { delivered: 13, failed: 2, trapped: 1 });
    assert_eq!(deployments.registry_generation().unwrap(), generation);
    deployments.activated("hook", 1, at(1)).unwrap();
    assert_eq!(all(deployments)[0].counts, Counts { delivered: 13, failed: 2, trapped: 1 });
}

fn every_change_is_noticed<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let mut watch = kept.open().watch().unwrap();
    let mut last = deployments.registry_generation().unwrap();
    type Change = fn(&dyn Deployments);
    let changes: [Change; 8] = [
        |deployments| assert_eq!(deploy(deployments, "one"), 1),
        |deployments| assert_eq!(deployments.begin_activation("hook", 1).unwrap(), Some(1)),
        |deployments| assert!(deployments.activated("hook", 1, at(1)).unwrap()),
        |deployments| drop(deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap()),
        |deployments| assert!(deployments.canary_started("hook", 2, at(1)).unwrap()),
        |deployments| assert!(deployments.refused("hook", 2, "").unwrap()),
        |deployments| drop(deployments.rollback("hook", Some(2), &by()).unwrap()),
        |deployments| assert_eq!(deployments.remove("hook", None, &by()).unwrap(), 2),
    ];
    for change in changes {
        change(deployments);
        assert!(watch.wait(Duration::from_secs(10)));
        let generation = deployments.registry_generation().unwrap();
        assert!(generation > last);
        last = generation;
    }
}

fn what_cannot_be_deployed_is_refused_with_a_reason<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let long = "a".repeat(65);
    for name in ["", "Hook", "a b", "a/b", "ä", long.as_str()] {
        let reason = declined(deployments.deploy(name, b"one", None, "", &by()));
        let expected = "is no name of a publisher: a name has 1 to 64 of the characters a-z, 0-9, _ and -";
        assert_eq!(reason, format!("`{name}` {expected}"));
    }
    let reason = declined(deployments.deploy("hook", b"", None, "", &by()));
    assert_eq!(reason, "the module for hook is empty");
    let reason = declined(deployments.deploy("hook", &vec![0; MODULE_BYTES_MAX + 1], None, "", &by()));
    assert!(
        reason.starts_with("the module for hook has 999000001 bytes, and a row of the database has room for 999000000")
    );
    assert_eq!((deployments.versions(None).unwrap(), deployments.registry_generation().unwrap()), (vec![], 0));
    deployments.deploy(&"a".repeat(64), b"one", None, "", &by()).unwrap();
    deployments.deploy("0-_z", b"one", None, "", &by()).unwrap();
}

fn operators_acts_are_on_record<K: Kept>(kept: &K) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "one", 1);
    let digest = all(deployments)[0].digest.clone();
    deploy(deployments, "one");
    let canary = deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap().digest;
    deployments.rollback("hook", None, &by()).unwrap();
    deployments.rollback("hook", Some(2), &by()).unwrap();
    let _ = deployments.rollback("hook", Some(9), &by());
    deployments.remove("hook", None, &by()).unwrap();
    let acts = strategy.operator().audit(10).unwrap().into_iter().rev();
    let acts: Vec<_> = acts.map(|it| format!("{} {} {} {}", it.at.as_second(), it.who, it.act, it.detail)).collect();
    assert_eq!(
        acts,
        [
            format!("5000 ada deploy hook: version 1, digest {digest}"),
            format!("5000 ada deploy hook: version 2, digest {canary}, canary 5%"),
            "5000 ada rollback hook: version 2 withdrawn".into(),
            "5000 ada rollback hook: version 2 asked for".into(),
            "5000 ada remove hook: all 2 versions".into(),
        ]
    );
}

fn several_deploy_at_once<K: Kept>(kept: &K) {
    let strategies: Vec<_> = (0..8).map(|_| kept.open()).collect();
    std::thread::scope(|scope| {
        for (number, strategy) in strategies.iter().enumerate() {
            scope.spawn(move || {
                strategy.deployments().deploy("hook", &[number as u8; 100_000], None, "", &by()).unwrap()
            });
        }
    });
    let deployments = strategies[0].deployments();
    let versions = all(deployments);
    assert_eq!(versions.iter().map(|it| it.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(versions.iter().filter(|it| it.state == Stored).map(|it| it.version).collect::<Vec<_>>(), [8]);
    for version in versions {
        assert_eq!(deployments.module(&version.digest).unwrap().unwrap().len(), 100_000);
    }
}

/// Whatever is done in whatever order: both storages say the same, and no two versions are in the same place.
#[test]
fn storages_agree_after_any_acts() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kept = (Sqlite::new(), Memory::new());
        let (sqlite, memory) = (kept.0.open(), kept.1.open());
        let registries = [sqlite.deployments(), memory.deployments()];
        for step in 0..60 {
            let (act, version, second) = (rng.u8(..10), rng.u32(1..8), at(step));
            let (bytes, canary) = ([rng.u8(..4)], five_percent().filter(|_| rng.bool()));
            let said = registries.map(|deployments| match act {
                0..3 => format!("{:?}", deployments.deploy("hook", &bytes, canary, "", &by())),
                3 => format!("{:?}", deployments.rollback("hook", Some(version).filter(|it| it % 2 == 0), &by())),
                4 => format!("{:?}", deployments.remove("hook", Some(version).filter(|it| it % 7 != 0), &by())),
                5 => format!("{:?}", deployments.begin_activation("hook", version)),
                6..8 => format!("{:?}", deployments.activated("hook", version, second)),
                8 => format!("{:?}", deployments.canary_started("hook", version, second)),
                _ => format!("{:?}", deployments.refused("hook", version, "why")),
            });
            assert_eq!(said[0], said[1], "seed {seed}, step {step}");
            let [one, other] = registries.map(all);
            assert_eq!(one, other, "seed {seed}, step {step}: {}", said[0]);
            let [one_generation, other_generation] = registries.map(|it| it.registry_generation().unwrap());
            assert_eq!(one_generation, other_generation, "seed {seed}, step {step}: {}", said[0]);
            for state in [Stored, Canary, Active] {
                assert!(one.iter().filter(|it| it.state == state).count() <= 1, "seed {seed}, step {step}: {one:?}");
            }
            for version in &one {
                assert!(registries.iter().all(|it| it.module(&version.digest).unwrap().is_some()));
            }
        }
    }
}

#[test]
fn a_damaged_module_is_named_and_mended_by_deploying_it_again() {
    let kept = Sqlite::new();
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "one", 1);
    let digest = all(deployments)[0].digest.clone();
    kept.connection().execute("UPDATE outbox_modules SET bytes = x'00'", []).unwrap();
    let error = deployments.module(&digest).unwrap_err();
    assert!(!error.is_passing());
    assert!(error.to_string().starts_with(&format!("the module {digest} is damaged: its bytes have the digest 6e34")));
    assert!(!deployments.deploy("hook", b"one", None, "", &by()).unwrap().new);
    assert_eq!(deployments.module(&digest).unwrap().unwrap(), b"one");
}

/// What an earlier program left is upgraded, with all that is in it.
#[test]
fn an_outbox_of_version_1_is_upgraded_with_its_data() {
    let kept = Sqlite::new();
    let strategy = kept.open();
    let p = append(&kept, &["a", "b"]);
    let bury = failed(&strategy, p[1], 2, "x", Fate::DeadLetter { park: true });
    strategy.settle(&[failed(&strategy, p[0], 1, "x", Fate::Retry { at: at(9) }), bury]).unwrap();
    let back_to_1 = "
        DROP TABLE outbox_modules; DROP TABLE outbox_versions; DROP TABLE outbox_publishers;
        ALTER TABLE outbox_attempts DROP COLUMN publisher; ALTER TABLE outbox_attempts DROP COLUMN given_back;
        ALTER TABLE outbox_waiting DROP COLUMN delivered_to; ALTER TABLE outbox_waiting DROP COLUMN uuid;
        ALTER TABLE outbox_waiting DROP COLUMN undeletable; ALTER TABLE outbox_attempts DROP COLUMN uuid;
        CREATE TABLE of_1 (position INTEGER PRIMARY KEY, tenant_id, stream_id, stream_name, category, uuid, name, version,
                           created_at, content_type, context, data, attempts INTEGER NOT NULL, outcome TEXT NOT NULL,
                           reason TEXT NOT NULL, died_at_ms INTEGER NOT NULL, parks_stream INTEGER NOT NULL);
        INSERT INTO of_1 SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                                content_type, context, data, attempts, outcome, reason, died_at_ms, parks_stream
                         FROM outbox_dead_letters;
        DROP TABLE outbox_dead_letters; DROP TABLE outbox_dead_letter_columns;
        ALTER TABLE of_1 RENAME TO outbox_dead_letters;
        CREATE INDEX outbox_dead_letters_parking ON outbox_dead_letters (position) WHERE parks_stream;
        CREATE VIEW broken AS SELECT * FROM nowhere;
        DELETE FROM outbox_meta WHERE key = 'registry_generation';
        UPDATE outbox_meta SET value = 1 WHERE key = 'schema_version';";
    let before = (strategy.held().unwrap(), strategy.status().unwrap(), strategy.operator().attempts(p[1]).unwrap());
    drop(strategy);
    kept.connection().execute_batch(back_to_1).unwrap();
    let error = SqliteOutbox::open(&kept.file()).err().unwrap().to_string();
    assert!(error.contains("has schema version 1, and this program needs version 3: run `outbox init"), "{error}");
    let done = SqliteOutbox::init(&kept.file()).unwrap();
    assert_eq!((done.before, done.now, done.warnings.len()), (1, 3, 0));
    let strategy = kept.open();
    let after = (strategy.held().unwrap(), strategy.status().unwrap(), strategy.operator().attempts(p[1]).unwrap());
    assert_eq!(after, before);
    assert_eq!(deploy(strategy.deployments(), "one"), 1);
}

#[test]
fn no_outbox_keeps_no_publisher() {
    let deployments = NoOutbox.deployments();
    let reason = declined(deployments.deploy("hook", b"one", None, "", &by()));
    assert_eq!(reason, "there is no outbox that hook could be kept in");
    assert_eq!(deployments.versions(None).unwrap(), []);
    assert!(declined(deployments.rollback("hook", None, &by())).starts_with("there is no publisher hook"));
    assert!(declined(deployments.remove("hook", None, &by())).starts_with("there is no publisher hook"));
    assert_eq!(deployments.begin_activation("hook", 1).unwrap(), None);
    assert!(!deployments.activated("hook", 1, at(1)).unwrap());
    assert_eq!((deployments.module("x").unwrap(), deployments.registry_generation().unwrap()), (None, 0));
}
