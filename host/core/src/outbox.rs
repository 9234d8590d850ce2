//! Where entries are kept: the seam that every storage implements, and what crosses it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::new_event::NewEvent;
use crate::raw::EntryId;
use crate::serde::StoredData;
use crate::settlement::History;
use crate::stream::{StreamKey, TenantKey};

pub mod blocked;
mod cursor;
pub mod deployments;
mod drain;
mod error;
mod marks;
mod memory;
mod none;
pub mod operator;
mod publisher_state;

pub use cursor::{Cursor, ReadRanges, ReadTenants, Reading, Slice, TenantName};
pub use deployments::{
    CanaryShare, Counts, Deployed, Deployments, MODULE_BYTES_MAX, PublisherVersion, RolledBack, VersionState,
};
pub use drain::{BroughtBack, Drain, Page, PageBounds, Share, Shares, Wanted, entries_one_by_one};
pub use error::StorageError;
pub use marks::Marks;
pub use memory::MemoryOutbox;
pub use none::NoOutbox;
pub use operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, DeadLetterFilter, LISTED_BYTES_MAX, Operator, Pruned, Retention,
    Selection,
};
pub use publisher_state::{BreakerState, PublisherState};

/// Keeps the entries of an outbox. Every implementation passes the same conformance suite.
///
/// Each of its users sees a part of it: an application appends, a relay [drains](Drain), an operator reads the status and
/// [acts](Operator), and [`Deployments`] keeps the versions of publishers.
pub trait OutboxStorageStrategy: Send + Sync {
    /// Appends events in one transaction, all or none, and returns their positions.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is appended then.
    fn append(&self, events: &[(NewEvent, StoredData)]) -> Result<Vec<i64>, StorageError>;

    /// Takes the right to drain a share of this outbox, if there is one that nobody else has.
    ///
    /// # Errors
    ///
    /// [`StorageError::Leased`] if somebody else has it.
    fn drain(&self) -> Result<Box<dyn Drain + '_>, StorageError>;

    /// What an operator wants to know.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn status(&self) -> Result<Status, StorageError>;

    /// Makes a [`Watch`], which notices what anybody appends or does.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn watch(&self) -> Result<Box<dyn Watch>, StorageError>;

    /// What an operator may do with this outbox.
    fn operator(&self) -> &dyn Operator;

    /// The versions of publishers that this outbox keeps.
    fn deployments(&self) -> &dyn Deployments;
}

/// Something that holds a stream back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The stream.
    pub stream: StreamKey,
    /// The stream's tenant.
    pub tenant: TenantKey,
    /// The entry that waits, or the dead letter that parked the stream.
    pub entry: EntryId,
    /// What it is.
    pub hold: Hold,
    /// The names of the publishers that have already delivered the waiting entry's event.
    pub delivered_to: Vec<String>,
}

/// Why a stream is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Its first entry waits for a retry.
    Waiting {
        /// When it failed.
        failed_at: Timestamp,
        /// When it is due.
        retry_at: Timestamp,
        /// Its history.
        history: History,
    },
    /// It is parked behind a dead letter.
    Parked,
    /// It is not held back: it was delivered, but the storage refused to remove it. It must not be published again.
    Delivered,
}

/// An entry's new state.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// It was delivered, or a route drops it: it is removed.
    Delivered {
        /// The entry.
        entry: EntryId,
        /// Whether an earlier attempt of it is on record.
        tried_before: bool,
    },
    /// It was not.
    Failed(Box<Failed>),
    /// It was delivered, but the storage refuses to remove it: it stays, and [`Hold::Delivered`] records this.
    Undeletable {
        /// The entry.
        entry: EntryId,
        /// When the storage first refused.
        at: Timestamp,
        /// Why it cannot be removed.
        reason: String,
    },
    /// It may not be published before `until`: it leaves the outbox until [`Drain::bring_back`] brings it back.
    PutOff {
        /// The entry, of which no attempts are on record.
        entry: EntryId,
        /// When it is due.
        until: Timestamp,
    },
    /// Somebody removed it: its records are removed too. Another entry that may have its position now stays.
    Vanished {
        /// The entry.
        entry: EntryId,
    },
}

