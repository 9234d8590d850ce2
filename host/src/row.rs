//! A row of the outbox, in which anything may stand, and how it is kept until it is decoded.

use std::borrow::Cow;
use std::fmt;

use crate::column;
use crate::entry::StreamKey;

/// What stands in the columns of a row. Whoever can write to the database may have written it: each part can be anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row<'a> {
    /// The entry's tenant.
    pub tenant_id: Field<'a>,
    /// Its stream's identity.
    pub stream_id: Field<'a>,
    /// Its stream's name.
    pub stream_name: Field<'a>,
    /// Its stream's category.
    pub category: Field<'a>,
    /// The event's identity.
    pub uuid: Field<'a>,
    /// The event's type.
    pub name: Field<'a>,
    /// The event's version.
    pub version: Field<'a>,
    /// When the event was made.
    pub created_at: Field<'a>,
    /// The media type of `data`.
    pub content_type: Field<'a>,
    /// What travels with the event.
    pub context: Field<'a>,
    /// The event's data.
    pub data: Field<'a>,
}

/// A column of the outbox's; its position is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// The entry's tenant.
    TenantId,
    /// Its stream's identity.
    StreamId,
    /// Its stream's name.
    StreamName,
    /// Its stream's category.
    Category,
    /// The event's identity.
    Uuid,
    /// The event's type.
    Name,
    /// The event's version.
    Version,
    /// When the event was made.
    CreatedAt,
    /// The media type of the data.
    ContentType,
    /// What travels with the event.
    Context,
    /// The event's data.
    Data,
}

/// One part of a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Field<'a> {
    /// Nothing.
    #[default]
    Null,
    /// A whole number.
    Integer(i64),
    /// A floating point number.
    Real(f64),
    /// What was written as text; it need not be UTF-8.
    Text(Cow<'a, [u8]>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// More than anybody could be given, and so not read: its length in bytes.
    TooLong(u64),
}

/// Which entry: its place, and whose place it is. A position can be given again, in a table that was restored or rebuilt,
/// or that has no `AUTOINCREMENT`: the event's uuid tells the two entries apart.
///
/// ```
/// use outbox_host::{EntryId, Field};
///
/// let entry = EntryId::of(7, &"5b8c0f5e-6f0c-4f43-9d6b-1a6f2d5a7c11".into());
/// assert_eq!(entry, EntryId::of(7, &"5b8c0f5e-6f0c-4f43-9d6b-1a6f2d5a7c11".into()));
/// assert_ne!(entry, EntryId::of(7, &Field::Null));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// The entry's place in the outbox.
    pub position: i64,
    /// A hash of what stands in its column `uuid`, whatever that is. It is the same in every process.
    pub uuid_hash: u64,
}

impl EntryId {
    /// The entry at `position` whose column `uuid` holds this.
    pub fn of(position: i64, uuid: &Field<'_>) -> Self {
        Self { position, uuid_hash: uuid.hash64() }
    }
}

/// An entry as it was read, undecoded: its row, in one piece of memory.
///
/// ```
/// use outbox_host::{Field, JsonSerde, RawEntry, Row};
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
    /// The columns, one behind the other, and then, eight bytes for each, its kind and where it ends. `data` is the first, so
    /// that it need not be copied out.
    packed: Vec<u8>,
}

const COLUMNS: usize = 11;
/// Where `data` is among the columns of an entry.
const DATA: usize = 0;

/// Kinds of columns.
const NULL: u64 = 0;
const INTEGER: u64 = 1;
const REAL: u64 = 2;
const TEXT: u64 = 3;
const BYTES: u64 = 4;
const TOO_LONG: u64 = 5;
/// How many bits a kind takes, below those of where the column ends.
const KIND_BITS: u32 = 3;

impl RawEntry {
    /// The entry at `position`, which has this row.
    pub fn new(position: i64, row: &Row<'_>) -> Self {
        let stream = StreamKey::of_entry(position, &row.tenant_id, &row.stream_id);
        Self::known(EntryId::of(position, &row.uuid), stream, row)
    }

    /// The same, where it is known already which entry the row is, and of which stream.
    pub(crate) fn known(EntryId { position, uuid_hash }: EntryId, stream: StreamKey, row: &Row<'_>) -> Self {
        let columns = row.columns();
        let length: usize = columns.iter().map(|field| field.packed_len()).sum();
        let mut packed = Vec::with_capacity(length + COLUMNS * size_of::<u64>());
        let heads = columns.map(|field| {
            let kind = field.pack(&mut packed);
            ((packed.len() as u64) << KIND_BITS | kind).to_le_bytes()
        });
        packed.extend_from_slice(heads.as_flattened());
        Self { position, uuid_hash, stream, packed }
    }

