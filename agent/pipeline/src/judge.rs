//! `apply`, the judge: the one place where the replicated state changes.
//!
//! Pure: the same state and entry give the same result on every member, whenever and however often they meet.

use std::collections::BTreeSet;

use crate::command::{Command, ENTRY_VERSION, Entry, Void};
use crate::decision::Decision;
use crate::fence::{Evidence, Fence, FenceId, FenceReason, Progress};
use crate::name::{MemberName, ResourceName};
use crate::resource::{MoveReason, Phase, Requested, Resource, ResourceSpec};
use crate::state::{
    ADDRESSES_MAX, CLOSED_FENCES_MAX, DEVICES_MAX, Life, MEMBERS_MAX, Member, NodeState, OPERATORS_MAX, RESOURCES_MAX,
    Role, State,
};

impl State {
    /// Applies the entry at `index`. `Err` means void: the state has moved to `index` and is otherwise unchanged.
    ///
    /// # Errors
    /// [`Void`] says what the command rested on that doesn't hold any more.
    pub fn apply(&mut self, index: u64, entry: Entry) -> Result<(), Void> {
        self.applied = index;
        if entry.version > ENTRY_VERSION {
            return Err(Void::Version { version: entry.version });
        }
        self.newest_ms = self.newest_ms.max(entry.at_ms);
        let at = entry.at_ms;
        match entry.command {
            Command::AddMember { name, role, addresses, key } => self.add_member(at, name, role, addresses, key),
            Command::RemoveMember { name, raft_id } => self.remove_member(at, &name, raft_id),
            Command::AddOperator { name, key } => self.add_operator(at, name, key),
            Command::RemoveOperator { name } => {
                if self.operators.remove(&name).is_none() {
                    return Err(Void::Unknown { name });
                }
                self.say(at, Decision::OperatorRemoved { name });
                Ok(())
            }
            Command::Admit { node, incarnation, boot, watchdog, machine, closed } => {
                let life = Life { incarnation, boot, watchdog, machine, since: index };
                self.admit(at, node, life, closed)
            }
            Command::AddResource { name, spec, requested } => self.add_resource(at, name, spec, requested),
            Command::SetResource { name, spec, requested } => self.set_resource(at, name, spec, requested),
            Command::RemoveResource { name } => self.remove_resource(at, name),
            Command::Release { resource, generation, to, why } => self.release(at, resource, generation, to, why),
            Command::Assign { resource, generation, to, incarnation } => {
                self.assign(at, resource, generation, to, incarnation)
            }
            Command::GiveUp { resource, generation, why } => self.give_up(at, resource, generation, why),
            Command::FenceWanted { node, incarnation, reason } => self.fence_wanted(at, node, incarnation, reason),
            Command::Fenced { id, evidence } => self.fenced(at, id, evidence),
            Command::FenceFailed { id, why } => self.fence_failed(at, id, why),
            Command::Closed { id } => self.close(at, id),
            Command::SetDevices { node, devices } => {
                let Some(state) = self.nodes.get_mut(&node) else {
                    return Err(Void::Unknown { name: node.to_string() });
                };
                if devices.len() > DEVICES_MAX {
                    return Err(Void::Full { what: "devices per node".into(), most: DEVICES_MAX });
                }
                let (proven, of) = (devices.iter().filter(|d| d.proven).count(), devices.len());
                state.devices = devices;
                self.say(at, Decision::Devices { node, proven, of });
                Ok(())
            }
            Command::SetProfile { profile } => {
                if profile != self.settings.profile {
                    self.settings.unsettled.insert(self.settings.profile);
                    self.settings.profile = profile;
                    self.settings.profile_since = index;
                    self.say(at, Decision::ProfileSet { profile });
                }
                Ok(())
            }
            Command::SetTakeback { seconds } => {
                self.settings.takeback_s = Some(seconds);
                Ok(())
            }
            Command::SettleProfile { profile, since } => {
                let settings = &self.settings;
                let late = profile != settings.profile || since != settings.profile_since;
                if late && self.rules.late_commands_are_void() {
                    return Err(Void::Outdated);
                }
                self.settings.unsettled.clear();
                Ok(())
            }
        }
    }

    /// Applies an entry that carries no command.
    pub fn apply_nothing(&mut self, index: u64) {
        self.applied = index;
    }

