//! What the tests share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "for tests only"
)]

use std::path::{Path, PathBuf};

pub mod outboxes;
pub mod publishers;
pub mod relaying;

/// The file of a publisher that `examples/build.sh` built, from `tests/guests/` or `examples/`.
///
/// # Panics
///
/// When it is not there.
pub fn guest(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").join(format!("{name}.wasm"));
    assert!(file.exists(), "{} is missing: examples/build.sh builds it", file.display());
    file
}
