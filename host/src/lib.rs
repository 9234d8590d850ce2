//! An outbox relay whose publishers are sandboxed WebAssembly components.

pub mod publisher;
pub mod recorded;

pub use publisher::{Attempt, BoxFuture, Outcome, PublishError, Publisher};
pub use recorded::{DEFAULT_TENANT, Payload, Recorded, STREAM_NAMESPACE, StreamId, WrappedEvent};
