//! How much each publisher may have in memory, so that a slow one does not take the room of the others.
//!
//! A publisher whose part is used up makes the reader wait, but only for an instant: a fast one has room again by then. If
//! it has not, the reader passes over its entries, and reads on for the others.

use std::time::{Duration, Instant};

use super::job::Load;
use crate::publishers::PublisherSet;

/// The most entries that are read and not yet published, and the most bytes of them, of all publishers together; a page may
/// exceed it.
pub(super) const IN_MEMORY: Load = Load { entries: 2_048, bytes: 16 * 1024 * 1024 };
/// The smallest part of a publisher: a job.
const PART_MIN: Load = Load { entries: 64, bytes: 256 * 1024 };
/// How long the reader waits for a publisher whose part is used up.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);

/// The parts of all publishers.
#[derive(Debug)]
pub(super) struct Bulkheads {
    parts: Vec<Part>,
    max: Load,
    /// Whether the reader may pass over entries. A pass reads everything once, and a single publisher has no others.
    passes_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Free,
    UsedUp {
        since: Instant,
    },
    /// The reader passes over its entries, until half of the part is free.
    PassedOver,
}

/// The part of each of so many publishers.
pub(super) fn part_of(publishers: usize) -> Load {
    let part = |all: usize, min: usize| (all / publishers.max(1)).max(min);
    Load { entries: part(IN_MEMORY.entries, PART_MIN.entries), bytes: part(IN_MEMORY.bytes, PART_MIN.bytes) }
}

impl Bulkheads {
    pub(super) fn new(publishers: usize, in_pass: bool) -> Self {
        Self { parts: vec![Part::Free; publishers], max: part_of(publishers), passes_over: !in_pass && publishers > 1 }
    }

    /// How much each publisher may have in memory.
    pub(super) fn part(&self) -> Load {
        self.max
    }

    /// Takes in how much each publisher has in memory.
    pub(super) fn update(&mut self, now: Instant, load: impl Fn(usize) -> Load) {
        for (leg, part) in self.parts.iter_mut().enumerate() {
            let load = load(leg);
            let is_used_up = load.entries >= self.max.entries || load.bytes >= self.max.bytes;
            let is_half_free = load.entries <= self.max.entries / 2 && load.bytes <= self.max.bytes / 2;
            *part = match *part {
                Part::UsedUp { since } if is_used_up && self.passes_over && now >= since + PATIENCE => Part::PassedOver,
                Part::Free if is_used_up => Part::UsedUp { since: now },
                Part::UsedUp { .. } if !is_used_up => Part::Free,
                Part::PassedOver if is_half_free => Part::Free,
                unchanged => unchanged,
            };
        }
    }

    /// The publishers whose entries the reader passes over.
    pub(super) fn full(&self) -> PublisherSet {
        let full = self.parts.iter().enumerate().filter(|(_, part)| **part == Part::PassedOver);
        full.fold(PublisherSet::NONE, |full, (leg, _)| full | PublisherSet::one(leg))
    }

    /// Whether the reader waits for a publisher to have room.
    pub(super) fn makes_wait(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::UsedUp { .. }))
    }

    /// How many more entries a publisher that has this much in memory may have.
    pub(super) fn room(&self, load: Load) -> usize {
        if load.bytes >= self.max.bytes { 0 } else { self.max.entries.saturating_sub(load.entries) }
    }

    /// When the reader has waited for long enough. None if it does not wait, or waits for room alone.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let since = self.parts.iter().filter_map(|part| match part {
            Part::UsedUp { since } if self.passes_over => Some(*since + PATIENCE),
            _ => None,
        });
        since.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(entries: usize) -> Load {
        Load { entries, bytes: entries }
    }

    #[test]
    fn a_publisher_that_has_room_again_soon_is_waited_for() {
        let (now, mut bulkheads) = (Instant::now(), Bulkheads::new(2, false));
        let full = bulkheads.max.entries;
        bulkheads.update(now, |leg| load([full, 0][leg]));
        assert!(bulkheads.makes_wait());
        assert_eq!((bulkheads.wake_at(), bulkheads.full()), (Some(now + PATIENCE), PublisherSet::NONE));
        bulkheads.update(now + PATIENCE / 2, |leg| load([full - 1, 0][leg]));
        assert!(!bulkheads.makes_wait());
    }

    #[test]
    fn a_slow_publisher_is_passed_over_until_half_of_its_part_is_free() {
        let (now, mut bulkheads) = (Instant::now(), Bulkheads::new(2, false));
        let full = bulkheads.max.entries;
        let later = |after: u32| now + PATIENCE * after;
        bulkheads.update(now, |leg| load([0, full][leg]));
        bulkheads.update(later(1), |leg| load([0, full][leg]));
        assert_eq!((bulkheads.full(), bulkheads.makes_wait()), (PublisherSet::one(1), false));
        bulkheads.update(later(2), |leg| load([0, full / 2 + 1][leg]));
        assert_eq!(bulkheads.full(), PublisherSet::one(1));
        bulkheads.update(later(3), |leg| load([0, full / 2][leg]));
        assert_eq!(bulkheads.full(), PublisherSet::NONE);
    }

    #[test]
    fn a_pass_and_a_single_publisher_wait() {
        for mut bulkheads in [Bulkheads::new(2, true), Bulkheads::new(1, false)] {
            let (now, full) = (Instant::now(), bulkheads.max.entries);
            bulkheads.update(now, |_| load(full));
            bulkheads.update(now + PATIENCE, |_| load(full));
            assert!(bulkheads.makes_wait());
            assert_eq!((bulkheads.full(), bulkheads.wake_at()), (PublisherSet::NONE, None));
        }
    }

    #[test]
    fn all_parts_together_are_no_more_than_one_publisher_may_have() {
        let max = |publishers| Bulkheads::new(publishers, false).max;
        assert_eq!(max(1), IN_MEMORY);
        assert!((1..=32).all(|publishers| max(publishers).entries * publishers <= IN_MEMORY.entries));
        assert!((1..=64).all(|publishers| max(publishers).bytes * publishers <= IN_MEMORY.bytes));
        assert_eq!(max(64).entries, PART_MIN.entries);
    }

    #[test]
    fn the_bytes_count_too() {
        let (now, mut bulkheads) = (Instant::now(), Bulkheads::new(2, false));
        let large = Load { entries: 1, bytes: bulkheads.max.bytes };
        bulkheads.update(now, |_| large);
        assert!(bulkheads.makes_wait());
        assert_eq!((bulkheads.room(large), bulkheads.room(load(10))), (0, bulkheads.max.entries - 10));
    }
}
