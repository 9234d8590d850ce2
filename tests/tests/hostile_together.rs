//! All attacks at once: one relay, a publisher for each of them, and beside them one that behaves. Its events are
//! delivered at once, the relay takes up no more memory than the limits say, its log is its own, and it ends in order.
//!
//! The publishers of a relay share its callers (`concurrency`): this one has a caller for each hostile stream and some to
//! spare. Without that a publisher that spins would have all of them, as docs/security.md says of fairness.

use std::time::{Duration, Instant};

use outbox_host::SqliteOutbox;
use outbox_host::outbox::Deployments;
use outbox_tests::bad_server::Server;
use outbox_tests::memory::{self, MIB};
use outbox_tests::names::NameServer;
use outbox_tests::processes::{Watch, children};
use outbox_tests::unfolding::{self, Hostile};
use outbox_tests::waiting::{until, until_within};
use outbox_tests::workplace::{Logged, Signal, Workplace};
use outbox_tests::{act, skipped};
use serde_json::{Value, json};

/// How many streams each attack has, and so how many of its calls there are at once.
const STREAMS: usize = 2;
/// How many events of the good publisher are delivered beside the attacks.
const GOOD_EVENTS: usize = 40;
/// How long a hostile call may take.
const CALL_TIME: &str = "2s";
/// How long each of them may take on a busy machine. Half of them take less than a hostile call, since they do not wait
/// for one.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
const DELIVERY_MEDIAN_MAX: Duration = Duration::from_millis(1_500);
/// How long the relay may take to end.
const END_MAX: Duration = Duration::from_secs(20);
const MEMORY_MIB: usize = 32;
const COMPILE_MIB: usize = 256;
/// What the program has for itself in each of its processes.
const PROGRAM_MIB: usize = 64;
/// What the rows that are read ahead may take, a page beyond them and the page's last row (docs/security.md, "What a row
/// can make the host hold"), and what SQLite takes for setting the longest one aside: twice that row.
const ROWS_MIB: usize = 16 + 4 + 32 + 2 * LONG_MIB;
const LONG_MIB: usize = 40;
/// What an instance takes that hoards nothing: the few pages of its guest, its stack of 2 MiB, what the host keeps of it.
const CALL_MIB: usize = 8;
/// What the core instances of one instance are made of.
const INSTANCE_MIB: usize = 16;
/// HTTP messages that one instance holds.
const HTTP_MIB: usize = 16;

/// The beginning of a forged line of the log.
const FORGED: &str = "2026-01-31T00:00:00Z ERROR outbox: forged";

/// An attack: a publisher, its settings, what its events say, and what each of its calls comes to beside [`CALL_MIB`], by
/// the limits of docs/security.md.
struct Attack {
    name: &'static str,
    settings: String,
    script: Value,
    mib: usize,
}

fn attacks(url: &str) -> Vec<Attack> {
    let attack = |name, guest: &str, more: &str, script, mib| {
        let settings = format!("file = \"{guest}\"\n{more}");
        Attack { name, settings, script, mib }
    };
    let scripted = |name, script, mib| attack(name, "guests/scripted.wasm", "", script, mib);
    let nosy = |name, what: &str, mib| attack(name, "guests/nosy.wasm", "", json!(what), mib);
    let large = |name, file| attack(name, file, "isolation = \"per-event\"\n", json!({}), INSTANCE_MIB);
    let allow = format!("allow_http = [\"{url}\"]\n");
    let requests = |name, script: Value, mib| attack(name, "guests/requests.wasm", &allow, script, mib);
    let hoard = |name, what: &str, bytes: usize, path: &str| {
        let script = json!({"do": "hoard", "what": what, "count": 900, "bytes": bytes, "url": format!("{url}{path}")});
        requests(name, script, HTTP_MIB)
    };
    let get = |name, path: &str| requests(name, json!({"do": "get", "url": format!("{url}{path}")}), 0);
    let post = |name, path: &str, mib: usize| {
        requests(name, json!({"do": "post", "bytes": mib * MIB, "url": format!("{url}{path}")}), mib)
    };
    let forged = format!("no\u{1b}[2J\u{9b}31m\r\n{FORGED}\u{2028}{FORGED}\u{202e}");
    let forged_name = json!(format!("look-up a.test\n{FORGED}"));
    vec![
        large("globals", "globals.wasm"),
        large("functions", "functions.wasm"),
        scripted("spins", json!({"do": "spin"}), 0),
        scripted("hoards-memory", json!({"do": "allocate"}), MEMORY_MIB),
        scripted("recurses", json!({"do": "recurse"}), 0),
        scripted("floods", json!({"do": "print", "bytes": 1_000_000_000}), 0),
        scripted("forges", json!({"do": "retry", "reason": forged}), 0),
        attack("forges-names", "guests/tcp.wasm", "", forged_name, 0),
        nosy("timers", "clocks million-timers", 0),
        nosy("long-list", "clocks huge-list", MEMORY_MIB),
        nosy("long-line", "long-line", MEMORY_MIB),
        post("deaf", "/deaf", 1),
        post("deaf-afterwards", "/ok-and-deaf", 12),
        hoard("hoards-connections", "connections", 0, "/hang"),
        hoard("hoards-answers", "answers", 0, "/large-headers"),
        hoard("hoards-headers", "small headers", 3_000, ""),
        requests("unfinished", json!({"do": "unfinished"}), 0),
        get("drips", "/drip"),
        get("drips-headers", "/drip-head"),
        get("endless", "/flood"),
        get("many-headers", "/many-headers"),
    ]
}

