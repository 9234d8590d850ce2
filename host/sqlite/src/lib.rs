//! The outbox in a SQLite database, beside the application's own tables.
//!
//! [`append`] puts an event into the outbox within the application's own transaction: the application's change and its
//! event are both committed, or neither is. [`SqliteOutbox`] is the storage that a relay drains. It also makes the
//! tables.
//!
//! ```
//! use outbox_sqlite::rusqlite::Connection;
//! use outbox_sqlite::{NewEvent, OutboxStorageStrategy, SqliteOutbox, StreamId};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("app.db");
//! SqliteOutbox::init(&file)?;
//!
//! let mut db = Connection::open(&file)?;
//! db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)", [])?;
//! let tx = db.transaction()?;
//! tx.execute("INSERT INTO orders (id) VALUES (42)", [])?;
//! outbox_sqlite::append(&tx, &NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#))?;
//! tx.commit()?;
//!
//! assert_eq!(SqliteOutbox::open(&file)?.status()?.pending, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Connections are those of [`rusqlite`]. This crate re-exports the version of rusqlite that it uses.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outbox_engine::StoredData;
use outbox_engine::outbox::{Deployments, Drain, Operator, Status, Watch};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, TransactionBehavior};

use self::access::Access;
use self::doubt::Doubt;
use self::drain::SqliteDrain;
use self::times::TimeColumns;

mod access;
mod append;
mod beside;
mod checkpoints;
mod connection;
mod dead_columns;
mod delayed;
mod deployments;
mod doubt;
mod drain;
mod error;
mod identity;
mod kept;
mod lease;
mod look;
mod names;
mod operator;
mod owner;
mod page;
mod permissions;
mod schema;
mod settle;
mod settling_connection;
mod status;
mod table;
mod tenants;
mod times;
mod value;
mod wal;
mod watch;
mod write_lock;

pub use append::{append, append_if};
pub use error::SqliteError;
pub use outbox_engine::{NewEvent, OutboxStorageStrategy, Payload, StorageError, StreamId};
pub use rusqlite;
pub use schema::{Initialised, SCHEMA_VERSION};

/// An outbox in a SQLite database file.
///
/// It has one connection for reading, one for writing, and one for settling, so that reading goes on while a group of
/// entries is settled.
///
/// ```
/// use outbox_sqlite::{OutboxStorageStrategy, SqliteOutbox};
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("app.db");
/// SqliteOutbox::init(&file)?;
/// let outbox = SqliteOutbox::open(&file)?;
/// assert_eq!(outbox.status()?.pending, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteOutbox {
    path: PathBuf,
    busy_patience: Duration,
    reader: Mutex<Connection>,
    writer: Mutex<Connection>,
    settling_connection: Mutex<settling_connection::SettlingConnection>,
    wal: Mutex<wal::Wal>,
    doubt: Doubt,
    /// Which of the columns that a table need not have this one has, as of this version of the tables.
    time_columns: Mutex<Option<(i64, TimeColumns)>>,
    /// Whether the writing connection may have committed something that the settling connection has not seen.
    has_written: AtomicBool,
}

/// How long to wait for another program's write transaction, unless set otherwise.
pub const BUSY_PATIENCE: Duration = Duration::from_secs(5);

impl SqliteOutbox {
    /// Makes the outbox's tables in this database, or upgrades them, and sets its journal mode to WAL. A database that
    /// does not exist is created. Harmless when repeated.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is changed then.
    pub fn init(path: &Path) -> Result<Initialised, StorageError> {
        schema::init(path, BUSY_PATIENCE, false)
    }

