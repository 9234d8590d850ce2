//! How the relay calls one publisher.

use crate::rate::RateLimit;

/// How the relay calls one publisher. The default does as the relay's own [`RelayOptions`](crate::RelayOptions) say.
///
/// ```
/// use outbox_engine::{PublisherOptions, Publishers, Recorded, Route};
///
/// let (webhook, archive) = (|_: &Recorded| Ok(()), |_: &Recorded| Ok(()));
/// let members = [("webhook", &webhook as _), ("archive", &archive as _)];
/// let one_at_a_time = PublisherOptions { concurrency: Some(1), ..PublisherOptions::default() };
/// let publishers = Publishers::routed(members, [Route::to(["webhook", "archive"])])?.with_options("archive", one_at_a_time);
/// # Ok::<(), outbox_engine::InvalidRoutes>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublisherOptions {
    /// The most calls at once, at least 1. None for [`RelayOptions::concurrency`](crate::RelayOptions::concurrency).
    pub concurrency: Option<usize>,
    /// How fast it may be given entries. None for no limit.
    pub rate: Option<RateLimit>,
}
