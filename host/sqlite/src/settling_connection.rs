//! Settles entries, on a connection of its own, with its turns at the write lock and its checkpoints.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use outbox_engine::outbox::{BroughtBack, Settled, StorageError};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::access::Access;
use super::checkpoints::Checkpoints;
use super::connection;
use super::doubt::Doubt;
use super::write_lock::Turns;
use super::{delayed, settle};

pub(super) struct SettlingConnection {
    connection: Connection,
    path: PathBuf,
    busy_patience: Duration,
    turns: Turns,
    checkpoints: Checkpoints,
    doubt: Doubt,
}

impl SettlingConnection {
    pub(super) fn open(
        path: &Path,
        busy_patience: Duration,
        access: Access,
        doubt: Doubt,
    ) -> Result<Self, StorageError> {
        let mut connection = connection::open_as(path, busy_patience, access)?;
        let configured =
            Checkpoints::of(&mut connection, path.to_owned(), busy_patience, doubt.clone()).and_then(|checkpoints| {
                // Its commits do not sync the WAL. The sync follows the commit, when the write lock is free again for
                // others.
                connection.pragma_update(None, "synchronous", "NORMAL")?;
                Ok(checkpoints)
            });
        let checkpoints = configured.map_err(connection::error("open the database", path.to_owned(), busy_patience))?;
        Ok(Self { connection, path: path.to_owned(), busy_patience, turns: Turns::default(), checkpoints, doubt })
    }

    /// How many entries to settle at once.
    pub(super) fn settle_max(&self) -> usize {
        self.turns.settle_max()
    }

    /// Settles entries in one transaction, if `proof` holds within it, and returns how many were there. `has_written`
    /// says whether another connection of this outbox may have committed something since the last call.
    pub(super) fn settle(
        &mut self,
        settled: &[Settled],
        has_written: bool,
        proof: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<usize, StorageError> {
        self.in_turn("settle entries of the outbox", has_written, proof, |begun| {
            let found = settle::settle(&begun, settled)?;
            begun.commit()?;
            Ok(found)
        })
    }

    /// Brings back, likewise, what was put off and is due by `until`; it is `due_by` now.
    pub(super) fn bring_back(
        &mut self,
        (due_by, until): (Timestamp, Timestamp),
        max: usize,
        has_written: bool,
        proof: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<BroughtBack, StorageError> {
        self.in_turn("bring back entries that are due", has_written, proof, |begun| {
            delayed::bring_back(begun, (due_by, until), max)
        })
    }

    /// Does something in a transaction, which it commits, and leaves the write lock to others before the next.
    fn in_turn<T>(
        &mut self,
        doing: &'static str,
        has_written: bool,
        proof: impl FnOnce() -> Result<(), StorageError>,
        work: impl FnOnce(Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StorageError> {
        std::thread::sleep(self.turns.pause(&self.connection, has_written));
        let failed = connection::error(doing, self.path.clone(), self.busy_patience);
        let failed = |error| {
            self.doubt.note(&error);
            failed(error)
        };
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let held_since = Instant::now();
        proof()?;
        let done = work(begun).map_err(&failed)?;
        let held = held_since.elapsed();
        self.turns.taken(held);
        self.checkpoints.committed(&self.connection, self.turns.is_other_present());
        Ok(done)
    }
}