    /// Applies a change of who votes.
    pub fn apply_voters(&mut self, index: u64, voters: BTreeSet<u64>) {
        self.applied = index;
        if self.voters != voters {
            self.voters = voters;
            let name = |id: &u64| self.member_by_id(*id).map_or_else(|| format!("#{id}"), |(name, _)| name.to_string());
            let voters = self.voters.iter().map(name).collect();
            self.say(self.newest_ms, Decision::VotersChanged { voters });
        }
    }

    fn add_member(
        &mut self,
        at: u64,
        name: MemberName,
        role: Role,
        addresses: Vec<String>,
        key: String,
    ) -> Result<(), Void> {
        if addresses.len() > ADDRESSES_MAX {
            return Err(Void::Full { what: "addresses per member".into(), most: ADDRESSES_MAX });
        }
        if let Some(member) = self.members.get_mut(&name) {
            if member.key == key && member.role == role {
                member.addresses = addresses;
                return Ok(());
            }
            return Err(Void::Exists { name: name.to_string() });
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(Void::Full { what: "members".into(), most: MEMBERS_MAX });
        }
        let raft_id = self.next_raft_id;
        self.next_raft_id += 1;
        if role == Role::Node {
            self.nodes.insert(name.clone(), NodeState::default());
        }
        self.members.insert(name.clone(), Member { raft_id, role, addresses, key });
        self.say(at, Decision::Joined { name });
        Ok(())
    }

    fn remove_member(&mut self, at: u64, name: &MemberName, raft_id: u64) -> Result<(), Void> {
        let Some(member) = self.members.get(name) else {
            return Err(Void::Unknown { name: name.to_string() });
        };
        if member.raft_id != raft_id {
            return Err(Void::Outdated);
        }
        if let Some((id, _)) = self.open_fence(name) {
            return Err(Void::FenceOpen { id, node: name.clone() });
        }
        let owned = self.owned_by(name).next().cloned();
        if let Some(resource) = owned {
            return Err(Void::StillOwns { node: name.clone(), resource });
        }
        // Nobody owns a new resource yet, so a node that lives may be the one that runs it. Without this node's word it
        // would be started elsewhere.
        let unproven = self.life(name).and_then(|_| self.resources.iter().find(|(_, r)| r.phase == Phase::New));
        if let Some((resource, _)) = unproven {
            return Err(Void::StillOwns { node: name.clone(), resource: resource.clone() });
        }
        self.members.remove(name);
        self.nodes.remove(name);
        self.removed.insert(name.clone(), raft_id);
        self.say(at, Decision::Removed { name: name.clone() });
        Ok(())
    }

    fn add_operator(&mut self, at: u64, name: String, key: String) -> Result<(), Void> {
        if self.operators.len() >= OPERATORS_MAX {
            return Err(Void::Full { what: "operators".into(), most: OPERATORS_MAX });
        }
        if self.operators.contains_key(&name) {
            return Err(Void::Exists { name });
        }
        self.operators.insert(name.clone(), key);
        self.say(at, Decision::OperatorAdded { name });
        Ok(())
    }

    fn admit(&mut self, at: u64, node: MemberName, life: Life, closed: u64) -> Result<(), Void> {
        if let Some((id, _)) = self.open_fence(&node)
            && self.rules.closed_before_readmission()
        {
            return Err(Void::FenceOpen { id, node });
        }
        let Some(state) = self.nodes.get_mut(&node) else {
            return Err(Void::Unknown { name: node.to_string() });
        };
        // The report behind this admission must have applied the closing of the node's last fence, and a life is
        // admitted once: an older start of the agent never comes back.
        if self.rules.late_commands_are_void()
            && (life.incarnation <= state.last_incarnation || closed < state.closed_at)
        {
            return Err(Void::Outdated);
        }
        let new_boot = state.life.as_ref().is_none_or(|old| old.boot != life.boot);
        let incarnation = life.incarnation;
        state.last_incarnation = incarnation;
        state.life = Some(life);
        self.say(at, Decision::Admitted { node, incarnation, new_boot });
        Ok(())
    }

    fn add_resource(
        &mut self,
        at: u64,
        name: ResourceName,
        spec: ResourceSpec,
        requested: Requested,
    ) -> Result<(), Void> {
        if self.resources.contains_key(&name) {
            return Err(Void::Exists { name: name.to_string() });
        }
        if self.resources.len() >= RESOURCES_MAX {
            return Err(Void::Full { what: "resources".into(), most: RESOURCES_MAX });
        }
        spec.check().map_err(|error| Void::BadSpec { why: error.to_string() })?;
        let resource = Resource {
            spec,
            requested,
            phase: Phase::New,
            generation: 0,
            since: 0,
            relocations: 0,
            failed_on: BTreeSet::new(),
        };
        self.resources.insert(name.clone(), resource);
        self.decide(&name, Phase::New);
        self.say(at, Decision::ResourceAdded { resource: name });
        Ok(())
    }

