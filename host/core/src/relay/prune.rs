//! Old records: the acker deletes them between two groups.

use std::time::{Duration, Instant};

use super::channels::Channels;
use super::group::Order;
use super::session::{ORDERS_MAX, Session};
use crate::outbox::{Act, Pruned, StorageError};
use crate::text::shown;

/// How often old records are looked for.
const PRUNE_PAUSE: Duration = Duration::from_secs(60 * 60);

impl Session<'_> {
    pub(super) fn prune_when_due(&mut self, channels: &Channels, now: Instant) {
        let retention = self.context.options.retention;
        if self.prune_at.is_some_and(|at| now >= at) && self.orders_out < ORDERS_MAX {
            self.prune_at = None;
            self.orders_out += 1;
            let by = Act { who: "relay".into(), at: (self.context.clock)() };
            let _ = channels.orders.try_send(Order::Prune { retention, by });
        }
    }

    /// While there is more to prune, prunes again at once.
    pub(super) fn pruned(&mut self, pruned: Result<Pruned, StorageError>) {
        self.orders_out -= 1;
        let pause = match pruned {
            Ok(pruned) if pruned.total() > 0 => {
                tracing::info!(?pruned, "pruned old records");
                Duration::ZERO
            }
            Ok(_) => PRUNE_PAUSE,
            Err(error) => {
                tracing::warn!("cannot prune old records: {}", shown(&error));
                PRUNE_PAUSE
            }
        };
        self.prune_at = Some(Instant::now() + pause);
    }
}
