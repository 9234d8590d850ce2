//! The versions of publishers, beside what the conformance suite has of them: that storages agree, and what is SQLite's own.

use outbox_conformance::deployment_helpers::{activate, all, declined, deploy, failed, five_percent};
use outbox_conformance::helpers::{all_held, append, at, by, settle};
use outbox_host::outbox::Fate;
use outbox_host::outbox::VersionState::{Active, Canary, Stored};
use outbox_host::{NoOutbox, OutboxStorageStrategy, SqliteOutbox};
use outbox_tests::outboxes::{Kept, Memory, Sqlite};

/// Whatever is done in whatever order: both storages say the same, and no two versions are in the same place.
#[test]
fn storages_agree_after_any_acts() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kept = (Sqlite::new(), Memory::new());
        let (sqlite, memory) = (kept.0.open(), kept.1.open());
        let storages = [sqlite.deployments(), memory.deployments()];
        for step in 0..60 {
            let (act, version, second) = (rng.u8(..10), rng.u32(1..8), at(step));
            let (bytes, canary) = ([rng.u8(..4)], five_percent().filter(|_| rng.bool()));
            let said = storages.map(|deployments| match act {
                0..3 => format!("{:?}", deployments.deploy("hook", &bytes, canary, "", &by())),
                3 => format!("{:?}", deployments.rollback("hook", Some(version).filter(|it| it % 2 == 0), &by())),
                4 => format!("{:?}", deployments.remove("hook", Some(version).filter(|it| it % 7 != 0), &by())),
                5 => format!("{:?}", deployments.begin_activation("hook", version)),
                6..8 => format!("{:?}", deployments.activated("hook", version, second)),
                8 => format!("{:?}", deployments.canary_started("hook", version, second)),
                _ => format!("{:?}", deployments.refused("hook", version, "why")),
            });
            assert_eq!(said[0], said[1], "seed {seed}, step {step}");
            let [one, other] = storages.map(all);
            assert_eq!(one, other, "seed {seed}, step {step}: {}", said[0]);
            let [one_generation, other_generation] = storages.map(|it| it.registry_generation().unwrap());
            assert_eq!(one_generation, other_generation, "seed {seed}, step {step}: {}", said[0]);
            for state in [Stored, Canary, Active] {
                assert!(one.iter().filter(|it| it.state == state).count() <= 1, "seed {seed}, step {step}: {one:?}");
            }
            for version in &one {
                assert!(storages.iter().all(|it| it.module(&version.digest).unwrap().is_some()));
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

/// An outbox of an earlier program is upgraded, with everything in it.
#[test]
fn an_outbox_of_version_1_is_upgraded_with_its_data() {
    let kept = Sqlite::new();
    let strategy = kept.open();
    let p = append(&kept, &["a", "b"]);
    let bury = failed(&strategy, p[1], 2, "x", Fate::DeadLetter { park: true });
    settle(&strategy, &[failed(&strategy, p[0], 1, "x", Fate::Retry { at: at(9) }), bury]);
    let back_to_1 = "
        DROP TABLE outbox_delayed; DROP TABLE outbox_delayed_columns; DROP TABLE outbox_modules; DROP TABLE outbox_versions; DROP TABLE outbox_publishers;
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
    let before = (all_held(&strategy), strategy.status().unwrap(), strategy.operator().attempts(p[1]).unwrap());
    drop(strategy);
    kept.connection().execute_batch(back_to_1).unwrap();
    let error = SqliteOutbox::open(&kept.file()).err().unwrap().to_string();
    assert!(error.contains("has schema version 1, and this program needs version 4: run `outbox init"), "{error}");
    let done = SqliteOutbox::init(&kept.file()).unwrap();
    assert_eq!((done.before, done.now, done.warnings.len()), (1, 4, 0));
    let strategy = kept.open();
    let after = (all_held(&strategy), strategy.status().unwrap(), strategy.operator().attempts(p[1]).unwrap());
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
