//! What goes wrong with an outbox in SQLite in particular, and what to do then.

use std::path::PathBuf;

use outbox_engine::StorageError;

/// Why an outbox in SQLite cannot be used, or refuses something. It is the cause of a [`StorageError::Unusable`] or a
/// [`StorageError::Refused`].
///
/// ```
/// use outbox_sqlite::{SqliteError, SqliteOutbox, StorageError};
///
/// let error = SqliteOutbox::open("nowhere.db".as_ref()).err().unwrap();
/// let StorageError::Unusable(cause) = error else { panic!("{error}") };
/// assert!(matches!(cause.downcast_ref(), Some(SqliteError::Missing(_))));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// There is no such file.
    #[error("there is no database {}", .0.display())]
    Missing(PathBuf),
    /// The file is something else.
    #[error("{} is not a SQLite database", .0.display())]
    NotADatabase(PathBuf),
    /// The database has no outbox.
    #[error("{path} has no outbox: run `outbox init --db {path}` first", path = .0.display())]
    NotInitialised(PathBuf),
    /// The outbox was made by a newer version.
    #[error(
        "the outbox in {path} has schema version {found}, and this program knows versions up to {supported}: \
         use a newer one",
        path = path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest known one.
        supported: i64,
    },
    /// The outbox was made by an older version.
    #[error(
        "the outbox in {path} has schema version {found}, and this program needs version {supported}: \
         run `outbox init --db {path}` to upgrade it",
        path = path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The one that is needed.
        supported: i64,
    },
    /// There is a table `outbox` that is not ours.
    #[error("{path} has a table `outbox` of another shape: {reason}", path = path.display())]
    ForeignTable {
        /// The database.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The database refuses it, and will refuse it again, because of a constraint, a trigger, or a table that somebody
    /// changed.
    #[error(
        "the database refuses to {doing}: {cause}. Look for triggers, constraints and foreign keys on the table `outbox` \
         (`outbox init` names them), and for tables that were changed"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why it was refused.
        cause: rusqlite::Error,
    },
    /// The database's file is damaged.
    #[error(
        "cannot {doing}: the database {path} is damaged ({cause}). Stop its programs, look at it with \
         `sqlite3 {path} 'PRAGMA integrity_check'`, and restore it from a backup or with `.recover`",
        path = path.display()
    )]
    Damaged {
        /// What was being done.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
}

impl From<SqliteError> for StorageError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Refused { .. } | SqliteError::Damaged { .. } => Self::Refused(Box::new(error)),
            _ => Self::Unusable(Box::new(error)),
        }
    }
}
