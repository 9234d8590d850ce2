//! The operator's side: dead letters, the audit table and pruning.

use jiff::Timestamp;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params, params_from_iter};

use super::{SqliteOutbox, names, page, schema};
use crate::outbox::StorageError;
use crate::outbox::operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, DeadLetterFilter, Operator, Pruned, Retention, Selection,
};
use crate::row::RawEntry;

const DEAD_LETTERS: &str = "
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           data, attempts, outcome, reason, died_at_ms, parks_stream, delivered_to
    FROM outbox_dead_letters";

const ATTEMPTS: &str =
    "SELECT attempt, at_ms, outcome, reason, digest, stderr, given_back, publisher FROM outbox_attempts
     WHERE position = ?1 ORDER BY id";

/// An entry that has since been put back by hand stays as it is, and its dead letter too.
const PUT_BACK: &str = "
    INSERT INTO outbox (position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                        content_type, context, data)
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           data
    FROM outbox_dead_letters WHERE position = ?1
    ON CONFLICT (position) DO NOTHING";
/// It is due at once, and what is on record of its attempts stays with it.
const WAIT_FOR_NOTHING: &str = "
    INSERT INTO outbox_waiting (position, tenant_id, stream_id, attempts, host_deaths, failed_at_ms, retry_at_ms, reason,
                                delivered_to)
    SELECT position, tenant_id, stream_id, 0, 0, ?2, ?2, 'retried by hand', delivered_to
    FROM outbox_dead_letters WHERE position = ?1
    ON CONFLICT (position) DO NOTHING";
const REMOVE_DEAD_LETTER: &str = "DELETE FROM outbox_dead_letters WHERE position = ?1";
const FORGET_ATTEMPTS: &str = "DELETE FROM outbox_attempts WHERE position = ?1";
const EDIT: &str = "UPDATE outbox_dead_letters SET data = ?2, content_type = NULL WHERE position = ?1";

const AUDIT_DEAD_LETTER: &str = "
    INSERT INTO outbox_audit (at_ms, who, act, position, uuid, detail)
    SELECT ?2, ?3, ?4, position, CAST(uuid AS TEXT), ?5 FROM outbox_dead_letters WHERE position = ?1";
const AUDIT_PRUNE: &str = "INSERT INTO outbox_audit (at_ms, who, act, detail) VALUES (?1, ?2, 'prune', ?3)";
const AUDIT: &str = "SELECT at_ms, who, act, position, uuid, detail FROM outbox_audit ORDER BY id DESC LIMIT ?1";

impl Operator for SqliteOutbox {
    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        dead_letters(&self.reader(), selection, limit).map_err(self.error("read the dead letters"))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        page::dead_entry(&self.reader(), position).map_err(self.error("read a dead letter"))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        attempts(&self.reader(), position).map_err(self.error("read the attempts"))
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let retried = act(&mut self.writer(), |transaction| {
            let mut retried = Vec::new();
            for position in selected_positions(transaction, selection)? {
                if transaction.prepare_cached(PUT_BACK)?.execute([position])? == 1 {
                    audit(transaction, position, "retry", "", by)?;
                    transaction.prepare_cached(WAIT_FOR_NOTHING)?.execute([position, by.at.as_millisecond()])?;
                    transaction.prepare_cached(REMOVE_DEAD_LETTER)?.execute([position])?;
                    retried.push(position);
                }
            }
            Ok(retried)
        });
        retried.map_err(self.error("retry dead letters"))
    }

    fn discard_dead_letters(&self, positions: &[i64], by: &Act) -> Result<Vec<i64>, StorageError> {
        let discarded = act(&mut self.writer(), |transaction| {
            let mut discarded = Vec::new();
            for position in positions {
                audit(transaction, *position, "discard", "", by)?;
                if transaction.prepare_cached(REMOVE_DEAD_LETTER)?.execute([position])? == 1 {
                    transaction.prepare_cached(FORGET_ATTEMPTS)?.execute([position])?;
                    discarded.push(*position);
                }
            }
            Ok(discarded)
        });
        discarded.map_err(self.error("discard dead letters"))
    }

    fn edit_dead_letter(&self, position: i64, data: &str, by: &Act) -> Result<bool, StorageError> {
        let edited = act(&mut self.writer(), |transaction| {
            // The old data is put on record: an edit must not lose what the application wrote.
            let old = dead_letter_data(transaction, position)?;
            let edited = transaction.prepare_cached(EDIT)?.execute(params![position, data])? == 1;
            audit(transaction, position, "edit", &format!("data was: {}", old.unwrap_or_default()), by)?;
            Ok(edited)
        });
        edited.map_err(self.error("edit a dead letter"))
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError> {
        audit_records(&self.reader(), limit).map_err(self.error("read the audit table"))
    }

    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError> {
        let pruned = if dry_run {
            prunable(&self.reader(), retention, by.at)
        } else {
            prune(&mut self.writer(), retention, by, limit)
        };
        pruned.map_err(self.error("prune old records"))
    }
}

