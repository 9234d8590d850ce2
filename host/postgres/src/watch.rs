//! Notices what others commit, by looking: at the last position that was given, and at what counts operators' acts.
//!
//! A position is given before its transaction commits. The reader finds the gap, and looks at it until that transaction has
//! ended.

use std::time::{Duration, Instant};

use outbox_engine::outbox::Watch;

use super::link::Link;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(4);

const LOOK: &str = "
    SELECT last_value, is_called, (SELECT sum(value)::bigint FROM outbox_meta
                                   WHERE key IN ('generation', 'registry_generation')) FROM outbox_position_seq";

/// Watches an outbox, on a connection of its own.
pub(super) struct Polling {
    link: Link,
    seen: Option<(i64, bool, Option<i64>)>,
}

impl Polling {
    pub(super) fn new(link: Link) -> Self {
        let mut watch = Self { link, seen: None };
        watch.seen = watch.look();
        watch
    }

    fn look(&mut self) -> Option<(i64, bool, Option<i64>)> {
        let row = self.link.first(LOOK, &[]).ok()??;
        Some((row.try_get(0).ok()?, row.try_get(1).ok()?, row.try_get(2).ok()?))
    }

    fn changed(&mut self) -> bool {
        let now = self.look();
        now != std::mem::replace(&mut self.seen, now)
    }
}

impl Watch for Polling {
    fn wait(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            if self.changed() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(PAUSE.min(left));
        }
    }
}
