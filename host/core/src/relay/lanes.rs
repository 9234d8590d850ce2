//! Decides which entry may be published next, and which has to wait for another.
//!
//! Each stream is a lane; in total order all streams together are one. At most one job of a lane is under way at a time,
//! and nothing behind an entry that waits for its retry. An entry that may not go yet is not kept in memory: the reader
//! passes over it, and the lane remembers its position. Once nothing of the lane is under way, these positions are read;
//! if there were too many to remember, the reader goes back to the first of the others. The lanes know each entry that is
//! under way. Any other entry in the outbox is new, wherever its position lies, and is read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::Instant;

use self::admission::Waiters;
use self::in_memory::InMemory;
use self::lane::{Lane, Waiting};
use self::overflow::Overflows;
pub(super) use self::pace::Pace;
use self::ready::Ready;
pub(super) use self::reconcile::{HeldBy, HeldEntry};
pub(super) use self::shares::Shares;
use self::shares::{has_share, may_hand_over};
pub(super) use self::throttle::RateRule;
use self::throttle::Throttle;
use self::turns::Turns;
use super::breakers::Admission;
use super::job::{Claim, Job, Known, LaneHasher, LaneId, Load};
use super::options::Ordering;
use crate::publishers::{PUBLISHERS_MAX, PublisherSet};
use crate::raw::{EntryId, RawEntry};
use crate::settlement::History;
use crate::stream::{StreamKey, TenantKey};

mod admission;
mod claiming;
mod delayed;
mod in_memory;
mod lane;
mod lost;
mod missed;
mod overflow;
mod pace;
mod progress;
mod ready;
mod reconcile;
mod shares;
mod throttle;
mod total;
mod turns;
mod uncalled;

/// The most entries of a job.
pub(super) const JOB_MAX: usize = 64;
/// Stands for the entries that go to no publisher.
pub(super) const NO_PUBLISHER: usize = PUBLISHERS_MAX;
/// The most positions of entries that were passed over which are remembered, of all lanes: 8 MB.
const MISSED_MAX: usize = 1_000_000;

/// All lanes that something is known of.
pub(super) struct Lanes {
    ordering: Ordering,
    lanes: HashMap<LaneId, Lane, BuildHasherDefault<LaneHasher>>,
    ready: Ready,
    /// The rules of tenants' turns, if they have turns.
    shares: Option<Shares>,
    /// Lanes whose next entry must be published with no other call under way.
    ready_alone: VecDeque<LaneId>,
    timers: BinaryHeap<Reverse<(Instant, i64, LaneId)>>,
    /// Those whose time has come.
    overdue: Turns<(Instant, i64, LaneId)>,
    /// The lanes that wait for each publisher.
    waiting_for: Vec<Waiters>,
    /// How many lanes may wait for each publisher.
    waiting_max: usize,
    overflow: Overflows,
    throttle: Throttle,
    /// How many jobs are under way for each publisher.
    running_for: [u16; PUBLISHERS_MAX],
    /// Lanes with waiting entries, for which the reader wants entries that were not pushed yet.
    coming: Vec<LaneId>,
    /// Lanes that may go on, and whose entries that were passed over are to be read.
    recalled: Turns<LaneId>,
    /// How many more positions of entries that were passed over may be remembered.
    missed_room: usize,
    /// The position to which the reader has to go back.
    rewind: Option<i64>,
    /// Whether some entry may hold its lane until it is due.
    holds_delayed: bool,
    /// The entries that were read and whose settlement is not committed.
    in_flight: HashSet<EntryId, BuildHasherDefault<LaneHasher>>,
    /// Those of them that were brought back, and that the reader has not come to.
    unreached: HashSet<EntryId, BuildHasherDefault<LaneHasher>>,
    /// Entries that are settled here, but that the storage refuses to settle: they stay, and are not read again.
    unsettled: HashSet<EntryId, BuildHasherDefault<LaneHasher>>,
    in_memory: InMemory,
    running: usize,
    running_alone: bool,
    unacked: usize,
}

