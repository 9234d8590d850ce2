//! `outbox publisher`: versions of publishers, deployed into the outbox and managed there.

use std::process::Stdio;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use outbox_host::outbox::{Deployments, RelayCondition, RelayState};
use outbox_host::{OutboxStorageStrategy, SqliteOutbox};
use outbox_tests::act;
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Ran, Workplace};
use serde_json::{Value, json};

const VERSIONS: &str = "SELECT version, state, reason FROM outbox_versions ORDER BY publisher, version";

fn outbox(place: &Workplace) -> SqliteOutbox {
    SqliteOutbox::open(&place.path("app.db")).unwrap()
}

fn deploy(place: &Workplace, file: &str) -> String {
    place.outbox(&format!("publisher deploy hook {file} --db app.db")).ok()
}

fn activate(place: &Workplace, version: u32) {
    assert!(outbox(place).activated("hook", version, Timestamp::now()).unwrap());
}

fn running() -> RelayState {
    let (state, publishers) = (RelayCondition::Running, Vec::new());
    RelayState { pid: 7, state, since: Timestamp::now(), reason: String::new(), publishers }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = "SELECT digest FROM outbox_modules";
    let place = Workplace::new();
    outbox(&place).deploy("x", bytes, None, "", &act()).unwrap();
    place.query(digest)[0].clone()
}

#[test]
fn a_version_is_stored_and_the_next_relay_activates_it() {
    let place = Workplace::new();
    let said = place.outbox("publisher deploy hook guests/noop.wasm --note first --db app.db").ok();
    let digest = sha256(&std::fs::read(place.path("guests/noop.wasm")).unwrap());
    let short = &digest[..12];
    assert_eq!(said, format!("stored version 1 of hook ({short}); no relay is at work: the next one activates it\n"));
    let said = deploy(&place, "guests/scripted.wasm");
    assert!(said.contains(") in place of version 1, not activated yet; no relay is at work"), "{said}");
    assert_eq!(place.query(VERSIONS), ["1|retired|superseded by version 2", "2|stored|"]);

    let listed = place.outbox("publisher versions hook --db app.db --json").json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let first = &listed[0];
    assert_eq!(
        (&first["publisher"], &first["version"], &first["state"]),
        (&json!("hook"), &json!(1), &json!("retired"))
    );
    assert_eq!(
        (&first["digest"], &first["note"], &first["deployed_by"]),
        (&json!(digest), &json!("first"), &json!("ada"))
    );
    assert_eq!(first["counts"], json!({"delivered": 0, "failed": 0, "trapped": 0}));
    let table = place.outbox("publisher versions --db app.db").ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("publisher  version  state    digest        bytes"), "{table}");
    assert!(lines[1].starts_with(&format!("hook       1        retired  {short}")), "{table}");
    assert!(lines[1].contains("  ada") && lines[1].ends_with("  first  superseded by version 2"), "{table}");
    assert_eq!(
        place.outbox("publisher versions other --db app.db").ok(),
        "no version of other is kept in this outbox\n"
    );
    assert!(place.outbox("status --db app.db --json").json().get("publishers").is_none());
}

#[test]
fn the_active_bytes_are_not_stored_again() {
    let place = Workplace::new();
    deploy(&place, "guests/noop.wasm");
    activate(&place, 1);
    let said = deploy(&place, "guests/noop.wasm");
    assert!(said.starts_with("version 1 of hook, which is active, has the same bytes ("), "{said}");
    assert_eq!(place.query(VERSIONS), ["1|active|"]);
    let shown = place.outbox("publisher deploy hook guests/noop.wasm --db app.db --json").json();
    assert_eq!((&shown["new"], &shown["state"]), (&json!(false), &json!("active")));
}

#[test]
fn the_status_names_what_is_at_work() {
    let place = Workplace::new();
    deploy(&place, "guests/noop.wasm");
    activate(&place, 1);
    place.outbox("publisher deploy hook guests/scripted.wasm --canary 2.5% --db app.db").ok();
    outbox(&place).canary_started("hook", 2, Timestamp::now()).unwrap();
    let status = place.status();
    let publishers: Vec<Value> = status["publishers"].as_array().unwrap().clone();
    let shown = |it: &Value| (it["name"].clone(), it["version"].clone(), it["state"].clone());
    assert_eq!(shown(&publishers[0]), (json!("hook"), json!(1), json!("active")));
    assert_eq!(shown(&publishers[1]), (json!("hook"), json!(2), json!("canary")));
    let said = place.outbox("status --db app.db").ok();
    assert!(said.contains("publisher       hook version 2 (") && said.contains(") is canary\n"), "{said}");
    let table = place.outbox("publisher versions hook --db app.db").ok();
    assert!(table.contains("canary  2.5%"), "{table}");
}

