//! The operator's side: dead letters, the audit table and pruning.

use outbox_engine::outbox::operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, Operator, Pruned, Retention, Selection, ambiguous,
};
use outbox_engine::{Column, Field, RawEntry, StorageError};

use self::dead_letters::selected_ids;
use super::error::Fault;
use super::link::Link;
use super::{PostgresOutbox, page, schema};

mod attempts;
pub(super) mod audit;
mod dead_letters;
mod edit;
mod prune;
mod retry;

impl Operator for PostgresOutbox {
    fn entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        page::entry(&mut self.acting(), position).map_err(self.error("read an entry"))
    }

    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let read = dead_letters::dead_letters(&mut self.acting(), selection, limit);
        read.map_err(self.error("read the dead letters"))
    }

    fn dead_letter(&self, selection: &Selection) -> Result<Option<DeadLetter>, StorageError> {
        dead_letters::dead_letter(&mut self.acting(), selection).map_err(self.error("read a dead letter"))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        dead_letters::dead_entry(&mut self.acting(), position).map_err(self.error("read a dead letter"))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        attempts::attempts(&mut self.acting(), position).map_err(self.error("read the attempts"))
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let retried = act(&mut self.acting(), |link| retry::retry_each(link, selection, by));
        retried.map_err(self.error("retry dead letters"))?.result()
    }

    fn discard_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        let discarded = act(&mut self.acting(), |link| {
            let mut discarded = Vec::new();
            for dead in selected_ids(link, selection)? {
                audit::audit(link, dead, "discard", "", by)?;
                attempts::forget(link, dead.id)?;
                dead_letters::remove(link, dead.id)?;
                discarded.push(dead.position);
            }
            Ok(discarded)
        });
        discarded.map_err(self.error("discard dead letters"))
    }

    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError> {
        let mended = act(&mut self.acting(), |link| {
            let selected = selected_ids(link, &Selection::Positions(vec![position]))?;
            if let [dead] = selected.as_slice() {
                edit::mend(link, *dead, changes, by)?;
            }
            Ok(selected.len())
        });
        match mended.map_err(self.error("edit a dead letter"))? {
            found @ (0 | 1) => Ok(found == 1),
            found => Err(ambiguous(found, position)),
        }
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError> {
        audit::audit_records(&mut self.acting(), limit).map_err(self.error("read the audit table"))
    }

    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError> {
        let mut link = self.acting();
        let pruned = if dry_run {
            prune::prunable(&mut link, retention, by.at)
        } else {
            prune::prune(&mut link, retention, by, limit)
        };
        pruned.map_err(self.error("prune old records"))
    }
}

/// Runs an operator's act in a transaction, and raises the generation so that a relay at work notices it. Acts come one
/// after the other.
fn act<T>(link: &mut Link, does: impl FnOnce(&mut Link) -> Result<T, Fault>) -> Result<T, Fault> {
    link.transaction(|link| {
        schema::raise(link, schema::GENERATION)?;
        does(link)
    })
}
