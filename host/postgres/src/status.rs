//! What is in the outbox, seen in one transaction.

use std::sync::LazyLock;

use outbox_engine::Row as Columns;
use outbox_engine::outbox::blocked::{first_of_each, shown_time};
use outbox_engine::outbox::{BlockedStream, Status, StreamState};

use super::error::Fault;
use super::held::{self, KEY};
use super::link::Link;
use super::page::SHARES;
use super::{delayed, value};

/// Up to this number, pending entries are counted; beyond, their number is PostgreSQL's estimate.
pub(super) const COUNTED_MAX: i64 = 100_000;

const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) counted";
const ESTIMATE: &str = "SELECT reltuples::bigint FROM pg_class WHERE oid = 'outbox'::regclass";
const OLDEST: &str = "
    SELECT created_at FROM (
      SELECT f.* FROM unnest($1::smallint[]) s(share) CROSS JOIN LATERAL (
        SELECT position, created_at FROM outbox o WHERE o.share = s.share ORDER BY o.position LIMIT 1) f) first
    ORDER BY position LIMIT 1";
const LAST_POSITION: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_position_seq";
/// Records of entries that somebody deleted by hand do not count.
const WAITING: &str = "
    SELECT count(*) FILTER (WHERE NOT undeletable), count(*) FILTER (WHERE undeletable), min(reason) FILTER (WHERE undeletable)
    FROM outbox_waiting w
    WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.share = w.share AND o.position = w.position AND o.uuid = w.uuid)";
static WAITING_ENTRY: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {}, attempts, reason, retry_at_ms FROM outbox_waiting WHERE position = $1", held::key())
});
static PARKING_DEAD_LETTER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, attempts, reason FROM outbox_dead_letters WHERE position = $1 AND parks_stream ORDER BY id",
        held::key()
    )
});
const RELAY: &str = "
    SELECT state FROM outbox_relay r
    WHERE expires_at > clock_timestamp() AND EXISTS (SELECT 1 FROM outbox_share WHERE relay = r.id) LIMIT 1";

pub(super) fn read(link: &mut Link) -> Result<Status, Fault> {
    link.transaction(|link| {
        link.script("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
        let (first, blocked_streams_total) = first_of_each(&held::held(link)?);
        let mut blocked_streams = Vec::new();
        for (position, state) in first {
            blocked_streams.extend(blocked(link, position, state)?);
        }
        let oldest = link.first(OLDEST, &[&SHARES.as_slice()])?;
        let oldest_created_at = oldest.map(|row| value::time(&row, 0)).transpose()?;
        let waits = link.first(WAITING, &[])?;
        let (waiting, undeletable, undeletable_reason) = match waits {
            Some(row) => (value::number(&row, 0)?, value::number(&row, 1)?, row.try_get(2)?),
            None => (0, 0, None),
        };
        let state: Option<String> = link.first(RELAY, &[])?.map_or(Ok(None), |row| row.try_get(0))?;
        let (delayed, delayed_until) = delayed::status(link, COUNTED_MAX)?;
        Ok(Status {
            delayed,
            delayed_until,
            pending: pending(link)?.saturating_sub(undeletable),
            oldest_created_at: oldest_created_at.as_ref().and_then(shown_time),
            waiting,
            undeletable,
            undeletable_reason,
            dead_letters: number(link, "SELECT count(*) FROM outbox_dead_letters")?.unsigned_abs(),
            last_position: number(link, LAST_POSITION)?,
            blocked_streams_total,
            blocked_streams,
            relay: state.and_then(|state| serde_json::from_str(&state).ok()),
            relay_unknown: None,
        })
    })
}

/// Counting millions of rows would cost the database seconds.
fn pending(link: &mut Link) -> Result<u64, Fault> {
    let most = COUNTED_MAX.saturating_add(1);
    let counted = link.first(COUNT, &[&most])?.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
    let estimated = if counted > COUNTED_MAX { number(link, ESTIMATE)? } else { 0 };
    Ok(counted.max(estimated).unsigned_abs())
}

fn number(link: &mut Link, sql: &str) -> Result<i64, Fault> {
    Ok(link.first(sql, &[])?.map_or(Ok(0), |row| row.try_get(0))?)
}

fn blocked(link: &mut Link, position: i64, state: StreamState) -> Result<Option<BlockedStream>, Fault> {
    let sql = if state == StreamState::Waiting { &WAITING_ENTRY } else { &PARKING_DEAD_LETTER };
    let Some(row) = link.first(sql, &[&position])? else { return Ok(None) };
    let [tenant_id, stream_id] = held::read_key(&row)?;
    let retry_at = if state == StreamState::Waiting { Some(value::at(&row, KEY + 2)?) } else { None };
    let columns = Columns { tenant_id, stream_id, ..Columns::default() };
    let (attempts, reason) = (value::count(&row, KEY)?, row.try_get(KEY + 1)?);
    Ok(Some(BlockedStream::new(position, state, &columns, attempts, retry_at, reason)))
}
