//! Tables of the relay's own that keep entries whole, and bring them back into the table `outbox`: with the columns that an
//! application's own table has beside ours.

use rusqlite::{Connection, Transaction, ffi, params};

use super::times::TimeColumns;

/// Our columns, without the position.
pub(super) const COLUMNS: &str =
    "tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, data";

/// Such a table.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// It has the entries, each with an `id`.
    pub(super) rows: &'static str,
    /// It has their other columns.
    pub(super) columns: &'static str,
    /// Its column for the `id`.
    pub(super) key: &'static str,
}

impl Kept {
    /// Keeps these columns of the entry at `position` with the row `id`.
    pub(super) fn keep(
        self,
        transaction: &Transaction<'_>,
        names: &[String],
        position: i64,
        id: i64,
    ) -> rusqlite::Result<()> {
        for name in names {
            let column = quoted(name);
            // Whoever removed an earlier row with this id may have left its columns.
            let sql = format!(
                "INSERT OR REPLACE INTO {} SELECT ?2, ?3, {column} FROM outbox WHERE position = ?1",
                self.columns
            );
            transaction.prepare_cached(&sql)?.execute(params![position, id, name])?;
        }
        Ok(())
    }

    /// Copies the row `id` into the outbox, at `position`, or at the next position if that is None: with those of `times`
    /// that it has itself, and those of the other columns that are `there`. Returns its position.
    pub(super) fn put_back(
        self,
        transaction: &Transaction<'_>,
        id: i64,
        position: Option<i64>,
        times: TimeColumns,
        there: &[String],
    ) -> rusqlite::Result<i64> {
        let names = self.names(transaction, id, there)?;
        let mut statement = transaction.prepare_cached(&self.put_back_sql(&names, times))?;
        statement.raw_bind_parameter(1, id)?;
        statement.raw_bind_parameter(2, position)?;
        for (index, name) in names.iter().enumerate() {
            statement.raw_bind_parameter(index + 3, name)?;
        }
        if statement.raw_execute()? == 0 {
            return Err(ignored());
        }
        Ok(position.unwrap_or_else(|| transaction.last_insert_rowid()))
    }

    fn put_back_sql(self, names: &[String], times: TimeColumns) -> String {
        let Self { rows, columns, key } = self;
        let (own, _) = times.selected_after(0);
        let others: String = names.iter().map(|name| format!(", {}", quoted(name))).collect();
        let values: String = (0..names.len())
            .map(|index| {
                let value = format!("SELECT value FROM {columns} AS kept WHERE kept.{key} = entry.id");
                format!(", ({value} AND kept.name = ?{})", index + 3)
            })
            .collect();
        format!(
            "INSERT INTO outbox (position, {COLUMNS}{own}{others})
             SELECT ?2, {COLUMNS}{own}{values} FROM {rows} AS entry WHERE id = ?1"
        )
    }

    /// The columns that are kept with the row, and that the table outbox still has.
    fn names(self, connection: &Connection, id: i64, there: &[String]) -> rusqlite::Result<Vec<String>> {
        if there.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT name FROM {} WHERE {} = ?1 ORDER BY name", self.columns, self.key);
        let mut statement = connection.prepare_cached(&sql)?;
        let names = statement.query_map([id], |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned)))?;
        // Skips what somebody else has written there and is no name.
        let names = names.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        Ok(names.filter(|name| there.contains(name)).collect())
    }
}

fn ignored() -> rusqlite::Error {
    let reason = "a trigger on the table outbox ignores it".to_owned();
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CONSTRAINT_TRIGGER), Some(reason))
}

/// A name quoted for SQL, whatever it contains.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
