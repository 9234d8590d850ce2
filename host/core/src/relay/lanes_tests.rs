use std::num::NonZeroU32;
use std::time::Duration;

use super::reconcile::Reconciled;
use super::*;
use crate::rate::{RateBy, RateLimit};
use crate::relay::bulkheads::PATIENCE;
use crate::row::{Field, Row};

const SECOND: Duration = Duration::from_secs(1);

/// Lanes, with a table in place of the outbox: positions and their streams.
struct World {
    lanes: Lanes,
    rows: Vec<(i64, &'static str)>,
    cursor: i64,
    now: Instant,
    admission: Admission,
    /// Publishers that have no room.
    full: PublisherSet,
    /// Entries that hold their lanes until then.
    delayed: HashMap<i64, Instant>,
}

/// Streams named `other...` go to another publisher, `both...` to both, and the entries of `mixed...` here and there.
fn route(position: i64, stream: &str) -> PublisherSet {
    match stream {
        _ if stream.starts_with("mixed") => PublisherSet::of_bits(1 + position.cast_unsigned() % 3),
        _ if stream.starts_with("other") => PublisherSet::one(1),
        _ if stream.starts_with("both") => PublisherSet::one(0) | PublisherSet::one(1),
        _ => PublisherSet::one(0),
    }
}

/// Streams with a number have a tenant with this number.
fn tenant(stream: &str) -> &str {
    stream.split_once('-').map_or("default", |(_, number)| number)
}

fn key(stream: &str) -> StreamKey {
    StreamKey::of(tenant(stream).as_bytes(), stream.as_bytes())
}

fn entry(position: i64, stream: &str) -> RawEntry {
    let (tenant_id, stream_id, data) = (tenant(stream).into(), stream.into(), "{}".into());
    RawEntry::new(position, &Row { tenant_id, stream_id, data, ..Row::default() })
}

/// The entries of these tests have no uuids.
fn id(position: i64) -> EntryId {
    EntryId::of(position, &Field::Null)
}

fn failures(attempts: u32) -> History {
    History { attempts, host_deaths: 0 }
}

impl World {
    fn new(ordering: Ordering, rows: &[(i64, &'static str)]) -> Self {
        Self {
            lanes: Lanes::new(ordering),
            rows: rows.to_vec(),
            cursor: i64::MIN,
            now: Instant::now(),
            admission: Admission::default(),
            full: PublisherSet::NONE,
            delayed: HashMap::new(),
        }
    }

    /// Takes in an entry that was read.
    fn push(&mut self, position: i64, stream: &'static str) {
        match self.delayed.get(&position).filter(|due| **due > self.now) {
            Some(due) => self.lanes.hold_delayed(key(stream), id(position), *due),
            None => self.lanes.push(entry(position, stream), route(position, stream), self.full),
        }
    }

    fn read(&mut self) {
        self.lanes.update_shares(self.now);
        for (lane, id) in self.lanes.due(self.now, 100) {
            match self.rows.iter().find(|(row, _)| *row == id.position).copied() {
                Some((position, stream)) => self.push(position, stream),
                None => self.lanes.vanished(lane, id),
            }
        }
        while let Some((lane, positions)) = self.lanes.next_missed(64) {
            for (position, stream) in self.rows.clone().into_iter().filter(|(row, _)| positions.contains(row)) {
                if self.lanes.wants_missed(id(position), key(stream), self.now) {
                    self.push(position, stream);
                }
            }
            self.lanes.missed_read(lane, &[]);
        }
        if let Some(from) = self.lanes.take_rewind() {
            self.cursor = self.cursor.min(from - 1);
        }
        // As in a page of the outbox: all entries are asked for before the first is pushed.
        let from = self.cursor;
        let mut page = self.rows.clone();
        page.retain(|(position, stream)| *position > from && self.lanes.wants(id(*position), key(stream), self.now));
        self.cursor = self.rows.last().map_or(from, |(last, _)| from.max(*last));
        page.into_iter().for_each(|(position, stream)| self.push(position, stream));
        self.lanes.page_ended();
    }

    fn admit(&mut self) {
        self.lanes.admit(self.admission, self.full, |_| 100);
    }

    /// Reads, and starts whatever may start: the positions of each job.
    fn jobs(&mut self) -> Vec<Job> {
        self.read();
        std::iter::from_fn(|| self.lanes.next_job(self.admission, self.now)).collect()
    }

    /// How many lanes wait for the publishers.
    fn waiting(&self) -> usize {
        (0..2).map(|leg| self.lanes.waiting_lanes(leg)).sum()
    }

    fn positions(jobs: &[Job]) -> Vec<Vec<i64>> {
        jobs.iter().map(|job| job.claims.iter().map(|claim| claim.entry.position).collect()).collect()
    }

    fn deliver(&mut self, job: Job) {
        for claim in &job.claims {
            self.lanes.settled(job.lane, claim.known.id);
        }
        let delivered: Vec<i64> = job.claims.iter().map(|claim| claim.known.id.position).collect();
        self.lanes.done(job.lane, job.legs, self.now);
        self.lanes.finished(job.lane, vec![]);
        self.rows.retain(|(position, _)| !delivered.contains(position));
        delivered.iter().for_each(|position| self.lanes.committed(job.lane, id(*position)));
    }

    /// The first entry of the job fails, and the others are not tried.
    fn fail(&mut self, job: Job, delay: Duration) {
        let mut claims = job.claims.into_iter();
        let first = claims.next().unwrap();
        let attempts = failures(first.known.history.attempts + 1);
        self.lanes.failed(job.lane, first.known.id, self.now + delay, attempts, PublisherSet::NONE);
        self.lanes.finished(job.lane, claims.collect());
        self.lanes.committed(job.lane, first.known.id);
    }
}

/// While many commits are awaited, nothing is claimed: a lane may then lose what was ready, and be filled again.
#[test]
fn a_lane_that_was_emptied_while_it_was_ready_has_one_job_at_a_time_too() {
    let mut world = World::new(Ordering::Stream, &[(6, "mixed"), (7, "mixed")]);
    world.read();
    world.rows.insert(0, (4, "mixed"));
    (world.cursor, world.full) = (i64::MIN, PublisherSet::one(1));
    world.read();
    world.full = PublisherSet::NONE;
    world.admit();
    for expected in [4, 6, 7] {
        let mut jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[expected]]);
        world.deliver(jobs.pop().unwrap());
    }
}

/// A caller gives back what it has taken beside a call that takes long.
#[test]
fn a_retry_that_is_given_back_untried_is_due_again() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
    let job = world.jobs().pop().unwrap();
    world.fail(job, SECOND);
    world.now += SECOND;
    for _ in 0..3 {
        let retry = world.jobs().pop().unwrap();
        assert_eq!(World::positions(std::slice::from_ref(&retry)), [[1]]);
        world.lanes.finished(retry.lane, retry.claims);
    }
    let retry = world.jobs().pop().unwrap();
    world.deliver(retry);
    assert_eq!(World::positions(&world.jobs()), [[2]]);
}

