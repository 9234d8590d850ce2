//! The outbox in a PostgreSQL database, beside the application's own tables.
//!
//! [`append`] puts an event into the outbox within the application's own transaction: the application's change and its
//! event are both committed, or neither is. Any other language does the same with
//! `INSERT INTO outbox (stream_id, name, data) VALUES (...)`. [`PostgresOutbox`] is the storage that a relay drains. It also
//! makes the tables.
//!
//! One relay drains an outbox at a time; others stand by, and take over when it dies.
//!
//! ```no_run
//! use outbox_postgres::{NewEvent, OutboxStorageStrategy, PostgresOptions, PostgresOutbox};
//!
//! let options = PostgresOptions::new("postgres://app@localhost/app")?;
//! PostgresOutbox::init(&options)?;
//! let outbox = PostgresOutbox::open(options)?;
//! println!("{} entries wait", outbox.status()?.pending);
//! # Ok::<(), outbox_postgres::StorageError>(())
//! ```
//!
//! This crate re-exports the version of [`tokio_postgres`] that it uses.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use outbox_engine::StoredData;
use outbox_engine::outbox::{Deployments, Drain, Marks, Operator, Status, Watch};
use parking_lot::{Mutex, MutexGuard};
use tokio_postgres::Config;

use self::drain::PostgresDrain;
use self::error::Fault;
use self::link::{Link, Purpose};

mod append;
mod delayed;
mod deployments;
mod drain;
mod error;
mod gaps;
mod held;
mod lease;
mod link;
mod names;
mod operator;
mod page;
mod reader;
mod schema;
mod settle;
mod status;
mod value;
mod watch;

pub use append::append;
pub use error::PostgresError;
pub use outbox_engine::{NewEvent, OutboxStorageStrategy, Payload, StorageError, StreamId};
pub use schema::{Initialised, SCHEMA_VERSION};
pub use tokio_postgres;

/// How long a relay that cannot be reached keeps its lease, unless set otherwise.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long to wait for locks of others, unless set otherwise.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where an outbox is, and how it is used.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    config: Config,
    schema: String,
    lease: Duration,
    patience: Duration,
    marks: Option<PathBuf>,
}

impl PostgresOptions {
    /// The outbox in the schema `public` of this database: a connection string as libpq takes it, without TLS.
    ///
    /// # Errors
    ///
    /// [`StorageError::Unusable`] if the connection string cannot be read.
    pub fn new(connection: &str) -> Result<Self, StorageError> {
        let config = connection.parse::<Config>().map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            PostgresError::Url(format!("{error}{cause}"))
        })?;
        Ok(Self { config, schema: "public".into(), lease: LEASE, patience: PATIENCE, marks: None })
    }

    /// The outbox in this schema.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// A relay that cannot be reached keeps its lease this long.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// Calls that are under way are marked in this file, which outlives the process: the next relay on this machine learns
    /// from it in which calls the last one died. Each outbox needs its own.
    #[must_use]
    pub fn with_marks(mut self, file: impl Into<PathBuf>) -> Self {
        self.marks = Some(file.into());
        self
    }
}

/// An outbox in a PostgreSQL database.
///
/// It has a handful of connections: for reading, for settling, for flushing what was settled, for everything else, and for
/// the relay's heartbeat. Each is made when it is first needed, and again after it was lost.
pub struct PostgresOutbox {
    options: PostgresOptions,
    acting: Mutex<Link>,
    reading: Mutex<Link>,
    settling: Mutex<Link>,
    syncing: Mutex<Link>,
    /// The server's process of the settling connection.
    settling_pid: AtomicI32,
    known: Mutex<reader::Known>,
    observed: lease::Observation,
    marks: Option<Marks>,
}

impl PostgresOutbox {
    /// Makes the outbox's tables in the schema, or upgrades them. A schema that does not exist is created. Harmless when
    /// repeated.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is changed then.
    pub fn init(options: &PostgresOptions) -> Result<Initialised, StorageError> {
        let mut link = options.link(Purpose::Acting);
        schema::init(&mut link, &options.schema).map_err(error::error("make the outbox's tables", options.patience))
    }

    /// The statements with which [`init`](Self::init) makes the tables in this schema, for people's own migrations.
    pub fn init_script(schema: &str) -> String {
        schema::script(schema)
    }

    /// Opens an outbox that was initialised.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the database cannot be reached, or there is no outbox of this version in it.
    pub fn open(options: PostgresOptions) -> Result<Self, StorageError> {
        let mut acting = options.link(Purpose::Acting);
        let failed = error::error("read the outbox's version", options.patience);
        schema::check(&mut acting, &options.schema).map_err(failed)?;
        let marks = options.marks.as_ref().map(|path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map(Marks::new)
        });
        let marks = marks.transpose();
        let link = |purpose| Mutex::new(options.link(purpose));
        Ok(Self {
            acting: Mutex::new(acting),
            reading: link(Purpose::Reading),
            settling: link(Purpose::Settling),
            syncing: link(Purpose::Watching),
            settling_pid: AtomicI32::new(0),
            known: Mutex::default(),
            observed: Mutex::new(None),
            marks: marks
                .map_err(|error| StorageError::Other { doing: "open the file of marks", cause: Box::new(error) })?,
            options,
        })
    }

    fn link(&self, purpose: Purpose) -> Link {
        self.options.link(purpose)
    }

    fn acting(&self) -> MutexGuard<'_, Link> {
        self.acting.lock()
    }

    fn note_settling_pid(&self) {
        if let Some(link) = self.settling.try_lock() {
            self.settling_pid.store(link.pid(), Ordering::Relaxed);
        }
    }

    fn error(&self, doing: &'static str) -> impl Fn(Fault) -> StorageError + Copy {
        error::error(doing, self.options.patience)
    }
}

impl PostgresOptions {
    fn link(&self, purpose: Purpose) -> Link {
        Link::new(self.config.clone(), self.schema.clone(), self.patience, purpose)
    }
}

impl OutboxStorageStrategy for PostgresOutbox {
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        append::append_all(&mut self.acting(), events).map_err(self.error("append events"))
    }

    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError> {
        Ok(Box::new(PostgresDrain::take(self)?))
    }

    fn status(&self) -> Result<Status, StorageError> {
        status::read(&mut self.acting()).map_err(self.error("read the outbox's status"))
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        Ok(Box::new(watch::Polling::new(self.link(Purpose::Watching))))
    }

    fn operator(&self) -> &dyn Operator {
        self
    }

    fn deployments(&self) -> &dyn Deployments {
        self
    }
}
