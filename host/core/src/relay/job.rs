//! A job for a caller: entries of one lane, and their size.

use std::hash::Hasher;

use jiff::Timestamp;

use crate::attempt::Outcome;
use crate::publishers::PublisherSet;
use crate::raw::{EntryId, RawEntry};
use crate::recorded::Recorded;
use crate::serde::Serde;
use crate::settlement::History;
use crate::stream::StreamKey;

/// An entry to be published, with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim {
    pub(super) known: Known,
    pub(super) entry: RawEntry,
}

/// What the relay knows of an entry beside its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    pub(super) id: EntryId,
    pub(super) stream: StreamKey,
    pub(super) history: History,
    /// Whether attempts of it are on record.
    pub(super) tried_before: bool,
    /// The publishers to which it goes.
    pub(super) route: PublisherSet,
    /// Those of them that already have it.
    pub(super) delivered: PublisherSet,
    /// Whether its next call is for it alone: it was tried before, or failed in a call with others, so that it may be what
    /// makes calls fail; or it is too large for company.
    pub(super) alone: bool,
}

impl Known {
    /// The publishers that are still to be called.
    pub(super) fn legs(&self) -> PublisherSet {
        self.route.without(self.delivered)
    }
}

impl Claim {
    /// The event for its publishers, if they may have it now. Otherwise the outcome, or None if its time has not come: the
    /// clock may have been set back since it was read.
    pub(super) fn into_event(self, serde: &dyn Serde, clock: fn() -> Timestamp) -> Result<Recorded, Option<Outcome>> {
        let expired_at = self.entry.expires_at().filter(|at| clock() >= *at);
        let is_early = self.entry.publish_after().is_some_and(|after| clock() < after);
        let event = self.decode(serde)?;
        match expired_at {
            Some(at) => Err(Some(Outcome::Expired { reason: format!("it expired at {at}") })),
            None if is_early => Err(None),
            None => Ok(event),
        }
    }

    pub(super) fn decode(self, serde: &dyn Serde) -> Result<Recorded, Outcome> {
        self.entry.decode(self.known.history.attempts.saturating_add(1), serde).map_err(Outcome::from)
    }
}

/// Entries of one lane that go to the same publishers, to be published one after the other. If these are several, it is
/// one entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub(super) lane: LaneId,
    pub(super) claims: Vec<Claim>,
    /// The publishers that are to be called.
    pub(super) legs: PublisherSet,
    /// Whether its call is for no other lane's entries too.
    pub(super) alone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(pub(super) u64);

/// How much was read, and is not published yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Load {
    pub(super) fn add(&mut self, claim: &Claim) {
        self.join(Self { entries: 1, bytes: claim.entry.bytes() });
    }

    pub(super) fn join(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    pub(super) fn of<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> Self {
        claims.into_iter().fold(Self::default(), |mut load, claim| {
            load.add(claim);
            load
        })
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.entries -= other.entries;
        self.bytes -= other.bytes;
    }
}

/// A fast hasher: the ids are hashes already, or numbers, and one multiplication spreads them.
#[derive(Default)]
pub(super) struct LaneHasher(u64);

impl Hasher for LaneHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
