//! Which calls are under way, in a file that outlives the process: see [`Drain::mark`](super::Drain::mark).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// The room for one call: a count, and as many positions as a batch may have (`BATCH_MAX`), or what a caller takes at once.
const SLOT_BYTES: usize = 8 * 1_024;
const SLOT_POSITIONS_MAX: usize = SLOT_BYTES / 8 - 1;
/// How many slots are read, however long the file is: more than any relay has calls at once.
const SLOTS_MAX: usize = 16_384;
/// How many positions are read: more than any relay has under way.
const POSITIONS_MAX: usize = 16_384;

/// A file with the marks of calls.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    /// The marks in this file, which is open for reading and writing.
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// Whether a file may contain marks of calls.
    pub fn may_be_in(file: &File) -> bool {
        let mut first = [0; 8];
        read_up_to(file, &mut first, 0);
        u64::from_le_bytes(first) <= SLOT_POSITIONS_MAX as u64
    }

    /// One write into the page cache: the kernel keeps it when the process dies, and it does not wait for the disk.
    ///
    /// # Errors
    ///
    /// The error of the write.
    pub fn mark(&self, slot: usize, positions: &[i64]) -> io::Result<()> {
        let positions = positions.get(..SLOT_POSITIONS_MAX).unwrap_or(positions);
        let mut bytes = Vec::with_capacity((positions.len() + 1) * 8);
        let words = std::iter::once(positions.len() as u64).chain(positions.iter().map(|it| it.cast_unsigned()));
        words.for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        self.0.write_all_at(&bytes, (slot * SLOT_BYTES) as u64)
    }

    /// The positions of all marks.
    pub fn interrupted(&self) -> Vec<i64> {
        let mut positions = Vec::new();
        let mut slot = [0_u8; SLOT_BYTES];
        for number in 0..SLOTS_MAX {
            let read = read_up_to(&self.0, &mut slot, (number * SLOT_BYTES) as u64);
            if read == 0 || positions.len() >= POSITIONS_MAX {
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

    /// Forgets all marks.
    ///
    /// # Errors
    ///
    /// The error of emptying the file.
    pub fn clear(&self) -> io::Result<()> {
        self.0.set_len(0)
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    read
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
