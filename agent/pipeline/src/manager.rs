//! The manager: a pure function of the replicated state, the nodes' reports and the time. It runs on the leader, inside
//! its quorum lease, and gives proposals; what it waits for, it says as data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::fence::{Evidence, Fence, FenceId, FenceReason, Progress};
use crate::leader::Leases;
use crate::name::{MemberName, ResourceName};
use crate::report::{Observed, Trust};
use crate::resource::{MoveReason, Phase, Requested, Resource};
use crate::state::{Role, State};
use crate::time::Reading;

/// A node that was admitted but not heard since this leader's machine started gets this long to boot.
pub const BOOT_GRACE: Duration = Duration::from_secs(60);

/// What the manager waits for, or why it chose as it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Why {
    /// All is as wanted.
    #[error("it runs where it belongs")]
    Runs,
    /// It is stopped, as asked.
    #[error("it is stopped, as asked")]
    StoppedAsAsked,
    /// The owner works on it.
    #[error("{node} has it and says: {observed:?}")]
    AtWork {
        /// The owner.
        node: MemberName,
        /// What it sees.
        observed: Observed,
    },
    /// The owner hasn't applied the decision yet, or isn't heard.
    #[error("waiting for {node} to report that it has applied the decision")]
    WaitingForReport {
        /// Who.
        node: MemberName,
    },
    /// The owner is lost and being fenced.
    #[error("waiting for evidence that {node} is fenced (fence {id})")]
    WaitingForFence {
        /// Who.
        node: MemberName,
        /// Its fence.
        id: FenceId,
    },
    /// The owner is lost, and can't be fenced now.
    #[error("{node} is lost and can't be fenced now: {why}")]
    CannotFence {
        /// Who.
        node: MemberName,
        /// Why.
        why: String,
    },
    /// A new resource must be proven stopped on every node.
    #[error("new: waiting until {node} has said whether it runs there already")]
    WaitingForProbe {
        /// Who.
        node: MemberName,
    },
    /// A new resource's probe told nothing on a node.
    #[error("new: {node} can't tell whether it runs there already: {why}")]
    ProbeUnknown {
        /// Who.
        node: MemberName,
        /// What its probe ran into.
        why: String,
    },
    /// It runs on several nodes already.
    #[error("new: it runs on {first} and on {second} already: stop it on one of them")]
    RunsTwice {
        /// One.
        first: MemberName,
        /// The other.
        second: MemberName,
    },
    /// No node may have it.
    #[error("no node can take it: {}", .why.join("; "))]
    NoNode {
        /// Why not, node by node.
        why: Vec<String>,
    },
    /// A decision is on its way through the log.
    #[error("a decision is on its way through the log")]
    Deciding,
    /// It was given up.
    #[error("it was given up: {why}; `tiebreaker resource set {resource} --state started` tries again")]
    Error {
        /// The resource.
        resource: ResourceName,
        /// What went wrong.
        why: String,
    },
}

/// What the manager wants done, and why it waits elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// To be proposed.
    pub proposals: Vec<Command>,
    /// Per resource, what holds or what it waits for.
    pub why: BTreeMap<ResourceName, Why>,
    /// Per node that is lost and not fenced, the reason.
    pub unfenced: BTreeMap<MemberName, String>,
}

/// Everything that the manager looks at.
pub struct View<'a> {
    /// The replicated state.
    pub state: &'a State,
    /// The lease table.
    pub leases: &'a Leases,
    /// Now, on the leader's clocks.
    pub now: Reading,
    /// When the leader's own process started.
    pub started: Reading,
}

/// One look at the cluster.
#[must_use]
pub fn manage(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    for node in view.state.nodes.keys() {
        view.node(node, &mut plan);
    }
    view.profile(&mut plan);
    let mut load = view.load();
    for (name, resource) in &view.state.resources {
        let why = view.resource(name, resource, &mut load, &mut plan);
        plan.why.insert(name.clone(), why);
    }
    plan
}

