//! One instance of a publisher, and one call into it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use outbox_engine::Outcome;
use tokio::runtime::Handle;
use uuid::Uuid;
use wasmtime::component::Instance as WasmInstance;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use super::bindings::{self, Answer, types};
use super::engine::TickingEngine;
use super::failure::{self, TimedOut};
use super::load::Program;
use super::settings::Limits;
use super::state::State;
use super::text::bounded;

/// A store with one instantiated component. Dropping it ends everything that the guest has under way.
pub(super) struct Instance {
    store: Store<State>,
    engine: Arc<TickingEngine>,
    publisher: bindings::publisher::Guest,
    batch: Option<bindings::batch_publisher::Guest>,
    runtime: Option<Handle>,
    call_time: Duration,
    events_left: u32,
}

/// The host's notes about a call.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The last lines of the guest's standard error.
    pub(super) stderr: String,
    /// The denials.
    pub(super) denied: Vec<String>,
    /// The size of its memories.
    pub(super) memory_bytes: usize,
}

impl Instance {
    /// Instantiates `program`, and configures it if it has a lifecycle.
    ///
    /// # Errors
    ///
    /// Why no event can be published, with what the guest wrote to its standard error.
    pub(super) async fn start(
        program: &Program,
        state: State,
        limits: &Limits,
        events_max: u32,
    ) -> Result<Self, (Outcome, Notes)> {
        let mut store = store(program, state, limits);
        let runtime = store.data().sockets.runtime();
        let engine = program.engine.clone();
        let time = begin_call(&mut store, limits.call_time, None);
        let started = within(time, &engine, runtime.as_ref(), pin!(instantiate(program, &mut store))).await;
        // The host's own work for an instance runs without a break, and no epoch interrupts it, so its time is checked
        // afterwards.
        let started = started.and_then(|started| Ok(time.check().map(|()| started)?));
        let (instance, configured) = match started {
            Ok(started) => started,
            Err(error) => {
                let outcome = failure::outcome(&error, store.data_mut().limiter.take_refused(), limits);
                return Err(refused(&mut store, format!("the publisher cannot start: {}", outcome.reason())));
            }
        };
        if let Err(reason) = configured {
            let reason = bounded(store.data().redactor.redacted(reason), limits.reason_chars);
            return Err(refused(&mut store, format!("the publisher's configure failed: {reason}")));
        }
        end_call(&mut store);
        let (publisher, batch) = instance;
        Ok(Self { store, engine, publisher, batch, runtime, call_time: limits.call_time, events_left: events_max })
    }

    /// Calls `publish`; `uuid` is the event's.
    pub(super) async fn publish(&mut self, event: types::Recorded<'_>, uuid: Uuid) -> wasmtime::Result<Answer> {
        let time = begin_call(&mut self.store, self.call_time, Some(uuid));
        self.events_left = self.events_left.saturating_sub(1);
        let call = pin!(self.publisher.call_publish(&mut self.store, event));
        within(time, &self.engine, self.runtime.as_ref(), call).await
    }

