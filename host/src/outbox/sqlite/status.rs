//! What is in the outbox, seen in one read transaction.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::outbox::{BLOCKED_MAX, BlockedStream, Status};

const OLDEST: &str = "SELECT CAST(created_at AS TEXT) FROM outbox ORDER BY position LIMIT 1";
const LAST_POSITION: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'";
const BLOCKED: &str = "
    SELECT coalesce(CAST(tenant_id AS TEXT), ''), coalesce(CAST(stream_id AS TEXT), ''), min(position), 'waiting',
           attempts, retry_at_ms, reason
    FROM outbox_waiting WHERE EXISTS (SELECT 1 FROM outbox WHERE outbox.position = outbox_waiting.position) GROUP BY 1, 2
    UNION ALL
    SELECT coalesce(CAST(tenant_id AS TEXT), ''), coalesce(CAST(stream_id AS TEXT), ''), min(position), 'parked',
           attempts, NULL, reason
    FROM outbox_dead_letters WHERE parks_stream GROUP BY 1, 2
    ORDER BY 3";

/// What is on record of entries that somebody deleted by hand is not counted.
const WAITING: &str = "
    SELECT count(*) FROM outbox_waiting
    WHERE EXISTS (SELECT 1 FROM outbox WHERE outbox.position = outbox_waiting.position)";

pub(super) fn read(connection: &mut Connection) -> rusqlite::Result<Status> {
    let transaction = connection.transaction()?;
    let blocked_streams: Vec<BlockedStream> =
        transaction.prepare_cached(BLOCKED)?.query_map([], blocked)?.collect::<Result<_, _>>()?;
    Ok(Status {
        pending: count(&transaction, "SELECT count(*) FROM outbox")?,
        oldest_created_at: transaction.query_row(OLDEST, [], |row| row.get(0)).optional()?.flatten(),
        waiting: count(&transaction, WAITING)?,
        dead_letters: count(&transaction, "SELECT count(*) FROM outbox_dead_letters")?,
        last_position: last_position(&transaction)?,
        blocked_streams_total: blocked_streams.len() as u64,
        blocked_streams: blocked_streams.into_iter().take(BLOCKED_MAX).collect(),
        relay: None,
        relay_unknown: None,
    })
}

fn count(transaction: &Transaction<'_>, sql: &str) -> rusqlite::Result<u64> {
    transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// `sqlite_sequence` is only there once a table with AUTOINCREMENT is; the application may have made one without.
fn last_position(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let sequence = transaction.query_row(LAST_POSITION, [], |row| row.get(0)).optional();
    match sequence {
        Ok(Some(position)) => Ok(position),
        _ => transaction.query_row("SELECT coalesce(max(position), 0) FROM outbox", [], |row| row.get(0)),
    }
}

fn blocked(row: &Row<'_>) -> rusqlite::Result<BlockedStream> {
    let retry_at_ms: Option<i64> = row.get(5)?;
    Ok(BlockedStream {
        tenant_id: row.get(0)?,
        stream_id: row.get(1)?,
        position: row.get(2)?,
        state: if retry_at_ms.is_some() { "waiting" } else { "parked" },
        attempts: row.get(4)?,
        retry_at: retry_at_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        reason: row.get(6)?,
    })
}
