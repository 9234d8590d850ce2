//! The wasmtime engines, shared by all publishers, and the clock that interrupts their guests.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine};

/// The time between two ticks of the epoch: how long a guest computes before it has to let others run, and how exactly
/// its time limit is kept.
const TICK: Duration = Duration::from_millis(10);

/// An engine whose epoch ticks for as long as somebody holds it.
pub(super) struct TickingEngine {
    engine: Engine,
}

/// The two engines: a component runs on the first that accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineKind {
    /// Calls cost about half as much; refuses components that use the component model's async built-ins.
    Plain,
    /// Accepts these too.
    Concurrent,
}

static PLAIN: Mutex<Weak<TickingEngine>> = Mutex::new(Weak::new());
static CONCURRENT: Mutex<Weak<TickingEngine>> = Mutex::new(Weak::new());

impl TickingEngine {
    /// The engine of this kind: the one in use, or a new one.
    pub(super) fn shared(kind: EngineKind) -> wasmtime::Result<Arc<Self>> {
        let slot = match kind {
            EngineKind::Plain => &PLAIN,
            EngineKind::Concurrent => &CONCURRENT,
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = slot.upgrade() {
            return Ok(engine);
        }
        let engine = Arc::new(Self { engine: Engine::new(&config(kind))? });
        start_ticking(&engine)?;
        *slot = Arc::downgrade(&engine);
        Ok(engine)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}

fn config(kind: EngineKind) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.concurrency_support(kind == EngineKind::Concurrent);
    config
}

/// The ticker has a thread of its own, so that no guest and no busy runtime can hold up the clock. It ends with the
/// engine.
fn start_ticking(engine: &Arc<TickingEngine>) -> wasmtime::Result<()> {
    let engine = Arc::downgrade(engine);
    thread::Builder::new().name("outbox-epoch".into()).spawn(move || {
        while let Some(ticking) = engine.upgrade() {
            ticking.engine.increment_epoch();
            drop(ticking);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}