/// Whatever keeps an entry from being tried when its time has come.
#[test]
fn a_retry_whose_time_comes_while_its_stream_is_parked_is_due_when_the_stream_goes_on() {
    let mut world = World::new(Ordering::Stream, &[(1, "a")]);
    let job = world.jobs().pop().unwrap();
    world.fail(job, SECOND);
    let parked = HeldEntry { stream: key("a"), tenant: TenantKey::default(), entry: id(0), hold: HeldBy::Parked };
    let (due, history, delivered) = (world.now + SECOND, failures(1), PublisherSet::NONE);
    let waiting = HeldEntry {
        stream: key("a"),
        tenant: TenantKey::default(),
        entry: id(1),
        hold: HeldBy::Waiting { due, history, delivered },
    };
    world.lanes.reconcile(&[parked, waiting], false);
    world.now += 2 * SECOND;
    assert!(world.jobs().is_empty());
    world.lanes.reconcile(&[waiting], false);
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

/// Each account that wakes a lane is lost once, as a fault of ours would lose it.
#[test]
fn a_lane_that_nothing_would_wake_is_found() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "b"), (4, "other")]);
    let mut jobs = world.jobs();
    let (other, b, a) = (jobs.pop().unwrap(), jobs.pop().unwrap(), jobs.pop().unwrap());
    world.fail(a, SECOND);
    world.lanes.released(b.lane, id(3));
    world.lanes.finished(b.lane, vec![]);
    world.lanes.finished(other.lane, other.claims);
    world.admission.refused = PublisherSet::one(1);
    assert!(std::iter::from_fn(|| world.lanes.next_job(world.admission, world.now)).next().is_none());
    assert_eq!(world.lanes.wake_lost(), 0, "each of them is to be woken");

    world.lanes.timers.clear();
    assert_eq!((world.lanes.wake_lost(), world.lanes.next_due()), (1, Some(world.now + SECOND)));
    world.lanes.waiting_for.clear();
    assert_eq!(world.lanes.wake_lost(), 1);
    world.admission = Admission::default();
    assert_eq!(World::positions(&world.jobs()), [[3], [4]]);
}

#[test]
fn a_lane_has_one_job_at_a_time_and_lanes_run_side_by_side() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b"), (3, "a")]);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [vec![1, 3], vec![2]]);
    world.rows.push((4, "a"));
    assert!(world.jobs().is_empty());
    for job in jobs {
        world.deliver(job);
    }
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[4]]);
    world.deliver(jobs.into_iter().next().unwrap());
    assert!(world.lanes.is_empty() && world.lanes.in_memory() == Load::default());
}

#[test]
fn a_failing_entry_holds_back_its_own_lane_only_and_then_it_goes_on_in_order() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b"), (3, "a"), (4, "a")]);
    let mut jobs = world.jobs();
    let b = jobs.pop().unwrap();
    world.fail(jobs.pop().unwrap(), SECOND);
    world.deliver(b);
    world.rows.push((5, "b"));
    world.rows.push((6, "a"));
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[5]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(world.lanes.next_due(), Some(world.now + SECOND));
    world.now += SECOND;
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1]], "the first alone");
    assert_eq!(jobs[0].claims[0].known.history, failures(1));
    assert!(jobs[0].claims[0].known.tried_before);
    jobs.into_iter().for_each(|job| world.deliver(job));
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[3, 4, 6]]);
    assert!(!jobs[0].claims[0].known.tried_before);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.lanes.is_empty());
}

#[test]
fn nothing_is_read_twice_while_its_commit_is_awaited() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b")]);
    let mut jobs = world.jobs();
    let (b, a) = (jobs.pop().unwrap(), jobs.pop().unwrap());
    world.lanes.settled(b.lane, id(2));
    world.lanes.finished(b.lane, vec![]);
    // Another lane sends the reader back to the start.
    world.lanes.released(a.lane, id(1));
    world.lanes.finished(a.lane, vec![]);
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

#[test]
fn without_order_others_overtake() {
    let mut world = World::new(Ordering::None, &[(1, "a"), (2, "a"), (3, "a")]);
    let mut jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1], [2], [3]]);
    world.fail(jobs.remove(0), SECOND);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.jobs().is_empty());
    world.now += SECOND;
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

#[test]
fn an_entry_that_is_dropped_leaves_its_lane_and_what_is_behind_it_goes_on() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "b")]);
    let job = world.jobs().remove(0);
    world.fail(job, SECOND);
    world.now += SECOND;
    // Another relay has no publisher for the one that waits.
    let due = world.lanes.due(world.now, 10);
    assert_eq!(due.iter().map(|(_, entry)| entry.position).collect::<Vec<_>>(), [1]);
    let (lane, tried_before) = world.lanes.settle_uncalled(&entry(1, "a"));
    assert!(tried_before && !world.lanes.wants(id(1), key("a"), world.now));
    assert!(world.jobs().is_empty());
    world.rows.remove(0);
    world.lanes.committed(lane, id(1));
    assert_eq!(World::positions(&world.jobs()), [[2]]);
    let (lane, tried_before) = world.lanes.settle_uncalled(&entry(9, "new"));
    world.lanes.committed(lane, id(9));
    assert!(!tried_before && !world.lanes.lanes.contains_key(&lane));
}

#[test]
fn in_total_order_all_streams_are_one_lane() {
    let mut world = World::new(Ordering::Total, &[(1, "a"), (2, "c"), (3, "b")]);
    let mut jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1, 2, 3]]);
    world.fail(jobs.pop().unwrap(), SECOND);
    assert!(world.jobs().is_empty());
    assert!(world.lanes.everything_waits());
    world.now += SECOND;
    let retry = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&retry)), [[1]]);
    world.lanes.settled(retry.lane, id(1));
    world.lanes.parked(retry.lane);
    world.lanes.finished(retry.lane, vec![]);
    world.lanes.committed(retry.lane, id(1));
    world.rows.remove(0);
    assert!(world.jobs().is_empty() && world.lanes.everything_is_parked());
    // The storage says so too, and an operator lets it go on.
    let parked = HeldEntry { stream: key("a"), tenant: TenantKey::default(), entry: id(1), hold: HeldBy::Parked };
    assert_eq!(world.lanes.reconcile(&[parked], false), Reconciled::default());
    assert!(world.jobs().is_empty());
    assert_eq!(world.lanes.reconcile(&[], true), Reconciled { changes: 1, again: false });
    assert_eq!(World::positions(&world.jobs()), [[2, 3]]);
}

