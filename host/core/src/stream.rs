//! The stream of an entry, as a number.

use std::borrow::Cow;

use crate::column;
use crate::row::{Field, fnv};

/// A stream of a tenant, as a hash of 64 bits. If two streams share a key, they hold each other up, but no event is
/// lost.
///
/// A storage may make its keys itself, for example in SQL: the relay only compares those of one storage. All spellings
/// of a stream must have the same key, in entries, in what waits, and in dead letters. An entry whose stream cannot be
/// determined has the key that [`of_entry`](Self::of_entry) gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub u64);

impl StreamKey {
    /// The key of the stream to which an entry with these columns belongs. If the stream cannot be determined, the
    /// entry gets a stream of its own, so that it holds up no other.
    ///
    /// Rows of every table that has these columns get their key here.
    #[inline]
    pub fn of_entry(position: i64, tenant_id: &Field<'_>, stream_id: &Field<'_>) -> Self {
        Self::told(tenant_id, stream_id).unwrap_or_else(|| Self::of_nobody(position))
    }

    /// The key of an entry at this position whose stream cannot be determined.
    pub(crate) fn of_nobody(position: i64) -> Self {
        // A tenant is never empty, so no real stream has this key.
        Self::of(b"", &position.to_le_bytes())
    }

    /// The key of the stream that these columns name. It is made of their decoded values, so that all spellings of a
    /// stream have the same key. None if they name no stream.
    #[inline]
    pub fn told(tenant_id: &Field<'_>, stream_id: &Field<'_>) -> Option<Self> {
        let (tenant_id, stream_id) = (column::tenant_id(tenant_id).ok()?, column::stream_id(stream_id).ok()?);
        Some(Self::of(tenant_id.as_bytes(), stream_id.as_bytes()))
    }

    /// The key of the stream `stream_id` of `tenant_id`. It is the same in every process and every version.
    #[inline]
    pub fn of(tenant_id: &[u8], stream_id: &[u8]) -> Self {
        Self(fnv([tenant_id, stream_id]))
    }
}

/// The most characters of a tenant's name that distinguish its turns from those of others.
pub(crate) const TENANT_CHARS_MAX: usize = 255;

/// A tenant, as a hash of 64 bits: whose turn it is when [`fair_by`](crate::RelayOptions::fair_by) is set. If two tenants
/// share a key, they share their turns, and nothing else.
///
/// ```
/// use outbox_engine::{Field, TenantKey};
///
/// let keys = [Field::Integer(42), Field::Real(42.0), "42".into()].map(|tenant| TenantKey::of_entry(&tenant));
/// assert_eq!(keys, [TenantKey::of(b"42"); 3]);
/// assert_eq!(TenantKey::of_entry(&Field::Null), TenantKey::of(b"default"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TenantKey(pub u64);

impl TenantKey {
    /// The key of the tenant with this name.
    pub fn of(name: &[u8]) -> Self {
        Self(fnv([name]))
    }

    /// The key of the tenant whom an application knows by this name.
    #[cfg(feature = "relay")]
    pub(crate) fn named(tenant: &str) -> Self {
        Self::of_entry(&tenant.into())
    }

    /// The key of the tenant to which an entry with this column belongs.
    pub fn of_entry(tenant_id: &Field<'_>) -> Self {
        Self::of(tenant_name(tenant_id).as_bytes())
    }
}

/// The name by which a tenant's turn is known: the beginning of its decoded name. Empty if it cannot be determined.
pub(crate) fn tenant_name<'f>(tenant_id: &'f Field<'_>) -> Cow<'f, str> {
    let name = column::tenant_id(tenant_id).unwrap_or_default();
    let end = name.char_indices().enumerate().find(|(chars, (_, char))| *chars == TENANT_CHARS_MAX || *char == '\0');
    match (end, name) {
        (None, name) => name,
        (Some((_, (end, _))), Cow::Borrowed(name)) => name.get(..end).unwrap_or_default().into(),
        (Some((_, (end, _))), Cow::Owned(mut name)) => {
            name.truncate(end);
            name.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::RawEntry;
    use crate::row::Row;

    #[test]
    fn the_streams_of_two_tenants_and_shifted_names_have_keys_of_their_own() {
        let key = |tenant: &str, stream: &str| StreamKey::of(tenant.as_bytes(), stream.as_bytes());
        let row = Row { tenant_id: "a".into(), stream_id: "b".into(), ..Row::default() };
        assert_eq!(key("a", "b"), RawEntry::new(1, &row).stream_key());
        let keys = [key("a", "b"), key("b", "a"), key("ab", ""), key("", "ab"), key("a", "b\0"), key("a", "")];
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
        let many: std::collections::HashSet<_> = (0..100_000).map(|n| key("default", &format!("order-{n}"))).collect();
        assert_eq!(many.len(), 100_000);
    }
}
