//! Which calls are under way, in a file: the kernel keeps what was written to it when the process dies, and no disk is
//! waited for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

use memmap2::MmapMut;

use super::{failed, open};
use crate::outbox::StorageError;

/// The room for the positions of one call: a count, and as many positions as a batch may have.
const SLOT_BYTES: usize = 1_024;
const SLOT_POSITIONS_MAX: usize = SLOT_BYTES / 8 - 1;
/// The slots that are mapped into memory. So many calls at once are rare; a call is marked there in nanoseconds, where a
/// write to the file takes as long as a small publisher.
const SLOTS_MAPPED: usize = 256;
const BYTES_MAPPED: usize = SLOTS_MAPPED * SLOT_BYTES;

pub(super) struct Calls {
    file: File,
    mapped: Mutex<MmapMut>,
}

impl Calls {
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let file = open(path)?;
        let mapped = map(&file).map_err(|error| failed("open the file of the calls under way", error))?;
        Ok(Self { file, mapped: Mutex::new(mapped) })
    }

    /// Notes that the call of this slot is for these entries.
    pub(super) fn mark(&self, slot: usize, positions: &[i64]) {
        let positions = positions.get(..SLOT_POSITIONS_MAX).unwrap_or(positions);
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = mapped.chunks_exact_mut(SLOT_BYTES).nth(slot) {
            return fill(room, positions);
        }
        drop(mapped);
        let mut room = [0; SLOT_BYTES];
        fill(&mut room, positions);
        if let Err(error) = self.file.write_all_at(&room, (slot * SLOT_BYTES) as u64) {
            tracing::warn!("cannot note which calls are under way: {error}");
        }
    }

    /// The entries of all slots, each once.
    pub(super) fn marked(&self) -> Vec<i64> {
        let mut positions = Vec::new();
        let mut slot = [0_u8; SLOT_BYTES];
        let mut offset = 0;
        while self.file.read_exact_at(&mut slot, offset).is_ok() {
            let mut words = slot.chunks_exact(8).map(word);
            let count = usize::try_from(words.next().unwrap_or(0)).unwrap_or(usize::MAX);
            positions.extend(words.take(count).map(u64::cast_signed));
            offset += SLOT_BYTES as u64;
        }
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.chunks_exact_mut(SLOT_BYTES).for_each(|room| fill(room, &[]));
        if let Err(error) = self.file.set_len(BYTES_MAPPED as u64) {
            tracing::warn!("cannot forget which calls were under way: {error}");
        }
    }
}

#[expect(unsafe_code, reason = "a mapped file is memory that others can write to")]
fn map(file: &File) -> io::Result<MmapMut> {
    // Whole slots, and never less than is mapped.
    let length = file.metadata()?.len().max(BYTES_MAPPED as u64).next_multiple_of(SLOT_BYTES as u64);
    file.set_len(length)?;
    // SAFETY: what is read from it is only ever bytes, whoever wrote them. It is written to by the holder of the lock
    // beside it alone. Nobody else has a reason to shorten this file; who does ends the process, as with SQLite's own
    // `-shm` file.
    unsafe { memmap2::MmapOptions::new().len(BYTES_MAPPED).map_mut(file) }
}

/// The count comes last, and goes first: whenever the process is killed, what the count says is there.
fn fill(room: &mut [u8], positions: &[i64]) {
    let (count, rest) = room.split_at_mut(8);
    count.copy_from_slice(&0_u64.to_le_bytes());
    compiler_fence(Ordering::SeqCst);
    for (to, position) in rest.chunks_exact_mut(8).zip(positions) {
        to.copy_from_slice(&position.to_le_bytes());
    }
    compiler_fence(Ordering::SeqCst);
    count.copy_from_slice(&(positions.len() as u64).to_le_bytes());
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
