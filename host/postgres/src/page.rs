//! Reading entries of the table: by shares, in the order of their positions.

use std::sync::LazyLock;

use outbox_engine::{Column, EntryId, Field, RawEntry, StreamKey};
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Fault;
use super::gaps::Range;
use super::link::Link;
use super::value;

/// The shares of the streams.
pub(super) const SHARES: [i16; 64] = {
    let mut shares = [0; 64];
    let mut share = 0;
    while share < 64 {
        shares[share as usize] = share;
        share += 1;
    }
    shares
};

/// A row with more bytes than this in all its columns is read alone.
const SMALL_BYTES: usize = 16 * 1_024;
/// A name of a stream or tenant with more bytes is read with its entry.
const KEY_BYTES: usize = 1_024;

/// The columns of an entry as the reader takes them: whether it is small, what identifies it and its stream, and, where it
/// is small, everything else.
static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let length = |column: &str| format!("coalesce(octet_length({column}), 0)");
    let lengths = ["stream_name", "category", "name", "content_type", "context", "data", "data_bytes"].map(length);
    let rest = value::REST.split(", ").map(|column| format!("CASE WHEN small THEN {column} END"));
    format!(
        "e.share, e.position, e.uuid, e.tenant_id, e.stream_id, small, {}
         FROM found e CROSS JOIN LATERAL (SELECT {} <= {SMALL_BYTES}
                    AND octet_length(e.tenant_id) <= {KEY_BYTES} AND octet_length(e.stream_id) <= {KEY_BYTES} AS small) s
         ORDER BY e.position",
        rest.collect::<Vec<_>>().join(", "),
        lengths.join(" + ")
    )
});
/// How many result columns come before the rest.
const BEFORE_REST: usize = 6;

/// From `$2` to `$3`, but no more than `$4` positions behind the first entry, and `$5` entries of each share.
static NEXT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH first AS MATERIALIZED (
           SELECT min(f.position) AS position FROM unnest($1::smallint[]) s(share) CROSS JOIN LATERAL (
             SELECT position FROM outbox o WHERE o.share = s.share AND o.position BETWEEN $2 AND $3
             ORDER BY o.position LIMIT 1) f),
         last AS MATERIALIZED (
           SELECT CASE WHEN position > $3 - $4 THEN $3 ELSE position + $4 END AS position FROM first),
         found AS MATERIALIZED (
           SELECT e.* FROM first, last, unnest($1::smallint[]) s(share) CROSS JOIN LATERAL (
             SELECT * FROM outbox o WHERE o.share = s.share AND o.position BETWEEN first.position AND last.position
             ORDER BY o.position LIMIT $5) e)
         SELECT {}",
        *COLUMNS
    )
});
/// The entries of several ranges.
static RANGES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH found AS MATERIALIZED (
           SELECT e.* FROM unnest($2::bigint[], $3::bigint[]) r(first, last) CROSS JOIN unnest($1::smallint[]) s(share)
           CROSS JOIN LATERAL (
             SELECT * FROM outbox o WHERE o.share = s.share AND o.position BETWEEN r.first AND r.last
             ORDER BY o.position LIMIT $4) e)
         SELECT {}",
        *COLUMNS
    )
});
/// The entries at these places.
static PLACES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH found AS MATERIALIZED (
           SELECT o.* FROM unnest($1::smallint[], $2::bigint[]) p(share, position)
           JOIN outbox o ON o.share = p.share AND o.position = p.position)
         SELECT {}",
        *COLUMNS
    )
});
const FIND: &str = "
    SELECT o.share, o.position, o.uuid FROM unnest($1::bigint[]) p(position) CROSS JOIN unnest($2::smallint[]) s(share)
    JOIN outbox o ON o.share = s.share AND o.position = p.position";
static ENTRY: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM outbox WHERE share = $1 AND position = $2", value::measured(Column::bytes_max))
});

/// An entry that was found, and not taken out of its row yet.
pub(super) struct Found {
    pub(super) share: i16,
    pub(super) position: i64,
    pub(super) uuid: Uuid,
    row: Row,
}

impl Found {
    fn of(row: Row) -> Result<Self, Fault> {
        Ok(Self { share: row.try_get(0)?, position: row.try_get(1)?, uuid: row.try_get(2)?, row })
    }

