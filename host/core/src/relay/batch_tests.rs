use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::raw::RawEntry;
use crate::relay::answers::Answers;
use crate::row::Row;
use crate::serde::JsonSerde;
use crate::settlement::History;

/// What is behind the calls of a lane: the positions, and those of them that are to go alone.
type Rest = (Vec<i64>, Vec<i64>);

fn claim(position: i64, data: &str) -> Claim {
    let row = Row {
        stream_id: "s".into(),
        uuid: "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01".into(),
        name: "n".into(),
        created_at: "2026-01-31T12:00:00.000Z".into(),
        data: data.into(),
        ..Row::default()
    };
    let entry = RawEntry::new(position, &row);
    let (id, stream, history, route) = (entry.id(), entry.stream_key(), History::default(), PublisherSet::one(0));
    let known = Known { id, stream, history, tried_before: false, route, delivered: PublisherSet::NONE, alone: false };
    Claim { known, entry }
}

/// Entries of a lane, and so of one stream.
fn job(lane: u64, positions: &[i64]) -> Job {
    let mut claims: Vec<Claim> = positions.iter().map(|position| claim(*position, "{}")).collect();
    claims.iter_mut().for_each(|claim| claim.known.stream = StreamKey(lane));
    Job { lane: LaneId(lane), claims, legs: PublisherSet::one(0), alone: false }
}

fn limits(entries: usize) -> BatchLimits {
    BatchLimits { asked: None, max: Load { entries, bytes: 1_000_000 }, wait: Duration::ZERO }
}

fn collected(jobs: Vec<Job>, limits: BatchLimits) -> Collected {
    let mut jobs = jobs.into_iter();
    let mut collected = Collected::new(jobs.next().unwrap(), limits);
    jobs.for_each(|job| collected.add(job));
    collected
}

fn batch(jobs: Vec<Job>, limits: BatchLimits) -> Batch {
    Batch::of(collected(jobs, limits), &JsonSerde, || Timestamp::UNIX_EPOCH)
}

fn settled(batch: Batch, answers: Vec<Answer>, parks: bool) -> Vec<Finished> {
    let called = |known: Known, answer: Answer| {
        let mut answers = Answers::default();
        answer.into_iter().for_each(|attempt| answers.add(0, attempt));
        known.called(answers, || Timestamp::UNIX_EPOCH)
    };
    let not_called = |known: Known, outcome| known.not_called(outcome, Timestamp::UNIX_EPOCH);
    batch.finished(answers, &Settle { leg: 0, called: &called, not_called: &not_called, parks })
}

fn ok() -> Answer {
    Some(Outcome::Delivered.into())
}

fn retry() -> Answer {
    Some(Outcome::Retry { reason: "later".into(), after: None }.into())
}

fn retry_after() -> Answer {
    Some(Outcome::Retry { reason: "later".into(), after: Some(Duration::from_secs(1)) }.into())
}

fn rejected() -> Answer {
    Some(Outcome::Rejected { reason: "never".into() }.into())
}

fn trapped() -> Answer {
    Some(Outcome::Trapped { reason: "unreachable".into() }.into())
}

/// What was settled, with its outcome.
fn calls(finished: &Finished) -> Vec<(i64, &str)> {
    let outcome = |called: &Called| match &called.failed {
        None => "delivered",
        Some(failed) => failed.attempt.as_ref().map_or("given up", |attempt| attempt.outcome.name()),
    };
    // The name is static in both cases.
    finished
        .calls
        .iter()
        .map(|called| (called.entry.position, Box::leak(outcome(called).to_owned().into_boxed_str()) as &str))
        .collect()
}

fn rest(finished: &Finished) -> Rest {
    let rest = finished.rest.as_deref().unwrap();
    let positions = |claims: Vec<&Claim>| claims.into_iter().map(|claim| claim.known.id.position).collect();
    (positions(rest.iter().collect()), positions(rest.iter().filter(|claim| claim.known.alone).collect()))
}

