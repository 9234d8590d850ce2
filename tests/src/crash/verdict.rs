//! What is checked at the end: everything that was committed, and nothing else, was delivered, in order.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::journal::{Transaction, Written};
use super::ledger::Seen;

/// Holds the deliveries against the writer's journal. `kept` are the events that were set aside.
pub fn check(truth: &[Transaction], seen: &[Seen], kept: &HashSet<Uuid>) {
    let events = |committed| truth.iter().filter(move |it| it.committed == committed).flat_map(|it| &it.events);
    let committed: HashMap<Uuid, &Written> = events(true).map(|event| (event.uuid, event)).collect();
    let rolled_back: HashSet<Uuid> = events(false).map(|event| event.uuid).collect();
    let delivered: HashSet<Uuid> = seen.iter().map(|seen| seen.uuid).collect();

    for seen in seen {
        assert!(!rolled_back.contains(&seen.uuid), "delivered, although it was rolled back: {seen:?}");
        let event = committed.get(&seen.uuid).unwrap_or_else(|| panic!("delivered, and never committed: {seen:?}"));
        assert_eq!((&event.stream, event.sequence), (&seen.stream, seen.sequence), "{event:?} was changed: {seen:?}");
    }
    let lost: Vec<&Written> =
        events(true).filter(|it| !delivered.contains(&it.uuid) && !kept.contains(&it.uuid)).collect();
    assert!(lost.is_empty(), "{} committed events were lost, the first is {:?}", lost.len(), lost[0]);
    check_order(seen, kept);
}

/// By first deliveries, each stream came in its order; only what was set aside may be missing.
pub fn check_order(seen: &[Seen], set_aside: &HashSet<Uuid>) {
    let mut known = HashSet::new();
    let mut last: HashMap<&str, i64> = HashMap::new();
    for seen in seen.iter().filter(|seen| known.insert(seen.uuid)) {
        let last = last.entry(&seen.stream).or_default();
        let missing = seen.sequence - *last - 1;
        let in_order = (0..=set_aside.len() as i64).contains(&missing);
        assert!(in_order, "out of order: number {} of {} came after number {last}", seen.sequence, seen.stream);
        *last = seen.sequence;
    }
}
