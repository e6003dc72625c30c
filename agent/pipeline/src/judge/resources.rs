//! Resources: what operators ask of them, and where the manager puts them.

use std::collections::BTreeMap;

use crate::command::Void;
use crate::decision::Decision;
use crate::level::Level;
use crate::name::{MemberName, ResourceName};
use crate::resource::{Class, FailedMoves, MoveReason, Phase, Requested, Resource, ResourceSpec};
use crate::state::{Arming, DisarmMode, RESOURCES_MAX, State};

impl State {
    pub(super) fn add_resource(
        &mut self,
        at: u64,
        name: ResourceName,
        spec: ResourceSpec,
        requested: Requested,
        first: Option<MemberName>,
    ) -> Result<(), Void> {
        if self.resources.contains_key(&name) {
            return Err(Void::Exists { name: name.to_string() });
        }
        if self.resources.len() >= RESOURCES_MAX {
            return Err(Void::Full { what: "resources".into(), most: RESOURCES_MAX });
        }
        spec.check().map_err(|error| Void::BadSpec { why: error.to_string() })?;
        if let Some(stranger) = first.iter().chain(&spec.only_on).find(|node| !self.nodes.contains_key(*node)) {
            return Err(Void::Unknown { name: stranger.to_string() });
        }
        let resource = Resource {
            spec,
            requested,
            phase: Phase::New,
            generation: 0,
            since: 0,
            relocations: 0,
            failed_on: BTreeMap::new(),
            held: false,
            fresh: false,
            home: None,
            first,
            locked: None,
            moves_failed: None,
            arriving: None,
        };
        self.resources.insert(name.clone(), resource);
        let phase = self.managed_again(requested);
        self.decide(&name, phase);
        self.say(at, Decision::ResourceAdded { resource: name });
        Ok(())
    }

