//! Evening out the load by itself: one move at a time, and only while nothing else is going on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Plan, View, Why};
use crate::name::{MemberName, ResourceName};
use crate::placement::balance::{BalanceHold, BalanceSettings, rebalance};
use crate::placement::judge::EffectiveRules;
use crate::placement::picture::Picture;
use crate::placement::score::Scoring;
use crate::planner::what_if;
use crate::resource::{MoveReason, Requested};
use crate::state::Arming;
use crate::time::Reading;

/// The loads are compared this often; how often in a row they must have differed is for [`BalanceSettings`] to say.
const ROUND: Duration = Duration::from_secs(10);

/// What a leader remembers between two rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rounds {
    hold: BalanceHold,
    next: Option<Reading>,
}

impl View<'_> {
    /// Proposes the move that brings the loads closest together, where they have differed for long enough. Whatever else
    /// there is to do comes first, and then the rounds are counted from the beginning.
    pub(super) fn even_out(&self, picture: &Picture, rules: &EffectiveRules, plan: &mut Plan) {
        let settings = &self.state.settings;
        if !settings.rebalance || settings.placement == Scoring::Basic || !self.is_at_rest(plan) {
            return;
        }
        let mut rounds = self.memory.rounds;
        if rounds.next.is_some_and(|next| !self.now.reached_on_either(next)) {
            plan.memory.rounds = rounds;
            return;
        }
        rounds.next = Some(self.now.after(ROUND));
        let usual = BalanceSettings::default();
        let found = rebalance(picture, rules, settings.placement, &usual, &mut rounds.hold, &mut |resources, to| {
            self.keeps_the_goal(resources, to)
        });
        plan.memory.rounds = rounds;
        let Some(found) = found else { return };
        for name in &found.resources {
            let Some(resource) = self.state.resources.get(name) else { continue };
            let why = MoveReason::Better { why: found.to_string() };
            plan.proposals.push(self.sending(name, resource, &found.to, why));
            plan.why.insert(name.clone(), Why::Deciding);
        }
    }

    /// True while nobody is away, nothing moves, and everything that shall run does.
    fn is_at_rest(&self, plan: &Plan) -> bool {
        let state = self.state;
        let steady =
            self.settled && state.settings.arming == Arming::Armed && !state.is_busy() && plan.proposals.is_empty();
        let all_there = plan.unfenced.is_empty()
            && state.nodes.iter().all(|(node, seen)| {
                let heard = seen.life.is_none() || self.leases.is_heard(state, node, self.now);
                heard && !seen.maintenance && seen.leaving.is_none() && self.leases.diverged(node).is_none()
            });
        let runs = |why: &Why| matches!(why, Why::Runs | Why::Stays { .. } | Why::Locked { .. } | Why::Error { .. });
        let mut wanted = state.resources.iter().filter(|(_, resource)| resource.requested == Requested::Started);
        steady && all_there && wanted.all(|(name, _)| plan.why.get(name).is_some_and(runs))
    }

    /// Whether as many failures as shall be tolerable still are once these resources are there.
    fn keeps_the_goal(&self, resources: &BTreeSet<ResourceName>, to: &MemberName) -> bool {
        let Some(goal) = self.state.settings.tolerate.and_then(|goal| usize::try_from(goal).ok()) else { return true };
        let before = self.planned();
        let mut after = before.clone();
        for resource in after.resources.iter_mut().filter(|resource| resources.contains(&resource.name)) {
            resource.node = Some(to.clone());
        }
        what_if(&before, &after, goal, super::outlook::BUDGET).is_ok_and(|effect| !effect.is_refusal())
    }
}
