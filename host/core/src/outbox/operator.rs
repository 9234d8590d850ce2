//! What an operator may do with an outbox: see and settle dead letters, and prune what is old.

use jiff::Timestamp;
use serde::Serialize;

use super::error::StorageError;
use crate::raw::RawEntry;
use crate::row::{Column, Field, Row};
use crate::stream::StreamKey;

/// The most bytes of each part of a dead letter in a list. For a longer part, only the length is shown.
pub const LISTED_BYTES_MAX: usize = 64 * 1024;

/// What became of dead letters that were put back, for a storage in whose table one of them may be refused.
#[derive(Debug, Default)]
pub struct Retried {
    /// The positions of those that were put back.
    pub positions: Vec<i64>,
    /// The position of the first that the application's table refuses, and why.
    pub refused: Option<(i64, String)>,
}

impl Retried {
    /// The result of [`Operator::retry_dead_letters`].
    ///
    /// ```
    /// use outbox_engine::outbox::operator::Retried;
    ///
    /// let all = Retried { positions: vec![3, 5], refused: None };
    /// assert_eq!(all.result()?, [3, 5]);
    /// let one = Retried { positions: vec![3], refused: Some((5, "a constraint".into())) };
    /// assert!(one.result().unwrap_err().to_string().contains("dead letter 5"));
    /// # Ok::<(), outbox_engine::StorageError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StorageError::Declined`] if one was refused.
    pub fn result(self) -> Result<Vec<i64>, StorageError> {
        let Self { positions, refused } = self;
        match refused {
            None => Ok(positions),
            Some((position, cause)) => Err(StorageError::Declined(format!(
                "{} put back; dead letter {position}, if no other, is refused by the table outbox, and stays: {cause}. Mend it \
                 with `outbox dead edit`, or discard it",
                positions.len()
            ))),
        }
    }

    /// What the audit says of a dead letter of `position` that was put back at `put_back`, and freed of when it expired.
    pub fn detail(position: i64, put_back: i64, expired_at: Option<String>) -> String {
        let moved = (put_back != position)
            .then(|| format!("another entry has its place: it is at position {put_back} now, behind all others"));
        let freed = expired_at.map(|at| format!("expires_at was: {at}"));
        moved.into_iter().chain(freed).collect::<Vec<_>>().join("; ")
    }
}

/// The operator's side of a storage. The audit table records every act, in the transaction of the act.
pub trait Operator: Send + Sync {
    /// The entry at this position. None if there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError>;

    /// The selected dead letters, in position order, at most `limit`. For a part with more than [`LISTED_BYTES_MAX`]
    /// bytes, only the length is shown.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError>;

    /// The first selected dead letter. It is whole, except for parts that are longer than a publisher may be given.
    /// None if there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn dead_letter(&self, selection: &Selection) -> Result<Option<DeadLetter>, StorageError>;

    /// A dead letter as the entry that it was. None if there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError>;

    /// The attempts on record of the entries and dead letters that have, or had, this position, oldest first.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError>;

    /// Puts dead letters back into the outbox, at their old places, with the same uuid and no attempts used up. If
    /// another entry has its place now, a dead letter goes behind all entries. If somebody has put its entry back by
    /// hand, a dead letter stays as it is. Returns the positions of those that were put back.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; [`StorageError::Declined`] if the application's table refuses one of them: the others are put
    /// back all the same.
    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError>;

    /// Deletes dead letters. Returns their positions.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn discard_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError>;

    /// Replaces a dead letter's data by `data`, JSON. Returns false if there is no such dead letter.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn edit_dead_letter(&self, position: i64, data: &str, by: &Act) -> Result<bool, StorageError> {
        self.mend_dead_letter(position, &[(Column::Data, data.into()), (Column::ContentType, Field::Null)], by)
    }

    /// Replaces columns of a dead letter, and records each old value, or only its length if it is longer than a
    /// publisher may be given. Returns false if there is no such dead letter.
    ///
    /// # Errors
    ///
    /// [`StorageError`], for example [`StorageError::Declined`] if several dead letters have this position. Nothing is
    /// replaced then.
    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError>;

    /// The newest records of the audit table, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError>;

    /// Deletes, in one short transaction, records that are older than `retention` allows, at most `limit` of each kind.
    /// With `dry_run` it only counts, and counts all of them. If all numbers are 0, nothing is left to prune.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError>;
}

/// Who acts, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Who: a user's name, or the relay's.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// Which dead letters: every condition that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// The event's name; a `*` at its end stands for anything.
    pub name: Option<String>,
    /// The stream's id or name.
    pub stream: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// Those that were set aside at this time or later.
    pub since: Option<Timestamp>,
    /// A part of the reason or the outcome's name, in upper or lower case.
    pub reason: Option<String>,
    /// Those with a higher position than this.
    pub after: Option<i64>,
}

/// Dead letters by their positions, or by what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those at these positions.
    Positions(Vec<i64>),
    /// Those of the events with these uuids, as they are shown.
    Uuids(Vec<String>),
    /// All that match.
    Matching(DeadLetterFilter),
}

impl Selection {
    /// All dead letters.
    pub fn all() -> Self {
        Self::Matching(DeadLetterFilter::default())
    }
}

