//! One look at all resources: where each one stands, what it waits for, and what is to be decided about it.

mod moves;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::probes::Probed;
use super::{Plan, View, Why};
use crate::command::Command;
use crate::name::{MemberName, ResourceName};
use crate::placement::choose::{Choice, Preference, Wish, choose, plainly};
use crate::placement::judge::EffectiveRules;
use crate::placement::picture::{Picture, Seat};
use crate::report::{Leave, Observed};
use crate::resource::{Again, Class, FailedMoves, MoveReason, Phase, Requested, Resource};
use crate::state::{Arming, LeavePolicy};

/// What comes later in a class waits so long for what comes first and of which nothing is known. Longer than any profile
/// takes to prove a node silent.
const WAITED_FOR: Duration = Duration::from_secs(120);

/// What a look at the resources keeps while it goes through them.
pub(super) struct Round<'a> {
    view: &'a View<'a>,
    picture: Picture,
    rules: EffectiveRules,
    /// What the nodes have said about resources that are new.
    probed: BTreeMap<&'a ResourceName, Probed<'a>>,
    /// Planned moves that may still begin.
    moves: usize,
    /// So many may be given a node in one look, and so many have been.
    placed_at_once: usize,
    given: usize,
    /// Whom everything of a later order waits for.
    before: Option<((Class, u32), ResourceName)>,
    /// A protected resource that shall run and doesn't: nothing best-effort starts meanwhile, however long that is.
    unserved: Option<ResourceName>,
    /// Where the planner wants what has to be placed anew, where a number of failures to survive is set.
    planned: BTreeMap<ResourceName, MemberName>,
    /// What waits for its start, or runs: which of them is about to be known.
    starts_unseen: BTreeSet<&'a ResourceName>,
    plan: &'a mut Plan,
}

impl<'a> Round<'a> {
    pub fn new(view: &'a View<'a>, placed_at_once: usize, plan: &'a mut Plan) -> Self {
        let (picture, rules, faults) = view.picture();
        plan.rule_faults = faults.iter().map(|(name, fault)| (name.clone(), fault.to_string())).collect();
        let moves = view.state.settings.moves_at_once().saturating_sub(view.state.moves_under_way());
        let planned = view.planned_places();
        let probed = view.probed();
        Self {
            view,
            picture,
            rules,
            probed,
            moves,
            placed_at_once,
            given: 0,
            before: None,
            unserved: None,
            planned,
            starts_unseen: view.starts_unseen(),
            plan,
        }
    }

    /// Looks at every resource, what starts first first.
    pub fn look(mut self) {
        let view = self.view;
        let mut all: Vec<(&ResourceName, &Resource)> = view.state.resources.iter().collect();
        all.sort_by_key(|(name, resource)| (resource.spec.class, resource.spec.order, *name));
        for (name, resource) in all {
            let mut why = self.resource(name, resource);
            let protected = resource.spec.class == Class::Protected && resource.requested == Requested::Started;
            if protected && self.unserved.is_none() && is_still_to_run(&why) {
                self.unserved = Some(name.clone());
            }
            if let Some(rank) = self.keeps_waiting(name, resource, &why) {
                if self.is_passed_over(name, resource, &why) {
                    why = Why::PassedOver { waits: Box::new(why) };
                } else if self.before.is_none() {
                    self.before = Some((rank, name.clone()));
                }
            }
            self.plan.why.insert(name.clone(), why);
        }
        view.even_out(&self.picture, &self.rules, self.plan);
    }

    /// The rank of a resource that is about to run, so that what comes after it waits.
    fn keeps_waiting(&self, name: &ResourceName, resource: &Resource, why: &Why) -> Option<(Class, u32)> {
        let rank = (resource.spec.class, resource.spec.order);
        if resource.requested != Requested::Started || resource.spec.class == Class::Unprotected {
            return None;
        }
        match why {
            Why::Runs | Why::Moving { .. } | Why::Stays { .. } => {
                let seconds = self.view.state.settings.order_delay_s.get(&resource.spec.class).copied().unwrap_or(0);
                let delay = Duration::from_secs(seconds.into());
                let long = self.view.leases.up_since(name).is_none_or(|up| self.view.now.since_at_least(up) >= delay);
                (!long).then_some(rank)
            }
            Why::AtWork { .. }
            | Why::WaitingForReport { .. }
            | Why::WaitingForFence { .. }
            | Why::WaitingForProbe { .. }
            | Why::WaitingForTurn { .. }
            | Why::WaitingForOthers { .. }
            | Why::Deciding => Some(rank),
            Why::StoppedAsAsked
            | Why::CannotFence { .. }
            | Why::ProbeUnknown { .. }
            | Why::RunsTwice { .. }
            | Why::NoNode { .. }
            | Why::Error { .. }
            | Why::Frozen { .. }
            | Why::Locked { .. }
            | Why::Ignored
            | Why::Disarmed { .. }
            | Why::Disarming { .. }
            | Why::PassedOver { .. }
            | Why::MoveFailed { .. }
            | Why::MoveWaits { .. } => None,
        }
    }

