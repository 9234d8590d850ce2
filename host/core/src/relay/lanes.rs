//! Decides which entry may be published next, and which has to wait for another.
//!
//! Each stream is a lane; in total order all streams together are one. At most one job of a lane is under way at a time, and nothing behind an entry that waits for
//! its retry. An entry that may not go yet is not kept in memory: the reader passes over it, the lane remembers the
//! first such position, and once nothing of the lane is under way the reader goes back there. The lanes know each entry
//! that is under way. Any other entry in the outbox is new, wherever its position lies, and is read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::Instant;

use self::lane::{Lane, Waiting};
pub(super) use self::reconcile::{HeldBy, HeldEntry};
use super::breakers::Admission;
use super::job::{Claim, Job, Known, LaneHasher, LaneId, Load};
use super::options::Ordering;
use crate::publishers::{PUBLISHERS_MAX, PublisherSet};
use crate::raw::{EntryId, RawEntry};
use crate::settlement::History;
use crate::stream::StreamKey;

mod dropped;
mod lane;
mod lost;
mod reconcile;
mod total;

/// The most entries of a job.
const JOB_MAX: usize = 64;

/// All lanes that something is known of.
pub(super) struct Lanes {
    ordering: Ordering,
    lanes: HashMap<LaneId, Lane, BuildHasherDefault<LaneHasher>>,
    ready: VecDeque<LaneId>,
    /// Lanes whose next entry must be published with no other call under way.
    ready_alone: VecDeque<LaneId>,
    timers: BinaryHeap<Reverse<(Instant, i64, LaneId)>>,
    /// Lanes that wait for a publisher, with the publishers of their next entry.
    not_admitted: Vec<(LaneId, PublisherSet)>,
    /// How many jobs are under way for each publisher.
    running_for: [u16; PUBLISHERS_MAX],
    /// Lanes with waiting entries, for which the reader wants entries that were not pushed yet.
    coming: Vec<LaneId>,
    /// The position to which the reader has to go back.
    rewind: Option<i64>,
    /// The entries that were read and whose settlement is not committed.
    in_flight: HashSet<EntryId, BuildHasherDefault<LaneHasher>>,
    /// Entries that are settled here, but that the storage refuses to settle: they stay, and are not read again.
    unsettled: HashSet<EntryId, BuildHasherDefault<LaneHasher>>,
    in_memory: Load,
    running: usize,
    running_alone: bool,
    unacked: usize,
}

