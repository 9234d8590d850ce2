//! The wasmtime engines, shared by all publishers, and the clock that interrupts their guests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::{Config, Engine};

/// The time between two ticks of the epoch. After a tick, a guest that computes lets others run, and its time limit is
/// checked.
const TICK: Duration = Duration::from_millis(10);

/// An engine whose epoch ticks only while guests compute, so that it does not wake an idle relay.
pub(super) struct TickingEngine {
    engine: Engine,
    /// How many guests may be computing now.
    computing: AtomicUsize,
    /// Whether a guest has begun since the last tick. So guests that are done at once wake the ticker at most once a
    /// tick.
    begun: AtomicBool,
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
        let mut slot = slot.lock();
        if let Some(engine) = slot.upgrade() {
            return Ok(engine);
        }
        let (computing, begun) = (AtomicUsize::new(0), AtomicBool::new(false));
        let engine = Arc::new(Self { engine: kind.engine()?, computing, begun, ticker: OnceLock::new() });
        start_ticking(&engine)?;
        *slot = Arc::downgrade(&engine);
        Ok(engine)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// To be called when a guest is about to compute. The epoch ticks until the result is dropped, even while the guest
    /// waits for a processor.
    pub(super) fn compute(&self) -> Computing<'_> {
        self.computing.fetch_add(1, Ordering::SeqCst);
        if !self.begun.load(Ordering::SeqCst) && !self.begun.swap(true, Ordering::SeqCst) {
            self.wake_ticker();
        }
        Computing(self)
    }

    fn is_computing(&self) -> bool {
        self.begun.swap(false, Ordering::SeqCst) || self.computing.load(Ordering::SeqCst) > 0
    }

    fn wake_ticker(&self) {
        self.ticker.get().into_iter().for_each(Thread::unpark);
    }
}

/// While this exists, a guest may be computing.
pub(super) struct Computing<'a>(&'a TickingEngine);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.computing.fetch_sub(1, Ordering::SeqCst);
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

/// Starts the ticker on a thread of its own, so that no guest and no busy runtime can hold up the clock. It ends with
/// the engine.
fn start_ticking(engine: &Arc<TickingEngine>) -> wasmtime::Result<()> {
    let ticking = Arc::downgrade(engine);
    let ticker = thread::Builder::new().name("outbox-epoch".into()).spawn(move || {
        while let Some(computing) = ticking.upgrade().map(|engine| engine.is_computing()) {
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

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module, Store};

    use super::*;

    /// `(module (func (export "f") (loop (br 0))))`
    const SPINS: &[u8] = &[
        0, b'a', b's', b'm', 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, b'f', 0, 0, 10, 9, 1, 7, 0, 3,
        0x40, 0x0c, 0, 0x0b, 0x0b,
    ];

    /// After a tick a guest lets others run. It may then wait for a processor beyond the next tick.
    #[test]
    fn it_ticks_while_a_guest_computes_whatever_becomes_of_single_ticks() {
        let engine = TickingEngine::shared(EngineKind::Plain).unwrap();
        let mut store = Store::new(engine.engine(), ());
        let instance = Instance::new(&mut store, &Module::new(engine.engine(), SPINS).unwrap(), &[]).unwrap();
        let spin = instance.get_typed_func::<(), ()>(&mut store, "f").unwrap();
        for _ in 0..3 {
            store.set_epoch_deadline(5);
            let computing = engine.compute();
            assert!(spin.call(&mut store, ()).is_err());
            drop(computing);
            // Until the ticker sleeps.
            thread::sleep(3 * TICK);
        }
    }
}
