use crate::{Error, Recorded};

/// Any error, as `?` makes it. [`Lifecycle::configure`] returns it.
pub type BoxError = Box<dyn std::error::Error>;

/// Publishes events to one kind of destination.
///
/// One instance serves many events, one call at a time. It is made by [`Default`], unless it is exported with
/// `lifecycle` (see [`Lifecycle`]).
///
/// ```
/// use outbox_guest::{Error, Publisher, Recorded};
///
/// #[derive(Default)]
/// struct Counter { seen: u64 }
///
/// impl Publisher for Counter {
///     fn publish(&mut self, event: Recorded) -> Result<(), Error> {
///         self.seen += 1;
///         println!("{} is event number {} of this instance", event.wrapped_event.name, self.seen);
///         Ok(())
///     }
/// }
///
/// outbox_guest::export!(Counter);
/// ```
pub trait Publisher {
    /// Publishes one event. Called at least once for each entry of the outbox.
    ///
    /// `Ok` means that the destination has the event, durably: the entry leaves the outbox.
    ///
    /// # Errors
    ///
    /// The kind of the error says what becomes of the entry: see [`Error`]. A panic counts as a failed attempt and
    /// ends the instance.
    fn publish(&mut self, event: Recorded) -> Result<(), Error>;
}

/// Publishes several events with one call. Export it with `batch`, and only if the destination takes several events at
/// once: otherwise it gains nothing.
///
/// ```
/// use outbox_guest::{BatchPublisher, Error, Publisher, Recorded};
///
/// #[derive(Default)]
/// struct Bulk;
///
/// impl Publisher for Bulk {
///     fn publish(&mut self, event: Recorded) -> Result<(), Error> {
///         send(&[event])
///     }
/// }
///
/// impl BatchPublisher for Bulk {
///     fn publish_batch(&mut self, events: Vec<Recorded>) -> Vec<Result<(), Error>> {
///         let sent = send(&events); // all or none, here
///         events.iter().map(|_| sent.clone()).collect()
///     }
/// }
///
/// fn send(events: &[Recorded]) -> Result<(), Error> {
///     println!("one request for {} events", events.len());
///     Ok(())
/// }
///
/// outbox_guest::export!(Bulk, batch);
/// ```
pub trait BatchPublisher: Publisher {
    /// Publishes `events`, which are in position order, and answers for each of them in the same order. Called instead
    /// of [`Publisher::publish`] whenever more than one event is waiting. They may be of many streams and tenants: a stream is
    /// known by its `tenant_id` and its `stream_id.id`.
    ///
    /// When an event fails, the later events of the same stream should not be published: the relay offers them again after
    /// the failed one, whatever their answer. Events of other streams are settled by their own answers.
    ///
    /// A panic, an answer of another length, and [`Error::retryable`] for every event say that the call failed, and not for
    /// which event: the relay then offers each of them again with [`Publisher::publish`].
    fn publish_batch(&mut self, events: Vec<Recorded>) -> Vec<Result<(), Error>>;
}

/// Makes a publisher from its configuration, instead of [`Default`]. Export it with `lifecycle`.
///
/// ```
/// use outbox_guest::{BoxError, Error, Lifecycle, Publisher, Recorded};
///
/// struct Greeter { greeting: String }
///
/// impl Lifecycle for Greeter {
///     fn configure() -> Result<Self, BoxError> {
///         let greeting = std::env::var("GREETING").map_err(|error| format!("GREETING: {error}"))?;
///         Ok(Greeter { greeting })
///     }
/// }
///
/// impl Publisher for Greeter {
///     fn publish(&mut self, event: Recorded) -> Result<(), Error> {
///         println!("{}, {}!", self.greeting, event.stream_id.id);
///         Ok(())
///     }
/// }
///
/// outbox_guest::export!(Greeter, lifecycle);
/// ```
pub trait Lifecycle: Sized {
    /// Reads the configuration, and checks that everything that the publisher needs is there. Called once for each
    /// instance, before its first event.
    ///
    /// # Errors
    ///
    /// An error refuses the instance: the relay shows its text to the operator and pauses the publisher, and no event
    /// uses up an attempt. Name the setting that is missing or wrong.
    fn configure() -> Result<Self, BoxError>;
}
