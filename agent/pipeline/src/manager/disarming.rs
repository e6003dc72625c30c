//! Disarming: the cluster finishes what is under way first, and says what that is.

use super::{Plan, View, Why};
use crate::command::Command;
use crate::fence::Progress;
use crate::resource::{Phase, Requested};
use crate::state::Arming;

impl View<'_> {
    /// The cluster is disarmed as soon as nothing is under way any more; until then every resource tells what is.
    pub(super) fn disarming(&self, plan: &mut Plan) {
        let Arming::Disarming { .. } = self.state.settings.arming else { return };
        if !self.state.is_busy() && !plan.is_recovering() {
            plan.proposals.push(Command::Disarmed);
            return;
        }
        plan.disarming = self.under_way(plan);
        if plan.disarming.is_empty() {
            return;
        }
        for why in plan.why.values_mut().filter(|why| matches!(why, Why::Disarmed { .. })) {
            *why = Why::Disarming { waits: plan.disarming.clone() };
        }
    }

    /// What disarming waits for, each with what an operator can do about it.
    fn under_way(&self, plan: &Plan) -> Vec<String> {
        let fences = self.state.fences.iter().filter_map(|(id, fence)| {
            let node = &fence.node;
            match &fence.progress {
                Progress::Wanted => {
                    let failed = fence.last_failure.as_ref().map(|why| format!(", whose device failed: {why}"));
                    Some(format!(
                        "evidence that {node} is fenced (fence {id}{}): if none comes, make sure that it is off, then \
                         `tiebreaker fence confirm {node}`",
                        failed.unwrap_or_default()
                    ))
                }
                Progress::Fenced { .. } => {
                    Some(format!("the appliance's word that no power-off of {node} can land any more (fence {id})"))
                }
                Progress::Closed { .. } => None,
            }
        });
        let moves = self.state.resources.iter().filter_map(|(name, resource)| {
            let what = match &resource.phase {
                Phase::Releasing { .. } | Phase::Migrating { .. } => "the end of its move",
                Phase::Placed { .. } if resource.arriving.is_some() => "the end of its move",
                Phase::Free { .. } if resource.requested == Requested::Started => "a node that can have it",
                Phase::Free { .. } | Phase::New | Phase::Placed { .. } | Phase::Error { .. } | Phase::Ignored => {
                    return None;
                }
            };
            let why = plan.why.get(name).map_or_else(String::new, |why| format!(" ({why})"));
            let out = match &resource.phase {
                Phase::Free { .. } => {
                    format!(
                        ": `tiebreaker resource set {name} --state stopped` makes it wait until the cluster is armed"
                    )
                }
                Phase::Releasing { .. }
                | Phase::Migrating { .. }
                | Phase::New
                | Phase::Placed { .. }
                | Phase::Error { .. }
                | Phase::Ignored => String::new(),
            };
            Some(format!("{name}, which waits for {what}{why}{out}"))
        });
        fences.chain(moves).collect()
    }
}

impl Plan {
    /// True while something is about to be decided about a resource.
    fn is_recovering(&self) -> bool {
        self.why.values().any(|why| *why == Why::Deciding)
    }
}
