//! The wasmtime engines, shared by all publishers, and the clock that interrupts their guests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Config, Engine};

/// The time between two ticks of the epoch: how long a guest computes before it has to let others run, and how exactly
/// its time limit is kept.
const TICK: Duration = Duration::from_millis(10);

/// An engine whose epoch ticks for as long as guests compute: an idle relay is not woken by it.
pub(super) struct TickingEngine {
    engine: Engine,
    /// Whether a guest may be computing; each tick forgets it.
    computing: AtomicBool,
    ticker: OnceLock<Thread>,
}

/// The two engines: a component runs on the first that accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineKind {
    /// Calls cost about half as much; refuses components that use the component model's async built-ins.
    Plain,
    /// Accepts these too.
    Concurrent,
}

impl EngineKind {
    /// A new engine of this kind, to compile for those that run.
    pub(super) fn engine(self) -> wasmtime::Result<Engine> {
        Engine::new(&config(self))
    }
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
        let (computing, ticker) = (AtomicBool::new(false), OnceLock::new());
        let engine = Arc::new(Self { engine: kind.engine()?, computing, ticker });
        start_ticking(&engine)?;
        *slot = Arc::downgrade(&engine);
        Ok(engine)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A guest is about to compute, with its deadline set, or was found computing by a tick: there will be another one.
    pub(super) fn keep_ticking(&self) {
        if !self.computing.load(Ordering::Relaxed) && !self.computing.swap(true, Ordering::AcqRel) {
            self.wake_ticker();
        }
    }

    fn wake_ticker(&self) {
        self.ticker.get().into_iter().for_each(Thread::unpark);
    }
}

impl Drop for TickingEngine {
    fn drop(&mut self) {
        self.wake_ticker();
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
    let ticking = Arc::downgrade(engine);
    let ticker = thread::Builder::new().name("outbox-epoch".into()).spawn(move || {
        while let Some(computing) = ticking.upgrade().map(|engine| engine.computing.swap(false, Ordering::AcqRel)) {
            if !computing {
                thread::park();
                continue;
            }
            thread::sleep(TICK);
            ticking.upgrade().iter().for_each(|engine| engine.engine.increment_epoch());
        }
    })?;
    engine.ticker.get_or_init(|| ticker.thread().clone());
    Ok(())
}
