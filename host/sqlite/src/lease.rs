//! Lets only one process drain a SQLite outbox. The process holds an advisory lock on a file beside the database, which
//! the kernel releases however the process ends. The files also say what the process is doing, and outlive it.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use outbox_engine::outbox::{Marks, RelayState, StorageError};
use outbox_engine::text::shown;
use rustix::fs::OFlags;

use super::beside;
use super::error::SqliteError;

/// The room for a relay's state in the lock file: enough for as many publishers as there may be.
const STATE_BYTES: usize = 32 * 1_024;
/// The most characters of each reason, if not all of it has room.
const REASON_CHARS: usize = 500;
const PUBLISHER_REASON_CHARS: usize = 100;
/// How often to try again to lock the file: a process that asks for the status holds the lock for an instant.
const TRIES: u32 = 5;

pub(super) struct FileLease {
    lock: File,
    lock_path: PathBuf,
    calls: Marks,
    database: PathBuf,
    /// The database that was opened under this lease.
    opened: Option<Metadata>,
}

fn failed(doing: &'static str, error: io::Error) -> StorageError {
    StorageError::Other { doing, cause: Box::new(error) }
}

impl FileLease {
    pub(super) fn take(database: &Path) -> Result<Self, StorageError> {
        fs::metadata(database).map_err(|_| SqliteError::Missing(database.to_owned()))?;
        let lock_path = beside::path(database, beside::LOCK);
        let opened = |error| failed("open what lies beside the database", error);
        for _ in 0..TRIES {
            // Not truncated: its content belongs to a relay at work, or was left by the last one.
            let lock = beside::open_or_make(database, beside::LOCK, is_state).map_err(opened)?;
            match lock.try_lock() {
                // If somebody has replaced the file in between, others would lock the new file: try again.
                Ok(()) if is_in_place(&lock, &lock_path) => {
                    let calls = beside::open_or_make(database, beside::CALLS, Marks::may_be_in).map_err(opened)?;
                    let calls = Marks::new(calls);
                    return Ok(Self { lock, lock_path, calls, database: database.to_owned(), opened: None });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::Error(error)) => return Err(failed("lock the outbox", error)),
            }
        }
        let state = beside::open(&lock_path, OFlags::RDONLY).ok().and_then(|lock| read_state(&lock));
        let by = state.map_or("another relay".into(), |state| format!("a relay (process {})", state.pid));
        Err(StorageError::Leased { by })
    }

    /// Binds the lease to the database that is at its path now.
    pub(super) fn opened(mut self, database: &Path) -> Result<Self, StorageError> {
        let metadata = fs::metadata(database).map_err(|_| SqliteError::Missing(database.to_owned()))?;
        self.opened = Some(metadata);
        Ok(self)
    }
}

/// What the relay at work says about itself. None if no relay is at work.
pub(super) fn holder(database: &Path) -> io::Result<Option<RelayState>> {
    let lock = match beside::open(&beside::path(database, beside::LOCK), OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_state(&lock),
        _ => None,
    })
}

fn read_state(lock: &File) -> Option<RelayState> {
    let mut text = String::new();
    lock.take(STATE_BYTES as u64).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.trim()).ok()
}

/// Whether a file may contain a relay's state: a JSON object, or nothing.
fn is_state(file: &File) -> bool {
    let mut state = [0; STATE_BYTES];
    read_up_to(file, &mut state, 0);
    state.iter().find(|byte| !matches!(byte, b' ' | 0)).is_none_or(|first| *first == b'{')
}

/// The same state with shorter reasons.
fn shortened(mut state: RelayState) -> RelayState {
    state.reason = state.reason.chars().take(REASON_CHARS).collect();
    for publisher in &mut state.publishers {
        publisher.reason = publisher.reason.chars().take(PUBLISHER_REASON_CHARS).collect();
    }
    state
}

fn same_file(one: Option<&Metadata>, other: io::Result<Metadata>) -> bool {
    one.zip(other.ok()).is_some_and(|(one, other)| one.dev() == other.dev() && one.ino() == other.ino())
}

/// Whether the file that was opened is the one at its path.
fn is_in_place(file: &File, path: &Path) -> bool {
    same_file(file.metadata().ok().as_ref(), fs::symlink_metadata(path))
}

impl FileLease {
    pub(super) fn mark(&self, slot: usize, positions: &[i64]) {
        if let Err(error) = self.calls.mark(slot, positions) {
            tracing::warn!("cannot note which calls are under way: {}", shown(error));
        }
    }

    pub(super) fn interrupted(&self) -> Vec<i64> {
        self.calls.interrupted()
    }

    pub(super) fn clear(&self) {
        if let Err(error) = self.calls.clear() {
            tracing::warn!("cannot forget which calls were under way: {}", shown(error));
        }
    }