impl Lanes {
    pub(super) fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            lanes: HashMap::default(),
            ready: VecDeque::new(),
            ready_alone: VecDeque::new(),
            timers: BinaryHeap::new(),
            not_admitted: Vec::new(),
            running_for: [0; PUBLISHERS_MAX],
            coming: Vec::new(),
            rewind: None,
            in_flight: HashSet::default(),
            unsettled: HashSet::default(),
            in_memory: Load::default(),
            running: 0,
            running_alone: false,
            unacked: 0,
        }
    }

    // --- what holds entries back, known from the start ----------------------------------------------------------

    /// Makes an entry wait until `due`.
    pub(super) fn hold(
        &mut self,
        stream: StreamKey,
        entry: EntryId,
        due: Instant,
        history: History,
        delivered: PublisherSet,
    ) {
        let (id, alone) = (self.id(stream, entry.position), history.host_deaths > 0);
        let waiting = Waiting { uuid_hash: entry.uuid_hash, due, history, delivered, on_record: true, alone };
        let is_behind_one_alone = self.lanes.get(&id).is_some_and(|lane| lane.waits_alone_before(entry.position));
        if self.ordering == Ordering::Total {
            self.wait_in_total_order(id, entry.position, waiting);
        } else if alone || is_behind_one_alone {
            self.wait_in_turn(id, entry.position, waiting)
        } else {
            self.wait(id, entry.position, waiting)
        }
    }

    /// Notes that the host may have died of this entry: it is tried with no other call under way.
    pub(super) fn suspect(&mut self, stream: StreamKey, entry: EntryId, now: Instant) {
        let id = self.id(stream, entry.position);
        let known = self.lanes.get(&id).and_then(|lane| lane.waiting_as(entry));
        let (history, delivered, uuid_hash) = (History::default(), PublisherSet::NONE, entry.uuid_hash);
        let new = Waiting { uuid_hash, due: now, history, delivered, on_record: false, alone: true };
        self.wait_in_turn(id, entry.position, Waiting { alone: true, ..known.unwrap_or(new) });
    }

    /// Earlier entries of the stream may have been delivered but not deleted. They are read first; this one blocks its
    /// lane only when reached.
    fn wait_in_turn(&mut self, id: LaneId, position: i64, waiting: Waiting) {
        let lane = self.lanes.entry(id).or_default();
        lane.waiting.insert(position, waiting);
        // A later entry that waits too has its turn after this one.
        lane.held_by = lane.held_by.filter(|holder| *holder < position);
    }

    /// The first waiting entry holds the lane; the reader meets another one again behind it.
    fn wait(&mut self, id: LaneId, position: i64, waiting: Waiting) {
        self.timers.push(Reverse((waiting.due, position, id)));
        let lane = self.lanes.entry(id).or_default();
        lane.waiting.insert(position, waiting);
        let holder = lane.held_by.map_or(position, |holder| holder.min(position));
        if let Some(other) = [lane.held_by, Some(position)].into_iter().flatten().find(|other| *other != holder) {
            lane.miss(other);
        }
        lane.held_by = Some(holder);
    }

    // --- reading -----------------------------------------------------------------------------------------------

    /// Waiting entries that are due, at most `max`, to be read by their positions. An entry whose failure is not
    /// committed yet has its turn after the commit.
    pub(super) fn due(&mut self, now: Instant, max: usize) -> Vec<(LaneId, EntryId)> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some(Reverse((at, position, id))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(lane) = self.lanes.get(&id) else { continue };
            let Some(waiting) = lane.waiting.get(&position).filter(|waiting| waiting.due == at) else { continue };
            let entry = EntryId { position, uuid_hash: waiting.uuid_hash };
            let holds = lane.held_by == Some(position) && lane.queue.is_empty() && lane.is_free();
            if holds && !self.in_flight.contains(&entry) && !due.contains(&(id, entry)) {
                due.push((id, entry));
            }
        }
        due
    }

    /// Sets the timer of the entry that holds this lane. It may be gone: the time may have come while the lane was busy,
    /// and the entry may have been given back untried or may not have been read.
    pub(super) fn rearm(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get(&id) else { return };
        let holder = lane.held_by.and_then(|holder| Some((holder, lane.waiting.get(&holder)?.due)));
        self.timers.extend(holder.map(|(holder, due)| Reverse((due, holder, id))));
    }

    /// When the next waiting entry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Forgets a waiting entry that is no longer there; another entry may have its position.
    pub(super) fn vanished(&mut self, id: LaneId, entry: EntryId) {
        self.no_longer_waiting(id, entry);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.miss(entry.position);
        }
        self.retire(id);
    }

    /// Whether the reader should read this entry, or pass over it for now.
    pub(super) fn wants(&mut self, entry: EntryId, stream: StreamKey, now: Instant) -> bool {
        if self.in_flight.contains(&entry) || self.unsettled.contains(&entry) {
            return false;
        }
        let (id, position) = (self.id(stream, entry.position), entry.position);
        let Some(lane) = self.lanes.get_mut(&id) else {
            return true;
        };
        lane.forget_predecessor(entry);
        if lane.held_by == Some(position) {
            return false;
        }
        if lane.parked || lane.not_admitted || lane.held_by.is_some() || lane.missed_from.is_some() {
            lane.miss(position);
            return false;
        }
        match lane.waiting.get(&position).copied() {
            Some(waiting) if waiting.alone || waiting.due > now => {
                if lane.is_active() {
                    // It holds its lane once the entries before it are gone.
                    lane.miss(position);
                } else {
                    lane.held_by = Some(position);
                    self.timers.push(Reverse((waiting.due, position, id)));
                }
                false
            }
            _ => {
                if !lane.waiting.is_empty() && !std::mem::replace(&mut lane.coming, true) {
                    self.coming.push(id);
                }
                true
            }
        }
    }

    /// Called when the wanted entries of a page were pushed, or could not be read.
    pub(super) fn page_ended(&mut self) {
        for id in std::mem::take(&mut self.coming) {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.coming = false;
            }
            self.retire(id);
        }
    }

    /// Takes in an entry that was read because it was wanted or due. If it has appeared before others of its stream, it
    /// goes before those that are not under way.
    pub(super) fn push(&mut self, entry: RawEntry, route: PublisherSet) {
        let (id, entry_id) = (self.id(entry.stream_key(), entry.position), entry.id());
        let lane = self.lanes.entry(id).or_default();
        let waiting = lane.waiting_as(entry_id);
        let known = Known {
            id: entry_id,
            stream: entry.stream_key(),
            history: waiting.map_or(History::default(), |waiting| waiting.history),
            tried_before: waiting.is_some_and(|waiting| waiting.on_record),
            route,
            delivered: waiting.map_or(PublisherSet::NONE, |waiting| waiting.delivered),
        };
        let claim = Claim { known, entry };
        self.in_memory.add(&claim);
        self.in_flight.insert(entry_id);
        let earlier = lane.queue.iter().rposition(|queued| queued.known.id.position < entry_id.position);
        lane.queue.insert(earlier.map_or(0, |earlier| earlier + 1), claim);
        if lane.queue.len() == 1 && !lane.running {
            let alone = waiting.is_some_and(|waiting| waiting.alone);
            if alone { &mut self.ready_alone } else { &mut self.ready }.push_back(id);
        }
    }

    /// The position to which the reader has to go back, returned once.
    pub(super) fn take_rewind(&mut self) -> Option<i64> {
        self.rewind.take()
    }

    // --- publishing --------------------------------------------------------------------------------------------

    /// The next job, if one may start now. If a lane's next entry goes to a publisher that may not be called, the lane
    /// waits for that publisher, and its queue is dropped, since it would keep other lanes from being read.
    pub(super) fn next_job(&mut self, admission: Admission) -> Option<Job> {
        while let Some(id) = self.ready_alone.front().copied()
            && self.is_not_admitted(id, admission.refused)
        {
            self.ready_alone.pop_front();
        }
        if self.running_alone || (self.running > 0 && !self.ready_alone.is_empty()) {
            return None;
        }
        let alone = self.ready_alone.pop_front();
        self.running_alone = alone.is_some();
        let id = match alone {
            Some(id) => id,
            None => loop {
                let id = self.ready.pop_front()?;
                if !self.is_not_admitted(id, admission.refused) {
                    break id;
                }
            },
        };
        let lane = self.lanes.get_mut(&id)?;
        let first = lane.queue.front()?.known.legs();
        let may_go = |claim: &Claim| !claim.known.legs().meets(admission.refused | admission.probed);
        let entries = match first.meets(admission.probed) {
            true => 1,
            false => lane.queue.iter().take(JOB_MAX).take_while(|claim| may_go(claim)).count(),
        };
        let claims: Vec<Claim> = lane.queue.drain(..entries).collect();
        let legs = claims.iter().fold(PublisherSet::NONE, |legs, claim| legs | claim.known.legs());
        (lane.running, lane.load, lane.legs) = (true, Load::of(&claims), legs);
        self.running += 1;
        self.count_running(legs, 1);
        Some(Job { lane: id, claims, legs })
    }

    /// Whether the lane's next entry goes to one of these publishers. If so, the lane waits from now on.
    fn is_not_admitted(&mut self, id: LaneId, refused: PublisherSet) -> bool {
        let Some(lane) = self.lanes.get_mut(&id) else { return false };
        let Some(next) = lane.queue.front().filter(|next| next.known.legs().meets(refused)) else { return false };
        let (position, legs) = (next.known.id.position, next.known.legs());
        lane.not_admitted = true;
        if lane.held_by != Some(position) {
            lane.miss(position);
        }
        let queue = std::mem::take(&mut lane.queue);
        self.not_admitted.push((id, legs));
        self.drop_unread(&queue);
        true
    }

    /// Drops the queue of a lane, to be read again.
    fn drop_unread(&mut self, queue: &VecDeque<Claim>) {
        self.in_memory.remove(Load::of(queue));
        queue.iter().for_each(|claim| _ = self.in_flight.remove(&claim.known.id));
    }

    /// Lets the reader read lanes again whose publishers may be called; for a publisher that is to be probed, only the
    /// first lane.
    pub(super) fn admit(&mut self, admission: Admission) {
        let mut probed = PublisherSet::NONE;
        let mut opened = Vec::new();
        self.not_admitted.retain(|(id, legs)| {
            let waits = legs.meets(admission.refused) || legs.both(admission.probed).meets(probed);
            if !waits {
                probed = probed | legs.both(admission.probed);
                opened.push(*id);
            }
            waits
        });
        for id in opened {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.not_admitted = false;
            self.retire(id);
        }
    }

    /// Whether a job that calls this publisher is under way.
    pub(super) fn is_running_for(&self, leg: usize) -> bool {
        self.running_for.get(leg).is_some_and(|running| *running > 0)
    }

    fn count_running(&mut self, legs: PublisherSet, change: i16) {
        for leg in legs.iter() {
            if let Some(running) = self.running_for.get_mut(leg) {
                *running = running.saturating_add_signed(change);
            }
        }
    }

    /// Notes that an entry of a running job was settled, and awaits its commit.
    pub(super) fn settled(&mut self, id: LaneId, entry: EntryId) {
        self.unacked += 1;
        self.lanes.entry(id).or_default().unacked += 1;
        self.no_longer_waiting(id, entry);
    }

    /// Notes that an entry of a running job failed, and waits until `due`.
    pub(super) fn failed(
        &mut self,
        id: LaneId,
        entry: EntryId,
        due: Instant,
        history: History,
        delivered: PublisherSet,
    ) {
        self.settled(id, entry);
        let (alone, uuid_hash) = (history.host_deaths > 0, entry.uuid_hash);
        self.wait(id, entry.position, Waiting { uuid_hash, due, history, delivered, on_record: true, alone });
    }

    /// Notes that an entry of a running job became a dead letter that parks its stream.
    pub(super) fn parked(&mut self, id: LaneId) {
        if self.ordering != Ordering::None {
            self.lanes.entry(id).or_default().parked = true;
        }
    }

    /// Notes that an entry of a running job was not tried after all: it will be read again.
    pub(super) fn released(&mut self, id: LaneId, entry: EntryId) {
        self.in_flight.remove(&entry);
        let lane = self.lanes.entry(id).or_default();
        if lane.held_by != Some(entry.position) {
            lane.miss(entry.position);
        }
    }

    /// Notes that an entry of a running job was not tried after all, since these publishers are not available: its lane
    /// waits for them, behind those that wait already. So each has its turn to be the probe.
    pub(super) fn turned_away(&mut self, id: LaneId, entry: EntryId, legs: PublisherSet) {
        self.in_flight.remove(&entry);
        let lane = self.lanes.entry(id).or_default();
        if lane.held_by != Some(entry.position) {
            lane.miss(entry.position);
        }
        if !std::mem::replace(&mut lane.not_admitted, true) {
            self.not_admitted.push((id, legs));
        }
    }

    /// Notes that a job has ended. `rest` are its claims that were not tried.
    pub(super) fn finished(&mut self, id: LaneId, rest: Vec<Claim>) {
        self.running -= 1;
        self.running_alone = false;
        let lane = self.lanes.entry(id).or_default();
        lane.running = false;
        let legs = std::mem::take(&mut lane.legs);
        self.in_memory.remove(std::mem::take(&mut lane.load));
        for claim in rest.into_iter().rev() {
            self.in_memory.add(&claim);
            lane.queue.push_front(claim);
        }
        if let Some(next) = lane.queue.front().map(|claim| claim.known.id.position) {
            if lane.parked || lane.held_by.is_some() || lane.missed_from.is_some_and(|from| from < next) {
                // They have to wait for another entry, and are read again when that is gone.
                lane.miss(next);
                let queue = std::mem::take(&mut lane.queue);
                self.drop_unread(&queue);
            } else {
                self.ready.push_back(id);
            }
        }
        self.count_running(legs, -1);
        self.retire(id);
    }

    /// Notes that a settled entry is committed.
    pub(super) fn committed(&mut self, id: LaneId, entry: EntryId) {
        self.unacked -= 1;
        self.in_flight.remove(&entry);
        let lane = self.lanes.entry(id).or_default();
        lane.unacked -= 1;
        self.retire(id);
    }

    /// Notes that the storage refuses to settle this entry: it stays where it is, and is not read again.
    pub(super) fn keep_unsettled(&mut self, entry: EntryId) {
        self.unsettled.insert(entry);
    }

    /// Whether the storage refuses to settle this entry.
    pub(super) fn is_unsettled(&self, entry: EntryId) -> bool {
        self.unsettled.contains(&entry)
    }

    /// Notes that this entry has been settled after all.
    pub(super) fn no_longer_unsettled(&mut self, entry: EntryId) {
        self.unsettled.remove(&entry);
    }

    fn no_longer_waiting(&mut self, id: LaneId, entry: EntryId) {
        if let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.waiting_as(entry).is_some()) {
            lane.waiting.remove(&entry.position);
            if lane.held_by == Some(entry.position) {
                lane.held_by = None;
            }
        }
    }

    /// If nothing of a lane is under way and nothing holds it, sends the reader back to what it passed over, and
    /// forgets the lane, unless some entry of it waits.
    fn retire(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| !lane.is_active()) else { return };
        if lane.parked || lane.not_admitted {
            return;
        }
        if lane.held_by.is_some() {
            return self.rearm(id);
        }
        if let Some(from) = lane.missed_from.take() {
            self.rewind = Some(self.rewind.map_or(from, |rewind| rewind.min(from)));
        }
        if lane.waiting.is_empty() {
            self.lanes.remove(&id);
        }
    }

    // --- how much there is -------------------------------------------------------------------------------------

    /// How much was read, and is not published yet.
    pub(super) fn in_memory(&self) -> Load {
        self.in_memory
    }

    /// How many jobs are under way.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// How many settled entries await their commit.
    pub(super) fn unacked(&self) -> usize {
        self.unacked
    }

    /// Whether nothing is known of any lane.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The lane of an entry. With no order, each entry is a lane of its own.
    fn id(&self, stream: StreamKey, position: i64) -> LaneId {
        match self.ordering {
            Ordering::Stream => LaneId(stream.0),
            Ordering::Total => total::LANE,
            Ordering::None => LaneId(position.cast_unsigned()),
        }
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
