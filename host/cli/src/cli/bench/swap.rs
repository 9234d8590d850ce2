//! A hot swap: the time from a version's deployment to its first delivery, and the pause in the deliveries of a loaded
//! relay.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use outbox_host::outbox::{Act, Deployments, OutboxStorageStrategy};
use outbox_host::publisher::component::{ComponentPublisher, Limits, Settings};
use outbox_host::{
    Attempt, BoxFuture, CanaryRules, JsonSerde, Maintenance, NewEvent, Outbox, Outcome, Publisher, Recorded,
    SqliteOutbox, StorageError, StreamId, VersionedPublisher, stop,
};

use super::bed::{self, Bed, Db, STREAMS};
use super::figures::{Figure, Measured, percentile};
use crate::cli::terminal::say;

const NO_LOAD: &str = "no figure of the pause under load: the load ended before the last swap (give more --entries)";
/// Swaps for each repetition.
const SWAPS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

/// A delivery, with the digest of the version that made it.
type Delivery = (Arc<str>, Instant);

/// Reports each delivery.
struct Told {
    publisher: VersionedPublisher,
    deliveries: Sender<Delivery>,
}

impl Publisher for Told {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let attempt = self.publisher.publish(event).await;
            if let (Outcome::Delivered, Some(digest)) = (&attempt.outcome, &attempt.digest) {
                let _ = self.deliveries.send((digest.clone(), Instant::now()));
            }
            attempt
        })
    }

    fn maintain(&self, deployments: &dyn Deployments, now: jiff::Timestamp) -> Result<Maintenance, StorageError> {
        self.publisher.maintain(deployments, now)
    }

    fn leave(&self, deployments: &dyn Deployments) -> Result<(), StorageError> {
        self.publisher.leave(deployments)
    }
}

/// The operator and the application beside a relay.
struct Beside<'a> {
    component: &'a [u8],
    outbox: Outbox<SqliteOutbox>,
    delivered: Receiver<Delivery>,
    /// How many events are appended, and not delivered yet.
    under_way: usize,
    /// Whether the outbox was ever empty.
    ran_dry: bool,
    last: Option<Delivery>,
    /// The times between two deliveries: by the same version, and by two versions.
    ordinary_ms: Vec<f64>,
    swaps_ms: Vec<f64>,
}

pub fn measure(bed: &Bed) -> Result<Measured> {
    let swaps = u32::try_from(SWAPS * bed.repeat)?;
    say(format_args!("swap: {swaps} compiled, {swaps} from the cache, {swaps} under load"));
    let component = ComponentPublisher::read(&bed.publisher, &Limits::default())?;
    let (compiled, cached) = beside_a_relay(bed, &bed.empty()?, 0, &component, |beside| {
        beside.swap(0)?;
        let compiled = (1..=swaps).map(|number| beside.swap(number)).collect::<Result<Vec<_>>>()?;
        let cached = (0..swaps).map(|number| beside.swap(number)).collect::<Result<Vec<_>>>()?;
        Ok((compiled, cached))
    })?;
    let full = bed.filled(bed.entries, bed.bytes, STREAMS)?;
    let pauses = beside_a_relay(bed, &full, bed.entries, &component, |beside| {
        (0..=swaps).try_for_each(|number| beside.swap(number).map(|_| ()))?;
        // A pause in which there was nothing to deliver says nothing about the swap.
        Ok((!beside.ran_dry).then(|| (mem::take(&mut beside.swaps_ms), mem::take(&mut beside.ordinary_ms))))
    })?;
    let what = format!("swap of a publisher of {} KB, {swaps} times each", component.len() / 1_000);
    let (what, mut figures) = match pauses {
        Some((at_a_swap, ordinary)) => (what, under_load(at_a_swap, &ordinary)),
        None => (format!("{what}; {NO_LOAD}"), Vec::new()),
    };
    figures.push(Figure::new("deployed to first delivery, compiled", "ms", compiled));
    figures.push(Figure::new("deployed to first delivery, from the cache", "ms", cached));
    Ok(Measured { what, figures })
}

fn under_load(at_a_swap: Vec<f64>, ordinary: &[f64]) -> Vec<Figure> {
    let longest = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    vec![
        Figure::once("under load, pause at a swap, longest", "ms", longest(&at_a_swap)),
        Figure::once("under load, pause without one, longest", "ms", longest(ordinary)),
        Figure::once("under load, pause without one, 99 of 100", "ms", percentile(ordinary, 99)),
        Figure::new("under load, pause at a swap", "ms", at_a_swap),
    ]
}

fn beside_a_relay<T>(
    bed: &Bed,
    db: &Db,
    entries: usize,
    component: &[u8],
    act: impl FnOnce(&mut Beside<'_>) -> Result<T>,
) -> Result<T> {
    let outbox = Outbox::new(SqliteOutbox::open(db)?, JsonSerde);
    let (deliveries, delivered) = channel();
    let settings = Settings { cache: Some(bed.path("cache")), ..bed::settings() };
    let told = Told { publisher: VersionedPublisher::new("it", settings, CanaryRules::default()), deliveries };
    let mut beside = Beside {
        component,
        outbox: Outbox::new(SqliteOutbox::open(db)?, JsonSerde),
        delivered,
        under_way: entries,
        ran_dry: false,
        last: None,
        ordinary_ms: Vec::new(),
        swaps_ms: Vec::new(),
    };
    let (stop, stopping) = stop();
    thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(&told, &stopping));
        let acted = act(&mut beside);
        stop.stop();
        relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))??;
        acted
    })
}

impl Beside<'_> {
    /// Deploys the version with this number, and returns how many milliseconds passed until its first delivery. Events
    /// come all the time, so this measures the swap, and not the wait for an event.
    fn swap(&mut self, number: u32) -> Result<f64> {
        let deployments = self.outbox.strategy().deployments();
        let by = Act { who: "bench".into(), at: jiff::Timestamp::now() };
        let began = Instant::now();
        let digest = deployments.deploy("it", &version(self.component, number), None, "", &by)?.digest;
        loop {
            if self.under_way == 0 {
                self.ran_dry = true;
                let event = NewEvent::json(StreamId::new("order-1"), "order.placed", bed::order(0));
                self.under_way += self.outbox.append(&[event])?.len();
            }
            let delivery = self.delivered.recv_timeout(PATIENCE).context("the publisher delivers nothing")?;
            self.under_way -= 1;
            let (found, at) = (delivery.0.clone(), delivery.1);
            if let Some((by, last)) = self.last.replace(delivery) {
                let times = if by == found { &mut self.ordinary_ms } else { &mut self.swaps_ms };
                times.push(at.saturating_duration_since(last).as_secs_f64() * 1e3);
            }
            if *found == *digest {
                return Ok(at.saturating_duration_since(began).as_secs_f64() * 1e3);
            }
        }
    }
}

/// The same component with other bytes: a custom section at its end contains the number.
fn version(component: &[u8], number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_le_bytes();
    [component, &[0, 6, 1, b'v', a, b, c, d]].concat()
}
