//! After everything has healed the cluster must get well by itself, within a bounded time.

use tiebreaker_consensus::Role as RaftRole;
use tiebreaker_member::core::{Core, Request};
use tiebreaker_pipeline::command::{Command, Setting};
use tiebreaker_pipeline::fence::Progress;
use tiebreaker_pipeline::fencer;
use tiebreaker_pipeline::resource::{Phase, Requested};
use tiebreaker_pipeline::state::Arming;

use tiebreaker_simulator::world::{Power, Who};

use crate::run::{LOOK, Run, devices};
use crate::schedule::Style;
use crate::strike::LOOK_EVERY;

impl Run {
    pub(crate) fn look(&mut self) {
        let world = &mut self.world;
        for who in 1..world.machines().len() {
            // A node that a fence has left off, because its device failed, is switched on by hand.
            let machine = &world.machines()[who];
            let fenced = world.committed().open_fence(machine.name()).is_some();
            if machine.power() == Power::Off && !fenced && world.dice().one_in(10) {
                world.power_on(who);
            }
        }
        self.tidy_up();
        for who in self.again.clone() {
            self.join(who);
        }
        match self.ill() {
            Some(_) => self.world.cue_at(self.world.now() + LOOK_EVERY, LOOK),
            None => {
                self.world.note(|| "all is well".into());
                self.finish();
            }
        }
    }

    /// What operators have begun, they end: nobody else does it for them.
    fn tidy_up(&mut self) {
        let state = self.world.committed();
        let mut wishes = Vec::new();
        match state.settings.arming {
            Arming::Armed | Arming::Arming { .. } => {}
            Arming::Disarming { .. } | Arming::Disarmed { .. } => wishes.push(Command::Arm),
        }
        for (node, _) in state.nodes.iter().filter(|(_, state)| state.maintenance) {
            wishes.push(Command::SetMaintenance { node: node.clone(), on: false });
        }
        for (name, _) in state.resources.iter().filter(|(_, resource)| resource.locked.is_some()) {
            wishes.push(Command::SetLock { resource: name.clone(), reason: None });
        }
        if state.settings.fewer_votes.is_some() {
            wishes.push(Command::Set(Setting::FewerVotes(None)));
        }
        // The appliance's own check finds that every device works again.
        for (who, kind) in self.schedule.machines.iter().enumerate().skip(1) {
            let node = self.world.machines()[who].name();
            let known = self.world.committed().nodes.get(node).map(|state| &state.devices);
            let devices = devices(*kind, true);
            if known.is_some_and(|known| *known != devices) {
                wishes.push(Command::SetDevices { node: node.clone(), devices });
            }
        }
        for wish in wishes {
            self.world.ask(Request::Propose(wish));
        }
        // Where a device read off and on again, somebody has to look: he says what he sees.
        let doubted = self.world.committed().fences.iter().filter(|(_, fence)| {
            fence.progress == Progress::Wanted && fence.last_failure.as_deref() == Some(fencer::CAME_BACK)
        });
        for (id, node) in doubted.map(|(id, fence)| (*id, fence.node.clone())).collect::<Vec<_>>() {
            let off = self.world.who(&node).is_some_and(|who| self.world.machines()[who].power() == Power::Off);
            if off {
                self.world.ask(Request::Confirm { node, id, by: "op".into() });
            }
        }
        for who in 1..self.world.machines().len() {
            self.joined(who);
            if self.world.is_current(who) && self.world.is_blank(who) {
                self.replace(who);
            } else if self.world.is_shut_out_by_a_copy(who) {
                let node = self.world.machines()[who].name().clone();
                self.world.ask(Request::Fence { node, by: "op".into() });
            }
        }
    }

    /// A member whose disk is gone is taken out, and joins anew.
    fn replace(&mut self, who: Who) {
        let name = self.world.machines()[who].name().clone();
        // Whoever installs it anew resets it first: from then on nothing runs there, and he can give his word for it.
        if self.again.insert(who) {
            self.world.reset_machine(who);
        }
        let open = self.world.committed().open_fence(&name).filter(|(_, fence)| fence.progress == Progress::Wanted);
        let fate = if let Some((id, _)) = open {
            Request::Confirm { node: name, id, by: "op".into() }
        } else if self.world.committed().life(&name).is_some() {
            Request::Fence { node: name, by: "op".into() }
        } else {
            Request::Remove { name, forced_by: None }
        };
        self.world.ask(fate);
    }

