//! The engine of an outbox: events that are committed with an application's own data are published at least once, in
//! the order of their streams.
//!
//! An [`Outbox`] combines a storage ([`OutboxStorageStrategy`]) and a [`Serde`]. [`Outbox::run`] and [`Outbox::relay`]
//! call a [`Publisher`] once for each entry. This crate knows no database and no destination: [`MemoryOutbox`] is for
//! tests, `outbox-sqlite` keeps entries in SQLite, and `outbox-wasm` runs sandboxed WebAssembly components as
//! publishers. A closure is a publisher too.
//!
//! ```
//! use outbox_engine::{JsonSerde, MemoryOutbox, NewEvent, Outbox, PublishError, Recorded, StreamId};
//!
//! let outbox = Outbox::new(MemoryOutbox::default(), JsonSerde);
//! outbox.append(&[
//!     NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#),
//!     NewEvent::json(StreamId::new("order-43"), "order.dropped", r#"{"order": 43}"#),
//! ])?;
//!
//! let publisher = |event: &Recorded| match event.wrapped_event.name.as_str() {
//!     "order.placed" => Ok(()),
//!     other => Err(PublishError::rejected(format!("nobody wants {other}"))),
//! };
//! let report = outbox.run(&publisher, None)?;
//! assert_eq!((report.published, report.dead_lettered), (1, 1));
//! # Ok::<(), outbox_engine::StorageError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod attempt;
mod backoff;
mod canary;
mod column;
mod entry;
pub mod files;
mod jsonb;
mod new_event;
pub mod outbox;
pub mod publisher;
#[cfg(feature = "relay")]
mod publisher_options;
#[cfg(feature = "relay")]
mod publishers;
#[cfg(feature = "relay")]
mod rate;
mod raw;
mod recorded;
#[cfg(feature = "relay")]
mod relay;
#[cfg(feature = "relay")]
mod repeats;
mod row;
#[cfg(feature = "relay")]
mod runner;
mod serde;
mod settlement;
mod stream;
pub mod text;

pub use attempt::{Attempt, EXPIRED, Outcome, PublishError};
pub use backoff::Backoff;
pub use canary::{CanaryRules, Verdict, judge};
pub use entry::Undecodable;
pub use jiff::Timestamp;
pub use new_event::{NewEvent, parse_time};
pub use outbox::{MemoryOutbox, NoOutbox, OutboxStorageStrategy, StorageError};
pub use publisher::{BoxFuture, Maintenance, Publisher, Withdrawn};
#[cfg(feature = "relay")]
pub use publisher_options::{BATCH_BYTES_MAX, BATCH_MAX, BATCH_WAIT_MAX, PublisherOptions};
#[cfg(feature = "relay")]
pub use publishers::{InvalidRoutes, PUBLISHERS_MAX, Pattern, Publishers, Route};
#[cfg(feature = "relay")]
pub use rate::{Rate, RateBy, RateLimit};
pub use raw::{EntryId, RawEntry};
pub use recorded::{DEFAULT_TENANT, Payload, Recorded, STREAM_NAMESPACE, StreamId, WrappedEvent};
#[cfg(feature = "relay")]
pub use relay::{
    FAILURES_MAX, Failure, FairBy, OnDeadLetter, Ordering, RelayOptions, Report, Stop, Stopping, TENANT_WEIGHT_MAX,
    Then, stop,
};
pub use row::{Column, Field, Row};
#[cfg(feature = "relay")]
pub use runner::{DEFAULT_LIMIT, Filterer, Outbox};
pub use serde::{JsonSerde, Serde, SerdeError, StoredData, StoredValue};
pub use settlement::{BreakerRules, History, Policy, Settlement, settle, settle_on_trial};
pub use stream::{StreamKey, TenantKey};
