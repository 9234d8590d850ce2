//! The end of a session: calls under way may end, entries whose call has not begun stay in the outbox, and settled
//! entries are committed.

use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};

use super::answers::Finished;
use super::channels::Channels;
use super::session::Session;
use super::stop::{StopLevel, Stopping};
use crate::text::shown;

/// The shortest time for the last commits.
const COMMIT_GRACE_MIN: Duration = Duration::from_secs(2);
/// The time for what must be done even in an immediate stop.
const LAST_GRACE: Duration = Duration::from_millis(500);

impl Session<'_> {
    pub(super) fn shut_down(&mut self, channels: &Channels, stopping: &Stopping) {
        let until = Instant::now() + self.context.options.shutdown_grace;
        for queue in &channels.jobs {
            queue.close();
            while let Some(job) = queue.taken.try_next(true) {
                self.settle_job(Finished::untried(job));
            }
        }
        // A stage that has ended does nothing more.
        let is_over = |session: &mut Self| session.broken || session.lanes.running() == 0;
        self.wait(channels, stopping, until, StopLevel::Drain, is_over);
        if self.lanes.running() > 0 {
            tracing::warn!("{} calls did not end in time: cut off, and not counted", shown(self.lanes.running()));
        }
        channels.give_up_calls.close();
        self.wait(channels, stopping, Instant::now() + LAST_GRACE, StopLevel::Now, is_over);
        self.commit_the_rest(channels, stopping, until.max(Instant::now() + COMMIT_GRACE_MIN), StopLevel::Drain);
        self.commit_the_rest(channels, stopping, Instant::now() + LAST_GRACE, StopLevel::Now);
        if self.lanes.unacked() > 0 {
            let unacked = self.lanes.unacked();
            tracing::error!(
                "{} settled entries could not be committed: what was delivered will come again",
                shown(unacked)
            );
        }
    }

    fn commit_the_rest(&mut self, channels: &Channels, stopping: &Stopping, until: Instant, level: StopLevel) {
        self.wait(channels, stopping, until, level, |session| {
            session.commit_what_is_settled(channels, Instant::now());
            session.broken || (session.orders_out == 0 && session.group.settled.is_empty())
        });
    }

    /// Takes in messages until `done`, at most until `until`, and only while the stop is no more urgent than `level`.
    fn wait(
        &mut self,
        channels: &Channels,
        stopping: &Stopping,
        until: Instant,
        level: StopLevel,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let time_is_up = after(until.saturating_duration_since(Instant::now()));
        while !done(self) && stopping.level() <= level {
            select! {
                recv(channels.inbox) -> message => match message {
                    Ok(message) => self.take_in(message),
                    Err(_) => return,
                },
                recv(stopping.woken()) -> _ => {}
                recv(time_is_up) -> _ => return,
            }
        }
    }
}