    /// True for a resource of which nothing has been learnt for so long that what comes after it waits no longer. What is
    /// being started is waited for: that ends by itself.
    fn is_passed_over(&mut self, name: &ResourceName, resource: &Resource, why: &Why) -> bool {
        let learns_nothing = match why {
            Why::AtWork { observed: Observed::Unknown { .. }, .. }
            | Why::WaitingForReport { .. }
            | Why::WaitingForFence { .. }
            | Why::WaitingForProbe { .. } => true,
            Why::AtWork { .. }
            | Why::Deciding
            | Why::WaitingForTurn { .. }
            | Why::WaitingForOthers { .. }
            | Why::Runs
            | Why::Moving { .. }
            | Why::Stays { .. }
            | Why::StoppedAsAsked
            | Why::CannotFence { .. }
            | Why::ProbeUnknown { .. }
            | Why::RunsTwice { .. }
            | Why::NoNode { .. }
            | Why::Error { .. }
            | Why::Frozen { .. }
            | Why::Locked { .. }
            | Why::Ignored
            | Why::Disarmed { .. }
            | Why::Disarming { .. }
            | Why::MoveFailed { .. }
            | Why::PassedOver { .. }
            | Why::MoveWaits { .. } => false,
        };
        learns_nothing && self.waited(name, resource) >= WAITED_FOR
    }

    /// For how long a resource has been waited for, in one go and under one decision, as far as this leader knows.
    fn waited(&mut self, name: &ResourceName, resource: &Resource) -> Duration {
        self.view.memory.waits(&mut self.plan.memory, self.view.now, name, resource.generation)
    }

