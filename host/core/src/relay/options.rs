//! The settings of a relay.

use std::collections::BTreeMap;
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
    /// Between whom the relay is fair.
    pub fair_by: FairBy,
    /// With [`FairBy::Tenant`]: how much a tenant gets, compared with others, by its name. One that is not named has 1. At least
    /// 1, at most [`TENANT_WEIGHT_MAX`].
    pub tenant_weights: BTreeMap<String, u32>,
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
            fair_by: FairBy::Nobody,
            tenant_weights: BTreeMap::new(),
            shutdown_grace: Duration::from_secs(10),
            retention: Retention::default(),
        }
    }
}

impl RelayOptions {
    /// Whether tenants have turns. In total order each entry has the turn that its position gives it.
    pub(super) fn has_turns(&self) -> bool {
        self.fair_by == FairBy::Tenant && self.ordering != Ordering::Total
    }
}

/// The most that a tenant may weigh.
pub const TENANT_WEIGHT_MAX: u32 = 1_000;

/// Between whom a relay is fair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FairBy {
    /// Nobody: entries are read and published in the order of their positions, as far as nothing is in their way.
    #[default]
    #[serde(skip)]
    Nobody,
    /// Tenants have turns, in reading and in publishing: one that has a million entries does not delay another's ten. Within
    /// a stream, which belongs to one tenant, the order stays. Not with [`Ordering::Total`]. The storage has to be able to
    /// find entries by tenants: see [`Drain::take_turns`](crate::outbox::Drain::take_turns).
    Tenant,
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