/// A relay with another ordering has left entries that wait, and others before them that nobody has tried.
#[test]
fn in_total_order_what_waits_has_its_turn_behind_what_nobody_has_tried() {
    let mut world = World::new(Ordering::Total, &[(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "a")]);
    let (b, c) = (waiting(&world, "b", 2, SECOND), waiting(&world, "c", 4, 2 * SECOND));
    world.lanes.reconcile(&[c, b], true);
    let mut order = Vec::new();
    for _ in 0..3 {
        while let Some(job) = world.jobs().pop() {
            assert!(world.lanes.everything_waits() || world.rows.len() == job.claims.len(), "it would read on in vain");
            order.extend(job.claims.iter().map(|claim| claim.known.id.position));
            world.deliver(job);
        }
        order.push(0);
        world.now += SECOND;
    }
    assert_eq!(order, [1, 0, 2, 3, 0, 4, 5, 0]);
    assert!(world.lanes.is_empty());
}

#[test]
fn in_total_order_an_entry_that_is_put_back_goes_before_those_behind_it() {
    let mut world = World::new(Ordering::Total, &[(3, "a"), (4, "b")]);
    let job = world.jobs().pop().unwrap();
    world.fail(job, SECOND);
    // An operator retries a dead letter that has its place before them.
    world.rows.insert(0, (1, "c"));
    let (put_back, held) = (waiting(&world, "c", 1, Duration::ZERO), waiting(&world, "a", 3, SECOND));
    world.lanes.reconcile(&[held, put_back], true);
    let job = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[1]]);
    world.deliver(job);
    assert!(world.jobs().is_empty());
    world.now += SECOND;
    let job = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[3]]);
    world.deliver(job);
    assert_eq!(World::positions(&world.jobs()), [[4]]);
}

#[test]
fn in_total_order_everything_waits_for_a_publisher_that_may_not_be_called() {
    let mut world = World::new(Ordering::Total, &[(1, "a"), (2, "other"), (3, "a")]);
    world.admission = refused(1);
    let job = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[1]]);
    world.deliver(job);
    assert!(world.jobs().is_empty() && world.lanes.everything_waits());
    world.admission = Admission::default();
    world.admit();
    let job = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[2]]);
    world.deliver(job);
    assert_eq!(World::positions(&world.jobs()), [[3]]);
}

#[test]
fn in_total_order_suspects_are_tried_alone_and_in_their_turn() {
    let mut world = World::new(Ordering::Total, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
    world.lanes.suspect(key("b"), id(2), world.now);
    world.lanes.suspect(key("c"), id(3), world.now);
    for expected in [1, 2, 3, 4] {
        // The reader meets a suspect first, and then it is due.
        let jobs: Vec<Job> = world.jobs().into_iter().chain(world.jobs()).collect();
        assert_eq!(World::positions(&jobs), [[expected]]);
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
}

#[test]
fn a_parked_lane_stands_still() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "b")]);
    let mut jobs = world.jobs();
    let (b, a) = (jobs.pop().unwrap(), jobs.pop().unwrap());
    let rest = a.claims[1..].to_vec();
    world.lanes.settled(a.lane, id(1));
    world.lanes.parked(a.lane);
    world.lanes.finished(a.lane, rest);
    world.lanes.committed(a.lane, id(1));
    world.deliver(b);
    world.rows.extend([(4, "a"), (5, "b")]);
    assert_eq!(World::positions(&world.jobs()), [[5]]);
}

#[test]
fn what_is_released_is_read_again_in_order() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
    let job = world.jobs().pop().unwrap();
    world.lanes.released(job.lane, id(1));
    world.lanes.finished(job.lane, job.claims[1..].to_vec());
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1, 2]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(world.lanes.in_memory(), Load::default());
}

/// An entry that a caller or its queue holds counts like any other in memory.
#[test]
fn what_a_job_has_taken_counts_until_the_job_has_ended() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "b")]);
    let mut jobs = world.jobs();
    let each = entry(1, "a").bytes();
    assert_eq!(world.lanes.in_memory(), Load { entries: 3, bytes: 3 * each });
    world.deliver(jobs.pop().unwrap());
    assert_eq!(world.lanes.in_memory(), Load { entries: 2, bytes: 2 * each });
    world.fail(jobs.pop().unwrap(), Duration::ZERO);
    assert_eq!(world.lanes.in_memory(), Load::default());
}

#[test]
fn a_waiting_entry_that_is_released_is_due_again() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
    world.lanes.hold(key("a"), id(1), world.now, failures(1), PublisherSet::NONE);
    let job = world.jobs().pop().unwrap();
    world.lanes.released(job.lane, id(1));
    world.lanes.finished(job.lane, vec![]);
    let jobs = world.jobs();
    assert_eq!((World::positions(&jobs), jobs[0].claims[0].known.history), (vec![vec![1]], failures(1)));
}

#[test]
fn suspects_are_tried_alone_and_in_their_turn() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "b"), (4, "c"), (5, "a")]);
    world.lanes.suspect(key("a"), id(2), world.now);
    world.lanes.suspect(key("b"), id(3), world.now);
    let first = world.jobs();
    assert_eq!(World::positions(&first), [[1], [4]], "1 was not removed, and comes again before 2");
    first.into_iter().for_each(|job| world.deliver(job));
    for alone in [3, 2] {
        let jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[alone]], "and nothing beside it");
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
    let last = world.jobs();
    assert_eq!(World::positions(&last), [[5]]);
    last.into_iter().for_each(|job| world.deliver(job));
    assert!(world.lanes.is_empty());
}

#[test]
fn an_entry_in_which_the_host_died_waits_for_those_before_it() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a")]);
    world.lanes.hold(key("a"), id(2), world.now + SECOND, History { attempts: 1, host_deaths: 1 }, PublisherSet::NONE);
    let before = world.jobs();
    assert_eq!(World::positions(&before), [[1]]);
    before.into_iter().for_each(|job| world.deliver(job));
    assert!(world.jobs().is_empty(), "it is not due");
    world.now += SECOND;
    let died = world.jobs();
    assert_eq!(World::positions(&died), [[2]]);
    died.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(World::positions(&world.jobs()), [[3]]);
}

#[test]
fn an_entry_in_which_the_host_died_is_tried_alone_when_it_is_due() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b")]);
    world.lanes.hold(key("a"), id(1), world.now + SECOND, History { attempts: 1, host_deaths: 1 }, PublisherSet::NONE);
    let others = world.jobs();
    assert_eq!(World::positions(&others), [[2]]);
    world.now += SECOND;
    assert!(world.jobs().is_empty(), "it waits for the others");
    others.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

#[test]
fn several_waiting_entries_of_a_lane_keep_their_order_and_their_places() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a"), (4, "a")]);
    world.lanes.hold(key("a"), id(3), world.now + 2 * SECOND, failures(5), PublisherSet::NONE);
    world.lanes.hold(key("a"), id(1), world.now + SECOND, failures(1), PublisherSet::NONE);
    assert!(world.jobs().is_empty());
    world.now += SECOND;
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[2]], "2 goes before 3, which is not due");
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.jobs().is_empty());
    world.now += SECOND;
    let jobs = world.jobs();
    assert_eq!((World::positions(&jobs), jobs[0].claims[0].known.history), (vec![vec![3]], failures(5)));
    jobs.into_iter().for_each(|job| world.deliver(job));
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[4]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.lanes.is_empty());
}

