//! An application that appends events in its own transactions, and keeps a journal of their results.
//!
//! It goes on while relays come and die, and pauses while the outbox is full. It ends, between two transactions, when
//! its standard input closes.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use fastrand::Rng;
use jiff::Timestamp;
use outbox_tests::crash::journal::{Journal, Transaction, Written};
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Builder;

const STREAMS: usize = 20;
const TRANSACTION_MAX: usize = 40;
const FILLER_MAX: usize = 400;
const PAUSE_MAX_MS: u64 = 12;
/// One transaction of this many rebuilds the table, which then counts from the start again.
const REBUILDS: u8 = 50;
/// As an object-relational mapper changes a table: a new one, a copy, and the new name.
const REBUILD: &str = "
    INSERT INTO new__outbox SELECT * FROM outbox;
    DROP TABLE outbox;
    ALTER TABLE new__outbox RENAME TO outbox;
    DELETE FROM sqlite_sequence WHERE name = 'outbox';
    COMMIT";
/// One transaction of this many is rolled back.
const ROLLED_BACK: u8 = 8;
/// One event of this many is for later: it is the only one of its stream.
const FOR_LATER: u8 = 15;
/// How much later, at most: some are put off, and some wait where they are.
const LATER_MAX_MS: u64 = 5_000;

#[derive(Parser)]
struct Options {
    #[arg(long)]
    db: PathBuf,
    #[arg(long)]
    journal: PathBuf,
    #[arg(long)]
    seed: u64,
    /// The writer pauses while the outbox has this many entries.
    #[arg(long, default_value_t = 1_500)]
    backlog: i64,
}

static ENDING: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    let options = Options::parse();
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        ENDING.store(true, Ordering::SeqCst);
    });
    let mut writer = Writer {
        db: {
            let db = Connection::open(&options.db)?;
            db.busy_timeout(Duration::from_secs(30))?;
            db
        },
        journal: Journal::open(&options.journal)?,
        rng: Rng::with_seed(options.seed),
        sequences: [0; STREAMS],
    };
    writer
        .db
        .execute_batch("CREATE TABLE IF NOT EXISTS changes (id TEXT PRIMARY KEY, stream TEXT, sequence INTEGER)")?;
    while !ENDING.load(Ordering::SeqCst) {
        if writer.backlog()? < options.backlog {
            match writer.rng.u8(..REBUILDS) {
                0 => writer.rebuild()?,
                _ => writer.transact()?,
            }
        }
        thread::sleep(Duration::from_millis(writer.rng.u64(..PAUSE_MAX_MS)));
    }
    Ok(())
}

struct Writer {
    db: Connection,
    journal: Journal,
    rng: Rng,
    /// The last committed sequence number of each stream.
    sequences: [i64; STREAMS],
}

impl Writer {
    fn backlog(&self) -> Result<i64> {
        Ok(self.db.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?)
    }

    fn rebuild(&mut self) -> Result<()> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let sql = "SELECT sql FROM sqlite_schema WHERE name = 'outbox'";
        let table: String = self.db.query_row(sql, [], |row| row.get(0))?;
        let new = table.replacen("\"outbox\"", "outbox", 1).replacen("outbox", "new__outbox", 1);
        Ok(self.db.execute_batch(&format!("{new}; {REBUILD}"))?)
    }

    /// The application's data and its events are in one transaction: both are committed, or neither is.
    fn transact(&mut self) -> Result<()> {
        let mut sequences = self.sequences;
        let mut events = Vec::new();
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for _ in 0..self.rng.usize(1..=TRANSACTION_MAX) {
            let uuid = Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid();
            let later = (self.rng.u8(..FOR_LATER) == 0).then(|| Duration::from_millis(self.rng.u64(..LATER_MAX_MS)));
            let due = later.map(|later| Timestamp::now() + later);
            let event = match due {
                Some(_) => Written { uuid, stream: format!("later-{uuid}"), sequence: 1 },
                None => {
                    let stream = self.rng.usize(..STREAMS);
                    sequences[stream] += 1;
                    Written { uuid, stream: format!("stream-{stream}"), sequence: sequences[stream] }
                }
            };
            let change = params![event.uuid.to_string(), event.stream, event.sequence];
            transaction.execute("INSERT INTO changes (id, stream, sequence) VALUES (?1, ?2, ?3)", change)?;
            let filler = "x".repeat(self.rng.usize(..FILLER_MAX));
            let due = due.map(|due| due.to_string());
            let data = serde_json::json!({ "sequence": event.sequence, "due": due, "filler": filler }).to_string();
            transaction.execute(
                "INSERT INTO outbox (stream_id, uuid, name, data, publish_after)
                 VALUES (?1, ?2, 'thing.changed', ?3, ?4)",
                params![event.stream, event.uuid.to_string(), data, due],
            )?;
            events.push(event);
        }
        let committed = self.rng.u8(..ROLLED_BACK) > 0;
        if committed {
            transaction.commit()?;
            self.sequences = sequences;
        } else {
            transaction.rollback()?;
        }
        self.journal.note(&Transaction { committed, events })?;
        Ok(())
    }
}
