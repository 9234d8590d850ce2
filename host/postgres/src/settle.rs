//! Settling entries: each change of an entry's state is a statement that does nothing unless the relay's row is there.

use std::collections::HashMap;

use jiff::Timestamp;
use outbox_engine::outbox::{BroughtBack, Failed, Fate, Settled};
use outbox_engine::{Attempt, EntryId, Outcome};
use parking_lot::Mutex;
use uuid::Uuid;

use super::error::Fault;
use super::lease;
use super::link::Link;
use super::reader::Known;
use super::{delayed, names, page, value};

/// Exactly these entries: a range might contain one that was committed meanwhile.
const DELIVERED: &str = "
    WITH me AS MATERIALIZED (SELECT 1 FROM outbox_relay WHERE id = $1 FOR KEY SHARE),
    gone AS (DELETE FROM outbox o USING unnest($2::smallint[], $3::bigint[], $4::uuid[]) d(share, position, uuid)
             WHERE o.share = d.share AND o.position = d.position AND o.uuid = d.uuid AND EXISTS (SELECT FROM me)
             RETURNING 1)
    SELECT EXISTS (SELECT FROM me), (SELECT count(*) FROM gone)";
const ME: &str = "SELECT 1 FROM outbox_relay WHERE id = $1 FOR KEY SHARE";
const STILL_THERE: &str = "
    SELECT o.position FROM unnest($1::smallint[], $2::bigint[], $3::uuid[]) d(share, position, uuid)
    JOIN outbox o ON o.share = d.share AND o.position = d.position AND o.uuid = d.uuid LIMIT 1";
const RECORDS: &str = "
    SELECT position, uuid FROM outbox_waiting WHERE position = ANY ($1)
    UNION SELECT position, uuid FROM outbox_attempts WHERE position = ANY ($1)";
const NO_LONGER_WAITING: &str = "DELETE FROM outbox_waiting WHERE position = $1 AND uuid = $2";
const FORGET_ATTEMPTS: &str = "DELETE FROM outbox_attempts WHERE position = $1 AND uuid = $2";
const IS_THERE: &str = "SELECT 1 FROM outbox WHERE share = $1 AND position = $2 AND uuid = $3";

const RECORD_ATTEMPT: &str = "
    INSERT INTO outbox_attempts (position, uuid, attempt, at_ms, outcome, reason, digest, stderr, publisher)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const WAIT: &str = "
    INSERT INTO outbox_waiting (share, position, uuid, tenant_id, stream_id, attempts, host_deaths, failed_at_ms, retry_at_ms,
                                reason, delivered_to, undeletable)
    SELECT share, position, uuid, tenant_id, stream_id, $3, $4, $5, $6, $7, $8, $9 FROM outbox
    WHERE share = $1 AND position = $2
    ON CONFLICT (position, share) DO UPDATE
    SET uuid = excluded.uuid, tenant_id = excluded.tenant_id, stream_id = excluded.stream_id, attempts = excluded.attempts,
        host_deaths = excluded.host_deaths, failed_at_ms = excluded.failed_at_ms, retry_at_ms = excluded.retry_at_ms,
        reason = excluded.reason, delivered_to = excluded.delivered_to, undeletable = excluded.undeletable";
const BURY: &str = "
    INSERT INTO outbox_dead_letters (position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                                     content_type, context, publish_after, expires_at, data, data_bytes, attempts, outcome,
                                     reason, died_at_ms, parks_stream, delivered_to)
    SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
           publish_after, expires_at, data, data_bytes, $3, $4, $5, $6, $7, $8
    FROM outbox WHERE share = $1 AND position = $2";

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
struct Place {
    share: i16,
    position: i64,
    uuid: Uuid,
}

/// A group of entries to be settled by this relay.
pub(super) struct Settlement<'a> {
    pub(super) relay: Uuid,
    pub(super) known: &'a Mutex<Known>,
}

