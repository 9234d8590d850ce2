//! The outbox as an application or the command line sees it: a storage, a serde, and a loop that publishes.

use jiff::Timestamp;

use crate::new_event::NewEvent;
use crate::outbox::{OutboxStorageStrategy, StorageError};
use crate::publishers::Publishers;
use crate::relay::{self, RelayContext, RelayOptions, Report, Stopping};
use crate::serde::{JsonSerde, Serde};

/// How many entries a pass tries by default.
pub const DEFAULT_LIMIT: usize = 100;

/// Decides whether an event enters the outbox.
pub type Filterer = dyn Fn(&NewEvent) -> bool + Send + Sync;

/// An outbox. Each event that is appended to it is published at least once, in the order of its stream.
///
/// ```
/// use outbox_engine::{JsonSerde, MemoryOutbox, NewEvent, Outbox, Recorded, StreamId};
///
/// let outbox = Outbox::new(MemoryOutbox::default(), JsonSerde);
/// outbox.append(&[NewEvent::json(StreamId::new("order-42"), "order.placed", r#"{"order": 42}"#)])?;
///
/// let report = outbox.run(
///     &|event: &Recorded| {
///         println!("{}: {}", event.stream_id, event.wrapped_event.name);
///         Ok(())
///     },
///     None,
/// )?;
/// assert_eq!(report.published, 1);
/// # Ok::<(), outbox_engine::StorageError>(())
/// ```
pub struct Outbox<S, D = JsonSerde> {
    strategy: S,
    serde: D,
    filterer: Box<Filterer>,
    options: RelayOptions,
    clock: fn() -> Timestamp,
    random: fn() -> f64,
}

impl<S: OutboxStorageStrategy, D: Serde> Outbox<S, D> {
    /// An outbox that takes every event, with the default options.
    pub fn new(strategy: S, serde: D) -> Self {
        let (clock, random) = (Timestamp::now as fn() -> Timestamp, fastrand::f64 as fn() -> f64);
        Self { strategy, serde, filterer: Box::new(|_| true), options: RelayOptions::default(), clock, random }
    }

    /// The same outbox with other options.
    #[must_use]
    pub fn with_options(mut self, options: RelayOptions) -> Self {
        self.options = options;
        self
    }

    /// The same outbox, which only takes events that `filterer` accepts.
    #[must_use]
    pub fn with_filterer(mut self, filterer: impl Fn(&NewEvent) -> bool + Send + Sync + 'static) -> Self {
        self.filterer = Box::new(filterer);
        self
    }

    /// The same outbox with another wall clock, and other random numbers (from 0 to 1) for the backoff's jitter.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp, random: fn() -> f64) -> Self {
        (self.clock, self.random) = (clock, random);
        self
    }

    /// Where its entries are.
    pub fn strategy(&self) -> &S {
        &self.strategy
    }

    /// Appends the events that the filterer accepts, all in one transaction, and returns their positions.
    ///
    /// # Errors
    ///
    /// [`StorageError::Invalid`] names an event that no publisher could be given. Nothing is appended then.
    pub fn append(&self, events: &[NewEvent]) -> Result<Vec<i64>, StorageError> {
        let mut wanted = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate().filter(|(_, event)| (self.filterer)(event)) {
            let invalid = |reason| StorageError::Invalid { index, reason };
            event.check().map_err(invalid)?;
            let data = self.serde.serialize(&event.data).map_err(|error| invalid(error.to_string()))?;
            wanted.push((event.clone(), data));
        }
        self.strategy.append(&wanted)
    }

    /// Makes one pass: tries each entry that is due once, at most `limit` of them (by default [`DEFAULT_LIMIT`]).
    /// Blocks until all of them are settled durably.
    ///
    /// # Errors
    ///
    /// [`StorageError::Leased`] while somebody else drains this outbox. After any error, events that were delivered but
    /// not reported may be delivered again.
    pub fn run<'p>(
        &self,
        publishers: impl Into<Publishers<'p>>,
        limit: impl Into<Option<usize>>,
    ) -> Result<Report, StorageError> {
        relay::pass(self.context(&publishers.into()), limit.into().unwrap_or(DEFAULT_LIMIT))
    }

    /// Publishes until it is stopped: entries that are there, that anybody appends, and that are due for a retry.
    /// Stands by while somebody else drains this outbox. Blocks.
    ///
    /// # Errors
    ///
    /// Only if it cannot begin. Later it waits until a fault of the storage is mended.
    pub fn relay<'p>(
        &self,
        publishers: impl Into<Publishers<'p>>,
        stopping: &Stopping,
    ) -> Result<Report, StorageError> {
        relay::relay(self.context(&publishers.into()), stopping)
    }

    fn context<'a>(&'a self, publishers: &'a Publishers<'a>) -> RelayContext<'a> {
        let Self { strategy, serde, options, clock, random, .. } = self;
        RelayContext { strategy, serde, publishers, options, clock: *clock, random: *random }
    }
}