    pub(super) fn show(&self, state: &RelayState) {
        let mut text = serde_json::to_string(state).unwrap_or_default();
        if text.len() > STATE_BYTES {
            text = serde_json::to_string(&shortened(state.clone())).unwrap_or_default();
        }
        if text.len() > STATE_BYTES {
            let without = RelayState { publishers: Vec::new(), ..shortened(state.clone()) };
            text = serde_json::to_string(&without).unwrap_or_default();
        }
        // One write, always of the same size, so that nobody reads a half-written state.
        text.extend(std::iter::repeat_n(' ', STATE_BYTES.saturating_sub(text.len())));
        if let Err(error) = self.lock.write_all_at(text.as_bytes(), 0) {
            tracing::debug!("cannot show the relay's state: {}", shown(error));
        }
    }

    /// Checks that the database and the lock file are still those that were opened.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        if !same_file(self.opened.as_ref(), fs::metadata(&self.database)) {
            let what = if self.database.exists() { "was replaced by another file" } else { "was removed" };
            return Err(StorageError::Replaced(format!("the database {} {what}", self.database.display())));
        }
        if !is_in_place(&self.lock, &self.lock_path) {
            return Err(StorageError::Replaced(format!("the lock file {} was removed", self.lock_path.display())));
        }
        Ok(())
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        let _ = self.lock.write_all_at(&[b' '; STATE_BYTES], 0);
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use outbox_engine::outbox::{BreakerState, PublisherState};

    use super::*;

    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        fs::write(&database, "").unwrap();
        (folder, database)
    }

    #[test]
    fn only_one_has_it_until_it_is_dropped() {
        let (_folder, database) = database();
        let lease = FileLease::take(&database).unwrap();
        assert!(FileLease::take(&database).is_err_and(|error| error.is_leased()));
        drop(lease);
        FileLease::take(&database).unwrap();
    }

    #[test]
    fn calls_under_way_are_known_to_the_next_one() {
        let (_folder, database) = database();
        let lease = FileLease::take(&database).unwrap();
        assert_eq!(lease.interrupted(), [0_i64; 0]);
        lease.mark(0, &[7]);
        lease.mark(3, &[9, 8, -1]);
        lease.mark(1, &[5]);
        lease.mark(1, &[]);
        drop(lease);
        let lease = FileLease::take(&database).unwrap();
        assert_eq!(lease.interrupted(), [-1, 7, 8, 9]);
        lease.clear();
        assert_eq!(lease.interrupted(), [0_i64; 0]);
        lease.mark(0, &vec![1; 10_000]);
        assert_eq!(lease.interrupted(), [1]);
        // As many as a call may have, beside another one.
        let call: Vec<i64> = (1..=1_000).collect();
        lease.mark(0, &call);
        lease.mark(1, &[1_001]);
        assert_eq!(lease.interrupted(), (1..=1_001).collect::<Vec<_>>());
    }

    #[test]
    fn a_garbled_file_is_no_panic() {
        let (_folder, database) = database();
        fs::write(beside::path(&database, beside::CALLS), vec![0xff; 3_001]).unwrap();
        let lease = FileLease::take(&database).unwrap();
        assert_eq!(lease.interrupted(), [-1]);
    }

    #[test]
    fn a_database_or_lock_file_that_is_gone_or_another_is_noticed() {
        let (_folder, database) = database();
        let lease = FileLease::take(&database).unwrap().opened(&database).unwrap();
        lease.check().unwrap();
        let other = beside::path(&database, ".new");
        fs::write(&other, "").unwrap();
        fs::rename(&other, &database).unwrap();
        assert!(lease.check().unwrap_err().to_string().contains("was replaced"));
        fs::remove_file(&database).unwrap();
        assert!(lease.check().unwrap_err().to_string().contains("was removed"));
        fs::write(&database, "").unwrap();
        drop(lease);
        let lease = FileLease::take(&database).unwrap().opened(&database).unwrap();
        fs::remove_file(beside::path(&database, beside::LOCK)).unwrap();
        assert!(lease.check().unwrap_err().is_replaced());
    }

    #[test]
    fn the_state_is_shown_while_the_lease_is_held() {
        let (_folder, database) = database();
        assert_eq!(holder(&database).unwrap(), None);
        let lease = FileLease::take(&database).unwrap();
        let publisher = PublisherState {
            name: Some("webhook".into()),
            breaker: BreakerState::HalfOpen,
            since: jiff::Timestamp::MAX,
            reason: "x".repeat(10_000),
            next_probe: Some(jiff::Timestamp::MAX),
            next_token: Some(jiff::Timestamp::MAX),
        };
        let state = RelayState {
            pid: 7,
            state: outbox_engine::outbox::RelayCondition::Paused,
            since: jiff::Timestamp::UNIX_EPOCH,
            reason: "x".repeat(10_000),
            publishers: vec![publisher; 64],
        };
        lease.show(&state);
        let shown = holder(&database).unwrap().unwrap();
        assert_eq!((shown.reason.len(), shown.publishers.len()), (500, 64));
        lease.show(&RelayState { publishers: vec![state.publishers[0].clone(); 1_000], ..state });
        assert_eq!(holder(&database).unwrap().unwrap().publishers.len(), 0);
        drop(lease);
        assert_eq!(holder(&database).unwrap(), None);
    }
}
