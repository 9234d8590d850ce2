//! One connection to the server. It is made when it is needed, and made again after it was lost; whoever calls waits, for a
//! limited time.
//!
//! Each connection has a small runtime of its own, which the calling thread drives: an answer needs no other thread to pass
//! it on. A caller that is itself within a runtime is served by a thread of its own.

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant};

use outbox_engine::text::shown;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::error::Fault;

/// The first pause after a connection could not be made, and the longest. Each is twice as long as the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long to wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a statement may take, by the server's clock; and how much longer to wait for the answer.
const STATEMENT_MAX: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(35);
/// How many statements are kept prepared. All of this crate's are fewer.
const STATEMENTS_MAX: usize = 256;

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What a connection is for: its settings differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Status, operators' acts, appends.
    Acting,
    /// Reading entries.
    Reading,
    /// Settling entries. Its commits do not wait for the disk: see `Drain::sync`.
    Settling,
    /// The heartbeat of a lease, and watches.
    Watching,
}

/// A connection, or the wish for one.
pub(super) struct Link {
    config: Config,
    schema: String,
    patience: Duration,
    purpose: Purpose,
    live: Option<Live>,
    /// How often a connection was made.
    made: u64,
    pause: Duration,
    not_before: Option<Instant>,
}

struct Live {
    runtime: Runtime,
    client: Client,
    pid: i32,
    statements: HashMap<String, Statement>,
}

impl Link {
    pub(super) fn new(config: Config, schema: String, patience: Duration, purpose: Purpose) -> Self {
        Self { config, schema, patience, purpose, live: None, made: 0, pause: PAUSE.0, not_before: None }
    }

    /// How often a connection was made: after another one, nothing that was read or locked before counts any more.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The server's process that serves this connection; 0 if there is none.
    pub(super) fn pid(&self) -> i32 {
        self.live.as_ref().map_or(0, |live| live.pid)
    }

    /// Runs statements. If the connection is lost, the next call makes another one.
    pub(super) fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        let live = self.live()?;
        let result = live.query(sql, params);
        self.keep(result)
    }

    /// The first row of the result.
    pub(super) fn first(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>, Fault> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// Runs a statement, and returns how many rows it changed.
    pub(super) fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, Fault> {
        let live = self.live()?;
        let result = live.execute(sql, params);
        self.keep(result)
    }

    /// Runs a script.
    pub(super) fn script(&mut self, sql: &str) -> Result<(), Fault> {
        let live = self.live()?;
        let result = within(&live.runtime, ANSWER_MAX, live.client.batch_execute(sql));
        self.keep(result)
    }

    /// Runs `does` in a transaction: an error rolls it back.
    pub(super) fn transaction<T, E: From<Fault>>(
        &mut self,
        does: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.script("BEGIN")?;
        let made = self.made;
        let done = does(self);
        // Where the connection was lost meanwhile, the transaction is gone with it.
        if self.made != made || self.live.is_none() {
            let lost = || Fault::Unreachable("the connection was lost in a transaction".into());
            return done.and_then(|_| Err(lost().into()));
        }
        match done {
            Ok(done) => self.script("COMMIT").map(|()| done).map_err(Into::into),
            Err(error) => {
                if self.script("ROLLBACK").is_err() {
                    self.live = None;
                }
                Err(error)
            }
        }
    }

    fn keep<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        let closed = self.live.as_ref().is_none_or(|live| live.client.is_closed());
        if closed || matches!(result, Err(Fault::NoAnswer(_) | Fault::Unreachable(_))) {
            self.live = None;
        }
        result
    }

    fn live(&mut self) -> Result<&mut Live, Fault> {
        if self.live.as_ref().is_none_or(|live| live.client.is_closed()) {
            self.live = None;
            let wait = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            std::thread::sleep(wait);
            match self.connect() {
                Ok(live) => {
                    (self.live, self.pause, self.not_before) = (Some(live), PAUSE.0, None);
                    self.made += 1;
                }
                Err(fault) => {
                    self.not_before = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(PAUSE.1);
                    return Err(fault);
                }
            }
        }
        self.live.as_mut().ok_or_else(|| Fault::Unreachable("there is no connection".into()))
    }

    fn connect(&self) -> Result<Live, Fault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Fault::Unreachable(error.to_string()))?;
        // TLS comes here: `connect` takes what makes it.
        let connecting = within(&runtime, CONNECT_MAX, self.config.connect(NoTls));
        let (client, connection) = connecting?;
        runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to the database ended: {}", shown(error));
            }
        });
        let mut live = Live { runtime, client, pid: 0, statements: HashMap::new() };
        within(&live.runtime, CONNECT_MAX, live.client.batch_execute(&self.settings()))?;
        live.pid = live.query("SELECT pg_backend_pid()", &[])?.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(live)
    }

    /// The planner has no choice: every statement of a relay goes through an index, however the table's statistics are.
    fn settings(&self) -> String {
        let schema = quoted(&self.schema);
        let name = literal(&format!("outbox {}", self.schema));
        let (statement, lock) = (STATEMENT_MAX.as_millis(), self.patience.as_millis());
        let mut settings = format!(
            "SET application_name = {name}; SET search_path = {schema}, pg_catalog; SET statement_timeout = {statement}; SET lock_timeout = {lock};
             SET idle_in_transaction_session_timeout = {statement}; SET TimeZone = 'UTC'; SET jit = off;
             SET client_min_messages = warning; SET default_transaction_isolation = 'read committed';"
        );
        if self.purpose != Purpose::Acting {
            settings += " SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
                          SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan;";
        }
        if self.purpose == Purpose::Settling {
            settings += " SET synchronous_commit = off;";
        }
        settings
    }
}

impl Live {
    fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        let statement = self.prepared(sql)?;
        within(&self.runtime, ANSWER_MAX, self.client.query(&statement, params))
    }

    fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, Fault> {
        let statement = self.prepared(sql)?;
        within(&self.runtime, ANSWER_MAX, self.client.execute(&statement, params))
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = within(&self.runtime, ANSWER_MAX, self.client.prepare(sql))?;
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Waits for an answer, for a limited time.
fn within<T: Send>(
    runtime: &Runtime,
    limit: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
) -> Result<T, Fault> {
    let answer = async move {
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(Fault::Postgres),
            Err(_) => Err(Fault::NoAnswer(limit)),
        }
    };
    if Handle::try_current().is_err() {
        return runtime.block_on(answer);
    }
    let died = || Fault::Unreachable("the thread that waited for the database died".into());
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(answer)).join().unwrap_or_else(|_| Err(died())))
}

/// A name quoted for SQL, whatever it contains.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text quoted for SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
