//! What becomes of a lane while its entries are published, settled and committed.

use std::time::Instant;

use super::lane::Waiting;
use super::{Claim, EntryId, History, LaneId, Lanes, Load, Ordering, PublisherSet};

impl Lanes {
    /// Notes that an entry of a running job was settled, and awaits its commit.
    pub(in crate::relay) fn settled(&mut self, id: LaneId, entry: EntryId) {
        self.unacked += 1;
        self.lanes.entry(id).or_default().unacked += 1;
        self.no_longer_waiting(id, entry);
    }

    /// Notes that an entry of a running job failed, and waits until `due`.
    pub(in crate::relay) fn failed(
        &mut self,
        id: LaneId,
        entry: EntryId,
        due: Instant,
        history: History,
        delivered: PublisherSet,
    ) {
        self.settled(id, entry);
        let (alone, uuid_hash) = (history.host_deaths > 0, entry.uuid_hash);
        self.wait(
            id,
            entry.position,
            Waiting { uuid_hash, due, history, delivered, on_record: true, alone, delayed: false },
        );
    }

    /// Notes that an entry of a running job became a dead letter that parks its stream.
    pub(in crate::relay) fn parked(&mut self, id: LaneId) {
        if self.ordering != Ordering::None {
            self.lanes.entry(id).or_default().parked = true;
        }
    }

    /// Notes that an entry of a running job was not tried after all: it will be read again.
    pub(in crate::relay) fn released(&mut self, id: LaneId, entry: EntryId) {
        self.in_flight.remove(&entry);
        let lane = self.lanes.entry(id).or_default();
        if lane.held_by != Some(entry.position) {
            lane.missed.add(entry.position, &mut self.missed_room);
        }
    }

    /// Notes that a job has ended. `rest` are its claims that were not tried.
    pub(in crate::relay) fn finished(&mut self, id: LaneId, rest: Vec<Claim>) {
        self.running -= 1;
        self.running_alone = false;
        let lane = self.lanes.entry(id).or_default();
        lane.running = false;
        let legs = std::mem::take(&mut lane.legs);
        let load = std::mem::take(&mut lane.load);
        self.in_memory.remove(lane.tenant, legs, load);
        for claim in rest.into_iter().rev() {
            self.in_memory.add(lane.tenant, claim.known.legs(), Load::of([&claim]));
            lane.queue.push_front(claim);
        }
        if let Some((next, legs)) = lane.queue.front().map(|claim| (claim.known.id.position, claim.known.legs())) {
            if lane.parked || lane.held_by.is_some() || lane.missed.has_before(next) {
                // They have to wait for another entry, and are read again when that is gone.
                self.drop_unread(id);
            } else {
                self.ready.push(id, lane.tenant, legs);
            }
        }
        self.count_running(legs, -1);
        self.retire(id);
    }

    /// Notes that a settled entry is committed.
    pub(in crate::relay) fn committed(&mut self, id: LaneId, entry: EntryId) {
        self.unacked -= 1;
        self.in_flight.remove(&entry);
        let lane = self.lanes.entry(id).or_default();
        lane.unacked -= 1;
        self.retire(id);
    }

    /// Notes that the storage refuses to settle this entry: it stays where it is, and is not read again.
    pub(in crate::relay) fn keep_unsettled(&mut self, entry: EntryId) {
        self.unsettled.insert(entry);
    }

    /// Whether the storage refuses to settle this entry.
    pub(in crate::relay) fn is_unsettled(&self, entry: EntryId) -> bool {
        self.unsettled.contains(&entry)
    }

    /// Notes that this entry has been settled after all.
    pub(in crate::relay) fn no_longer_unsettled(&mut self, entry: EntryId) {
        self.unsettled.remove(&entry);
    }

    pub(in crate::relay) fn no_longer_waiting(&mut self, id: LaneId, entry: EntryId) {
        if let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.waiting_as(entry).is_some()) {
            lane.waiting.remove(&entry.position);
            if lane.held_by == Some(entry.position) {
                lane.held_by = None;
            }
        }
    }

    /// If nothing of a lane is under way and nothing holds it, has what was passed over read, and forgets the lane, unless
    /// some entry of it waits.
    pub(in crate::relay) fn retire(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| !lane.is_active()) else { return };
        if lane.parked || lane.not_admitted {
            return;
        }
        if lane.held_by.is_some() {
            return self.rearm(id);
        }
        if !lane.missed.is_empty() {
            let is_total = self.ordering == Ordering::Total;
            if let Some(from) = lane.missed.only_beyond(is_total, &mut self.missed_room) {
                self.rewind = Some(self.rewind.map_or(from, |rewind| rewind.min(from)));
            } else if !std::mem::replace(&mut lane.recalled, true) {
                self.recalled.push(lane.tenant, id);
            }
        }
        if lane.waiting.is_empty() && lane.missed.is_empty() && lane.paid.is_empty() {
            self.lanes.remove(&id);
        }
    }
}
