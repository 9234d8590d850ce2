//! A version on its way from bytes to a publisher that has been configured, on a thread of its own that nobody has to wait
//! for: compiling takes its time, and so may a guest's `configure`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use super::compiler::GivenUp;
use super::publisher::ComponentPublisher;
use super::settings::Settings;

/// A version that is being loaded. When this is dropped nobody waits for it any more, and it is not compiled to its end.
pub(super) struct Loading {
    given_up: GivenUp,
    result: Option<Loaded>,
    coming: Receiver<Loaded>,
}

type Loaded = Result<Arc<ComponentPublisher>, String>;

impl Loading {
    /// A new one has to show that it can start, with its `configure`.
    pub(super) fn begin(name: &str, bytes: Vec<u8>, settings: Settings, is_new: bool) -> Self {
        let (done, coming) = sync_channel(1);
        let (name, given_up) = (name.to_owned(), GivenUp::default());
        let unless = given_up.clone();
        let load = move || {
            // Nobody listens any more where another version was asked for meanwhile.
            let _ = done.send(load(&unless, &name, &bytes, settings, is_new).map(Arc::new));
        };
        // Where there is no thread, its end of the channel is gone, which `result` tells.
        let _ = thread::Builder::new().name("outbox-load".into()).spawn(load);
        Self { given_up, result: None, coming }
    }

    /// The publisher, or why there is none; none while it is not known yet.
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

/// Compiles it; of a new one it starts an instance too, which the first event will have.
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