    fn set_resource(
        &mut self,
        at: u64,
        name: ResourceName,
        spec: Option<ResourceSpec>,
        requested: Requested,
    ) -> Result<(), Void> {
        if let Some(spec) = &spec {
            spec.check().map_err(|error| Void::BadSpec { why: error.to_string() })?;
        }
        let Some(resource) = self.resources.get_mut(&name) else {
            return Err(Void::Unknown { name: name.to_string() });
        };
        if let Some(spec) = spec {
            resource.spec = spec;
        }
        resource.requested = requested;
        resource.relocations = 0;
        resource.failed_on.clear();
        // An error is cleared back to its owner, or to a fresh look at every node where it has none.
        let phase = match resource.phase.clone() {
            Phase::Error { node: Some(node), .. } => Phase::Placed { node },
            Phase::Error { node: None, .. } => Phase::New,
            other @ (Phase::New | Phase::Placed { .. } | Phase::Releasing { .. } | Phase::Free { .. }) => other,
        };
        self.decide(&name, phase);
        self.say(at, Decision::ResourceSet { resource: name, requested });
        Ok(())
    }

    fn remove_resource(&mut self, at: u64, name: ResourceName) -> Result<(), Void> {
        if self.resources.remove(&name).is_none() {
            return Err(Void::Unknown { name: name.to_string() });
        }
        self.say(at, Decision::ResourceRemoved { resource: name });
        Ok(())
    }

    /// Gives a resource a new phase under a new generation.
    fn decide(&mut self, name: &ResourceName, phase: Phase) {
        let generation = self.next_generation;
        let since = self.applied;
        if let Some(resource) = self.resources.get_mut(name) {
            resource.phase = phase;
            resource.generation = generation;
            resource.since = since;
            self.next_generation += 1;
        }
    }

    /// The resource, if `generation` is still its last decision.
    fn current(&self, name: &ResourceName, generation: u64) -> Result<&Resource, Void> {
        let Some(resource) = self.resources.get(name) else {
            return Err(Void::Unknown { name: name.to_string() });
        };
        if resource.generation != generation && self.rules.late_commands_are_void() {
            return Err(Void::Outdated);
        }
        Ok(resource)
    }

    fn release(
        &mut self,
        at: u64,
        name: ResourceName,
        generation: u64,
        to: Option<MemberName>,
        why: MoveReason,
    ) -> Result<(), Void> {
        let resource = self.current(&name, generation)?;
        let node = match &resource.phase {
            Phase::Placed { node } => node.clone(),
            Phase::New | Phase::Releasing { .. } | Phase::Free { .. } | Phase::Error { .. } => {
                return Err(Void::Outdated);
            }
        };
        if let MoveReason::Failed { .. } = why
            && let Some(resource) = self.resources.get_mut(&name)
        {
            resource.relocations += 1;
            resource.failed_on.insert(node.clone());
        }
        self.decide(&name, Phase::Releasing { node: node.clone(), to, why: why.clone() });
        self.say(at, Decision::Released { resource: name, node, why });
        Ok(())
    }

    fn assign(
        &mut self,
        at: u64,
        name: ResourceName,
        generation: u64,
        to: MemberName,
        incarnation: u64,
    ) -> Result<(), Void> {
        let resource = self.current(&name, generation)?;
        let recovered_from = match &resource.phase {
            Phase::Free { from } => Some(from.clone()),
            Phase::New | Phase::Releasing { .. } => None,
            // Only a mutation run gets here with another owner's resource: a move in a single commit.
            Phase::Placed { .. } if !self.rules.release_then_assign() => None,
            Phase::Placed { .. } | Phase::Error { .. } => return Err(Void::Outdated),
        };
        if let Some((id, _)) = self.open_fence(&to) {
            return Err(Void::FenceOpen { id, node: to });
        }
        match self.life(&to) {
            None => return Err(Void::NotAdmitted { node: to }),
            Some(life) if life.incarnation != incarnation && self.rules.late_commands_are_void() => {
                return Err(Void::Outdated);
            }
            Some(_) => {}
        }
        self.decide(&name, Phase::Placed { node: to.clone() });
        self.say(at, Decision::Assigned { resource: name, node: to, recovered_from });
        Ok(())
    }