#[test]
fn events_of_all_streams_go_in_the_order_of_positions() {
    let batch = batch(vec![job(1, &[2, 5, 9]), job(2, &[1, 7]), job(3, &[4])], limits(10));
    assert_eq!(batch.positions(), [1, 2, 4, 5, 7, 9]);
    let answers = vec![ok(), ok(), retry(), ok(), ok(), ok()];
    let finished = settled(batch, answers, false);
    assert_eq!(finished.iter().map(|finished| finished.lane.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(calls(&finished[0]), [(2, "delivered"), (5, "delivered"), (9, "delivered")]);
    assert_eq!(calls(&finished[1]), [(1, "delivered"), (7, "delivered")]);
    assert_eq!(calls(&finished[2]), [(4, "retry")]);
}

#[test]
fn what_is_behind_a_failed_entry_of_its_stream_is_offered_again_whatever_was_answered() {
    let behind = [ok(), retry(), rejected(), retry_after()];
    for (failed, outcome) in [(retry(), "retry"), (retry_after(), "retry"), (None, "given up")] {
        for answer in &behind {
            let batch = batch(vec![job(1, &[1, 3, 5]), job(2, &[2, 4])], limits(10));
            let finished = settled(batch, vec![ok(), ok(), failed.clone(), ok(), answer.clone()], false);
            assert_eq!(calls(&finished[0]), [(1, "delivered"), (3, outcome)]);
            assert_eq!(rest(&finished[0]), (vec![5], vec![]));
            assert_eq!(calls(&finished[1]), [(2, "delivered"), (4, "delivered")]);
            assert_eq!(rest(&finished[1]), (vec![], vec![]));
        }
    }
}

#[test]
fn behind_a_dead_letter_deliveries_count_unless_it_parks_its_stream() {
    let answers = || vec![rejected(), ok(), retry(), ok()];
    let goes_on = settled(batch(vec![job(1, &[1, 2, 3, 4])], limits(10)), answers(), false);
    assert_eq!(calls(&goes_on[0]), [(1, "rejected"), (2, "delivered")]);
    assert_eq!(rest(&goes_on[0]), (vec![3, 4], vec![]), "3 may have failed since 1 did");
    let parks = settled(batch(vec![job(1, &[1, 2, 3, 4])], limits(10)), answers(), true);
    assert_eq!(calls(&parks[0]), [(1, "rejected")]);
    assert_eq!(rest(&parks[0]), (vec![2, 3, 4], vec![]));
    let on_trial = rejected().map(|attempt| Attempt { on_trial: true, ..attempt });
    let on_trial = settled(batch(vec![job(1, &[1, 2])], limits(10)), vec![on_trial, ok()], false);
    assert_eq!((calls(&on_trial[0]), rest(&on_trial[0])), (vec![(1, "rejected")], (vec![2], vec![])));
}

/// Where nothing is ordered, each entry is a lane of its own.
#[test]
fn without_order_what_was_not_published_behind_a_failure_of_its_stream_is_no_attempt() {
    let of_stream = |lane, position, stream| {
        let mut job = job(lane, &[position]);
        job.claims[0].known.stream = StreamKey(stream);
        job
    };
    let jobs = vec![of_stream(1, 1, 7), of_stream(2, 2, 7), of_stream(3, 3, 8), of_stream(4, 4, 7)];
    let finished = settled(batch(jobs, limits(10)), vec![retry(), retry(), ok(), ok()], false);
    assert_eq!((calls(&finished[0]), calls(&finished[2])), (vec![(1, "retry")], vec![(3, "delivered")]));
    assert_eq!((calls(&finished[1]), rest(&finished[1])), (vec![], (vec![2], vec![])));
    assert_eq!(calls(&finished[3]), [(4, "delivered")], "it may overtake");
}

#[test]
fn a_call_that_fails_as_a_whole_is_nobodys_attempt_and_each_entry_goes_alone() {
    for failed in [trapped(), retry()] {
        let batch = batch(vec![job(1, &[1, 3]), job(2, &[2])], limits(10));
        let answers = vec![failed; 3];
        assert!(failure_of_the_call(&answers).is_some());
        let finished = settled(batch, answers, false);
        assert_eq!((calls(&finished[0]), rest(&finished[0])), (vec![], (vec![1, 3], vec![1, 3])));
        assert_eq!((calls(&finished[1]), rest(&finished[1])), (vec![], (vec![2], vec![2])));
    }
    // With one version's part of a call: the other's answers count.
    let answers = vec![trapped(), ok(), retry()];
    assert!(failure_of_the_call(&answers).is_some());
    let finished = settled(batch(vec![job(1, &[1]), job(2, &[2]), job(3, &[3])], limits(10)), answers, false);
    assert_eq!(rest(&finished[0]), (vec![1], vec![1]));
    assert_eq!((calls(&finished[1]), calls(&finished[2])), (vec![(2, "delivered")], vec![(3, "retry")]));
}

#[test]
fn an_event_that_names_a_time_means_itself_and_so_does_one_without_company() {
    let answers = vec![retry_after(), retry()];
    assert!(failure_of_the_call(&answers).is_none());
    let finished = settled(batch(vec![job(1, &[1]), job(2, &[2])], limits(10)), answers, false);
    assert_eq!((calls(&finished[0]), calls(&finished[1])), (vec![(1, "retry")], vec![(2, "retry")]));
    let finished = settled(batch(vec![job(1, &[1])], limits(10)), vec![trapped()], false);
    assert_eq!(calls(&finished[0]), [(1, "trapped")]);
}

#[test]
fn a_call_counts_once_with_its_first_event() {
    let counted = |answers: Vec<Answer>| -> Vec<i64> {
        let finished = settled(batch(vec![job(1, &[2, 4]), job(2, &[1, 3])], limits(10)), answers, false);
        let calls = finished.into_iter().flat_map(|finished| finished.calls);
        calls.filter(|called| called.uncounted.is_empty()).map(|called| called.entry.position).collect()
    };
    assert_eq!(counted(vec![ok(), ok(), ok(), ok()]), [1]);
    assert_eq!(counted(vec![retry(), ok(), ok(), ok()]), [1]);
    assert_eq!(counted(vec![trapped(), ok(), ok(), ok()]), [0_i64; 0], "what is offered again counts then");
}

#[test]
fn what_has_no_room_stays_out_of_the_call() {
    let call = batch(vec![job(1, &[1, 2, 3]), job(2, &[4, 5]), job(3, &[6])], limits(4));
    assert_eq!(call.positions(), [1, 2, 3, 4]);
    let finished = settled(call, vec![ok(), ok(), ok(), ok()], false);
    let rests: Vec<Rest> = finished.iter().map(rest).collect();
    assert_eq!(rests, [(vec![], vec![]), (vec![5], vec![]), (vec![6], vec![])]);
}

#[test]
fn the_bytes_of_a_call_are_bounded_and_what_is_larger_goes_alone() {
    let size = claim(1, "{}").entry.bytes();
    let limits = BatchLimits { asked: None, max: Load { entries: 10, bytes: 2 * size + 1 }, wait: Duration::ZERO };
    assert_eq!(batch(vec![job(1, &[1, 2, 3])], limits).positions(), [1, 2]);
    let large = || claim(9, &format!("\"{}\"", "x".repeat(3 * size)));
    let with_large = |claims| Job { claims, ..job(2, &[]) };
    let call = batch(vec![job(1, &[1]), with_large(vec![large(), claim(10, "{}")])], limits);
    assert_eq!(call.positions(), [1]);
    assert_eq!(rest(&settled(call, vec![ok()], false)[1]), (vec![9, 10], vec![9]));
    assert_eq!(
        batch(vec![with_large(vec![large()]), job(1, &[1])], limits).positions(),
        [9],
        "nothing else would take it"
    );
    assert!(collected(vec![job(1, &[1, 2]), job(2, &[3])], limits).is_full());
}

#[test]
fn what_cannot_be_decoded_becomes_a_dead_letter_in_its_turn() {
    let with = |positions: [i64; 3]| {
        let [first, second, third] = positions;
        let claims = vec![claim(first, "{}"), claim(second, "{"), claim(third, "{}")];
        Job { claims, ..job(1, &[]) }
    };
    let call = || batch(vec![with([1, 2, 3]), job(2, &[4])], limits(10));
    assert_eq!(call().positions(), [1, 4]);
    let delivered = settled(call(), vec![ok(), ok()], false);
    assert_eq!(calls(&delivered[0]), [(1, "delivered"), (2, "undecodable")]);
    assert_eq!(rest(&delivered[0]), (vec![3], vec![]));
    let failed = settled(call(), vec![retry(), ok()], false);
    assert_eq!((calls(&failed[0]), rest(&failed[0])), (vec![(1, "retry")], (vec![2, 3], vec![])));
}

#[test]
fn the_limits_are_bounded_by_what_may_be_in_memory() {
    let options = |batch_max| PublisherOptions {
        batch_max,
        batch_bytes: usize::MAX,
        batch_wait: Duration::MAX,
        ..PublisherOptions::default()
    };
    let part = Load { entries: 64, bytes: 1_000 };
    let limits = BatchLimits::new(&options(Some(usize::MAX)), part);
    assert_eq!((limits.max, limits.wait), (part, BATCH_WAIT_MAX));
    assert_eq!(limits.of_publisher(2).max, part);
    let none = PublisherOptions { batch_max: Some(0), batch_bytes: 0, ..PublisherOptions::default() };
    assert!(BatchLimits::new(&none, part).is_one());
    let all = Load { entries: usize::MAX, bytes: usize::MAX };
    let taken = |batch_max, takes| BatchLimits::new(&options(batch_max), all).of_publisher(takes).max.entries;
    assert_eq!(BatchLimits::new(&options(None), all).max, Load { entries: BATCH_MAX, bytes: BATCH_BYTES_MAX });
    assert_eq!([taken(None, 7), taken(Some(9), 7), taken(Some(5), 7), taken(Some(9), 1)], [7, 9, 5, 1]);
    assert_eq!([taken(None, usize::MAX), taken(Some(usize::MAX), 7)], [BATCH_MAX; 2]);
}
