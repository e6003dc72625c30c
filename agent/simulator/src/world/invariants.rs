//! What must hold after every step, whatever happens.
//!
//! The simulator sees what no member sees: what really runs where, and everything that any member has applied. Each
//! check stands at the step that could break it.

use std::fmt;

use tiebreaker_consensus::Role as RaftRole;
use tiebreaker_member::core::Message;
use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::fence::{Fence, FenceReason};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::report::LeaseVerdict;
use tiebreaker_pipeline::resource::Requested;
use tiebreaker_pipeline::state::{Arming, DisarmMode, State};
use tiebreaker_pipeline::time::Reading;

use super::dice::{MS, SEC};
use super::machine::{Power, Who};
use super::network::HEARD_WITHIN;
use super::{Record, World};

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What happened.
    pub what: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:03} s: {}", self.invariant, self.at_ms / 1000, self.at_ms % 1000, self.what)
    }
}

/// What has been seen so far.
pub(crate) struct Watch {
    /// The furthest state that any member has applied.
    pub(crate) committed: State,
    pub(crate) violations: Vec<Violation>,
    pub(crate) fences: usize,
    pub(crate) recovered: usize,
    pub(crate) leases_lost: u64,
    /// Digests by index, to compare replicas.
    digest: Option<(u64, [u8; 32])>,
}

/// Broken invariants that are kept.
const VIOLATIONS_MAX: usize = 100;
/// Replicas are compared at every index that is a multiple of this, and at the end.
const COMPARE_EVERY: u64 = 64;
/// What a node has heard for this long, every leader knows that has heard the node for as long.
const TOLD_WITHIN: u64 = 6 * SEC;

impl Watch {
    pub(crate) const fn new(committed: State) -> Self {
        Self { committed, violations: Vec::new(), fences: 0, recovered: 0, leases_lost: 0, digest: None }
    }

    fn fence_of(&self, node: &MemberName) -> Option<&Fence> {
        self.committed.open_fence(node).map(|(_, fence)| fence)
    }
}

