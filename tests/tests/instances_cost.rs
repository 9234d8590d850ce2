//! What the host allocates for an instance, beside the guest's memory, is no more than was counted before it was
//! compiled.

use outbox_host::publisher::component::{ComponentPublisher, OutputSink, Settings};
use outbox_tests::memory::{MIB, resident};
use outbox_tests::unfolding;

/// What the core instances of one instance may take: `INSTANCE_BYTES_MAX` in `expand/spent.rs`.
const COUNTED_BYTES_MAX: usize = 16 * MIB;
/// What else there is for an instance: its memory's one page, its stack, the host's own.
const OTHER_BYTES_MAX: usize = 4 * MIB;
/// So many instances that everything else in the process is little beside them.
const INSTANCES: usize = 4;

/// Each is as large as it may be, nearly, and none is refused.
#[test]
fn an_instance_takes_no_more_than_was_counted() {
    let largest = [
        ("globals", unfolding::instances(&unfolding::globals(100_000), 10)),
        ("functions", unfolding::instances(&unfolding::functions(20_000), 20)),
        ("passive elements", unfolding::instances(&unfolding::passive_elements(100_000), 10)),
        ("passive data", unfolding::instances(&unfolding::passive_data(100_000), 10)),
        ("small modules", unfolding::instances(&unfolding::globals(1), 990)),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let cache = Some(cache.path().to_owned());
    let mut kept = Vec::new();
    for (name, bytes) in largest {
        let settings = || Settings { output: OutputSink::new(|_| ()), cache: cache.clone(), ..Settings::default() };
        let load = || ComponentPublisher::from_bytes(name, &bytes, settings()).unwrap();
        let publishers: Vec<_> = (0..INSTANCES).map(|_| load()).collect();
        // The first one makes what all of them share.
        runtime.block_on(load().warm_up()).unwrap();
        let before = resident();
        for publisher in &publishers {
            runtime.block_on(publisher.warm_up()).unwrap();
        }
        let each = resident().saturating_sub(before) / INSTANCES;
        println!("{name}: {} KiB an instance", each / 1024);
        // Memory that one instance frees, another one would use, unseen.
        kept.push(publishers);
        assert!(each < COUNTED_BYTES_MAX + OTHER_BYTES_MAX, "{name}: {each}");
    }
}
