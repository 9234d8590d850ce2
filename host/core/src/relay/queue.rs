//! The jobs of one publisher, on their way from the session to its callers.

use std::sync::Arc;

use async_channel::{Receiver, Sender, TrySendError};
use tokio::sync::{Mutex, MutexGuard};

use super::job::Job;

/// The session's end. Each entry in memory may be queued: how many there are is bounded there.
pub(super) struct JobQueue {
    /// The callers' end, also for taking back what has not begun.
    pub(super) taken: Taken,
}

/// However the session ends, its callers do too: they keep the way back open, so that nothing else would tell them.
impl Drop for JobQueue {
    fn drop(&mut self) {
        self.close();
    }
}

/// The callers' end. What must have a call of its own comes by itself, so that a caller that collects jobs for one call
/// does not meet it.
#[derive(Clone)]
pub(super) struct Taken {
    shared: Receiver<Job>,
    alone: Receiver<Job>,
    /// The way back: to the first, and to the second.
    back: [Sender<Job>; 2],
    /// Locked by the caller that waits for more jobs: others that did so too would take them from it.
    collecting: Arc<Mutex<()>>,
}

/// The right to wait for more jobs.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

impl JobQueue {
    pub(super) fn new() -> Self {
        let (to_shared, shared) = async_channel::unbounded();
        let (to_alone, alone) = async_channel::unbounded();
        Self { taken: Taken { shared, alone, back: [to_shared, to_alone], collecting: Arc::default() } }
    }

    /// Queues a job. Once the queue is closed, nothing is.
    pub(super) fn send(&self, job: Job) {
        let _ = self.taken.put_back(job);
    }

    /// Lets no job begin any more.
    pub(super) fn close(&self) {
        self.taken.shared.close();
        self.taken.alone.close();
    }
}

impl Taken {
    pub(super) fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Queues a job again. Returns it if the queue is closed.
    pub(super) fn put_back(&self, job: Job) -> Result<(), Job> {
        let [shared, alone] = &self.back;
        let queue = if job.alone { alone } else { shared };
        queue.try_send(job).map_err(TrySendError::into_inner)
    }

    /// A job that is there, preferably one of those that go alone.
    pub(super) fn try_next(&self, alone_first: bool) -> Option<Job> {
        let (first, second) = if alone_first { (&self.alone, &self.shared) } else { (&self.shared, &self.alone) };
        first.try_recv().or_else(|_| second.try_recv()).ok()
    }

    /// A job that is there, and does not go alone.
    pub(super) fn try_shared(&self) -> Option<Job> {
        self.shared.try_recv().ok()
    }

    /// Awaits a job. None once the queue is closed.
    pub(super) async fn next(&self) -> Option<Job> {
        tokio::select! {
            job = self.alone.recv() => job.ok(),
            job = self.shared.recv() => job.ok(),
        }
    }

    /// Awaits a job. One that does not go alone comes with the right to wait for more, which one caller has at a time.
    pub(super) async fn next_in_turn(&self) -> Option<(Job, Option<Turn<'_>>)> {
        let shared = async {
            let turn = self.collecting.lock().await;
            self.shared.recv().await.ok().map(|job| (job, Some(turn)))
        };
        tokio::select! {
            job = self.alone.recv() => job.ok().map(|job| (job, None)),
            job = shared => job,
        }
    }

    /// Awaits a job that does not go alone. None once the queue is closed.
    pub(super) async fn next_shared(&self) -> Option<Job> {
        self.shared.recv().await.ok()
    }
}
