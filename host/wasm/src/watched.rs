//! A publisher whose file is watched, for its author: when the file's content changes, the new content is swapped in.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use outbox_engine::outbox::{Deployments, StorageError};
use outbox_engine::text::shown;
use outbox_engine::{Attempt, BoxFuture, Maintenance, Publisher, Recorded};
use parking_lot::{Mutex, RwLock};

use super::load_error::LoadError;
use super::loading::Loading;
use super::publisher::ComponentPublisher;
use super::settings::Settings;

/// How often to look at the file.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long a file must stay unchanged before it is read: its writer is then mostly done.
const QUIET: Duration = Duration::from_millis(200);
/// How long a file that is no publisher may still be incomplete, before the log reports it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A publisher in a file, which is read again whenever its content has changed.
///
/// A relay keeps it up to date ([`Publisher::maintain`]). If new content cannot be loaded, or its `configure` fails,
/// the log reports that, and the last content that worked goes on.
pub struct WatchedPublisher {
    path: PathBuf,
    name: String,
    settings: Settings,
    at_work: RwLock<Arc<ComponentPublisher>>,
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    seen: Option<Look>,
    since: Option<Instant>,
    /// How the file looked when it was last read.
    read: Option<Look>,
    loading: Option<Loading>,
    /// Why the last content cannot be used, until the log reports it.
    failed: Option<String>,
}

/// What can be seen of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    modified: SystemTime,
    /// The time of its last change, including its permissions: the relay may be allowed to read it only now.
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl WatchedPublisher {
    /// Loads the file for the first time, as [`ComponentPublisher::load`] does.
    ///
    /// # Errors
    ///
    /// As [`ComponentPublisher::load`].
    pub fn load(path: &Path, settings: Settings) -> Result<Self, LoadError> {
        let watch = Watch { read: look(path).ok(), ..Watch::default() };
        let publisher = ComponentPublisher::load(path, settings.clone())?;
        Ok(Self {
            path: path.to_owned(),
            name: publisher.name().to_owned(),
            settings,
            at_work: RwLock::new(Arc::new(publisher)),
            watch: Mutex::new(watch),
        })
    }

    /// The publisher that is at work now.
    pub fn at_work(&self) -> Arc<ComponentPublisher> {
        self.at_work.read().clone()
    }

    /// Begins to load the file when it has changed and is at rest.
    fn look(&self, watch: &mut Watch, now: Instant) {
        let Ok(found) = look(&self.path) else {
            // It is being replaced, or is gone: the last content goes on.
            watch.seen = None;
            return;
        };
        if watch.seen.replace(found) != Some(found) {
            watch.since = Some(now);
        }
        let quiet = watch.since.is_some_and(|since| now.duration_since(since) >= QUIET);
        if !quiet || watch.read == Some(found) || watch.loading.is_some() {
            return;
        }
        (watch.read, watch.failed) = (Some(found), None);
        match ComponentPublisher::read(&self.path, &self.settings.limits) {
            Ok(bytes) => watch.loading = Some(Loading::begin(&self.name, bytes, self.settings.clone(), true)),
            Err(error) => watch.failed = Some(error.to_string()),
        }
    }

    /// Takes in a loaded publisher. Returns whether another one publishes from now on.
    fn finish(&self, watch: &mut Watch, now: Instant) -> bool {
        let publisher = &*self.name;
        if let Some(result) = watch.loading.as_mut().and_then(Loading::result) {
            watch.loading = None;
            match result {
                Ok(found) if found.digest() == self.at_work().digest() => {
                    tracing::info!(publisher, "the file was written anew, with the same content");
                }
                Ok(found) => {
                    tracing::info!(publisher, digest = &**found.digest(), "the file has changed: swapped");
                    *self.at_work.write() = found;
                    return true;
                }
                Err(reason) => {
                    tracing::info!(publisher, "the file has changed, and cannot be loaded yet");
                    watch.failed = Some(reason);
                }
            }
        }
        let waited = watch.since.is_none_or(|since| now.duration_since(since) >= PATIENCE);
        if waited
            && watch.seen == watch.read
            && let Some(reason) = watch.failed.take()
        {
            tracing::error!(publisher, "the file has changed, and the last one goes on: {}", shown(&reason));
        }
        false
    }
}

fn look(path: &Path) -> io::Result<Look> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Ok(Look { modified: metadata.modified()?, changed, bytes: metadata.len(), inode: metadata.ino() })
}

impl Publisher for WatchedPublisher {
    fn publish<'a>(&'a self, event: &'a Recorded) -> BoxFuture<'a, Attempt> {
        let publisher = self.at_work();
        Box::pin(async move { publisher.publish_one(event).await })
    }

    fn publish_batch<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Vec<Attempt>> {
        let publisher = self.at_work();
        Box::pin(async move { publisher.publish_batch(events).await })
    }

    fn max_batch(&self) -> usize {
        self.at_work().max_batch()
    }

    fn maintain(&self, _deployments: &dyn Deployments, _now: Timestamp) -> Result<Maintenance, StorageError> {
        let (mut watch, now) = (self.watch.lock(), Instant::now());
        self.look(&mut watch, now);
        let swapped = self.finish(&mut watch, now);
        Ok(Maintenance { swapped, ready: true, again: Some(LOOK_PAUSE), ..Maintenance::default() })
    }
}

impl fmt::Debug for WatchedPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedPublisher").field("path", &self.path).field("at_work", &self.at_work()).finish()
    }
}
