#![doc = include_str!("../README.md")]
//! # What a publisher is given, and what it answers
//!
//! The relay calls [`Publisher::publish`] with one [`Recorded`] at a time. `Ok(())` means that the destination has the
//! event, durably: the relay then removes the entry. Any [`Error`] leaves the entry in place, and so does a panic,
//! which becomes a trap. An event may come more than once: `event.wrapped_event.uuid` stays the same, and is the
//! idempotency key for the destination.
//!
//! # State
//!
//! An instance of a component serves many events, so a publisher is a value that lives as long as the instance.
//! [`Default`] makes it, or [`Lifecycle::configure`] if it has settings to read. It may be lost between any two events,
//! and a new one must do as well.
//!
//! # Tests
//!
//! A publisher is an ordinary type: [`Recorded::example`] makes an event for it, and `cargo test` on the machine's own
//! target runs it without a sandbox ([`export!`] expands to a type check there).
#![deny(missing_docs)]

mod decode;
mod error;
mod export;
#[cfg(feature = "http")]
pub mod http;
mod publisher;
mod recorded;
mod route;
mod trace;

// The export macro expands in the publisher's crate and must reach these two modules; nobody else should use them.
#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub use export::{Instance, check_batch_publisher, check_publisher};

pub use decode::DecodeError;
pub use error::Error;
pub use publisher::{BatchPublisher, BoxError, Lifecycle, Publisher};
pub use recorded::{Payload, Recorded, StreamId, WrappedEvent};
pub use route::Route;
pub use trace::Trace;
