//! Only one process drains a SQLite outbox: it holds an advisory lock on a file beside the database, which the kernel
//! takes back however the process ends. What it is doing is kept there too, and outlives it.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::outbox::{Lease, RelayState, StorageError};

/// The room for a relay's state in the lock file.
const STATE_BYTES: usize = 4_096;
/// The room for the positions of one call: a count, and as many positions as a batch may have.
const SLOT_BYTES: usize = 1_024;
const SLOT_POSITIONS_MAX: usize = SLOT_BYTES / 8 - 1;
/// How often a lock is tried again that somebody has: whoever asks for the status takes it for an instant.
const TRIES: u32 = 5;

pub(super) struct FileLease {
    lock: File,
    lock_path: PathBuf,
    calls: File,
    database: PathBuf,
    /// The database that was opened under this lease.
    opened: Option<Metadata>,
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn open(path: &Path) -> Result<File, StorageError> {
    // Not truncated: what stands in it is either a relay's at work, or what the last one left.
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| failed("open the lock file of the outbox", error))
}

fn failed(doing: &'static str, error: io::Error) -> StorageError {
    StorageError::Other { doing, cause: Box::new(error) }
}

impl FileLease {
    pub(super) fn take(database: &Path) -> Result<Self, StorageError> {
        let lock_path = beside(database, "-outbox.lock");
        for _ in 0..TRIES {
            let lock = open(&lock_path)?;
            match lock.try_lock() {
                // Whoever removed the file in between, and made another, would lock that one.
                Ok(()) if same_file(&lock.metadata().ok(), &lock_path) => {
                    let calls = open(&beside(database, "-outbox.calls"))?;
                    return Ok(Self { lock, lock_path, calls, database: database.to_owned(), opened: None });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::Error(error)) => return Err(failed("lock the outbox", error)),
            }
        }
        let by =
            read_state(&lock_path).map_or("another relay".into(), |state| format!("a relay (process {})", state.pid));
        Err(StorageError::Leased { by })
    }

    /// The same lease, for the database that is at its path now.
    pub(super) fn opened(mut self, database: &Path) -> Result<Box<dyn Lease>, StorageError> {
        let metadata = std::fs::metadata(database).map_err(|_| StorageError::Missing(database.to_owned()))?;
        self.opened = Some(metadata);
        Ok(Box::new(self))
    }
}

/// What the relay at work says about itself; none where there is none.
pub(super) fn holder(database: &Path) -> Option<RelayState> {
    let path = beside(database, "-outbox.lock");
    let lock = File::open(&path).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_state(&path),
        _ => None,
    }
}

fn read_state(lock_path: &Path) -> Option<RelayState> {
    let text = std::fs::read_to_string(lock_path).ok()?;
    serde_json::from_str(text.trim()).ok()
}

fn same_file(metadata: &Option<Metadata>, path: &Path) -> bool {
    match (metadata, std::fs::metadata(path)) {
        (Some(ours), Ok(theirs)) => ours.dev() == theirs.dev() && ours.ino() == theirs.ino(),
        _ => false,
    }
}

impl Lease for FileLease {
    /// One write into the page cache: the kernel keeps it when the process dies, and no disk is waited for.
    fn mark(&self, slot: usize, positions: &[i64]) {
        let positions = positions.get(..SLOT_POSITIONS_MAX).unwrap_or(positions);
        let mut bytes = [0_u8; SLOT_BYTES];
        let words = std::iter::once(positions.len() as u64).chain(positions.iter().map(|it| it.cast_unsigned()));
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let used = bytes.get(..(positions.len() + 1) * 8).unwrap_or(&bytes);
        if let Err(error) = self.calls.write_all_at(used, (slot * SLOT_BYTES) as u64) {
            tracing::warn!("cannot note which calls are under way: {error}");
        }
    }

    fn interrupted(&self) -> Vec<i64> {
        let mut positions = Vec::new();
        let mut slot = [0_u8; SLOT_BYTES];
        for number in 0.. {
            let read = read_up_to(&self.calls, &mut slot, number * SLOT_BYTES as u64);
            if read == 0 {
                break;
            }
            let mut words = slot.get(..read).unwrap_or_default().chunks_exact(8).map(word);
            let count = usize::try_from(words.next().unwrap_or(0)).unwrap_or(usize::MAX);
            positions.extend(words.take(count).map(u64::cast_signed));
        }
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    fn clear(&self) {
        if let Err(error) = self.calls.set_len(0) {
            tracing::warn!("cannot forget which calls were under way: {error}");
        }
    }

    fn show(&self, state: &RelayState) {
        let mut text = serde_json::to_string(state).unwrap_or_default();
        if text.len() > STATE_BYTES {
            let short = RelayState { reason: state.reason.chars().take(500).collect(), ..state.clone() };
            text = serde_json::to_string(&short).unwrap_or_default();
        }
        // In one write of always the same size, so that nobody reads half of it.
        text.extend(std::iter::repeat_n(' ', STATE_BYTES.saturating_sub(text.len())));
        if let Err(error) = self.lock.write_all_at(text.as_bytes(), 0) {
            tracing::debug!("cannot show the relay's state: {error}");
        }
    }

    fn check(&self) -> Result<(), StorageError> {
        if !same_file(&self.opened, &self.database) {
            let what = if self.database.exists() { "was replaced by another file" } else { "was removed" };
            return Err(StorageError::Replaced(format!("the database {} {what}", self.database.display())));
        }
        if !same_file(&self.lock.metadata().ok(), &self.lock_path) {
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

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        std::fs::write(&database, "").unwrap();
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
    }

    #[test]
    fn a_garbled_file_is_no_panic() {
        let (_folder, database) = database();
        std::fs::write(beside(&database, "-outbox.calls"), vec![0xff; 3_001]).unwrap();
        let lease = FileLease::take(&database).unwrap();
        assert_eq!(lease.interrupted(), [-1]);
    }

    #[test]
    fn a_database_or_lock_file_that_is_gone_or_another_is_noticed() {
        let (_folder, database) = database();
        let lease = FileLease::take(&database).unwrap().opened(&database).unwrap();
        lease.check().unwrap();
        let other = beside(&database, ".new");
        std::fs::write(&other, "").unwrap();
        std::fs::rename(&other, &database).unwrap();
        assert!(lease.check().unwrap_err().to_string().contains("was replaced"));
        std::fs::remove_file(&database).unwrap();
        assert!(lease.check().unwrap_err().to_string().contains("was removed"));
        std::fs::write(&database, "").unwrap();
        drop(lease);
        let lease = FileLease::take(&database).unwrap().opened(&database).unwrap();
        std::fs::remove_file(beside(&database, "-outbox.lock")).unwrap();
        assert!(lease.check().unwrap_err().is_replaced());
    }

    #[test]
    fn the_state_is_shown_while_the_lease_is_held() {
        let (_folder, database) = database();
        assert_eq!(holder(&database), None);
        let lease = FileLease::take(&database).unwrap();
        let state = RelayState {
            pid: 7,
            state: crate::outbox::RelayCondition::Paused,
            since: jiff::Timestamp::UNIX_EPOCH,
            reason: "x".repeat(10_000),
        };
        lease.show(&state);
        assert_eq!(holder(&database).unwrap().reason.len(), 500);
        drop(lease);
        assert_eq!(holder(&database), None);
    }
}