#[test]
fn a_waiting_entry_that_is_gone_frees_its_lane() {
    let mut world = World::new(Ordering::Stream, &[(2, "a")]);
    world.lanes.hold(key("a"), id(1), world.now, failures(1), PublisherSet::NONE);
    world.read();
    assert_eq!(World::positions(&world.jobs()), [[2]]);
}

#[test]
fn a_batch_may_fail_in_several_places() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a")]);
    let job = world.jobs().pop().unwrap();
    let lane = job.lane;
    world.lanes.failed(lane, id(1), world.now + SECOND, failures(1), PublisherSet::NONE);
    world.lanes.failed(lane, id(2), world.now, failures(1), PublisherSet::NONE);
    world.lanes.settled(lane, id(3));
    world.rows.retain(|(position, _)| *position != 3);
    world.lanes.finished(lane, vec![]);
    (1..=3).for_each(|position| world.lanes.committed(lane, id(position)));
    assert!(world.jobs().is_empty(), "2 waits for 1");
    world.now += SECOND;
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[2]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.lanes.is_empty());
}

#[test]
fn what_failed_in_company_and_what_waited_is_a_job_of_its_own() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "b")]);
    let mut jobs = world.jobs();
    let (b, a) = (jobs.pop().unwrap(), jobs.pop().unwrap());
    assert!(!a.alone && !b.alone);
    // The first call of `a` failed as a whole, for two of its entries.
    let mut rest = a.claims;
    rest[..2].iter_mut().for_each(|claim| claim.known.alone = true);
    world.lanes.finished(a.lane, rest);
    world.lanes.failed(b.lane, id(5), world.now, failures(1), PublisherSet::NONE);
    world.lanes.finished(b.lane, vec![]);
    world.lanes.committed(b.lane, id(5));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let jobs = world.jobs();
        seen.extend(jobs.iter().map(|job| job.alone).zip(World::positions(&jobs)));
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
    seen.sort_unstable_by_key(|(_, positions)| positions[0]);
    assert_eq!(seen, [(true, vec![1]), (true, vec![2]), (false, vec![3, 4]), (true, vec![5])]);
}

/// One of its publishers has rejected it, and the other was left alone.
#[test]
fn an_entry_that_waits_for_nobody_is_read_again() {
    let mut world = World::new(Ordering::Stream, &[(1, "both")]);
    let job = world.jobs().pop().unwrap();
    world.lanes.turned_away(job.lane, id(1), PublisherSet::NONE);
    world.lanes.finished(job.lane, vec![]);
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

#[test]
fn what_is_not_due_holds_what_is_behind_it_and_nothing_before_it() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a"), (4, "b")]);
    world.delayed.insert(2, world.now + SECOND);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [vec![1], vec![4]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.jobs().is_empty());
    assert_eq!(world.lanes.next_due(), Some(world.now + SECOND));
    world.now += SECOND;
    for expected in [2, 3] {
        let jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[expected]]);
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
    assert!(world.lanes.is_empty());
}

#[test]
fn what_comes_back_goes_before_later_ones_that_are_queued_and_behind_one_that_holds_the_lane() {
    let mut world = World::new(Ordering::Stream, &[(2, "a"), (3, "a"), (5, "a")]);
    let lane = world.lanes.wait_beside(key("a"), id(3));
    assert!(world.lanes.come_back(key("a"), id(3)).is_none(), "it is there already");
    let job = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[2, 5]]);
    world.fail(job, SECOND);
    world.lanes.wake(lane, id(3));
    assert!(world.jobs().is_empty());
    world.now += SECOND;
    for expected in [vec![2], vec![3, 5]] {
        let jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [expected]);
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
    // One that is to be tried alone was not reached when a later one comes back.
    world.rows = vec![(6, "a"), (7, "a")];
    world.lanes.suspect(key("a"), id(6), world.now);
    let lane = world.lanes.come_back(key("a"), id(7)).unwrap();
    world.lanes.wake(lane, id(7));
    for expected in [6, 7] {
        world.read();
        let jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[expected]]);
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
}

#[test]
fn what_comes_back_waits_until_the_reader_has_come_to_those_before_it() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a")]);
    let lane = world.lanes.come_back(key("a"), id(2)).unwrap();
    // Its time comes before the reader has read anything of its stream.
    world.lanes.wake(lane, id(2));
    assert!(!world.lanes.has_missed(), "it is not read before the first of its stream");
    assert_eq!(World::positions(&world.jobs()), [[1, 2, 3]]);

    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a")]);
    let lane = world.lanes.come_back(key("a"), id(2)).unwrap();
    let job = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[1, 3]], "the others do not wait for it");
    // The reader has passed it, and does not come again.
    world.lanes.wake(lane, id(2));
    world.deliver(job);
    assert_eq!(World::positions(&world.jobs()), [[2]]);
}

#[test]
fn a_page_that_cannot_be_read_changes_nothing() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
    world.lanes.suspect(key("a"), id(2), world.now);
    assert!(world.lanes.wants(id(1), key("a"), world.now) && !world.lanes.wants(id(2), key("a"), world.now));
    world.lanes.page_ended();
    for expected in [1, 2] {
        world.read();
        let jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[expected]]);
        jobs.into_iter().for_each(|job| world.deliver(job));
    }
}

