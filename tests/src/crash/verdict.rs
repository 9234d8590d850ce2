//! The checks at the end: everything that was committed, and nothing else, was delivered, in order.

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

/// By first deliveries, each stream came in order; only events that were set aside may be missing.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn written(number: i64) -> Written {
        Written { uuid: Uuid::from_u128(number as u128), stream: "a".into(), sequence: number }
    }

    /// Numbers 1 to 3 were committed, 4 was rolled back; these were delivered.
    fn deliver(numbers: &[i64]) {
        let truth = [
            Transaction { committed: true, events: (1..4).map(written).collect() },
            Transaction { committed: false, events: vec![written(4)] },
        ];
        let seen = |written: Written| Seen {
            at_ns: 0,
            due_ns: None,
            relay: "/relay-1".into(),
            uuid: written.uuid,
            name: "thing.changed".into(),
            stream: written.stream,
            sequence: written.sequence,
            position: 1,
            attempt: 1,
        };
        let seen: Vec<Seen> = numbers.iter().map(|number| seen(written(*number))).collect();
        check(&truth, &seen, &HashSet::new());
    }

    #[test]
    fn all_in_order_is_fine_and_so_are_duplicates() {
        deliver(&[1, 2, 3]);
        deliver(&[1, 2, 1, 2, 3, 3]);
    }

    #[test]
    #[should_panic(expected = "1 committed events were lost")]
    fn a_loss_is_seen() {
        deliver(&[1, 2]);
    }

    #[test]
    #[should_panic(expected = "it was rolled back")]
    fn what_was_rolled_back_is_seen() {
        deliver(&[1, 2, 3, 4]);
    }

    #[test]
    #[should_panic(expected = "never committed")]
    fn what_nobody_wrote_is_seen() {
        deliver(&[1, 2, 3, 5]);
    }

    #[test]
    #[should_panic(expected = "out of order: number 3 of a came after number 1")]
    fn disorder_is_seen() {
        deliver(&[1, 3, 2]);
    }
}
