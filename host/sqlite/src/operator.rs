//! The operator's side: dead letters, the audit table and pruning.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::Timestamp;
use outbox_engine::outbox::operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, End, LISTED_BYTES_MAX, Operator, Pruned, Retention, Selection,
    ambiguous,
};
use outbox_engine::{Column, Field, RawEntry, Row as Columns, StorageError};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::value::{self, MEASURED_ROW, bounded, measured};
use super::{SqliteOutbox, dead_columns, names, page, schema};

/// One dead letter, with all values that are not too long for a publisher.
static DEAD_LETTER: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE id = ?1", select_dead_letters(Column::bytes_max)));
/// The dead letters at a position (several, if it was given again), with as much of each value as a list shows.
static DEAD_LETTERS_AT: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE position = ?1 ORDER BY id", select_dead_letters(listed_bytes_max)));
static DEAD_LETTERS: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE position >= ?1 ORDER BY position, id", select_dead_letters(listed_bytes_max)));

/// The same without data, for comparing them only.
static KEYS_AT: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE position = ?1 ORDER BY id", select_dead_letters(key_bytes_max)));
static KEYS: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE position >= ?1 ORDER BY position, id", select_dead_letters(key_bytes_max)));

fn key_bytes_max(column: Column) -> usize {
    if column == Column::Data { 0 } else { column.bytes_max() }
}

/// Values by which dead letters are compared are read whole.
fn listed_bytes_max(column: Column) -> usize {
    if column == Column::Data { LISTED_BYTES_MAX } else { column.bytes_max() }
}

fn select_dead_letters(bytes_max: impl Fn(Column) -> usize) -> String {
    let (columns, outcome, reason) = (measured(&Column::ALL, bytes_max), bounded("outcome"), bounded("reason"));
    let delivered_to = bounded("delivered_to");
    format!(
        "SELECT {columns}, attempts, {outcome}, {reason}, died_at_ms, parks_stream IS TRUE, {delivered_to}, position, id
         FROM outbox_dead_letters"
    )
}

static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    let [outcome, reason, digest, stderr, publisher] =
        ["outcome", "reason", "digest", "stderr", "publisher"].map(bounded);
    let uuid = measured(&[Column::Uuid], Column::bytes_max);
    format!(
        "SELECT attempt, at_ms, {outcome}, {reason}, {digest}, {stderr}, given_back IS TRUE, {publisher}, {uuid}
         FROM outbox_attempts WHERE position = ?1 ORDER BY id"
    )
});

/// Who has the place of a dead letter now.
const NOBODYS: i64 = 0;
const ITS_OWN: i64 = 1;
const PLACE: &str = "
    SELECT coalesce(max(1 + (outbox.uuid IS NOT dead.uuid)), 0)
    FROM outbox_dead_letters AS dead JOIN outbox ON outbox.position = dead.position WHERE dead.id = ?1";
/// The entry is due at once, and keeps the records of its attempts.
const WAIT_FOR_NOTHING: &str = "
    INSERT OR REPLACE INTO outbox_waiting (position, uuid, tenant_id, stream_id, attempts, host_deaths, failed_at_ms,
                                           retry_at_ms, reason, delivered_to)
    SELECT ?3, uuid, tenant_id, stream_id, 0, 0, ?2, ?2, 'retried by hand', delivered_to
    FROM outbox_dead_letters WHERE id = ?1";
const MOVE_ATTEMPTS: &str = "
    UPDATE outbox_attempts SET position = ?2 WHERE id IN (
      SELECT made.id FROM outbox_attempts AS made
      JOIN outbox_dead_letters AS dead ON made.position = dead.position AND made.uuid IS dead.uuid WHERE dead.id = ?1)";
const FORGET_ATTEMPTS: &str = "
    DELETE FROM outbox_attempts WHERE id IN (
      SELECT made.id FROM outbox_attempts AS made
      JOIN outbox_dead_letters AS dead ON made.position = dead.position AND made.uuid IS dead.uuid WHERE dead.id = ?1)";

const AUDIT_DEAD_LETTER: &str = "
    INSERT INTO outbox_audit (at_ms, who, act, position, uuid, detail) VALUES (?2, ?3, ?4, ?1, ?5, ?6)";