/// Whatever happens to a lane, in any order: calls that end, fail or are given back, commits, publishers that may not be
/// called, have no room or have a rate limit, pages that cannot be read, entries that the host may have died of. Each stream goes in order,
/// and nothing is forgotten.
#[test]
fn every_entry_has_its_turn() {
    const STREAMS: [&str; 6] = ["a", "other-1", "both-1", "both-2", "mixed-1", "mixed-2"];
    let set = |rng: &mut fastrand::Rng| [0, 0, 1, 2].map(PublisherSet::of_bits)[rng.usize(..4)];
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rows: Vec<(i64, &str)> = (1..60).map(|position| (position, STREAMS[rng.usize(..STREAMS.len())])).collect();
        let mut world = World::new(Ordering::Stream, &rows);
        // Few are remembered, so that the reader has to go back too.
        world.lanes.missed_room = rng.usize(..10);
        let rules: Vec<_> = (0..2).map(|_| any_rate(&mut rng)).collect();
        world.lanes = world.lanes.for_publishers(rules.clone(), rng.bool());
        if rng.bool() {
            world.lanes.waiting_max = rng.usize(..4);
        }
        if rng.bool() {
            world.lanes = world.lanes.with_turns(any_shares(&mut rng));
        }
        let (began, mut calls, mut alone) = (world.now, [0_u32; 2], 0);
        for (position, stream) in rows.iter().filter(|_| rng.u8(..10) == 0) {
            world.lanes.suspect(key(stream), id(*position), world.now);
        }
        for (position, _) in &rows {
            if rng.u8(..10) == 0 {
                world.delayed.insert(*position, world.now + SECOND * rng.u32(..30));
            }
        }
        let (mut running, mut settled, mut delivered) = (Vec::new(), std::collections::VecDeque::new(), Vec::new());
        for step in 0..2_500 {
            let is_calm = step > 700;
            match rng.u8(..8) {
                0 => {
                    let jobs = world.jobs();
                    for job in &jobs {
                        alone += u32::from(world.lanes.running_alone);
                        job.legs.iter().for_each(|leg| calls[leg] += u32::try_from(job.claims.len()).unwrap());
                    }
                    for (leg, rule) in rules.iter().enumerate() {
                        let is_of_all =
                            |rule: &RateRule| [RateBy::Publisher, RateBy::Category].contains(&rule.limit.by);
                        let Some(RateRule { limit, .. }) = rule.filter(is_of_all) else {
                            continue;
                        };
                        let passed = (world.now - began).as_nanos() / limit.rate.interval().as_nanos();
                        let most = limit.burst().get() + u32::try_from(passed).unwrap() + alone;
                        assert!(calls[leg] <= most, "seed {seed}, step {step}: {} calls, {most} tokens", calls[leg]);
                    }
                    running.extend(jobs);
                }
                1 | 2 if !running.is_empty() => {
                    let job: Job = running.swap_remove(rng.usize(..running.len()));
                    let (lane, mut claims) = (job.lane, job.claims.into_iter());
                    let tried = if is_calm { claims.len() } else { rng.usize(..=claims.len()) };
                    for claim in claims.by_ref().take(tried) {
                        world.lanes.settled(lane, claim.known.id);
                        settled.push_back((lane, claim.known.id.position, true));
                        delivered.push(claim.known.id.position);
                    }
                    match claims.as_slice().first().map(|claim| claim.known) {
                        Some(failed) if rng.bool() => {
                            let attempts = failures(failed.history.attempts + 1);
                            let due = world.now + SECOND * rng.u32(..3);
                            world.lanes.failed(lane, failed.id, due, attempts, PublisherSet::NONE);
                            settled.push_back((lane, failed.id.position, false));
                            claims.next();
                        }
                        Some(released) if rng.bool() => {
                            world.lanes.released(lane, released.id);
                            claims.next();
                        }
                        _ => {}
                    }
                    world.lanes.done(lane, job.legs, world.now);
                    world.lanes.finished(lane, claims.collect());
                }
                3 => {
                    for (lane, position, gone) in settled.drain(..rng.usize(..=settled.len())) {
                        world.rows.retain(|(row, _)| *row != position || !gone);
                        world.lanes.committed(lane, id(position));
                    }
                }
                4 => world.now += SECOND * rng.u32(..2),
                5 => {
                    world.admission.refused = if is_calm { PublisherSet::NONE } else { set(&mut rng) };
                    world.full = if is_calm { PublisherSet::NONE } else { set(&mut rng) };
                }
                6 if !is_calm => {
                    let now = world.now;
                    world.rows.clone().iter().for_each(|row| _ = world.lanes.wants(id(row.0), key(row.1), now));
                    world.lanes.page_ended();
                    world.cursor = world.cursor.min(rng.i64(..60));
                }
                _ => world.admit(),
            }
            assert!(step % 25 > 0 || world.lanes.wake_lost() == 0, "seed {seed}, step {step}");
        }
        for stream in STREAMS {
            let of_stream = |position: &i64| rows.contains(&(*position, stream));
            let expected: Vec<i64> = rows.iter().map(|(position, _)| *position).filter(of_stream).collect();
            let came: Vec<i64> = delivered.iter().copied().filter(of_stream).collect();
            assert_eq!(came, expected, "stream {stream}, seed {seed}");
        }
        assert_eq!(world.lanes.in_memory(), Load::default(), "seed {seed}");
        assert_eq!(world.lanes.in_memory.tenants().count(), 0, "seed {seed}");
        assert_eq!([0, 1, NO_PUBLISHER].map(|leg| world.lanes.load(leg)), [Load::default(); 3], "seed {seed}");
    }
}

#[test]
fn streams_beyond_those_that_may_wait_are_passed_over_and_come_in_order() {
    let to_one = (1..100).map(|position| (position, ["other-1", "other-2", "other-3", "mixed"][position as usize % 4]));
    let rows: Vec<_> = to_one.chain([(100, "a"), (101, "mixed"), (102, "a")]).collect();
    let mut world = World::new(Ordering::Stream, &rows);
    world.lanes.waiting_max = 2;
    world.full = PublisherSet::one(1);
    let mut delivered = Vec::new();
    let deliver = |world: &mut World, jobs: Vec<Job>, delivered: &mut Vec<i64>| {
        delivered.extend(World::positions(&jobs).concat());
        jobs.into_iter().for_each(|job| world.deliver(job));
    };
    let jobs = world.jobs();
    deliver(&mut world, jobs, &mut delivered);
    assert!(delivered.contains(&100) && delivered.contains(&102), "what goes elsewhere is not held up: {delivered:?}");
    assert!(!delivered.contains(&1) && !delivered.contains(&101), "mixed waits for its entry 3, which goes to both");
    assert_eq!((world.waiting(), world.lanes.overflow.is_empty()), (2, false));
    assert!(!world.lanes.is_empty());

    world.full = PublisherSet::NONE;
    for _ in 0..60 {
        world.admit();
        let jobs = world.jobs();
        deliver(&mut world, jobs, &mut delivered);
    }
    assert_eq!((delivered.len(), world.lanes.is_empty()), (102, true));
    for stream in ["other-1", "other-2", "other-3", "mixed", "a"] {
        let came: Vec<i64> = delivered.iter().copied().filter(|it| rows.contains(&(*it, stream))).collect();
        assert!(came.is_sorted(), "{stream}: {came:?}");
    }
}

/// Turns of tenants, with little room for each publisher.
fn any_shares(rng: &mut fastrand::Rng) -> Shares {
    let weights = HashMap::from([(TenantKey::of(b"1"), rng.u32(1..5))]);
    let paces = (0..2).map(|_| Pace::new(rng.usize(1..4), rng.usize(1..3))).collect();
    Shares::new(weights, paces, rng.bool()).with_part(Load { entries: rng.usize(2..12), bytes: usize::MAX })
}

