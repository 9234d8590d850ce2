//! The user who runs this process, and the owners of files.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;

/// This user's numeric id.
pub(super) fn user() -> u32 {
    geteuid().as_raw()
}

/// Says who owns a file, and who asks.
pub(super) fn belongs(metadata: &Metadata) -> String {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    format!("it belongs to the user {owner} (mode {mode:o}), and this is the user {}", user())
}
