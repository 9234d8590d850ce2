//! Positions that were given, and that nobody could see when the reader passed them: their transactions had not committed,
//! or never will. Positions are not in the order of commits.
//!
//! Who inserts holds a lock on the table, from before it gets a position until after its commit can be seen. So who held
//! such a lock after the reader had passed a gap may still fill it; when one of them has gone, the gap is looked at again;
//! when all have gone, it stays empty for good. Other transactions, however long, hold nothing up.

use std::collections::{BTreeSet, HashSet};

/// The most ranges that are watched. Beyond, the oldest are left to the reader's look through everything.
const RANGES_MAX: usize = 4_096;

/// Who holds a lock on the table, as `pg_locks` calls them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holders {
    pub(super) running: BTreeSet<String>,
    /// Transactions that are prepared for two-phase commit: they get another name when they are.
    pub(super) prepared: BTreeSet<String>,
}

impl Holders {
    fn has(&self, name: &str) -> bool {
        self.running.contains(name) || self.prepared.contains(name)
    }

    fn all(&self) -> BTreeSet<String> {
        self.running.union(&self.prepared).cloned().collect()
    }
}

/// First and last position.
pub(super) type Range = (i64, i64);

#[derive(Debug)]
struct Group {
    ranges: Vec<Range>,
    /// Who may still fill it. None until it was looked at for the first time.
    may_fill: Option<BTreeSet<String>>,
}

/// The gaps that may still be filled.
#[derive(Debug)]
pub(super) struct Gaps {
    groups: Vec<Group>,
    /// Up to here, whatever was to be committed was committed before the reader came.
    decided: i64,
    /// Up to this position everything is decided once these have gone.
    deciding: Option<(i64, BTreeSet<String>)>,
}