#[test]
fn tenants_have_turns_and_a_slow_publisher_gets_no_more_than_it_can_call() {
    let rows: Vec<_> = (1..=400).map(|position| (position, "s-1")).chain([(401, "s-2"), (402, "t-2")]).collect();
    let mut world = World::new(Ordering::None, &rows);
    let paces = vec![Pace::new(2, 1)];
    world.lanes = world.lanes.with_turns(Shares::new(HashMap::new(), paces, false));
    let mut jobs: std::collections::VecDeque<Job> = world.jobs().into();
    let mut order = World::positions(jobs.make_contiguous()).concat();
    assert_eq!(order.len(), 2, "one for each caller");
    for _ in 0..4 {
        world.now += SECOND;
        world.deliver(jobs.pop_front().unwrap());
        let next = world.jobs();
        assert_eq!(next.len(), 1);
        order.extend(World::positions(&next).concat());
        jobs.extend(next);
    }
    assert_eq!(order.iter().filter(|position| **position > 400).count(), 2, "{order:?}");
}

/// Its share of a publisher's part: half of what is free.
#[test]
fn a_tenant_may_have_as_much_of_a_publishers_part_as_is_still_free() {
    let mut world = World::new(Ordering::Stream, &[]);
    let shares = Shares::new(HashMap::new(), vec![Pace::new(1, 1), Pace::new(1, 1)], false);
    world.lanes = world.lanes.with_turns(shares.with_part(Load { entries: 8, bytes: usize::MAX }));
    let room = |world: &World, tenant: &str| world.lanes.share(TenantKey::of(tenant.as_bytes())).room;
    assert_eq!(room(&world, "1"), 4);
    (1..=4).for_each(|position| world.lanes.push(entry(position, "a-1"), PublisherSet::one(0), PublisherSet::NONE));
    assert_eq!((room(&world, "1"), room(&world, "2")), (0, 2));
    // It stays slow: its entries for that publisher are passed over, and it is read on for the other.
    world.lanes.update_shares(world.now);
    assert_eq!(world.lanes.shares_wake_at(), Some(world.now + PATIENCE));
    world.lanes.update_shares(world.now + PATIENCE);
    assert_eq!(room(&world, "1"), 4);
    world.lanes.push(entry(5, "b-1"), PublisherSet::one(0), PublisherSet::NONE);
    world.lanes.push(entry(6, "c-1"), PublisherSet::one(1), PublisherSet::NONE);
    world.lanes.push(entry(7, "a-2"), PublisherSet::one(0), PublisherSet::NONE);
    assert_eq!((world.lanes.in_memory().entries, world.waiting()), (6, 1));
    world.admit();
    assert_eq!(world.waiting(), 1, "it does not come again before there is room");
    world.rows = (1..=7).zip(["a-1", "a-1", "a-1", "a-1", "b-1", "c-1", "a-2"]).collect();
    while let Some(job) = world.lanes.next_job(world.admission, world.now) {
        world.deliver(job);
    }
    world.lanes.update_shares(world.now);
    world.admit();
    assert_eq!(World::positions(&world.jobs()), [[5]]);
}

/// No limit, or one for all entries, each tenant or stream, or what is the same for all entries here.
fn any_rate(rng: &mut fastrand::Rng) -> Option<RateRule> {
    let by = [RateBy::Publisher, RateBy::Tenant, RateBy::Category, RateBy::Stream][rng.usize(..4)];
    let rate = ["1/s", "2/s", "100/s"][rng.usize(..3)].parse().unwrap();
    let limit = RateLimit { burst: NonZeroU32::new(rng.u32(..4)), by, ..RateLimit::of(rate) };
    rng.bool().then(|| RateRule { limit, jobs_max: rng.usize(1..4), job_max: [1, JOB_MAX][rng.usize(..2)] })
}

fn limited(rate: &str, by: RateBy, burst: u32) -> Option<RateRule> {
    let limit = RateLimit { by, burst: NonZeroU32::new(burst), ..RateLimit::of(rate.parse().unwrap()) };
    Some(RateRule { limit, jobs_max: 8, job_max: JOB_MAX })
}

#[test]
fn a_publisher_with_a_rate_limit_gets_its_burst_and_then_one_entry_in_each_interval() {
    let rows = [(1, "a"), (2, "a"), (3, "b"), (4, "other"), (5, "a"), (6, "other")];
    let mut world = World::new(Ordering::Stream, &rows);
    world.lanes = world.lanes.for_publishers(vec![limited("1/s", RateBy::Publisher, 2), None], false);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [vec![1, 2], vec![4, 6]]);
    assert_eq!(world.lanes.in_memory().entries, 6, "what waits for the limit of the whole publisher stays in memory");
    jobs.into_iter().for_each(|job| world.deliver(job));
    for (streams, expected) in [("b", 3), ("a", 5)] {
        assert!(world.jobs().is_empty(), "no token for {streams} yet");
        assert_eq!(world.lanes.next_token_at(), Some(world.now + SECOND));
        world.now += SECOND;
        let mut jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[expected]]);
        world.deliver(jobs.pop().unwrap());
    }
    assert_eq!((world.lanes.next_token_at(), world.lanes.is_empty()), (None, true));
}

#[test]
fn a_retry_takes_a_token_too() {
    let mut world = World::new(Ordering::Stream, &[(1, "a")]);
    world.lanes = world.lanes.for_publishers(vec![limited("1/min", RateBy::Publisher, 1)], false);
    let job = world.jobs().pop().unwrap();
    world.fail(job, SECOND);
    world.now += SECOND;
    assert!(world.jobs().is_empty());
    world.now += 59 * SECOND;
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

#[test]
fn one_key_without_a_token_keeps_nothing_in_memory_and_holds_up_no_other() {
    let rows: Vec<_> = (1..=200).map(|position| (position, "a")).chain([(201, "b"), (202, "b")]).collect();
    let mut world = World::new(Ordering::Stream, &rows);
    world.lanes = world.lanes.for_publishers(vec![limited("1/s", RateBy::Stream, 1)], false);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1], [201]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert!(world.jobs().is_empty());
    assert_eq!((world.lanes.in_memory(), world.waiting()), (Load::default(), 2));
    assert_eq!(world.lanes.wake_lost(), 0);
    world.now += SECOND;
    assert!(world.jobs().is_empty() && world.lanes.has_missed(), "they are to be read");
    let mut next = World::positions(&world.jobs());
    next.sort();
    assert_eq!(next, [[2], [202]]);
}

/// Otherwise the tokens that came while calls took long would all be used at once.
#[test]
fn no_more_is_handed_over_than_callers_can_begin() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
    let rule = limited("1/s", RateBy::Publisher, 1).map(|rule| RateRule { jobs_max: 1, ..rule });
    world.lanes = world.lanes.for_publishers(vec![rule], false);
    let mut job = world.jobs().pop().unwrap();
    world.now += 60 * SECOND;
    for expected in 2..=4 {
        assert!(world.jobs().is_empty());
        assert_eq!(world.lanes.next_token_at(), None, "the end of the call wakes the session, and no timer");
        world.deliver(job);
        let mut next = world.jobs();
        assert_eq!(World::positions(&next), [[expected]]);
        job = next.pop().unwrap();
        world.now += SECOND;
    }
    world.rows.push((5, "e"));
    assert!(world.jobs().is_empty(), "there is a token, but no caller is free");
    world.deliver(job);
    assert_eq!(World::positions(&world.jobs()), [[5]]);
}

