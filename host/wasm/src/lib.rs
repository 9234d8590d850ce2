//! Publishers that are WebAssembly components, run in a sandbox of [wasmtime](https://docs.rs/wasmtime).
//!
//! [`ComponentPublisher::load`] checks and compiles a file. Each call takes an idle instance, or starts one, and hands
//! it the event. If the instance answers, it is kept for later calls. Anything else (a trap, a limit, a time-out, a
//! call that is dropped half-way) ends this instance, and affects nothing else. A component reaches only what its
//! [`Settings`] grant; the default grants nothing.
//!
//! [`VersionedPublisher`] swaps the versions of a publisher that are deployed to an outbox. [`WatchedPublisher`]
//! follows the changes of a file.
//!
//! ```no_run
//! use outbox_engine::{JsonSerde, MemoryOutbox, NewEvent, Outbox, StreamId};
//! use outbox_wasm::{ComponentPublisher, Grants, Settings};
//!
//! let grants = Grants { allow_http: vec!["http://127.0.0.1:8080".parse()?], ..Grants::default() };
//! let publisher = ComponentPublisher::load("webhook.wasm".as_ref(), Settings { grants, ..Settings::default() })?;
//! println!("{} is {}", publisher.name(), publisher.digest());
//!
//! let outbox = Outbox::new(MemoryOutbox::default(), JsonSerde);
//! outbox.append(&[NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#)])?;
//! let report = outbox.run(&publisher, None)?;
//! println!("{} delivered, {} to be tried again", report.published, report.to_be_retried);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod address;
mod authorities;
mod bindings;
mod cache;
mod code;
mod compile_time;
mod compiler;
mod compiler_process;
mod descriptors;
mod destination;
mod engine;
mod expand;
mod failure;
mod grants;
mod guest_body;
mod host_memory;
mod http;
mod http_body;
mod http_call;
mod http_client;
mod http_connect;
mod http_pool;
mod http_resend;
mod http_tap;
mod http_wire;
mod inspect;
mod instance;
mod limits;
mod load;
mod load_error;
mod loading;
mod nesting;
mod outgoing;
mod output;
mod proxy;
mod publisher;
mod resolver;
mod secrets;
mod send_error;
mod settings;
mod sketch;
mod sockets;
mod state;
mod text;
mod versioned;
mod watched;
mod wit_text;

pub use self::authorities::{Authorities, InvalidAuthorities};
pub use self::compiler::Compiler;
pub use self::compiler_process::compile_for_another;
pub use self::grants::{Grants, HttpGrant, InvalidHttpGrant, InvalidTcpGrant, TcpGrant};
pub use self::http_tap::{HttpAnswer, HttpTap, SeenRequest};
pub use self::inspect::{GrantHint, Inspection, inspect};
pub use self::load_error::LoadError;
pub use self::output::{GuestLine, GuestStream, OutputSink};
pub use self::proxy::{HttpsProxy, InvalidProxy};
pub use self::publisher::ComponentPublisher;
pub use self::resolver::Resolver;
pub use self::secrets::{HeaderSecret, InvalidSecret};
pub use self::settings::{Isolation, Limits, LimitsConfig, Mib, Net, Settings, Time};
pub use self::versioned::VersionedPublisher;
pub use self::watched::WatchedPublisher;
