//! What goes wrong with an outbox in PostgreSQL, and what it means for a relay.

use std::time::Duration;

use outbox_engine::StorageError;
use tokio_postgres::error::SqlState;

/// Why an outbox in PostgreSQL cannot be used, or refuses something. It is the cause of a [`StorageError::Unusable`], a
/// [`StorageError::Refused`] or a [`StorageError::Other`].
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The connection string cannot be read.
    #[error("the connection string is invalid: {0}")]
    Url(String),
    /// The schema has no outbox.
    #[error("the schema {0} has no outbox: initialise it first")]
    NotInitialised(String),
    /// The outbox was made by a newer version.
    #[error(
        "the outbox in the schema {schema} has schema version {found}, and this program knows versions up to {supported}: \
         use a newer one"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Its schema version.
        found: i64,
        /// The newest known one.
        supported: i64,
    },
    /// There is a table `outbox` that is not ours.
    #[error("the schema {schema} has a table outbox of another shape: {reason}")]
    ForeignTable {
        /// The schema.
        schema: String,
        /// What differs.
        reason: String,
    },
    /// The database refuses it, and will refuse it again, because of a constraint, a trigger, missing privileges, or a
    /// table that somebody changed.
    #[error(
        "the database refuses to {doing}: {cause}. Look for triggers, constraints and foreign keys on the table outbox, for \
         privileges, and for tables that were changed"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why it was refused.
        cause: String,
    },
    /// It took longer than the program waits.
    #[error("no answer from the database within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The connection cannot be made, or was lost.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The server said no for now.
    #[error("{0}")]
    Server(String),
}

/// What went wrong with a statement.
#[derive(Debug)]
pub(super) enum Fault {
    Postgres(tokio_postgres::Error),
    NoAnswer(Duration),
    Unreachable(String),
    Storage(StorageError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl Fault {
    /// Whether the application's table refuses a row, so that others may still be taken.
    pub(super) fn is_constraint(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code().is_some_and(|code| class(code) == "23"))
    }

    /// Whether the server refuses it, and will refuse it again.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code().is_some_and(is_refusal),
            Self::Storage(error) => error.is_refusal(),
            Self::NoAnswer(_) | Self::Unreachable(_) => false,
        }
    }

    /// A refusal that the server did not say.
    pub(super) fn refused(doing: &'static str, cause: impl Into<String>) -> Self {
        Self::Storage(PostgresError::Refused { doing, cause: cause.into() }.into())
    }

    /// What the server says.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Postgres(error) => said(error),
            Self::NoAnswer(limit) => PostgresError::NoAnswer(*limit).to_string(),
            Self::Unreachable(reason) => reason.clone(),
            Self::Storage(error) => error.to_string(),
        }
    }
}

impl From<PostgresError> for StorageError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Refused { .. } => Self::Refused(Box::new(error)),
            _ => Self::Unusable(Box::new(error)),
        }
    }
}

/// What a fault means, for somebody who was doing this and waits this long for locks.
pub(super) fn error(doing: &'static str, patience: Duration) -> impl Fn(Fault) -> StorageError + Copy {
    move |fault| {
        let other = |cause: PostgresError| StorageError::Other { doing, cause: Box::new(cause) };
        match fault {
            Fault::Storage(error) => error,
            Fault::NoAnswer(limit) => other(PostgresError::NoAnswer(limit)),
            Fault::Unreachable(reason) => other(PostgresError::Unreachable(reason)),
            Fault::Postgres(error) => match error.code() {
                None => other(PostgresError::Unreachable(said(&error))),
                Some(&SqlState::DISK_FULL) => StorageError::Full,
                Some(&SqlState::LOCK_NOT_AVAILABLE) => StorageError::Busy(patience),
                Some(code) if is_refusal(code) => PostgresError::Refused { doing, cause: said(&error) }.into(),
                Some(_) => other(PostgresError::Server(said(&error))),
            },
        }
    }
}

/// Whether the server will refuse again: data that it cannot take, a constraint, a missing privilege, an error of a trigger.
/// A missing table or column is no refusal, since tools that change tables remove them and make them again.
fn is_refusal(code: &SqlState) -> bool {
    matches!(class(code), "21" | "22" | "23" | "27" | "44" | "P0") || *code == SqlState::INSUFFICIENT_PRIVILEGE
}

fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or("")
}

fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => match said.detail() {
            Some(detail) => format!("{} ({}, {detail})", said.message(), said.code().code()),
            None => format!("{} ({})", said.message(), said.code().code()),
        },
        None => {
            let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{error}{cause}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_no_refusal() {
        for code in [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CONNECTION_FAILURE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::QUERY_CANCELED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNDEFINED_TABLE,
            SqlState::TOO_MANY_CONNECTIONS,
        ] {
            assert!(!is_refusal(&code), "{code:?}");
        }
        for code in [
            SqlState::CHECK_VIOLATION,
            SqlState::RAISE_EXCEPTION,
            SqlState::INVALID_TEXT_REPRESENTATION,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ] {
            assert!(is_refusal(&code), "{code:?}");
        }
    }
}