impl World {
    /// The invariants that were broken, in their order.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.watch.violations
    }

    /// Fences begun so far.
    #[must_use]
    pub const fn fences(&self) -> usize {
        self.watch.fences
    }

    /// Resources recovered from a fenced node so far.
    #[must_use]
    pub const fn recovered(&self) -> usize {
        self.watch.recovered
    }

    /// Leases that ran out so far.
    #[must_use]
    pub const fn leases_lost(&self) -> u64 {
        self.watch.leases_lost
    }

    /// An invariant is broken.
    pub fn violated(&mut self, invariant: &'static str, what: String) {
        let violation = Violation { invariant, what, at_ms: self.now / MS };
        self.record(None, || Record::Violated(violation.clone()));
        if self.watch.violations.len() < VIOLATIONS_MAX {
            self.watch.violations.push(violation);
        }
    }

    /// A member has applied more: what does the timeline say that nobody had applied before?
    pub(crate) fn observe(&mut self, who: Who) {
        let Some(process) = &self.machines[who].process else { return };
        let state = process.core.state();
        let known = self.watch.committed.applied;
        if state.applied.is_multiple_of(COMPARE_EVERY) {
            let digest = (state.applied, state.digest());
            match self.watch.digest {
                Some((index, other)) if index == digest.0 && other != digest.1 => {
                    let name = self.machines[who].name.clone();
                    return self.violated("replicas", format!("{name} differs at index {index}"));
                }
                Some((index, _)) if index >= digest.0 => {}
                Some(_) | None => self.watch.digest = Some(digest),
            }
        }
        if state.applied <= known {
            return;
        }
        let lines: Vec<_> = state.log.iter().filter(|line| line.index > known).cloned().collect();
        let before = std::mem::replace(&mut self.watch.committed, state.clone());
        self.look_at_hard_rules(&before, &lines);
        for line in lines {
            self.record(None, || Record::Decided(line.clone()));
            match line.decision {
                Decision::FenceWanted { node, reason, .. } => {
                    self.watch.fences += 1;
                    if let FenceReason::Lost { .. } = reason {
                        self.look_at_loss(&node);
                    }
                }
                Decision::Admitted { node, .. } => self.look_at_admission(&node),
                Decision::Fenced { node, id, .. } => {
                    let fence = self.watch.committed.fences.get(&id).cloned();
                    if let Some(fence) = fence {
                        self.look_at_evidence(&node, &fence);
                    }
                }
                Decision::Assigned { resource, node, recovered_from } => {
                    if recovered_from.is_some() {
                        self.watch.recovered += 1;
                    }
                    self.look_at_assignment(&resource, &node);
                }
                Decision::Arming { arming: Arming::Disarmed { mode: DisarmMode::Ignore, .. }, .. } => {
                    let all: Vec<ResourceName> = self.watch.committed.resources.keys().cloned().collect();
                    for machine in &mut self.machines {
                        all.iter().for_each(|resource| machine.workloads.set_managed(resource, false));
                    }
                }
                Decision::ResourceSet { resource, requested: Requested::Ignored }
                | Decision::ResourceRemoved { resource } => {
                    for machine in &mut self.machines {
                        machine.workloads.set_managed(&resource, false);
                    }
                }
                _ => {}
            }
        }
    }

    /// True where the leader has heard a machine without a gap for so long that whatever it has decided lately it has
    /// decided with that one there.
    pub(super) fn leader_hears(&self, who: Who) -> bool {
        let leader = (0..self.machines.len()).find(|who| {
            self.machines[*who].process.as_ref().is_some_and(|process| matches!(process.leads, Some((_, true))))
        });
        leader.and_then(|leader| self.machines[leader].process.as_ref()).is_some_and(|process| {
            let heard = process.heard[who];
            self.now - heard.any <= HEARD_WITHIN && self.now - heard.without_gap_since > TOLD_WITHIN
        })
    }

    /// A node that counts as lost: not one whose lease may still run while another node in service hears it, both seen
    /// from the other node and from the leader for so long that every report has told it.
    fn look_at_loss(&mut self, node: &MemberName) {
        let Some(lost) = self.who(node) else { return };
        let now = self.now;
        let heard_long = |who: Who, from: Who| {
            self.machines[who].process.as_ref().is_some_and(|process| {
                let heard = process.heard[from];
                now - heard.any <= HEARD_WITHIN && now - heard.without_gap_since > TOLD_WITHIN
            })
        };
        let machine = &self.machines[lost];
        let reading = machine.clock.reading(now);
        let leased =
            now < machine.lease_over_at && machine.lease_end.is_some_and(|end| !reading.reached_on_either(end));
        let leader = (0..self.machines.len()).find(|who| {
            self.machines[*who].process.as_ref().is_some_and(|process| matches!(process.leads, Some((_, true))))
        });
        let Some(leader) = leader.filter(|_| leased) else { return };
        let witness = (1..self.machines.len()).find(|who| {
            *who != lost
                && self.watch.committed.in_service(&self.machines[*who].name)
                && heard_long(*who, lost)
                && (*who == leader || heard_long(leader, *who))
        });
        if let Some(witness) = witness {
            let what = format!("{node} shall be fenced inside its lease, and node{witness} hears it");
            self.violated("nothing is fenced needlessly", what);
        }
    }

    /// Whoever is admitted after a fence hasn't been ended by it.
    fn look_at_admission(&mut self, node: &MemberName) {
        let Some(who) = self.admitted(node) else { return };
        let ended = self.machines[who].ended_by_fence.as_ref();
        if self.watch.committed.life(node).is_some_and(|life| Some(&life.boot) == ended) {
            self.violated(
                "only the living are admitted",
                format!("{node} is admitted as a boot that a fence has ended"),
            );
        }
    }

    /// Invariant 2: evidence is true at the moment that it commits.
    fn look_at_evidence(&mut self, node: &MemberName, fence: &Fence) {
        let fenced = self.machines.iter().find(|machine| machine.name == *node && machine.boot_id() == fence.boot);
        let Some(machine) = fenced else { return };
        if machine.power == Power::Up {
            let alive: Vec<String> = machine.workloads.managed().map(ToString::to_string).collect();
            if !alive.is_empty() {
                let what = format!("{node} counts as fenced ({:?}) and runs {}", fence.progress, alive.join(", "));
                self.violated("no start without proof", what);
            }
        }
    }

    /// Invariant 2: nothing is placed while another machine runs it.
    fn look_at_assignment(&mut self, resource: &ResourceName, to: &MemberName) {
        let owner = self.admitted(to);
        for (who, machine) in self.machines.iter().enumerate() {
            if Some(who) != owner && machine.workloads.is_alive(resource) {
                let what = format!("{resource} is placed on {to} and is alive on {}", machine.name);
                return self.violated("no start without proof", what);
            }
        }
        if let Some(who) = owner {
            self.machines[who].workloads.set_managed(resource, true);
        }
    }

    /// Invariant 2, and the executor's own bound.
    pub(crate) fn look_at_start(&mut self, who: Who, resource: &ResourceName) {
        let machine = &self.machines[who];
        let reading = machine.clock.reading(self.now);
        if machine.lease_end.is_none_or(|end| reading.reached_on_either(end)) {
            let what = format!("{} begins to start {resource} without a lease", machine.name);
            return self.violated("no lease, no start", what);
        }
        if machine.is_trusted() && !machine.dog.is_armed() {
            let what = format!("{} begins to start {resource} with its watchdog not armed", machine.name);
            return self.violated("nothing runs unguarded", what);
        }
        self.look_at_fresh_start(who, resource);
        for (other, machine) in self.machines.iter().enumerate() {
            if other != who && machine.workloads.is_alive(resource) {
                let what = format!("{} begins to start {resource}, alive on {}", self.machines[who].name, machine.name);
                return self.violated("no start without proof", what);
            }
        }
    }

    /// Invariant 1.
    pub(crate) fn look_at_running(&mut self, who: Who, resource: &ResourceName) {
        for (other, machine) in self.machines.iter().enumerate() {
            if other != who && machine.workloads.runs(resource) {
                let what = format!("{resource} runs on {} and on {}", machine.name, self.machines[who].name);
                return self.violated("one runner", what);
            }
        }
    }

    /// What comes live comes behind an armed watchdog, where anybody relies on that. But a machine whose host paused it
    /// between the word to send and the sending can't know how long ago that was, until its lease is over by its own clock:
    /// the next one comes with all that was decided meanwhile.
    pub(crate) fn look_at_arrival(&mut self, from: Who, who: Who, resource: &ResourceName, began: u64) {
        let lease = u64::try_from(self.watch.committed.longest_lease().as_nanos()).unwrap_or(u64::MAX);
        let late = self.machines[from].paused_until.is_some_and(|end| began <= end.saturating_add(lease + SEC));
        if !self.is_protected(resource) || late {
            return;
        }
        let machine = &self.machines[who];
        let state = &self.watch.committed;
        let relied_on = state.life(&machine.name).is_some_and(|life| life.unbound.is_none());
        if machine.is_trusted() && !machine.dog.is_armed() && relied_on && state.settings.arming.binds() {
            let what = format!("{resource} comes live to {}, whose watchdog is not armed", machine.name);
            self.violated("nothing runs unguarded", what);
        }
    }

    /// Invariant 3, where the promise holds: the lease has ended and the promised time has passed.
    pub(crate) fn must_be_gone(&mut self, who: Who) {
        let machine = &mut self.machines[who];
        machine.gone_by = None;
        // In a disarmed cluster, and while an agent restarts in good order, nobody relies on the promise.
        let state = &self.watch.committed;
        let suspended = state.life(&machine.name).is_some_and(|life| life.unbound.is_some());
        if suspended || !state.settings.arming.binds() {
            return;
        }
        let alive: Vec<String> = machine.workloads.managed_running().map(ToString::to_string).collect();
        if !alive.is_empty() {
            let what = format!("{} still runs {} after its lease and its promise", machine.name, alive.join(", "));
            self.violated("no lease, no petting", what);
        }
    }

    /// Invariant 4: an "off" is about to be carried out.
    pub(crate) fn look_at_power_off(&mut self, node: Who) {
        let machine = &self.machines[node];
        let Some(fence) = self.watch.fence_of(&machine.name) else {
            let what = format!("{} is switched off without an open fence", machine.name);
            return self.violated("only the majority fences", what);
        };
        if machine.boot_id() != fence.boot && machine.workloads.managed_running().next().is_some() {
            let what = format!("{} is switched off in a later life, which runs something", machine.name);
            self.violated("only the majority fences", what);
        }
    }

    /// Invariant 4: after an "off" was carried out.
    pub(crate) fn look_at_majority(&mut self) {
        let state = &self.watch.committed;
        let voters = state.voters.len();
        let off = self.machines.iter().filter(|m| m.off_by_fence && state.voters.contains(&m.raft_id.0)).count();
        if off > 0 && (voters - off) * 2 <= voters {
            self.violated("only the majority fences", format!("{off} of {voters} voters are switched off"));
        }
    }

    /// Leases come from the one leader that may give them, and never for a life that is to be fenced.
    pub(crate) fn look_at_sending(&mut self, who: Who, to: &MemberName, message: &Message) {
        let Message::Answer(answer) = message else { return };
        let LeaseVerdict::Granted { .. } = answer.verdict else { return };
        let machine = &self.machines[who];
        let Some(process) = &machine.process else { return };
        // The clocks of a machine that its host has paused are wrong, and it doesn't know: it may hold a quorum lease that
        // is long over. What it grants then counts from the sending of renewals as old as that, and its term is too low.
        let paused = machine.halts > 0 && machine.kind.pausable;
        // Whoever leads has condemned it or applied its fence, and a new leader has applied all that others have.
        let elsewhere = || self.watch.committed.open_fence(to).filter(|_| !paused);
        if process.core.state().open_fence(to).or_else(elsewhere).is_some() {
            let what = format!("{} grants a lease to {to}, whose fence is decided", machine.name);
            return self.violated("no grant to the condemned", what);
        }
        let reading = machine.clock.reading(self.now);
        let term = process.core.leadership(reading).term;
        if paused {
            return;
        }
        let other = self.machines.iter().enumerate().find(|(other, machine)| {
            *other != who
                && machine.moves()
                && !(machine.kind.pausable && machine.halts > 0)
                && machine.process.as_ref().is_some_and(|process| {
                    let leadership = process.core.leadership(machine.clock.reading(self.now));
                    leadership.term > term && matches!(leadership.role, RaftRole::Leader { lease_until: Some(_) })
                })
        });
        if let Some((other, _)) = other {
            let what = format!(
                "{} grants a lease while {} may grant them in a later term",
                self.machines[who].name, self.machines[other].name
            );
            self.violated("one leader grants", what);
        }
    }

    /// After every call of a core.
    pub(crate) fn after_step(&mut self, who: Who, reading: Reading) {
        let recorded = self.records.is_some();
        let machine = &mut self.machines[who];
        let Some(process) = &mut machine.process else { return };
        if let Some(node) = process.core.node() {
            let lost = node.leases_lost();
            if lost > process.leases_lost {
                self.watch.leases_lost += lost - process.leases_lost;
                process.leases_lost = lost;
                self.say(who, || "its lease has run out".into());
            }
        }
        let Some(process) = &mut self.machines[who].process else { return };
        let leadership = process.core.leadership(reading);
        let leads = match leadership.role {
            RaftRole::Leader { lease_until } => Some((leadership.term, lease_until.is_some())),
            RaftRole::Follower { .. } | RaftRole::Candidate => None,
        };
        if leads != process.leads {
            let before = std::mem::replace(&mut process.leads, leads);
            if recorded {
                let term = leadership.term;
                match (before, leads) {
                    (_, Some((_, true))) => self.record(Some(who), || Record::Leads { term }),
                    (Some((_, true)), Some((_, false))) => self.say(who, || "may not grant any more".into()),
                    (None, Some((_, false))) => self.say(who, || format!("is elected in term {term}")),
                    (Some(_), None) => self.say(who, || "leads no more".into()),
                    (Some((_, false)), Some((_, false))) | (None, None) => {}
                }
            }
        }
        if matches!(leads, Some((_, true))) {
            self.look_at_leaders(who);
        }
    }

    /// No two members may believe at once that they may grant.
    fn look_at_leaders(&mut self, who: Who) {
        let unreliable = |who: Who| self.machines[who].kind.pausable && self.machines[who].halts > 0;
        if unreliable(who) {
            return;
        }
        let second = (0..self.machines.len()).find(|other| {
            let machine = &self.machines[*other];
            *other != who
                && machine.moves()
                && !unreliable(*other)
                && machine.process.as_ref().is_some_and(|process| {
                    process.leads.is_some()
                        && matches!(
                            process.core.leadership(machine.clock.reading(self.now)).role,
                            RaftRole::Leader { lease_until: Some(_) }
                        )
                })
        });
        if let Some(other) = second {
            let what =
                format!("{} and {} both hold a quorum lease", self.machines[who].name, self.machines[other].name);
            self.violated("one leader grants", what);
        }
    }
}
