//! The lanes whose next entry may be published: in the order in which they became ready, or in turns of tenants.

use std::collections::VecDeque;

use super::turns::Turns;
use super::{LaneId, PublisherSet};
use crate::stream::TenantKey;

/// The lanes that are ready.
#[derive(Debug)]
pub(super) enum Ready {
    InOrder(VecDeque<LaneId>),
    /// For each set of publishers, since one of them may have enough to do when another has not.
    InTurns(Vec<(PublisherSet, Turns<LaneId>)>),
}

impl Ready {
    pub(super) fn push(&mut self, lane: LaneId, tenant: TenantKey, legs: PublisherSet) {
        match self {
            Self::InOrder(lanes) => lanes.push_back(lane),
            Self::InTurns(groups) => match groups.iter_mut().find(|(of, _)| *of == legs) {
                Some((_, turns)) => turns.push(tenant, lane),
                None => {
                    let mut turns = Turns::default();
                    turns.push(tenant, lane);
                    groups.push((legs, turns));
                }
            },
        }
    }

    /// The next lane, and the publishers for which it was ready; with turns, of publishers that have enough to do none.
    pub(super) fn pop(&mut self, has_room: impl Fn(PublisherSet) -> bool) -> Option<LaneId> {
        match self {
            Self::InOrder(lanes) => lanes.pop_front(),
            Self::InTurns(groups) => {
                let at = groups.iter().position(|(legs, turns)| !turns.is_empty() && has_room(*legs))?;
                let (_, lane) = groups.get_mut(at)?.1.pop(|_| true)?;
                // The next is of other publishers, if there are any.
                groups.get_mut(at..)?.rotate_left(1);
                Some(lane)
            }
        }
    }

    /// Charges a tenant for what it has taken.
    pub(super) fn charge(&mut self, tenant: TenantKey, legs: PublisherSet, cost: u64) {
        if let Self::InTurns(groups) = self {
            groups.iter_mut().filter(|(of, _)| *of == legs).for_each(|(_, turns)| turns.charge(tenant, cost));
            groups.retain(|(_, turns)| !turns.is_empty());
        }
    }
}
