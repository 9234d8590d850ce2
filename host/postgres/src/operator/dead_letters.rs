//! Finds dead letters, and reads them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use outbox_engine::outbox::operator::{DeadLetter, End, LISTED_BYTES_MAX, Selection};
use outbox_engine::{Column, RawEntry, Row as Columns};
use tokio_postgres::Row;

use crate::error::Fault;
use crate::link::Link;
use crate::names;
use crate::value::{self, MEASURED};

/// One dead letter, with all values that are not too long for a publisher.
static DEAD_LETTER: LazyLock<String> = LazyLock::new(|| format!("{} WHERE id = $1", select(Column::bytes_max)));
/// The dead letters at a position (several, if it was given again), with as much of each value as a list shows.
static LISTED_AT: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE position = $1 ORDER BY id LIMIT $2", select(listed_bytes_max)));
static LISTED: LazyLock<String> = LazyLock::new(|| {
    format!("{} WHERE (position, id) > ($1, $2) ORDER BY position, id LIMIT $3", select(listed_bytes_max))
});
/// The same without data, for comparing them only.
static KEYS_AT: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE position = $1 ORDER BY id LIMIT $2", select(key_bytes_max)));
static KEYS: LazyLock<String> = LazyLock::new(|| {
    format!("{} WHERE (position, id) > ($1, $2) ORDER BY position, id LIMIT $3", select(key_bytes_max))
});
static ENTRY: LazyLock<String> = LazyLock::new(|| {
    let columns = value::measured(Column::bytes_max);
    format!("SELECT {columns} FROM outbox_dead_letters WHERE position = $1 ORDER BY id LIMIT 1")
});

/// How many dead letters are read at once.
const ROWS_MAX: i64 = 500;

fn key_bytes_max(column: Column) -> usize {
    if column == Column::Data { 0 } else { column.bytes_max() }
}

/// Values by which dead letters are compared are read whole.
fn listed_bytes_max(column: Column) -> usize {
    if column == Column::Data { LISTED_BYTES_MAX } else { column.bytes_max() }
}

fn select(bytes_max: impl Fn(Column) -> usize) -> String {
    format!(
        "SELECT {}, attempts, outcome, reason, died_at_ms, parks_stream, delivered_to, position, id
         FROM outbox_dead_letters",
        value::measured(bytes_max)
    )
}

/// A dead letter, and the position of the entry that it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadId {
    pub(super) id: i64,
    pub(super) position: i64,
}

pub(super) fn dead_letters(link: &mut Link, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
    let listed = |dead: DeadId, row: Columns<'_>, end| DeadLetter::listed(dead.position, row, end);
    selected(link, (&LISTED_AT, &LISTED), selection, limit, listed)
}

/// The first selected dead letter, whole.
pub(super) fn dead_letter(link: &mut Link, selection: &Selection) -> Result<Option<DeadLetter>, Fault> {
    let Some(dead) = selected(link, (&KEYS_AT, &KEYS), selection, 1, |dead, _, _| dead)?.pop() else {
        return Ok(None);
    };
    let row = link.first(&DEAD_LETTER, &[&dead.id])?;
    row.map(|row| Ok(DeadLetter::new(dead.position, &value::measured_row(&row)?, end(&row)?))).transpose()
}

/// A dead letter as the entry that it was.
pub(super) fn dead_entry(link: &mut Link, position: i64) -> Result<Option<RawEntry>, Fault> {
    let row = link.first(&ENTRY, &[&position])?;
    row.map(|row| Ok(RawEntry::new(position, &value::measured_row(&row)?))).transpose()
}

pub(super) fn selected_ids(link: &mut Link, selection: &Selection) -> Result<Vec<DeadId>, Fault> {
    selected(link, (&KEYS_AT, &KEYS), selection, usize::MAX, |dead, _, _| dead)
}

pub(super) fn remove(link: &mut Link, id: i64) -> Result<(), Fault> {
    link.execute("DELETE FROM outbox_dead_letters WHERE id = $1", &[&id]).map(|_| ())
}

/// Maps each selected dead letter, at most `limit`, in position order. They are compared as they are shown. `sql` reads the
/// dead letters at a position, or behind one.
fn selected<T>(
    link: &mut Link,
    sql: (&str, &str),
    selection: &Selection,
    limit: usize,
    becomes: impl Fn(DeadId, Columns<'_>, End) -> T,
) -> Result<Vec<T>, Fault> {
    let mut found = Vec::new();
    let mut take =
        |row: &Row, is_selected: &dyn Fn(i64, &Columns<'_>, &End) -> bool| -> Result<(DeadId, bool), Fault> {
            let dead = DeadId { id: row.try_get(MEASURED + 7)?, position: row.try_get(MEASURED + 6)? };
            let (columns, end) = (value::measured_row(row)?, end(row)?);
            if found.len() < limit && is_selected(dead.position, &columns, &end) {
                found.push(becomes(dead, columns, end));
            }
            Ok((dead, found.len() >= limit))
        };
    if let Selection::Positions(positions) = selection {
        for position in positions.iter().copied().collect::<BTreeSet<i64>>() {
            for row in link.query(sql.0, &[&position, &ROWS_MAX])? {
                take(&row, &|_, _, _| true)?;
            }
        }
        return Ok(found);
    }
    let is_selected = |position: i64, row: &Columns<'_>, end: &End| match selection {
        Selection::Uuids(uuids) => row.shown(Column::Uuid).is_some_and(|uuid| uuids.contains(&uuid)),
        Selection::Matching(filter) => filter.matches(position, row, end),
        Selection::Positions(_) => false,
    };
    let after = match selection {
        Selection::Matching(filter) => filter.after,
        _ => None,
    };
    let mut last =
        DeadId { position: after.unwrap_or(i64::MIN), id: if after.is_some() { i64::MAX } else { i64::MIN } };
    loop {
        let rows = link.query(sql.1, &[&last.position, &last.id, &ROWS_MAX])?;
        let mut is_full = false;
        for row in &rows {
            (last, is_full) = take(row, &is_selected)?;
        }
        if is_full || rows.len() < usize::try_from(ROWS_MAX).unwrap_or(usize::MAX) {
            return Ok(found);
        }
    }
}

fn end(row: &Row) -> Result<End, Fault> {
    let column = |index| MEASURED + index;
    Ok(End {
        attempts: value::count(row, column(0))?,
        outcome: row.try_get(column(1))?,
        reason: row.try_get(column(2))?,
        died_at: value::at(row, column(3))?,
        parks_stream: row.try_get(column(4))?,
        delivered_to: names::from_json(row.try_get(column(5))?),
    })
}
