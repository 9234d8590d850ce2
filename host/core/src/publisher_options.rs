//! How the relay calls one publisher.

use std::time::Duration;

use crate::rate::RateLimit;

/// The most events that a call may have, whatever is asked for.
pub const BATCH_MAX: usize = 1_000;
/// The most bytes of events that a call may have, whatever is asked for, unless it is one event.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest time for which a call may be collected, whatever is asked for.
pub const BATCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// How the relay calls one publisher. The default does as the relay's own [`RelayOptions`](crate::RelayOptions) say.
///
/// ```
/// use std::time::Duration;
///
/// use outbox_engine::{PublisherOptions, Publishers, Recorded, Route};
///
/// let (webhook, archive) = (|_: &Recorded| Ok(()), |_: &Recorded| Ok(()));
/// let members = [("webhook", &webhook as _), ("archive", &archive as _)];
/// let one_at_a_time = PublisherOptions { concurrency: Some(1), ..PublisherOptions::default() };
/// let in_bulk = PublisherOptions { batch_wait: Duration::from_millis(5), ..PublisherOptions::default() };
/// let publishers = Publishers::routed(members, [Route::to(["webhook", "archive"])])?
///     .with_options("webhook", one_at_a_time)
///     .with_options("archive", in_bulk);
/// # Ok::<(), outbox_engine::InvalidRoutes>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PublisherOptions {
    /// The most calls at once, at least 1. None for [`RelayOptions::concurrency`](crate::RelayOptions::concurrency).
    pub concurrency: Option<usize>,
    /// How fast it may be given entries. None for no limit.
    pub rate: Option<RateLimit>,
    /// The most events of a call, of one stream or of several, if the publisher takes batches; at most [`BATCH_MAX`]. With 1,
    /// each event has a call of its own. None for [`Publisher::max_batch`](crate::Publisher::max_batch).
    pub batch_max: Option<usize>,
    /// The most bytes of events of a call, all their columns together; at most [`BATCH_BYTES_MAX`]. A larger event has a
    /// call of its own.
    pub batch_bytes: usize,
    /// How long to wait, after the first event of a call, for more of them; at most [`BATCH_WAIT_MAX`]. A call that is full
    /// does not wait.
    pub batch_wait: Duration,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        let (concurrency, rate, batch_max) = (None, None, None);
        Self { concurrency, rate, batch_max, batch_bytes: 1024 * 1024, batch_wait: Duration::ZERO }
    }
}