#[test]
fn an_entry_that_is_tried_alone_waits_for_no_token_but_takes_one() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b")]);
    world.lanes = world.lanes.for_publishers(vec![limited("1/s", RateBy::Publisher, 1)], false);
    [(1, "a"), (2, "b")].iter().for_each(|row| world.lanes.suspect(key(row.1), id(row.0), world.now));
    world.read();
    for expected in [1, 2] {
        let mut jobs = world.jobs();
        assert_eq!(World::positions(&jobs), [[expected]]);
        world.deliver(jobs.pop().unwrap());
    }
    world.rows.push((3, "c"));
    world.now += SECOND;
    assert!(world.jobs().is_empty(), "one token is owed");
    world.now += SECOND;
    assert_eq!(World::positions(&world.jobs()), [[3]]);
}

#[test]
fn what_goes_to_a_publisher_without_room_is_passed_over_and_comes_in_order() {
    let rows = [(1, "other-1"), (2, "a"), (3, "other-2"), (4, "other-1"), (5, "both"), (6, "a"), (7, "both")];
    let mut world = World::new(Ordering::Stream, &rows);
    world.full = PublisherSet::one(1);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[2, 6]]);
    assert_eq!((world.lanes.in_memory().entries, world.waiting()), (2, 3));
    jobs.into_iter().for_each(|job| world.deliver(job));
    world.admit();
    assert!(world.jobs().is_empty(), "it has no room yet");

    world.full = PublisherSet::NONE;
    world.lanes.admit(world.admission, world.full, |_| 1);
    let first = world.jobs();
    assert_eq!(World::positions(&first), [[1, 4]], "the first that came");
    world.admit();
    assert_eq!(World::positions(&world.jobs()), [[3], [5]]);
    first.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(world.waiting(), 0);
}

/// They come in one page, so that the later one was wanted before the earlier one was passed over.
#[test]
fn nothing_overtakes_an_entry_that_is_passed_over_whichever_publisher_it_goes_to() {
    // The entries go to 1, to both, to 0, to 1, ...
    let rows = [(1, "mixed"), (2, "mixed"), (3, "mixed"), (4, "mixed")];
    for ordering in [Ordering::Stream, Ordering::Total] {
        let mut world = World::new(ordering, &rows);
        world.full = PublisherSet::one(1);
        assert!(world.jobs().is_empty(), "3 goes to 0, and waits for those before it");
        assert_eq!(world.lanes.in_memory(), Load::default());
        world.full = PublisherSet::NONE;
        world.admit();
        for expected in 1..=4 {
            let job = world.jobs().pop().unwrap();
            assert_eq!(World::positions(std::slice::from_ref(&job)), [[expected]]);
            world.deliver(job);
        }
    }
}

/// Its lane is at work for another publisher when it is read.
#[test]
fn what_is_passed_over_behind_a_running_job_is_read_after_it() {
    let mut world = World::new(Ordering::Stream, &[(1, "a")]);
    let job = world.jobs().pop().unwrap();
    world.full = PublisherSet::one(1);
    world.rows.push((2, "a"));
    let both = PublisherSet::one(0) | PublisherSet::one(1);
    assert!(world.lanes.wants(id(2), key("a"), world.now));
    world.lanes.push(entry(2, "a"), both, world.full);
    world.deliver(job);
    assert_eq!(world.lanes.next_missed(64).map(|(_, positions)| positions), Some(vec![2]));
}

#[test]
fn an_entry_in_which_the_host_died_goes_before_one_behind_it_that_waits_too() {
    let deadly = History { attempts: 1, host_deaths: 1 };
    for first in [1, 2] {
        let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
        for position in [first, 3 - first] {
            let history = if position == 1 { deadly } else { History::default() };
            world.lanes.hold(key("a"), id(position), world.now, history, PublisherSet::NONE);
        }
        for expected in [1, 2] {
            world.read();
            let jobs = world.jobs();
            assert_eq!(World::positions(&jobs), [[expected]], "held in the order {first}, {}", 3 - first);
            jobs.into_iter().for_each(|job| world.deliver(job));
        }
    }
}

// --- admission ---------------------------------------------------------------------------------------------------------------

fn refused(leg: usize) -> Admission {
    Admission { refused: PublisherSet::one(leg), ..Admission::default() }
}

fn probed(leg: usize) -> Admission {
    Admission { probed: PublisherSet::one(leg), ..Admission::default() }
}

#[test]
fn lanes_of_a_publisher_that_may_not_be_called_wait_and_keep_nothing_in_memory() {
    let rows = [(1, "a"), (2, "other"), (3, "both"), (4, "a"), (5, "other"), (6, "both")];
    let mut world = World::new(Ordering::Stream, &rows);
    world.admission = refused(1);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1, 4]]);
    assert_eq!(world.lanes.in_memory().entries, 2);
    jobs.into_iter().for_each(|job| world.deliver(job));
    world.rows.push((7, "other"));
    world.rows.push((8, "a"));
    assert_eq!(World::positions(&world.jobs()), [[8]]);

    world.admission = Admission::default();
    world.admit();
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [vec![2, 5, 7], vec![3]], "what goes to several goes alone");
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(World::positions(&world.jobs()), [[6]]);
}

#[test]
fn a_publisher_is_probed_with_one_entry_of_one_lane() {
    let mut world = World::new(Ordering::Stream, &[(1, "other-1"), (2, "other-2"), (3, "other-1")]);
    world.admission = refused(1);
    assert!(world.jobs().is_empty());
    world.admission = probed(1);
    world.admit();
    world.read();
    let job = world.lanes.next_job(world.admission, world.now).unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[1]]);
    assert!(world.lanes.is_running_for(1) && !world.lanes.is_running_for(0));
    // During the probe, nobody else goes.
    world.admission = refused(1);
    assert!(world.jobs().is_empty());
    world.deliver(job);
    assert!(!world.lanes.is_running_for(1));
    world.admission = Admission::default();
    world.admit();
    assert_eq!(World::positions(&world.jobs()), [[3], [2]]);
}

#[test]
fn a_waiting_entry_that_is_due_waits_for_its_publisher_too() {
    let mut world = World::new(Ordering::Stream, &[(1, "other"), (2, "other")]);
    world.lanes.hold(key("other"), id(1), world.now, failures(1), PublisherSet::NONE);
    world.admission = refused(1);
    assert!(world.jobs().is_empty());
    world.admission = Admission::default();
    world.admit();
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1]]);
    jobs.into_iter().for_each(|job| world.deliver(job));
    assert_eq!(World::positions(&world.jobs()), [[2]]);
}

