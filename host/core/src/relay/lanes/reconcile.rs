//! Takes in again what the storage holds back, while the relay works: after an operator's act, and from time to time,
//! since others may change the tables too.

use std::collections::HashSet;
use std::time::Instant;

use super::{LaneId, Lanes, Ordering};
use crate::publishers::PublisherSet;
use crate::raw::EntryId;
use crate::settlement::History;
use crate::stream::{StreamKey, TenantKey};

/// An entry that is held back, or that holds its stream back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::relay) struct HeldEntry {
    pub(in crate::relay) stream: StreamKey,
    pub(in crate::relay) tenant: TenantKey,
    pub(in crate::relay) entry: EntryId,
    pub(in crate::relay) hold: HeldBy,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::relay) enum HeldBy {
    Waiting { due: Instant, history: History, delivered: PublisherSet },
    Parked,
    Delivered,
}

/// The result of taking it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::relay) struct Reconciled {
    /// How many entries and streams are held now and were not before, or the reverse.
    pub(in crate::relay) changes: usize,
    /// Whether some stream was too busy to take in its change.
    pub(in crate::relay) again: bool,
}

impl Lanes {
    /// Takes in what the storage holds back now. Entries under way stay as they are: their own commit brings the same
    /// news, or newer. With `anew`, each entry's due time comes from the storage too. Otherwise the time of an entry
    /// that already waits stays, since it was measured by a clock that does not jump.
    pub(in crate::relay) fn reconcile(&mut self, held: &[HeldEntry], anew: bool) -> Reconciled {
        let mut reconciled = self.release(held);
        for HeldEntry { stream, tenant, entry, hold } in held {
            match *hold {
                HeldBy::Waiting { due, history, delivered } => {
                    let waits = (*stream, *entry, due, history, delivered);
                    self.know_tenant(self.id(*stream, entry.position), *tenant);
                    reconciled.changes += usize::from(self.hold_again(waits, anew));
                }
                HeldBy::Parked if self.ordering != Ordering::None => {
                    let lane = self.lanes.entry(self.id(*stream, entry.position)).or_default();
                    reconciled.changes += usize::from(!std::mem::replace(&mut lane.parked, true));
                    self.know_tenant(self.id(*stream, entry.position), *tenant);
                }
                HeldBy::Parked => {}
                HeldBy::Delivered => reconciled.changes += usize::from(self.unsettled.insert(*entry)),
            }
        }
        reconciled
    }

    /// Notes whose turn a lane has to wait for, if tenants have turns.
    fn know_tenant(&mut self, id: LaneId, tenant: TenantKey) {
        if self.shares.is_some()
            && let lane = self.lanes.entry(id).or_default()
            && !lane.is_in_memory()
        {
            lane.tenant = tenant;
        }
    }

    /// Releases what the storage no longer holds.
    fn release(&mut self, held: &[HeldEntry]) -> Reconciled {
        let waiting: HashSet<EntryId> =
            (held.iter()).filter(|held| matches!(held.hold, HeldBy::Waiting { .. })).map(|held| held.entry).collect();
        let parks = |held: &&HeldEntry| held.hold == HeldBy::Parked && self.ordering != Ordering::None;
        let parked: HashSet<LaneId> =
            held.iter().filter(parks).map(|held| self.id(held.stream, held.entry.position)).collect();
        let (mut reconciled, mut released) = (Reconciled::default(), Vec::new());
        for (id, lane) in &mut self.lanes {
            if lane.parked && !parked.contains(id) {
                let is_busy = lane.running || lane.unacked > 0;
                lane.parked = is_busy;
                reconciled.again |= is_busy;
                reconciled.changes += usize::from(!is_busy);
                released.push(*id);
            }
            let is_gone = |position: i64, waits: &super::Waiting| {
                let entry = EntryId { position, uuid_hash: waits.uuid_hash };
                waits.on_record && !waiting.contains(&entry) && !self.in_flight.contains(&entry)
            };
            let gone: Vec<i64> =
                lane.waiting.iter().filter(|(at, waits)| is_gone(**at, waits)).map(|(at, _)| *at).collect();
            for position in gone {
                lane.waiting.remove(&position);
                lane.held_by = lane.held_by.filter(|holder| *holder != position);
                lane.missed.add(position, &mut self.missed_room);
                reconciled.changes += 1;
                released.push(*id);
            }
        }
        released.into_iter().for_each(|id| self.retire(id));
        reconciled
    }

    /// Holds an entry as the storage does. Returns whether this is a change.
    fn hold_again(&mut self, waits: (StreamKey, EntryId, Instant, History, PublisherSet), anew: bool) -> bool {
        let (stream, entry, due, history, delivered) = waits;
        let id = self.id(stream, entry.position);
        let known = self.lanes.get(&id).and_then(|lane| lane.waiting_as(entry));
        let is_known = known.is_some_and(|known| known.history == history);
        if self.in_flight.contains(&entry) || (is_known && !anew) {
            return false;
        }
        let was_alone = known.is_some_and(|known| known.alone);
        self.no_longer_waiting(id, entry);
        self.hold(stream, entry, due, history, delivered);
        if let Some(waiting) = self.lanes.get_mut(&id).and_then(|lane| lane.waiting.get_mut(&entry.position)) {
            waiting.alone |= was_alone;
        }
        !is_known
    }
}
