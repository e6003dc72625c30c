//! Whether a device that reads off was the right one.
//!
//! A device that belongs to another machine takes that one's power and reads off: the fenced node runs on. It shows
//! nowhere but in what the leader hears. So the word of a device counts only once every other node that may have been
//! up has renewed *after* the device was said to read off, and as long as the fenced boot itself has not.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Leases;
use crate::fence::{Fence, FenceId, Progress};
use crate::name::MemberName;
use crate::profile::RENEW_EVERY;
use crate::state::State;
use crate::time::Reading;

/// A fence whose device hasn't been said to read off for so long begins anew: the device may have read on meanwhile.
const STALE: Duration = Duration::from_secs(5);
/// What was let through is not let through again for so long: it is on its way.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// A node that has not renewed for so long after the device read off is missing.
const MISSING_AFTER: Duration = Duration::from_secs(2);

/// Why the word of a device doesn't count, or not yet.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// The fenced boot still renews.
    #[error(
        "a power device of {node} reads off, and {node} still reports: the device belongs to another machine. Nothing \
         more is touched; look at both machines and correct the device"
    )]
    StillReports {
        /// The node whose fence it is.
        node: MemberName,
    },
    /// Another node has not been heard since.
    #[error(
        "a power device of {node} reads off, and {other} has not been heard since: the device may have taken the power \
         of {other} instead. Nothing more is touched; look at both, then `tiebreaker fence confirm {node}` if {node} is off"
    )]
    Unheard {
        /// The node whose fence it is.
        node: MemberName,
        /// The node that is missing.
        other: MemberName,
    },
    /// It counted already.
    #[error("the fence of {node} is being proven")]
    UnderWay {
        /// The node whose fence it is.
        node: MemberName,
    },
}

/// What this leader knows of a fence whose device reads off.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// When it was first said that the device reads off, without a longer pause since then.
    first: Reading,
    /// When it was last said.
    last: Reading,
    /// Who has to be heard after that.
    witnesses: BTreeSet<MemberName>,
    /// When it counted.
    counted: Option<Reading>,
}

impl Leases {
    /// Whether the word of a device that this fence's node is off counts now. The appliance reads the device afresh and
    /// asks again until it does.
    ///
    /// # Errors
    /// Why it doesn't count, or not yet.
    pub fn power_proves(&mut self, now: Reading, state: &State, id: FenceId) -> Result<(), Doubt> {
        self.claims.retain(|id, _| state.fences.get(id).is_some_and(|fence| fence.progress == Progress::Wanted));
        // The judge voids what isn't wanted.
        let Some(fence) = state.fences.get(&id).filter(|fence| fence.progress == Progress::Wanted) else {
            return Ok(());
        };
        if !state.rules.power_counts_while_the_others_are_heard() {
            return Ok(());
        }
        if self.claims.get(&id).is_none_or(|claim| now.since_at_most(claim.last) > STALE) {
            let witnesses = self.witnesses(state, fence);
            self.claims.insert(id, Claim { first: now, last: now, witnesses, counted: None });
        }
        let doubt = self.claims.get(&id).and_then(|claim| self.doubt(state, fence, claim));
        let Some(claim) = self.claims.get_mut(&id) else { return Ok(()) };
        claim.last = now;
        if let Some(doubt) = doubt {
            return Err(doubt);
        }
        if claim.counted.is_some_and(|counted| now.since_at_most(counted) < UNDER_WAY) {
            return Err(Doubt::UnderWay { node: fence.node.clone() });
        }
        claim.counted = Some(now);
        Ok(())
    }

    /// What an operator has to look at: devices that read off and prove nothing.
    #[must_use]
    pub fn doubts(&self, now: Reading, state: &State) -> Vec<Doubt> {
        let wanted = |id: &FenceId| state.fences.get(id).filter(|fence| fence.progress == Progress::Wanted);
        let old =
            |claim: &Claim| now.since_at_least(claim.first) >= MISSING_AFTER && now.since_at_most(claim.last) <= STALE;
        self.claims
            .iter()
            .filter(|(_, claim)| old(claim))
            .filter_map(|(id, claim)| self.doubt(state, wanted(id)?, claim))
            .collect()
    }

    fn doubt(&self, state: &State, fence: &Fence, claim: &Claim) -> Option<Doubt> {
        let node = fence.node.clone();
        let fenced = self.nodes.get(&node);
        let reports = fenced.is_some_and(|view| {
            view.newest.as_ref().is_some_and(|newest| newest.boot == fence.boot)
                && !claim.first.reached_on_both(view.heard)
        });
        if reports {
            return Some(Doubt::StillReports { node });
        }
        let heard = |other: &&MemberName| {
            self.nodes.get(*other).is_some_and(|view| view.heard_once && !claim.first.reached_on_either(view.heard))
        };
        let still_in = |other: &&MemberName| state.nodes.contains_key(*other);
        let other = claim.witnesses.iter().filter(still_in).find(|other| !heard(other))?.clone();
        Some(Doubt::Unheard { node, other })
    }

    /// The nodes that may have been up when this fence was proposed: only an older silence explains that they aren't
    /// heard now.
    fn witnesses(&self, state: &State, fence: &Fence) -> BTreeSet<MemberName> {
        let silent_before = |other: &MemberName| {
            let lost = state.settings.profile.lost_after().saturating_sub(RENEW_EVERY + RENEW_EVERY / 5);
            match (self.condemned.get(&fence.node), self.nodes.get(other)) {
                (Some((_, condemned)), Some(view)) => condemned.since_at_least(view.heard) >= lost,
                // A leader that came later can't know.
                (Some(_) | None, _) => false,
            }
        };
        let may_have_been_up = |other: &MemberName| match state.open_fence(other) {
            Some((_, its)) => its.wanted_at > fence.wanted_at,
            None => state.life(other).is_some(),
        };
        let others = state.nodes.keys().filter(|other| **other != fence.node);
        others.filter(|other| may_have_been_up(other) && !silent_before(other)).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
