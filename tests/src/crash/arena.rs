//! The place of a test: a folder with a database, the sink, its ledger, the relays' log, and all the processes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use outbox_host::SqliteOutbox;
use rusqlite::{Connection, Row, params};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use super::journal::{self, Transaction};
use super::ledger::Ledger;
use super::process::Process;
use crate::sink::Sink;
use crate::waiting::{PATIENCE, until};
use crate::{guest, outbox_program, program};

/// The limit of host deaths, so high that this test's kills never set an event aside.
const RELAY: &str = r#"
max_host_deaths = 1000000
max_attempts = 1000000
backoff_initial = "10ms"
backoff_max = "50ms"
"#;

/// An entry of the outbox.
pub struct Entry {
    pub position: i64,
    pub uuid: Uuid,
}

pub struct Arena {
    pub sink: Sink,
    pub ledger: Ledger,
    /// A connection of the test's own.
    pub db: Connection,
    relays: usize,
    /// What publishes.
    guest: &'static str,
    folder: Folder,
}

impl Arena {
    /// Some requests take so long that their relay may have died before they came. An event that was removed before it
    /// was delivered would be lost then.
    pub fn new() -> Self {
        Self::with(&["--late-ms", "60"], "")
    }

    /// `sink` are options of the sink's, `more` goes behind the keys of `[relay]` in the settings.
    pub fn with(sink: &[&str], more: &str) -> Self {
        let folder = Folder::new();
        let database = folder.path().join("app.db");
        let init = Command::new(outbox_program()).args(["init", "--db"]).arg(&database).output().unwrap();
        assert!(init.status.success(), "{init:?}");
        fs::write(folder.path().join("outbox.toml"), format!("db = \"app.db\"\n[relay]{RELAY}{more}\n")).unwrap();
        let ledger = folder.path().join("ledger");
        let sink = Sink::start_with(&ledger, program("outbox-sink").to_str().unwrap(), sink);
        Self {
            sink,
            ledger: Ledger::new(ledger),
            db: Connection::open(database).unwrap(),
            relays: 0,
            guest: "rust-webhook",
            folder,
        }
    }

