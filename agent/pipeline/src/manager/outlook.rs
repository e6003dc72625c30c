//! What would happen if nodes failed, or were emptied: the planner's answers about the cluster as it stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::View;
use crate::command::{Command, ENTRY_VERSION, Entry};
use crate::name::{MemberName, ResourceName};
use crate::placement::choose::{Preference, Wish, choose};
use crate::placement::picture::Seat;
use crate::placement::rule::RuleKind;
use crate::planner::{self, Budget, Cluster, Memory, Method, Node, Tolerance, Verdict, place, tolerance, what_if};
use crate::resource::{Class, Phase, Requested, Resource};
use crate::state::State;

/// Steps of a search that runs between two renewals of leases, for each number of failures: some 5 ms on a server. What
/// takes longer is answered by the bound, which is never unsafe.
pub const BUDGET: Budget = Budget(200_000);

/// How many node failures the cluster survives now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outlook {
    /// So many nodes may fail one after another; `None` if not even everything protected can run now.
    pub tolerable: Option<usize>,
    /// How many shall be tolerable, if somebody has set a goal.
    pub goal: Option<u32>,
    /// The answer rests on a search of every order of failures. Otherwise more may be tolerable.
    pub exact: bool,
    /// Why it isn't more.
    pub limit: String,
    /// So many failures the votes allow while everybody is there; zero also while nothing is protected.
    #[serde(default)]
    pub at_best: usize,
}

impl Outlook {
    /// What to tell somebody: the goal isn't met; or, where nobody has set one, nothing more may fail though the votes would
    /// allow it. A cluster that never survives a failure, because too few vote, is told so once and elsewhere.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let limit = &self.limit;
        let goal = self.goal.map(|goal| usize::try_from(goal).unwrap_or(usize::MAX));
        match (self.tolerable, goal) {
            (None, Some(goal)) => Some(format!(
                "{goal} node failure(s) shall be tolerable, not even now does everything protected fit: {limit}"
            )),
            (None, None) => Some(format!("not even now does everything protected fit: {limit}")),
            (Some(tolerable), Some(goal)) => (tolerable < goal)
                .then(|| format!("{goal} node failure(s) shall be tolerable, {tolerable} now: {limit}")),
            (Some(0), None) if self.at_best > 0 => Some(format!(
                "no node failure is tolerable now: {limit} (`tiebreaker set tolerate 0` says that this is meant to be so)"
            )),
            (Some(_), None) => None,
        }
    }
}

/// One move of a drain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainMove {
    /// What moves.
    pub resource: ResourceName,
    /// Where to; `None` if no other node can have it.
    pub to: Option<MemberName>,
    /// It moves live; otherwise it is stopped here and started there.
    pub live: bool,
    /// It comes back when the maintenance is over.
    pub returns: bool,
    /// Why there, or why nowhere.
    pub why: String,
}

/// What emptying a node would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// The node.
    pub node: MemberName,
    /// Its running resources, in the order in which they would leave.
    pub moves: Vec<DrainMove>,
    /// How many would move at once.
    pub at_once: u32,
    /// What is in the way, or would be broken.
    pub conflicts: Vec<String>,
}

