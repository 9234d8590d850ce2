//! What is in the outbox, seen in one read transaction.

use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::outbox::StreamState;
use outbox_engine::outbox::blocked::{first_of_each, shown_time};
use outbox_engine::outbox::{BlockedStream, Status};
use outbox_engine::{Column, Row};
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{delayed, page, value};

static OLDEST: LazyLock<String> = LazyLock::new(|| {
    let created_at = value::measured(&[Column::CreatedAt], Column::bytes_max);
    format!("SELECT {created_at} FROM outbox ORDER BY position LIMIT 1")
});
const LAST_POSITION: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'";
static WAITING_ENTRY: LazyLock<String> = LazyLock::new(|| {
    let (key, reason) = (page::measured_key(), value::bounded("reason"));
    format!("SELECT {key}, attempts, {reason}, retry_at_ms FROM outbox_waiting WHERE position = ?1")
});
static PARKING_DEAD_LETTER: LazyLock<String> = LazyLock::new(|| {
    let (key, reason) = (page::measured_key(), value::bounded("reason"));
    format!("SELECT {key}, attempts, {reason} FROM outbox_dead_letters WHERE position = ?1")
});

/// Records of entries that somebody deleted by hand do not count.
const COUNT_WAITING: &str = "
    SELECT count(*) FROM outbox_waiting
    WHERE (undeletable IS TRUE) = ?1 AND EXISTS (SELECT 1 FROM outbox WHERE outbox.position = outbox_waiting.position
                                                               AND outbox.uuid IS outbox_waiting.uuid)";
static UNDELETABLE_REASON: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM outbox_waiting WHERE undeletable ORDER BY position LIMIT 1", value::bounded("reason"))
});

pub(super) fn read(connection: &mut Connection) -> rusqlite::Result<Status> {
    let transaction = connection.transaction()?;
    let (first, blocked_streams_total) = first_of_each(&page::held(&transaction)?);
    let blocked_streams = first.into_iter().map(|(position, state)| blocked(&transaction, position, state));
    let blocked_streams = blocked_streams.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let oldest = transaction.query_row(&OLDEST, [], |row| {
        let [created_at] = value::measured_fields(row, 0)?;
        Ok(shown_time(&created_at))
    });
    let waiting = |undeletable: bool| {
        transaction.query_row(COUNT_WAITING, [undeletable], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    let undeletable = waiting(true)?;
    let reason = transaction.query_row(&UNDELETABLE_REASON, [], |row| value::text(row, 0)).optional()?;
    let (delayed, delayed_until) = delayed::status(&transaction)?;
    Ok(Status {
        pending: count(&transaction, "SELECT count(*) FROM outbox")?.saturating_sub(undeletable),
        oldest_created_at: oldest.optional()?.flatten(),
        waiting: waiting(false)?,
        delayed,
        delayed_until,
        undeletable,
        undeletable_reason: reason.filter(|_| undeletable > 0),
        dead_letters: count(&transaction, "SELECT count(*) FROM outbox_dead_letters")?,
        last_position: last_position(&transaction)?,
        blocked_streams_total,
        blocked_streams,
        relay: None,
        relay_unknown: None,
    })
}

fn count(transaction: &Transaction<'_>, sql: &str) -> rusqlite::Result<u64> {
    transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// The highest position ever given. `sqlite_sequence` exists only if there is a table with AUTOINCREMENT, and the
/// application may have made its table without.
fn last_position(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let sequence = transaction.query_row(LAST_POSITION, [], |row| row.get(0)).optional();
    match sequence {
        Ok(Some(position)) => Ok(position),
        _ => transaction.query_row("SELECT coalesce(max(position), 0) FROM outbox", [], |row| row.get(0)),
    }
}

fn blocked(
    transaction: &Transaction<'_>,
    position: i64,
    state: StreamState,
) -> rusqlite::Result<Option<BlockedStream>> {
    let sql = if state == StreamState::Waiting { &WAITING_ENTRY } else { &PARKING_DEAD_LETTER };
    let found = transaction.prepare_cached(sql)?.query_row([position], |row| {
        let [tenant_id, stream_id] = value::measured_fields(row, 0)?;
        let retry_at =
            if state == StreamState::Waiting { Timestamp::from_millisecond(value::number(row, 6)?).ok() } else { None };
        let columns = Row { tenant_id, stream_id, ..Row::default() };
        Ok(BlockedStream::new(position, state, &columns, value::count(row, 4)?, retry_at, value::text(row, 5)?))
    });
    found.optional()
}
