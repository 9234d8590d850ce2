//! A relay at work while programs do to its outbox whatever programs do: rows at any position, tables that are rebuilt and
//! count from the start again, backups that are restored, entries that are deleted by hand, triggers that refuse, streams
//! that are parked or whose call does not end, outages in which every call fails. Random histories of these; in the end each event that is still there was
//! delivered, nothing is left, and the relay says that it is well.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::outbox::{RelayCondition, Selection};
use outbox_host::{
    Attempt, Backoff, BoxFuture, BreakerRules, FairBy, JsonSerde, OnDeadLetter, Outbox, OutboxStorageStrategy, Outcome,
    Policy, PublishError, Publisher, PublisherOptions, Publishers, Recorded, RelayOptions, Timestamp,
};
use outbox_tests::act;
use outbox_tests::outboxes::{Kept, Sqlite};
use outbox_tests::publishers::any_options;
use outbox_tests::relaying::relaying;
use outbox_tests::waiting::{PATIENCE, until};
use proptest::prelude::*;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// `parked` is parked by its first entry, the call of `hangs` does not end until the end, `fails` fails at first.
const STREAMS: [&str; 6] = ["parked", "hangs", "fails", "a", "b", "c"];

/// Their tenants.
const TENANTS: [&str; 6] = ["one", "two", "one", "default", "two", "three"];

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    /// An event that is due in so many milliseconds.
    Later(u64, usize),
    /// A row at a free position, far below all others or in a gap.
    InsertAt(i64, usize),
    /// As an object-relational mapper does it; with the sequence set back.
    Rebuild,
    Backup,
    Restore,
    /// Rows of this stream are deleted by hand, and another takes the place of the first.
    Replace(usize),
    Refuse(bool),
    Retry,
    /// The index of tenants is made, or dropped as a migration does.
    Index(bool),
    /// An outage begins or ends: every call fails, so that the breaker opens.
    Down(bool),
    /// The relay has time to do something.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS.len();
    prop_oneof![
        6 => prop::collection::vec(stream.clone(), 1..6).prop_map(Step::Append),
        2 => (prop_oneof![Just(20), Just(200), Just(2_100), Just(2_400)], 3..STREAMS.len())
            .prop_map(|(ms, stream)| Step::Later(ms, stream)),
        3 => (1..40_i64, stream.clone()).prop_map(|(position, stream)| Step::InsertAt(position, stream)),
        2 => Just(Step::Rebuild),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        2 => stream.prop_map(Step::Replace),
        2 => any::<bool>().prop_map(Step::Refuse),
        1 => Just(Step::Retry),
        1 => any::<bool>().prop_map(Step::Index),
        2 => any::<bool>().prop_map(Step::Down),
        4 => (0..30_u64).prop_map(Step::Wait),
    ]
}

struct World {
    kept: Sqlite,
    application: Connection,
    backup: Option<(Connection, BTreeSet<Uuid>)>,
    is_down: Arc<AtomicBool>,
    /// Whatever has to be delivered in the end.
    expected: BTreeSet<Uuid>,
}

impl World {
    fn new() -> Self {
        let kept = Sqlite::new();
        let application = kept.connection();
        application.busy_timeout(PATIENCE).unwrap();
        Self { kept, application, backup: None, is_down: Arc::default(), expected: BTreeSet::new() }
    }

    fn insert(&mut self, position: Option<i64>, stream: usize) {
        let uuid = Uuid::new_v4();
        let sql =
            "INSERT INTO outbox (position, tenant_id, stream_id, uuid, name, data) VALUES (?1, ?2, ?3, ?4, 'e', '{}')
                   ON CONFLICT (position) DO NOTHING";
        let row = params![position, TENANTS[stream], STREAMS[stream], uuid.to_string()];
        if self.application.execute(sql, row).unwrap() == 1 {
            self.expected.insert(uuid);
        }
    }

    /// When it is due is its name.
    fn insert_for_later(&mut self, ms: u64, stream: usize) {
        let (uuid, due) = (Uuid::new_v4(), (Timestamp::now() + Duration::from_millis(ms)).to_string());
        let sql = "INSERT INTO outbox (stream_id, uuid, name, data, publish_after) VALUES (?1, ?2, ?3, '{}', ?3)";
        self.application.execute(sql, params![STREAMS[stream], uuid.to_string(), due]).unwrap();
        self.expected.insert(uuid);
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(streams) => streams.iter().for_each(|stream| self.insert(None, *stream)),
            Step::Later(ms, stream) => self.insert_for_later(*ms, *stream),
            Step::InsertAt(position, stream) => self.insert(Some(*position), *stream),
            Step::Rebuild => self.rebuild(),
            Step::Backup => {
                let mut backup = Connection::open_in_memory().unwrap();
                copy(&self.application, &mut backup);
                let expected = uuids(&backup);
                self.backup = Some((backup, expected));
            }
            Step::Restore => {
                if let Some((backup, expected)) = self.backup.take() {
                    copy(&backup, &mut self.application);
                    // What was committed since the backup is gone after the restore.
                    self.expected = expected;
                }
            }
            Step::Replace(stream) => self.replace(*stream),
            Step::Refuse(refuse) => self.refuse(*refuse),
            Step::Retry => {
                self.kept.open().operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
            }
            Step::Index(make) => self.index(*make),
            Step::Down(is_down) => self.is_down.store(*is_down, Ordering::SeqCst),
            Step::Wait(ms) => std::thread::sleep(Duration::from_millis(*ms)),
        }
    }

    fn index(&self, make: bool) {
        match make {
            true => self.kept.index_tenants(),
            false => self.application.execute_batch("DROP INDEX IF EXISTS outbox_tenant").unwrap(),
        }
    }

    fn rebuild(&self) {
        self.refuse(false);
        let sql = "SELECT sql FROM sqlite_schema WHERE name = 'outbox'";
        let table: String = self.application.query_row(sql, [], |row| row.get(0)).unwrap();
        let new = table.replacen("\"outbox\"", "outbox", 1).replacen("outbox", "new__outbox", 1);
        let rebuild = format!(
            "BEGIN IMMEDIATE; {new}; INSERT INTO new__outbox SELECT * FROM outbox; DROP TABLE outbox;
             ALTER TABLE new__outbox RENAME TO outbox; DELETE FROM sqlite_sequence WHERE name = 'outbox'; COMMIT"
        );
        self.application.execute_batch(&rebuild).unwrap();
    }

    fn replace(&mut self, stream: usize) {
        self.refuse(false);
        self.application.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut deleted: Vec<(i64, String)> = Vec::new();
        {
            let mut delete =
                self.application.prepare("DELETE FROM outbox WHERE stream_id = ?1 RETURNING position, uuid").unwrap();
            let rows = delete.query_map([STREAMS[stream]], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            deleted.extend(rows.map(Result::unwrap));
        }
        for (position, uuid) in deleted {
            self.expected.remove(&uuid.parse().unwrap());
            self.insert(Some(position), 3);
        }
        self.application.execute_batch("COMMIT").unwrap();
    }

    fn refuse(&self, refuse: bool) {
        let sql = "CREATE TRIGGER IF NOT EXISTS refuse BEFORE DELETE ON outbox WHEN OLD.stream_id = 'b'
                   BEGIN SELECT RAISE(ABORT, 'not this one'); END";
        self.application.execute_batch(if refuse { sql } else { "DROP TRIGGER IF EXISTS refuse" }).unwrap();
    }
}

