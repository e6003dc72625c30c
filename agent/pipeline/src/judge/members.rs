//! Members, operators, and the lives of nodes.

use crate::command::Void;
use crate::decision::Decision;
use crate::level::Level;
use crate::name::MemberName;
use crate::report::{Capacity, Leave};
use crate::resource::{Phase, Requested, Resource};
use crate::state::{
    ADDRESSES_MAX, BOOT_MAX_MS, LeavePolicy, Leaving, Life, MEMBERS_MAX, Member, NodeState, OPERATORS_MAX, Role, State,
};

impl State {
    pub(super) fn add_member(
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

    pub(super) fn remove_member(&mut self, at: u64, name: &MemberName, raft_id: u64) -> Result<(), Void> {
        let Some(member) = self.members.get(name) else {
            return Err(Void::Unknown { name: name.to_string() });
        };
        if member.raft_id != raft_id {
            return Err(Void::Outdated);
        }
        if let Some((id, _)) = self.open_fence(name) {
            return Err(Void::FenceOpen { id, node: name.clone() });
        }
        // Only the appliance knows whether a command of a fence can still land, and only it can say that none can.
        if member.role == Role::Appliance
            && self.level >= Level::FAILED_MOVES_COUNT
            && let Some((id, fence)) = self.fences.iter().find(|(_, fence)| fence.is_open())
        {
            return Err(Void::FenceOpen { id: *id, node: fence.node.clone() });
        }
        // A change of who votes needs a majority of those who vote now, and nobody hears whoever was removed.
        let (left, voters) = self.voters_left_without(name);
        let levelled = self.level >= Level::FAILED_MOVES_COUNT;
        if levelled && self.voters.contains(&raft_id) && left * 2 <= voters {
            return Err(Void::VoteNeeded { node: name.clone(), left, voters });
        }
        let owned = self.owned_by(name).next().cloned();
        if let Some(resource) = owned {
            return Err(Void::StillOwns { node: name.clone(), resource });
        }
        // Nobody owns a new resource yet, so a node that lives may be the one that runs it. Without this node's word it
        // would be started elsewhere. So it is with what the cluster has only forgotten until it is armed again.
        let is_new = |r: &Resource| {
            r.phase == Phase::New || (levelled && r.phase == Phase::Ignored && r.requested != Requested::Ignored)
        };
        let unproven = self.life(name).and_then(|_| self.resources.iter().find(|(_, r)| is_new(r)));
        if let Some((resource, _)) = unproven {
            return Err(Void::StillOwns { node: name.clone(), resource: resource.clone() });
        }
        self.members.remove(name);
        self.nodes.remove(name);
        self.removed.insert(name.clone(), raft_id);
        for resource in self.resources.values_mut().filter(|resource| resource.home.as_ref() == Some(name)) {
            resource.home = None;
        }
        self.say(at, Decision::Removed { name: name.clone() });
        Ok(())
    }

    pub(super) fn add_operator(&mut self, at: u64, name: String, key: String) -> Result<(), Void> {
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

    pub(super) fn admit(
        &mut self,
        at: u64,
        node: MemberName,
        life: Life,
        closed: u64,
        capacity: Capacity,
        booted_in_ms: u64,
    ) -> Result<(), Void> {
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
        // The leader has seen the admitted machine silent, or gone: not that another one has taken its place meanwhile.
        let elsewhere = state.life.as_ref().is_some_and(|old| old.is_of_another(life.machine.as_ref()));
        if elsewhere && self.level >= Level::FAILED_MOVES_COUNT && self.rules.one_boot_per_grant() {
            return Err(Void::Outdated);
        }
        let new_boot = state.life.as_ref().is_none_or(|old| old.boot != life.boot);
        // Whoever ran on without a watchdog has to show first that the promise holds again. On a new boot nothing runs.
        let was_unbound = !new_boot && state.life.as_ref().is_some_and(|old| old.unbound.is_some());
        let mut life = life;
        if was_unbound || !self.settings.arming.binds() {
            life.unbound = Some(self.applied);
        }
        let incarnation = life.incarnation;
        state.last_incarnation = incarnation;
        state.life = Some(life);
        state.leaving = None;
        state.capacity = capacity;
        if booted_in_ms > 0 {
            // Half of what was learnt is kept, so that one slow boot isn't remembered for ever.
            state.boot_ms = booted_in_ms.min(BOOT_MAX_MS).max(state.boot_ms / 2);
        }
        if new_boot {
            self.hold_until_its_turn(&node);
        }
        self.hold_what_comes(&node);
        self.say(at, Decision::Admitted { node, incarnation, new_boot });
        Ok(())
    }

    /// On a new boot nothing runs yet: what is placed there starts in its turn, or moves before it has started.
    fn hold_until_its_turn(&mut self, node: &MemberName) {
        for resource in self.resources.values_mut() {
            if matches!(&resource.phase, Phase::Placed { node: owner } if owner == node) {
                resource.held = true;
                // What had come to the boot before is gone with it.
                resource.arriving = None;
            }
        }
    }

    pub(super) fn bind(&mut self, node: &MemberName, incarnation: u64, since: u64) -> Result<(), Void> {
        let binds = self.settings.arming.binds();
        let Some(state) = self.nodes.get_mut(node) else {
            return Err(Void::Unknown { name: node.to_string() });
        };
        let leaving = state.leaving.is_some();
        match &mut state.life {
            Some(life) if life.incarnation == incarnation && life.unbound == Some(since) && binds && !leaving => {
                life.unbound = None;
                Ok(())
            }
            Some(_) | None => Err(Void::Outdated),
        }
    }

    pub(super) fn leave(&mut self, at: u64, node: MemberName, incarnation: u64, how: Leave) -> Result<(), Void> {
        if let Some((id, _)) = self.open_fence(&node) {
            return Err(Void::FenceOpen { id, node });
        }
        let since = self.applied;
        let policy = self.settings.shutdown.on(how);
        let Some(state) = self.nodes.get_mut(&node) else {
            return Err(Void::Unknown { name: node.to_string() });
        };
        let Some(life) = state.life.as_mut().filter(|life| life.incarnation == incarnation) else {
            return Err(Void::Outdated);
        };
        if state.leaving.as_ref().is_some_and(|leaving| leaving.how == how) {
            return Err(Void::Outdated);
        }
        if how == Leave::AgentRestart {
            // What runs goes on without a watchdog: its time proves nothing from here on.
            life.unbound = Some(since);
        }
        state.leaving = Some(Leaving { incarnation, how, policy, since });
        self.say(at, Decision::Leaving { node, how, policy });
        Ok(())
    }

    pub(super) fn left(&mut self, at: u64, node: MemberName, incarnation: u64, since: u64) -> Result<(), Void> {
        if let Some((id, _)) = self.open_fence(&node) {
            return Err(Void::FenceOpen { id, node });
        }
        let Some(state) = self.nodes.get_mut(&node) else {
            return Err(Void::Unknown { name: node.to_string() });
        };
        let current = state.life.as_ref().is_some_and(|life| life.incarnation == incarnation);
        let Some(leaving) = state.leaving.as_ref().filter(|leaving| current && leaving.since == since) else {
            return Err(Void::Outdated);
        };
        if leaving.how == Leave::AgentRestart {
            return Err(Void::Outdated);
        }
        // What it said of a resource that comes to it live may be from before the arrival.
        let comes = self.resources.values().any(|resource| resource.phase.second_owner() == Some(&node));
        if comes && self.rules.nobody_leaves_while_something_comes() {
            return Err(Void::Outdated);
        }
        let returns = leaving.policy == LeavePolicy::Migrate;
        state.life = None;
        // What is placed there waits, for its return or until the manager gives it away.
        self.say(at, Decision::Left { node: node.clone() });
        self.free_all_of(at, &node, true, returns);
        Ok(())
    }

    pub(super) fn set_maintenance(&mut self, at: u64, node: MemberName, on: bool) -> Result<(), Void> {
        let Some(state) = self.nodes.get_mut(&node) else {
            return Err(Void::Unknown { name: node.to_string() });
        };
        if state.maintenance != on {
            state.maintenance = on;
            // Whoever says so again wants it tried again.
            for resource in self.resources.values_mut().filter(|resource| resource.phase.owner() == Some(&node)) {
                resource.moves_failed = None;
            }
            self.say(at, Decision::Maintenance { node, on });
        }
        Ok(())
    }
}
