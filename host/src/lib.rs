//! An outbox relay whose publishers are sandboxed WebAssembly components.
//!
//! [`Outbox`] is the whole: a storage ([`OutboxStorageStrategy`]), a [`Serde`], and [`Outbox::run`] or
//! [`Outbox::relay`], which call a [`Publisher`] once for each entry. [`ComponentPublisher`](publisher::component) is a
//! publisher that is a WebAssembly component; a closure is one too. An application appends within its own transaction
//! with [`outbox::append`].

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod backoff;
mod canary;
mod column;
mod entry;
pub mod files;
mod jsonb;
pub mod outbox;
pub mod publisher;
mod publishers;
pub mod recorded;
mod relay;
mod repeats;
mod row;
mod runner;
mod serde;
mod settlement;
pub mod text;

pub use backoff::Backoff;
pub use canary::{CanaryRules, Verdict, judge};
pub use entry::{StreamKey, Undecodable};
pub use outbox::{MemoryOutbox, NoOutbox, OutboxStorageStrategy, SqliteOutbox, StorageError};
pub use publisher::{
    Attempt, BoxFuture, Kept, Outcome, PublishError, Publisher, VersionedPublisher, WatchedPublisher, Withdrawn,
};
pub use publishers::{InvalidRoutes, PUBLISHERS_MAX, Pattern, Publishers, Route};
pub use recorded::{DEFAULT_TENANT, NewEvent, Payload, Recorded, STREAM_NAMESPACE, StreamId, WrappedEvent};
pub use relay::{FAILURES_MAX, Failure, OnDeadLetter, Ordering, RelayOptions, Report, Stop, Stopping, Then, stop};
pub use row::{Column, EntryId, Field, RawEntry, Row};
pub use runner::{DEFAULT_LIMIT, Filterer, Outbox};
pub use serde::{JsonSerde, Serde, SerdeError, StoredData, StoredValue};
pub use settlement::{History, Policy, Settlement, settle, settle_on_trial};