fn copy(from: &Connection, to: &mut Connection) {
    let backup = rusqlite::backup::Backup::new(from, to).unwrap();
    backup.run_to_completion(1_000, Duration::from_millis(1), None).unwrap();
}

fn uuids(connection: &Connection) -> BTreeSet<Uuid> {
    let sql =
        "SELECT uuid FROM outbox UNION SELECT uuid FROM outbox_dead_letters UNION SELECT uuid FROM outbox_delayed";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(|uuid| uuid.unwrap().parse().unwrap()).collect()
}

struct Destination<'a> {
    delivered: &'a Mutex<BTreeSet<Uuid>>,
    over: &'a AtomicBool,
    is_down: Arc<AtomicBool>,
    /// Closed when the calls that hang may end.
    released: Semaphore,
    /// How many events it takes at once, which it publishes one after the other.
    batch: usize,
}

impl Publisher for Destination<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            if self.is_down.load(Ordering::SeqCst) {
                return Outcome::from(Err(PublishError::retryable("out of order"))).into();
            }
            match event.stream_id.id.as_str() {
                "parked" if !self.over.load(Ordering::SeqCst) => {
                    return Outcome::from(Err(PublishError::rejected("not yet"))).into();
                }
                "fails" if event.attempt < 3 => return Outcome::from(Err(PublishError::retryable("not yet"))).into(),
                "hangs" => _ = self.released.acquire().await,
                _ => {}
            }
            if let Ok(due) = event.wrapped_event.name.parse::<Timestamp>() {
                assert!(Timestamp::now() >= due, "early: {event:?}");
            }
            self.delivered.lock().unwrap().insert(event.wrapped_event.uuid);
            Outcome::Delivered.into()
        })
    }

    fn max_batch(&self) -> usize {
        self.batch
    }
}

fn go_through(own: PublisherOptions, batch: usize, fair: bool, steps: &[Step]) {
    let mut world = World::new();
    world.index(fair);
    let fair_by = if fair { FairBy::Tenant } else { FairBy::Nobody };
    let (delivered, over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let (is_down, released) = (world.is_down.clone(), Semaphore::new(0));
    let publisher = Destination { delivered: &delivered, over: &over, is_down: is_down.clone(), released, batch };
    let backoff = Backoff { initial: Duration::from_millis(5), max: Duration::from_millis(10) };
    // There are few streams, and one of them always fails at first.
    let breaker = BreakerRules { failures: 2, calls: 3, ..BreakerRules::default() };
    let policy = Policy { backoff, pause: backoff, breaker, ..Policy::default() };
    let options = RelayOptions { policy, on_dead_letter: OnDeadLetter::Park, fair_by, ..RelayOptions::default() };
    let outbox = Outbox::new(world.kept.open(), JsonSerde).with_options(options);
    relaying(&outbox, Publishers::from(&publisher).with_options("", own), |_| {
        steps.iter().for_each(|step| world.take(step));
        world.refuse(false);
        over.store(true, Ordering::SeqCst);
        is_down.store(false, Ordering::SeqCst);
        publisher.released.close();
        until("each is delivered that is still there", || {
            world.kept.open().operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
            let missing = world.expected.difference(&delivered.lock().unwrap()).count();
            missing == 0
        });
        until("nothing is left, and all is well", || {
            world.kept.open().operator().retry_dead_letters(&Selection::all(), &act()).unwrap();
            let status = world.kept.open().status().unwrap();
            let is_well = status.relay.is_some_and(|relay| relay.state == RelayCondition::Running);
            is_well && (status.pending, status.delayed, status.undeletable, status.dead_letters) == (0, 0, 0, 0)
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..outbox_tests::proptest_config!("model_relay", 40) })]

    #[test]
    fn whatever_programs_do_each_event_is_delivered(
        own in any_options(),
        batch in prop_oneof![Just(1_usize), Just(4)],
        fair in any::<bool>(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        go_through(own, batch, fair, &steps);
    }
}
