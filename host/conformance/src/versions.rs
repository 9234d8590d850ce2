//! The versions of publishers: which exist, and which is requested.

use outbox_engine::OutboxStorageStrategy;
use outbox_engine::outbox::VersionState::{Active, Canary, Refused, Retired, Stored};
use outbox_engine::outbox::{Counts, Deployed, Deployments, MODULE_BYTES_MAX, PublisherVersion, RolledBack};

use crate::TestStorage;
use crate::deployment_helpers::{activate, all, declined, deploy, five_percent, reason, states, with_canary};
use crate::helpers::{at, by};

pub fn a_new_version_is_kept_whole_and_asked_for<S: TestStorage>(kept: &S) {
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

pub fn a_later_request_supersedes_an_earlier_one<S: TestStorage>(kept: &S) {
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
    // Another publisher has versions of its own.
    deployments.deploy("other", b"two", None, "", &by()).unwrap();
    assert_eq!(states(deployments), [Retired, Stored]);
    let names = deployments.versions(None).unwrap().into_iter().map(|it| format!("{} {}", it.publisher, it.version));
    assert_eq!(names.collect::<Vec<_>>(), ["hook 1", "hook 2", "other 1"]);
}

pub fn the_same_bytes_as_the_active_ones_are_no_new_version<S: TestStorage>(kept: &S) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    activate(deployments, "one", 1);
    let generation = deployments.registry_generation().unwrap();
    let again = deployments.deploy("hook", b"one", None, "", &by()).unwrap();
    assert_eq!((again.version, again.new), (1, false));
    assert_eq!((all(deployments).len(), deployments.registry_generation().unwrap()), (1, generation));
    // While another version is requested, they are requested instead.
    deploy(deployments, "two");
    let back = deployments.deploy("hook", b"one", None, "", &by()).unwrap();
    assert_eq!((back.version, back.new, back.superseded), (3, true, Some(2)));
    assert_eq!(states(deployments), [Active, Retired, Stored]);
}

pub fn each_content_is_kept_once_and_goes_with_its_last_version<S: TestStorage>(kept: &S) {
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

pub fn an_activated_version_takes_the_place_of_the_active_one<S: TestStorage>(kept: &S) {
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
    // A refused version leaves the active one alone.
    deploy(deployments, "three");
    assert!(deployments.refused("hook", 3, "no such import").unwrap());
    assert_eq!(
        (states(deployments), reason(deployments, 3)),
        (vec![Retired, Active, Refused], "no such import".into())
    );
}

pub fn a_canary_stands_beside_the_active_version<S: TestStorage>(kept: &S) {
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

pub fn a_canary_needs_an_active_version_beside_it<S: TestStorage>(kept: &S) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let reason = declined(deployments.deploy("hook", b"one", five_percent(), "", &by()));
    assert_eq!(reason, "hook has no active version that a canary could stand beside: deploy it without --canary first");
    deploy(deployments, "one");
    declined(deployments.deploy("hook", b"two", five_percent(), "", &by()));
    assert_eq!(states(deployments), [Stored]);
}

pub fn a_rollback_withdraws_what_is_asked_for_then_the_canary_then_goes_back<S: TestStorage>(kept: &S) {
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

pub fn a_rollback_to_a_version_asks_for_it_again<S: TestStorage>(kept: &S) {
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

pub fn a_rollback_to_the_active_version_withdraws_everything_else<S: TestStorage>(kept: &S) {
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

pub fn what_is_wanted_is_not_removed_alone<S: TestStorage>(kept: &S) {
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

/// A late decision of a relay must not affect another version.
pub fn no_number_is_given_twice<S: TestStorage>(kept: &S) {
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

pub fn what_cannot_be_deployed_is_refused_with_a_reason<S: TestStorage>(kept: &S) {
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

/// A good canary becomes the active version.
pub fn a_canary_may_become_active<S: TestStorage>(kept: &S) {
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