impl Settlement<'_> {
    /// Settles entries in one transaction, and returns how many of them were there.
    pub(super) fn settle(&self, link: &mut Link, settled: &[Settled]) -> Result<usize, Fault> {
        let places = self.places(link, settled)?;
        let is_plain = |it: &Settled| matches!(it, Settled::Delivered { tried_before: false, .. });
        let found = if settled.iter().all(is_plain) {
            self.delete(link, &places.values().copied().collect::<Vec<_>>())?
        } else {
            link.transaction(|link| {
                self.prove(link)?;
                self.settle_each(link, settled, &places)
            })?
        };
        let mut known = self.known.lock();
        for it in settled {
            known.forget(it.entry().position);
        }
        Ok(found)
    }

    /// Brings back what was put off and is due.
    pub(super) fn bring_back(
        &self,
        link: &mut Link,
        due_by: Timestamp,
        until: Timestamp,
        max: usize,
    ) -> Result<BroughtBack, Fault> {
        link.transaction(|link| {
            self.prove(link)?;
            delayed::bring_back(link, due_by, until, max)
        })
    }

    /// Proves that the lease is this relay's, until the transaction ends: who takes over waits for it.
    fn prove(&self, link: &mut Link) -> Result<(), Fault> {
        link.first(ME, &[&self.relay])?.map(|_| ()).ok_or_else(|| Fault::Storage(lease::lost()))
    }

    /// Where the entries are that are there. Another entry may have a position now.
    fn places(&self, link: &mut Link, settled: &[Settled]) -> Result<HashMap<EntryId, Place>, Fault> {
        let (mut places, mut elsewhere) = (HashMap::with_capacity(settled.len()), Vec::new());
        let known = self.known.lock();
        for entry in settled.iter().map(Settled::entry) {
            match known.get(entry) {
                Some((share, uuid)) => {
                    places.insert(entry, Place { share, position: entry.position, uuid });
                }
                None => elsewhere.push(entry),
            }
        }
        drop(known);
        if !elsewhere.is_empty() {
            let positions: Vec<i64> = elsewhere.iter().map(|entry| entry.position).collect();
            let found: HashMap<EntryId, Place> = page::find(link, &positions)?
                .into_iter()
                .map(|(share, position, uuid)| (id(position, uuid), Place { share, position, uuid }))
                .collect();
            let there = elsewhere.into_iter().filter_map(|entry| Some((entry, *found.get(&entry)?)));
            places.extend(there);
        }
        Ok(places)
    }

    /// Removes entries that were delivered, or set aside. Returns how many were there.
    fn delete(&self, link: &mut Link, places: &[Place]) -> Result<usize, Fault> {
        let shares: Vec<i16> = places.iter().map(|it| it.share).collect();
        let positions: Vec<i64> = places.iter().map(|it| it.position).collect();
        let uuids: Vec<Uuid> = places.iter().map(|it| it.uuid).collect();
        let row = link.first(DELIVERED, &[&self.relay, &shares, &positions, &uuids])?;
        let (is_mine, gone): (bool, i64) =
            row.map_or(Ok((false, 0)), |row| Ok::<_, Fault>((row.try_get(0)?, row.try_get(1)?)))?;
        if !is_mine {
            return Err(Fault::Storage(lease::lost()));
        }
        let gone = usize::try_from(gone).unwrap_or(0);
        if gone < places.len()
            && let Some(row) = link.first(STILL_THERE, &[&shares, &positions, &uuids])?
        {
            let position: i64 = row.try_get(0)?;
            let cause = format!("a trigger on the table outbox keeps the entry at position {position}");
            return Err(Fault::refused(SETTLE, cause));
        }
        Ok(gone)
    }

    fn settle_each(
        &self,
        link: &mut Link,
        settled: &[Settled],
        places: &HashMap<EntryId, Place>,
    ) -> Result<usize, Fault> {
        let (mut found, mut gone, mut forgotten) = (0_usize, Vec::new(), Vec::new());
        for it in settled {
            let place = places.get(&it.entry()).copied();
            match (it, place) {
                (Settled::Delivered { entry, tried_before }, place) => {
                    gone.extend(place);
                    forgotten.extend(tried_before.then_some(*entry));
                }
                (Settled::Vanished { entry }, _) => {
                    forgotten.push(*entry);
                    found += 1;
                }
                (Settled::Failed(failed), Some(place)) if is_there(link, place)? => {
                    found += 1;
                    settle_failed(link, failed, place)?;
                    if matches!(failed.fate, Fate::DeadLetter { .. }) {
                        self.delete(link, &[place])?;
                    }
                }
                (Settled::Undeletable { at, reason, .. }, Some(place)) if is_there(link, place)? => {
                    found += 1;
                    keep(link, place, *at, reason)?;
                }
                (Settled::PutOff { until, .. }, Some(place)) => {
                    let (until_ms, Place { share, position, uuid }) = (value::up_to_a_millisecond(*until), place);
                    if link.execute(delayed::PUT_OFF, &[&share, &position, &uuid, &until_ms])? > 0 {
                        gone.push(place);
                    }
                }
                (Settled::Failed(_) | Settled::Undeletable { .. } | Settled::PutOff { .. }, _) => {}
            }
        }
        forget(link, &forgotten)?;
        if !gone.is_empty() {
            found += self.delete(link, &gone)?;
        }
        Ok(found)
    }
}