impl Settled {
    /// The entry.
    #[inline]
    pub fn entry(&self) -> EntryId {
        match self {
            Self::Delivered { entry, .. }
            | Self::Undeletable { entry, .. }
            | Self::Vanished { entry }
            | Self::PutOff { entry, .. } => *entry,
            Self::Failed(failed) => failed.entry,
        }
    }
}

/// An attempt that failed, and what becomes of its entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// The entry.
    pub entry: EntryId,
    /// When it failed.
    pub at: Timestamp,
    /// How it failed. If several publishers failed, this is the attempt that decides what becomes of the entry.
    pub attempt: Attempt,
    /// How the others failed.
    pub others: Vec<Attempt>,
    /// The names of the publishers that have already delivered the event; mostly empty.
    pub delivered_to: Vec<Arc<str>>,
    /// The entry's history, this attempt included.
    pub history: History,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of an entry that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It waits.
    Retry {
        /// When it is due.
        at: Timestamp,
    },
    /// It becomes a dead letter.
    DeadLetter {
        /// Whether its stream is parked until an operator acts.
        park: bool,
    },
}

/// Waits for changes of an outbox.
pub trait Watch: Send {
    /// Waits until something has changed since the last call, at most for `patience`. Returns whether it has.
    fn wait(&mut self, patience: Duration) -> bool;
}

/// What a relay says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayState {
    /// Its process.
    pub pid: u32,
    /// What it is doing.
    pub state: RelayCondition,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words; empty when all is well.
    pub reason: String,
    /// Its publishers, in the order of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publishers: Vec<PublisherState>,
}

/// What a relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayCondition {
    /// It publishes.
    Running,
    /// The publisher is unavailable, and paused.
    Paused,
    /// In total order, a dead letter parks everything: it waits for an operator.
    Parked,
    /// It cannot read or write the database.
    Degraded,
}

impl RelayCondition {
    /// The state's name, as the status shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Parked => "parked",
            Self::Degraded => "degraded",
        }
    }
}

/// What is in an outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Status {
    /// Entries that are not delivered yet, those that wait for a retry included.
    pub pending: u64,
    /// When the oldest of them was made: in RFC 3339 if possible, else as its row says.
    pub oldest_created_at: Option<String>,
    /// Entries that failed, and wait for a retry.
    pub waiting: u64,
    /// Entries that are put off until they are due. They do not count as pending.
    pub delayed: u64,
    /// When the first of them is due.
    pub delayed_until: Option<Timestamp>,
    /// Entries that were delivered, but that the database refuses to remove. They stay, and are not published again.
    pub undeletable: u64,
    /// Why the database refuses to remove one of them.
    pub undeletable_reason: Option<String>,
    /// Dead letters.
    pub dead_letters: u64,
    /// The highest position that was ever given; 0 if none was.
    pub last_position: i64,
    /// The streams that are held back, and the entry that holds each; at most [`BLOCKED_MAX`].
    pub blocked_streams: Vec<BlockedStream>,
    /// How many streams are held back in all.
    pub blocked_streams_total: u64,
    /// What the relay says about itself. None if no relay is at work.
    pub relay: Option<RelayState>,
    /// Why it is unknown whether a relay is at work. None if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_unknown: Option<String>,
}

/// How many blocked streams a [`Status`] names.
pub const BLOCKED_MAX: usize = 20;

/// What holds a stream back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamState {
    /// The stream is parked behind a dead letter.
    Parked,
    /// The first entry of the stream waits for a retry.
    Waiting,
}

/// A stream that is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockedStream {
    /// Its tenant.
    pub tenant_id: String,
    /// Its id.
    pub stream_id: String,
    /// The entry, or dead letter, that holds it back.
    pub position: i64,
    /// What holds the stream back.
    pub state: StreamState,
    /// The attempts that were made of that entry.
    pub attempts: u32,
    /// When it is due. None for a parked stream.
    pub retry_at: Option<Timestamp>,
    /// Why it failed.
    pub reason: String,
}