static UUID: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM outbox_dead_letters WHERE id = ?1", measured(&[Column::Uuid], Column::bytes_max))
});
const AUDIT_PRUNE: &str = "INSERT INTO outbox_audit (at_ms, who, act, detail) VALUES (?1, ?2, 'prune', ?3)";
static AUDIT: LazyLock<String> = LazyLock::new(|| {
    let [who, act, uuid, detail] = ["who", "act", "uuid", "detail"].map(bounded);
    format!("SELECT at_ms, {who}, {act}, position, {uuid}, {detail} FROM outbox_audit ORDER BY id DESC LIMIT ?1")
});

impl Operator for SqliteOutbox {
    fn entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        page::entry_at(&self.reader(), position).map_err(self.error("read an entry"))
    }

    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        dead_letters(&self.reader(), selection, limit).map_err(self.error("read the dead letters"))
    }

    fn dead_letter(&self, selection: &Selection) -> Result<Option<DeadLetter>, StorageError> {
        dead_letter(&self.reader(), selection).map_err(self.error("read a dead letter"))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        page::dead_entry(&self.reader(), position).map_err(self.error("read a dead letter"))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        attempts(&self.reader(), position).map_err(self.error("read the attempts"))
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let retried = act(&mut self.writer(), |transaction| retry_each(transaction, selection, by));
        let Retried { positions, refused } = retried.map_err(self.error("retry dead letters"))?;
        match refused {
            None => Ok(positions),
            Some((position, cause)) => Err(StorageError::Declined(format!(
                "{} put back; dead letter {position}, if no other, is refused by the table outbox, and stays: {cause}. Mend it \
                 with `outbox dead edit`, or discard it",
                positions.len()
            ))),
        }
    }

    fn discard_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let discarded = act(&mut self.writer(), |transaction| {
            let mut discarded = Vec::new();
            for dead in selected_ids(transaction, selection)? {
                audit(transaction, dead, "discard", "", by)?;
                transaction.prepare_cached(FORGET_ATTEMPTS)?.execute([dead.id])?;
                dead_columns::remove(transaction, dead.id)?;
                discarded.push(dead.position);
            }
            Ok(discarded)
        });
        discarded.map_err(self.error("discard dead letters"))
    }

    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError> {
        let mended = act(&mut self.writer(), |transaction| {
            let selected = selected_ids(transaction, &Selection::Positions(vec![position]))?;
            if let [dead] = selected.as_slice() {
                mend(transaction, *dead, changes, by)?;
            }
            Ok(selected.len())
        });
        match mended.map_err(self.error("edit a dead letter"))? {
            found @ (0 | 1) => Ok(found == 1),
            found => Err(ambiguous(found, position)),
        }
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

/// Runs an operator's act in a transaction, and raises the generation so that a relay at work notices it.
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

/// A dead letter, and the position of the entry that it was.
#[derive(Debug, Clone, Copy)]
struct DeadId {
    id: i64,
    position: i64,
}

fn audit(transaction: &Transaction<'_>, dead: DeadId, act: &str, detail: &str, by: &Act) -> rusqlite::Result<()> {
    let shown = |row: &Row<'_>| {
        let [uuid] = value::measured_fields(row, 0)?;
        Ok(Columns { uuid, ..Columns::default() }.shown(Column::Uuid))
    };
    let uuid = transaction.prepare_cached(&UUID)?.query_row([dead.id], shown)?;
    let record = params![dead.position, by.at.as_millisecond(), by.who, act, uuid, detail];
    transaction.prepare_cached(AUDIT_DEAD_LETTER)?.execute(record).map(|_| ())
}

/// The result of putting dead letters back.
#[derive(Default)]
struct Retried {
    positions: Vec<i64>,
    /// The first that the application's table refuses, and why.
    refused: Option<(i64, rusqlite::Error)>,
}

/// Puts each dead letter back. If the application's table refuses one, it stays, and the others are put back all the
/// same.
fn retry_each(transaction: &Transaction<'_>, selection: &Selection, by: &Act) -> rusqlite::Result<Retried> {
    let mut retried = Retried::default();
    for dead in selected_ids(transaction, selection)? {
        transaction.execute_batch("SAVEPOINT retry")?;
        match retry(transaction, dead, by) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                transaction.execute_batch("ROLLBACK TO retry")?;
                retried.refused.get_or_insert((dead.position, error));
            }
            result => retried.positions.extend(result?),
        }
        transaction.execute_batch("RELEASE retry")?;
    }
    Ok(retried)
}