impl View<'_> {
    /// The cluster as the planner sees it: protected resources that shall run, and the nodes that could have them.
    #[must_use]
    pub fn planned(&self) -> Cluster {
        let state = self.state;
        let (picture, rules, faults) = self.picture();
        let planned = |resource: &Resource| {
            let lives = match resource.phase {
                Phase::Error { .. } | Phase::Ignored => false,
                Phase::New
                | Phase::Placed { .. }
                | Phase::Releasing { .. }
                | Phase::Migrating { .. }
                | Phase::Free { .. } => true,
            };
            lives && resource.spec.class == Class::Protected && resource.requested == Requested::Started
        };
        let nodes = state
            .nodes
            .iter()
            .map(|(name, node)| {
                // What isn't planned for keeps its room all the same: nothing that runs is stopped to make room.
                let others = state.resources.iter().filter(|(_, resource)| !planned(resource));
                let taken = others
                    .filter_map(|(name, resource)| Some((picture.resources().get(name)?, resource.spec.memory?)))
                    .filter(|(view, _)| view.seat.counts_on(name))
                    .fold(0_u64, |sum, (_, memory)| sum.saturating_add(memory));
                let memory = node.capacity.memory.map(|memory| memory.saturating_sub(taken));
                Node {
                    name: name.clone(),
                    memory: memory.map_or(Memory::Unlimited, Memory::Bytes),
                    in_service: self.takes(name).is_ok(),
                }
            })
            .collect();
        let resources = state
            .resources
            .iter()
            .filter(|(_, resource)| planned(resource))
            .map(|(name, resource)| {
                let strict =
                    rules.node_rule(name).filter(|rule| rule.strict).map(|rule| rule.nodes.keys().cloned().collect());
                let there = (!resource.spec.only_on.is_empty()).then(|| resource.spec.only_on.clone());
                let may_run_on: Option<BTreeSet<MemberName>> = match (strict, there) {
                    (Some(strict), Some(there)) => Some(BTreeSet::intersection(&strict, &there).cloned().collect()),
                    (one, other) => one.or(other),
                };
                planner::Resource {
                    name: name.clone(),
                    memory_bytes: resource.spec.memory.unwrap_or(0).min(planner::RESOURCE_MEMORY_MAX),
                    node: resource.phase.bound_for().or_else(|| resource.phase.owner()).cloned(),
                    may_run_on,
                }
            })
            .collect();
        let of = |kind: &RuleKind| {
            let of_kind = state
                .placement_rules
                .iter()
                .filter(|(name, rule)| rule.kind == *kind && !rule.disabled_by_operator && !faults.contains_key(*name));
            of_kind.map(|(_, rule)| rule.resources.clone()).collect()
        };
        Cluster { nodes, resources, apart: of(&RuleKind::Apart), together: of(&RuleKind::Together) }
    }

    /// How many node failures the cluster survives now. Votes count as much as memory: `appliance_is_up` says whether the
    /// appliance casts its own.
    #[must_use]
    pub fn outlook(&self, cluster: &Cluster, appliance_is_up: bool) -> Outlook {
        let goal = self.state.settings.tolerate;
        let voters = self.state.voters.len();
        let others = if cluster.resources.is_empty() { 0 } else { self.state.nodes.len().saturating_sub(1) };
        let at_best = voters.saturating_sub(voters / 2 + 1).min(others);
        let planned = match tolerance(cluster, BUDGET) {
            Ok(planned) => planned,
            Err(error) => {
                let limit = format!("the plan can't be made: {error}");
                return Outlook { tolerable: None, goal, exact: false, limit, at_best };
            }
        };
        let up = self.state.members.iter().filter(|(name, member)| {
            let casts = match member.role {
                crate::state::Role::Appliance => appliance_is_up,
                crate::state::Role::Node => {
                    self.state.in_service(name) && self.leases.is_heard(self.state, name, self.now)
                }
            };
            casts && self.state.voters.contains(&member.raft_id)
        });
        let spare = up.count().saturating_sub(voters / 2 + 1);
        let exact = planned.limit.method == Method::Exact;
        match planned.failures {
            Some(failures) if failures >= spare => {
                let limit = if self.state.appliance().is_some() && !appliance_is_up {
                    format!("the appliance is down: without its vote {spare} more may fail")
                } else {
                    format!("{voters} vote, and a majority of them has to stay: {spare} more may fail")
                };
                Outlook { tolerable: Some(spare), goal, exact: true, limit, at_best }
            }
            failures => Outlook { tolerable: failures, goal, exact, limit: limit(&planned), at_best },
        }
    }

    /// Where what runs nowhere goes by the plan, if a number of failures to survive is set: placed otherwise, the failures
    /// that are still to be survived might not be.
    pub(super) fn planned_places(&self) -> BTreeMap<ResourceName, MemberName> {
        let free = |resource: &Resource| matches!(resource.phase, Phase::Free { .. });
        let Some(goal) = self.state.settings.tolerate else { return BTreeMap::new() };
        if !self.state.resources.values().any(free) {
            return BTreeMap::new();
        }
        let cluster = self.planned();
        let out = cluster.nodes.iter().filter(|node| !node.in_service).count();
        let left = usize::try_from(goal).unwrap_or(usize::MAX).saturating_sub(out);
        // A cluster that can't be planned for is placed by the rules and the load alone, and its outlook says so.
        place(&cluster, left, BUDGET).map(|placed| placed.assignments.into_iter().collect()).unwrap_or_default()
    }

    /// Why a command would break the plan for the number of failures that shall be tolerable; `None` where no number is
    /// set, or where it breaks nothing.
    #[must_use]
    pub fn breaks(&self, command: &Command) -> Option<String> {
        self.break_together(std::slice::from_ref(command))
    }

    /// The same of commands that come together, as those of one move.
    #[must_use]
    pub fn break_together(&self, commands: &[Command]) -> Option<String> {
        let goal = usize::try_from(self.state.settings.tolerate?).ok()?;
        let counts = |command: &Command| {
            matches!(
                command,
                Command::AddResource { .. }
                    | Command::SetResource { .. }
                    | Command::SetMaintenance { on: true, .. }
                    | Command::RemoveMember { .. }
                    | Command::Release { .. }
                    | Command::Migrate { .. }
                    | Command::SetRule { .. }
            )
        };
        if !commands.iter().any(counts) {
            return None;
        }
        let mut after: State = self.state.clone();
        for command in commands {
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: self.wall_ms, command: command.clone() };
            // What is void changes nothing, and says so by itself.
            after.apply(after.applied + 1, entry).ok()?;
        }
        let then = View { state: &after, ..*self };
        let (before, planned) = (self.planned(), then.planned());
        match what_if(&before, &planned, goal, BUDGET) {
            Ok(effect) => effect.is_refusal().then(|| {
                match commands.iter().find_map(|command| too_few(command, &before, &planned, goal)) {
                    Some(few) => format!("{few} ({effect})"),
                    None => effect.to_string(),
                }
            }),
            Err(error) => Some(error.to_string()),
        }
    }

    /// What emptying a node would do, without doing it.
    #[must_use]
    pub fn drain(&self, node: &MemberName) -> Drain {
        let state = self.state;
        let (mut picture, rules, _) = self.picture();
        let mut conflicts: Vec<String> =
            self.may_be_emptied(node).err().map(|error| error.to_string()).into_iter().collect();
        if let Some(seen) = picture.nodes.get_mut(node) {
            seen.may_take = false;
        }
        let mut all: Vec<(&ResourceName, &Resource)> = state
            .resources
            .iter()
            .filter(|(_, resource)| {
                matches!(&resource.phase, Phase::Placed { node: at } if at == node)
                    && resource.requested == Requested::Started
            })
            .collect();
        // As the manager takes them: what starts first is soonest safe.
        all.sort_by_key(|(name, resource)| (resource.spec.class, resource.spec.order, *name));
        let failed = BTreeSet::new();
        let mut moves = Vec::new();
        for (name, resource) in all {
            if let Some(reason) = &resource.locked {
                conflicts.push(format!("{name} is locked and stays: {reason}"));
                continue;
            }
            let wish = Wish {
                resource: name,
                preference: Preference::None,
                failed: &failed,
                home: None,
                current: Some(node),
                failback: resource.spec.failback,
            };
            let choice = choose(&picture, &rules, state.settings.placement, &wish);
            let to = choice.node().cloned();
            if let Some(to) = &to {
                picture.change(name, |view| view.seat = Seat::On(to.clone()));
            }
            let why = match &to {
                Some(_) => choice.outcome.to_string(),
                None => choice.to_string(),
            };
            if to.is_none() {
                conflicts.push(format!("{name} has nowhere to go: {choice}"));
            }
            let returns = resource.spec.failback && to.is_some();
            moves.push(DrainMove { resource: name.clone(), to, live: resource.spec.live, returns, why });
        }
        if moves.iter().any(|step| step.to.is_none()) {
            conflicts.extend(self.by_hand(node));
        }
        let empty = Command::SetMaintenance { node: node.clone(), on: true };
        conflicts.extend(self.breaks(&empty).map(|breaks| format!("the plan would break: {breaks}")));
        let at_once = u32::try_from(state.settings.moves_at_once()).unwrap_or(u32::MAX);
        Drain { node: node.clone(), moves, at_once, conflicts }
    }
}

