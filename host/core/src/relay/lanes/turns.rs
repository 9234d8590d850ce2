//! What waits, in turns of tenants: each has a queue of its own, and the one that has had least is next.
//!
//! A tenant's turn is a virtual time. What it takes puts its next turn off, by less if its weight is larger. One that has
//! had nothing to do begins now: it gets nothing for the time before.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::stream::TenantKey;

/// With more tenants than this, those with nothing that waits are forgotten, with what they have had.
const KEPT_MAX: usize = 10_000;

/// Queues of tenants.
#[derive(Debug)]
pub(super) struct Turns<T> {
    now: u64,
    /// The tenants for whom something waits, by their turns.
    order: BTreeSet<(u64, TenantKey)>,
    tenants: HashMap<TenantKey, Queue<T>>,
    len: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    turn: u64,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { now: 0, order: BTreeSet::new(), tenants: HashMap::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, tenant: TenantKey, item: T) {
        let now = self.now;
        let queue = self.tenants.entry(tenant).or_insert_with(|| Queue { items: VecDeque::new(), turn: now });
        if queue.items.is_empty() {
            queue.turn = queue.turn.max(now);
            self.order.insert((queue.turn, tenant));
        }
        queue.items.push_back(item);
        self.len += 1;
    }

    /// The next of those tenants that may have a turn. What it takes is [charged](Self::charge).
    pub(super) fn pop(&mut self, may: impl Fn(TenantKey) -> bool) -> Option<(TenantKey, T)> {
        let next = *self.order.iter().find(|(_, tenant)| may(*tenant))?;
        let (turn, tenant) = next;
        // Those that had to let it go first do not make up for that.
        let passed: Vec<_> = self.order.range(..next).copied().filter(|(before, _)| *before < turn).collect();
        passed.into_iter().for_each(|(_, passed)| self.put_off(passed, turn));
        self.now = self.now.max(turn);
        let queue = self.tenants.get_mut(&tenant)?;
        let item = queue.items.pop_front()?;
        if queue.items.is_empty() {
            self.order.remove(&next);
        }
        self.len -= 1;
        if self.is_empty() || self.tenants.len() > KEPT_MAX + self.order.len() {
            self.tenants.retain(|_, queue| !queue.items.is_empty());
        }
        Some((tenant, item))
    }

    /// Puts a tenant's next turn off.
    pub(super) fn charge(&mut self, tenant: TenantKey, cost: u64) {
        if let Some(queue) = self.tenants.get(&tenant) {
            self.put_off(tenant, queue.turn.saturating_add(cost));
        }
    }

    fn put_off(&mut self, tenant: TenantKey, to: u64) {
        let Some(queue) = self.tenants.get_mut(&tenant) else { return };
        let from = std::mem::replace(&mut queue.turn, to);
        if self.order.remove(&(from, tenant)) {
            self.order.insert((to, tenant));
        }
    }

    /// Whether something waits of a tenant that may have a turn.
    pub(super) fn any(&self, may: impl Fn(TenantKey) -> bool) -> bool {
        self.order.iter().any(|(_, tenant)| may(*tenant))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.tenants.values().flat_map(|queue| &queue.items)
    }

    /// Sorts each tenant's queue.
    pub(super) fn sort_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        self.tenants.values_mut().for_each(|queue| queue.items.make_contiguous().sort_unstable_by_key(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantKey = TenantKey(1);
    const B: TenantKey = TenantKey(2);

    fn taken(turns: &mut Turns<u32>, number: usize, cost: impl Fn(TenantKey) -> u64) -> Vec<TenantKey> {
        let next = |_| {
            let (tenant, _) = turns.pop(|_| true)?;
            turns.charge(tenant, cost(tenant));
            Some(tenant)
        };
        (0..number).map_while(next).collect()
    }

    #[test]
    fn a_tenant_that_comes_later_is_next_and_then_they_take_turns() {
        let mut turns = Turns::default();
        (0..1_000).for_each(|item| turns.push(A, item));
        assert_eq!(taken(&mut turns, 10, |_| 1), [A; 10]);
        (0..3).for_each(|item| turns.push(B, item));
        let next = taken(&mut turns, 8, |_| 1);
        assert_eq!(next.iter().filter(|tenant| **tenant == B).count(), 3);
        assert!(next[..2].contains(&B), "{next:?}");
        assert_eq!(turns.len(), 985);
    }

    #[test]
    fn who_takes_more_at_once_or_weighs_less_has_fewer_turns() {
        let mut turns = Turns::default();
        (0..100).for_each(|item| [A, B].into_iter().for_each(|tenant| turns.push(tenant, item)));
        let next = taken(&mut turns, 50, |tenant| if tenant == A { 1 } else { 4 });
        assert_eq!(next.iter().filter(|tenant| **tenant == B).count(), 10);
    }

    #[test]
    fn one_that_may_not_have_a_turn_is_passed_over_and_makes_up_for_nothing() {
        let mut turns = Turns::default();
        (0..100).for_each(|item| [A, B].into_iter().for_each(|tenant| turns.push(tenant, item)));
        for _ in 0..50 {
            let (tenant, _) = turns.pop(|tenant| tenant == B).unwrap();
            turns.charge(tenant, 1);
        }
        assert!(turns.pop(|_| false).is_none());
        let next = taken(&mut turns, 10, |_| 1);
        assert!(next.iter().filter(|tenant| **tenant == A).count() <= 6, "{next:?}");
    }

    #[test]
    fn a_queue_keeps_its_order_and_the_number_of_tenants_stays_bounded() {
        let mut turns = Turns::default();
        turns.push(A, 0);
        for tenant in 10..50_000 {
            turns.push(TenantKey(tenant), 1);
            let (tenant, _) = turns.pop(|tenant| tenant != A).unwrap();
            turns.charge(tenant, 1);
        }
        assert!(turns.tenants.len() <= KEPT_MAX + 2, "{}", turns.tenants.len());
        (1..10).for_each(|item| turns.push(A, item));
        let order: Vec<i32> = std::iter::from_fn(|| turns.pop(|_| true)).map(|(_, item)| item).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
        assert!(turns.is_empty() && turns.tenants.is_empty());
    }
}
