//! Who this user is, and whose a file is.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;

/// This user's number.
pub(super) fn user() -> u32 {
    geteuid().as_raw()
}

/// Whose a file is, and who asks.
pub(super) fn belongs(metadata: &Metadata) -> String {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    format!("it belongs to the user {owner} (mode {mode:o}), and this is the user {}", user())
}
