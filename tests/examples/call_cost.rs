//! What one call of a publisher costs: `cargo run --release -p outbox-tests --example call_cost [GUEST]`.

use std::time::{Duration, Instant};

use outbox_host::publisher::component::{ComponentPublisher, Isolation, Limits, Settings};
use outbox_host::{Outcome, Payload, Publisher, Recorded, StreamId, WrappedEvent};
use uuid::Uuid;

fn main() -> anyhow::Result<()> {
    let guest = std::env::args().nth(1).unwrap_or_else(|| "noop".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = |settings| ComponentPublisher::load(&outbox_tests::guest(&guest), settings);

    let started = Instant::now();
    let reused = load(Settings::default())?;
    println!("load                {:>9.2?}", started.elapsed());
    for kib in [0, 1, 16] {
        let nanos = runtime.block_on(nanos_a_call(&reused, kib * 1024, 200_000))?;
        println!("reused, {kib:>2} KiB data {nanos:>9.0} ns a call");
    }
    let unlimited = load(Settings { limits: unlimited(), ..Settings::default() })?;
    let ratio = runtime.block_on(cost_ratio(&reused, &unlimited))?;
    println!("limits on / off     {ratio:>9.3} of the time a call, median of pairs");
    let fresh = load(Settings { isolation: Isolation::PerEvent, ..Settings::default() })?;
    let nanos = runtime.block_on(nanos_a_call(&fresh, 1024, 2_000))?;
    println!("fresh,   1 KiB data {nanos:>9.0} ns a call");
    Ok(())
}

/// No limit that any call could come near to.
fn unlimited() -> Limits {
    Limits {
        call_time: Duration::MAX,
        compile_time: Duration::MAX,
        memory_bytes: usize::MAX,
        table_elements: usize::MAX,
        instances: usize::MAX,
        hostcall_bytes: usize::MAX,
        resources: usize::MAX,
        reason_chars: usize::MAX,
        module_bytes: usize::MAX - 1,
        line_bytes: usize::MAX,
        lines: usize::MAX,
        log_bytes_per_second: u64::MAX,
        tcp_sockets: usize::MAX,
        http_requests: u32::MAX,
        http_response_bytes: u64::MAX,
    }
}

/// The one's time for a call over the other's: both are measured in turn, so that what else the machine does is spread
/// over them alike.
async fn cost_ratio(one: &ComponentPublisher, other: &ComponentPublisher) -> anyhow::Result<f64> {
    let mut ratios = Vec::new();
    for _ in 0..21 {
        ratios.push(nanos_a_call(one, 1024, 20_000).await? / nanos_a_call(other, 1024, 20_000).await?);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios[ratios.len() / 2])
}

async fn nanos_a_call(publisher: &ComponentPublisher, data_bytes: usize, calls: u32) -> anyhow::Result<f64> {
    let event = event(data_bytes);
    for _ in 0..calls / 10 {
        publisher.publish(&event).await;
    }
    let started = Instant::now();
    for _ in 0..calls {
        let outcome = publisher.publish(&event).await.outcome;
        anyhow::ensure!(outcome == Outcome::Delivered, "{outcome:?}");
    }
    Ok(started.elapsed().as_nanos() as f64 / f64::from(calls))
}

fn event(data_bytes: usize) -> Recorded {
    Recorded {
        wrapped_event: WrappedEvent {
            uuid: Uuid::from_u128(0x1234),
            name: "order.placed".into(),
            version: Some(1),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: Payload::Json(format!("\"{}\"", "x".repeat(data_bytes))),
            context: "{}".into(),
        },
        stream_id: StreamId::from_name("order-1").with_category("order"),
        position: 1,
        tenant_id: "default".into(),
        attempt: 1,
    }
}
