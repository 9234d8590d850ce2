use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::*;
use crate::outbox::{MemoryOutbox, OutboxStorageStrategy};
use crate::publisher::BoxFuture;
use crate::publisher_options::PublisherOptions;
use crate::raw::RawEntry;
use crate::relay::faulty::Faulty;
use crate::relay::job::Load;
use crate::relay::lanes::Lanes;
use crate::relay::options;
use crate::relay::queue::JobQueue;
use crate::row::Row;
use crate::serde::JsonSerde;

/// Ends its calls at once, except the call for one position, which waits for a notification.
struct WaitsFor(u64, Notify);

impl Publisher for WaitsFor {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            if event.position == self.0 {
                self.1.notified().await;
            }
            Outcome::Delivered.into()
        })
    }
}

/// One job for each position, each of a stream of its own.
fn jobs(positions: std::ops::RangeInclusive<i64>) -> Vec<Job> {
    let mut lanes = Lanes::new(options::Ordering::None);
    for position in positions {
        let row = Row {
            stream_id: "s".into(),
            uuid: "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01".into(),
            name: "n".into(),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: "{}".into(),
            ..Row::default()
        };
        lanes.push(RawEntry::new(position, &row), PublisherSet::one(0), PublisherSet::NONE);
    }
    std::iter::from_fn(|| lanes.next_job(Default::default(), Instant::now())).collect()
}

/// The positions for which a job called a publisher, and those that it left.
type Told = (Vec<i64>, Vec<i64>);

fn positions(finished: &Finished) -> Told {
    let rest = finished.rest.iter().flatten().map(|claim| claim.known.id.position);
    (finished.calls.iter().map(|called| called.entry.position).collect(), rest.collect())
}

/// Lets one caller carry out `jobs`, and returns what was marked and reported. `first_told` is called after its first
/// report.
fn called(publisher: &WaitsFor, jobs: Vec<Job>, first_told: impl FnOnce()) -> (Vec<Vec<i64>>, Vec<Told>) {
    called_until(2, publisher, BatchLimits::NONE, jobs, first_told)
}

/// The same for these limits of a call; the relay stops after so many reports.
fn called_until(
    reports: usize,
    publisher: &dyn Publisher,
    batches: BatchLimits,
    jobs: Vec<Job>,
    first_told: impl FnOnce(),
) -> (Vec<Vec<i64>>, Vec<Told>) {
    let outbox = MemoryOutbox::default();
    let drain = Faulty::new(outbox.drain().unwrap());
    let queue = JobQueue::new();
    let taken = queue.taken.clone();
    let (_give_up, given_up) = async_channel::bounded(1);
    let (results, told) = crossbeam_channel::unbounded();
    jobs.into_iter().for_each(|job| queue.send(job));
    let mut finished = Vec::new();
    std::thread::scope(|scope| {
        let left_alone = LeftAlone::default();
        let (drain, given_up, taken) = (&drain, &given_up, &taken);
        scope.spawn(move || {
            let calls = Calls {
                publisher: Some(To { leg: 0, name: None, publisher }),
                serde: &JsonSerde,
                drain,
                jobs: taken,
                given_up,
                left_alone: &left_alone,
                results: &results,
                clock: Timestamp::now,
                batches,
                parks: false,
            };
            run(calls, 0, 1);
        });
        let mut told = told.iter().map(|message| match message {
            Message::Finished(jobs) => jobs.iter().map(positions).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        finished.extend(told.next().unwrap());
        first_told();
        // Closed only now: a stopping relay begins nothing.
        (1..reports).for_each(|_| finished.extend(told.next().unwrap()));
        queue.close();
        finished.extend(told.flatten());
    });
    (drain.marks.into_inner().unwrap(), finished)
}

#[test]
fn calls_that_end_at_once_are_marked_together() {
    let publisher = WaitsFor(5, Notify::new());
    let (marks, told) = called(&publisher, jobs(1..=5), || publisher.1.notify_one());
    // The first call shows that calls end at once. When the fifth one waits, it alone is marked.
    assert_eq!(marks, [vec![1], vec![2, 3, 4, 5], vec![5], vec![]]);
    assert_eq!(told, [1, 2, 3, 4, 5].map(|position| (vec![position], vec![])));
}

#[test]
fn what_was_taken_beside_a_call_that_waits_is_given_back() {
    let publisher = WaitsFor(3, Notify::new());
    let (marks, told) = called(&publisher, jobs(1..=5), || publisher.1.notify_one());
    assert_eq!(marks, [vec![1], vec![2, 3, 4, 5], vec![3], vec![]]);
    let untried = |position| (vec![], vec![position]);
    let tried = |position| (vec![position], vec![]);
    assert_eq!(told, [tried(1), tried(2), untried(4), untried(5), tried(3)]);
}

/// Notes the positions of each call, and waits for a notification in each.
#[derive(Default)]
struct Bulk {
    calls: parking_lot::Mutex<Vec<Vec<u64>>>,
    ends: Notify,
}

impl Publisher for Bulk {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.calls.lock().push(vec![event.position]);
        Box::pin(std::future::ready(Outcome::Delivered.into()))
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        self.calls.lock().push(events.iter().map(|event| event.position).collect());
        Box::pin(async {
            self.ends.notified().await;
            events.iter().map(|_| Outcome::Delivered.into()).collect()
        })
    }

    fn max_batch(&self) -> usize {
        usize::MAX
    }
}

fn collecting(batch_max: usize, batch_wait: Duration) -> BatchLimits {
    let options = PublisherOptions { batch_max: Some(batch_max), batch_wait, ..PublisherOptions::default() };
    BatchLimits::new(&options, Load { entries: 1_000, bytes: 1_000_000 })
}

#[test]
fn jobs_of_many_lanes_go_with_one_call_which_is_marked_as_a_whole() {
    let publisher = Bulk::default();
    let limits = collecting(3, Duration::ZERO);
    publisher.ends.notify_one();
    let (marks, told) = called_until(1, &publisher, limits, jobs(1..=4), || ());
    assert_eq!(*publisher.calls.lock(), [vec![1, 2, 3], vec![4]]);
    assert_eq!(marks, [vec![1, 2, 3], vec![4], vec![]]);
    assert_eq!(told, [1, 2, 3, 4].map(|position| (vec![position], vec![])));
}

#[test]
fn what_goes_alone_has_a_call_of_its_own() {
    let publisher = Bulk::default();
    publisher.ends.notify_one();
    let alone = |job: Job| Job { alone: job.claims[0].known.id.position == 2, ..job };
    let jobs = jobs(1..=3).into_iter().map(alone).collect();
    called_until(1, &publisher, collecting(10, Duration::ZERO), jobs, || ());
    let mut calls = publisher.calls.lock().clone();
    calls.sort_unstable();
    assert_eq!(calls, [vec![1, 3], vec![2]]);
}

/// It would wait for a minute.
#[test]
fn a_full_call_waits_for_nothing_and_a_stopping_relay_gives_back_what_is_collected() {
    let publisher = Bulk::default();
    publisher.ends.notify_one();
    let limits = collecting(3, Duration::from_secs(60));
    // Once the first call has ended, the relay stops.
    let (_, told) = called_until(1, &publisher, limits, jobs(1..=4), || ());
    assert_eq!(*publisher.calls.lock(), [[1, 2, 3]]);
    assert_eq!(told.last(), Some(&(vec![], vec![4])));
}