    /// The same, and adds those columns to an existing table `outbox` that a table need not have. Programs that insert
    /// rows without naming the columns fail from then on.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub fn init_with_columns(path: &Path) -> Result<Initialised, StorageError> {
        schema::init(path, BUSY_PATIENCE, true)
    }

    /// Makes the index by which a relay reads the tenants in turns, if it is not there. Each insert then has to keep it up.
    /// Nobody can write while it is made: on a table that is large already, this takes about a second for each million of
    /// entries. Returns whether it was made now.
    ///
    /// ```
    /// use outbox_sqlite::SqliteOutbox;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let file = folder.path().join("app.db");
    /// SqliteOutbox::init(&file)?;
    /// assert!(SqliteOutbox::index_tenants(&file)?);
    /// assert!(!SqliteOutbox::index_tenants(&file)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is changed then.
    pub fn index_tenants(path: &Path) -> Result<bool, StorageError> {
        let outbox = Self::open(path)?;
        let made = tenants::index(&mut outbox.writer()).map_err(outbox.error("make the index of tenants"))?;
        Ok(made)
    }

    /// Opens an outbox that was initialised.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if there is no such database, or no outbox of this version in it. Nothing is changed then.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_with(path, BUSY_PATIENCE)
    }

    /// Opens an outbox, with another patience for other writers.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, busy_patience: Duration) -> Result<Self, StorageError> {
        Self::open_as(path, busy_patience, Access::Write, Doubt::default())
    }

    fn open_as(path: &Path, busy_patience: Duration, access: Access, doubt: Doubt) -> Result<Self, StorageError> {
        let path = connection::canonical(path)?;
        let reader = connection::open_as(&path, busy_patience, access)?;
        schema::check(&reader, &path, busy_patience)?;
        let writer = connection::open_as(&path, busy_patience, access)?;
        let settling_connection =
            Mutex::new(settling_connection::SettlingConnection::open(&path, busy_patience, access, doubt.clone())?);
        let wal = Mutex::new(wal::Wal::of(&path));
        Ok(Self {
            path,
            busy_patience,
            reader: Mutex::new(reader),
            writer: Mutex::new(writer),
            settling_connection,
            wal,
            doubt,
            time_columns: Mutex::new(None),
            has_written: AtomicBool::new(false),
        })
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file that is at the path now; somebody may have replaced it.
    fn reopen(&self) -> Result<(), StorageError> {
        let fresh = Self::open_as(&self.path, self.busy_patience, Access::Write, self.doubt.clone())?;
        *self.reader() = fresh.reader.into_inner();
        *self.writer() = fresh.writer.into_inner();
        *self.settling_connection() = fresh.settling_connection.into_inner();
        *self.wal() = fresh.wal.into_inner();
        *self.time_columns.lock() = None;
        Ok(())
    }

    /// Which of the columns that a table need not have this one has now.
    fn time_columns(&self, connection: &Connection) -> rusqlite::Result<TimeColumns> {
        let version = schema::changes(connection)?;
        let mut known = self.time_columns.lock();
        if let Some((_, columns)) = known.filter(|(at, _)| *at == version) {
            return Ok(columns);
        }
        let columns = TimeColumns::of(connection)?;
        *known = Some((version, columns));
        Ok(columns)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock()
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        if self.doubt.raised().is_some() {
            // If the disk is at fault and this fails, the sync of what is written next fails too.
            let _ = self.make_durable();
        }
        self.has_written.store(true, Ordering::Relaxed);
        self.writer.lock()
    }

    fn settling_connection(&self) -> MutexGuard<'_, settling_connection::SettlingConnection> {
        self.settling_connection.lock()
    }

    fn wal(&self) -> MutexGuard<'_, wal::Wal> {
        self.wal.lock()
    }

    fn error(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StorageError {
        let meaning = connection::error(doing, self.path.clone(), self.busy_patience);
        move |error| {
            self.doubt.note(&error);
            meaning(error)
        }
    }

    /// Makes durable what was committed: by a sync, or, after a failed sync, by writing the WAL again.
    fn make_durable(&self) -> Result<(), StorageError> {
        let mut wal = self.wal();
        if self.doubt.raised().is_none() {
            wal.sync().inspect_err(|_| self.doubt.raise())?;
        }
        // A failed sync has raised the doubt, before this or meanwhile.
        let Some(doubt) = self.doubt.raised() else { return Ok(()) };
        let failed = self.error("keep others from writing while what was settled is made durable");
        let mut writer = self.writer.lock();
        let _write_lock = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        wal.sync_anew()?;
        self.doubt.settle(&doubt);
        Ok(())
    }
}

impl OutboxStorageStrategy for SqliteOutbox {
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError> {
        append::append_all(&mut self.writer(), events, self.error("append events"))
    }

    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError> {
        Ok(Box::new(SqliteDrain::take(self)?))
    }

    fn status(&self) -> Result<Status, StorageError> {
        let mut status = status::read(&mut self.reader()).map_err(self.error("read the outbox's status"))?;
        match lease::holder(&self.path) {
            Ok(relay) => status.relay = relay,
            Err(error) => status.relay_unknown = Some(error.to_string()),
        }
        Ok(status)
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        let connection = connection::open(&self.path, self.busy_patience)?;
        Ok(Box::new(watch::WalWatch::new(connection, &self.path)))
    }

    fn operator(&self) -> &dyn Operator {
        self
    }

    fn deployments(&self) -> &dyn Deployments {
        self
    }
}