    /// Calls `publish-batch`, and checks that the guest answers for each event. If there is only one event, `uuid` is
    /// its uuid.
    pub(super) async fn publish_batch(
        &mut self,
        events: &[types::Recorded<'_>],
        uuid: Option<Uuid>,
    ) -> wasmtime::Result<Vec<Answer>> {
        let batch = self.batch.as_ref().ok_or_else(|| wasmtime::Error::msg("it takes no batches"))?;
        let time = begin_call(&mut self.store, self.call_time, uuid);
        self.events_left = self.events_left.saturating_sub(u32::try_from(events.len()).unwrap_or(u32::MAX));
        let call = pin!(batch.call_publish_batch(&mut self.store, events));
        let answers = within(time, &self.engine, self.runtime.as_ref(), call).await?;
        if answers.len() != events.len() {
            let (got, expected) = (answers.len(), events.len());
            return Err(wasmtime::Error::msg(format!("publish-batch gave {got} answers for {expected} events")));
        }
        Ok(answers)
    }

    /// Ends a call that was answered. The instance may serve further calls, unless it has served enough.
    pub(super) fn answered(mut self) -> (Notes, Option<Self>) {
        self.store.data().give_back_sockets();
        let notes = end_call(&mut self.store);
        (notes, (self.events_left > 0).then_some(self))
    }

    /// Ends a call that was not answered, and the instance with it.
    pub(super) fn failed(mut self, error: &wasmtime::Error, limits: &Limits) -> (Outcome, Notes) {
        let outcome = failure::outcome(error, self.store.data_mut().limiter.take_refused(), limits);
        let notes = end_call(&mut self.store);
        (failure::with_last_words(outcome, &notes.stderr), notes)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.store.data().gate.abandon();
    }
}

fn store(program: &Program, state: State, limits: &Limits) -> Store<State> {
    let mut store = Store::new(program.pre.engine(), state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.hostcall_bytes);
    store.set_max_component_handles(limits.resources);
    let call_time = limits.call_time;
    store.epoch_deadline_callback(move |store| on_tick(&store, call_time));
    store
}

type Guests = (bindings::publisher::Guest, Option<bindings::batch_publisher::Guest>);

/// The instance's exports, and what its `configure` said.
async fn instantiate(program: &Program, store: &mut Store<State>) -> wasmtime::Result<(Guests, Result<(), String>)> {
    let instance: WasmInstance = program.pre.instantiate_async(&mut *store).await?;
    let publisher = program.publisher.load(&mut *store, &instance)?;
    let batch = match &program.batch {
        Some(batch) => Some(batch.load(&mut *store, &instance)?),
        None => None,
    };
    let configured = match &program.lifecycle {
        Some(lifecycle) => lifecycle.load(&mut *store, &instance)?.call_configure(&mut *store).await?,
        None => Ok(()),
    };
    Ok(((publisher, batch), configured))
}

fn refused(store: &mut Store<State>, reason: String) -> (Outcome, Notes) {
    (Outcome::Unavailable { reason, after: None }, end_call(store))
}

fn begin_call(store: &mut Store<State>, limit: Duration, event: Option<Uuid>) -> CallTime {
    store.set_epoch_deadline(1);
    let state = store.data_mut();
    let deadline = Instant::now() + limit;
    state.deadline = deadline;
    state.limiter.take_refused();
    state.gate.begin_call();
    state.capture.begin_call(event);
    CallTime { limit, deadline }
}

fn end_call(store: &mut Store<State>) -> Notes {
    let state = store.data_mut();
    let (stderr, mut denied) = (state.capture.end_call(), state.gate.take_notes());
    // A guest with exceptions may have caught the failure, and may only say that it ran out of memory.
    denied.extend(state.limiter.take_refused());
    Notes { stderr, denied, memory_bytes: state.limiter.memory_bytes() }
}

/// Called on every tick of the epoch while the guest computes. It gives a turn to the other guests and timers of the
/// thread, until the guest's time is up.
fn on_tick(store: &StoreContextMut<'_, State>, call_time: Duration) -> wasmtime::Result<UpdateDeadline> {
    if Instant::now() >= store.data().deadline {
        return Err(TimedOut { limit: call_time }.into());
    }
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

/// How long a call may take, and its deadline.
#[derive(Clone, Copy)]
struct CallTime {
    limit: Duration,
    deadline: Instant,
}

impl CallTime {
    fn check(self) -> Result<(), TimedOut> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(TimedOut { limit: self.limit }) }
    }
}

/// Waits for `call` until its time is up. The epoch stops a guest that computes; this stops a guest that waits.
///
/// If the publisher may have sockets, the call is polled in the context of the runtime of these sockets: sockets belong
/// to the runtime in which they are polled, and outlive the caller's.
///
/// Most calls are done at the first poll, and a timer costs half as much as such a call. So only a call that has to
/// wait gets a timer.
async fn within<T>(
    time: CallTime,
    engine: &TickingEngine,
    runtime: Option<&Handle>,
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
) -> wasmtime::Result<T> {
    let mut call = poll_fn(|context| {
        let _entered = runtime.map(Handle::enter);
        let _computing = engine.compute();
        call.as_mut().poll(context)
    });
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(Pin::new(&mut call).poll(context))).await {
        return done;
    }
    match tokio::time::timeout_at(time.deadline.into(), call).await {
        Ok(done) => done,
        Err(_) => Err(TimedOut { limit: time.limit }.into()),
    }
}
