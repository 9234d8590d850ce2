//! The file of the WAL, which is synced after a commit, when the write lock is free again for others.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::beside;
use crate::outbox::StorageError;

/// The WAL of a database that stays open all the while: it is the same file for as long.
pub(super) struct Wal {
    path: PathBuf,
    file: Option<File>,
}

impl Wal {
    pub(super) fn of(database: &Path) -> Self {
        Self { path: beside::path(database, beside::WAL), file: None }
    }

    /// Makes durable what any connection has committed so far.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        let file = self.file.take().map_or_else(|| beside::open(&self.path, OFlags::WRONLY), Ok);
        // After a failure it is opened anew.
        let synced = file.and_then(|file| file.sync_data().map(|()| file));
        self.file = Some(synced.map_err(|error| match error.kind() {
            ErrorKind::StorageFull => StorageError::Full,
            _ => StorageError::Other { doing: "make durable what was settled", cause: Box::new(error) },
        })?);
        Ok(())
    }
}
