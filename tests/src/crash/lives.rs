//! The checks after each death of a relay: which events may come again.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use super::death::Death;
use super::ledger::Seen;
use super::point::Point;

/// The most settled entries that await their commit, plus the calls under way: `UNACKED_MAX` in `relay.rs`, and the
/// concurrency.
const UNREMOVED_MAX: usize = 4_096 + 8;

/// The relays that have lived and died so far.
#[derive(Default)]
pub struct Lives {
    delivered: HashSet<Uuid>,
    /// The events that were delivered, and were still in the outbox when the last relay died: only these may come again.
    may_come_again: HashSet<Uuid>,
    duplicates: usize,
    /// For each death, how many events that relay had delivered, and not removed, and within which time.
    unremoved: Vec<(usize, Duration)>,
}

impl Lives {
    /// A relay has died, which made these deliveries. `pending` are the events that are in the outbox now.
    pub fn ended(&mut self, death: Death, life: &[Seen], pending: &HashSet<Uuid>) {
        self.deliveries(life);
        self.may_come_again = pending.intersection(&self.delivered).copied().collect();
        let unremoved: Vec<&Seen> = life.iter().filter(|seen| pending.contains(&seen.uuid)).collect();
        let count = unremoved.len();
        assert!(count <= UNREMOVED_MAX, "{count} delivered events are still in the outbox: {death}");
        check_death(death, life.len(), count);
        let span = unremoved.last().map_or(0, |last| last.at_ns - unremoved[0].at_ns);
        self.unremoved.push((count, Duration::from_nanos(span)));
    }

    /// The last relay has ended in order, after these deliveries.
    pub fn ended_in_order(&mut self, life: &[Seen]) {
        self.deliveries(life);
    }

    /// An event that comes again was in the outbox at the last death: it had been delivered, but its removal was not
    /// committed.
    fn deliveries(&mut self, life: &[Seen]) {
        check_life(life);
        for seen in life.iter().filter(|seen| self.delivered.contains(&seen.uuid)) {
            let removed = !self.may_come_again.contains(&seen.uuid);
            assert!(!removed, "came again, although it had been removed from the outbox: {seen:?}");
            self.duplicates += 1;
        }
        self.delivered.extend(life.iter().map(|seen| seen.uuid));
    }
}

impl fmt::Display for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unremoved = self.unremoved.clone();
        unremoved.sort_unstable();
        let (deaths, duplicates) = (unremoved.len(), self.duplicates);
        let (most, within) = unremoved.last().copied().unwrap_or_default();
        let (median, _) = unremoved.get(deaths / 2).copied().unwrap_or_default();
        write!(f, "{deaths} kills, {duplicates} duplicates: {median} of one kill in the median, ")?;
        write!(f, "at most {most}, which had been delivered within {within:.0?}")
    }
}

/// One relay delivers each event once, as long as the destination takes it, and each stream in order.
pub fn check_life(life: &[Seen]) {
    let mut delivered = HashSet::new();
    let mut last: HashMap<&str, &Seen> = HashMap::new();
    for seen in life {
        assert!(delivered.insert(seen.uuid), "delivered twice by one relay: {seen:?}");
        if let Some(before) = last.insert(&seen.stream, seen) {
            // Its position says nothing of that: tables are rebuilt, and count from the start again.
            assert!(before.sequence < seen.sequence, "out of order: {before:?} came before {seen:?}");
        }
    }
}

/// The points are where their names say, as can be seen at the first pass of each.
fn check_death(death: Death, delivered: usize, unremoved: usize) {
    let Death::At(point, 1) = death else { return };
    match point {
        Point::Published => assert!(delivered >= 1 && unremoved == delivered, "{death}: {unremoved} of {delivered}"),
        // The first commit may be about the predecessor's death.
        Point::BeforeCommit => assert_eq!(unremoved, delivered, "{death}"),
        Point::Committed | Point::BeforeBringBack | Point::BroughtBack => {}
        Point::Claimed | Point::BeforeMark | Point::Marked | Point::BeforePublish => {
            assert_eq!(delivered, 0, "{death}")
        }
        Point::BeforeClear | Point::Cleared => assert_eq!(delivered, 0, "{death}"),
    }
}
