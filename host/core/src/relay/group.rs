//! A group of settled entries, and the orders to the acker.

use std::time::Instant;

use jiff::Timestamp;

use super::job::LaneId;
use crate::outbox::{Act, Retention, Settled};

/// Settled entries, and their lanes.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) lanes: Vec<LaneId>,
    pub(super) settled: Vec<Settled>,
    /// When the first of them was settled.
    pub(super) since: Option<Instant>,
    /// The settlements that the storage refused.
    pub(super) refused: Vec<Refused>,
}

/// A settlement that the storage refuses, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) settled: Settled,
    pub(super) reason: String,
}

/// An order to the acker.
#[derive(Debug)]
pub(super) enum Order {
    Commit(Group),
    /// To try refused settlements again.
    TryAgain(Vec<Settled>),
    /// To bring back what was put off and is due by `due_by`, or soon: by `until`.
    BringBack {
        due_by: Timestamp,
        until: Timestamp,
    },
    Prune {
        retention: Retention,
        by: Act,
    },
}
