//! The audit table: who did what, and when.

use outbox_engine::outbox::operator::{Act, AuditRecord};

use super::dead_letters::DeadId;
use crate::error::Fault;
use crate::link::Link;
use crate::value;

const AUDIT_DEAD_LETTER: &str = "
    INSERT INTO outbox_audit (at_ms, who, act, position, uuid, detail)
    SELECT $2, $3, $4, $5, uuid::text, $6 FROM outbox_dead_letters WHERE id = $1";
const AUDIT: &str = "INSERT INTO outbox_audit (at_ms, who, act, detail) VALUES ($1, $2, $3, $4)";
const RECORDS: &str = "SELECT at_ms, who, act, position, uuid, detail FROM outbox_audit ORDER BY id DESC LIMIT $1";

pub(super) fn audit(link: &mut Link, dead: DeadId, act: &str, detail: &str, by: &Act) -> Result<(), Fault> {
    let at_ms = by.at.as_millisecond();
    link.execute(AUDIT_DEAD_LETTER, &[&dead.id, &at_ms, &by.who, &act, &dead.position, &detail]).map(|_| ())
}

/// Records an act that was done to no dead letter in particular.
pub(crate) fn record(link: &mut Link, act: &str, detail: &str, by: &Act) -> Result<(), Fault> {
    link.execute(AUDIT, &[&by.at.as_millisecond(), &by.who, &act, &detail]).map(|_| ())
}

pub(super) fn audit_records(link: &mut Link, limit: usize) -> Result<Vec<AuditRecord>, Fault> {
    let mut records = Vec::new();
    for row in link.query(RECORDS, &[&i64::try_from(limit).unwrap_or(i64::MAX)])? {
        records.push(AuditRecord {
            at: value::at(&row, 0)?,
            who: row.try_get(1)?,
            act: row.try_get(2)?,
            position: row.try_get(3)?,
            uuid: row.try_get(4)?,
            detail: row.try_get(5)?,
        });
    }
    Ok(records)
}