    /// Its row.
    pub fn row(&self) -> Row<'_> {
        Row {
            data: self.column(DATA),
            tenant_id: self.column(1),
            stream_id: self.column(2),
            stream_name: self.column(3),
            category: self.column(4),
            uuid: self.column(5),
            name: self.column(6),
            version: self.column(7),
            created_at: self.column(8),
            content_type: self.column(9),
            context: self.column(10),
        }
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
    pub fn id(&self) -> EntryId {
        EntryId { position: self.position, uuid_hash: self.uuid_hash }
    }

    /// The stream that the entry belongs to, as far as it can be told.
    pub fn stream_key(&self) -> StreamKey {
        self.stream
    }

    /// How many bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.packed.len()
    }

    fn column(&self, index: usize) -> Field<'_> {
        let (kind, end) = self.head(index);
        let begin = index.checked_sub(1).map_or(0, |before| self.head(before).1);
        let bytes = self.packed.get(begin..end).unwrap_or_default();
        match kind {
            INTEGER => Field::Integer(number(bytes).cast_signed()),
            REAL => Field::Real(f64::from_bits(number(bytes))),
            TEXT => Field::Text(bytes.into()),
            BYTES => Field::Bytes(bytes.into()),
            TOO_LONG => Field::TooLong(number(bytes)),
            _ => Field::Null,
        }
    }

    /// A column's kind, and where it ends.
    fn head(&self, index: usize) -> (u64, usize) {
        let heads = self.packed.len().saturating_sub(COLUMNS * size_of::<u64>());
        let head = self.packed.get(heads + index * size_of::<u64>()..).and_then(|rest| rest.first_chunk());
        let head = head.map_or(NULL, |head| u64::from_le_bytes(*head));
        (head & ((1 << KIND_BITS) - 1), usize::try_from(head >> KIND_BITS).unwrap_or(usize::MAX))
    }
}

/// FNV-1a, eight bytes at a time: what it hashes is not an attacker's to gain from, and each entry needs it.
pub(crate) fn fnv<const PARTS: usize>(parts: [&[u8]; PARTS]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    for part in parts {
        mix(part.len() as u64);
        let (words, rest) = part.as_chunks();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            mix(rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }
    hash ^ (hash >> 32)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

impl<'a> Row<'a> {
    /// In the order in which they are packed.
    fn columns(&self) -> [&Field<'a>; COLUMNS] {
        let Self {
            tenant_id,
            stream_id,
            stream_name,
            category,
            uuid,
            name,
            version,
            created_at,
            content_type,
            context,
            data,
        } = self;
        [data, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context]
    }
}

impl<'a> Row<'a> {
    /// What a column is shown as; none for NULL. An identity is shown as what it is decoded to, where it can be.
    pub(crate) fn shown(&self, column: Column) -> Option<String> {
        let field = self.field(column);
        let decoded = match column {
            Column::TenantId => column::tenant_id(field).ok(),
            Column::StreamId => column::stream_id(field).ok(),
            Column::Uuid => column::uuid(field).ok().map(|uuid| uuid.to_string().into()),
            _ => None,
        };
        decoded.map(Cow::into_owned).or_else(|| field.shown())
    }

    /// The row with these columns, which are in the order of [`Column::ALL`].
    pub(crate) fn of(columns: [Field<'a>; COLUMNS]) -> Self {
        let [tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, data] =
            columns;
        Self {
            tenant_id,
            stream_id,
            stream_name,
            category,
            uuid,
            name,
            version,
            created_at,
            content_type,
            context,
            data,
        }
    }

    pub(crate) fn field(&self, column: Column) -> &Field<'a> {
        match column {
            Column::TenantId => &self.tenant_id,
            Column::StreamId => &self.stream_id,
            Column::StreamName => &self.stream_name,
            Column::Category => &self.category,
            Column::Uuid => &self.uuid,
            Column::Name => &self.name,
            Column::Version => &self.version,
            Column::CreatedAt => &self.created_at,
            Column::ContentType => &self.content_type,
            Column::Context => &self.context,
            Column::Data => &self.data,
        }
    }

    /// The same row with another value in one column.
    #[must_use]
    pub fn with(self, column: Column, field: Field<'a>) -> Self {
        Self::of(Column::ALL.map(|it| if it == column { field.clone() } else { self.field(it).clone() }))
    }

    /// The same row, with only the lengths of what has more than `bytes_max` bytes.
    pub(crate) fn within(&self, bytes_max: usize) -> Row<'_> {
        Row::of(Column::ALL.map(|column| self.field(column).within(bytes_max)))
    }
}

impl Column {
    /// Every column, in the order of the table's.
    pub const ALL: [Self; COLUMNS] = [
        Self::TenantId,
        Self::StreamId,
        Self::StreamName,
        Self::Category,
        Self::Uuid,
        Self::Name,
        Self::Version,
        Self::CreatedAt,
        Self::ContentType,
        Self::Context,
        Self::Data,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::TenantId => "tenant_id",
            Self::StreamId => "stream_id",
            Self::StreamName => "stream_name",
            Self::Category => "category",
            Self::Uuid => "uuid",
            Self::Name => "name",
            Self::Version => "version",
            Self::CreatedAt => "created_at",
            Self::ContentType => "content_type",
            Self::Context => "context",
            Self::Data => "data",
        }
    }

    /// The most bytes that a publisher could be given of it: more are not read.
    pub(crate) fn bytes_max(self) -> usize {
        if self == Self::Data { column::DATA_BYTES_MAX } else { column::TEXT_BYTES_MAX }
    }
}

