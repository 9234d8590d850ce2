//! Work that takes as long as a stranger's module wants it to: the compiler cannot be interrupted, but it can be left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Compiling recurses with the module's nesting; this is reserved, and taken only where it is used.
pub(super) const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// It was not done in time, and goes on unwatched.
    TimedOut,
    /// It panicked.
    Panicked,
    /// There are no threads to do it.
    NoThreads,
}

/// Does `work` on threads of its own and waits for it, at most for `limit`. The compiler spreads over the pool that it
/// is called in: in the one that all share, work that was given up would hold up whatever is compiled next.
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
    // The pool ends with its last piece of work, whether or not somebody still holds it.
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