impl Gaps {
    pub(super) fn new() -> Self {
        Self { groups: Vec::new(), decided: i64::MIN, deciding: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Takes in that a reader saw these positions, in order, and no others from `first` to `last`.
    pub(super) fn passed(&mut self, first: i64, last: i64, seen: impl IntoIterator<Item = i64>) {
        // The sequence starts at 1.
        let mut next = first.max(self.decided.saturating_add(1)).max(1);
        let mut ranges = Vec::new();
        for position in seen {
            if position > next {
                ranges.push((next, position.saturating_sub(1)));
            }
            next = next.max(position.saturating_add(1));
        }
        if last >= next {
            ranges.push((next, last));
        }
        if !ranges.is_empty() {
            self.groups.push(Group { ranges, may_fill: None });
        }
        let mut watched: usize = self.groups.iter().map(|group| group.ranges.len()).sum();
        while watched > RANGES_MAX && self.groups.len() > 1 {
            watched -= self.groups.remove(0).ranges.len();
        }
    }

    /// Takes in who held a lock, and which position was the last that was given just before. Call this before the ranges
    /// of [`to_look_at`](Self::to_look_at) are read.
    pub(super) fn held_by(&mut self, last_given: i64, holders: &Holders) {
        let decided = match &mut self.deciding {
            Some((_, by)) => {
                *by = remaining(by, holders);
                by.is_empty()
            }
            None => {
                self.deciding = Some((last_given, holders.all()));
                holders.all().is_empty()
            }
        };
        if decided && let Some((position, _)) = self.deciding.take() {
            self.decided = self.decided.max(position);
        }
    }

    /// The ranges that somebody may have filled since they were last looked at, in order.
    pub(super) fn to_look_at(&self, holders: &Holders) -> Vec<Range> {
        self.ranges(|group| group.may_fill.as_ref().is_none_or(|by| by.iter().any(|name| !holders.has(name))))
    }

    /// All ranges, in order.
    pub(super) fn all(&self) -> Vec<Range> {
        self.ranges(|_| true)
    }

    fn ranges(&self, which: impl Fn(&Group) -> bool) -> Vec<Range> {
        let mut ranges: Vec<Range> =
            self.groups.iter().filter(|group| which(group)).flat_map(|group| group.ranges.iter().copied()).collect();
        ranges.sort_unstable();
        ranges
    }

    /// Takes in that these ranges were read after `holders` were, and that these positions were there.
    pub(super) fn looked_at(&mut self, ranges: &[Range], holders: &Holders, found: &HashSet<i64>) {
        for group in &mut self.groups {
            if !group.ranges.iter().all(|range| ranges.binary_search(range).is_ok()) {
                continue;
            }
            group.may_fill = Some(match &group.may_fill {
                Some(by) => remaining(by, holders),
                None => holders.all(),
            });
            if !found.is_empty() {
                group.ranges = group.ranges.iter().flat_map(|range| without(*range, found)).collect();
            }
        }
        self.groups.retain(|group| !group.ranges.is_empty() && group.may_fill.as_ref().is_none_or(|by| !by.is_empty()));
    }
}

/// Those that are still there. Where one has gone, it may be among those that are prepared by now.
fn remaining(by: &BTreeSet<String>, holders: &Holders) -> BTreeSet<String> {
    let mut still: BTreeSet<String> = by.iter().filter(|name| holders.has(name)).cloned().collect();
    if still.len() < by.len() {
        still.extend(holders.prepared.iter().cloned());
    }
    still
}

/// What is left of a range without these positions.
fn without((first, last): Range, found: &HashSet<i64>) -> Vec<Range> {
    let mut inside: Vec<i64> = found.iter().copied().filter(|it| (first..=last).contains(it)).collect();
    inside.sort_unstable();
    let (mut left, mut next) = (Vec::new(), first);
    for position in inside {
        if position > next {
            left.push((next, position.saturating_sub(1)));
        }
        next = position.saturating_add(1);
    }
    if next <= last {
        left.push((next, last));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(running: &[&str], prepared: &[&str]) -> Holders {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Holders { running: set(running), prepared: set(prepared) }
    }

    fn look(gaps: &mut Gaps, holders: &Holders, found: &[i64]) -> Vec<Range> {
        let ranges = gaps.to_look_at(holders);
        gaps.looked_at(&ranges, holders, &found.iter().copied().collect());
        ranges
    }

    #[test]
    fn a_gap_is_looked_at_whenever_somebody_who_may_fill_it_has_gone() {
        let mut gaps = Gaps::new();
        gaps.passed(1, 9, [1, 2, 5, 9]);
        assert_eq!(look(&mut gaps, &holders(&["a", "b"], &[]), &[]), [(3, 4), (6, 8)], "once in any case");
        assert_eq!(look(&mut gaps, &holders(&["a", "b", "c"], &[]), &[]), []);
        assert_eq!(look(&mut gaps, &holders(&["b"], &[]), &[3, 7]), [(3, 4), (6, 8)]);
        assert_eq!(gaps.all(), [(4, 4), (6, 6), (8, 8)]);
        assert_eq!(look(&mut gaps, &holders(&["c"], &[]), &[]).len(), 3);
        assert!(gaps.is_empty(), "those who could fill it have gone");
    }

    #[test]
    fn who_is_prepared_gets_another_name() {
        let mut gaps = Gaps::new();
        gaps.passed(1, 2, [2]);
        look(&mut gaps, &holders(&["a"], &[]), &[]);
        assert_eq!(look(&mut gaps, &holders(&[], &["-1/7"]), &[]), [(1, 1)]);
        assert!(!gaps.is_empty());
        assert_eq!(look(&mut gaps, &holders(&[], &[]), &[1]), [(1, 1)]);
        assert!(gaps.is_empty());
    }

    #[test]
    fn what_was_decided_before_the_reader_came_is_no_gap() {
        let mut gaps = Gaps::new();
        gaps.held_by(100, &holders(&[], &[]));
        gaps.passed(i64::MIN, 90, [10, 90]);
        assert!(gaps.is_empty());
        gaps.passed(91, 110, [110]);
        assert_eq!(gaps.all(), [(101, 109)]);
        gaps.held_by(110, &holders(&["a"], &[]));
        gaps.held_by(120, &holders(&["a", "b"], &[]));
        gaps.held_by(130, &holders(&["b"], &[]));
        assert_eq!(gaps.decided, 110);
    }

    #[test]
    fn only_so_many_ranges_are_watched() {
        let mut gaps = Gaps::new();
        for first in 0..10 {
            gaps.passed(first * 2_000 + 1, first * 2_000 + 2_000, (0..1_000).map(|it| first * 2_000 + 2 * it + 2));
        }
        assert_eq!(gaps.all().len(), 4_000);
        assert_eq!(gaps.all()[0], (12_001, 12_001), "the oldest are left out");
    }
}
