//! The table of languages in the README, measured: `make languages`.
//!
//! Each webhook posts events of 1 KB to `outbox-sink`. With a file as its argument it writes the table there, between the
//! two HTML comments; without one it prints it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outbox_host::publisher::component::{ComponentPublisher, Grants, Isolation, Limits, Settings};
use outbox_host::{Outcome, Payload, Publisher, Recorded, StreamId, WrappedEvent};
use outbox_tests::answering::Answering;
use outbox_tests::memory::resident;
use outbox_tests::outboxes::large_json;
use outbox_tests::sink::Sink;
use outbox_tests::waiting::until;
use uuid::Uuid;

/// The most data that a publisher is given: see docs/table.md.
const DATA_MIB_MAX: usize = 32;
const BEGIN: &str = "<!-- languages: made by `make languages` -->\n";
const END: &str = "<!-- /languages -->\n";

/// Each webhook with what makes it.
const LANGUAGES: &[(&str, &str, &str)] = &[
    ("rust-webhook", "Rust", "cargo, wasm32-wasip2"),
    ("c-webhook", "C", "zig cc 0.17, wasm-tools"),
    ("go-webhook", "Go 1.26", "go, wasm-tools"),
    ("python-webhook", "Python 3.14", "componentize-py 0.25"),
    ("javascript-quickjs-webhook", "JavaScript, QuickJS", "componentize-qjs 0.4"),
    ("javascript-starlingmonkey-webhook", "JavaScript, StarlingMonkey", "componentize-js 0.23"),
    ("typescript-webhook", "TypeScript, StarlingMonkey", "tsc 5.9, componentize-js 0.23"),
];

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = String::from(
        "| language | toolchain | component | compile, once | instantiate, first event | an event | memory an instance | largest data |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (name, language, toolchain) in LANGUAGES {
        let skipped = guests().join(format!("{name}.skipped"));
        if skipped.exists() {
            eprintln!("SKIPPED {name}: {}", std::fs::read_to_string(skipped)?.trim());
            continue;
        }
        let row = runtime.block_on(measure(name))?;
        let largest = runtime.block_on(largest(name))?;
        writeln!(table, "| [{language}](examples/{name}) | {toolchain} | {row} | {largest} MiB |")?;
    }
    match std::env::args().nth(1) {
        None => print!("{table}"),
        Some(file) => {
            let text = std::fs::read_to_string(&file)?;
            let (before, rest) = text.split_once(BEGIN).context("there is no place for the table")?;
            let (_, after) = rest.split_once(END).context("the place for the table has no end")?;
            std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}"))?;
        }
    }
    Ok(())
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests")
}

async fn measure(name: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let sink = Sink::start(&folder.path().join("ledger"), outbox_tests::program("outbox-sink").to_str().unwrap());
    let file = outbox_tests::guest(name);
    let settings = |isolation| {
        let url = sink.url();
        let mut grants = Grants { allow_http: vec![url.parse().unwrap()], ..Grants::default() };
        grants.env.insert("WEBHOOK_URL".into(), url);
        Settings { grants, isolation, ..Settings::default() }
    };
    let started = Instant::now();
    let fresh = ComponentPublisher::load(&file, settings(Isolation::PerEvent))?;
    let compile = started.elapsed();
    let first = time_of(&fresh, 20).await?;
    // An instance of every language can serve 100 events.
    let reused = ComponentPublisher::load(&file, settings(Isolation::Reuse { recycle_after: 100 }))?;
    time_of(&reused, 100).await?;
    let event = time_of(&reused, 2_000).await?;
    let bytes = memory(&file, settings(Isolation::Reuse { recycle_after: 100 })).await?;
    Ok(format!(
        "{} | {:.1} s | {:.1} ms | {:.2} ms | {}",
        size(file.metadata()?.len()),
        compile.as_secs_f64(),
        first.as_secs_f64() * 1e3,
        event.as_secs_f64() * 1e3,
        size(bytes as u64)
    ))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} KB", bytes / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// The median time of a call.
async fn time_of(publisher: &ComponentPublisher, calls: u32) -> Result<Duration> {
    let event = event();
    let mut times = Vec::new();
    for _ in 0..calls {
        let started = Instant::now();
        let outcome = publisher.publish(&event).await.outcome;
        times.push(started.elapsed());
        ensure!(outcome == Outcome::Delivered, "{outcome:?}");
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// How much this process grows for each instance that has served an event: 16 instances serve one at the same time.
async fn memory(file: &Path, settings: Settings) -> Result<usize> {
    const INSTANCES: usize = 16;
    let publisher = ComponentPublisher::load(file, settings)?;
    publisher.publish(&event()).await;
    let before = resident();
    let event = event();
    let calls = (0..=INSTANCES).map(|_| publisher.publish(&event));
    futures_util::future::join_all(calls).await;
    until("they all started", || publisher.instances_started() as usize > INSTANCES);
    Ok(resident().saturating_sub(before) / INSTANCES)
}

/// The most data of one event that it can post within the memory that it has unless more is set, in whole MiB.
async fn largest(name: &str) -> Result<usize> {
    let server = Answering::start();
    server.answer(204, &[], "");
    let (mut posted, mut failed) = (0_usize, DATA_MIB_MAX + 1);
    while failed - posted > 1 {
        let mib = (posted + failed).div_ceil(2);
        let mut grants = Grants { allow_http: vec![server.url().parse().unwrap()], ..Grants::default() };
        grants.env.insert("WEBHOOK_URL".into(), server.url());
        let limits = Limits { call_time: Duration::from_secs(600), ..Limits::default() };
        let cache = Some(guests().join("../cache/outbox"));
        let settings = Settings { grants, limits, isolation: Isolation::PerEvent, cache, ..Settings::default() };
        let publisher = ComponentPublisher::load(&outbox_tests::guest(name), settings)?;
        let mut event = event();
        event.wrapped_event.name = "large".into();
        event.wrapped_event.data = Payload::Json(large_json(mib << 20));
        if publisher.publish(&event).await.outcome == Outcome::Delivered { posted = mib } else { failed = mib }
    }
    Ok(posted)
}

fn event() -> Recorded {
    Recorded {
        wrapped_event: WrappedEvent {
            uuid: Uuid::from_u128(0x1234),
            name: "order.placed".into(),
            version: Some(1),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: Payload::Json(format!("{{\"order\": 42, \"note\": \"{}\"}}", "x".repeat(1_000))),
            context: "{}".into(),
        },
        stream_id: StreamId::from_name("order-1").with_category("order"),
        position: 1,
        tenant_id: "default".into(),
        attempt: 1,
    }
}