impl<'a> Field<'a> {
    /// Its text, where it is text in UTF-8.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// What kind of thing it is, in words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Null => "NULL".into(),
            Self::Integer(_) => "a whole number".into(),
            Self::Real(_) => "a floating point number".into(),
            Self::Text(_) if self.text().is_some() => "text".into(),
            Self::Text(_) => "text in another encoding".into(),
            Self::Bytes(_) => "a blob".into(),
            Self::TooLong(bytes) => format!("{bytes} bytes"),
        }
    }

    /// What it is shown as: text as it is, other bytes as hex after `0x`, and of what is too long its length; none for NULL.
    pub(crate) fn shown(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Integer(number) => Some(number.to_string()),
            Self::Real(number) => Some(number.to_string()),
            Self::Text(bytes) | Self::Bytes(bytes) => {
                Some(std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), ToOwned::to_owned))
            }
            Self::TooLong(bytes) => Some(format!("({bytes} bytes)")),
        }
    }

    /// The same field, or its length, where it has more than `bytes_max` bytes.
    fn within(&self, bytes_max: usize) -> Field<'_> {
        match self {
            Self::Text(bytes) | Self::Bytes(bytes) if bytes.len() > bytes_max => Field::TooLong(bytes.len() as u64),
            Self::Text(bytes) => Field::Text(bytes.as_ref().into()),
            Self::Bytes(bytes) => Field::Bytes(bytes.as_ref().into()),
            Self::Null => Field::Null,
            Self::Integer(number) => Field::Integer(*number),
            Self::Real(number) => Field::Real(*number),
            Self::TooLong(length) => Field::TooLong(*length),
        }
    }

    /// A hash of the value, its kind included.
    fn hash64(&self) -> u64 {
        let (kind, number) = match self {
            Self::Null => (NULL, 0),
            Self::Integer(number) => (INTEGER, number.cast_unsigned()),
            Self::Real(number) => (REAL, number.to_bits()),
            Self::TooLong(length) => (TOO_LONG, *length),
            Self::Text(bytes) => (TEXT, fnv([bytes.as_ref()])),
            Self::Bytes(bytes) => (BYTES, fnv([bytes.as_ref()])),
        };
        number.rotate_left(KIND_BITS) ^ kind
    }

    fn packed_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) | Self::TooLong(_) => size_of::<u64>(),
            Self::Text(bytes) | Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn pack(&self, into: &mut Vec<u8>) -> u64 {
        match self {
            Self::Null => NULL,
            Self::Integer(number) => {
                into.extend_from_slice(&number.to_le_bytes());
                INTEGER
            }
            Self::Real(number) => {
                into.extend_from_slice(&number.to_bits().to_le_bytes());
                REAL
            }
            Self::TooLong(length) => {
                into.extend_from_slice(&length.to_le_bytes());
                TOO_LONG
            }
            Self::Text(bytes) => {
                into.extend_from_slice(bytes);
                TEXT
            }
            Self::Bytes(bytes) => {
                into.extend_from_slice(bytes);
                BYTES
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    "0x".chars().chain(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])).collect()
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes().into())
    }
}

impl From<String> for Field<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into_bytes().into())
    }
}

impl<'a> From<Option<&'a str>> for Field<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::from)
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