/// What is being done, for errors.
pub(super) const SETTLE: &str = "settle entries of the outbox";

fn id(position: i64, uuid: Uuid) -> EntryId {
    EntryId::of(position, &value::uuid(Some(uuid)))
}

/// Deletes the records of these entries' attempts, also where an entry is gone.
fn forget(link: &mut Link, entries: &[EntryId]) -> Result<(), Fault> {
    if entries.is_empty() {
        return Ok(());
    }
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position).collect();
    for row in link.query(RECORDS, &[&positions])? {
        let (position, uuid): (i64, Uuid) = (row.try_get(0)?, row.try_get(1)?);
        if entries.contains(&id(position, uuid)) {
            link.execute(NO_LONGER_WAITING, &[&position, &uuid])?;
            link.execute(FORGET_ATTEMPTS, &[&position, &uuid])?;
        }
    }
    Ok(())
}

fn is_there(link: &mut Link, Place { share, position, uuid }: Place) -> Result<bool, Fault> {
    Ok(link.first(IS_THERE, &[&share, &position, &uuid])?.is_some())
}

/// Records that an entry was delivered, but cannot be removed: it stays.
fn keep(link: &mut Link, Place { share, position, .. }: Place, at: Timestamp, reason: &str) -> Result<(), Fault> {
    let at_ms = at.as_millisecond();
    let wait: [&(dyn tokio_postgres::types::ToSql + Sync); 9] =
        [&share, &position, &0_i64, &0_i64, &at_ms, &at_ms, &reason, &None::<String>, &true];
    link.execute(WAIT, &wait).map(|_| ())
}

fn settle_failed(link: &mut Link, failed: &Failed, Place { share, position, uuid }: Place) -> Result<(), Fault> {
    let (attempts, at_ms) = (i64::from(failed.history.attempts), failed.at.as_millisecond());
    for Attempt { outcome, publisher, digest, stderr, .. } in std::iter::once(&failed.attempt).chain(&failed.others) {
        // It used up no attempt, and may be reported again and again.
        if matches!(outcome, Outcome::Unavailable { .. }) {
            continue;
        }
        let (name, reason, stderr) = (outcome.name(), storable(outcome.reason()), storable(stderr));
        let (digest, publisher) = (digest.as_deref(), publisher.as_deref());
        link.execute(
            RECORD_ATTEMPT,
            &[&position, &uuid, &attempts, &at_ms, &name, &reason, &digest, &stderr, &publisher],
        )?;
    }
    let delivered_to = names::to_json(&failed.delivered_to);
    let reason = storable(failed.attempt.outcome.reason());
    match failed.fate {
        Fate::Retry { at } => {
            let (deaths, retry_at_ms) = (i64::from(failed.history.host_deaths), value::up_to_a_millisecond(at));
            link.execute(
                WAIT,
                &[&share, &position, &attempts, &deaths, &at_ms, &retry_at_ms, &reason, &delivered_to, &false],
            )?;
        }
        Fate::DeadLetter { park } => {
            let outcome = failed.attempt.outcome.name();
            link.execute(BURY, &[&share, &position, &attempts, &outcome, &reason, &at_ms, &park, &delivered_to])?;
            link.execute(NO_LONGER_WAITING, &[&position, &uuid])?;
        }
    }
    Ok(())
}

/// A text without NUL characters, which PostgreSQL cannot keep. A guest may have written anything.
fn storable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}
