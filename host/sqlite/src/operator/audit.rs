//! The audit table: who did what, and when.

use std::sync::LazyLock;

use outbox_engine::outbox::operator::{Act, AuditRecord};
use outbox_engine::{Column, Row as Columns};
use rusqlite::{Connection, Row, Transaction, params};

use super::dead_letters::DeadId;
use crate::value::{self, bounded, measured};

const AUDIT_DEAD_LETTER: &str = "
    INSERT INTO outbox_audit (at_ms, who, act, position, uuid, detail) VALUES (?2, ?3, ?4, ?1, ?5, ?6)";
static UUID: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM outbox_dead_letters WHERE id = ?1", measured(&[Column::Uuid], Column::bytes_max))
});
static AUDIT: LazyLock<String> = LazyLock::new(|| {
    let [who, act, uuid, detail] = ["who", "act", "uuid", "detail"].map(bounded);
    format!("SELECT at_ms, {who}, {act}, position, {uuid}, {detail} FROM outbox_audit ORDER BY id DESC LIMIT ?1")
});

pub(super) fn audit(
    transaction: &Transaction<'_>,
    dead: DeadId,
    act: &str,
    detail: &str,
    by: &Act,
) -> rusqlite::Result<()> {
    let shown = |row: &Row<'_>| {
        let [uuid] = value::measured_fields(row, 0)?;
        Ok(Columns { uuid, ..Columns::default() }.shown(Column::Uuid))
    };
    let uuid = transaction.prepare_cached(&UUID)?.query_row([dead.id], shown)?;
    let record = params![dead.position, by.at.as_millisecond(), by.who, act, uuid, detail];
    transaction.prepare_cached(AUDIT_DEAD_LETTER)?.execute(record).map(|_| ())
}

pub(super) fn audit_records(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<AuditRecord>> {
    let mut statement = connection.prepare_cached(&AUDIT)?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(AuditRecord {
            at: value::time(row, 0)?,
            who: value::text(row, 1)?,
            act: value::text(row, 2)?,
            position: row.get_ref(3)?.as_i64().ok(),
            uuid: value::optional_text(row, 4)?,
            detail: value::text(row, 5)?,
        })
    })?;
    rows.collect()
}