impl View<'_> {
    fn node(&self, node: &MemberName, plan: &mut Plan) {
        if let Some((id, fence)) = self.state.open_fence(node) {
            if matches!(fence.progress, Progress::Wanted)
                && let Some(evidence) = self.evidence(node, fence)
            {
                plan.proposals.push(Command::Fenced { id, evidence });
            }
            if self.state.rules.closed_before_readmission() {
                return;
            }
        }
        self.admission(node, plan);
        if let Some(command) = self.loss(node, plan) {
            plan.proposals.push(command);
        }
    }

    /// A new life of a node, if one asks and may have it.
    fn admission(&self, node: &MemberName, plan: &mut Plan) {
        let (Some(state), Some(view)) = (self.state.nodes.get(node), self.leases.node(node)) else {
            return;
        };
        let Some(newest) = &view.newest else {
            return;
        };
        if newest.incarnation <= state.last_incarnation || !self.leases.is_heard(self.state, node, self.now) {
            return;
        }
        // A report from before the closing was sent when a power-off could still land.
        let closed = if self.state.rules.admission_has_applied_the_closing() {
            if newest.report.applied < state.closed_at {
                return;
            }
            newest.report.applied.min(state.closed_at)
        } else {
            state.closed_at
        };
        let twin = state.life.as_ref().is_some_and(|life| life.boot != newest.boot)
            && !self.now.reached_on_both(view.granted_until);
        if twin && self.state.rules.one_boot_per_grant() {
            return;
        }
        plan.proposals.push(Command::Admit {
            node: node.clone(),
            incarnation: newest.incarnation,
            boot: newest.boot.clone(),
            watchdog: newest.watchdog.clone(),
            machine: newest.machine.clone(),
            closed,
        });
    }

    /// A fence for a node that is lost, owns something, and isn't heard by others while its lease may run.
    fn loss(&self, node: &MemberName, plan: &mut Plan) -> Option<Command> {
        let life = self.state.life(node)?;
        let view = self.leases.node(node)?;
        self.state.owned_by(node).next()?;
        let silent = self.now.since_at_least(view.heard);
        if silent < self.state.settings.profile.lost_after() {
            return None;
        }
        let mut hold = |why: String| {
            plan.unfenced.insert(node.clone(), why);
            None
        };
        let booting = self.now.since_at_least(self.started);
        if !view.heard_once && booting < BOOT_GRACE {
            return hold(format!("it may still be booting ({} s of grace left)", (BOOT_GRACE - booting).as_secs()));
        }
        if !self.now.reached_on_both(view.granted_until)
            && let Some(other) = self.heard_by(node)
            && self.state.rules.others_are_asked_first()
        {
            return hold(format!("{other} still hears it, and its lease may still run"));
        }
        let (left, voters) = self.state.voters_left_without(node);
        if self.state.rules.fences_leave_a_majority() && left * 2 <= voters {
            return hold(format!("only {left} of {voters} voters would be left in service, which is no majority"));
        }
        let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
        Some(Command::FenceWanted {
            node: node.clone(),
            incarnation: life.incarnation,
            reason: FenceReason::Lost { silent_ms },
        })
    }

    /// Another node that has lately heard this one, by a report that is fresh itself. It need not be admitted: who has just
    /// rebooted waits for the end of its old lease, and hears as well as any other. Its word delays a fence until the end
    /// of a lease at most, and proves nothing.
    fn heard_by(&self, node: &MemberName) -> Option<&MemberName> {
        self.state.nodes.keys().filter(|other| *other != node).find(|other| {
            let newest = self.leases.node(other).and_then(|view| view.newest.as_ref());
            self.leases.is_heard(self.state, other, self.now)
                && newest.is_some_and(|newest| newest.report.hears.contains(node))
        })
    }

    /// Evidence that needs no device: a new boot that reports in, or the watchdog's time.
    fn evidence(&self, node: &MemberName, fence: &Fence) -> Option<Evidence> {
        let view = self.leases.node(node)?;
        if let Some(newest) = &view.newest {
            let rules = self.state.rules;
            let later = newest.boot != fence.boot && newest.incarnation > fence.incarnation;
            let knows = newest.report.applied >= fence.wanted_at && newest.report.runs_nothing();
            if later && (knows || !rules.new_boots_prove_with_the_fence_applied()) {
                return Some(Evidence::NewBoot { boot: newest.boot.clone() });
            }
        }
        let promise = self.state.life(node)?.watchdog.as_ref()?;
        if promise.trust == Trust::Unproven && self.state.rules.only_trusted_watchdogs_prove_silence() {
            return None;
        }
        let silent_from = self.leases.silent_from(self.state, node, promise)?;
        if !self.now.reached_on_both(silent_from) {
            return None;
        }
        let waited = self.now.since_at_least(view.granted_until);
        Some(Evidence::WatchdogTime { waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) })
    }

    /// The shorter times of a new profile hold once every life has applied it.
    fn profile(&self, plan: &mut Plan) {
        let settings = &self.state.settings;
        if settings.unsettled.is_empty() {
            return;
        }
        let applied = self.state.nodes.iter().all(|(node, state)| {
            state.life.is_none()
                || self.leases.report(self.state, node).is_some_and(|r| r.applied >= settings.profile_since)
        });
        // A lease never shrinks, so a long one that was given before the change runs on at a life that has applied it.
        let ended = self.leases.longer_grants_ended(settings.profile.lease(), self.now);
        if applied && ended {
            plan.proposals.push(Command::SettleProfile { profile: settings.profile, since: settings.profile_since });
        }
    }

    /// How many resources each node owns.
    fn load(&self) -> BTreeMap<MemberName, usize> {
        let mut load: BTreeMap<MemberName, usize> = self.state.nodes.keys().map(|node| (node.clone(), 0)).collect();
        for resource in self.state.resources.values() {
            if let Some(count) = resource.phase.owner().and_then(|owner| load.get_mut(owner)) {
                *count += 1;
            }
        }
        load
    }

    fn resource(
        &self,
        name: &ResourceName,
        resource: &Resource,
        load: &mut BTreeMap<MemberName, usize>,
        plan: &mut Plan,
    ) -> Why {
        match &resource.phase {
            Phase::New => self.new_resource(name, resource, load, plan),
            Phase::Free { .. } => self.place(name, resource, None, load, plan),
            Phase::Placed { node } => self.placed(name, resource, node, plan),
            Phase::Releasing { node, to, .. } => self.releasing(name, resource, node, to.as_ref(), load, plan),
            Phase::Error { why, .. } => Why::Error { resource: name.clone(), why: why.clone() },
        }
    }

    /// A new resource: adopted where it runs, else placed once every node has said that it doesn't run there.
    fn new_resource(
        &self,
        name: &ResourceName,
        resource: &Resource,
        load: &mut BTreeMap<MemberName, usize>,
        plan: &mut Plan,
    ) -> Why {
        if !self.state.rules.new_resources_are_probed() {
            return self.place(name, resource, None, load, plan);
        }
        let mut running: Option<&MemberName> = None;
        let mut waiting: Option<&MemberName> = None;
        let mut unknown: Option<(&MemberName, &String)> = None;
        for (node, state) in &self.state.nodes {
            let fenced = state.life.is_none()
                && state.closed_at > 0
                && self.is_proven_dead(node)
                && !self.leases.is_heard(self.state, node, self.now);
            let observed = self
                .leases
                .report(self.state, node)
                .filter(|report| report.applied >= resource.since)
                .and_then(|report| report.resources.get(name));
            match observed {
                Some(Observed::Running) => match running {
                    None => running = Some(node),
                    Some(first) => return Why::RunsTwice { first: first.clone(), second: node.clone() },
                },
                Some(observed) if observed.is_stopped() => {}
                // A node that was fenced and never came back runs nothing.
                None if fenced => {}
                Some(Observed::Unknown { why }) => unknown = Some((node, why)),
                Some(_) | None => waiting = Some(node),
            }
        }
        if let Some((node, why)) = unknown {
            return Why::ProbeUnknown { node: node.clone(), why: why.clone() };
        }
        if let Some(node) = waiting {
            return Why::WaitingForProbe { node: node.clone() };
        }
        // Where it runs already, there it has to be taken over, or nowhere.
        if let Some(node) = running
            && !self.candidates(None).0.contains(&node)
        {
            let why = self.state.unprotectable(node).unwrap_or_else(|| format!("{node} is not in service"));
            return Why::NoNode { why: vec![format!("it runs on {node} already"), why] };
        }
        // Its owner's fence may have to rest on its watchdog from the very first moment.
        if let Some(node) = running
            && self.state.life(node).is_some_and(|life| life.watchdog.is_some())
            && !self.leases.report(self.state, node).is_some_and(|report| report.armed)
        {
            let why = format!("{node} has not armed its watchdog yet");
            return Why::NoNode { why: vec![format!("it runs on {node} already"), why] };
        }
        self.place(name, resource, running, load, plan)
    }

    /// The node's last fence is closed and proves that nothing at all was left running. The watchdog's time proves that of
    /// what the cluster had put there alone: for anything else it need not have been armed.
    fn is_proven_dead(&self, node: &MemberName) -> bool {
        let last = self.state.fences.values().rev().find(|fence| fence.node == *node).map(|fence| &fence.progress);
        match last {
            Some(Progress::Closed { evidence }) => match evidence {
                Evidence::BmcOff { .. } | Evidence::NewBoot { .. } | Evidence::Operator { .. } => true,
                Evidence::WatchdogTime { .. } => false,
            },
            Some(Progress::Wanted | Progress::Fenced { .. }) | None => false,
        }
    }

    fn placed(&self, name: &ResourceName, resource: &Resource, node: &MemberName, plan: &mut Plan) -> Why {
        if let Some(why) = self.absent(node, plan) {
            return why;
        }
        let Some(observed) = self.observed(name, resource, node) else {
            return Why::WaitingForReport { node: node.clone() };
        };
        match observed {
            Observed::Running if resource.requested == Requested::Started => Why::Runs,
            Observed::Stopped if resource.requested == Requested::Stopped => Why::StoppedAsAsked,
            Observed::Failed { why } if resource.requested == Requested::Started => {
                let why = format!("it failed on {node}: {why}");
                let elsewhere = self.candidates(Some(node)).0.iter().any(|n| !resource.failed_on.contains(*n));
                plan.proposals.push(if resource.relocations < resource.spec.max_relocate && elsewhere {
                    Command::Release {
                        resource: name.clone(),
                        generation: resource.generation,
                        to: None,
                        why: MoveReason::Failed { why },
                    }
                } else {
                    Command::GiveUp { resource: name.clone(), generation: resource.generation, why }
                });
                Why::Deciding
            }
            Observed::StopFailed { why } => {
                let why = format!("it can't be stopped on {node}: {why}");
                plan.proposals.push(Command::GiveUp { resource: name.clone(), generation: resource.generation, why });
                Why::Deciding
            }
            Observed::Failed { .. } => Why::StoppedAsAsked,
            Observed::Running
            | Observed::Stopped
            | Observed::Starting
            | Observed::Stopping
            | Observed::Unknown { .. } => Why::AtWork { node: node.clone(), observed: observed.clone() },
        }
    }

    fn releasing(
        &self,
        name: &ResourceName,
        resource: &Resource,
        node: &MemberName,
        to: Option<&MemberName>,
        load: &mut BTreeMap<MemberName, usize>,
        plan: &mut Plan,
    ) -> Why {
        if let Some(why) = self.absent(node, plan) {
            return why;
        }
        let Some(observed) = self.observed(name, resource, node) else {
            return Why::WaitingForReport { node: node.clone() };
        };
        if let Observed::StopFailed { why } = observed {
            let why = format!("it can't be stopped on {node}: {why}");
            plan.proposals.push(Command::GiveUp { resource: name.clone(), generation: resource.generation, why });
            return Why::Deciding;
        }
        if !observed.is_stopped() {
            return Why::AtWork { node: node.clone(), observed: observed.clone() };
        }
        self.place(name, resource, to, load, plan)
    }

    /// Why an owner can't be waited for: it is being fenced, or lost.
    fn absent(&self, node: &MemberName, plan: &Plan) -> Option<Why> {
        if let Some((id, _)) = self.state.open_fence(node) {
            return Some(Why::WaitingForFence { node: node.clone(), id });
        }
        plan.unfenced.get(node).map(|why| Why::CannotFence { node: node.clone(), why: why.clone() })
    }

    /// What a node last saw of a resource, if its report had applied the resource's last decision.
    fn observed(&self, name: &ResourceName, resource: &Resource, node: &MemberName) -> Option<&Observed> {
        self.leases
            .report(self.state, node)
            .filter(|report| report.applied >= resource.since || !self.state.rules.reports_are_ordered())
            .and_then(|report| report.resources.get(name))
    }

    /// The nodes that could take a protected resource, and why the others can't.
    fn candidates(&self, except: Option<&MemberName>) -> (Vec<&MemberName>, Vec<String>) {
        let mut fit = Vec::new();
        let mut why = Vec::new();
        for node in self.state.nodes.keys().filter(|node| Some(*node) != except) {
            if !self.state.in_service(node) {
                why.push(format!("{node} is not in service"));
            } else if !self.leases.is_heard(self.state, node, self.now) {
                why.push(format!("{node} is not heard"));
            } else if let Some(reason) = self.state.unprotectable(node) {
                why.push(format!("{node}: {reason}"));
            } else {
                fit.push(node);
            }
        }
        if self.state.nodes.is_empty() {
            why.push("no node has joined".to_owned());
        }
        (fit, why)
    }

    /// Chooses the least loaded fit node, `wish` first, and proposes it.
    fn place(
        &self,
        name: &ResourceName,
        resource: &Resource,
        wish: Option<&MemberName>,
        load: &mut BTreeMap<MemberName, usize>,
        plan: &mut Plan,
    ) -> Why {
        let (mut fit, mut why) = self.candidates(None);
        fit.retain(|node| {
            let failed = resource.failed_on.contains(*node);
            if failed {
                why.push(format!("it failed on {node}"));
            }
            !failed
        });
        let least = fit.iter().min_by_key(|node| (load.get(**node).copied().unwrap_or(0), *node)).copied();
        let chosen = wish.filter(|wish| fit.contains(wish)).or(least);
        let life = chosen.and_then(|node| self.state.life(node).map(|life| (node, life)));
        let Some((node, life)) = life else {
            // Nothing but nodes on which it failed is left, and all are in service: waiting would not help.
            let exhausted = !resource.failed_on.is_empty()
                && self.candidates(None).0.len() == self.state.nodes.len()
                && !matches!(resource.phase, Phase::New);
            if exhausted {
                let why = why.join("; ");
                plan.proposals.push(Command::GiveUp { resource: name.clone(), generation: resource.generation, why });
                return Why::Deciding;
            }
            return Why::NoNode { why };
        };
        *load.entry(node.clone()).or_default() += 1;
        plan.proposals.push(Command::Assign {
            resource: name.clone(),
            generation: resource.generation,
            to: node.clone(),
            incarnation: life.incarnation,
        });
        Why::Deciding
    }
}

/// The voters that the cluster should have: the appliance alone while fewer than two nodes have joined, since two voters
/// are worse than one; else the appliance and two nodes, or four from five nodes on. Nodes that vote already keep voting.
#[must_use]
pub fn wanted_voters(state: &State) -> std::collections::BTreeSet<u64> {
    let appliance: std::collections::BTreeSet<u64> =
        state.members.values().filter(|m| m.role == Role::Appliance).map(|m| m.raft_id).collect();
    let mut nodes: Vec<(&MemberName, u64)> =
        state.members.iter().filter(|(_, m)| m.role == Role::Node).map(|(name, m)| (name, m.raft_id)).collect();
    let want = match nodes.len() {
        0 | 1 => 0,
        2..=4 => 2,
        _ => 4,
    };
    nodes.sort_by_key(|(name, id)| (!state.voters.contains(id), !state.in_service(name), *id));
    appliance.into_iter().chain(nodes.into_iter().take(want).map(|(_, id)| id)).collect()
}

#[cfg(test)]
mod tests;