#[test]
fn who_has_an_entry_already_does_not_hold_it_up() {
    let mut world = World::new(Ordering::Stream, &[(1, "both")]);
    world.lanes.hold(key("both"), id(1), world.now, failures(1), PublisherSet::one(1));
    world.admission = refused(1);
    let jobs = world.jobs();
    assert_eq!(World::positions(&jobs), [[1]]);
    assert_eq!(jobs[0].legs, PublisherSet::one(0));
}

#[test]
fn a_job_ends_before_an_entry_for_a_publisher_that_may_not_be_called() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a"), (3, "a")]);
    world.read();
    let id = world.lanes.id(key("a"), 0);
    world.lanes.lanes.get_mut(&id).unwrap().queue[1].known.route = PublisherSet::one(1);
    world.admission = refused(1);
    let job = world.lanes.next_job(world.admission, world.now).unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&job)), [[1]]);
}

/// A table that was rebuilt and counts from the start again, or a row that is inserted by hand.
#[test]
fn what_appears_below_the_cursor_is_read_whatever_its_lane_is_doing() {
    let rows = [(11, "held"), (12, "busy"), (13, "busy"), (14, "idle")];
    let mut world = World::new(Ordering::Stream, &rows);
    let mut jobs = world.jobs();
    let (idle, busy, held) = (jobs.pop().unwrap(), jobs.pop().unwrap(), jobs.pop().unwrap());
    world.fail(held, SECOND);
    world.deliver(idle);
    // 15 is queued behind the job that is under way.
    world.rows.push((15, "busy"));
    world.read();
    world.rows.splice(0..0, [(1, "held"), (2, "busy"), (3, "idle"), (4, "new")]);
    world.cursor = i64::MIN;
    assert_eq!(World::positions(&world.jobs()), [[3], [4]], "of lanes that nothing holds at once");
    world.deliver(busy);
    assert_eq!(World::positions(&world.jobs()), [[2, 15]], "before those that came later");
    world.now += SECOND;
    let held = world.jobs().pop().unwrap();
    assert_eq!(World::positions(std::slice::from_ref(&held)), [[11]], "it waits for its retry as it would have");
    world.deliver(held);
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

#[test]
fn another_entry_with_the_same_position_is_another_entry() {
    let other = |position, uuid: &'static str| EntryId::of(position, &uuid.into());
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b")]);
    let mut jobs = world.jobs();
    let (b, a) = (jobs.pop().unwrap(), jobs.pop().unwrap());
    assert!(!world.lanes.wants(id(1), key("a"), world.now), "it is under way");
    assert!(world.lanes.wants(other(1, "x"), key("a"), world.now), "it is not");
    world.fail(b, SECOND);
    assert!(!world.lanes.wants(id(2), key("b"), world.now), "it waits");
    assert!(world.lanes.wants(other(2, "y"), key("b"), world.now), "what waited is no longer there");
    world.deliver(a);
}

#[test]
fn an_entry_that_cannot_be_settled_is_not_read_again_and_holds_nobody_up() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
    let job = world.jobs().pop().unwrap();
    for claim in &job.claims {
        world.lanes.settled(job.lane, claim.known.id);
    }
    world.lanes.finished(job.lane, vec![]);
    world.lanes.keep_unsettled(id(1));
    world.lanes.committed(job.lane, id(1));
    world.lanes.committed(job.lane, id(2));
    world.rows = vec![(1, "a"), (3, "a")];
    world.cursor = i64::MIN;
    assert_eq!(World::positions(&world.jobs()), [[3]]);
    world.lanes.no_longer_unsettled(id(1));
    assert!(!world.lanes.is_unsettled(id(1)));
}

#[test]
fn a_retry_waits_for_the_commit_of_its_failure() {
    let mut world = World::new(Ordering::Stream, &[(1, "a")]);
    let job = world.jobs().pop().unwrap();
    world.lanes.failed(job.lane, id(1), world.now, failures(1), PublisherSet::NONE);
    world.lanes.finished(job.lane, vec![]);
    assert!(world.jobs().is_empty());
    world.lanes.committed(job.lane, id(1));
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}

fn waiting(world: &World, stream: &str, position: i64, due: Duration) -> HeldEntry {
    let hold = HeldBy::Waiting { due: world.now + due, history: failures(1), delivered: PublisherSet::NONE };
    HeldEntry { stream: key(stream), tenant: TenantKey::default(), entry: id(position), hold }
}

#[test]
fn what_others_hold_or_let_go_is_taken_in_while_calls_are_under_way() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "b"), (3, "c")]);
    let parked = HeldEntry { stream: key("b"), tenant: TenantKey::default(), entry: id(0), hold: HeldBy::Parked };
    let a = waiting(&world, "a", 1, SECOND);
    assert_eq!(world.lanes.reconcile(&[a, parked], true), Reconciled { changes: 2, again: false });
    let c = world.jobs();
    assert_eq!(World::positions(&c), [[3]], "a waits, and b is parked");
    // The operator retries and discards, while c is under way.
    assert_eq!(world.lanes.reconcile(&[], true), Reconciled { changes: 2, again: false });
    assert_eq!(World::positions(&world.jobs()), [[1], [2]]);
    assert_eq!(world.lanes.reconcile(&[], false), Reconciled::default());
}

#[test]
fn what_is_under_way_knows_better_than_the_storage() {
    let mut world = World::new(Ordering::Stream, &[(1, "a"), (2, "a")]);
    let job = world.jobs().pop().unwrap();
    let rest = job.claims[1..].to_vec();
    world.lanes.failed(job.lane, id(1), world.now + SECOND, failures(1), PublisherSet::NONE);
    world.lanes.parked(job.lane);
    world.lanes.finished(job.lane, rest);
    // Its failure is not committed yet: the storage does not know yet that it waits, or that its stream is parked.
    assert_eq!(world.lanes.reconcile(&[], false), Reconciled { changes: 0, again: true });
    world.now += SECOND;
    assert!(world.jobs().is_empty());
    world.lanes.committed(job.lane, id(1));
    assert_eq!(world.lanes.reconcile(&[], false), Reconciled { changes: 2, again: false });
    assert_eq!(World::positions(&world.jobs()), [[1, 2]]);
}

#[test]
fn the_time_that_an_entry_waits_is_taken_over_only_anew() {
    let mut world = World::new(Ordering::Stream, &[(1, "a")]);
    let job = world.jobs().pop().unwrap();
    world.fail(job, 2 * SECOND);
    let earlier = waiting(&world, "a", 1, SECOND);
    assert_eq!(world.lanes.reconcile(&[earlier], false), Reconciled::default());
    world.now += SECOND;
    assert!(world.jobs().is_empty());
    assert_eq!(world.lanes.reconcile(&[HeldEntry { ..earlier }], true), Reconciled::default());
    assert_eq!(World::positions(&world.jobs()), [[1]]);
}
