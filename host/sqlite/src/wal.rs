//! Syncs the WAL's file after a commit, when the write lock is free again for others.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use outbox_engine::StorageError;
use rustix::fs::OFlags;

use super::beside;

/// How much of it is written again at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// The WAL of a database that stays open all the time: meanwhile it is the same file.
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
        self.with(File::sync_data)
    }

    /// Writes the whole WAL again from memory, and makes it durable. Nobody may write to it meanwhile: the caller holds
    /// the write lock.
    pub(super) fn sync_anew(&mut self) -> Result<(), StorageError> {
        self.with(|file| {
            write_again(file)?;
            file.sync_data()
        })
    }

    fn with(&mut self, sync: impl Fn(&File) -> io::Result<()>) -> Result<(), StorageError> {
        let file = self.file.take().map_or_else(|| beside::open(&self.path, OFlags::RDWR), Ok);
        // After a failure, the next call opens it again.
        let synced = file.and_then(|file| sync(&file).map(|()| file));
        self.file = Some(synced.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => StorageError::Full,
            _ => StorageError::Other { doing: "make durable what was settled", cause: Box::new(error) },
        })?);
        Ok(())
    }
}

fn write_again(file: &File) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    loop {
        let read = file.read_at(&mut piece, at)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        file.write_all_at(bytes, at)?;
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_again_is_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 77).map(|number| (number % 251) as u8).collect();
        std::fs::write(beside::path(&database, beside::WAL), &bytes).unwrap();
        let mut wal = Wal::of(&database);
        wal.sync().unwrap();
        wal.sync_anew().unwrap();
        assert_eq!(std::fs::read(&wal.path).unwrap(), bytes);
    }
}
