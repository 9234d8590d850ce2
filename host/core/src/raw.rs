//! An entry as it is kept until it is decoded, and its identity.

use std::fmt;

use jiff::Timestamp;

use crate::column;
use crate::row::{COLUMNS, Field, KIND_BITS, Row};
use crate::stream::{StreamKey, TenantKey};

/// Identifies an entry by its position and its uuid. A position may be given again, in a table that was restored or
/// rebuilt, or that has no `AUTOINCREMENT`: the event's uuid distinguishes the two entries.
///
/// ```
/// use outbox_engine::{EntryId, Field};
///
/// let entry = EntryId::of(7, &"5b8c0f5e-6f0c-4f43-9d6b-1a6f2d5a7c11".into());
/// assert_eq!(entry, EntryId::of(7, &"5b8c0f5e-6f0c-4f43-9d6b-1a6f2d5a7c11".into()));
/// assert_ne!(entry, EntryId::of(7, &Field::Null));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// The entry's place in the outbox.
    pub position: i64,
    /// A hash of its column `uuid`, whatever that contains. It is the same in every process.
    pub uuid_hash: u64,
}

impl EntryId {
    /// The entry at `position` whose column `uuid` contains this.
    #[inline]
    pub fn of(position: i64, uuid: &Field<'_>) -> Self {
        Self { position, uuid_hash: uuid.hash64() }
    }
}

/// An entry as it was read, not decoded: its row, in one piece of memory.
///
/// ```
/// use outbox_engine::{Field, JsonSerde, RawEntry, Row};
///
/// let entry = RawEntry::new(7, &Row { stream_id: "order-42".into(), name: Field::Integer(5), ..Row::default() });
/// assert_eq!(entry.row().stream_id, "order-42".into());
/// assert_eq!(entry.decode(1, &JsonSerde).unwrap_err().to_string(), "uuid: a UUID is expected, not NULL");
/// ```
#[derive(Clone, PartialEq)]
pub struct RawEntry {
    /// The entry's place in the outbox.
    pub position: i64,
    uuid_hash: u64,
    stream: StreamKey,
    /// The columns, one after the other, and then eight bytes for each with its kind and its end. `data` comes first,
    /// so that it need not be copied out.
    packed: Vec<u8>,
    /// When it may be published, and when it is no longer wanted. Few entries have either.
    times: Option<Box<Times>>,
}

#[derive(Clone, PartialEq)]
struct Times {
    publish_after: Field<'static>,
    expires_at: Field<'static>,
}

impl Times {
    fn of(row: &Row<'_>) -> Option<Box<Self>> {
        if row.publish_after == Field::Null && row.expires_at == Field::Null {
            return None;
        }
        let (publish_after, expires_at) = (row.publish_after.clone(), row.expires_at.clone());
        Some(Box::new(Self { publish_after: publish_after.into_owned(), expires_at: expires_at.into_owned() }))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.publish_after.packed_len() + self.expires_at.packed_len()
    }
}

/// Where `data` and `tenant_id` are among the columns of an entry.
const DATA: usize = 0;
const TENANT_ID: usize = 1;

impl RawEntry {
    /// The entry at `position`, which has this row.
    pub fn new(position: i64, row: &Row<'_>) -> Self {
        let stream = StreamKey::of_entry(position, &row.tenant_id, &row.stream_id);
        Self::known(EntryId::of(position, &row.uuid), stream, row)
    }

    /// The same, if the entry's identity and stream are already known.
    #[inline]
    pub fn known(EntryId { position, uuid_hash }: EntryId, stream: StreamKey, row: &Row<'_>) -> Self {
        let columns = row.columns();
        let length: usize = columns.iter().map(|field| field.packed_len()).sum();
        let mut packed = Vec::with_capacity(length + COLUMNS * size_of::<u64>());
        let heads = columns.map(|field| {
            let kind = field.pack(&mut packed);
            ((packed.len() as u64) << KIND_BITS | kind).to_le_bytes()
        });
        packed.extend_from_slice(heads.as_flattened());
        Self { position, uuid_hash, stream, packed, times: Times::of(row) }
    }

