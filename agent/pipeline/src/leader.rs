//! The leader's side of leases: who holds a grant until when, and what every node last reported.
//!
//! All of it is memory of one leader in one term. Whoever starts leading assumes a grant to every admitted life, so
//! nothing has to be handed over.

mod power;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fence::FenceId;
use crate::level::Level;
use crate::name::{MemberName, ResourceName};
use crate::profile::silence_after_lease;
use crate::report::{Answer, Capacity, LeaseVerdict, Refusal, Renew, Report, WatchdogPromise};
use crate::rules::Rules;
use crate::state::State;
use crate::time::Reading;

use power::Claim;
pub use power::Doubt;

/// What the leader knows of one node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The end of the last grant that the node may hold.
    pub granted_until: Reading,
    /// When it was last heard; the start of leading, if never.
    pub heard: Reading,
    /// Whether it was heard at all since then.
    pub heard_once: bool,
    /// Its newest renewal: what it says of itself.
    pub newest: Option<Newest>,
    /// Why it got no lease the last time that it asked.
    pub refused: Option<Refusal>,
    /// The number under which it is a member: who comes back under an old name counts its starts anew.
    raft_id: Option<u64>,
}

/// The newest renewal of a node, by (incarnation, seq).
#[derive(Clone, Debug)]
pub struct Newest {
    /// Which start of the agent sent it.
    pub incarnation: u64,
    /// Its number.
    pub seq: u64,
    /// The boot that sent it.
    pub boot: String,
    /// The promise that it makes.
    pub watchdog: Option<WatchdogPromise>,
    /// The machine's UUID.
    pub machine: Option<String>,
    /// What the node has to give.
    pub capacity: Capacity,
    /// How long its machine took to boot, if this agent is the first of its boot.
    pub booted_in_ms: Option<u64>,
    /// The highest feature level that its program knows.
    pub level: Level,
    /// The report.
    pub report: Report,
}

/// The leader's lease table.
#[derive(Clone, Debug)]
pub struct Leases {
    term: u64,
    since: Reading,
    nodes: BTreeMap<MemberName, NodeView>,
    /// Lives whose fence this leader has proposed, and when: they get no grant whatever becomes of the proposal.
    condemned: BTreeMap<MemberName, (u64, Reading)>,
    /// Fences whose device reads off.
    claims: BTreeMap<FenceId, Claim>,
    /// Members whose copy of the state differs from the majority's, with the log index where that was seen.
    diverged: BTreeMap<MemberName, u64>,
    /// Since when each resource is reported to run.
    up: BTreeMap<ResourceName, Reading>,
    /// When the last grant of each length ends: at most one line per profile.
    lengths: BTreeMap<Duration, Reading>,
    rules: Rules,
}

impl Leases {
    /// Starts leading in `term` at `now`: everyone in the state is assumed to hold a grant from this moment, given by
    /// the last leader at the very end of its quorum lease.
    #[must_use]
    pub fn start(now: Reading, term: u64, state: &State) -> Self {
        // The last leader may have given the longest lease of all until the end of its own right to give any.
        let longest = state.longest_lease();
        let lengths = BTreeMap::from([(longest, now.after(state.longest_quorum_lease() + longest))]);
        let mut leases = Self {
            term,
            since: now,
            nodes: BTreeMap::new(),
            condemned: BTreeMap::new(),
            claims: BTreeMap::new(),
            diverged: BTreeMap::new(),
            up: BTreeMap::new(),
            lengths,
            rules: state.rules,
        };
        for name in state.nodes.keys() {
            let view = leases.assumed(state, name);
            leases.nodes.insert(name.clone(), view);
        }
        leases
    }

    fn assumed(&self, state: &State, name: &MemberName) -> NodeView {
        let granted_until = if self.rules.leader_assumes_grants() {
            self.since.after(state.longest_quorum_lease() + state.longest_lease())
        } else {
            self.since
        };
        let raft_id = state.members.get(name).map(|member| member.raft_id);
        NodeView { granted_until, heard: self.since, heard_once: false, newest: None, refused: None, raft_id }
    }

    /// The term that this table belongs to.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// When this leader started leading.
    #[must_use]
    pub const fn since(&self) -> Reading {
        self.since
    }

