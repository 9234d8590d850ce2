//! Entries that are put off: they leave the table `outbox` for `outbox_delayed`, and come back shortly before they are due.
//! Each is in one of the two tables, since a single transaction moves it.

use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::outbox::BroughtBack;
use outbox_engine::{EntryId, StreamKey};
use uuid::Uuid;

use super::error::Fault;
use super::held::{self, KEY};
use super::link::Link;
use super::{page, value};

/// How soon an entry is tried again that the table outbox refuses.
const AGAIN_MS: i64 = 10_000;
/// The most characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1_000;

/// The columns of an entry, without its position.
macro_rules! columns {
    () => {
        "tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, publish_after,
         expires_at, data, data_bytes"
    };
}
/// Copies an entry, if it is there.
pub(super) const PUT_OFF: &str = concat!(
    "INSERT INTO outbox_delayed (position, due_ms, wake_ms, ",
    columns!(),
    ") SELECT position, $4, $4, ",
    columns!(),
    " FROM outbox WHERE share = $1 AND position = $2 AND uuid = $3"
);
const PUT_BACK: &str = concat!(
    "INSERT INTO outbox (position, ",
    columns!(),
    ") OVERRIDING SYSTEM VALUE SELECT coalesce($2, nextval('outbox_position_seq')), ",
    columns!(),
    " FROM outbox_delayed WHERE id = $1 RETURNING position"
);
static DUE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, id, position, uuid, due_ms FROM outbox_delayed WHERE wake_ms <= $1 ORDER BY wake_ms, position LIMIT $2",
        held::key()
    )
});
const NEXT: &str = "SELECT wake_ms FROM outbox_delayed ORDER BY wake_ms LIMIT 1";
const NEXT_DUE: &str = "SELECT due_ms FROM outbox_delayed ORDER BY wake_ms LIMIT 1";
const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM outbox_delayed LIMIT $1) counted";
const ESTIMATE: &str = "SELECT reltuples::bigint FROM pg_class WHERE oid = 'outbox_delayed'::regclass";
const GONE: &str = "DELETE FROM outbox_delayed WHERE id = $1";
const DEFER: &str = "UPDATE outbox_delayed SET wake_ms = $2, refused = $3 WHERE id = $1";

pub(super) fn next(link: &mut Link) -> Result<Option<Timestamp>, Fault> {
    link.first(NEXT, &[])?.map(|row| value::at(&row, 0)).transpose()
}

/// How many there are, as far as counting is worth it, and when the first is due.
pub(super) fn status(link: &mut Link, counted_max: i64) -> Result<(u64, Option<Timestamp>), Fault> {
    let most = counted_max.saturating_add(1);
    let mut count: i64 = link.first(COUNT, &[&most])?.map_or(Ok(0), |row| row.try_get(0))?;
    if count > counted_max {
        count = count.max(link.first(ESTIMATE, &[])?.map_or(Ok(0), |row| row.try_get(0))?);
    }
    let next = link.first(NEXT_DUE, &[])?.map(|row| value::at(&row, 0)).transpose()?;
    Ok((count.unsigned_abs(), next))
}

/// An entry that is due.
struct Due {
    id: i64,
    position: i64,
    uuid: Uuid,
    due: Timestamp,
    stream: StreamKey,
}

fn due(link: &mut Link, until: Timestamp, max: usize) -> Result<Vec<Due>, Fault> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut due = Vec::new();
    for row in link.query(&DUE, &[&until.as_millisecond(), &max])? {
        let ([tenant, stream], position) = (held::read_key(&row)?, row.try_get(KEY + 1)?);
        let stream = StreamKey::of_entry(position, &tenant, &stream);
        let (id, uuid) = (row.try_get(KEY)?, row.try_get(KEY + 2)?);
        due.push(Due { id, position, uuid, due: value::at(&row, KEY + 3)?, stream });
    }
    Ok(due)
}

/// Brings back what is due, within a transaction. What the table outbox refuses stays, and is tried again later.
pub(super) fn bring_back(
    link: &mut Link,
    due_by: Timestamp,
    until: Timestamp,
    max: usize,
) -> Result<BroughtBack, Fault> {
    let mut back = BroughtBack::default();
    for due in due(link, until, max)? {
        link.script("SAVEPOINT bring_back")?;
        match bring_one_back(link, &due) {
            Err(fault) if fault.is_refusal() => {
                let reason: String = fault.text().chars().take(REASON_CHARS_MAX).collect();
                link.script("ROLLBACK TO bring_back")?;
                link.execute(DEFER, &[&due.id, &due_by.as_millisecond().saturating_add(AGAIN_MS), &reason])?;
                back.refused.push((due.position, reason));
            }
            entry => back.entries.extend(entry?.map(|entry| (due.stream, entry, due.due))),
        }
        link.script("RELEASE bring_back")?;
    }
    back.next = next(link)?;
    Ok(back)
}

/// Returns which entry it is now. None if it is in the outbox already: somebody has put it there.
fn bring_one_back(link: &mut Link, due: &Due) -> Result<Option<EntryId>, Fault> {
    let there = page::find(link, &[due.position])?;
    let mut entry = None;
    if !there.iter().any(|(_, _, uuid)| *uuid == due.uuid) {
        let place = there.is_empty().then_some(due.position);
        let ignored = || Fault::refused("bring back an entry that is due", "a trigger on the table outbox ignores it");
        let row = link.first(PUT_BACK, &[&due.id, &place])?.ok_or_else(ignored)?;
        entry = Some(EntryId::of(row.try_get(0)?, &value::uuid(Some(due.uuid))));
    }
    link.execute(GONE, &[&due.id])?;
    Ok(entry)
}
