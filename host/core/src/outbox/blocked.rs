//! Which streams are held back, as the status shows them: the same for every storage.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{BLOCKED_MAX, BlockedStream, Held, Hold, LISTED_BYTES_MAX, StreamState};
use crate::column;
use crate::row::{Column, Field, Row};
use crate::stream::StreamKey;

/// The first entry that holds each stream, and how, in position order, at most [`BLOCKED_MAX`] of them; and how many
/// streams are held.
pub fn first_of_each(held: &[Held]) -> (Vec<(i64, StreamState)>, u64) {
    let mut streams: HashMap<StreamKey, (i64, StreamState)> = HashMap::new();
    for Held { stream, entry, hold, .. } in held {
        let state = match hold {
            Hold::Parked => StreamState::Parked,
            Hold::Waiting { .. } => StreamState::Waiting,
            Hold::Delivered => continue,
        };
        let first = streams.entry(*stream).or_insert((entry.position, state));
        *first = (*first).min((entry.position, state));
    }
    let total = streams.len() as u64;
    let mut first: Vec<(i64, StreamState)> = streams.into_values().collect();
    first.sort_unstable();
    first.truncate(BLOCKED_MAX);
    (first, total)
}

impl BlockedStream {
    /// The stream of this row, held back by the entry at this position.
    pub fn new(
        position: i64,
        state: StreamState,
        row: &Row<'_>,
        attempts: u32,
        retry_at: Option<Timestamp>,
        reason: String,
    ) -> Self {
        let row = row.within(LISTED_BYTES_MAX);
        let text = |column| row.shown(column).unwrap_or_default();
        let (tenant_id, stream_id) = (text(Column::TenantId), text(Column::StreamId));
        Self { tenant_id, stream_id, position, state, attempts, retry_at, reason }
    }
}

/// When an entry was made: in RFC 3339 if it can be parsed, else as it is stored.
pub fn shown_time(created_at: &Field<'_>) -> Option<String> {
    let shown = || Row { created_at: created_at.clone(), ..Row::default() }.within(LISTED_BYTES_MAX).created_at.shown();
    column::created_at(created_at).ok().map(Into::into).or_else(shown)
}
