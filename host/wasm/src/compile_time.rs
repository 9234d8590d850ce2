//! Runs the compiler with a deadline. It cannot be interrupted: after a time-out its threads are abandoned.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// The stack of a compiling thread, since compiling recurses with the module's nesting. It is reserved, and takes
/// memory only as far as it is used.
pub(super) const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// It was not done in time; its threads are abandoned.
    TimedOut,
    /// It panicked.
    Panicked,
    /// No threads could be started.
    NoThreads,
}

/// Does `work` on threads of its own, and waits for it, at most for `limit`. The compiler spreads over the thread pool
/// in which it is called. In the shared pool, abandoned work would hold up the next compilation.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let pool = rayon::ThreadPoolBuilder::new()
        .thread_name(|_| "outbox-compile".into())
        .stack_size(STACK_BYTES)
        .build()
        .map_err(|_| Unfinished::NoThreads)?;
    let (sender, receiver) = sync_channel(1);
    pool.spawn(move || {
        // Nobody may be waiting any more.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    });
    // The pool ends with its last work, even if nobody holds it any more.
    match receiver.recv_timeout(limit) {
        Ok(done) => done.map_err(|_| Unfinished::Panicked),
        Err(RecvTimeoutError::Timeout) => Err(Unfinished::TimedOut),
        Err(RecvTimeoutError::Disconnected) => Err(Unfinished::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const AMPLE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_done_in_time_is_handed_over_and_a_panic_harms_nobody() {
        assert_eq!(within(AMPLE, || 42), Ok(42));
        assert_eq!(within(AMPLE, || panic!("no luck")), Err::<(), _>(Unfinished::Panicked));
    }

    #[test]
    fn what_is_not_done_in_time_is_left_and_holds_up_nothing_else() {
        let (release, released) = channel::<()>();
        let stuck = move || released.recv().is_err();
        assert_eq!(within(Duration::from_millis(20), stuck), Err(Unfinished::TimedOut));
        assert_eq!(within(AMPLE, || 42), Ok(42));
        drop(release);
    }
}
