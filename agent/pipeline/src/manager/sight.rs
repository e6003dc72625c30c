//! What placement is shown of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::View;
use crate::name::{MemberName, RuleName};
use crate::placement::judge::{EffectiveRules, RuleFault, judge_rules};
use crate::placement::picture::{NodeView, Picture, ResourceView, Seat, Use};
use crate::resource::{Phase, Requested, Resource};

impl View<'_> {
    /// The nodes and resources as placement sees them, the rules that hold, and why the others don't.
    #[must_use]
    pub fn picture(&self) -> (Picture, EffectiveRules, BTreeMap<RuleName, RuleFault>) {
        let state = self.state;
        let nodes = state
            .nodes
            .iter()
            .map(|(name, node)| {
                let view = NodeView {
                    may_take: self.takes(name).is_ok(),
                    memory: node.capacity.memory,
                    cpus: node.capacity.milli_cpus.and_then(|milli| u32::try_from(milli / 1000).ok()),
                };
                (name.clone(), view)
            })
            .collect();
        let resources = state
            .resources
            .iter()
            .map(|(name, resource)| {
                let measured = resource
                    .phase
                    .owner()
                    .and_then(|node| self.leases.report(state, node))
                    .and_then(|report| report.usage.get(name))
                    .map(|used| Use {
                        cpu_milli: u32::try_from(used.milli_cpus).unwrap_or(u32::MAX),
                        memory: used.memory,
                    });
                let view = ResourceView {
                    seat: if self.is_about_to_start(name, resource) { Seat::Nowhere } else { seat(resource) },
                    memory: resource.spec.memory,
                    cpu_milli: resource.spec.milli_cpus.and_then(|milli| u32::try_from(milli).ok()),
                    measured,
                    only_on: resource.spec.only_on.clone(),
                    may_balance: may_balance(resource),
                };
                (name.clone(), view)
            })
            .collect();
        let names: BTreeSet<MemberName> = state.nodes.keys().cloned().collect();
        let (rules, faults) = judge_rules(&state.placement_rules, &names);
        (Picture::new(nodes, resources), rules, faults)
    }

    /// Whether a node takes resources now.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn takes<'n>(&self, node: &'n MemberName) -> Result<(), TakesNothing<'n>> {
        let Some(state) = self.state.nodes.get(node) else { return Err(TakesNothing::NotANode(node)) };
        if !self.state.in_service(node) {
            return Err(TakesNothing::NotInService(node));
        }
        if !self.leases.is_heard(self.state, node, self.now) {
            return Err(TakesNothing::NotHeard(node));
        }
        if let Some(index) = self.leases.diverged(node) {
            return Err(TakesNothing::Diverged(node, index));
        }
        if state.maintenance {
            return Err(TakesNothing::Maintenance(node));
        }
        let report = self.leases.report(self.state, node);
        if state.leaving.is_some() || report.is_some_and(|report| report.leaving.is_some()) {
            return Err(TakesNothing::Goes(node));
        }
        match self.state.unprotectable(node) {
            Some(reason) => Err(TakesNothing::Unprotectable(node, reason)),
            None => Ok(()),
        }
    }
}

/// Why a node takes no resources now. In words only where somebody asks: the manager looks at every node again and again.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakesNothing<'a> {
    #[error("{0} is not a node")]
    NotANode(&'a MemberName),
    #[error("{0} is not in service")]
    NotInService(&'a MemberName),
    #[error("{0} is not heard")]
    NotHeard(&'a MemberName),
    #[error("the state of {0} differs from the majority's at log index {1}")]
    Diverged(&'a MemberName, u64),
    #[error("{0} is in maintenance")]
    Maintenance(&'a MemberName),
    #[error("{0} is about to go")]
    Goes(&'a MemberName),
    #[error("{0}: {1}")]
    Unprotectable(&'a MemberName, String),
}

/// What may be moved to even out the load: what moves live, since nothing that runs is stopped for that; and neither what
/// is on its way home, nor what has just refused to move.
fn may_balance(resource: &Resource) -> bool {
    let at_home = resource.home.is_none() && resource.moves_failed.is_none();
    let settled = matches!(resource.phase, Phase::Placed { .. }) && resource.locked.is_none() && !resource.held;
    resource.requested == Requested::Started && resource.spec.live && at_home && settled
}

/// Where a resource counts: what isn't to run needs no room.
fn seat(resource: &Resource) -> Seat {
    if resource.requested != Requested::Started {
        return Seat::Nowhere;
    }
    match &resource.phase {
        Phase::Placed { node } | Phase::Error { node: Some(node), .. } | Phase::Releasing { node, to: None, .. } => {
            Seat::On(node.clone())
        }
        Phase::Releasing { node, to: Some(to), .. } if node == to => Seat::On(node.clone()),
        Phase::Releasing { node: from, to: Some(to), .. } | Phase::Migrating { from, to, .. } => {
            Seat::Moving { from: from.clone(), to: to.clone() }
        }
        Phase::New | Phase::Free { .. } | Phase::Error { node: None, .. } | Phase::Ignored => Seat::Nowhere,
    }
}
