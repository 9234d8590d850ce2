use std::time::Instant;

use tokio::sync::Notify;

use super::*;
use crate::outbox::{MemoryOutbox, OutboxStorageStrategy};
use crate::publisher::BoxFuture;
use crate::raw::RawEntry;
use crate::relay::faulty::Faulty;
use crate::relay::lanes::Lanes;
use crate::relay::options;
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
    let outbox = MemoryOutbox::default();
    let drain = Faulty::new(outbox.drain().unwrap());
    let (queue, taken) = async_channel::unbounded();
    let (_give_up, given_up) = async_channel::bounded(1);
    let (results, told) = crossbeam_channel::unbounded();
    jobs.into_iter().for_each(|job| queue.try_send(job).unwrap());
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
        finished.extend(told.next().unwrap());
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
