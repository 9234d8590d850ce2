//! The settings of a relay.

use std::time::Duration;

use crate::outbox::Retention;
use crate::settlement::Policy;

/// How a relay works. The default suits most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOptions {
    /// When to try again, and when to stop.
    pub policy: Policy,
    /// In which order entries are published.
    pub ordering: Ordering,
    /// What becomes of a stream when one of its entries becomes a dead letter.
    pub on_dead_letter: OnDeadLetter,
    /// Whether an entry whose `publish_after` is still to come holds back its stream until then; in total order, everything
    /// behind it. Otherwise the stream goes on without it.
    pub delay_holds_stream: bool,
    /// The most calls of each publisher at once, each for another stream; at least 1. Another number for one of them:
    /// [`PublisherOptions`](crate::PublisherOptions). With [`Ordering::Total`], there is one at a time.
    pub concurrency: usize,
    /// How long calls under way may take to end, once the relay is stopping.
    pub shutdown_grace: Duration,
    /// How long records are kept.
    pub retention: Retention,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            ordering: Ordering::Stream,
            on_dead_letter: OnDeadLetter::Continue,
            delay_holds_stream: false,
            concurrency: 8,
            shutdown_grace: Duration::from_secs(10),
            retention: Retention::default(),
        }
    }
}

/// In which order entries are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Within a stream in position order: an entry that failed holds back its own stream, and no other.
    #[default]
    Stream,
    /// In position order over all streams, one call at a time: an entry that failed holds back everything behind it, until
    /// it is delivered or becomes a dead letter. With [`OnDeadLetter::Park`], a dead letter holds back everything too.
    Total,
    /// No order: later entries overtake one that failed.
    None,
}

/// What becomes of a stream when one of its entries becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadLetter {
    /// It goes on with the next entry.
    #[default]
    Continue,
    /// It stands still until an operator retries or discards the dead letter.
    Park,
}
