//! Loads a version: makes a configured publisher from its bytes, on a thread of its own, so that nobody waits while it
//! compiles or a guest's `configure` runs.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use super::compiler::GivenUp;
use super::publisher::ComponentPublisher;
use super::settings::Settings;

/// A version that is being loaded. Dropping this gives it up, and ends its compilation.
pub(super) struct Loading {
    given_up: GivenUp,
    result: Option<Loaded>,
    coming: Receiver<Loaded>,
}

type Loaded = Result<Arc<ComponentPublisher>, String>;

impl Loading {
    /// Begins to load a version. A new version must show that it can start, with its `configure`.
    pub(super) fn begin(name: &str, bytes: Vec<u8>, settings: Settings, is_new: bool) -> Self {
        let (done, coming) = sync_channel(1);
        let (name, given_up) = (name.to_owned(), GivenUp::default());
        let unless = given_up.clone();
        let load = move || {
            // If another version was requested meanwhile, nobody listens any more.
            let _ = done.send(load(&unless, &name, &bytes, settings, is_new).map(Arc::new));
        };
        // If no thread starts, its end of the channel is dropped, and `result` reports that.
        let _ = thread::Builder::new().name("outbox-load".into()).spawn(load);
        Self { given_up, result: None, coming }
    }

    /// The publisher, or why it could not be loaded. None while it is not known yet.
    pub(super) fn result(&mut self) -> Option<Loaded> {
        if self.result.is_none() {
            self.result = match self.coming.try_recv() {
                Ok(loaded) => Some(loaded),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err("the thread that was to load it has ended".into())),
            };
        }
        self.result.clone()
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.given_up.give_up();
    }
}

/// Compiles the version. If it is new, also starts an instance, which the first event gets.
fn load(
    given_up: &GivenUp,
    name: &str,
    bytes: &[u8],
    settings: Settings,
    is_new: bool,
) -> Result<ComponentPublisher, String> {
    let publisher = ComponentPublisher::from_bytes_unless(given_up, name, bytes, settings);
    let publisher = publisher.map_err(|error| error.to_string())?;
    if !is_new {
        return Ok(publisher);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    runtime.block_on(publisher.warm_up()).map_err(|refused| refused.outcome.reason().to_owned())?;
    Ok(publisher)
}