/// An entry that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its place in the outbox, where a retry puts it back.
    pub position: i64,
    /// Its tenant, as far as it can be shown.
    pub tenant_id: String,
    /// Its stream's id, as far as it can be shown.
    pub stream_id: String,
    /// Its stream's name.
    pub stream_name: Option<String>,
    /// Its stream's category.
    pub category: Option<String>,
    /// The event's uuid, as far as it can be shown.
    pub uuid: String,
    /// The event's type, as far as it can be shown.
    pub name: String,
    /// The event's version.
    pub version: Option<i64>,
    /// When the event was made, as its row says.
    pub created_at: String,
    /// The media type of `data`. None stands for JSON.
    pub content_type: Option<String>,
    /// What travels with the event.
    pub context: String,
    /// The event's data; binary data is shown as hex after `0x`.
    pub data: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// The outcome of the last one.
    pub outcome: String,
    /// Its reason.
    pub reason: String,
    /// When it was set aside.
    pub died_at: Timestamp,
    /// Whether its stream is parked until it is retried or discarded.
    pub parks_stream: bool,
    /// The publishers that have already delivered the event: a retry calls only the others.
    pub delivered_to: Vec<String>,
}

/// How an entry became a dead letter.
pub struct End {
    /// How many attempts it had.
    pub attempts: u32,
    /// The outcome of the last one.
    pub outcome: String,
    /// Its reason.
    pub reason: String,
    /// When it was set aside.
    pub died_at: Timestamp,
    /// Whether its stream is parked until it is retried or discarded.
    pub parks_stream: bool,
    /// The publishers that have already delivered the event.
    pub delivered_to: Vec<String>,
}

impl DeadLetter {
    /// The dead letter with this row.
    pub fn new(position: i64, row: &Row<'_>, end: End) -> Self {
        let text = |column| row.shown(column).unwrap_or_default();
        Self {
            position,
            tenant_id: text(Column::TenantId),
            stream_id: text(Column::StreamId),
            stream_name: row.shown(Column::StreamName),
            category: row.shown(Column::Category),
            uuid: text(Column::Uuid),
            name: text(Column::Name),
            version: match row.version {
                Field::Integer(version) => Some(version),
                _ => None,
            },
            created_at: text(Column::CreatedAt),
            content_type: row.shown(Column::ContentType),
            context: text(Column::Context),
            data: text(Column::Data),
            attempts: end.attempts,
            outcome: end.outcome,
            reason: end.reason,
            died_at: end.died_at,
            parks_stream: end.parks_stream && StreamKey::told(&row.tenant_id, &row.stream_id).is_some(),
            delivered_to: end.delivered_to,
        }
    }

    /// The dead letter as a list shows it.
    pub fn listed(position: i64, row: Row<'_>, end: End) -> Self {
        let short = |text: String| if text.len() > LISTED_BYTES_MAX { format!("({} bytes)", text.len()) } else { text };
        let end = End { outcome: short(end.outcome), reason: short(end.reason), ..end };
        Self::new(position, &row.within(LISTED_BYTES_MAX), end)
    }
}

impl DeadLetterFilter {
    /// Whether each condition holds for the dead letter with this row. Its columns are compared as they are shown.
    pub fn matches(&self, position: i64, row: &Row<'_>, end: &End) -> bool {
        let Self { name, stream, tenant, since, reason, after } = self;
        let is = |column, expected: &String| row.shown(column).is_some_and(|shown| shown == *expected);
        let has = |text: &str, part: &String| text.to_lowercase().contains(&part.to_lowercase());
        let has_name = |name: &String| match name.strip_suffix('*') {
            Some(start) => row.shown(Column::Name).unwrap_or_default().starts_with(start),
            None => is(Column::Name, name),
        };
        name.as_ref().is_none_or(has_name)
            && stream.as_ref().is_none_or(|stream| is(Column::StreamId, stream) || is(Column::StreamName, stream))
            && tenant.as_ref().is_none_or(|tenant| is(Column::TenantId, tenant))
            && since.is_none_or(|since| end.died_at >= since)
            && reason.as_ref().is_none_or(|reason| has(&end.reason, reason) || has(&end.outcome, reason))
            && after.is_none_or(|after| position > after)
    }
}

/// An attempt that is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptRecord {
    /// The uuid of the event, as far as it can be shown.
    pub uuid: String,
    /// Its number, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: Timestamp,
    /// How.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// The digest of the module that made it.
    pub digest: Option<String>,
    /// The last lines that the guest wrote to its standard error.
    pub stderr: String,
    /// Whether it no longer counts, because a canary made it that was later withdrawn.
    pub given_back: bool,
    /// The publisher that made it.
    pub publisher: Option<String>,
}

/// An operator's act that is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What: `retry`, `discard`, `edit` or `prune` of dead letters; `deploy`, `rollback` or `remove` of publishers.
    pub act: String,
    /// The dead letter that it was done to.
    pub position: Option<i64>,
    /// Its event's uuid.
    pub uuid: Option<String>,
    /// What else there is to know.
    pub detail: String,
}

/// How long records are kept. None stands for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Dead letters, with their attempts, from the time when they were set aside.
    pub dead_letters: Option<std::time::Duration>,
    /// Records of the attempts of entries that are still there.
    pub attempts: Option<std::time::Duration>,
    /// Records of operators' acts.
    pub audit: Option<std::time::Duration>,
}

/// How many records were pruned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Dead letters.
    pub dead_letters: u64,
    /// Attempts of entries.
    pub attempts: u64,
    /// Operators' acts.
    pub audit: u64,
}

impl Pruned {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.dead_letters + self.attempts + self.audit
    }
}

impl std::ops::AddAssign for Pruned {
    fn add_assign(&mut self, more: Self) {
        self.dead_letters += more.dead_letters;
        self.attempts += more.attempts;
        self.audit += more.audit;
    }
}

/// The error for a position that several dead letters have.
pub fn ambiguous(found: usize, position: i64) -> StorageError {
    StorageError::Declined(format!(
        "{found} dead letters have position {position}, which was given again: retry or discard one of them by its uuid first"
    ))
}