    fn give_up(&mut self, at: u64, name: ResourceName, generation: u64, why: String) -> Result<(), Void> {
        let resource = self.current(&name, generation)?;
        let node = match &resource.phase {
            // Nobody owns a new resource by the log, and yet one of the nodes may run it: it stays new.
            Phase::New | Phase::Error { .. } => return Err(Void::Outdated),
            Phase::Placed { node } | Phase::Releasing { node, .. } => Some(node.clone()),
            Phase::Free { .. } => None,
        };
        self.decide(&name, Phase::Error { node, why: why.clone() });
        self.say(at, Decision::GivenUp { resource: name, why });
        Ok(())
    }

    fn fence_wanted(&mut self, at: u64, node: MemberName, incarnation: u64, reason: FenceReason) -> Result<(), Void> {
        if let Some((id, _)) = self.open_fence(&node) {
            return Err(Void::FenceOpen { id, node });
        }
        let Some(life) = self.life(&node) else {
            return Err(Void::NotAdmitted { node });
        };
        if life.incarnation != incarnation && self.rules.late_commands_are_void() {
            return Err(Void::Outdated);
        }
        let (incarnation, boot) = (life.incarnation, life.boot.clone());
        let (left, voters) = self.voters_left_without(&node);
        if self.rules.fences_leave_a_majority() && left * 2 <= voters {
            return Err(Void::NoMajorityLeft { node, left, voters });
        }
        let id = FenceId(self.next_fence);
        self.next_fence += 1;
        let fence = Fence {
            node: node.clone(),
            incarnation,
            boot,
            reason: reason.clone(),
            progress: Progress::Wanted,
            wanted_at: self.applied,
            last_failure: None,
        };
        self.fences.insert(id, fence);
        self.say(at, Decision::FenceWanted { id, node, reason });
        Ok(())
    }

    fn fenced(&mut self, at: u64, id: FenceId, evidence: Evidence) -> Result<(), Void> {
        let Some(fence) = self.fences.get_mut(&id) else {
            return Err(Void::FenceNotOpen { id });
        };
        match fence.progress {
            Progress::Wanted => {}
            Progress::Fenced { .. } | Progress::Closed { .. } => return Err(Void::FenceNotOpen { id }),
        }
        fence.progress = Progress::Fenced { evidence: evidence.clone() };
        let node = fence.node.clone();
        if let Some(state) = self.nodes.get_mut(&node) {
            state.life = None;
        }
        let owned: Vec<ResourceName> = self.owned_by(&node).cloned().collect();
        for name in owned {
            // What was given up stays given up, but nobody runs it any more.
            let phase = match self.resources.get(&name).map(|resource| &resource.phase) {
                Some(Phase::Error { why, .. }) => Phase::Error { node: None, why: why.clone() },
                Some(Phase::New | Phase::Placed { .. } | Phase::Releasing { .. } | Phase::Free { .. }) | None => {
                    Phase::Free { from: node.clone() }
                }
            };
            self.decide(&name, phase);
        }
        self.say(at, Decision::Fenced { id, node, evidence });
        Ok(())
    }

    fn fence_failed(&mut self, at: u64, id: FenceId, why: String) -> Result<(), Void> {
        let Some(fence) = self.fences.get_mut(&id).filter(|fence| fence.is_open()) else {
            return Err(Void::FenceNotOpen { id });
        };
        let node = fence.node.clone();
        // The same failure again is not news: a device that stays dead must not fill the timeline.
        if fence.last_failure.as_deref() != Some(&why) {
            fence.last_failure = Some(why.clone());
            self.say(at, Decision::FenceFailed { id, node, why });
        }
        Ok(())
    }

    fn close(&mut self, at: u64, id: FenceId) -> Result<(), Void> {
        let applied = self.applied;
        let Some(fence) = self.fences.get_mut(&id) else {
            return Err(Void::FenceNotOpen { id });
        };
        let evidence = match &fence.progress {
            Progress::Fenced { evidence } => evidence.clone(),
            Progress::Wanted | Progress::Closed { .. } => return Err(Void::FenceNotOpen { id }),
        };
        fence.progress = Progress::Closed { evidence };
        let node = fence.node.clone();
        if let Some(state) = self.nodes.get_mut(&node) {
            state.closed_at = applied;
        }
        let closed: Vec<FenceId> = self.fences.iter().filter(|(_, f)| !f.is_open()).map(|(id, _)| *id).collect();
        for old in closed.iter().take(closed.len().saturating_sub(CLOSED_FENCES_MAX)) {
            self.fences.remove(old);
        }
        self.say(at, Decision::FenceClosed { id, node });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