impl View<'_> {
    /// How everything protected of a node finds room elsewhere, where the manager, which places one after another, finds
    /// none: an operator can move it so.
    fn by_hand(&self, node: &MemberName) -> Option<String> {
        let found = planner::evacuate(&self.planned(), node, &[], BUDGET).ok()?;
        if !found.stuck.is_empty() || found.moves.is_empty() {
            return None;
        }
        let moves: Vec<String> = found.moves.iter().map(|(name, to)| format!("{name} to {to}")).collect();
        Some(format!(
            "everything protected fits elsewhere only if it is moved by hand before: {} (`tiebreaker resource migrate`)",
            moves.join(", ")
        ))
    }
}

/// What to say of maintenance that leaves too few nodes for the goal, whatever runs where.
fn too_few(command: &Command, before: &Cluster, then: &Cluster, goal: usize) -> Option<String> {
    let Command::SetMaintenance { node, on: true } = command else { return None };
    let count = |cluster: &Cluster| cluster.nodes.iter().filter(|node| node.in_service).count();
    let (has, left) = (count(before), count(then));
    (left <= goal && goal < has).then(|| {
        format!(
            "of {has} nodes in service {left} would be left while {node} is in maintenance, and the {goal} node failure(s) that \
             shall be tolerable are not tolerable then: that is so for every maintenance here, and over when it ends"
        )
    })
}

fn limit(planned: &Tolerance) -> String {
    match &planned.limit.verdict {
        Verdict::Plan => "nothing limits it".to_owned(),
        Verdict::NoPlan(by) => by.to_string(),
        Verdict::Unproven(Some(by)) => format!("more could not be shown in time; perhaps {by}"),
        Verdict::Unproven(None) => "more could not be shown in time".to_owned(),
    }
}
