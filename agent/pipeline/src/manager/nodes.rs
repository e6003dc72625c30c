//! What the manager decides about nodes: who is admitted, who goes, who is lost, and what proves it.

use std::time::Duration;

use super::{BOOT_GRACE, Plan, View};
use crate::command::Command;
use crate::fence::{Evidence, Fence, FenceReason, Progress};
use crate::level::Level;
use crate::name::{MemberName, ResourceName};
use crate::report::{Leave, Trust};
use crate::resource::Resource;
use crate::state::Arming;
use crate::time::Reading;

/// An agent that said that it restarts gets this long before its node counts as lost.
pub const RESTART_GRACE: Duration = Duration::from_secs(120);

impl View<'_> {
    pub(super) fn node(&self, node: &MemberName, plan: &mut Plan) {
        if let Some((id, fence)) = self.state.open_fence(node) {
            match &fence.progress {
                Progress::Wanted => {
                    if let Some(evidence) = self.evidence(node, fence) {
                        plan.proposals.push(Command::Fenced { id, evidence });
                    }
                }
                // Without an appliance nobody works devices: no command can land late.
                Progress::Fenced { .. } if self.state.appliance().is_none() => {
                    plan.proposals.push(Command::Closed { id });
                }
                Progress::Fenced { .. } | Progress::Closed { .. } => {}
            }
            if self.state.rules.closed_before_readmission() {
                return;
            }
        }
        self.admission(node, plan);
        self.going(node, plan);
        self.binding(node, plan);
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
        if newest.level < self.state.level || self.leases.diverged(node).is_some() {
            return;
        }
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
        let other_boot = state.life.as_ref().is_some_and(|life| life.boot != newest.boot);
        let elsewhere = state.life.as_ref().is_some_and(|life| life.is_of_another(newest.machine.as_ref()));
        let twin = elsewhere || (other_boot && !self.now.reached_on_both(view.granted_until));
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
            capacity: newest.capacity,
            booted_in_ms: newest.booted_in_ms.unwrap_or(0),
        });
    }

    /// A node that says that it goes, and one that has said so and runs nothing any more.
    fn going(&self, node: &MemberName, plan: &mut Plan) {
        let Some(state) = self.state.nodes.get(node) else { return };
        let (Some(life), Some(report)) = (&state.life, self.leases.report(self.state, node)) else { return };
        let Some(how) = report.leaving else { return };
        match &state.leaving {
            Some(leaving) if leaving.how == how => {
                // What it said may be from before something came to it live, also where that move is over by now.
                let comes = self.state.resources.values().any(|resource| {
                    let untold = report.applied < resource.since && resource.phase.is_owned_by(node);
                    untold || resource.phase.second_owner() == Some(node)
                });
                let comes = comes && self.state.rules.nobody_leaves_while_something_comes();
                let gone = report.applied >= leaving.since && report.runs_nothing() && !comes;
                if gone && how != Leave::AgentRestart {
                    let since = leaving.since;
                    plan.proposals.push(Command::Left { node: node.clone(), incarnation: life.incarnation, since });
                }
            }
            Some(_) | None => {
                plan.proposals.push(Command::Leave { node: node.clone(), incarnation: life.incarnation, how });
            }
        }
    }

    /// A life whose promise was suspended and is kept again.
    fn binding(&self, node: &MemberName, plan: &mut Plan) {
        let Some(state) = self.state.nodes.get(node) else { return };
        let Some(life) = &state.life else { return };
        let Some(since) = life.unbound.filter(|_| self.state.settings.arming.binds() && state.leaving.is_none()) else {
            return;
        };
        let kept = self.leases.report(self.state, node).is_some_and(|report| {
            report.applied >= since && (report.armed || report.runs_nothing() || life.watchdog.is_none())
        });
        if kept {
            plan.proposals.push(Command::Bind { node: node.clone(), incarnation: life.incarnation, since });
        }
    }

    /// How long a node of unknown fate may be booting.
    pub(super) fn boot_grace(&self, node: &MemberName) -> Duration {
        let learnt = self.state.nodes.get(node).map_or(0, |state| state.boot_ms);
        BOOT_GRACE.max(Duration::from_millis(learnt) * 3 / 2)
    }

    /// A fence for a node that is lost, owns something, and isn't heard by others while its lease may run.
    fn loss(&self, node: &MemberName, plan: &mut Plan) -> Option<Command> {
        let life = self.state.life(node)?;
        let view = self.leases.node(node)?;
        let wanted = |name: &ResourceName| self.state.resources.get(name).is_some_and(Resource::is_fenced_for);
        self.state.owned_by(node).find(|name| wanted(name))?;
        let silent = self.now.since_at_least(view.heard);
        if silent < self.state.settings.profile.lost_after() {
            return None;
        }
        let mut hold = |why: String| {
            plan.unfenced.insert(node.clone(), why);
            None
        };
        if !self.state.settings.arming.acts() {
            let arming = self.state.settings.arming;
            return hold(format!(
                "the cluster is {arming}: nobody is fenced for being lost; `tiebreaker arm` ends that"
            ));
        }
        let booting = self.now.since_at_least(self.started);
        let grace = self.boot_grace(node);
        if !view.heard_once && !self.met.contains(node) && booting < grace {
            let left = (grace - booting).as_secs();
            return hold(format!("it may still be booting ({left} s of grace left, then it is fenced)"));
        }
        let leaving = self.state.nodes.get(node).and_then(|state| state.leaving.as_ref());
        if leaving.is_some_and(|leaving| leaving.how == Leave::AgentRestart) && silent < RESTART_GRACE {
            let left = (RESTART_GRACE - silent).as_secs();
            return hold(format!("its agent said that it restarts ({left} s of grace left, then it is fenced)"));
        }
        if !self.now.reached_on_both(view.granted_until)
            && let Some(other) = self.heard_by(node)
            && self.state.rules.others_are_asked_first()
        {
            return hold(format!(
                "{other} still hears it, and its lease may still run: it is fenced as soon as one of the two is over"
            ));
        }
        let (left, voters) = self.state.voters_left_without(node);
        if self.state.rules.fences_leave_a_majority() && left * 2 <= voters {
            return hold(format!(
                "only {left} of {voters} voters would be left in service, which is no majority: bring another voter back, \
                 `tiebreaker status` shows who is away"
            ));
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
        if let Some(newest) = view.newest.as_ref().filter(|_| self.leases.diverged(node).is_none()) {
            let rules = self.state.rules;
            let life = self.state.life(node);
            let elsewhere = life.is_some_and(|life| life.is_of_another(newest.machine.as_ref()));
            let later = newest.boot != fence.boot
                && newest.incarnation > fence.incarnation
                && !(elsewhere && rules.one_boot_per_grant());
            let knows = newest.report.applied >= fence.wanted_at && newest.report.runs_nothing();
            if later && (knows || !rules.new_boots_prove_with_the_fence_applied()) {
                return Some(Evidence::NewBoot { boot: newest.boot.clone() });
            }
        }
        let silent_from = self.silent_from(node)?;
        if !self.now.reached_on_both(silent_from) {
            return None;
        }
        let waited = self.now.since_at_least(view.granted_until);
        Some(Evidence::WatchdogTime { waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) })
    }

    /// From when on lease and watchdog prove that a node is silent; `None` where its watchdog proves nothing.
    pub(super) fn silent_from(&self, node: &MemberName) -> Option<Reading> {
        let life = self.state.life(node)?;
        if life.unbound.is_some() && self.state.rules.unbound_lives_prove_nothing() {
            return None;
        }
        let promise = life.watchdog.as_ref()?;
        if promise.trust == Trust::Unproven && self.state.rules.only_trusted_watchdogs_prove_silence() {
            return None;
        }
        self.leases.silent_from(self.state, node, promise)
    }

    /// The shorter times of a new profile hold once every life has applied it.
    pub(super) fn profile(&self, plan: &mut Plan) {
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

    /// Arming ends when every node keeps its promise again, or as soon as one says that it can't.
    pub(super) fn arming(&self, plan: &mut Plan) {
        let Arming::Arming { since, .. } = self.state.settings.arming else { return };
        let mut all = true;
        for (node, state) in &self.state.nodes {
            let Some(life) = &state.life else { continue };
            let failed = |why: String| Command::ArmingFailed { since, why };
            // Who has just begun to lead hasn't heard anybody yet.
            let silent = self.leases.node(node).map_or(Duration::ZERO, |view| self.now.since_at_least(view.heard));
            if silent < self.state.settings.profile.lost_after() && !self.leases.is_heard(self.state, node, self.now) {
                all = false;
                continue;
            }
            if !self.leases.is_heard(self.state, node, self.now) {
                plan.proposals.push(failed(format!("{node} is not heard")));
                return;
            }
            let report = self.leases.report(self.state, node).filter(|report| report.applied >= since);
            if let Some(trouble) = report.and_then(|report| report.trouble.as_ref()) {
                plan.proposals.push(failed(format!("the watchdog of {node}: {trouble}")));
                return;
            }
            all &= life.unbound.is_none();
        }
        if all {
            plan.proposals.push(Command::Armed { since });
        }
    }

    /// The feature level that is to be committed: the lowest of what all admitted members know, this leader's own among
    /// them, once it is higher than what holds. A member that isn't admitted and knows less stops when it learns of it.
    ///
    /// An appliance tells its level by leading: while it doesn't, none is raised.
    #[must_use]
    pub fn raised_level(&self, leader: &MemberName, known: Level) -> Option<Command> {
        if self.state.appliance().is_some_and(|appliance| appliance != leader) {
            return None;
        }
        let mut lowest = known;
        for (node, state) in &self.state.nodes {
            let Some(life) = &state.life else { continue };
            let newest = self.leases.node(node)?.newest.as_ref()?;
            if newest.incarnation != life.incarnation {
                return None;
            }
            lowest = lowest.min(newest.level);
        }
        (lowest > self.state.level).then_some(Command::RaiseLevel { from: self.state.level, to: lowest })
    }

    /// Votes that were left out for a while are expected again when that is over.
    pub(super) fn votes(&self, plan: &mut Plan) {
        if self.state.settings.fewer_votes.as_ref().is_some_and(|fewer| self.wall_ms >= fewer.until_ms) {
            plan.proposals.push(Command::Set(crate::command::Setting::FewerVotes(None)));
        }
    }
}
