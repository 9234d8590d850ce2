//! Components that unfold to too much are refused by counting, within little memory. This test is the only one of its
//! process, since it measures the memory of the whole process.

use std::time::Instant;

use outbox_host::publisher::component::{Compiler, ComponentPublisher, Limits, LoadError, OutputSink, Settings};
use outbox_tests::memory::{self, MIB};
use outbox_tests::unfolding::{self, Hostile};

/// How much memory a refused component may add to the process that looks at it.
const REFUSAL_BYTES_MAX: usize = 192 * MIB;

/// By the library, which has nothing but what it counts.
#[test]
fn what_unfolds_to_too_much_is_refused_before_it_is_compiled() {
    let hostile = unfolding::refused();
    let before = memory::resident();
    for Hostile { name, bytes, says } in &hostile {
        let began = Instant::now();
        let settings = Settings {
            limits: Limits::default(),
            compiler: Compiler::InThisProcess,
            output: OutputSink::new(|_| ()),
            ..Settings::default()
        };
        let refusal = ComponentPublisher::from_bytes("hostile", bytes, settings).unwrap_err();
        assert!(matches!(refusal, LoadError::Expands { .. }), "{name}: {refusal}");
        assert!(refusal.to_string().contains(says), "{name}: {refusal}");
        let growth = memory::highest().saturating_sub(before);
        println!(
            "{name}: {} KB, {:?}, {} MiB at the highest so far",
            bytes.len() / 1_000,
            began.elapsed(),
            growth / MIB
        );
        assert!(growth < REFUSAL_BYTES_MAX, "{name}: {growth}");
    }
}