/// With as many names that nobody answers for as there may be requests.
fn slow_names(port: &str) -> Attack {
    let settings =
        format!("file = \"guests/requests.wasm\"\nallow_http = [\"http://*.test:{port}\"]\nallow_private = true\n");
    let script =
        json!({"do": "hoard", "what": "connections", "count": 300, "url": format!("http://slow#.test:{port}/")});
    Attack { name: "slow-names", settings, script, mib: HTTP_MIB }
}

/// A publisher for each attack, one whose versions are hostile, and one that behaves.
fn config(attacks: &[Attack], url: &str) -> String {
    let concurrency = attacks.len() * STREAMS + 8;
    let mut config = format!(
        "db = \"app.db\"\n[relay]\nmax_attempts = 2\nbackoff_initial = \"1ms\"\nbackoff_max = \"1ms\"\n\
         shutdown_grace = \"1s\"\nconcurrency = {concurrency}\n"
    );
    let mut publisher = |name: &str, settings: &str, limits: &str| {
        config += &format!(
            "[publishers.{name}]\n{settings}limits = {{ memory_mib = {MEMORY_MIB}, {limits} }}\n\
             [[route]]\nmatch = {{ name = \"{name}\" }}\npublisher = \"{name}\"\n"
        );
    };
    attacks.iter().for_each(|attack| publisher(attack.name, &attack.settings, &format!("call_time = {CALL_TIME:?}")));
    publisher("unfolds", "", &format!("compile_mib = {COMPILE_MIB}, compile_time = \"3s\""));
    publisher("good", &format!("file = \"guests/requests.wasm\"\nallow_http = [\"{url}\"]\n"), "");
    config + "[[route]]\npublisher = \"good\"\n"
}

fn line(name: &str, stream: &str, data: &Value) -> String {
    json!({"name": name, "stream_id": stream, "data": data}).to_string() + "\n"
}

/// One more event of each attack.
fn attack(place: &Workplace, attacks: &[Attack]) {
    let of = |attack: &Attack| {
        let stream = |number| line(attack.name, &format!("{}-{number}", attack.name), &attack.script);
        (0..STREAMS).map(stream).collect::<String>()
    };
    place.append(&attacks.iter().map(of).collect::<String>());
}

/// Rows that no application writes.
fn write_rows(place: &Workplace) {
    let (sql, long) = (place.sql(), LONG_MIB * MIB);
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    for column in ["data", "name", "stream_id", "uuid"] {
        sql.execute("INSERT INTO outbox (stream_id, name, data) VALUES ('long', 'n', '{}')", []).unwrap();
        let update = format!("UPDATE outbox SET {column} = zeroblob({long}) WHERE position = last_insert_rowid()");
        sql.execute(&update, []).unwrap();
    }
    let first =
        format!("INSERT INTO outbox (position, stream_id, name, data) VALUES ({}, 'first', 'first', '{{}}')", i64::MIN);
    sql.execute(&first, []).unwrap();
    sql.execute_batch("COMMIT").unwrap();
}

/// A version that `deploy` would refuse.
fn store(place: &Workplace, bytes: &[u8]) {
    let outbox = SqliteOutbox::open(&place.path("app.db")).unwrap();
    outbox.deploy("unfolds", bytes, None, "", &act()).unwrap();
}

