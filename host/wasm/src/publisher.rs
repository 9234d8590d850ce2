//! A component as a publisher: its instances, and the outcomes of their calls.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use outbox_engine::{Attempt, BoxFuture, Outcome, Publisher, Recorded};
use parking_lot::Mutex;

use super::bindings;
use super::compiler::GivenUp;
use super::grants::Grants;
use super::http::Gate;
use super::http_client::HttpClient;
use super::instance::{Instance, Notes};
use super::load::{self, Program};
use super::load_error::LoadError;
use super::output::{Capture, Log};
use super::secrets::Redactor;
use super::settings::{Limits, Settings};
use super::state::State;
use super::text::bounded;

/// The most events in one call of a component that takes batches.
const BATCH_MAX: usize = 100;

/// A publisher that is a WebAssembly component.
///
/// Threads may share it, each with several calls under way; each call has an instance of its own while it lasts. Await
/// its futures within a tokio runtime whose time driver is enabled.
pub struct ComponentPublisher {
    name: Arc<str>,
    digest: Arc<str>,
    settings: Settings,
    grants: Arc<Grants>,
    limits: Arc<Limits>,
    program: Program,
    redactor: Redactor,
    log: Arc<Log>,
    client: Arc<HttpClient>,
    idle: Mutex<Vec<Instance>>,
    started: AtomicU64,
    memory_bytes: AtomicUsize,
}

impl ComponentPublisher {
    /// Reads, checks and compiles a component. Its name is the file's, without the extension. No guest code runs yet.
    /// Compiling takes milliseconds to seconds, at most [`Limits::compile_time`], and uses all processors. Code that is
    /// in [`Settings::cache`] is not compiled again.
    ///
    /// # Errors
    ///
    /// A [`LoadError`] that says what the file is instead of a publisher.
    pub fn load(path: &Path, settings: Settings) -> Result<Self, LoadError> {
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        let bytes = load::read(path, &path.to_string_lossy(), settings.limits.module_bytes)?;
        let program = load::program(&path.to_string_lossy(), &bytes, &settings, &GivenUp::default())?;
        Ok(Self::new(&name, program, settings))
    }

    /// Reads the bytes of a component, and no more of them than `limits` allow.
    ///
    /// # Errors
    ///
    /// A [`LoadError`] if the file cannot be read, or is too large.
    pub fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, LoadError> {
        load::read(path, &path.to_string_lossy(), limits.module_bytes)
    }

    /// Checks and compiles the bytes of a component, as [`load`](Self::load) does.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the message calls the publisher `name`.
    pub fn from_bytes(name: &str, bytes: &[u8], settings: Settings) -> Result<Self, LoadError> {
        Self::from_bytes_unless(&GivenUp::default(), name, bytes, settings)
    }

    /// The same, but ends early if nobody waits for it any more.
    pub(super) fn from_bytes_unless(
        given_up: &GivenUp,
        name: &str,
        bytes: &[u8],
        settings: Settings,
    ) -> Result<Self, LoadError> {
        let program = load::program(name, bytes, &settings, given_up)?;
        Ok(Self::new(name, program, settings))
    }

    fn new(name: &str, program: Program, settings: Settings) -> Self {
        let (name, digest): (Arc<str>, Arc<str>) = (name.into(), hex::encode(program.digest).into());
        let redactor = Redactor::of(&settings.grants.secrets);
        let output = settings.output.clone();
        let log = Log::new(name.clone(), digest.clone(), output, redactor.clone(), &settings.limits);
        Self {
            log: Arc::new(log),
            name,
            digest,
            redactor,
            grants: Arc::new(settings.grants.clone()),
            limits: Arc::new(settings.limits.clone().bounded()),
            client: Arc::new(HttpClient::new(&settings.net)),
            settings,
            program,
            idle: Mutex::default(),
            started: AtomicU64::new(0),
            memory_bytes: AtomicUsize::new(0),
        }
    }

    /// The publisher's name, as it is logged with what the guest writes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sha256 digest of the component's bytes, in hex: its version.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// Whether its compiled code came from the cache.
    pub fn is_from_cache(&self) -> bool {
        self.program.from_cache
    }

    /// Whether it exports `batch-publisher`.
    pub fn takes_batches(&self) -> bool {
        self.program.batch.is_some()
    }

    /// Whether it exports `lifecycle`.
    pub fn has_lifecycle(&self) -> bool {
        self.program.lifecycle.is_some()
    }

    /// How many instances were started so far.
    pub fn instances_started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// The most bytes that the memories of one instance had at the end of a call so far.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Starts an instance, calls its `configure`, and keeps it for the first event. This shows whether the publisher
    /// can work, before it touches any event.
    ///
    /// # Errors
    ///
    /// The attempt that an event would have had: [`Outcome::Unavailable`].
    pub async fn warm_up(&self) -> Result<(), Attempt> {
        let instance = self.instance().await?;
        self.keep(instance);
        Ok(())
    }