/// Puts one back. Returns its position, or None if somebody has put it back by hand.
fn retry(transaction: &Transaction<'_>, dead: DeadId, by: &Act) -> rusqlite::Result<Option<i64>> {
    let DeadId { id, position } = dead;
    let place: i64 = transaction.prepare_cached(PLACE)?.query_row([id], |row| row.get(0))?;
    if place == ITS_OWN {
        return Ok(None);
    }
    let put_back = dead_columns::put_back(transaction, id, (place == NOBODYS).then_some(position))?;
    let moved = format!("another entry has its place: it is at position {put_back} now, behind all others");
    audit(transaction, dead, "retry", if put_back == position { "" } else { &moved }, by)?;
    transaction.prepare_cached(WAIT_FOR_NOTHING)?.execute(params![id, by.at.as_millisecond(), put_back])?;
    if put_back != position {
        transaction.prepare_cached(MOVE_ATTEMPTS)?.execute([id, put_back])?;
    }
    dead_columns::remove(transaction, id)?;
    Ok(Some(put_back))
}

fn mend(
    transaction: &Transaction<'_>,
    dead: DeadId,
    changes: &[(Column, Field<'_>)],
    by: &Act,
) -> rusqlite::Result<()> {
    for (column, new) in changes {
        // The old value is recorded: an edit must not lose what the application wrote.
        let name = column.name();
        let sql = measured(&[*column], Column::bytes_max);
        let sql = format!("SELECT {sql} FROM outbox_dead_letters WHERE id = ?1");
        let old = transaction.query_row(&sql, [dead.id], |row| {
            let [old] = value::measured_fields(row, 0)?;
            Ok((old != *new).then(|| old.shown().unwrap_or_default()))
        })?;
        if let Some(old) = old {
            audit(transaction, dead, "edit", &format!("{name} was: {old}"), by)?;
        }
        if *column == Column::Uuid {
            // The records of its attempts stay with it.
            let of_attempts = "UPDATE outbox_attempts SET uuid = ?2 WHERE position = ?3
                               AND uuid IS (SELECT uuid FROM outbox_dead_letters WHERE id = ?1)";
            let new = ToSqlOutput::Borrowed(stored(new));
            transaction.execute(of_attempts, params![dead.id, new, dead.position])?;
        }
        let update = format!("UPDATE outbox_dead_letters SET {name} = ?2 WHERE id = ?1");
        transaction.execute(&update, params![dead.id, ToSqlOutput::Borrowed(stored(new))])?;
    }
    Ok(())
}

fn stored<'f>(field: &'f Field<'_>) -> ValueRef<'f> {
    match field {
        // A value that was only measured is never written.
        Field::Null | Field::TooLong(_) => ValueRef::Null,
        Field::Integer(number) => ValueRef::Integer(*number),
        Field::Real(number) => ValueRef::Real(*number),
        Field::Text(bytes) => ValueRef::Text(bytes),
        Field::Bytes(bytes) => ValueRef::Blob(bytes),
    }
}

fn dead_letters(connection: &Connection, selection: &Selection, limit: usize) -> rusqlite::Result<Vec<DeadLetter>> {
    let listed = |dead: DeadId, row: Columns<'_>, end| DeadLetter::listed(dead.position, row, end);
    selected(connection, (&DEAD_LETTERS_AT, &DEAD_LETTERS), selection, limit, listed)
}

/// The first selected dead letter, whole.
fn dead_letter(connection: &Connection, selection: &Selection) -> rusqlite::Result<Option<DeadLetter>> {
    let Some(dead) = selected(connection, (&KEYS_AT, &KEYS), selection, 1, |dead, _, _| dead)?.pop() else {
        return Ok(None);
    };
    let whole = |row: &Row<'_>| Ok(DeadLetter::new(dead.position, &value::measured_row(row, 0)?, end(row)?));
    connection.prepare_cached(&DEAD_LETTER)?.query_row([dead.id], whole).optional()
}

fn selected_ids(transaction: &Transaction<'_>, selection: &Selection) -> rusqlite::Result<Vec<DeadId>> {
    selected(transaction, (&KEYS_AT, &KEYS), selection, usize::MAX, |dead, _, _| dead)
}

/// Maps each selected dead letter, at most `limit`, in position order. They are compared here and not in SQL, which
/// distinguishes the number 7 from the text '7'. `sql` reads the dead letters at a position, or from a position on.
fn selected<T>(
    connection: &Connection,
    sql: (&str, &str),
    selection: &Selection,
    limit: usize,
    becomes: impl Fn(DeadId, Columns<'_>, End) -> T,
) -> rusqlite::Result<Vec<T>> {
    let mut found = Vec::new();
    let mut take = |sql: &str, position: i64, is_selected: &dyn Fn(i64, &Columns<'_>, &End) -> bool| {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([position])?;
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            let dead = DeadId { id: row.get(MEASURED_ROW + 7)?, position: value::number(row, MEASURED_ROW + 6)? };
            let (columns, end) = (value::measured_row(row, 0)?, end(row)?);
            if is_selected(dead.position, &columns, &end) {
                found.push(becomes(dead, columns, end));
            }
        }
        Ok::<(), rusqlite::Error>(())
    };
    match selection {
        Selection::Positions(positions) => {
            let positions: BTreeSet<i64> = positions.iter().copied().collect();
            positions.into_iter().try_for_each(|position| take(sql.0, position, &|_, _, _| true))?;
        }
        Selection::Uuids(uuids) => {
            let is_one = |row: &Columns<'_>| row.shown(Column::Uuid).is_some_and(|uuid| uuids.contains(&uuid));
            take(sql.1, i64::MIN, &|_, row, _| is_one(row))?;
        }
        Selection::Matching(filter) => {
            let first = filter.after.map_or(Some(i64::MIN), |after| after.checked_add(1));
            first
                .map_or(Ok(()), |first| take(sql.1, first, &|position, row, end| filter.matches(position, row, end)))?;
        }
    }
    Ok(found)
}

fn end(row: &Row<'_>) -> rusqlite::Result<End> {
    let column = |index| MEASURED_ROW + index;
    Ok(End {
        attempts: value::count(row, column(0))?,
        outcome: value::text(row, column(1))?,
        reason: value::text(row, column(2))?,
        died_at: value::time(row, column(3))?,
        parks_stream: row.get(column(4))?,
        delivered_to: names::from_json(value::field(row.get_ref(column(5))?).text()),
    })
}

fn attempts(connection: &Connection, position: i64) -> rusqlite::Result<Vec<AttemptRecord>> {
    let mut statement = connection.prepare_cached(&ATTEMPTS)?;
    let rows = statement.query_map([position], |row| {
        let [uuid] = value::measured_fields(row, 8)?;
        Ok(AttemptRecord {
            uuid: Columns { uuid, ..Columns::default() }.shown(Column::Uuid).unwrap_or_default(),
            attempt: value::count(row, 0)?,
            at: value::time(row, 1)?,
            outcome: value::text(row, 2)?,
            reason: value::text(row, 3)?,
            digest: value::optional_text(row, 4)?,
            stderr: value::text(row, 5)?,
            given_back: row.get(6)?,
            publisher: value::optional_text(row, 7)?,
        })
    })?;
    rows.collect()
}

fn audit_records(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<AuditRecord>> {
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

/// What counts as old. A dead letter that parks its stream stays, since pruning it would release the stream without an
/// operator's act. A dead letter's attempts are pruned with it; the attempts of an entry that is still there are pruned
/// by their own age.
const OLD_DEAD_LETTERS: &str = "FROM outbox_dead_letters WHERE died_at_ms < ?1 AND NOT parks_stream";
const OLD_ATTEMPTS: &str = "FROM outbox_attempts AS made WHERE at_ms < ?1 AND NOT EXISTS (
       SELECT 1 FROM outbox_dead_letters AS dead WHERE dead.position = made.position AND dead.uuid IS made.uuid)";
const OLD_AUDIT: &str = "FROM outbox_audit WHERE at_ms < ?1";

/// The time before which a record is old. None if records never get old.
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
        for id in old_ones(&transaction, OLD_DEAD_LETTERS, before, limit)? {
            transaction.prepare_cached(FORGET_ATTEMPTS)?.execute([id])?;
            dead_columns::remove(&transaction, id)?;
            pruned.dead_letters += 1;
        }
    }
    if let Some(before) = cutoff(retention.attempts, by.at) {
        for id in old_ones(&transaction, OLD_ATTEMPTS, before, limit)? {
            pruned.attempts +=
                transaction.prepare_cached("DELETE FROM outbox_attempts WHERE id = ?1")?.execute([id])? as u64;
        }
    }
    if let Some(before) = cutoff(retention.audit, by.at) {
        for id in old_ones(&transaction, OLD_AUDIT, before, limit)? {
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

fn old_ones(transaction: &Transaction<'_>, old: &str, before: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    let sql = format!("SELECT id {old} LIMIT ?2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    transaction.prepare_cached(&sql)?.query_map([before, limit], |row| row.get(0))?.collect()
}