    /// Which entry it is, and of which stream. A large row is read for it.
    pub(super) fn identity(&self, link: &mut Link) -> Result<(EntryId, StreamKey), Fault> {
        let entry = EntryId::of(self.position, &value::uuid(Some(self.uuid)));
        let (tenant, stream): (&str, &str) = (self.row.try_get(3)?, self.row.try_get(4)?);
        if !self.row.try_get::<_, bool>(5)? && (tenant.len() > KEY_BYTES || stream.len() > KEY_BYTES) {
            let read = entry_at(link, self.share, self.position)?;
            let stream = read.map_or_else(
                || StreamKey::of_entry(self.position, &Field::Null, &Field::Null),
                |read| read.stream_key(),
            );
            return Ok((entry, stream));
        }
        Ok((entry, StreamKey::of_entry(self.position, &tenant.into(), &stream.into())))
    }

    /// The whole entry. None if it was large, and somebody has removed it meanwhile.
    pub(super) fn entry(&self, link: &mut Link, id: EntryId, stream: StreamKey) -> Result<Option<RawEntry>, Fault> {
        if !self.row.try_get::<_, bool>(5)? {
            return Ok(entry_at(link, self.share, self.position)?.filter(|entry| entry.id() == id));
        }
        let (tenant, stream_id) = (self.row.try_get(3)?, self.row.try_get(4)?);
        let columns = value::rest(&self.row, BEFORE_REST, tenant, stream_id, value::uuid(Some(self.uuid)))?;
        Ok(Some(RawEntry::known(id, stream, &columns)))
    }
}

fn all_found(rows: Vec<Row>) -> Result<Vec<Found>, Fault> {
    rows.into_iter().map(Found::of).collect()
}

/// How much one statement reads: the most positions behind the first entry, and the most entries of each share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) span: i64,
    pub(super) of_share: usize,
}

/// The next entries of a range, in the order of positions.
#[derive(Default)]
pub(super) struct Next {
    pub(super) found: Vec<Found>,
    /// Whether the range has no more. If it may have, what is behind the last of them was not looked at.
    pub(super) end: bool,
}

/// Reads the next entries of a range: at least one, if there is any.
pub(super) fn next(link: &mut Link, first: i64, last: i64, reach: Reach) -> Result<Next, Fault> {
    let of_share = i64::try_from(reach.of_share).unwrap_or(i64::MAX);
    let rows = link.query(&NEXT, &[&SHARES.as_slice(), &first, &last, &reach.span, &of_share])?;
    let mut found = all_found(rows)?;
    let through = found.first().is_none_or(|first| first.position.saturating_add(reach.span) >= last);
    // Where a share has more than was read of it, nothing behind that is known of it.
    let (mut counts, mut known) = ([0_usize; 64], i64::MAX);
    for entry in &found {
        if let Some(count) = usize::try_from(entry.share).ok().and_then(|share| counts.get_mut(share)) {
            *count += 1;
            if *count == reach.of_share {
                known = known.min(entry.position);
            }
        }
    }
    found.retain(|entry| entry.position <= known);
    Ok(Next { found, end: through && known == i64::MAX })
}

/// The entries of these ranges, at most `limit` of each share and range.
pub(super) fn of_ranges(link: &mut Link, ranges: &[Range], limit: i64) -> Result<Vec<Found>, Fault> {
    let (first, last): (Vec<i64>, Vec<i64>) = ranges.iter().copied().unzip();
    all_found(link.query(&RANGES, &[&SHARES.as_slice(), &first, &last, &limit])?)
}

/// The entries at these places.
pub(super) fn at_places(link: &mut Link, places: &[(i16, i64)]) -> Result<Vec<Found>, Fault> {
    let (shares, positions): (Vec<i16>, Vec<i64>) = places.iter().copied().unzip();
    all_found(link.query(&PLACES, &[&shares, &positions])?)
}

/// Share, position and uuid of the entries at these positions, whose shares are not known.
pub(super) fn find(link: &mut Link, positions: &[i64]) -> Result<Vec<(i16, i64, Uuid)>, Fault> {
    let mut found = Vec::new();
    for row in link.query(FIND, &[&positions, &SHARES.as_slice()])? {
        found.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    Ok(found)
}

/// The entry at this place; a value that is too long for a publisher is only measured.
pub(super) fn entry_at(link: &mut Link, share: i16, position: i64) -> Result<Option<RawEntry>, Fault> {
    let row = link.first(&ENTRY, &[&share, &position])?;
    row.map(|row| Ok(RawEntry::new(position, &value::measured_row(&row)?))).transpose()
}

/// The entry at this position, whose share is not known.
pub(super) fn entry(link: &mut Link, position: i64) -> Result<Option<RawEntry>, Fault> {
    let Some((share, ..)) = find(link, &[position])?.first().copied() else { return Ok(None) };
    entry_at(link, share, position)
}
