//! A publisher that waits for each event: a component, and a native one in the same relay, and the same waits without any
//! relay.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::join_all;
use outbox_host::publisher::component::ComponentPublisher;
use outbox_host::{Attempt, BoxFuture, Outcome, Publisher, Recorded, RelayOptions};

use super::bed::{self, Bed};
use super::figures::{Figure, Measured, in_turn};

/// As long as the component of `--waits` waits.
const WAIT: Duration = Duration::from_millis(10);
/// The numbers of streams, each with an event under way.
const STREAMS: [usize; 2] = [64, 256];

/// Waits as the component does.
struct Native;

impl Publisher for Native {
    fn publish<'a>(&'a self, _: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async {
            tokio::time::sleep(WAIT).await;
            Outcome::Delivered.into()
        })
    }
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let component = ComponentPublisher::load(bed.given(&bed.waits)?, bed::settings())?;
    let rounds = (bed.entries / 2_000).clamp(1, 100);
    let mut figures = Vec::new();
    for streams in STREAMS {
        let entries = streams * rounds;
        let full = bed.filled(entries, bed.bytes, streams)?;
        let options = || RelayOptions { concurrency: streams, ..RelayOptions::default() };
        let [sleeping, native, component] = in_turn(
            &format!("waiting, {streams} streams"),
            bed.repeat,
            [
                &mut || sleep(streams, rounds),
                &mut || bed::drain_with(&bed.copy(&full)?, &Native, entries, options()),
                &mut || bed::drain_with(&bed.copy(&full)?, &component, entries, options()),
            ],
        )?;
        figures.extend([
            Figure::ratio(format!("component / native publisher, {streams} streams"), &component, &native),
            Figure::ratio(format!("component / native loop, {streams} streams"), &component, &sleeping),
            Figure::new(format!("native loop without a relay, {streams} streams"), "/s", sleeping),
            Figure::new(format!("native publisher, {streams} streams"), "/s", native),
            Figure::new(format!("component, {streams} streams"), "/s", component),
        ]);
    }
    Ok(Measured { what: format!("publishers that wait 10 ms for an event, {rounds} events of each stream"), figures })
}

fn sleep(streams: usize, rounds: usize) -> Result<f64> {
    let runtime = bed::runtime()?;
    let began = Instant::now();
    runtime.block_on(join_all((0..streams).map(|_| async {
        for _ in 0..rounds {
            tokio::time::sleep(WAIT).await;
        }
    })));
    Ok(bed::per_second(streams * rounds, began))
}
