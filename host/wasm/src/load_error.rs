//! Why a component cannot be loaded.

use std::path::PathBuf;
use std::time::Duration;

use super::bindings::PUBLISHER;
use super::text::bounded;

/// Why a file cannot be loaded as a publisher.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the publisher {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The component has more bytes than [`Limits::module_bytes`](super::Limits::module_bytes).
    #[error("the publisher {name} has more than {bytes_max} bytes (limit: module_mib)")]
    TooLarge {
        /// The publisher.
        name: String,
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes are no WebAssembly.
    #[error("{name} is not WebAssembly: a publisher is a component, a binary file that starts with `\\0asm`")]
    NotWasm {
        /// The publisher.
        name: String,
    },
    /// The bytes are a core module.
    #[error(
        "{name} is a core WebAssembly module, and a publisher is a component: build it for the target wasm32-wasip2, \
         or make a component of it with `wasm-tools component new`"
    )]
    CoreModule {
        /// The publisher.
        name: String,
    },
    /// The component is damaged, or uses what the host does not support.
    #[error("{name} is not a valid component: {reason}")]
    Invalid {
        /// The publisher.
        name: String,
        /// What wasmtime says.
        reason: String,
    },
    /// The component was not compiled within [`Limits::compile_time`](super::Limits::compile_time).
    #[error("the publisher {name} was not compiled within {limit:?} (limit: compile_time)")]
    CompileTime {
        /// The publisher.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// The process that compiled it needed more memory than [`Limits::compile_bytes`](super::Limits::compile_bytes).
    #[error("the publisher {name} was not compiled within {bytes_max} bytes of memory (limit: compile_mib)")]
    CompileMemory {
        /// The publisher.
        name: String,
        /// The limit.
        bytes_max: usize,
    },
    /// Its machine code is far larger than the component itself.
    #[error("the publisher {name} was compiled to more than {bytes_max} bytes of code (limit: compiled code)")]
    CodeTooLarge {
        /// The publisher.
        name: String,
        /// The limit.
        bytes_max: usize,
    },
    /// When it is compiled or instantiated, it unfolds to more than any publisher needs.
    #[error("the publisher {name} unfolds to too much: {reason}")]
    Expands {
        /// The publisher.
        name: String,
        /// What there is too much of.
        reason: String,
    },
    /// The component does not export the interface of a publisher.
    #[error("{name} is not a publisher: it does not export `{PUBLISHER}`; it exports {exports}")]
    NotAPublisher {
        /// The publisher.
        name: String,
        /// What it exports instead.
        exports: String,
    },
    /// The component is a publisher of another version of the contract.
    #[error(
        "{name} is a publisher of version {found} of the contract `outbox:publisher`, and this host knows version \
         {CONTRACT_VERSION}: build it with the WIT files of that version"
    )]
    OtherVersion {
        /// The publisher.
        name: String,
        /// The version that it exports.
        found: String,
    },
    /// An exported interface has the right name, but a function is missing or has other types.
    #[error("{name} exports `{interface}`, but not as it is defined: {reason}")]
    Mismatch {
        /// The publisher.
        name: String,
        /// The interface.
        interface: &'static str,
        /// Which function, and what differs.
        reason: String,
    },
    /// The component needs something that the host does not offer.
    #[error("{name} imports what this host does not offer: {reason}")]
    Imports {
        /// The publisher.
        name: String,
        /// Which imports.
        reason: String,
    },
    /// WebAssembly cannot be run at all.
    #[error("cannot start the WebAssembly engine: {reason}")]
    Engine {
        /// What wasmtime says.
        reason: String,
    },
}

/// The version that this host calls.
pub(super) const CONTRACT_VERSION: &str = "0.1.0";

/// wasmtime's messages quote the component, which may contain names of any length.
pub(super) const REASON_CHARS_MAX: usize = 2_000;

pub(super) fn invalid(name: &str, reason: impl ToString) -> LoadError {
    LoadError::Invalid { name: name.to_owned(), reason: bounded(reason.to_string(), REASON_CHARS_MAX) }
}
