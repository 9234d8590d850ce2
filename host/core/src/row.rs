//! A row of the outbox, which may contain anything.

use std::borrow::Cow;

/// The columns of a row. Anybody who can write to the database may have written it, so each column can contain
/// anything.
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
    /// When the event may be published. Mostly NULL, and a table need not have it.
    pub publish_after: Field<'a>,
    /// When the event is no longer wanted. Mostly NULL, and a table need not have it.
    pub expires_at: Field<'a>,
}

/// A column of the outbox, except the position.
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
    /// When the event may be published.
    PublishAfter,
    /// When the event is no longer wanted.
    ExpiresAt,
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
    /// Text; it need not be UTF-8.
    Text(Cow<'a, [u8]>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A value that is too long for a publisher, and was therefore not read: its length in bytes.
    TooLong(u64),
}

/// How many columns each row has.
pub(crate) const COLUMNS: usize = 11;

/// Kinds of columns.
const NULL: u64 = 0;
const INTEGER: u64 = 1;
const REAL: u64 = 2;
const TEXT: u64 = 3;
const BYTES: u64 = 4;
const TOO_LONG: u64 = 5;
/// How many bits a kind takes.
pub(crate) const KIND_BITS: u32 = 3;

/// FNV-1a, eight bytes at a time. It is fast, since each entry needs it, and an attacker gains nothing from collisions.
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

impl<'a> Row<'a> {
    /// The columns that each row has, in the order in which they are packed.
    #[inline]
    pub(crate) fn columns(&self) -> [&Field<'a>; COLUMNS] {
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
            publish_after: _,
            expires_at: _,
        } = self;
        [data, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context]
    }
}

impl<'a> Row<'a> {
    /// The row with these columns, which are in the order of [`Column::ALL`].
    #[inline]
    pub fn of(columns: [Field<'a>; COLUMNS]) -> Self {
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
            publish_after: Field::Null,
            expires_at: Field::Null,
        }
    }

    /// The value of a column.
    pub fn field(&self, column: Column) -> &Field<'a> {
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
            Column::PublishAfter => &self.publish_after,
            Column::ExpiresAt => &self.expires_at,
        }
    }

    /// The same row with another value in one column.
    #[must_use]
    pub fn with(mut self, column: Column, field: Field<'a>) -> Self {
        *match column {
            Column::TenantId => &mut self.tenant_id,
            Column::StreamId => &mut self.stream_id,
            Column::StreamName => &mut self.stream_name,
            Column::Category => &mut self.category,
            Column::Uuid => &mut self.uuid,
            Column::Name => &mut self.name,
            Column::Version => &mut self.version,
            Column::CreatedAt => &mut self.created_at,
            Column::ContentType => &mut self.content_type,
            Column::Context => &mut self.context,
            Column::Data => &mut self.data,
            Column::PublishAfter => &mut self.publish_after,
            Column::ExpiresAt => &mut self.expires_at,
        } = field;
        self
    }

    /// The same row, with only the length of values that have more than `bytes_max` bytes.
    pub fn within(&self, bytes_max: usize) -> Row<'_> {
        let [publish_after, expires_at] = Column::TIMES.map(|column| self.field(column).within(bytes_max));
        Row { publish_after, expires_at, ..Row::of(Column::ALL.map(|column| self.field(column).within(bytes_max))) }
    }
}

impl Column {
    /// The columns that each table has, in the order of the table's.
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
    /// The columns that a table may have beside these.
    pub const TIMES: [Self; 2] = [Self::PublishAfter, Self::ExpiresAt];

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
            Self::PublishAfter => "publish_after",
            Self::ExpiresAt => "expires_at",
        }
    }
}

impl<'a> Field<'a> {
    /// Its text. None if it is not text in UTF-8.
    pub fn text(&self) -> Option<&str> {
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

    /// How it is shown: text as it is, other bytes as hex after `0x`, and a value that is too long as its length. None
    /// for NULL.
    pub fn shown(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Integer(number) => Some(number.to_string()),
            Self::Real(number) => Some(number.to_string()),
            Self::Text(bytes) | Self::Bytes(bytes) => {
                Some(std::str::from_utf8(bytes).map_or_else(|_| format!("0x{}", hex::encode(bytes)), ToOwned::to_owned))
            }
            Self::TooLong(bytes) => Some(format!("({bytes} bytes)")),
        }
    }

    /// The same value, without memory of its own.
    pub(crate) fn borrowed(&self) -> Field<'_> {
        self.within(usize::MAX)
    }

    /// The same value, in memory of its own.
    pub fn into_owned(self) -> Field<'static> {
        match self {
            Self::Null => Field::Null,
            Self::Integer(number) => Field::Integer(number),
            Self::Real(number) => Field::Real(number),
            Self::Text(bytes) => Field::Text(bytes.into_owned().into()),
            Self::Bytes(bytes) => Field::Bytes(bytes.into_owned().into()),
            Self::TooLong(length) => Field::TooLong(length),
        }
    }

    /// The same field, or its length if it has more than `bytes_max` bytes.
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
    #[inline]
    pub(crate) fn hash64(&self) -> u64 {
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

    /// The value that was packed to these bytes, with this kind.
    pub(crate) fn unpacked(kind: u64, bytes: &'a [u8]) -> Self {
        match kind {
            INTEGER => Self::Integer(number(bytes).cast_signed()),
            REAL => Self::Real(f64::from_bits(number(bytes))),
            TEXT => Self::Text(bytes.into()),
            BYTES => Self::Bytes(bytes.into()),
            TOO_LONG => Self::TooLong(number(bytes)),
            _ => Self::Null,
        }
    }

    /// How many bytes it takes packed.
    #[inline]
    pub(crate) fn packed_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) | Self::TooLong(_) => size_of::<u64>(),
            Self::Text(bytes) | Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Adds its bytes to those of others, and returns its kind.
    #[inline]
    pub(crate) fn pack(&self, into: &mut Vec<u8>) -> u64 {
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

/// A number that was packed.
fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_le_bytes).unwrap_or_default()
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
