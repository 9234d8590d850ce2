//! The columns `publish_after` and `expires_at`: a table may be without them, and may get or lose them while a relay works.

use std::sync::LazyLock;

use outbox_engine::{Column, Field, Row as Columns, StorageError};
use rusqlite::{Connection, Row};

use super::table;
use super::value::{self, measured};

/// Which of [`Column::TIMES`] the table has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TimeColumns([bool; 2]);

/// A value for each combination of the columns.
type ForEach = LazyLock<[String; 4]>;

/// The columns as [`measured`] result columns.
static MEASURED: ForEach = LazyLock::new(|| {
    TimeColumns::EACH.map(|columns| {
        let measured = columns.selected().map(|(column, is_there)| match is_there {
            true => measured(&[column], Column::bytes_max),
            false => "NULL, NULL".to_owned(),
        });
        measured.join(", ")
    })
});

impl TimeColumns {
    const EACH: [Self; 4] = [Self([false, false]), Self([true, false]), Self([false, true]), Self([true, true])];

    pub(super) fn new(publish_after: bool, expires_at: bool) -> Self {
        Self([publish_after, expires_at])
    }

    /// Those that the table has now.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let there = table::names_of(connection)?;
        Ok(Self(Column::TIMES.map(|column| there.iter().any(|name| name.eq_ignore_ascii_case(column.name())))))
    }

    /// The text for this combination.
    pub(super) fn choose(self, each: &[String; 4]) -> &str {
        let [publish_after, expires_at] = self.0;
        each.get(usize::from(publish_after) + 2 * usize::from(expires_at)).map_or("", String::as_str)
    }

    /// A text for each combination.
    pub(super) fn each(text: impl Fn(Self) -> String) -> [String; 4] {
        Self::EACH.map(text)
    }

    pub(super) fn has(self, column: Column) -> bool {
        self.selected().into_iter().any(|(it, is_there)| it == column && is_there)
    }

    pub(super) fn has_any(self) -> bool {
        self.0.contains(&true)
    }

    /// The result columns of a SELECT: NULL for a column that the table has not.
    pub(super) fn names(self) -> String {
        self.selected().map(|(column, is_there)| if is_there { column.name() } else { "NULL" }).join(", ")
    }

    /// The same, [`measured`].
    pub(super) fn measured(self) -> &'static str {
        self.choose(&MEASURED)
    }

    /// More columns for an INSERT: their names, and their parameters from number `first` on.
    pub(super) fn selected_after(self, first: usize) -> (String, String) {
        let selected = self.selected().into_iter().filter(|(_, is_there)| *is_there);
        let each = selected.enumerate().map(|(index, (column, _))| (column.name(), first + index));
        each.map(|(name, number)| (format!(", {name}"), format!(", ?{number}"))).unzip()
    }

    /// The first of these columns that is missing here.
    pub(super) fn first_missing(self, wanted: Self) -> Option<Column> {
        let missing = wanted.selected().into_iter().find(|(column, is_wanted)| *is_wanted && !self.has(*column));
        missing.map(|(column, _)| column)
    }

    fn selected(self) -> [(Column, bool); 2] {
        let ([one, other], [has_one, has_other]) = (Column::TIMES, self.0);
        [(one, has_one), (other, has_other)]
    }
}

/// A row with its times, which are the [`names`](TimeColumns::names) from result column `first` on.
pub(super) fn read<'r>(row: &'r Row<'_>, first: usize, columns: Columns<'r>) -> rusqlite::Result<Columns<'r>> {
    let (publish_after, expires_at) = (value::field(row.get_ref(first)?), value::field(row.get_ref(first + 1)?));
    Ok(Columns { publish_after, expires_at, ..columns })
}

/// The same, [`measured`](TimeColumns::measured).
pub(super) fn read_measured<'r>(row: &'r Row<'_>, first: usize, columns: Columns<'r>) -> rusqlite::Result<Columns<'r>> {
    let [publish_after, expires_at] = value::measured_fields(row, first)?;
    Ok(Columns { publish_after, expires_at, ..columns })
}

/// The error if the table has not the columns for these values.
pub(super) fn check(there: TimeColumns, changes: &[(Column, Field<'_>)]) -> Result<(), StorageError> {
    let sets = |column| changes.iter().any(|(it, value)| *it == column && *value != Field::Null);
    let [publish_after, expires_at] = Column::TIMES.map(sets);
    there.first_missing(TimeColumns::new(publish_after, expires_at)).map_or(Ok(()), |column| Err(missing(column)))
}

/// The error for a value that the table has no column for.
pub(super) fn missing(column: Column) -> StorageError {
    let (name, add) = (column.name(), add(column));
    StorageError::Declined(format!(
        "the table outbox has no column {name}: add it with `outbox init --add-columns`, or with `{add}`"
    ))
}

/// The statement that adds a column.
pub(super) fn add(column: Column) -> String {
    format!("ALTER TABLE outbox ADD COLUMN {} TEXT", column.name())
}
