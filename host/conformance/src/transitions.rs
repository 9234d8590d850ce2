//! The versions of publishers: their transitions, and their counts.

use std::time::Duration;

use outbox_engine::OutboxStorageStrategy;
use outbox_engine::outbox::VersionState::Stored;
use outbox_engine::outbox::{Counts, Deployments, Drain, Fate, Hold, Settled};

use crate::TestStorage;
use crate::deployment_helpers::{activate, all, deploy, failed, five_percent, with_canary};
use crate::helpers::{append, at, by};

/// The attempts and the time in seconds of each entry that waits.
fn waiting(drain: &dyn Drain) -> Vec<(i64, u32, i64)> {
    let held = drain.held().unwrap().into_iter();
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

pub fn activations_that_do_not_end_are_counted<S: TestStorage>(kept: &S) {
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

pub fn a_transition_that_comes_too_late_changes_nothing<S: TestStorage>(kept: &S) {
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

pub fn a_withdrawn_canary_gives_its_attempts_back<S: TestStorage>(_: &S) {
    for refused in [true, false] {
        let kept = &S::new();
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
        let drain = strategy.drain().unwrap();
        drain.settle(&settled).unwrap();
        assert!(!drain.must_reload().unwrap());
        if refused {
            assert!(deployments.refused("hook", 2, "it fails too often").unwrap());
        } else {
            deployments.rollback("hook", None, &by()).unwrap();
        }
        assert_eq!(
            waiting(drain.as_ref()),
            [(p[0], 0, 2), (p[1], 2, 3), (p[2], 1, 1_000)],
            "the times are those of failing"
        );
        assert!(drain.must_reload().unwrap(), "the relay reads anew what waits");
        let attempts = strategy.operator().attempts(p[1]).unwrap();
        assert_eq!(attempts.iter().map(|it| it.given_back).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(strategy.status().unwrap().dead_letters, 1);
    }
}

/// Also if the same bytes are a canary again. Attempts that another version used up stay used up.
pub fn attempts_are_given_back_once<S: TestStorage>(kept: &S) {
    let strategy = kept.open();
    let deployments = strategy.deployments();
    let (canary, p) = (with_canary(deployments), append(kept, &["a"]));
    let retry = Fate::Retry { at: at(1_000) };
    let drain = strategy.drain().unwrap();
    let settle = |settled: &[Settled]| assert_eq!(drain.settle(settled).unwrap(), settled.len());
    settle(&[failed(&strategy, p[0], 1, "other", retry), failed(&strategy, p[0], 2, &canary, retry)]);
    deployments.rollback("hook", None, &by()).unwrap();
    assert_eq!(waiting(drain.as_ref()), [(p[0], 1, 2)]);
    settle(&[failed(&strategy, p[0], 2, &canary, retry)]);
    deployments.deploy("hook", b"two", five_percent(), "", &by()).unwrap();
    deployments.canary_started("hook", 3, at(9)).unwrap();
    deployments.refused("hook", 3, "").unwrap();
    assert_eq!(waiting(drain.as_ref()), [(p[0], 1, 2)]);

    assert!(drain.must_reload().unwrap());
    settle(&[failed(&strategy, p[0], 2, &canary, retry)]);
    deploy(deployments, "two");
    deployments.refused("hook", 4, "").unwrap();
    assert_eq!((waiting(drain.as_ref()), drain.must_reload().unwrap()), (vec![(p[0], 2, 1_000)], false));
}

pub fn counts_add_up_and_tell_nobody<S: TestStorage>(kept: &S) {
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

pub fn every_change_is_noticed<S: TestStorage>(kept: &S) {
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

pub fn operators_acts_are_on_record<S: TestStorage>(kept: &S) {
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

pub fn several_deploy_at_once<S: TestStorage>(kept: &S) {
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