    /// What is known of every node.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<MemberName, NodeView> {
        &self.nodes
    }

    /// What is known of a node.
    #[must_use]
    pub fn node(&self, name: &MemberName) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// Since when a resource is reported to run, as far as this leader has seen.
    #[must_use]
    pub fn up_since(&self, resource: &ResourceName) -> Option<Reading> {
        self.up.get(resource).copied()
    }

    fn note_what_runs(&mut self, now: Reading, state: &State, name: &MemberName) {
        let Some(newest) = self.nodes.get(name).and_then(|view| view.newest.as_ref()) else { return };
        for (resource, observed) in &newest.report.resources {
            if observed.is_running() {
                self.up.entry(resource.clone()).or_insert(now);
            } else if state.resources.get(resource).is_none_or(|resource| resource.phase.owner() == Some(name)) {
                self.up.remove(resource);
            }
        }
    }

    /// Whose copy of the state differs from the majority's: they get no grant, and nothing is decided by their word, since
    /// they may not even know what they should look at.
    pub fn distrust(&mut self, diverged: &BTreeMap<MemberName, u64>) {
        if self.diverged != *diverged {
            self.diverged.clone_from(diverged);
        }
    }

    /// Whether a member's copy of the state is known to differ, and where that was seen.
    #[must_use]
    pub fn diverged(&self, name: &MemberName) -> Option<u64> {
        self.diverged.get(name).copied()
    }

    /// The newest report of a node's admitted life.
    #[must_use]
    pub fn report<'a>(&'a self, state: &State, name: &MemberName) -> Option<&'a Report> {
        if self.diverged.contains_key(name) {
            return None;
        }
        let life = state.life(name)?;
        let newest = self.current(state, name)?.newest.as_ref()?;
        (newest.incarnation == life.incarnation).then_some(&newest.report)
    }

    /// No more grants to this life: its fence is about to be proposed.
    pub fn condemn(&mut self, now: Reading, name: &MemberName, incarnation: u64) {
        // The first time counts: whoever fell silent after it may have done so because of this fence.
        if self.condemned.get(name).is_none_or(|(known, _)| *known != incarnation) {
            self.condemned.insert(name.clone(), (incarnation, now));
        }
    }

    /// The log voided the fence of this life: it may be granted again.
    pub fn pardon(&mut self, name: &MemberName, incarnation: u64) {
        if self.condemned.get(name).is_some_and(|(known, _)| *known == incarnation) {
            self.condemned.remove(name);
        }
    }

    /// True once every grant that was longer than `lease` has ended, whoever gave it.
    #[must_use]
    pub fn longer_grants_ended(&self, lease: Duration, now: Reading) -> bool {
        self.lengths.iter().all(|(length, end)| *length <= lease || now.reached_on_both(*end))
    }

    /// True while a node of this name counts as heard.
    #[must_use]
    pub fn is_heard(&self, state: &State, name: &MemberName, now: Reading) -> bool {
        self.current(state, name)
            .is_some_and(|view| view.heard_once && now.since_at_most(view.heard) < state.settings.profile.lost_after())
    }

    /// What is known of the member that bears this name now: what one said that was removed since is not its word.
    fn current(&self, state: &State, name: &MemberName) -> Option<&NodeView> {
        let raft_id = state.members.get(name).map(|member| member.raft_id);
        self.nodes.get(name).filter(|view| view.raft_id == raft_id)
    }

    /// The moment from which a node that keeps its watchdog promise is certainly silent.
    #[must_use]
    pub fn silent_from(&self, state: &State, name: &MemberName, promise: &WatchdogPromise) -> Option<Reading> {
        let view = self.nodes.get(name)?;
        let watchdog = Duration::from_millis(promise.promised_ms);
        Some(view.granted_until.after(silence_after_lease(state.longest_lease(), watchdog)))
    }

    /// Takes a renewal and answers it. `lease_until` is the end of the quorum lease, `None` while its gate is shut;
    /// `commit` is the leader's commit index.
    pub fn renew(
        &mut self,
        now: Reading,
        state: &State,
        lease_until: Option<Reading>,
        commit: u64,
        name: &MemberName,
        renew: Renew,
    ) -> Answer {
        let (seq, incarnation) = (renew.seq, renew.incarnation);
        let verdict = match self.judge(now, state, lease_until, name, renew) {
            Ok(()) => {
                let ttl = state.settings.profile.lease();
                let end = now.after(ttl);
                self.lengths.entry(ttl).and_modify(|last| *last = last.later_of(end)).or_insert(end);
                if let Some(view) = self.nodes.get_mut(name) {
                    view.granted_until = view.granted_until.later_of(now.after(ttl));
                    view.refused = None;
                }
                let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                LeaseVerdict::Granted { ttl_ms, commit }
            }
            Err(why) => {
                if let Some(view) = self.nodes.get_mut(name) {
                    view.refused = Some(why.clone());
                }
                LeaseVerdict::Refused { why }
            }
        };
        self.note_what_runs(now, state, name);
        Answer { seq, incarnation, term: self.term, verdict }
    }

    fn judge(
        &mut self,
        now: Reading,
        state: &State,
        lease_until: Option<Reading>,
        name: &MemberName,
        renew: Renew,
    ) -> Result<(), Refusal> {
        if !state.nodes.contains_key(name) {
            return Err(Refusal::NotAMember);
        }
        if !self.nodes.contains_key(name) {
            let view = self.assumed(state, name);
            self.nodes.insert(name.clone(), view);
        }
        let raft_id = state.members.get(name).map(|member| member.raft_id);
        if self.nodes.get(name).is_some_and(|view| view.raft_id != raft_id) {
            // Another machine under an old name: what the old one said and deserved is not this one's. What the old one
            // was granted still holds.
            let mut view = self.assumed(state, name);
            if let Some(old) = self.nodes.get(name) {
                view.granted_until = view.granted_until.later_of(old.granted_until);
            }
            self.nodes.insert(name.clone(), view);
            self.condemned.remove(name);
        }
        let life = state.life(name);
        // A node that has seen a newer term holds this leader for deposed.
        let in_quorum = lease_until.is_some_and(|until| !now.reached_on_either(until)) && renew.term <= self.term;
        let Some(view) = self.nodes.get_mut(name) else {
            return Err(Refusal::NotAMember);
        };
        let other_boot = life.is_some_and(|life| life.boot != renew.boot);
        let twin = other_boot && !now.reached_on_both(view.granted_until);
        // Starts are counted on the node's disk, so the same count on another boot is a copy of that disk. Not even its
        // report counts: it would hide that the admitted machine has fallen silent.
        let copy = other_boot && life.is_some_and(|life| life.incarnation == renew.incarnation);
        // Nor is a copy that was started more often a later boot of the admitted machine, however long that is silent: it
        // proves nothing about that one, which has to be fenced first.
        let elsewhere = life.is_some_and(|life| life.is_of_another(renew.machine.as_ref()));
        if (copy || elsewhere) && self.rules.one_boot_per_grant() {
            return Err(Refusal::Twin);
        }
        let newer =
            view.newest.as_ref().is_none_or(|newest| (renew.incarnation, renew.seq) > (newest.incarnation, newest.seq));
        let (incarnation, level) = (renew.incarnation, renew.level);
        if newer || !self.rules.reports_are_ordered() {
            view.heard = now;
            view.heard_once = true;
            view.newest = Some(Newest {
                incarnation,
                seq: renew.seq,
                boot: renew.boot,
                watchdog: renew.watchdog,
                machine: renew.machine,
                capacity: renew.capacity,
                booted_in_ms: renew.booted_in_ms,
                level: renew.level,
                report: renew.report,
            });
        }
        let proposed = self.condemned.get(name).is_some_and(|(known, _)| *known == incarnation);
        let condemned = state.open_fence(name).is_some() || proposed;
        if condemned && self.rules.no_grant_to_the_condemned() {
            return Err(Refusal::Condemned);
        }
        if !in_quorum && self.rules.grants_need_the_quorum_lease() {
            return Err(Refusal::NoQuorumLease);
        }
        if let Some(index) = self.diverged(name) {
            return Err(Refusal::Diverged { index });
        }
        if level < state.level {
            return Err(Refusal::TooOld { committed: state.level, known: level });
        }
        match life {
            Some(life) if life.incarnation == incarnation => Ok(()),
            Some(life) if life.incarnation > incarnation => Err(Refusal::Outdated),
            Some(_) if twin => Err(Refusal::Twin),
            Some(_) | None => Err(Refusal::NotAdmitted),
        }
    }
}

#[cfg(test)]
mod tests;
