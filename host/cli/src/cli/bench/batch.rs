//! Entries that are each in a stream of their own, to a destination in another process that takes many with one request: the
//! relay with batches, and the same relay with one request for each entry.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use outbox_host::publisher::component::ComponentPublisher;
use outbox_host::{
    Attempt, BoxFuture, JsonSerde, Outbox, Publisher, PublisherOptions, Publishers, Recorded, SqliteOutbox,
};
use parking_lot::Mutex;

use super::bed::{self, Bed};
use super::figures::{Figure, Measured, in_turn, median};
use super::http::{self, server};
use super::other::{Other, Part};

/// The most entries with batches, and the part of them with one request each.
const ENTRIES_MAX: usize = 64_000;
const SINGLES_PART: usize = 16;

/// A publisher that notes how many events each of its calls has.
struct Counting<'a> {
    publisher: &'a ComponentPublisher,
    sizes: Mutex<Vec<usize>>,
}

impl Publisher for Counting<'_> {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        self.sizes.lock().push(1);
        self.publisher.publish(event)
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        self.sizes.lock().push(events.len());
        self.publisher.publish_batch(events)
    }

    fn max_batch(&self) -> usize {
        self.publisher.max_batch()
    }
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let mut server = Other::start(bed, Part::Serve, None, 1)?;
    let address = server.line()?.context("the server did not start")?;
    let entries = bed.entries.min(ENTRIES_MAX);
    let singles = (entries / SINGLES_PART).max(1);
    let (full, few) = (bed.filled(entries, bed.bytes, entries)?, bed.filled(singles, bed.bytes, singles)?);
    let mut figures = Vec::new();
    for (path, answers) in [(server::WAITS, "answered after 10 ms"), ("/", "answered at once")] {
        let settings = http::settings(&format!("http://{address}{path}"))?;
        let bulk = ComponentPublisher::load(bed.given(&bed.bulk)?, settings)?;
        let counting = Counting { publisher: &bulk, sizes: Mutex::default() };
        let one = PublisherOptions { batch_max: Some(1), ..PublisherOptions::default() };
        let [batches, single] = in_turn(
            &format!("batch, {answers}"),
            bed.repeat,
            [&mut || drain(&bed.copy(&full)?, &counting, PublisherOptions::default(), entries), &mut || {
                drain(&bed.copy(&few)?, &bulk, one.clone(), singles)
            }],
        )?;
        figures.extend([
            Figure::ratio(format!("batches / one request an entry, {answers}"), &batches, &single),
            Figure::new(format!("batches, {answers}"), "/s", batches),
            Figure::new(format!("one request an entry, {answers}"), "/s", single),
        ]);
        figures.extend(fullness(answers, &counting.sizes.into_inner(), bulk.max_batch()));
    }
    server.end()?;
    let what = format!(
        "{entries} entries of {} bytes in as many streams, over HTTP to a destination that takes bulk",
        bed.bytes
    );
    Ok(Measured { what, figures })
}

/// How many events the calls had, and how many calls had as many as they may.
fn fullness(answers: &str, sizes: &[usize], batch_max: usize) -> [Figure; 2] {
    let full = sizes.iter().filter(|size| **size == batch_max).count();
    let sizes: Vec<f64> = sizes.iter().map(|size| *size as f64).collect();
    [
        Figure::once(format!("events of a call, median, {answers}"), "", median(&sizes)),
        Figure::once(
            format!("calls with {batch_max} events, {answers}"),
            "%",
            100.0 * full as f64 / sizes.len() as f64,
        ),
    ]
}

/// Drains this many entries, and returns the rate in entries a second.
fn drain(db: &Path, publisher: &dyn Publisher, options: PublisherOptions, entries: usize) -> Result<f64> {
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let began = Instant::now();
    let report = outbox.run(Publishers::one(publisher).with_options("", options), entries)?;
    let rate = bed::per_second(entries, began);
    ensure!(
        report.published == entries as u64,
        "{} of {entries} entries were published: {:?}",
        report.published,
        report.failures.first()
    );
    Ok(rate)
}