/// A file that cannot be loaded is not stored; the message is the same as when it is run.
#[test]
fn what_is_no_publisher_is_refused_and_nothing_is_stored() {
    let place = Workplace::new();
    place.write("text.wasm", "(component)");
    place.write(
        "missing.wasm",
        wat(r#"(component (import "acme:queue/sender@1.0.0" (instance (export "send" (func)))))"#),
    );
    place.write(
        "wasi.wasm",
        wat(r#"(component (import "wasi:cli/environment@0.2.0"
        (instance (export "get-environment" (func (result string))))))"#),
    );
    place.write(
        "later.wasm",
        wat(r#"(component (instance $p) (export "outbox:publisher/publisher@0.2.0" (instance $p)))"#),
    );
    place.write(
        "empty.wasm",
        wat(r#"(component (instance $p) (export "outbox:publisher/publisher@0.1.0" (instance $p)))"#),
    );
    place.write(
        "differs.wasm",
        wat(r#"(component
            (core module $m (func (export "f") (param i32 i32)) (memory (export "m") 1)
                (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (type $e (record (field "id" u32) (field "names" u8)))
            (export $x "event" (type $e))
            (func $f (param "event" $x) (canon lift (core func $i "f")))
            (instance $p (export "publish" (func $f)))
            (export "outbox:publisher/publisher@0.1.0" (instance $p)))"#),
    );
    let before = place.tables("app.db");
    for (file, expected) in [
        ("text.wasm", "text.wasm is not WebAssembly: a publisher is a component, a binary file"),
        ("guests/core-module.wasm", "core-module.wasm is a core WebAssembly module, and a publisher is a component"),
        ("guests/other-world.wasm", "is not a publisher: it does not export `outbox:publisher/publisher@0.1.0`"),
        ("missing.wasm", "missing.wasm imports what this host does not offer: `acme:queue/sender@1.0.0`"),
        ("wasi.wasm", "instance export `get-environment` has the wrong type"),
        (
            "later.wasm",
            "is a publisher of version 0.2.0 of the contract `outbox:publisher`, and this host knows version 0.1.0",
        ),
        (
            "empty.wasm",
            "it has no function `publish`, which is `publish: func(event: recorded) -> result<_, publish-error>`",
        ),
        (
            "differs.wasm",
            "it has `publish: func(event: record { id: u32, names: u8 })`, and the contract has \
             `publish: func(event: recorded) -> result<_, publish-error>`",
        ),
        ("none.wasm", "cannot read the publisher none.wasm: No such file or directory"),
    ] {
        let message = place.outbox(&format!("publisher deploy hook {file} --db app.db")).refused();
        assert!(message.contains(expected), "{file}: {message}");
    }
    for (arguments, expected) in [
        ("Hook guests/noop.wasm", "`Hook` is no name of a publisher: a name has 1 to 64 of the characters"),
        ("hook guests/noop.wasm --canary 5%", "hook has no active version that a canary could stand beside"),
    ] {
        let message = place.outbox(&format!("publisher deploy {arguments} --db app.db")).refused();
        assert!(message.contains(expected), "{message}");
    }
    let ran = place.outbox("publisher deploy hook guests/noop.wasm --canary 100% --db app.db");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("write a percentage from 0.01% to 99.99%"), "{}", ran.stderr);
    place.write("outbox.toml", "db = \"app.db\"\n[publisher.limits]\nmodule_mib = 0\n");
    let ran = place.outbox("publisher deploy hook guests/noop.wasm --config outbox.toml");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(place.tables("app.db"), before);
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A component whose types unfold to more than anybody has room for.
#[test]
fn a_signature_of_any_size_is_refused_in_few_words() {
    let place = Workplace::new();
    let mut types = String::from("(type $t0 (tuple u8 u8))\n");
    for level in 1..14 {
        types += &format!("(type $t{level} (tuple $t{0} $t{0}))\n", level - 1);
    }
    place.write(
        "bomb.wasm",
        wat(&format!(
            r#"(component
            (core module $m (func (export "f") (param i32)) (memory (export "m") 1)
                (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            {types}
            (func $f (param "event" $t13) (canon lift (core func $i "f") (memory $i "m") (realloc (func $i "r"))))
            (instance $p (export "publish" (func $f)))
            (export "outbox:publisher/publisher@0.1.0" (instance $p)))"#
        )),
    );
    let message = place.outbox("publisher deploy hook bomb.wasm --db app.db").refused();
    assert!(message.len() < 3_000 && message.contains("tuple<tuple<"), "{} {message}", message.len());
}

/// The relay's part is played by the test: it drains the outbox, and decides.
#[test]
fn with_a_relay_at_work_it_waits_for_the_verdict() {
    let place = Workplace::new();
    let relay = outbox(&place);
    let drain = relay.drain().unwrap();
    drain.show(&running());
    type Decide = fn(&SqliteOutbox, u32);
    let verdicts: [(&str, Decide, Option<i32>, &str); 4] = [
        (
            "noop",
            |it, version| assert!(it.activated("hook", version, Timestamp::now()).unwrap()),
            Some(0),
            "is active\n",
        ),
        (
            "scripted",
            |it, version| assert!(it.refused("hook", version, "configure failed").unwrap()),
            Some(1),
            "error: the relay refused version 2 of hook: configure failed\n",
        ),
        (
            "batch --canary 5%",
            |it, version| assert!(it.canary_started("hook", version, Timestamp::now()).unwrap()),
            Some(0),
            "is the canary\n",
        ),
        (
            "tcp",
            |it, version| assert_eq!(it.rollback("hook", None, &act()).unwrap().withdrawn, [version]),
            Some(1),
            "error: version 4 of hook was retired before it was active: rolled back by ada\n",
        ),
    ];
    for (version, (guest, decide, code, expected)) in (1..).zip(verdicts) {
        let guest = guest.replacen(" ", ".wasm ", 1);
        let file = if guest.contains(".wasm") { guest } else { format!("{guest}.wasm") };
        let arguments = format!("publisher deploy hook guests/{file} --db app.db");
        let deploying = place.start(&arguments, Stdio::null());
        until("it is stored", || {
            let versions = relay.versions(Some("hook")).unwrap();
            versions.iter().any(|found| found.version == version)
        });
        decide(&relay, version);
        let ran = Ran::new(&arguments, deploying.wait_with_output().unwrap());
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stdout.contains(&format!("stored version {version} of hook (")), "{ran:?}");
        assert!(ran.stdout.contains("; the relay (process 7) activates it\n"), "{ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).ends_with(expected), "{ran:?}");
    }
    // Nobody decides; nobody is asked; and the relay goes away.
    let ran = place.outbox("publisher deploy hook guests/tcp.wasm --db app.db --wait 100ms");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("is stored, and the relay has not decided on it within 100ms: it still may"),
        "{ran:?}"
    );
    let said = place.outbox("publisher deploy hook guests/noop.wasm --db app.db --no-wait").ok();
    assert!(said.starts_with("stored version 6 of hook"), "{said}");
    let deploying = place.start("publisher deploy hook guests/tcp.wasm --db app.db --json", Stdio::null());
    until("it is stored", || relay.versions(Some("hook")).unwrap().len() == 7);
    drop(drain);
    let shown = Ran::new("deploy", deploying.wait_with_output().unwrap()).json();
    assert_eq!((&shown["version"], &shown["state"], &shown["new"]), (&json!(7), &json!("stored"), &json!(true)));
}

#[test]
fn two_that_deploy_at_once_store_one_version_each() {
    let place = Workplace::new();
    let start = |guest: &str| {
        place.start(&format!("publisher deploy hook guests/{guest}.wasm --db app.db --json"), Stdio::null())
    };
    for _ in 0..3 {
        let started = [start("noop"), start("scripted")];
        let shown = started.map(|child| Ran::new("deploy", child.wait_with_output().unwrap()).json());
        let [one, other] = [&shown[0], &shown[1]].map(|shown| shown["version"].as_u64().unwrap());
        assert_eq!(one.abs_diff(other), 1, "{shown:?}");
    }
    let states = place.query("SELECT state FROM outbox_versions ORDER BY version");
    assert_eq!(states, ["retired", "retired", "retired", "retired", "retired", "stored"]);
    assert_eq!(place.query("SELECT count(*) FROM outbox_modules"), ["2"]);
}

#[test]
fn a_rollback_during_a_canary_withdraws_it_and_gives_its_attempts_back() {
    let place = Workplace::new();
    place.append(r#"{"name": "a", "stream_id": "s", "data": {"do": "retry"}}"#);
    deploy(&place, "guests/noop.wasm");
    activate(&place, 1);
    place.outbox("publisher deploy hook guests/scripted.wasm --canary 5% --db app.db").ok();
    outbox(&place).canary_started("hook", 2, Timestamp::now()).unwrap();
    // The attempt of the canary's bytes, as a relay would make it.
    place.write("hook.wasm", std::fs::read(place.path("guests/scripted.wasm")).unwrap());
    place.outbox("run --db app.db --publisher hook.wasm").ok();
    assert_eq!(place.query("SELECT attempts, retry_at_ms > failed_at_ms FROM outbox_waiting"), ["1|1"]);
    let said = place.outbox("publisher rollback hook --db app.db").ok();
    assert_eq!(said, "withdrew version 2 of hook\nversion 1 of hook stays active\n");
    assert_eq!(place.query(VERSIONS), ["1|active|", "2|retired|rolled back by ada"]);
    assert_eq!(place.query("SELECT attempts, retry_at_ms = failed_at_ms FROM outbox_waiting"), ["0|1"]);
    assert_eq!(place.outbox("run --db app.db --publisher guests/noop.wasm --json").json()["published"], 1);
}

#[test]
fn a_rollback_says_what_it_did() {
    let place = Workplace::new();
    let message = place.outbox("publisher rollback hook --db app.db").refused();
    assert_eq!(message, "there is no publisher hook; none was deployed yet");
    deploy(&place, "guests/noop.wasm");
    activate(&place, 1);
    deploy(&place, "guests/scripted.wasm");
    activate(&place, 2);
    let said = place.outbox("publisher rollback hook --db app.db").ok();
    assert_eq!(
        said,
        "asked for version 1 of hook again: the next relay activates it\nversion 2 of hook is active until then\n"
    );
    assert_eq!(place.query(VERSIONS), ["1|stored|", "2|active|"]);
    let message = place.outbox("publisher rollback hook 1 --db app.db").refused();
    assert_eq!(message, "version 1 of hook is asked for already: a relay activates it");
    let message = place.outbox("publisher rollback hook 9 --db app.db").refused();
    assert_eq!(message, "hook has no version 9; it has 1, 2");
    let done = place.outbox("publisher rollback hook 2 --db app.db --json").json();
    assert_eq!(done, json!({"withdrawn": [1], "requested": null, "active": 2}));
    let acts = place.query("SELECT who, act, detail FROM outbox_audit WHERE act = 'rollback'");
    assert_eq!(acts, ["ada|rollback|hook: version 1 asked for", "ada|rollback|hook: version 1 withdrawn"]);
}

#[test]
fn a_whole_publisher_is_removed_only_when_that_is_meant() {
    let place = Workplace::new();
    deploy(&place, "guests/noop.wasm");
    activate(&place, 1);
    deploy(&place, "guests/scripted.wasm");
    activate(&place, 2);
    assert_eq!(place.outbox("publisher remove hook 1 --db app.db").ok(), "removed version 1 of hook\n");
    let message = place.outbox("publisher remove hook 2 --db app.db").refused();
    assert!(message.starts_with("version 2 of hook is active, and is not removed alone"), "{message}");
    let message = place.outbox("publisher remove hook --db app.db").refused();
    let expected = "this removes all 1 versions of hook for good, the active version 2 too: say so with --yes, or name one \
                    version";
    assert_eq!(message, expected);
    assert_eq!(place.outbox("publisher remove hook --yes --db app.db").ok(), "removed hook, 1 versions\n");
    for table in ["outbox_versions", "outbox_modules"] {
        assert_eq!(place.query(&format!("SELECT count(*) FROM {table}")), ["0"]);
    }
    let message = place.outbox("publisher remove hook --db app.db").refused();
    assert_eq!(message, "there is no publisher hook; none was deployed yet");
}

#[test]
fn an_inspection_shows_what_a_component_is_and_what_it_may_need() {
    let place = Workplace::empty();
    let inspect = |file: &str| place.outbox(&format!("publisher inspect guests/{file}.wasm --json")).json();
    let webhook = inspect("rust-webhook");
    assert_eq!((&webhook["contract"], &webhook["refusal"]), (&json!("0.1.0"), &json!(null)));
    assert_eq!(webhook["size"], std::fs::metadata(place.path("guests/rust-webhook.wasm")).unwrap().len());
    let texts =
        |list: &Value| list.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let imports = texts(&webhook["imports"]);
    assert!(imports.iter().any(|import| import.starts_with("wasi:http/outgoing-handler@")), "{imports:?}");
    let settings = webhook["grants"].to_string();
    assert!(settings.contains("allow_http") && settings.contains("[publisher.secrets]"), "{settings}");
    let toolchain = texts(&webhook["toolchain"]);
    assert!(toolchain.iter().any(|tool| tool.starts_with("processed-by: rustc ")), "{toolchain:?}");
    assert_eq!(inspect("batch")["batch_publisher"], true);
    assert_eq!(
        (&inspect("noop")["batch_publisher"], &inspect("lifecycle")["lifecycle"]),
        (&json!(false), &json!(true))
    );
    assert!(inspect("tcp")["grants"].to_string().contains("allow_tcp"));
    let other = inspect("other-world");
    assert_eq!(other["contract"], json!(null));
    assert!(other["refusal"].as_str().unwrap().contains("is not a publisher"), "{other}");

    let said = place.outbox("publisher inspect guests/rust-webhook.wasm").ok();
    for expected in ["contract        outbox:publisher@0.1.0\n", "lifecycle       ", "deployable      yes\n"] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    let message = place.outbox("publisher inspect guests/core-module.wasm").refused();
    assert!(message.contains("is a core WebAssembly module"), "{message}");
    let message = place.outbox("publisher inspect hook").refused();
    assert!(message.starts_with("there is no file hook, and no outbox to look in: no database"), "{message}");
}

#[test]
fn an_inspection_by_name_shows_the_active_version() {
    let place = Workplace::new();
    deploy(&place, "guests/noop.wasm");
    activate(&place, 1);
    deploy(&place, "guests/batch.wasm");
    let shown = place.outbox("publisher inspect hook --db app.db --json").json();
    assert_eq!((&shown["version"], &shown["batch_publisher"]), (&json!(1), &json!(false)));
    let message = place.outbox("publisher inspect hok --db app.db").refused();
    assert_eq!(message, "there is no file hok, and no publisher of that name");
    place.sql().execute("UPDATE outbox_modules SET bytes = x'00'", []).unwrap();
    let message = place.outbox("publisher inspect hook --db app.db").refused();
    assert!(message.contains("is damaged: its bytes have the digest") && message.contains("Deploy the file again"));
}

/// Any component may say anything about itself; a terminal is not to be written to by it.
#[test]
fn no_control_characters_of_a_component_are_shown() {
    let place = Workplace::empty();
    let mut bytes = wat("(component)");
    // A custom section `producers` with one field, `language`, of one value with an escape sequence in its name.
    let section = [b"\x09producers\x01\x08language\x01\x07".as_slice(), b"\x1b[31mx\x07", b"\x011"].concat();
    bytes.extend([0, u8::try_from(section.len()).unwrap()]);
    bytes.extend(section);
    place.write("odd.wasm", bytes);
    let said = place.outbox("publisher inspect odd.wasm").ok();
    assert!(said.contains("made with       language: [31mx 1\n") && !said.contains('\u{1b}'), "{said:?}");
}

/// Whenever it is killed, the version is there whole, or not at all.
#[test]
fn a_deployment_that_is_killed_leaves_all_or_nothing() {
    let place = Workplace::new();
    let mut rng = Rng::new();
    let whole = std::fs::read(place.path("guests/rust-webhook.wasm")).unwrap();
    let digest = sha256(&whole);
    // Compiled once, so that the kills are spread over what follows.
    place.outbox("publisher deploy hook guests/rust-webhook.wasm --db app.db").ok();
    place.outbox("publisher remove hook --yes --db app.db").ok();
    // Within this time it is killed: more when the last one was too early, less when it was too late.
    let mut within = Duration::from_millis(100);
    let (mut stored, mut nothing) = (0, 0);
    for _ in 0..60 {
        let mut deploying = place.start("publisher deploy hook guests/rust-webhook.wasm --db app.db", Stdio::null());
        std::thread::sleep(within.mul_f64(rng.f64()));
        let _ = deploying.kill();
        deploying.wait().unwrap();
        let outbox = outbox(&place);
        let versions = outbox.versions(Some("hook")).unwrap();
        let modules = place.query("SELECT digest, size, length(bytes) FROM outbox_modules");
        match versions.as_slice() {
            [] => {
                assert_eq!(modules, [""; 0]);
                nothing += 1;
                within = within.mul_f64(1.2);
            }
            [version] => {
                assert_eq!((&version.digest, version.size), (&digest, whole.len() as u64));
                assert_eq!(modules, [format!("{digest}|{0}|{0}", whole.len())]);
                assert_eq!(outbox.module(&digest).unwrap().unwrap(), whole);
                outbox.remove("hook", None, &act()).unwrap();
                stored += 1;
                within = within.mul_f64(0.9);
            }
            versions => panic!("{versions:?}"),
        }
    }
    assert_eq!(place.query("PRAGMA integrity_check"), ["ok"]);
    assert!(stored > 0 && nothing > 0, "{stored} were stored, {nothing} were not");
}