    /// The relays publish in batches.
    #[must_use]
    pub fn in_bulk(self) -> Self {
        Self { guest: "rust-bulk", ..self }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Makes the index that a relay needs which gives tenants turns.
    pub fn index_tenants(&self) {
        SqliteOutbox::index_tenants(&self.database()).unwrap();
    }

    /// Starts the writer.
    pub fn writer(&self, seed: u64) -> Process {
        let mut command = Command::new(program("crash-writer"));
        command.arg("--db").arg(self.database()).arg("--journal").arg(self.journal());
        Process::start("the writer", command.args(["--seed", &seed.to_string()]))
    }

    /// Appends events to each of the streams, in turn, in one transaction.
    pub fn append(&mut self, streams: usize, events: i64) {
        let transaction = self.db.transaction().unwrap();
        for (sequence, stream) in (1..=events).flat_map(|sequence| (0..streams).map(move |stream| (sequence, stream))) {
            let tenant = format!("tenant-{}", stream % 4);
            let row = params![format!("stream-{stream}"), tenant, json!({ "sequence": sequence }).to_string()];
            let insert = "INSERT INTO outbox (stream_id, tenant_id, name, data) VALUES (?1, ?2, 'thing.changed', ?3)";
            transaction.prepare_cached(insert).unwrap().execute(row).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// Appends an event of a stream of its own that waits for its retry for longer than any test: a stream is held all the
    /// while.
    pub fn hold_a_stream(&self) {
        let held = "INSERT INTO outbox (stream_id, name, data) VALUES ('held', 'thing.changed', '{}');
                    INSERT INTO outbox_waiting (position, uuid, tenant_id, stream_id, attempts, host_deaths, failed_at_ms,
                                                retry_at_ms, reason)
                    SELECT position, uuid, tenant_id, stream_id, 1, 0, unixepoch() * 1000, unixepoch() * 1000 + 86400000,
                           'held by the test'
                    FROM outbox WHERE stream_id = 'held';";
        self.db.execute_batch(held).unwrap();
    }

    /// Removes it by hand.
    pub fn let_the_stream_go(&self) {
        self.db.busy_timeout(PATIENCE).unwrap();
        self.db
            .execute_batch(
                "DELETE FROM outbox WHERE stream_id = 'held';
                                 DELETE FROM outbox_waiting WHERE stream_id = 'held'",
            )
            .unwrap();
    }

    /// Gives the `index`th event in the outbox another name.
    pub fn rename_one(&mut self, name: &str, index: usize) -> Entry {
        let query = "UPDATE outbox SET name = ?1 WHERE position = (SELECT position FROM outbox LIMIT 1 OFFSET ?2)
                     RETURNING position, uuid";
        let entry = |row: &Row<'_>| Ok(Entry { position: row.get(0)?, uuid: uuid(row.get(1)?) });
        self.db.query_row(query, params![name, index as i64], entry).unwrap()
    }

    /// What the writer did, after it has ended.
    pub fn truth(&self) -> Vec<Transaction> {
        journal::read(&self.journal())
    }

    /// Starts the program under test. Its log calls it `what`.
    pub fn relay(&mut self, what: &str) -> Process {
        self.relay_with(what, &[])
    }

    pub fn relay_with(&mut self, what: &str, options: &[&str]) -> Process {
        let name = self.next_relay();
        let url = self.sink.url();
        let mut command = Command::new(outbox_program());
        command.arg("relay").arg("--config").arg(self.folder.path().join("outbox.toml"));
        command.arg("--publisher").arg(guest(self.guest)).args(["--allow-http", &url]);
        command.args(["--env", &format!("WEBHOOK_URL={url}/hook"), "--env", &format!("WEBHOOK_SOURCE={name}")]);
        command.args(options);
        self.start(&name, what, &mut command)
    }

    /// Starts the relay that kills itself.
    pub fn crash_relay(&mut self, options: &[&str]) -> Process {
        let name = self.next_relay();
        let mut command = Command::new(program("crash-relay"));
        command.arg("--db").arg(self.database()).arg("--publisher").arg(guest(self.guest));
        command.args(["--sink", &self.sink.url(), "--source", &name]).args(options);
        self.start(&name, &options.join(" "), &mut command)
    }

    fn next_relay(&mut self) -> String {
        self.relays += 1;
        relay_name(self.relays)
    }

    /// The names of all relays so far.
    pub fn relays(&self) -> impl Iterator<Item = String> {
        (1..=self.relays).map(relay_name)
    }

    fn start(&self, name: &str, what: &str, command: &mut Command) -> Process {
        let mut log = self.open_log();
        writeln!(log, "--- {name} {what}").unwrap();
        // These relays ignore this machine's environment.
        Process::start(name, command.stderr(log).env("OUTBOX_LOG", "info").env_remove("OUTBOX_DB"))
    }

    fn open_log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap()
    }

    /// The log, from the start of the relay of this name on.
    pub fn log_from(&self, relay: &Process) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        let begin = log.find(&format!("--- {} ", relay.name)).unwrap();
        log[begin..].to_owned()
    }

    /// Waits for the first delivery by this relay; says when it came.
    pub fn first_delivery(&mut self, relay: &Process) -> u64 {
        let (mut first, mut looked_at) = (None, 0);
        until(&format!("{} delivers", relay.name), || {
            self.ledger.read_on();
            let new = &self.ledger.seen[looked_at..];
            first = new.iter().find(|seen| seen.relay == relay.name).map(|seen| seen.at_ns);
            looked_at += new.len();
            first.is_some()
        });
        first.unwrap()
    }

    /// Waits until everything that dead relays sent is in the ledger, and reads it.
    pub fn settle_down(&mut self) {
        until("all connections to the sink end", || self.sink.connections() == 0);
        self.ledger.read_on();
    }

    /// The events that are in the outbox.
    pub fn pending(&self) -> HashSet<Uuid> {
        self.uuids("SELECT uuid FROM outbox")
    }

    /// The events that are dead letters.
    pub fn dead_letters(&self) -> HashSet<Uuid> {
        self.uuids("SELECT uuid FROM outbox_dead_letters")
    }

    fn uuids(&self, query: &str) -> HashSet<Uuid> {
        let mut statement = self.db.prepare_cached(query).unwrap();
        let uuids = statement.query_map([], |row| Ok(uuid(row.get(0)?))).unwrap();
        uuids.map(Result::unwrap).collect()
    }

    /// The attempts that are on record: of which entry, and with which outcome.
    pub fn blamed(&self) -> Vec<(i64, String)> {
        let mut statement = self.db.prepare("SELECT position, outcome FROM outbox_attempts ORDER BY id").unwrap();
        let attempts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        attempts.map(Result::unwrap).collect()
    }

    /// The database has survived it all.
    pub fn check_integrity(&self) {
        let found: String = self.db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
    }

    /// How many rows a table has.
    pub fn count(&self, table: &str) -> i64 {
        self.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// Whether nothing is left to deliver.
    fn is_empty(&self) -> bool {
        let left = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM outbox_delayed)";
        self.db.query_row(left, [], |row| row.get(0)) == Ok(0_i64)
    }

    /// Each entry is in one table.
    pub fn check_that_none_is_there_twice(&self) {
        let twice = self.uuids("SELECT uuid FROM outbox INTERSECT SELECT uuid FROM outbox_delayed");
        assert_eq!(twice, HashSet::new(), "in both tables");
    }

    /// Lets this relay, or another one, deliver everything, and ends it in order.
    pub fn drain(&mut self, relay: Option<Process>) {
        let mut relay = relay.unwrap_or_else(|| self.relay("to drain what is left"));
        until("the outbox is empty", || {
            assert!(relay.is_alive(), "{} ended by itself", relay.name);
            self.is_empty()
        });
        relay.signal(Signal::TERM);
        let status = relay.wait();
        assert!(status.success(), "{}: {status}", relay.name);
        self.settle_down();
    }
}

fn relay_name(number: usize) -> String {
    format!("/relay-{number}")
}

fn uuid(text: String) -> Uuid {
    text.parse().unwrap()
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

/// A temporary folder that stays when its test has failed.
struct Folder(Option<tempfile::TempDir>);

impl Folder {
    fn new() -> Self {
        Self(Some(tempfile::tempdir().unwrap()))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("the database, ledger, journal and log are in {}", folder.keep().display());
        }
    }
}