    /// Its row.
    pub fn row(&self) -> Row<'_> {
        Row {
            data: self.column(DATA),
            tenant_id: self.column(TENANT_ID),
            stream_id: self.column(2),
            stream_name: self.column(3),
            category: self.column(4),
            uuid: self.column(5),
            name: self.column(6),
            version: self.column(7),
            created_at: self.column(8),
            content_type: self.column(9),
            context: self.column(10),
            publish_after: self.time(|times| &times.publish_after),
            expires_at: self.time(|times| &times.expires_at),
        }
    }

    fn time(&self, of: impl FnOnce(&Times) -> &Field<'static>) -> Field<'_> {
        self.times.as_deref().map_or(Field::Null, |times| of(times).borrowed())
    }

    /// When it may be published. None if that is at once, or if its column contains no time.
    ///
    /// ```
    /// use outbox_engine::{RawEntry, Row};
    ///
    /// let entry = RawEntry::new(7, &Row { publish_after: "2026-01-31T12:00:00Z".into(), ..Row::default() });
    /// assert_eq!(entry.publish_after(), "2026-01-31T12:00:00Z".parse().ok());
    /// assert_eq!(entry.expires_at(), None);
    /// ```
    #[inline]
    pub fn publish_after(&self) -> Option<Timestamp> {
        column::wanted_time(&self.times.as_deref()?.publish_after).ok().flatten()
    }

    /// When it is no longer wanted. None if that is never, or if its column contains no time.
    #[inline]
    pub fn expires_at(&self) -> Option<Timestamp> {
        column::wanted_time(&self.times.as_deref()?.expires_at).ok().flatten()
    }

    /// Its data alone, which is not copied.
    pub(crate) fn into_data(mut self) -> Field<'static> {
        let length = self.head(DATA).1;
        match self.column(DATA) {
            Field::Null => Field::Null,
            Field::Integer(number) => Field::Integer(number),
            Field::Real(number) => Field::Real(number),
            Field::TooLong(length) => Field::TooLong(length),
            Field::Text(_) => {
                self.packed.truncate(length);
                Field::Text(self.packed.into())
            }
            Field::Bytes(_) => {
                self.packed.truncate(length);
                Field::Bytes(self.packed.into())
            }
        }
    }

    /// Which entry it is.
    #[inline]
    pub fn id(&self) -> EntryId {
        EntryId { position: self.position, uuid_hash: self.uuid_hash }
    }

    /// The key of the entry's stream. If the stream cannot be determined, it is a key of the entry's own.
    #[inline]
    pub fn stream_key(&self) -> StreamKey {
        self.stream
    }

    /// The key of the entry's tenant.
    pub fn tenant_key(&self) -> TenantKey {
        TenantKey::of_entry(&self.column(TENANT_ID))
    }

    /// How many bytes of memory it takes.
    #[inline]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.packed.len() + self.times.as_deref().map_or(0, Times::bytes)
    }

    fn column(&self, index: usize) -> Field<'_> {
        let (kind, end) = self.head(index);
        let begin = index.checked_sub(1).map_or(0, |before| self.head(before).1);
        let bytes = self.packed.get(begin..end).unwrap_or_default();
        Field::unpacked(kind, bytes)
    }

    /// A column's kind, and where it ends.
    fn head(&self, index: usize) -> (u64, usize) {
        let heads = self.packed.len().saturating_sub(COLUMNS * size_of::<u64>());
        let head = self.packed.get(heads + index * size_of::<u64>()..).and_then(|rest| rest.first_chunk());
        let head = head.map_or(0, |head| u64::from_le_bytes(*head));
        (head & ((1 << KIND_BITS) - 1), usize::try_from(head >> KIND_BITS).unwrap_or(usize::MAX))
    }
}

impl fmt::Debug for RawEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawEntry").field("position", &self.position).field("row", &self.row()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_out_as_it_went_in() {
        let row = Row {
            tenant_id: Field::Null,
            stream_id: "order-1".into(),
            stream_name: "".into(),
            category: Field::Integer(i64::MIN),
            uuid: Field::Bytes(vec![0, 255].into()),
            name: Field::Text(vec![0xff].into()),
            version: Field::Real(-1.5),
            created_at: Field::TooLong(u64::MAX),
            content_type: "text/csv".into(),
            context: Field::Bytes(vec![].into()),
            data: "1,2".into(),
            publish_after: Field::Null,
            expires_at: Field::Real(0.5),
        };
        let entry = RawEntry::new(7, &row);
        assert_eq!(entry.row(), row);
        assert_eq!(entry.position, 7);
        assert!(entry.bytes() > "order-1".len() + "text/csv".len() + "1,2".len());
        assert_eq!(entry.stream_key(), StreamKey::of(b"default", b"order-1"));
        assert_eq!(entry.into_data(), "1,2".into());
        for data in [Field::Null, Field::Integer(-1), Field::Real(0.5), Field::TooLong(1), Field::Bytes(vec![1].into())]
        {
            let row = Row { data: data.clone(), ..row.clone() };
            let entry = RawEntry::new(8, &row);
            assert_eq!(entry.row(), row);
            assert_eq!(entry.into_data(), data);
        }
    }
}
