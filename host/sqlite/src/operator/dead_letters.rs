//! Finds dead letters, and reads them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use outbox_engine::outbox::operator::{DeadLetter, End, LISTED_BYTES_MAX, Selection};
use outbox_engine::{Column, Row as Columns};
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::names;
use crate::value::{self, MEASURED_ROW, bounded, measured};

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

/// A dead letter, and the position of the entry that it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadId {
    pub(super) id: i64,
    pub(super) position: i64,
}

pub(super) fn dead_letters(
    connection: &Connection,
    selection: &Selection,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let listed = |dead: DeadId, row: Columns<'_>, end| DeadLetter::listed(dead.position, row, end);
    selected(connection, (&DEAD_LETTERS_AT, &DEAD_LETTERS), selection, limit, listed)
}

/// The first selected dead letter, whole.
pub(super) fn dead_letter(connection: &Connection, selection: &Selection) -> rusqlite::Result<Option<DeadLetter>> {
    let Some(dead) = selected(connection, (&KEYS_AT, &KEYS), selection, 1, |dead, _, _| dead)?.pop() else {
        return Ok(None);
    };
    let whole = |row: &Row<'_>| Ok(DeadLetter::new(dead.position, &value::measured_row(row, 0)?, end(row)?));
    connection.prepare_cached(&DEAD_LETTER)?.query_row([dead.id], whole).optional()
}

pub(super) fn selected_ids(transaction: &Transaction<'_>, selection: &Selection) -> rusqlite::Result<Vec<DeadId>> {
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