    pub(super) async fn publish_one(&self, event: &Recorded) -> Attempt {
        let mut instance = match self.instance().await {
            Ok(instance) => instance,
            Err(refused) => return refused,
        };
        let mut uuid = bindings::UUID_TEXT;
        let lent = bindings::recorded(event, &mut uuid);
        match instance.publish(lent, event.wrapped_event.uuid).await {
            Ok(answer) => {
                let (notes, again) = instance.answered();
                again.into_iter().for_each(|instance| self.keep(instance));
                self.attempt(bindings::outcome(answer, |reason| self.reason(reason)), &notes)
            }
            Err(error) => self.failed(instance, &error),
        }
    }

    async fn publish_several(&self, events: &[Recorded]) -> Vec<Attempt> {
        let mut instance = match self.instance().await {
            Ok(instance) => instance,
            Err(refused) => return vec![refused; events.len()],
        };
        let mut uuids = vec![bindings::UUID_TEXT; events.len()];
        let lent: Vec<_> = events.iter().zip(&mut uuids).map(|(event, uuid)| bindings::recorded(event, uuid)).collect();
        let only = if let [event] = events { Some(event.wrapped_event.uuid) } else { None };
        match instance.publish_batch(&lent, only).await {
            Ok(answers) => {
                let (notes, again) = instance.answered();
                again.into_iter().for_each(|instance| self.keep(instance));
                let outcomes =
                    answers.into_iter().map(|answer| bindings::outcome(answer, |reason| self.reason(reason)));
                outcomes.map(|outcome| self.attempt(outcome, &notes)).collect()
            }
            Err(error) => vec![self.failed(instance, &error); events.len()],
        }
    }

    /// An idle instance, or a new one. It belongs to the caller alone: only [`keep`](Self::keep) makes it idle again.
    /// So an instance whose call did not end is never used again.
    async fn instance(&self) -> Result<Instance, Attempt> {
        let idle = self.idle.lock().pop();
        match idle {
            Some(instance) => Ok(instance),
            None => self.start().await,
        }
    }

    async fn start(&self) -> Result<Instance, Attempt> {
        let serial = self.started.fetch_add(1, Ordering::Relaxed);
        let (name, redactor) = (&self.name, &self.redactor);
        let (grants, limits, client) = (self.grants.clone(), self.limits.clone(), self.client.clone());
        let tap = self.settings.http_tap.clone();
        let gate = Gate::new(name.clone(), grants, limits, client, redactor.clone(), tap);
        let capture = Capture::new(self.log.clone(), &self.limits);
        let state = State::new(&self.settings, gate, capture, redactor.clone());
        let events_max = self.settings.isolation.events_max(serial);
        let started = Instance::start(&self.program, state, &self.limits, events_max).await;
        started.map_err(|(outcome, notes)| self.attempt(outcome, &notes))
    }

    fn keep(&self, instance: Instance) {
        self.idle.lock().push(instance);
    }

    fn failed(&self, instance: Instance, error: &wasmtime::Error) -> Attempt {
        let (outcome, notes) = instance.failed(error, &self.limits);
        self.attempt(outcome, &notes)
    }

    /// A reason as it is recorded: without secrets, and not too long.
    fn reason(&self, reason: String) -> String {
        bounded(self.redactor.redacted(reason), self.limits.reason_chars)
    }

    fn attempt(&self, outcome: Outcome, notes: &Notes) -> Attempt {
        self.memory_bytes.fetch_max(notes.memory_bytes, Ordering::Relaxed);
        let digest = Some(self.digest.clone());
        if outcome == Outcome::Delivered {
            return Attempt { digest, ..outcome.into() };
        }
        // A denial is mostly the cause of the failure.
        let outcome = outcome.map_reason(|reason| {
            *reason = self.redactor.redacted(std::mem::take(reason));
            for note in &notes.denied {
                reason.push_str(" · ");
                reason.push_str(note);
            }
        });
        Attempt { publisher: Some(self.name.clone()), digest, stderr: notes.stderr.clone(), ..outcome.into() }
    }
}

impl Publisher for ComponentPublisher {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        Box::pin(self.publish_one(event))
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            if self.takes_batches() {
                return self.publish_several(events).await;
            }
            let mut attempts = Vec::with_capacity(events.len());
            for event in events {
                attempts.push(self.publish_one(event).await);
            }
            attempts
        })
    }

    fn max_batch(&self) -> usize {
        if self.takes_batches() { BATCH_MAX } else { 1 }
    }
}

impl fmt::Debug for ComponentPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentPublisher").field("name", &self.name).field("digest", &self.digest).finish()
    }
}
