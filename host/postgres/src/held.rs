//! What holds streams back.

use std::sync::LazyLock;

use outbox_engine::outbox::{Held, Hold};
use outbox_engine::{Column, EntryId, Field, History, StreamKey, TenantKey};
use tokio_postgres::Row;

use super::error::Fault;
use super::link::Link;
use super::{names, value};

/// If somebody has deleted a waiting entry by hand, it no longer waits. Another entry that has its position now does not
/// inherit the wait.
static WAITING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, position, uuid, attempts, host_deaths, failed_at_ms, retry_at_ms, delivered_to, undeletable
         FROM outbox_waiting w WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.share = w.share AND o.position = w.position
                                                                      AND o.uuid = w.uuid)",
        key()
    )
});
static PARKED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {}, position, uuid FROM outbox_dead_letters WHERE parks_stream", key()));

/// The columns that name an entry's stream, measured: [`read_key`] reads them.
pub(super) fn key() -> String {
    let bounded = |column: Column| {
        let (name, max) = (column.name(), column.bytes_max());
        format!("CASE WHEN octet_length({name}) <= {max} THEN {name} END, octet_length({name})")
    };
    [Column::TenantId, Column::StreamId].map(bounded).join(", ")
}

/// How many result columns [`key`] makes.
pub(super) const KEY: usize = 4;

/// Tenant and stream, which are the first result columns.
pub(super) fn read_key(row: &Row) -> Result<[Field<'_>; 2], Fault> {
    let field = |column: usize| -> Result<Field<'_>, Fault> {
        let length: Option<i32> = row.try_get(column + 1)?;
        Ok(match (row.try_get::<_, Option<&str>>(column)?, length) {
            (Some(text), _) => text.into(),
            (None, Some(length)) => Field::TooLong(u64::from(length.unsigned_abs())),
            (None, None) => Field::Null,
        })
    };
    Ok([field(0)?, field(2)?])
}

pub(super) fn held(link: &mut Link) -> Result<Vec<Held>, Fault> {
    let mut held = Vec::new();
    for row in link.query(&WAITING, &[])? {
        let ([tenant, stream], entry) = (read_key(&row)?, entry(&row)?);
        let history = History { attempts: value::count(&row, KEY + 2)?, host_deaths: value::count(&row, KEY + 3)? };
        let hold = match row.try_get(KEY + 7)? {
            true => Hold::Delivered,
            false => {
                Hold::Waiting { failed_at: value::at(&row, KEY + 4)?, retry_at: value::at(&row, KEY + 5)?, history }
            }
        };
        let delivered_to = names::from_json(row.try_get(KEY + 6)?);
        let (stream, tenant) = (StreamKey::of_entry(entry.position, &tenant, &stream), TenantKey::of_entry(&tenant));
        held.push(Held { stream, tenant, entry, hold, delivered_to });
    }
    for row in link.query(&PARKED, &[])? {
        let [tenant, stream] = read_key(&row)?;
        // A dead letter whose stream cannot be determined parks none.
        if let Some(stream) = StreamKey::told(&tenant, &stream) {
            let tenant = TenantKey::of_entry(&tenant);
            held.push(Held { stream, tenant, entry: entry(&row)?, hold: Hold::Parked, delivered_to: Vec::new() });
        }
    }
    held.sort_by_key(|it| it.entry);
    Ok(held)
}

fn entry(row: &Row) -> Result<EntryId, Fault> {
    Ok(EntryId::of(row.try_get(KEY)?, &value::uuid(row.try_get(KEY + 1)?)))
}