    /// Time is up.
    pub(crate) fn not_well(&mut self) {
        let why = self.ill().unwrap_or_else(|| "nothing happens any more".into());
        // What the leader says of it ends the trace.
        let resources: Vec<_> = self.world.committed().resources.keys().cloned().collect();
        let now = self.world.now();
        let leads = |who: &Who| {
            let machine = &self.world.machines()[*who];
            let role = machine.core().map(|core| core.leadership(machine.reading(now)).role);
            matches!(role, Some(RaftRole::Leader { .. }))
        };
        if let Some(leader) = (0..self.world.machines().len()).find(leads) {
            for resource in resources {
                self.world.ask_at(leader, Request::Why { resource });
            }
            self.world.ask_at(leader, Request::Status);
        }
        self.world.violated("liveness", why);
        self.over = true;
    }

    fn finish(&mut self) {
        self.over = true;
        if self.schedule.style == Style::OneCut {
            if self.world.leases_lost() > 0 {
                let what = format!("{} lease(s) lost by one cut link", self.world.leases_lost());
                self.world.violated("nothing is fenced needlessly", what);
            } else if self.world.fences() > 0 {
                self.world.violated("nothing is fenced needlessly", "a fence by one cut link".into());
            }
        }
        let doubts = self.world.machines().iter().find(|machine| machine.core().is_some_and(Core::is_doubtful));
        if let Some(name) = doubts.map(|machine| machine.name().clone()) {
            self.world.violated("replicas", format!("{name} doubts a copy of the state, and all are the same"));
        }
        let mut digests = self.world.machines().iter().filter_map(|machine| {
            let (name, state) = (machine.name(), machine.core()?.state());
            let current = state.members.get(name).is_some_and(|member| member.raft_id == machine.raft_id());
            current.then(|| (name.clone(), state.applied, state.digest()))
        });
        let first = digests.next();
        let differs = digests.find(|(_, applied, digest)| {
            first.as_ref().is_some_and(|(_, index, other)| index == applied && digest != other)
        });
        if let Some((name, applied, _)) = differs {
            self.world.violated("replicas", format!("{name} differs at index {applied}"));
        }
    }

    /// What isn't as it should be.
    fn ill(&self) -> Option<String> {
        let state = self.world.committed();
        let machines = self.world.machines();
        let present: Vec<Who> =
            (0..machines.len()).filter(|who| state.members.contains_key(machines[*who].name())).collect();
        for who in &present {
            let machine = &machines[*who];
            let Some(core) = machine.core() else { return Some(format!("{} doesn't run", machine.name())) };
            let reading = machine.reading(self.world.now());
            if *who == 0 && !matches!(core.leadership(reading).role, RaftRole::Leader { lease_until: Some(_) }) {
                return Some("the appliance doesn't lead".into());
            }
            if core.node().is_some_and(|node| !node.has_lease(reading)) {
                let why = core.node().and_then(|node| node.refused().map(ToString::to_string));
                return Some(format!("{} has no lease: {why:?}", machine.name()));
            }
            if core.state().applied != state.applied {
                return Some(format!("{} has applied {} of {}", machine.name(), core.state().applied, state.applied));
            }
        }
        if let Some((id, fence)) = state.fences.iter().find(|(_, fence)| fence.is_open()) {
            return Some(format!("fence {id} of {} is still open: {:?}", fence.node, fence.progress));
        }
        if state.settings.arming != Arming::Armed {
            return Some(format!("the cluster is {}", state.settings.arming));
        }
        if let Some(node) = state.nodes.iter().find_map(|(node, state)| state.maintenance.then_some(node)) {
            return Some(format!("{node} is in maintenance"));
        }
        if !state.settings.unsettled.is_empty() {
            return Some("the profile is not settled".into());
        }
        for (name, resource) in &state.resources {
            // Where it failed it doesn't go again, and where nothing can be proven it never goes.
            let can_run = state
                .nodes
                .keys()
                .any(|node| state.unprotectable(node).is_none() && !resource.failed_on.contains_key(node));
            let runs: Vec<Who> = (0..machines.len()).filter(|who| machines[*who].runs(name)).collect();
            let well = match (&resource.phase, resource.requested) {
                (Phase::Error { .. } | Phase::Ignored, _) => true,
                (Phase::Placed { node }, Requested::Started) => {
                    matches!(runs[..], [who] if machines[who].name() == node)
                }
                (Phase::Placed { .. }, _) => runs.is_empty(),
                (Phase::Migrating { .. }, _) => false,
                // Where it was found running, there it is taken over, or nowhere.
                (Phase::New, _) if !runs.is_empty() => {
                    runs.iter().any(|who| state.unprotectable(machines[*who].name()).is_some())
                }
                (Phase::Free { .. }, Requested::Disabled) => runs.is_empty(),
                (Phase::New | Phase::Free { .. }, _) => !can_run,
                (Phase::Releasing { .. }, _) => !can_run && runs.is_empty(),
            };
            if !well {
                let on: Vec<_> = runs.iter().map(|who| machines[*who].name().to_string()).collect();
                return Some(format!(
                    "{name} is {:?}, wanted {:?}, runs on {on:?}",
                    resource.phase, resource.requested
                ));
            }
        }
        None
    }
}
