//! Resident memory of a process that drains a large outbox, a small outbox, or large entries; and what an idle instance
//! adds.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use outbox_host::publisher::component::{ComponentPublisher, Settings};
use outbox_host::{Outcome, Payload, Publisher, Recorded, StreamId, WrappedEvent};

use super::bed::{self, Bed, STREAMS};
use super::figures::{Figure, Measured, in_turn};
use super::options::Options;
use super::other::{Other, Part};
use crate::cli::terminal::print;

const LARGE_ENTRIES: usize = 200;
const MB: usize = 1_000_000;
/// So many that the rest of the process's memory does not matter.
const INSTANCES: usize = 1_000;

pub fn measure(bed: &Bed) -> Result<Measured> {
    let sizes = [bed.backlog.div_ceil(100), bed.backlog.div_ceil(10), bed.backlog];
    let filled = |entries| bed.filled(entries, bed.bytes, STREAMS);
    let (few, some, many) = (filled(sizes[0])?, filled(sizes[1])?, filled(sizes[2])?);
    let large = bed.filled(LARGE_ENTRIES, MB, STREAMS)?;
    let ask = |part, db: Option<&Path>, entries| -> Result<f64> {
        let mut other = Other::start(bed, part, db, entries)?;
        let kib = other.number()?;
        other.end()?;
        Ok(kib)
    };
    // The first run compiles, which takes more memory than the runs that follow.
    ask(Part::Drain, Some(&bed.copy(&few)?), sizes[0])?;
    let [few, some, many, large, instance] = in_turn(
        "memory",
        bed.repeat,
        [
            &mut || ask(Part::Drain, Some(&bed.copy(&few)?), sizes[0]),
            &mut || ask(Part::Drain, Some(&bed.copy(&some)?), sizes[1]),
            &mut || ask(Part::Drain, Some(&bed.copy(&many)?), sizes[2]),
            &mut || ask(Part::Drain, Some(&bed.copy(&large)?), LARGE_ENTRIES),
            &mut || ask(Part::Instances, None, 1),
        ],
    )?;
    Ok(Measured {
        what: format!("peak resident memory of a drain, entries of {} bytes", bed.bytes),
        figures: vec![
            Figure::ratio(format!("{} entries / {}", sizes[2], sizes[0]), &many, &few),
            Figure::ratio(format!("{} entries / {}", sizes[2], sizes[1]), &many, &some),
            Figure::new(format!("{} entries", sizes[0]), "KiB", few),
            Figure::new(format!("{} entries", sizes[1]), "KiB", some),
            Figure::new(format!("{} entries", sizes[2]), "KiB", many),
            Figure::new(format!("{LARGE_ENTRIES} entries of 1 MB"), "KiB", large),
            Figure::new("an idle instance", "KiB", instance),
        ],
    })
}

/// Settings that keep compiled code in the folder that this process was given.
fn cached(options: &Options) -> Settings {
    Settings { cache: options.folder.clone(), ..bed::settings() }
}

/// The other process: drains, and prints its peak of memory.
pub fn drain(options: &Options, db: &Path) -> Result<()> {
    let publisher = ComponentPublisher::load(&options.publisher, cached(options))?;
    bed::drain(db, &publisher, options.entries)?;
    print(memory_kib("VmHWM")?)?;
    Ok(())
}

/// The other process: starts many instances, and prints how much memory each takes while idle.
pub fn instances(options: &Options) -> Result<()> {
    let file = options.waits.as_ref().context("it needs --waits FILE")?;
    let publisher = ComponentPublisher::load(file, cached(options))?;
    let event = event();
    let publish = |count| join_all((0..count).map(|_| publisher.publish(&event)));
    let runtime = bed::runtime()?;
    runtime.block_on(publish(1));
    let before = memory_kib("VmRSS")?;
    let attempts = runtime.block_on(publish(INSTANCES + 1));
    let failed = attempts.into_iter().find(|attempt| attempt.outcome != Outcome::Delivered);
    ensure!(failed.is_none(), "a call failed: {failed:?}");
    let (after, started) = (memory_kib("VmRSS")?, publisher.instances_started());
    ensure!(started > INSTANCES as u64, "only {started} instances were needed: does the publisher of --waits wait?");
    print((after - before) / INSTANCES as f64)?;
    Ok(())
}

/// A number from /proc/self/status.
fn memory_kib(name: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("this system does not report {name}"))?.parse()?)
}

fn event() -> Recorded {
    Recorded {
        wrapped_event: WrappedEvent {
            uuid: uuid::Uuid::nil(),
            name: "order.placed".into(),
            version: None,
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: Payload::Json("{}".into()),
            context: "{}".into(),
        },
        stream_id: StreamId::new("order-1"),
        position: 1,
        tenant_id: "default".into(),
        attempt: 1,
    }
}