    pub(super) fn set_resource(
        &mut self,
        at: u64,
        name: ResourceName,
        spec: Option<ResourceSpec>,
        requested: Requested,
    ) -> Result<(), Void> {
        if let Some(spec) = &spec {
            spec.check().map_err(|error| Void::BadSpec { why: error.to_string() })?;
        }
        let looked_at = self.level >= Level::STARTS_ARE_LOOKED_AT;
        let Some(resource) = self.resources.get_mut(&name) else {
            return Err(Void::Unknown { name: name.to_string() });
        };
        if let (Phase::Error { why, .. }, Requested::Started | Requested::Stopped) = (&resource.phase, requested) {
            return Err(Void::InError { resource: name, why: why.clone() });
        }
        if let Some(spec) = spec {
            resource.spec = spec;
        }
        let starts = resource.requested != Requested::Started && requested == Requested::Started;
        resource.requested = requested;
        if requested == Requested::Ignored && resource.phase != Phase::Ignored {
            resource.first = resource.phase.owner().cloned();
        }
        resource.relocations = 0;
        resource.failed_on.clear();
        resource.moves_failed = None;
        resource.arriving = None;
        let phase = match resource.phase.clone() {
            _ if requested == Requested::Ignored => Phase::Ignored,
            Phase::Ignored => self.managed_again(requested),
            // An error is cleared back to its owner, or to a fresh look at every node where it has none.
            Phase::Error { node: Some(node), .. } => Phase::Placed { node },
            Phase::Error { node: None, .. } => Phase::New,
            // Its owner was fenced while nobody wanted it elsewhere.
            Phase::Placed { node } if requested != Requested::Disabled && self.is_gone(&node) => {
                Phase::Free { from: node }
            }
            other @ (Phase::New
            | Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }) => other,
        };
        // While it was stopped it was nobody's neighbour: rules and memory may be against its node by now.
        let looks = starts && looked_at && stays_with_an_owner(&phase);
        if let Some(resource) = self.resources.get_mut(&name) {
            // On the way to another node being held means something else.
            resource.held |= looks && !matches!(phase, Phase::Migrating { .. });
            resource.fresh = looks || (resource.fresh && requested == Requested::Started);
        }
        self.decide(&name, phase);
        self.say(at, Decision::ResourceSet { resource: name, requested });
        Ok(())
    }

    pub(super) fn remove_resource(&mut self, at: u64, name: ResourceName) -> Result<(), Void> {
        if self.resources.remove(&name).is_none() {
            return Err(Void::Unknown { name: name.to_string() });
        }
        self.say(at, Decision::ResourceRemoved { resource: name });
        Ok(())
    }

    /// Gives a resource a new phase under a new generation.
    pub(super) fn decide(&mut self, name: &ResourceName, phase: Phase) {
        let generation = self.next_generation;
        let since = self.applied;
        if let Some(resource) = self.resources.get_mut(name) {
            if !matches!(phase, Phase::Placed { .. }) {
                resource.arriving = None;
            }
            // Who has no node is looked at when it is given one.
            resource.fresh &= stays_with_an_owner(&phase);
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

    /// No planned move begins while the cluster is disarmed, or on its way there or back.
    fn may_begin(&self, why: &MoveReason) -> Result<(), Void> {
        match (self.settings.arming, why) {
            (Arming::Armed, _) | (_, MoveReason::Failed { .. } | MoveReason::Shutdown) => Ok(()),
            (
                Arming::Disarming { .. } | Arming::Disarmed { .. } | Arming::Arming { .. },
                MoveReason::Asked | MoveReason::Maintenance | MoveReason::Better { .. },
            ) => Err(Void::NotArmed),
        }
    }

    pub(super) fn release(
        &mut self,
        at: u64,
        name: ResourceName,
        generation: u64,
        to: Option<MemberName>,
        why: MoveReason,
    ) -> Result<(), Void> {
        let resource = self.current(&name, generation)?;
        unlocked(&name, resource)?;
        self.may_begin(&why)?;
        let node = match &resource.phase {
            Phase::Placed { node } => node.clone(),
            Phase::New
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }
            | Phase::Error { .. }
            | Phase::Ignored => return Err(Void::Outdated),
        };
        self.sent_away(at, &name, &node, &why);
        // Who has no life runs nothing: there is nobody to wait for.
        let phase = if self.life(&node).is_none() {
            Phase::Free { from: node.clone() }
        } else {
            Phase::Releasing { node: node.clone(), to, why: why.clone() }
        };
        self.decide(&name, phase);
        self.say(at, Decision::Released { resource: name, node, why });
        Ok(())
    }

    /// Keeps what a move says about a resource: where it failed, or where it returns to.
    fn sent_away(&mut self, at: u64, name: &ResourceName, node: &MemberName, why: &MoveReason) {
        let emptied: Vec<MemberName> =
            self.nodes.iter().filter(|(_, state)| state.maintenance).map(|(node, _)| node.clone()).collect();
        let Some(resource) = self.resources.get_mut(name) else { return };
        match why {
            MoveReason::Failed { .. } => {
                resource.relocations += 1;
                resource.failed_on.insert(node.clone(), at);
            }
            MoveReason::Maintenance | MoveReason::Shutdown => {
                resource.home.get_or_insert_with(|| node.clone());
            }
            // Whoever moves a resource while its home is in maintenance doesn't mean that it shall stay away.
            MoveReason::Asked => resource.home = resource.home.take().filter(|home| emptied.contains(home)),
            MoveReason::Better { .. } => {}
        }
    }

    pub(super) fn migrate(
        &mut self,
        at: u64,
        name: ResourceName,
        generation: u64,
        to: MemberName,
        incarnation: u64,
        why: MoveReason,
    ) -> Result<(), Void> {
        let resource = self.current(&name, generation)?;
        unlocked(&name, resource)?;
        self.may_begin(&why)?;
        let from = match &resource.phase {
            Phase::Placed { node } if *node != to && resource.requested == Requested::Started => node.clone(),
            Phase::New
            | Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }
            | Phase::Error { .. }
            | Phase::Ignored => return Err(Void::Outdated),
        };
        if !resource.spec.live {
            return Err(Void::BadSpec { why: format!("{name} can't move live: its configuration doesn't say so") });
        }
        for node in [&from, &to] {
            if let Some((id, _)) = self.open_fence(node) {
                return Err(Void::FenceOpen { id, node: node.clone() });
            }
            if self.life(node).is_none() {
                return Err(Void::NotAdmitted { node: node.clone() });
            }
        }
        self.is_life(&to, incarnation)?;
        if self.goes(&to) {
            return Err(Void::Outdated);
        }
        self.sent_away(at, &name, &from, &why);
        if let Some(resource) = self.resources.get_mut(&name) {
            // Until the target's watchdog guards what comes.
            resource.held = self.rules.live_moves_wait_for_the_targets_guard();
        }
        self.decide(&name, Phase::Migrating { from: from.clone(), to: to.clone(), why: why.clone() });
        self.say(at, Decision::Migrating { resource: name, from, to, why });
        Ok(())
    }

    fn is_life(&self, node: &MemberName, incarnation: u64) -> Result<(), Void> {
        match self.life(node) {
            None => Err(Void::NotAdmitted { node: node.clone() }),
            Some(life) if life.incarnation != incarnation && self.rules.late_commands_are_void() => Err(Void::Outdated),
            Some(_) => Ok(()),
        }
    }

    /// A live move that failed ends in two steps, since what its target saw before the move's end proves nothing: its
    /// source learns that it sends nothing more, and once nothing of it is under way the target looks afresh.
    pub(super) fn call_off(&mut self, name: &ResourceName, generation: u64, why: String) -> Result<(), Void> {
        let (from, to) = match &self.current(name, generation)?.phase {
            Phase::Migrating { why: MoveReason::Failed { .. }, .. } => return Err(Void::Outdated),
            Phase::Migrating { from, to, .. } => (from.clone(), to.clone()),
            Phase::New
            | Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Free { .. }
            | Phase::Error { .. }
            | Phase::Ignored => return Err(Void::Outdated),
        };
        if let Some(resource) = self.resources.get_mut(name) {
            resource.held = true;
        }
        self.decide(name, Phase::Migrating { from, to, why: MoveReason::Failed { why } });
        Ok(())
    }

    /// A new life of a move's target has to show its guard anew before anything is sent to it.
    pub(super) fn hold_what_comes(&mut self, node: &MemberName) {
        let coming: Vec<ResourceName> = self
            .resources
            .iter()
            .filter(|(_, resource)| resource.phase.second_owner() == Some(node))
            .map(|(name, _)| name.clone())
            .collect();
        for name in coming {
            let Some(resource) = self.resources.get_mut(&name) else { continue };
            resource.held = self.rules.live_moves_wait_for_the_targets_guard();
            let phase = resource.phase.clone();
            self.decide(&name, phase);
        }
    }

    pub(super) fn go(&mut self, name: &ResourceName, generation: u64) -> Result<(), Void> {
        let phase = self.current(name, generation)?.phase.clone();
        let Some(resource) = self.resources.get_mut(name).filter(|r| r.held || r.arriving.is_some()) else {
            return Err(Void::Outdated);
        };
        if resource.held {
            resource.held = false;
            // The word that a live move may begin says nothing about a start where it ends.
            resource.fresh &= !matches!(phase, Phase::Placed { .. });
        } else {
            resource.arriving = None;
        }
        self.decide(name, phase);
        Ok(())
    }

    pub(super) fn forget(&mut self, name: &ResourceName, generation: u64) -> Result<(), Void> {
        self.current(name, generation)?;
        if let Some(resource) = self.resources.get_mut(name) {
            resource.relocations = 0;
            resource.failed_on.clear();
            resource.moves_failed = None;
        }
        Ok(())
    }

    pub(super) fn set_lock(&mut self, at: u64, name: ResourceName, reason: Option<String>) -> Result<(), Void> {
        let Some(resource) = self.resources.get_mut(&name) else {
            return Err(Void::Unknown { name: name.to_string() });
        };
        if reason.as_ref().is_some_and(|reason| reason.len() > REASON_MAX) {
            return Err(Void::BadSpec { why: format!("a lock's reason has {REASON_MAX} bytes at most") });
        }
        if resource.locked != reason {
            resource.locked.clone_from(&reason);
            let phase = resource.phase.clone();
            self.decide(&name, phase);
            self.say(at, Decision::Lock { resource: name, reason });
        }
        Ok(())
    }

    pub(super) fn assign(
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
            // A live move ends at one of its two ends.
            Phase::Migrating { from, to: bound_for, .. } if to == *from || to == *bound_for => None,
            // Only a mutation run gets here with another owner's resource: a move in a single commit.
            Phase::Placed { .. } if !self.rules.release_then_assign() => None,
            Phase::Placed { .. } | Phase::Migrating { .. } | Phase::Error { .. } | Phase::Ignored => {
                return Err(Void::Outdated);
            }
        };
        if let Some((id, _)) = self.open_fence(&to) {
            return Err(Void::FenceOpen { id, node: to });
        }
        self.is_life(&to, incarnation)?;
        // What runs there already, at the end of a live move, is there.
        if self.goes(&to) && !resource.phase.is_owned_by(&to) {
            return Err(Void::Outdated);
        }
        let counted = self.level >= Level::FAILED_MOVES_COUNT;
        let failed = failed_move(resource, &to, at).filter(|_| counted);
        if let Some(resource) = self.resources.get_mut(&name) {
            // A live move ends where it ends, whatever has become of the room there; any other node was chosen now.
            resource.fresh &= matches!(resource.phase, Phase::Migrating { .. });
            resource.held = resource.fresh;
            resource.first = None;
            resource.moves_failed.clone_from(&failed);
            if resource.home.as_ref() == Some(&to) {
                resource.home = None;
            }
        }
        self.decide(&name, Phase::Placed { node: to.clone() });
        if let Some(failed) = failed {
            self.say(at, Decision::MoveFailed { resource: name.clone(), from: to.clone(), failed });
        }
        self.say(at, Decision::Assigned { resource: name, node: to, recovered_from });
        Ok(())
    }

    /// A live move ends at its target, which has a part of it still to do.
    pub(super) fn arrive(
        &mut self,
        at: u64,
        name: ResourceName,
        generation: u64,
        incarnation: u64,
    ) -> Result<(), Void> {
        let (from, to) = match &self.current(&name, generation)?.phase {
            Phase::Migrating { from, to, .. } => (from.clone(), to.clone()),
            Phase::New
            | Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Free { .. }
            | Phase::Error { .. }
            | Phase::Ignored => return Err(Void::Outdated),
        };
        self.assign(at, name.clone(), generation, to, incarnation)?;
        if let Some(resource) = self.resources.get_mut(&name) {
            resource.arriving = Some(from);
            // It runs there already: nothing is left to look at.
            resource.held = false;
            resource.fresh = false;
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, at: u64, name: ResourceName, generation: u64, why: String) -> Result<(), Void> {
        let resource = self.current(&name, generation)?;
        let node = match &resource.phase {
            // Nobody owns a new resource by the log, and yet one of the nodes may run it: it stays new.
            // Neither do two owners become one by giving up.
            Phase::New | Phase::Error { .. } | Phase::Migrating { .. } | Phase::Ignored => return Err(Void::Outdated),
            Phase::Placed { node } | Phase::Releasing { node, .. } => Some(node.clone()),
            Phase::Free { .. } => None,
        };
        self.decide(&name, Phase::Error { node, why: why.clone() });
        self.say(at, Decision::GivenUp { resource: name, why });
        Ok(())
    }

    /// What a resource that comes under management begins with.
    fn managed_again(&self, requested: Requested) -> Phase {
        let ignoring = match self.settings.arming {
            Arming::Disarmed { mode: DisarmMode::Ignore, .. } => true,
            Arming::Disarmed { mode: DisarmMode::Freeze, .. }
            | Arming::Armed
            | Arming::Disarming { .. }
            | Arming::Arming { .. } => false,
        };
        if requested == Requested::Ignored || ignoring { Phase::Ignored } else { Phase::New }
    }

    /// True for a node that has said that it goes: nothing new is put there.
    fn goes(&self, node: &MemberName) -> bool {
        self.nodes.get(node).is_some_and(|state| state.leaving.is_some())
    }

    /// True for a node that was fenced, and hasn't left in good order to come back.
    fn is_gone(&self, node: &MemberName) -> bool {
        self.nodes.get(node).is_none_or(|state| state.life.is_none() && state.leaving.is_none())
    }

    /// The node's life is over and it runs nothing: what it had is free, but what waits for its return if `freeze` says
    /// so; what was stopped for its going `returns` to it.
    pub(super) fn free_all_of(&mut self, at: u64, node: &MemberName, freeze: bool, returns: bool) {
        let owned: Vec<ResourceName> = self.owned_by(node).cloned().collect();
        for name in owned {
            let told = self.level >= Level::STARTS_ARE_LOOKED_AT;
            let Some(resource) = self.resources.get_mut(&name) else { continue };
            // Whoever held the lock there is gone, and so is whoever was to finish a move.
            let lock = resource.locked.take().filter(|_| told);
            resource.arriving = None;
            let idle = resource.requested == Requested::Disabled;
            let phase = match &resource.phase {
                // What was given up stays given up, but nobody runs it any more.
                Phase::Error { why, .. } => Phase::Error { node: None, why: why.clone() },
                Phase::Migrating { from, to, .. } => {
                    let other = if from == node { to } else { from };
                    resource.held = resource.fresh;
                    Phase::Placed { node: other.clone() }
                }
                Phase::Placed { .. } if freeze || idle => Phase::Placed { node: node.clone() },
                Phase::New | Phase::Placed { .. } | Phase::Releasing { .. } | Phase::Free { .. } | Phase::Ignored => {
                    Phase::Free { from: node.clone() }
                }
            };
            if returns && matches!(phase, Phase::Free { .. }) {
                resource.home.get_or_insert_with(|| node.clone());
            }
            if !freeze && resource.spec.class == Class::Unprotected && resource.requested == Requested::Started {
                resource.requested = Requested::Stopped;
            }
            self.decide(&name, phase);
            if let Some(reason) = lock {
                self.say(at, Decision::LockDropped { resource: name, node: node.clone(), reason });
            }
        }
    }
}

