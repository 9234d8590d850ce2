//! What an operator may do with an outbox in memory.

use std::time::Duration;

use jiff::Timestamp;

use super::{Dead, Kept, MemoryOutbox, Waiting};
use crate::attempt::EXPIRED;
use crate::outbox::StorageError;
use crate::outbox::operator::{
    Act, AttemptRecord, AuditRecord, DeadLetter, End, Operator, Pruned, Retention, Selection, ambiguous,
};
use crate::raw::{EntryId, RawEntry};
use crate::row::{Column, Field};
use crate::settlement::History;

impl Operator for MemoryOutbox {
    fn entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        Ok(self.kept().entries.get(&position).cloned())
    }

    fn dead_letters(&self, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let kept = self.kept();
        let selected = kept.selected(selection).into_iter().take(limit).filter_map(|id| kept.dead.get(&id));
        Ok(selected.map(|dead| DeadLetter::listed(dead.entry.position, dead.entry.row(), dead.end())).collect())
    }

    fn dead_letter(&self, selection: &Selection) -> Result<Option<DeadLetter>, StorageError> {
        let kept = self.kept();
        let first = kept.selected(selection).first().and_then(|id| kept.dead.get(id));
        Ok(first.map(|dead| DeadLetter::new(dead.entry.position, &dead.entry.row(), dead.end())))
    }

    fn dead_entry(&self, position: i64) -> Result<Option<RawEntry>, StorageError> {
        let kept = self.kept();
        let selected = kept.selected(&Selection::Positions(vec![position]));
        Ok(selected.first().and_then(|id| kept.dead.get(id)).map(|dead| dead.entry.clone()))
    }

    fn attempts(&self, position: i64) -> Result<Vec<AttemptRecord>, StorageError> {
        let kept = self.kept();
        let made = kept.attempts.iter().filter(|(id, _)| id.position == position);
        Ok(made.flat_map(|(_, attempts)| attempts).cloned().collect())
    }

    fn retry_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| {
            kept.generation += 1;
            let selected = kept.selected(selection);
            selected.into_iter().filter_map(|id| kept.retry(id, by)).collect()
        }))
    }

    fn discard_dead_letters(&self, selection: &Selection, by: &Act) -> Result<Vec<i64>, StorageError> {
        Ok(self.change(|kept| {
            kept.generation += 1;
            let found = kept.selected(selection);
            for id in &found {
                kept.record("discard", *id, String::new(), by);
                kept.dead.remove(id);
                kept.attempts.remove(id);
            }
            found.into_iter().map(|id| id.position).collect()
        }))
    }

    fn mend_dead_letter(&self, position: i64, changes: &[(Column, Field<'_>)], by: &Act) -> Result<bool, StorageError> {
        self.change(|kept| {
            kept.generation += 1;
            match kept.selected(&Selection::Positions(vec![position])).as_slice() {
                [] => Ok(false),
                [id] => {
                    kept.mend(*id, changes, by);
                    Ok(true)
                }
                several => Err(ambiguous(several.len(), position)),
            }
        })
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StorageError> {
        Ok(self.kept().audit.iter().rev().take(limit).cloned().collect())
    }

    fn prune(&self, retention: &Retention, by: &Act, limit: usize, dry_run: bool) -> Result<Pruned, StorageError> {
        let mut kept = self.kept();
        let old = |keep: Option<Duration>, at: Timestamp| {
            keep.is_some_and(|keep| Duration::try_from(by.at.duration_since(at)).is_ok_and(|age| age > keep))
        };
        let dead: Vec<EntryId> = (kept.dead.iter())
            .filter(|(_, dead)| !dead.parks_stream && old(retention.dead_letters, dead.died_at))
            .map(|(id, _)| *id)
            .collect();
        let is_old = |attempt: &AttemptRecord| old(retention.attempts, attempt.at);
        let attempts: usize = (kept.attempts.iter())
            .filter(|(id, _)| !kept.dead.contains_key(id))
            .map(|(_, attempts)| attempts.iter().filter(|attempt| is_old(attempt)).count())
            .sum();
        let audit = kept.audit.iter().filter(|record| old(retention.audit, record.at)).count();
        let bound = |count: usize| if dry_run { count } else { count.min(limit) };
        let pruned = Pruned {
            dead_letters: bound(dead.len()) as u64,
            attempts: bound(attempts) as u64,
            audit: bound(audit) as u64,
        };
        if dry_run {
            return Ok(pruned);
        }
        let (mut attempts_left, mut audit_left) = (bound(attempts), bound(audit));
        kept.audit.retain(|record| !(old(retention.audit, record.at) && take_one(&mut audit_left)));
        let still_dead: Vec<EntryId> = kept.dead.keys().copied().collect();
        for (_, attempts) in kept.attempts.iter_mut().filter(|(id, _)| !still_dead.contains(id)) {
            attempts.retain(|attempt| !(is_old(attempt) && take_one(&mut attempts_left)));
        }
        for id in dead.into_iter().take(limit) {
            kept.dead.remove(&id);
            kept.attempts.remove(&id);
        }
        if pruned.dead_letters > 0 {
            let (who, act, detail) = (by.who.clone(), "prune".into(), format!("{} dead letters", pruned.dead_letters));
            kept.audit.push(AuditRecord { at: by.at, who, act, position: None, uuid: None, detail });
        }
        Ok(pruned)
    }
}

fn take_one(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

impl Kept {
    fn selected(&self, selection: &Selection) -> Vec<EntryId> {
        let is_selected = |id: &EntryId, dead: &Dead| match selection {
            Selection::Positions(positions) => positions.contains(&id.position),
            Selection::Uuids(uuids) => dead.entry.row().shown(Column::Uuid).is_some_and(|uuid| uuids.contains(&uuid)),
            Selection::Matching(filter) => filter.matches(id.position, &dead.entry.row(), &dead.end()),
        };
        self.dead.iter().filter(|(id, dead)| is_selected(id, dead)).map(|(id, _)| *id).collect()
    }

    fn record(&mut self, act: &str, id: EntryId, detail: String, by: &Act) {
        let uuid = self.dead.get(&id).and_then(|dead| dead.entry.row().shown(Column::Uuid));
        let (at, who, act) = (by.at, by.who.clone(), act.to_owned());
        self.audit.push(AuditRecord { at, who, act, position: Some(id.position), uuid, detail });
    }

    /// Puts one back. Returns its position, or None if somebody has put it back by hand.
    fn retry(&mut self, id: EntryId, by: &Act) -> Option<i64> {
        let taken = self.entries.get(&id.position).map(RawEntry::id);
        if taken == Some(id) {
            return None;
        }
        let put_back = match taken {
            None => id,
            Some(_) => {
                self.last_position += 1;
                EntryId { position: self.last_position, ..id }
            }
        };
        let moved =
            format!("another entry has its place: it is at position {} now, behind all others", put_back.position);
        let dead = self.dead.get(&id)?;
        // An operator who retries it wants it delivered all the same.
        let freed = Some(dead.entry.row().expires_at).filter(|_| dead.outcome == EXPIRED).and_then(|at| at.shown());
        let freed = freed.map(|at| format!("expires_at was: {at}"));
        let detail: Vec<String> = Some(moved).filter(|_| put_back != id).into_iter().chain(freed).collect();
        self.record("retry", id, detail.join("; "), by);
        let dead = self.dead.remove(&id)?;
        let row = match dead.outcome {
            EXPIRED => dead.entry.row().with(Column::ExpiresAt, Field::Null),
            _ => dead.entry.row(),
        };
        self.entries.insert(RawEntry::new(put_back.position, &row));
        let (at, reason, delivered_to) = (by.at, "retried by hand".into(), dead.delivered_to);
        let history = History::default();
        let waiting = Waiting { failed_at: at, retry_at: at, history, reason, delivered_to, undeletable: false };
        self.waiting.insert(put_back, waiting);
        if let Some(attempts) = self.attempts.remove(&id) {
            self.attempts.insert(put_back, attempts);
        }
        Some(put_back.position)
    }

    /// Replaces columns of a dead letter. A new uuid makes it another entry.
    fn mend(&mut self, mut id: EntryId, changes: &[(Column, Field<'_>)], by: &Act) {
        for (column, new) in changes {
            let Some(dead) = self.dead.get(&id) else { return };
            let row = dead.entry.row();
            let old = (row.field(*column) != new).then(|| row.field(*column).shown().unwrap_or_default());
            let mended = RawEntry::new(id.position, &row.with(*column, new.clone()));
            if let Some(old) = old {
                self.record("edit", id, format!("{} was: {old}", column.name()), by);
            }
            let Some(dead) = self.dead.remove(&id) else { return };
            let attempts = self.attempts.remove(&id);
            id = mended.id();
            self.dead.insert(id, Dead { entry: mended, ..dead });
            attempts.into_iter().for_each(|attempts| _ = self.attempts.insert(id, attempts));
        }
    }
}

impl Dead {
    fn end(&self) -> End {
        End {
            attempts: self.history.attempts,
            outcome: self.outcome.into(),
            reason: self.reason.clone(),
            died_at: self.died_at,
            parks_stream: self.parks_stream,
            delivered_to: self.delivered_to.clone(),
        }
    }
}