impl Lanes {
    pub(super) fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            lanes: HashMap::default(),
            ready: Ready::InOrder(VecDeque::new()),
            shares: None,
            ready_alone: VecDeque::new(),
            timers: BinaryHeap::new(),
            overdue: Turns::default(),
            waiting_for: Vec::new(),
            waiting_max: overflow::waiting_max(1),
            overflow: Overflows::default(),
            throttle: Throttle::default(),
            running_for: [0; PUBLISHERS_MAX],
            coming: Vec::new(),
            recalled: Turns::default(),
            missed_room: MISSED_MAX,
            rewind: None,
            holds_delayed: false,
            in_flight: HashSet::default(),
            unreached: HashSet::default(),
            unsettled: HashSet::default(),
            in_memory: InMemory::new(),
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
        let waiting =
            Waiting { uuid_hash: entry.uuid_hash, due, history, delivered, on_record: true, alone, delayed: false };
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
        let new = Waiting { uuid_hash, due: now, history, delivered, on_record: false, alone: true, delayed: false };
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
            lane.missed.add(other, &mut self.missed_room);
        }
        lane.held_by = Some(holder);
    }

    // --- reading -----------------------------------------------------------------------------------------------

    /// Waiting entries that are due, at most `max`, to be read by their positions. An entry whose failure is not
    /// committed yet has its turn after the commit.
    pub(super) fn due(&mut self, now: Instant, max: usize) -> Vec<(LaneId, EntryId)> {
        while let Some(Reverse((at, position, id))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let tenant = self.tenant_of(id);
            self.overdue.push(tenant, (at, position, id));
        }
        let mut due = Vec::new();
        while due.len() < max
            && let Some((tenant, (at, position, id))) = self.next_overdue()
        {
            self.overdue.charge(tenant, 1);
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

    /// The next of those whose time has come, and whose tenant may have more in memory.
    fn next_overdue(&mut self) -> Option<(TenantKey, (Instant, i64, LaneId))> {
        let Self { overdue, shares, in_memory, .. } = self;
        overdue.pop(|tenant| has_share(shares, in_memory, tenant))
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
        let is_overdue = self.overdue.any(|tenant| has_share(&self.shares, &self.in_memory, tenant));
        let overdue = self.overdue.iter().filter(|_| is_overdue).map(|(at, ..)| *at).next();
        overdue.or_else(|| self.timers.peek().map(|Reverse((at, ..))| *at))
    }

    /// Forgets a waiting entry that is no longer there; another entry may have its position.
    pub(super) fn vanished(&mut self, id: LaneId, entry: EntryId) {
        self.no_longer_waiting(id, entry);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.missed.add(entry.position, &mut self.missed_room);
        }
        self.retire(id);
    }

    /// Whether the reader should read this entry, or pass over it for now.
    pub(super) fn wants(&mut self, entry: EntryId, stream: StreamKey, now: Instant) -> bool {
        let id = self.id(stream, entry.position);
        let has_missed = self.lanes.get(&id).is_some_and(|lane| !lane.missed.is_empty());
        self.may_go(id, entry, has_missed, now)
    }

    /// Whether this entry may be pushed. `is_behind` says that earlier ones of its lane were passed over.
    fn may_go(&mut self, id: LaneId, entry: EntryId, is_behind: bool, now: Instant) -> bool {
        let position = entry.position;
        if self.in_flight.contains(&entry) {
            self.unreached.remove(&entry);
            return false;
        }
        if self.unsettled.contains(&entry) || self.overflow.passes_over(id, position) {
            return false;
        }
        let Some(lane) = self.lanes.get_mut(&id) else {
            return true;
        };
        lane.forget_predecessor(entry);
        if lane.held_by == Some(position) {
            return false;
        }
        if lane.parked || lane.not_admitted || lane.held_by.is_some() || is_behind {
            lane.missed.add(position, &mut self.missed_room);
            return false;
        }
        match lane.waiting.get(&position).copied() {
            Some(waiting) if waiting.alone || waiting.due > now => {
                if lane.is_active() {
                    // It holds its lane once the entries before it are gone.
                    lane.missed.add(position, &mut self.missed_room);
                } else {
                    lane.held_by = Some(position);
                    self.timers.push(Reverse((waiting.due, position, id)));
                }
                false
            }
            _ => {
                if !lane.waiting.is_empty() {
                    lane.coming.push(position);
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
                // They could not be read.
                let unread = std::mem::take(&mut lane.coming);
                unread.into_iter().for_each(|position| lane.missed.add(position, &mut self.missed_room));
            }
            self.retire(id);
        }
    }

    /// Takes in an entry that was read because it was wanted or due. If it has appeared before others of its stream, it
    /// goes before those that are not under way. If it goes to one of the publishers in `full`, which have no room, it is
    /// passed over, and so is what was read with it and comes after it in its lane.
    pub(super) fn push(&mut self, entry: RawEntry, route: PublisherSet, full: PublisherSet) {
        let (id, entry_id) = (self.id(entry.stream_key(), entry.position), entry.id());
        let tenant = self.tenant(&entry);
        let full = full | self.passed_over(tenant);
        let is_held = || self.lanes.get(&id).is_some_and(|lane| lane.held_by == Some(entry_id.position));
        if !self.overflow.is_empty() && !is_held() && self.overflow.passes_over(id, entry_id.position) {
            return;
        }
        let lane = self.lanes.entry(id).or_default();
        if !lane.is_in_memory() {
            lane.tenant = tenant;
        }
        let tenant = lane.tenant;
        lane.coming.retain(|coming| *coming != entry_id.position);
        let is_behind_a_holder = lane.held_by.is_some_and(|holder| holder < entry_id.position);
        if lane.held_by != Some(entry_id.position) && (is_behind_a_holder || lane.missed.has_before(entry_id.position))
        {
            return lane.missed.add(entry_id.position, &mut self.missed_room);
        }
        let waiting = lane.waiting_as(entry_id);
        let known = Known {
            id: entry_id,
            stream: entry.stream_key(),
            history: waiting.map_or(History::default(), |waiting| waiting.history),
            tried_before: waiting.is_some_and(|waiting| waiting.on_record),
            route,
            delivered: waiting.map_or(PublisherSet::NONE, |waiting| waiting.delivered),
            alone: waiting.is_some(),
        };
        let claim = Claim { known, entry };
        if claim.known.legs().meets(full) {
            return self.turn_away(id, &claim);
        }
        self.in_flight.insert(entry_id);
        let legs = claim.known.legs();
        self.in_memory.add(tenant, legs, Load::of([&claim]));
        let earlier = lane.queue.iter().rposition(|queued| queued.known.id.position < entry_id.position);
        lane.queue.insert(earlier.map_or(0, |earlier| earlier + 1), claim);
        if lane.queue.len() == 1 && !lane.running {
            let alone = waiting.is_some_and(|waiting| waiting.alone);
            match alone {
                true => self.ready_alone.push_back(id),
                false => self.ready.push(id, tenant, legs),
            }
        }
    }

    /// The position to which the reader has to go back, returned once.
    pub(super) fn take_rewind(&mut self) -> Option<i64> {
        self.rewind.take()
    }

    // --- how much there is -------------------------------------------------------------------------------------

    /// How much was read, and is not published yet.
    pub(super) fn in_memory(&self) -> Load {
        self.in_memory.all()
    }

    /// How much of it is for each publisher.
    pub(super) fn load(&self, leg: usize) -> Load {
        self.in_memory.of_leg(leg)
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
        self.lanes.is_empty() && self.overflow.is_empty()
    }

    fn tenant_of(&self, id: LaneId) -> TenantKey {
        self.lanes.get(&id).map_or(TenantKey::default(), |lane| lane.tenant)
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