/// Does something to the outbox, so that a relay at work notices.
fn act<T>(
    connection: &mut Connection,
    does: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = does(&transaction)?;
    schema::raise(&transaction, schema::GENERATION)?;
    transaction.commit()?;
    Ok(done)
}

fn audit(transaction: &Transaction<'_>, position: i64, act: &str, detail: &str, by: &Act) -> rusqlite::Result<()> {
    let record = params![position, by.at.as_millisecond(), by.who, act, detail];
    transaction.prepare_cached(AUDIT_DEAD_LETTER)?.execute(record).map(|_| ())
}

fn dead_letters(connection: &Connection, selection: &Selection, limit: usize) -> rusqlite::Result<Vec<DeadLetter>> {
    let (condition, mut values) = selected(selection);
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare(&format!("{DEAD_LETTERS} {condition} ORDER BY position LIMIT ?"))?;
    let rows = statement.query_map(params_from_iter(values), dead_letter)?;
    rows.collect()
}

fn selected_positions(transaction: &Transaction<'_>, selection: &Selection) -> rusqlite::Result<Vec<i64>> {
    let (condition, values) = selected(selection);
    let sql = format!("SELECT position FROM outbox_dead_letters {condition} ORDER BY position");
    transaction.prepare(&sql)?.query_map(params_from_iter(values), |row| row.get(0))?.collect()
}

fn selected(selection: &Selection) -> (String, Vec<Value>) {
    match selection {
        Selection::Positions(positions) => {
            // As one JSON parameter: the number of parameters of a statement is limited.
            let list = positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            ("WHERE position IN (SELECT value FROM json_each(?))".into(), vec![Value::Text(format!("[{list}]"))])
        }
        Selection::Matching(filter) => condition(filter),
    }
}

fn condition(filter: &DeadLetterFilter) -> (String, Vec<Value>) {
    let mut conditions = vec!["1"];
    let mut values = Vec::new();
    let mut add = |condition, value: Vec<Value>| {
        conditions.push(condition);
        values.extend(value);
    };
    let text = |text: &str| Value::Text(text.to_owned());
    match filter.name.as_deref().map(|name| (name, name.strip_suffix('*'))) {
        Some((_, Some(start))) => add("substr(name, 1, length(?)) = ?", vec![text(start), text(start)]),
        Some((name, None)) => add("name = ?", vec![text(name)]),
        None => {}
    }
    if let Some(stream) = &filter.stream {
        add("(stream_id = ? OR stream_name = ?)", vec![text(stream), text(stream)]);
    }
    if let Some(tenant) = &filter.tenant {
        add("tenant_id = ?", vec![text(tenant)]);
    }
    if let Some(since) = filter.since {
        add("died_at_ms >= ?", vec![Value::Integer(since.as_millisecond())]);
    }
    if let Some(reason) = &filter.reason {
        add("(instr(lower(reason), lower(?)) OR instr(outcome, lower(?)))", vec![text(reason), text(reason)]);
    }
    (format!("WHERE {}", conditions.join(" AND ")), values)
}

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        position: row.get(0)?,
        tenant_id: shown(row.get_ref(1)?).unwrap_or_default(),
        stream_id: shown(row.get_ref(2)?).unwrap_or_default(),
        stream_name: shown(row.get_ref(3)?),
        category: shown(row.get_ref(4)?),
        uuid: shown(row.get_ref(5)?).unwrap_or_default(),
        name: shown(row.get_ref(6)?).unwrap_or_default(),
        version: row.get_ref(7)?.as_i64().ok(),
        created_at: shown(row.get_ref(8)?).unwrap_or_default(),
        content_type: shown(row.get_ref(9)?),
        context: shown(row.get_ref(10)?).unwrap_or_default(),
        data: shown(row.get_ref(11)?).unwrap_or_default(),
        attempts: row.get(12)?,
        outcome: row.get(13)?,
        reason: row.get(14)?,
        died_at: timestamp(row, 15)?,
        parks_stream: row.get(16)?,
        delivered_to: names::from_json(row.get(17)?),
    })
}

/// Text as it is, bytes as hex; none for NULL.
fn shown(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().fold(String::from("0x"), |hex, byte| hex + &format!("{byte:02x}")),
        }),
    }
}

