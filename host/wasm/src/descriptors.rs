//! Shares out the file descriptors among publishers: each connection, socket and look-up needs one, and the process has
//! only a limited number for everything.

use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

/// The most descriptors that are reserved for the rest of the process: the database, the log, threads.
const RESERVE_MAX: u64 = 256;
/// The number to share if the process has no limit.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// What each publisher may have in any case, if need be from the reserve, since others may have taken the rest.
const GUARANTEED: usize = 4;

/// The descriptors that all publishers of a process share.
pub(super) struct Descriptors {
    max: usize,
    taken: Mutex<usize>,
    freed: Notify,
}

impl Descriptors {
    /// The descriptors of this process, by its limit at the first call.
    pub(super) fn of_process() -> Arc<Self> {
        static OF_PROCESS: LazyLock<Arc<Descriptors>> = LazyLock::new(|| Arc::new(Descriptors::new(budget())));
        OF_PROCESS.clone()
    }

    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Mutex::new(0), freed: Notify::new() }
    }

    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken.lock()
    }
}

/// The soft limit without the reserve, which is at most half of it.
fn budget() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    usize::try_from(limit - RESERVE_MAX.min(limit / 2)).unwrap_or(usize::MAX)
}

/// One publisher's share. It is never more than what is left for all others, so however many publishers take all that
/// they can get, the next one still finds some.
pub(super) struct Share {
    process: Arc<Descriptors>,
    max: usize,
    mine: Mutex<usize>,
}

impl Share {
    /// A share of at most `max`.
    pub(super) fn new(process: Arc<Descriptors>, max: usize) -> Arc<Self> {
        Arc::new(Self { process, max, mine: Mutex::new(0) })
    }

    /// Takes one descriptor, if there is one left.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Descriptor> {
        let mut taken = self.process.taken();
        let mut mine = self.mine();
        let left = self.process.max.saturating_sub(*taken);
        if *mine >= self.max.min(left.max(GUARANTEED)) {
            return None;
        }
        (*taken, *mine) = (*taken + 1, *mine + 1);
        Some(Descriptor(self.clone()))
    }

    /// Waits for one.
    pub(super) async fn take(self: &Arc<Self>) -> Descriptor {
        loop {
            // Registered before looking, so that no descriptor that is freed in between is missed.
            let freed = self.process.freed.notified();
            if let Some(descriptor) = self.try_take() {
                return descriptor;
            }
            freed.await;
        }
    }

    fn mine(&self) -> MutexGuard<'_, usize> {
        self.mine.lock()
    }
}

/// Permission for one open descriptor, given back on drop.
pub(super) struct Descriptor(Arc<Share>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Share { process, .. } = &*self.0;
        let mut taken = process.taken();
        *taken = taken.saturating_sub(1);
        let mut mine = self.0.mine();
        *mine = mine.saturating_sub(1);
        drop((taken, mine));
        process.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greedy(process: &Arc<Descriptors>, max: usize) -> (Arc<Share>, Vec<Descriptor>) {
        let share = Share::new(process.clone(), max);
        let taken = std::iter::from_fn(|| share.try_take()).collect();
        (share, taken)
    }

    #[test]
    fn however_many_take_what_they_can_get_the_next_one_finds_something() {
        let process = Arc::new(Descriptors::new(768));
        let taken: Vec<_> = (0..20).map(|_| greedy(&process, 256)).collect();
        let counts: Vec<usize> = taken.iter().map(|(_, taken)| taken.len()).collect();
        assert_eq!(counts.first(), Some(&256));
        assert!(counts.iter().all(|count| *count >= GUARANTEED), "{counts:?}");
        assert!(*process.taken() < 768 + 20 * GUARANTEED);
        drop(taken);
        assert_eq!(*process.taken(), 0);
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back() {
        let process = Arc::new(Descriptors::new(1_000));
        let (share, mut taken) = greedy(&process, 2);
        let (one, other) = (
            tokio::spawn({
                let share = share.clone();
                async move { share.take().await }
            }),
            share.take(),
        );
        taken.clear();
        let (one, _other) = tokio::join!(one, other);
        assert!(one.is_ok() && share.try_take().is_none());
    }
}
