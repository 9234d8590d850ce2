//! What is checked after each death of a relay: which events it may have made come again.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::death::Death;
use super::ledger::Seen;
use super::point::Point;

/// The most settled entries whose commit a relay awaits, plus its calls under way: what `UNACKED_MAX` in `relay.rs` and
/// its concurrency say.
const UNREMOVED_MAX: usize = 4_096 + 8;

/// The relays that have lived and died so far.
#[derive(Default)]
pub struct Lives {
    delivered: HashSet<Uuid>,
    /// The events that were delivered, and were still in the outbox when the last relay died: only these may come again.
    may_come_again: HashSet<Uuid>,
    pub deaths: usize,
    pub duplicates: usize,
    /// For each death, how many events were delivered by that relay, and not removed.
    pub unremoved: Vec<usize>,
    pub list: Vec<String>,
}

impl Lives {
    /// A relay has died, which made these deliveries. `pending` are the events that are in the outbox now.
    pub fn ended(&mut self, death: Death, life: &[Seen], pending: &HashSet<Uuid>) {
        check_life(life);
        let (again, first): (Vec<&Seen>, Vec<&Seen>) =
            life.iter().partition(|seen| self.delivered.contains(&seen.uuid));
        for seen in &again {
            let removed = !self.may_come_again.contains(&seen.uuid);
            assert!(!removed, "came again, although it had been removed from the outbox: {seen:?}");
        }
        self.duplicates += again.len();
        self.delivered.extend(first.iter().map(|seen| seen.uuid));
        self.may_come_again = pending.intersection(&self.delivered).copied().collect();

        let unremoved = life.iter().filter(|seen| pending.contains(&seen.uuid)).count();
        assert!(unremoved <= UNREMOVED_MAX, "{unremoved} delivered events are still in the outbox: {death}");
        check_death(death, life.len(), unremoved);
        self.deaths += 1;
        self.unremoved.push(unremoved);
        self.list.push(format!("{death}: {unremoved} of {}", life.len()));
    }

    /// The events that may still come again.
    pub fn may_come_again(&self) -> &HashSet<Uuid> {
        &self.may_come_again
    }
}

/// One relay delivers each event once, as long as the destination takes it, and each stream in order.
pub fn check_life(life: &[Seen]) {
    let mut delivered = HashSet::new();
    let mut last: HashMap<&str, &Seen> = HashMap::new();
    for seen in life {
        assert!(delivered.insert(seen.uuid), "delivered twice by one relay: {seen:?}");
        if let Some(before) = last.insert(&seen.stream, seen) {
            let in_order = before.sequence < seen.sequence && before.position < seen.position;
            assert!(in_order, "out of order: {before:?} came before {seen:?}");
        }
    }
}

/// The points are where their names say, as can be seen at the first pass of each.
fn check_death(death: Death, delivered: usize, unremoved: usize) {
    let Death::At(point, 1) = death else { return };
    match point {
        Point::Published => assert!(delivered >= 1 && unremoved == delivered, "{death}: {unremoved} of {delivered}"),
        // What is committed first may be what the relay found out about its predecessor's death.
        Point::BeforeCommit => assert_eq!(unremoved, delivered, "{death}"),
        Point::Committed => {}
        Point::Claimed | Point::BeforeMark | Point::Marked | Point::BeforePublish => {
            assert_eq!(delivered, 0, "{death}")
        }
        Point::BeforeClear | Point::Cleared => assert_eq!(delivered, 0, "{death}"),
    }
}