fn dead_letter_data(transaction: &Transaction<'_>, position: i64) -> rusqlite::Result<Option<String>> {
    let mut statement = transaction.prepare_cached("SELECT data FROM outbox_dead_letters WHERE position = ?1")?;
    let mut rows = statement.query([position])?;
    match rows.next()? {
        Some(row) => Ok(shown(row.get_ref(0)?)),
        None => Ok(None),
    }
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millisecond(row.get(column)?).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn attempts(connection: &Connection, position: i64) -> rusqlite::Result<Vec<AttemptRecord>> {
    let mut statement = connection.prepare_cached(ATTEMPTS)?;
    let rows = statement.query_map([position], |row| {
        Ok(AttemptRecord {
            attempt: row.get(0)?,
            at: timestamp(row, 1)?,
            outcome: row.get(2)?,
            reason: row.get(3)?,
            digest: row.get(4)?,
            stderr: row.get(5)?,
            given_back: row.get(6)?,
            publisher: row.get(7)?,
        })
    })?;
    rows.collect()
}

fn audit_records(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<AuditRecord>> {
    let mut statement = connection.prepare_cached(AUDIT)?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(AuditRecord {
            at: timestamp(row, 0)?,
            who: row.get(1)?,
            act: row.get(2)?,
            position: row.get(3)?,
            uuid: row.get(4)?,
            detail: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// What is old: parked streams' dead letters stay, since pruning one would set its stream free behind an operator's
/// back; the attempts of a dead letter go with it, and those of an entry that is still there by their own age.
const OLD_DEAD_LETTERS: &str = "FROM outbox_dead_letters WHERE died_at_ms < ?1 AND NOT parks_stream";
const OLD_ATTEMPTS: &str =
    "FROM outbox_attempts WHERE at_ms < ?1 AND position NOT IN (SELECT position FROM outbox_dead_letters)";
const OLD_AUDIT: &str = "FROM outbox_audit WHERE at_ms < ?1";

/// The time before which a record is old; none where it never is.
fn cutoff(keep: Option<std::time::Duration>, now: Timestamp) -> Option<i64> {
    let keep_ms = i64::try_from(keep?.as_millis()).unwrap_or(i64::MAX);
    Some(now.as_millisecond().saturating_sub(keep_ms))
}

fn prunable(connection: &Connection, retention: &Retention, now: Timestamp) -> rusqlite::Result<Pruned> {
    let count = |keep, old: &str| match cutoff(keep, now) {
        Some(before) => connection
            .query_row(&format!("SELECT count(*) {old}"), [before], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs),
        None => Ok(0),
    };
    Ok(Pruned {
        dead_letters: count(retention.dead_letters, OLD_DEAD_LETTERS)?,
        attempts: count(retention.attempts, OLD_ATTEMPTS)?,
        audit: count(retention.audit, OLD_AUDIT)?,
    })
}

fn prune(connection: &mut Connection, retention: &Retention, by: &Act, limit: usize) -> rusqlite::Result<Pruned> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut pruned = Pruned::default();
    if let Some(before) = cutoff(retention.dead_letters, by.at) {
        for position in old_ones(&transaction, "position", OLD_DEAD_LETTERS, before, limit)? {
            transaction.prepare_cached(REMOVE_DEAD_LETTER)?.execute([position])?;
            transaction.prepare_cached(FORGET_ATTEMPTS)?.execute([position])?;
            pruned.dead_letters += 1;
        }
    }
    if let Some(before) = cutoff(retention.attempts, by.at) {
        for id in old_ones(&transaction, "id", OLD_ATTEMPTS, before, limit)? {
            pruned.attempts +=
                transaction.prepare_cached("DELETE FROM outbox_attempts WHERE id = ?1")?.execute([id])? as u64;
        }
    }
    if let Some(before) = cutoff(retention.audit, by.at) {
        for id in old_ones(&transaction, "id", OLD_AUDIT, before, limit)? {
            pruned.audit += transaction.prepare_cached("DELETE FROM outbox_audit WHERE id = ?1")?.execute([id])? as u64;
        }
    }
    if pruned.dead_letters > 0 {
        let detail = format!("{} dead letters", pruned.dead_letters);
        transaction.execute(AUDIT_PRUNE, params![by.at.as_millisecond(), by.who, detail])?;
    }
    transaction.commit()?;
    Ok(pruned)
}

fn old_ones(
    transaction: &Transaction<'_>,
    column: &str,
    old: &str,
    before: i64,
    limit: usize,
) -> rusqlite::Result<Vec<i64>> {
    let sql = format!("SELECT {column} {old} LIMIT ?2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    transaction.prepare_cached(&sql)?.query_map([before, limit], |row| row.get(0))?.collect()
}
