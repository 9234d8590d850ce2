//! An outbox relay whose publishers are sandboxed WebAssembly components.
//!
//! This crate is the program `outbox`. It is also a single dependency for programs that embed everything: it re-exports
//! [`outbox_engine`] (events, storages, publishers, the relay), [`outbox_sqlite`] and [`outbox_wasm`], each of which
//! can be used alone too. An application that only appends depends on `outbox-sqlite`, and compiles no wasmtime.
//!
//! An [`Outbox`] combines a storage ([`OutboxStorageStrategy`]) and a [`Serde`]. [`Outbox::run`] and [`Outbox::relay`]
//! call a [`Publisher`] once for each entry. A publisher is a WebAssembly component
//! ([`ComponentPublisher`](publisher::component)) or a closure. An application appends with [`outbox::append`], within
//! its own transaction.
//!
//! ```
//! use outbox_host::outbox::{self, sqlite::rusqlite::Connection};
//! use outbox_host::{JsonSerde, NewEvent, Outbox, Recorded, SqliteOutbox, StreamId};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("app.db");
//! SqliteOutbox::init(&file)?;
//! let mut db = Connection::open(&file)?;
//! db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)", [])?;
//!
//! // The application's own transaction: the order and its event are both there, or neither is.
//! let tx = db.transaction()?;
//! tx.execute("INSERT INTO orders (id) VALUES (42)", [])?;
//! outbox::append(&tx, &NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#))?;
//! tx.commit()?;
//!
//! // Here a closure publishes it; a `ComponentPublisher` goes in the same place.
//! let outbox = Outbox::new(SqliteOutbox::open(&file)?, JsonSerde);
//! let report = outbox.run(
//!     &|event: &Recorded| {
//!         println!("{}: {}", event.stream_id, event.wrapped_event.name);
//!         Ok(())
//!     },
//!     None,
//! )?;
//! assert_eq!(report.published, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub use outbox_engine::{
    Attempt, BATCH_BYTES_MAX, BATCH_MAX, BATCH_WAIT_MAX, Backoff, BoxFuture, BreakerRules, CanaryRules, Column,
    DEFAULT_LIMIT, DEFAULT_TENANT, EntryId, FAILURES_MAX, Failure, FairBy, Field, Filterer, History, InvalidRoutes,
    JsonSerde, Maintenance, MemoryOutbox, NewEvent, NoOutbox, OnDeadLetter, Ordering, Outbox, OutboxStorageStrategy,
    Outcome, PUBLISHERS_MAX, Pattern, Payload, Policy, PublishError, Publisher, PublisherOptions, Publishers, Rate,
    RateBy, RateLimit, RawEntry, Recorded, RelayOptions, Report, Route, Row, STREAM_NAMESPACE, Serde, SerdeError,
    Settlement, Stop, Stopping, StorageError, StoredData, StoredValue, StreamId, StreamKey, TENANT_WEIGHT_MAX,
    TenantKey, Then, Timestamp, Undecodable, Verdict, Withdrawn, WrappedEvent, files, judge, settle, settle_on_trial,
    stop, text,
};
pub use outbox_sqlite::SqliteOutbox;
pub use outbox_wasm::{VersionedPublisher, WatchedPublisher};

/// The event that an application appends, and the `Recorded` that a publisher gets.
pub mod recorded {
    pub use outbox_engine::{
        DEFAULT_TENANT, NewEvent, Payload, Recorded, STREAM_NAMESPACE, StreamId, WrappedEvent, parse_time,
    };
}

/// Storages: [`outbox_engine::outbox`], and [`outbox_sqlite`] as `sqlite`.
pub mod outbox {
    pub use outbox_engine::outbox::{
        Act, AttemptRecord, AuditRecord, BLOCKED_MAX, BlockedStream, BreakerState, BroughtBack, CanaryShare, Counts,
        DeadLetter, DeadLetterFilter, Deployed, Deployments, Drain, Failed, Fate, Held, Hold, LISTED_BYTES_MAX,
        MODULE_BYTES_MAX, MemoryOutbox, NoOutbox, Operator, OutboxStorageStrategy, Page, PageBounds, Pruned,
        PublisherState, PublisherVersion, RelayCondition, RelayState, Retention, RolledBack, Selection, Settled,
        Status, StorageError, StreamState, VersionState, Wanted, Watch,
    };
    pub use outbox_sqlite::{self as sqlite, SqliteError, SqliteOutbox, append, append_if};
}

/// Publishers: [`outbox_engine::publisher`], and [`outbox_wasm`] as `component`.
pub mod publisher {
    pub use outbox_engine::publisher::{Attempt, BoxFuture, Maintenance, Outcome, PublishError, Publisher, Withdrawn};
    pub use outbox_wasm::{self as component, VersionedPublisher, WatchedPublisher};
}