    fn resource(&mut self, name: &ResourceName, resource: &Resource) -> Why {
        let state = self.view.state;
        match &resource.phase {
            Phase::Ignored => return Why::Ignored,
            Phase::Error { why, .. } => return Why::Error { resource: name.clone(), why: why.clone() },
            Phase::New
            | Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. } => {}
        }
        match state.settings.arming {
            Arming::Armed => {}
            arming @ (Arming::Disarmed { .. } | Arming::Arming { .. }) => {
                return Why::Disarmed { state: arming.to_string() };
            }
            // What is under way is finished, nothing new begins.
            arming @ Arming::Disarming { .. } => match &resource.phase {
                Phase::New => return Why::Disarmed { state: arming.to_string() },
                Phase::Placed { .. } if resource.arriving.is_none() => {
                    return Why::Disarmed { state: arming.to_string() };
                }
                Phase::Placed { .. }
                | Phase::Releasing { .. }
                | Phase::Migrating { .. }
                | Phase::Free { .. }
                | Phase::Error { .. }
                | Phase::Ignored => {}
            },
        }
        if self.is_forgotten(resource) {
            self.propose(Command::Forget { resource: name.clone(), generation: resource.generation });
        }
        match &resource.phase {
            Phase::New => self.new_resource(name, resource),
            Phase::Free { .. } => self.free(name, resource),
            Phase::Placed { node } => self.placed(name, resource, node),
            Phase::Releasing { node, to, .. } => self.releasing(name, resource, node, to.as_ref()),
            Phase::Migrating { from, to, why } => self.migrating(name, resource, from, to, why),
            Phase::Error { .. } | Phase::Ignored => Why::Ignored,
        }
    }

    fn propose(&mut self, command: Command) {
        self.plan.proposals.push(command);
    }

    fn is_forgotten(&self, resource: &Resource) -> bool {
        let moves = resource.moves_failed.as_ref().map(|failed| &failed.at_ms);
        let newest = resource.failed_on.values().chain(moves).max();
        let age = self.view.state.settings.failures_age();
        newest.is_some_and(|at| Duration::from_millis(self.view.wall_ms.saturating_sub(*at)) >= age)
    }

    /// Whether the turn of a resource has come.
    fn turn(&self, resource: &Resource) -> Result<(), Why> {
        if resource.requested != Requested::Started || resource.spec.class == Class::Unprotected {
            return Ok(());
        }
        if let (Class::BestEffort, Some(other)) = (resource.spec.class, &self.unserved) {
            return Err(Why::WaitingForTurn { after: other.clone() });
        }
        match &self.before {
            Some((rank, other)) if *rank < (resource.spec.class, resource.spec.order) => {
                Err(Why::WaitingForTurn { after: other.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this look may still give a node to what runs nowhere. What comes first is placed first, and a look waits for
    /// what the last one has decided, so that the rest follows exactly as if it had been placed at once.
    fn may_be_given_a_node(&self) -> Result<(), Why> {
        self.may_choose()?;
        if self.given < self.placed_at_once { Ok(()) } else { Err(Why::WaitingForOthers { first: self.given }) }
    }

    /// Nothing is placed and nothing begins to move by a picture that is about to change.
    fn may_choose(&self) -> Result<(), Why> {
        if self.view.settled { Ok(()) } else { Err(Why::Deciding) }
    }

    /// A new resource: adopted where it runs, else placed once every node has said that it doesn't run there.
    fn new_resource(&mut self, name: &ResourceName, resource: &Resource) -> Why {
        let view = self.view;
        if !view.state.rules.new_resources_are_probed() {
            return self.place_new(name, resource);
        }
        let node = match self.probed.get(name) {
            // Everything new has been gone through; what hasn't been is not placed.
            None => return Why::Deciding,
            Some(Probed::On(node)) => *node,
            Some(Probed::Nowhere) => return self.place_new(name, resource),
            Some(Probed::Twice { first, second }) => {
                return Why::RunsTwice { first: (*first).clone(), second: (*second).clone() };
            }
            Some(Probed::Unknown { node, why }) => {
                return Why::ProbeUnknown { node: (*node).clone(), why: (*why).to_owned() };
            }
            Some(Probed::Waiting { node }) => return Why::WaitingForProbe { node: (*node).clone() },
        };
        // Where it runs already, there it has to be taken over, or nowhere.
        if !self.picture.takes(node) {
            let why = view.state.unprotectable(node).unwrap_or_else(|| format!("{node} takes nothing now"));
            return Why::NoNode { why: vec![format!("it runs on {node} already"), why] };
        }
        // Its owner's fence may have to rest on its watchdog from the very first moment.
        if view.state.life(node).is_some_and(|life| life.watchdog.is_some())
            && !view.leases.report(view.state, node).is_some_and(|report| report.armed)
        {
            let why = format!("{node} has not armed its watchdog yet");
            return Why::NoNode { why: vec![format!("it runs on {node} already"), why] };
        }
        self.assign(name, resource, node)
    }

    fn place_new(&mut self, name: &ResourceName, resource: &Resource) -> Why {
        if let Err(why) = self.turn(resource).and_then(|()| self.may_be_given_a_node()) {
            return why;
        }
        // The node that it was added with, or was on before, counts as where it is.
        let first = resource.first.as_ref();
        if let Some(node) = self.plainly(name, resource, Preference::None, first, None) {
            return self.assign(name, resource, &node);
        }
        let choice = self.choose(name, resource, Preference::None, first, None);
        self.settle(name, resource, &choice)
    }

    fn free(&mut self, name: &ResourceName, resource: &Resource) -> Why {
        if resource.requested == Requested::Disabled {
            return Why::StoppedAsAsked;
        }
        if let Err(why) = self.turn(resource).and_then(|()| self.may_be_given_a_node()) {
            return why;
        }
        let failed: BTreeSet<MemberName> = resource.failed_on.keys().cloned().collect();
        let home = resource.home.as_ref().filter(|_| resource.spec.failback);
        let choice = if failed.is_empty() {
            let planned = self.planned.get(name).cloned();
            let home = planned.as_ref().or(home);
            if let Some(node) = self.plainly(name, resource, Preference::BestScore, None, home) {
                return self.assign(name, resource, &node);
            }
            self.choose(name, resource, Preference::BestScore, None, home)
        } else {
            self.choose(name, resource, Preference::TryNext, None, None)
        };
        if choice.node().is_none() && self.is_exhausted(resource) {
            return self.give_up(name, resource, choice.to_string());
        }
        self.settle(name, resource, &choice)
    }

    /// Nothing but nodes on which it failed is left, and all are in service: waiting would not help.
    fn is_exhausted(&self, resource: &Resource) -> bool {
        !resource.failed_on.is_empty() && self.picture.takers().count() == self.view.state.nodes.len()
    }

    fn settle(&mut self, name: &ResourceName, resource: &Resource, choice: &Choice) -> Why {
        match choice.node() {
            Some(node) => self.assign(name, resource, node),
            None => Why::NoNode { why: self.view.absences(choice) },
        }
    }

    fn assign(&mut self, name: &ResourceName, resource: &Resource, node: &MemberName) -> Why {
        let Some(life) = self.view.state.life(node) else {
            return Why::NoNode { why: vec![format!("{node} is not in service")] };
        };
        self.given += 1;
        self.propose(Command::Assign {
            resource: name.clone(),
            generation: resource.generation,
            to: node.clone(),
            incarnation: life.incarnation,
        });
        self.seat(name, resource, Seat::On(node.clone()));
        Why::Deciding
    }

    /// Counts a resource where this round has put it.
    fn seat(&mut self, name: &ResourceName, resource: &Resource, seat: Seat) {
        if resource.requested == Requested::Started {
            self.picture.change(name, |view| view.seat = seat);
        }
    }

    fn choose(
        &self,
        name: &ResourceName,
        resource: &Resource,
        preference: Preference,
        current: Option<&MemberName>,
        home: Option<&MemberName>,
    ) -> Choice {
        let failed: BTreeSet<MemberName> = resource.failed_on.keys().chain(current).cloned().collect();
        let failed = if preference == Preference::TryNext { failed } else { BTreeSet::new() };
        let wish =
            Wish { resource: name, preference, failed: &failed, home, current, failback: resource.spec.failback };
        choose(&self.picture, &self.rules, self.view.state.settings.placement, &wish)
    }

    /// What [`Self::choose`] answers, where that takes no comparison of all nodes.
    fn plainly(
        &self,
        name: &ResourceName,
        resource: &Resource,
        preference: Preference,
        current: Option<&MemberName>,
        home: Option<&MemberName>,
    ) -> Option<MemberName> {
        let failed = BTreeSet::new();
        let wish =
            Wish { resource: name, preference, failed: &failed, home, current, failback: resource.spec.failback };
        plainly(&self.picture, &self.rules, self.view.state.settings.placement, &wish).cloned()
    }

    fn placed(&mut self, name: &ResourceName, resource: &Resource, node: &MemberName) -> Why {
        let view = self.view;
        if let Some(reason) = &resource.locked {
            return Why::Locked { reason: reason.clone() };
        }
        if view.state.life(node).is_none() {
            return self.on_an_absent_node(name, resource, node);
        }
        if let Some(why) = view.absent(node, self.plan) {
            return why;
        }
        if let Some(leaving) = view.state.nodes.get(node).and_then(|state| state.leaving.as_ref())
            && leaving.policy != LeavePolicy::Migrate
        {
            return Why::Frozen { node: node.clone(), how: leaving.how };
        }
        let Some(observed) = view.observed(name, resource, node) else {
            // It may move before it has started.
            if (resource.held || view.has_booted_anew(node))
                && resource.requested == Requested::Started
                && self.better(name, resource, node) == Why::Deciding
            {
                return Why::Deciding;
            }
            return Why::WaitingForReport { node: node.clone() };
        };
        if resource.arriving.is_some()
            && let Some(why) = self.arriving(name, resource, node, observed)
        {
            return why;
        }
        let bad = matches!(observed, Observed::Failed { .. } | Observed::StopFailed { .. });
        if resource.held
            && resource.requested == Requested::Started
            && let Some(why) = self.about_to_start(name, resource, node, observed)
        {
            return why;
        }
        if resource.requested == Requested::Started && !bad {
            // Also before it runs: a start that is to be followed by a move is a start too many.
            let why = self.better(name, resource, node);
            let runs = *observed == Observed::Running;
            let emptied = view.state.nodes.get(node).is_some_and(|state| state.maintenance);
            match why {
                Why::Deciding => return why,
                why if runs => return why,
                // Its turn to leave comes soon: a start here would be one too many.
                why @ Why::MoveWaits { .. } if resource.held && emptied && self.moves == 0 => return why,
                _ => {}
            }
        }
        match observed {
            Observed::Stopped if resource.requested != Requested::Started => Why::StoppedAsAsked,
            Observed::Stopped if resource.held => match self.turn(resource) {
                Ok(()) => {
                    self.propose(Command::Go { resource: name.clone(), generation: resource.generation });
                    Why::Deciding
                }
                Err(why) => why,
            },
            Observed::Failed { why } if resource.requested == Requested::Started => {
                let why = format!("it failed on {node}: {why}");
                self.failed(name, resource, node, why)
            }
            Observed::StopFailed { why } => {
                let why = format!("it can't be stopped on {node}: {why}");
                self.give_up(name, resource, why)
            }
            Observed::Failed { .. } => Why::StoppedAsAsked,
            Observed::Running
            | Observed::Stopped
            | Observed::Sent
            | Observed::Starting
            | Observed::Stopping
            | Observed::Moving
            | Observed::MoveFailed { .. }
            | Observed::Unknown { .. } => Why::AtWork { node: node.clone(), observed: observed.clone() },
        }
    }

    /// It has come live: its owner finishes that before it is moved on, and once it runs the move is over. `None` where it
    /// will not be finished.
    fn arriving(
        &mut self,
        name: &ResourceName,
        resource: &Resource,
        node: &MemberName,
        observed: &Observed,
    ) -> Option<Why> {
        match observed {
            Observed::Running | Observed::MoveFailed { .. } => {
                self.propose(Command::Go { resource: name.clone(), generation: resource.generation });
                Some(Why::Deciding)
            }
            Observed::Starting | Observed::Stopped | Observed::Sent if resource.requested == Requested::Started => {
                Some(Why::AtWork { node: node.clone(), observed: observed.clone() })
            }
            Observed::Starting
            | Observed::Stopped
            | Observed::Sent
            | Observed::Stopping
            | Observed::Moving
            | Observed::Unknown { .. }
            | Observed::Failed { .. }
            | Observed::StopFailed { .. } => None,
        }
    }

    /// Its node's life is over, and it was proven stopped there.
    fn on_an_absent_node(&mut self, name: &ResourceName, resource: &Resource, node: &MemberName) -> Why {
        let view = self.view;
        if resource.requested == Requested::Disabled {
            return Why::StoppedAsAsked;
        }
        let leaving = view.state.nodes.get(node).and_then(|state| state.leaving.as_ref());
        let frozen = match leaving {
            Some(leaving) => {
                let soon = view
                    .leases
                    .node(node)
                    .is_some_and(|seen| view.now.since_at_least(seen.heard) < view.boot_grace(node));
                let waits = match leaving.policy {
                    LeavePolicy::Freeze => true,
                    // Who said that it only reboots is given the time for it.
                    LeavePolicy::Failover | LeavePolicy::Migrate => leaving.how == Leave::Reboot && soon,
                };
                waits.then(|| Why::Frozen { node: node.clone(), how: leaving.how })
            }
            None => None,
        };
        if let Some(why) = frozen {
            return why;
        }
        // Only what was to move away before the shutdown has a home to return to.
        let why = match leaving.map(|leaving| leaving.policy) {
            Some(LeavePolicy::Migrate) => MoveReason::Shutdown,
            Some(LeavePolicy::Failover | LeavePolicy::Freeze) | None => {
                MoveReason::Better { why: format!("{node} has gone") }
            }
        };
        let generation = resource.generation;
        self.propose(Command::Release { resource: name.clone(), generation, to: None, why });
        Why::Deciding
    }

    /// It has used up its restarts on its node: another node, or the same once more where none is left, or the end.
    fn failed(&mut self, name: &ResourceName, resource: &Resource, node: &MemberName, why: String) -> Why {
        let once = resource.spec.class == Class::BestEffort;
        if once || resource.relocations >= resource.spec.max_relocate {
            return self.give_up(name, resource, why);
        }
        if let Err(why) = self.may_choose() {
            return why;
        }
        let choice = self.choose(name, resource, Preference::TryNext, Some(node), None);
        let to = choice.node().unwrap_or(node).clone();
        // What belongs with it goes along.
        let along: Vec<ResourceName> =
            self.rules.bundle(name).into_iter().filter(|other| *other != name).cloned().collect();
        self.release(name, resource, &to, MoveReason::Failed { why });
        if to != *node {
            for other in along {
                self.take_along(&other, node, &to, name);
            }
        }
        Why::Deciding
    }

    fn take_along(&mut self, other: &ResourceName, node: &MemberName, to: &MemberName, with: &ResourceName) {
        let view = self.view;
        let Some(peer) = view.state.resources.get(other) else { return };
        let here = matches!(&peer.phase, Phase::Placed { node: at } if at == node);
        if here && peer.requested == Requested::Started && peer.locked.is_none() {
            let why = MoveReason::Better { why: format!("it belongs with {with}") };
            self.send(other, peer, to, why);
        }
    }

    fn give_up(&mut self, name: &ResourceName, resource: &Resource, why: String) -> Why {
        self.propose(Command::GiveUp { resource: name.clone(), generation: resource.generation, why });
        Why::Deciding
    }

    fn release(&mut self, name: &ResourceName, resource: &Resource, to: &MemberName, why: MoveReason) {
        self.propose(Command::Release {
            resource: name.clone(),
            generation: resource.generation,
            to: Some(to.clone()),
            why,
        });
        if let Some(from) = resource.phase.owner() {
            self.seat(name, resource, Seat::Moving { from: from.clone(), to: to.clone() });
        }
    }

    /// Sends a running resource to another node, live if it can.
    fn send(&mut self, name: &ResourceName, resource: &Resource, to: &MemberName, why: MoveReason) {
        let command = self.view.sending(name, resource, to, why);
        self.propose(command);
        if let Some(from) = resource.phase.owner() {
            self.seat(name, resource, Seat::Moving { from: from.clone(), to: to.clone() });
        }
    }

    /// It runs: is there a node where it belongs more?
    fn better(&mut self, name: &ResourceName, resource: &Resource, node: &MemberName) -> Why {
        let view = self.view;
        if !view.leases.is_heard(view.state, node, view.now) {
            return Why::Runs;
        }
        let state = view.state.nodes.get(node);
        let maintenance = state.is_some_and(|state| state.maintenance);
        let leaving = state.is_some_and(|state| state.leaving.is_some());
        let home = resource.home.as_ref().filter(|_| resource.spec.failback);
        // Where it runs it may stay, whatever has become of the node's devices meanwhile.
        let takes =
            self.picture.nodes.get_mut(node).map(|n| std::mem::replace(&mut n.may_take, !maintenance && !leaving));
        let stays = self.plainly(name, resource, Preference::None, Some(node), home).is_some();
        let choice = (!stays).then(|| self.choose(name, resource, Preference::None, Some(node), home));
        if let (Some(takes), Some(seen)) = (takes, self.picture.nodes.get_mut(node)) {
            seen.may_take = takes;
        }
        let Some(choice) = choice else { return Why::Runs };
        let why = match (maintenance, leaving) {
            (_, true) => MoveReason::Shutdown,
            (true, false) => MoveReason::Maintenance,
            (false, false) => MoveReason::Better { why: choice.outcome.to_string() },
        };
        match choice.node() {
            Some(best) if best == node => Why::stays(&choice),
            Some(best) => {
                let best = best.clone();
                self.better_there(name, resource, &best, why, leaving)
            }
            // Nobody can have it: it goes down with its node, and waits for it or for another.
            None if leaving => {
                self.propose(Command::Release {
                    resource: name.clone(),
                    generation: resource.generation,
                    to: None,
                    why,
                });
                Why::Deciding
            }
            None => Why::MoveWaits {
                why: format!("{why}, but no other node can take it: {}", view.absences(&choice).join("; ")),
            },
        }
    }

    /// Another node is better for what runs here: it moves there, unless it is not its turn or its live moves fail.
    fn better_there(
        &mut self,
        name: &ResourceName,
        resource: &Resource,
        best: &MemberName,
        why: MoveReason,
        leaving: bool,
    ) -> Why {
        if let Err(why) = self.may_choose() {
            return why;
        }
        // It would follow what is on its way elsewhere, or isn't to start where it is.
        if matches!(why, MoveReason::Better { .. })
            && self.rules.bundle(name).into_iter().any(|peer| self.starts_unseen.contains(peer))
        {
            return Why::Deciding;
        }
        let command = self.view.sending(name, resource, best, why.clone());
        let failed = resource.moves_failed.as_ref().filter(|_| matches!(command, Command::Migrate { .. }));
        let again = failed.map_or(Again::Now, |failed| failed.again(self.view.wall_ms));
        let again_in_s = match again {
            Again::Now => None,
            Again::In(left) => Some(left.as_secs() + 1),
            // The machine goes whether or not this moves: stopped here and started there is better than cut off.
            Again::Never if leaving => {
                if self.moves == 0 {
                    return Why::MoveWaits { why: why.to_string() };
                }
                self.moves -= 1;
                self.release(name, resource, best, why);
                return Why::Deciding;
            }
            Again::Never => None,
        };
        if let Some(FailedMoves { times, to, why, .. }) = failed.filter(|_| again != Again::Now) {
            let (resource, to, why) = (name.clone(), to.clone(), why.clone());
            return Why::MoveFailed { resource, to, times: *times, why, again_in_s };
        }
        if self.moves == 0 {
            return Why::MoveWaits { why: why.to_string() };
        }
        self.moves -= 1;
        self.send(name, resource, best, why);
        Why::Deciding
    }
}

/// True for what shall run and doesn't, unless the cluster has given it up or somebody holds it where it is.
fn is_still_to_run(why: &Why) -> bool {
    match why {
        Why::AtWork { .. }
        | Why::WaitingForReport { .. }
        | Why::WaitingForFence { .. }
        | Why::CannotFence { .. }
        | Why::WaitingForProbe { .. }
        | Why::ProbeUnknown { .. }
        | Why::NoNode { .. }
        | Why::Deciding
        | Why::PassedOver { .. }
        | Why::WaitingForTurn { .. }
        | Why::WaitingForOthers { .. } => true,
        Why::Runs
        | Why::RunsTwice { .. }
        | Why::Stays { .. }
        | Why::Moving { .. }
        | Why::MoveWaits { .. }
        | Why::MoveFailed { .. }
        | Why::StoppedAsAsked
        | Why::Frozen { .. }
        | Why::Locked { .. }
        | Why::Ignored
        | Why::Disarmed { .. }
        | Why::Disarming { .. }
        | Why::Error { .. } => false,
    }
}

impl View<'_> {
    /// The command that sends a placed resource to another node: live if it runs and can.
    pub(super) fn sending(
        &self,
        name: &ResourceName,
        resource: &Resource,
        to: &MemberName,
        why: MoveReason,
    ) -> Command {
        let runs = resource.requested == Requested::Started
            && resource
                .phase
                .owner()
                .and_then(|node| self.observed(name, resource, node))
                .is_some_and(Observed::is_running);
        match self.state.life(to).filter(|_| runs && resource.spec.live) {
            Some(life) => Command::Migrate {
                resource: name.clone(),
                generation: resource.generation,
                to: to.clone(),
                incarnation: life.incarnation,
                why,
            },
            None => {
                Command::Release { resource: name.clone(), generation: resource.generation, to: Some(to.clone()), why }
            }
        }
    }

    /// A node whose renewals come from another boot than its life's: it runs nothing of that life, and is about to be
    /// admitted anew.
    fn has_booted_anew(&self, node: &MemberName) -> bool {
        let newest = self.leases.node(node).and_then(|view| view.newest.as_ref());
        newest.zip(self.state.life(node)).is_some_and(|(newest, life)| newest.boot != life.boot)
    }

    /// Why an owner can't be waited for: it is being fenced, or lost.
    fn absent(&self, node: &MemberName, plan: &Plan) -> Option<Why> {
        if let Some((id, fence)) = self.state.open_fence(node) {
            let left = self.silent_from(node).map(|from| self.now.left_until(from));
            return Some(Why::WaitingForFence {
                node: node.clone(),
                id,
                last_failure: fence.last_failure.clone(),
                suffices_in_s: left.map(|left| left.as_millis().div_ceil(1_000)).and_then(|s| u64::try_from(s).ok()),
            });
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

    /// Why each node of a choice can't have the resource, in words; the nodes' own troubles first.
    fn absences(&self, choice: &Choice) -> Vec<String> {
        let mut why: BTreeMap<&MemberName, String> =
            choice.others.iter().map(|(node, left_out)| (node, format!("{node}: {left_out}"))).collect();
        for node in self.state.nodes.keys() {
            if let Err(reason) = self.takes(node) {
                why.insert(node, reason.to_string());
            }
        }
        if self.state.nodes.is_empty() {
            return vec!["no node has joined".to_owned()];
        }
        why.into_values().collect()
    }
}