/// How long it takes until an event of the publisher that behaves is delivered.
fn deliver(place: &Workplace, number: usize, url: &str, relay: &Logged) -> Duration {
    let began = Instant::now();
    let data = json!({"do": "get", "url": format!("{url}/ok")});
    let insert = "INSERT INTO outbox (stream_id, name, data) VALUES (?1, 'good', ?2)";
    place.sql().execute(insert, (format!("good-{number}"), data.to_string())).unwrap();
    let left = format!("SELECT count(*) FROM outbox WHERE stream_id = 'good-{number}'");
    until("an event is delivered beside all of it", || place.query(&left) == ["0"]);
    let took = began.elapsed();
    assert!(took < DELIVERY_MAX, "{took:?}: {}", tail(&relay.log()));
    took
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(40).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// How much more memory all of them may make the relay take.
fn growth_max(attacks: &[Attack]) -> usize {
    let calls: usize = attacks.iter().map(|attack| STREAMS * (CALL_MIB + attack.mib)).sum();
    (calls + ROWS_MIB) * MIB
}

/// In each line there is what a relay's lines start with, or it belongs to the one before it.
fn assert_log_is_its_own(log: &str) {
    let is_ours = |line: &str| line.starts_with("20") && !line.starts_with(FORGED) || line.starts_with(' ');
    let other = log.lines().find(|line| !line.is_empty() && !is_ours(line));
    assert_eq!(other, None);
    let steers = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{2028}' | '\u{202e}');
    assert!(!log.contains(steers), "{}", log.lines().find(|line| line.contains(steers)).unwrap());
    assert!(log.contains("outbox: forged"), "it was tried");
}

/// The relay, with few descriptors, and with a name server that is slow where this user may have one.
fn start(place: &Workplace, names: Option<&NameServer>) -> Logged {
    let relay = place.command("relay --config outbox.toml");
    let relay =
        names.map_or(relay, |names| names.asked_by(&place.command("relay --config outbox.toml"), &place.path("")));
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"]).arg(relay.get_program()).args(relay.get_args());
    limited.current_dir(place.path("")).envs(relay.get_envs().filter_map(|(name, value)| Some((name, value?))));
    place.log(limited)
}

#[test]
fn a_relay_under_all_attacks_at_once_delivers_the_good_ones_events_at_once_within_its_memory() {
    let (place, server, names) = (Workplace::new(), Server::start(), NameServer::start());
    let mut attacks = attacks(&server.url);
    match names {
        Some(_) => attacks.push(slow_names(server.url.rsplit(':').next().unwrap())),
        None => skipped("slow names beside all other attacks", "this user may not listen at port 53 or mount files"),
    }
    place.write("globals.wasm", unfolding::instances(&unfolding::globals(100_000), 10));
    place.write("functions.wasm", unfolding::instances(&unfolding::functions(20_000), 20));
    store(&place, &unfolding::publisher(""));
    place.write("outbox.toml", config(&attacks, &server.url));
    let mut relay = start(&place, names.as_ref());
    until_within(END_MAX, "the relay starts", || {
        let log = relay.log();
        assert!(!log.contains("error:"), "{log}");
        log.contains("publishing")
    });
    deliver(&place, 0, &server.url, &relay);
    let (before, watch) = (memory::resident_of(relay.pid()).unwrap(), Watch::begin(relay.pid()));

    write_rows(&place);
    let hard = Hostile { name: "hard to compile", bytes: unfolding::hard_to_compile(), says: "" };
    let mut versions = unfolding::refused().into_iter().chain([hard]).map(|hostile| hostile.bytes).rev();
    let mut took = Vec::new();
    for number in 1..=GOOD_EVENTS {
        if number % 4 == 1 {
            attack(&place, &attacks);
        }
        versions.next().iter().for_each(|version| store(&place, version));
        // The first one is compiled. Those after it take its place, and are refused before.
        until_within(END_MAX, "a version is compiled", || watch.has_seen_one());
        took.push(deliver(&place, number, &server.url, &relay));
        if number % 10 == 0 {
            assert_eq!(place.status()["relay"]["pid"], relay.pid());
        }
    }
    took.sort_unstable();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    let growth = memory::highest_of(relay.pid()).unwrap().saturating_sub(before);
    println!("delivered within {median:?}, {most:?} at most; {} MiB and {} MiB more", before / MIB, growth / MIB);
    assert!(median < DELIVERY_MEDIAN_MAX, "{took:?}");
    assert!(growth < growth_max(&attacks), "{} MiB of {} MiB", growth / MIB, growth_max(&attacks) / MIB);

    relay.signal(Signal::TERM);
    let began = Instant::now();
    assert_eq!(relay.wait(), Some(0), "{}", tail(&relay.log()));
    assert!(began.elapsed() < END_MAX, "{:?}", began.elapsed());
    until_within(END_MAX, "what compiled is gone", || children(relay.pid()).is_empty());
    let compiling = watch.end();
    println!("the processes that compiled had {:?} MiB", compiling.values().map(|it| it / MIB).collect::<Vec<_>>());
    assert!(!compiling.is_empty() && compiling.values().all(|bytes| *bytes < (COMPILE_MIB + PROGRAM_MIB) * MIB));
    assert_log_is_its_own(&relay.log());
    let dead = "SELECT stream_id, outcome, reason FROM outbox_dead_letters WHERE name = 'good'";
    assert_eq!(place.query(dead), [""; 0]);
    let rows = "SELECT count(*) FROM outbox_dead_letters WHERE outcome = 'undecodable'";
    assert_eq!(place.query(rows), ["5"]);
}
