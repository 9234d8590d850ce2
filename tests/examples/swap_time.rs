//! How long it takes from a deployment to the first delivery by the new version, compiled and from the cache; prints medians. For components
//! that answer ok to every event:
//!
//!     cargo run --release -p outbox-tests --example swap_time -- target/guests/rust-webhook.wasm

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outbox_host::outbox::{Act, Registry};
use outbox_host::publisher::component::{Grants, OutputSink, Settings};
use outbox_host::{
    Attempt, BoxFuture, CanaryRules, JsonSerde, Kept, NewEvent, Outbox, OutboxStorageStrategy, Outcome, Publisher,
    Recorded, SqliteOutbox, StorageError, StreamId, VersionedPublisher, stop,
};
use outbox_tests::program;
use outbox_tests::sink::Sink;

const ROUNDS: u32 = 15;

/// Tells of each delivery, with the digest of the version that made it.
struct Told {
    publisher: VersionedPublisher,
    deliveries: Mutex<Sender<(String, Instant)>>,
}

impl Publisher for Told {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let attempt = self.publisher.publish(event).await;
            if let (Outcome::Delivered, Some(digest)) = (&attempt.outcome, &attempt.digest) {
                let told = (digest.to_string(), Instant::now());
                let _ = self.deliveries.lock().map(|deliveries| deliveries.send(told));
            }
            attempt
        })
    }

    fn keep_up(&self, registry: &dyn Registry, now: jiff::Timestamp) -> Result<Kept, StorageError> {
        self.publisher.keep_up(registry, now)
    }

    fn leave(&self, registry: &dyn Registry) -> Result<(), StorageError> {
        self.publisher.leave(registry)
    }
}

/// The same component with other bytes: a custom section at its end says its number.
fn version(component: &[u8], number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_le_bytes();
    [component, &[0, 6, 1, b'v', a, b, c, d]].concat()
}

fn measure(file: &str) -> Result<()> {
    let component = std::fs::read(file).with_context(|| file.to_owned())?;
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("app.db");
    SqliteOutbox::init(&db)?;
    let operator = Outbox::new(SqliteOutbox::open(&db)?, JsonSerde);
    let outbox = Outbox::new(SqliteOutbox::open(&db)?, JsonSerde);
    let (deliveries, delivered) = channel();
    // For the example rust-webhook; any other is indifferent to it.
    let sink = Sink::start(&folder.path().join("ledger"), &program("outbox-sink").to_string_lossy());
    let grant = sink.url().parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let env = [("WEBHOOK_URL".to_owned(), sink.url())].into();
    let settings = Settings {
        grants: Grants { allow_http: vec![grant], env, ..Grants::default() },
        cache: Some(folder.path().join("cache")),
        output: OutputSink::new(|_| ()),
        ..Settings::default()
    };
    let publisher = VersionedPublisher::new("it", settings, CanaryRules::default());
    let told = Told { publisher, deliveries: Mutex::new(deliveries) };
    let (stop, stopping) = stop();
    std::thread::scope(|scope| {
        let relay = scope.spawn(|| outbox.relay(&told, &stopping));
        let result = (|| -> Result<(Duration, Duration)> {
            // Events come all the time: what is measured is the swap, and not how long somebody waits for an event.
            let swap = |number: u32| -> Result<Duration> {
                let by = Act { who: "swap_time".into(), at: jiff::Timestamp::now() };
                let began = Instant::now();
                let digest =
                    operator.strategy().registry().deploy("it", &version(&component, number), None, "", &by)?.digest;
                loop {
                    operator.append(&[NewEvent::json(StreamId::new("order-1"), "order.placed", "{\"order\": 42}")])?;
                    ensure!(began.elapsed() < Duration::from_secs(120), "{file} does not deliver");
                    while let Ok((found, at)) = delivered.recv_timeout(Duration::from_millis(1)) {
                        if found == digest {
                            return Ok(at - began);
                        }
                    }
                }
            };
            swap(0)?;
            let mut compiled = (1..=ROUNDS).map(swap).collect::<Result<Vec<_>>>()?;
            // All of them are in the cache now.
            let mut cached = (0..ROUNDS).map(swap).collect::<Result<Vec<_>>>()?;
            Ok((median(&mut compiled), median(&mut cached)))
        })();
        stop.stop();
        relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))??;
        let (compiled, cached) = result?;
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        println!("{name}, {} KB: compiled {compiled:.1?}, from the cache {cached:.1?}", component.len() / 1024);
        Ok(())
    })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<()> {
    std::env::args().skip(1).try_for_each(|file| measure(&file))
}