/// True while the owner of a resource may still be the one where it starts, without another choice.
const fn stays_with_an_owner(phase: &Phase) -> bool {
    match phase {
        Phase::Placed { .. } | Phase::Releasing { .. } | Phase::Migrating { .. } => true,
        Phase::New | Phase::Free { .. } | Phase::Error { .. } | Phase::Ignored => false,
    }
}

/// A lock's reason, in bytes at most.
const REASON_MAX: usize = 200;

/// What a resource that is assigned to a node is to remember of its live moves: one that ends where it began has failed.
fn failed_move(resource: &Resource, to: &MemberName, at_ms: u64) -> Option<FailedMoves> {
    match &resource.phase {
        Phase::Migrating { from, to: target, why: MoveReason::Failed { why } } if from == to => {
            let times = resource.moves_failed.as_ref().map_or(0, |failed| failed.times).saturating_add(1);
            Some(FailedMoves { times, to: target.clone(), why: why.clone(), at_ms })
        }
        Phase::New
        | Phase::Placed { .. }
        | Phase::Releasing { .. }
        | Phase::Migrating { .. }
        | Phase::Free { .. }
        | Phase::Error { .. }
        | Phase::Ignored => None,
    }
}

fn unlocked(name: &ResourceName, resource: &Resource) -> Result<(), Void> {
    match &resource.locked {
        Some(reason) => Err(Void::Locked { resource: name.clone(), reason: reason.clone() }),
        None => Ok(()),
    }
}
