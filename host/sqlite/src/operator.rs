//! The operator's side: dead letters, the audit table and pruning.

use outbox_engine::outbox::operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, Operator, Pruned, Retention, Selection, ambiguous,
};
use outbox_engine::{Column, Field, RawEntry, StorageError};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use self::dead_letters::selected_ids;
use super::{SqliteOutbox, dead_columns, page, schema, times};

mod attempts;
mod audit;
mod dead_letters;
mod edit;
mod prune;
mod retry;

impl Operator for SqliteOutbox {
    fn entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        let (reader, failed) = (self.reader(), self.error("read an entry"));
        let times = self.time_columns(&reader).map_err(&failed)?;
        page::entry_at(&reader, times, position).map_err(failed)
    }

    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        dead_letters::dead_letters(&self.reader(), selection, limit).map_err(self.error("read the dead letters"))
    }

    fn dead_letter(&self, selection: &Selection) -> Result<Option<DeadLetter>, StorageError> {
        dead_letters::dead_letter(&self.reader(), selection).map_err(self.error("read a dead letter"))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        page::dead_entry(&self.reader(), position).map_err(self.error("read a dead letter"))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        attempts::attempts(&self.reader(), position).map_err(self.error("read the attempts"))
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let retried = act(&mut self.writer(), |transaction| retry::retry_each(transaction, selection, by));
        retried.map_err(self.error("retry dead letters"))?.result()
    }

    fn discard_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let discarded = act(&mut self.writer(), |transaction| {
            let mut discarded = Vec::new();
            for dead in selected_ids(transaction, selection)? {
                audit::audit(transaction, dead, "discard", "", by)?;
                attempts::forget(transaction, dead.id)?;
                dead_columns::remove(transaction, dead.id)?;
                discarded.push(dead.position);
            }
            Ok(discarded)
        });
        discarded.map_err(self.error("discard dead letters"))
    }

    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError> {
        let reader = self.reader();
        times::check(self.time_columns(&reader).map_err(self.error("look at the table outbox"))?, changes)?;
        drop(reader);
        let mended = act(&mut self.writer(), |transaction| {
            let selected = selected_ids(transaction, &Selection::Positions(vec![position]))?;
            if let [dead] = selected.as_slice() {
                edit::mend(transaction, *dead, changes, by)?;
            }
            Ok(selected.len())
        });
        match mended.map_err(self.error("edit a dead letter"))? {
            found @ (0 | 1) => Ok(found == 1),
            found => Err(ambiguous(found, position)),
        }
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError> {
        audit::audit_records(&self.reader(), limit).map_err(self.error("read the audit table"))
    }

    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError> {
        let pruned = if dry_run {
            prune::prunable(&self.reader(), retention, by.at)
        } else {
            prune::prune(&mut self.writer(), retention, by, limit)
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
