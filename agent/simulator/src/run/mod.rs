//! Runs a scenario: lets its events happen to a world, asks for operators what they would ask, and tells what came of it.

mod account;
mod begin;
mod ending;
mod links;

use std::collections::BTreeMap;

use tiebreaker_member::core::{Reply, Request, RequestId};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::report::{Leave, Usage};
use tiebreaker_pipeline::state::{DeviceStatus, DisarmMode};

use crate::output::{Document, What};
use crate::scenario::{BmcSetup, Disarm, Do, Placement, ResourceId, Scenario};
use crate::world::{BmcMode, Next, Record, SEC, Who, World};

use account::Account;
use links::Links;

/// The service manager starts a killed agent again after this long: `RestartSec=1` in its unit.
const RESTARTED_AFTER: u64 = SEC;
/// An operator who got no answer, or nobody to ask, tries again after this long.
const ASKS_AGAIN_AFTER: u64 = SEC;
/// No answer comes after this long: the members themselves give up after half of it.
const ANSWERED_WITHIN: u64 = 10 * SEC;
/// Nodes measure what their resources use this often.
const MEASURED_EVERY: u64 = 10 * SEC;
/// Who shuts a node down in good order waits for its agent for so long.
const LEAVES_WITHIN: u64 = 300 * SEC;
/// The appliance looks at a device that it doesn't believe this often.
const PROVES_AGAIN_AFTER: u64 = 2 * SEC;

/// Runs a scenario to its end.
#[must_use]
pub fn simulate(scenario: &Scenario) -> Document {
    Run::new(scenario).run()
}

struct Run<'a> {
    scenario: &'a Scenario,
    world: World,
    links: Links,
    account: Account,
    /// What each cue means.
    cues: Vec<Cue>,
    /// Requests under way.
    asked: BTreeMap<RequestId, Wish>,
}

/// What is to be done at a certain time.
#[derive(Clone, Debug)]
enum Cue {
    /// An event of the scenario, by its place.
    Happens(usize),
    /// Somebody asks for something, again.
    Asks(Wish),
    /// A request was not answered.
    Overdue(RequestId),
    /// Nodes measure what their resources use.
    Measure,
}

/// What somebody wants of the cluster.
#[derive(Clone, Debug)]
enum Wish {
    /// An operator wants what an event says, by its place.
    Event(usize),
    /// The appliance has looked at a node's device, and believes it.
    Proven(MemberName),
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut world = World::new(begin::setup(scenario));
        for resource in &scenario.resources {
            begin::fail(&mut world, resource);
        }
        let links = Links::new(world.machines().len());
        let mut account = Account::default();
        account.places.extend(scenario.resources.iter().map(|setup| (resource(&setup.id), setup.node.clone())));
        let mut run = Self { scenario, world, links, account, cues: Vec::new(), asked: BTreeMap::new() };
        if scenario.placement == Placement::Dynamic {
            run.cue_at(MEASURED_EVERY, Cue::Measure);
        }
        for (place, event) in scenario.events.iter().enumerate() {
            run.cue_at(begin::nanos(event.at), Cue::Happens(place));
        }
        run
    }

    fn run(mut self) -> Document {
        let end = begin::nanos(self.scenario.duration);
        loop {
            match self.world.next(end) {
                Next::Step => {}
                Next::Cue(cue) => {
                    let cue = usize::try_from(cue).ok().and_then(|cue| self.cues.get(cue)).cloned();
                    match cue {
                        Some(Cue::Happens(place)) => self.happen(place),
                        Some(Cue::Asks(wish)) => self.ask(wish),
                        Some(Cue::Overdue(request)) => {
                            self.asked.remove(&request).into_iter().for_each(|wish| self.ask(wish))
                        }
                        Some(Cue::Measure) => self.measure(),
                        None => {}
                    }
                }
                Next::TimeIsUp => break,
            }
            self.take_records();
        }
        ending::document(self.world, self.account)
    }

    fn cue_at(&mut self, at: u64, cue: Cue) {
        self.world.cue_at(at, self.cues.len() as u64);
        self.cues.push(cue);
    }

    fn who(&self, name: &MemberName) -> Who {
        self.world.who(name).expect("a scenario's names are somebody's")
    }

    /// What happened goes into the account; answers go to who asked.
    fn take_records(&mut self) {
        for entry in self.world.take_records() {
            let answered = match &entry.what {
                Record::Answered { request, reply } => self.asked.remove(request).map(|wish| (wish, reply.clone())),
                _ => None,
            };
            match answered {
                Some((wish, reply)) => self.answered(wish, &reply),
                None => self.account.add(self.world.committed(), entry),
            }
        }
    }

    fn answered(&mut self, wish: Wish, reply: &Reply) {
        let (done, answer) = match reply {
            Reply::Done { .. } => (true, String::new()),
            Reply::Void { why } => (false, why.to_string()),
            Reply::Refused { why } | Reply::NotYet { why } => (false, why.clone()),
            Reply::NoLeader { .. } => return self.ask_later(wish),
            Reply::Status(_)
            | Reply::State { .. }
            | Reply::Drain(_)
            | Reply::Log { .. }
            | Reply::Why { .. }
            | Reply::Journal { .. }
            | Reply::NotHeard { .. }
            | Reply::ReadIndex { .. }
            | Reply::Certificate { .. } => return,
        };
        if let Wish::Event(place) = wish {
            let event = &self.scenario.events[place].what;
            let answer = if done { event.to_string() } else { format!("{event}: {answer}") };
            self.account.tell(self.world.now(), What::Answer { done, answer });
        }
    }

    // --- asking

    fn ask_later(&mut self, wish: Wish) {
        self.cue_at(self.world.now() + ASKS_AGAIN_AFTER, Cue::Asks(wish));
    }

    fn ask(&mut self, wish: Wish) {
        let asked = match &wish {
            Wish::Event(place) => {
                let Some(request) = self.request(*place) else { return };
                self.world.ask(request)
            }
            Wish::Proven(node) => {
                let device = DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven: true, why: None };
                let command = Command::SetDevices { node: node.clone(), devices: vec![device] };
                self.world.ask_at(0, Request::Propose(command))
            }
        };
        match asked {
            Some(request) => {
                self.asked.insert(request, wish);
                self.cue_at(self.world.now() + ANSWERED_WITHIN, Cue::Overdue(request));
            }
            None => self.ask_later(wish),
        }
    }

    /// What an operator asks for by an event.
    fn request(&self, place: usize) -> Option<Request> {
        let command = match &self.scenario.events[place].what {
            Do::Set { id, state } => {
                Command::SetResource { name: resource(id), spec: None, requested: begin::requested(*state) }
            }
            Do::Add { id, state, node } => Command::AddResource {
                name: resource(id),
                spec: begin::usual_specification(id),
                requested: begin::requested(*state),
                node: Some(node.clone()),
            },
            Do::Remove { id } => Command::RemoveResource { name: resource(id) },
            Do::Migrate { id, to } => {
                // What can't move live is stopped and started.
                let name = resource(id);
                let live = self.world.committed().resources.get(&name).is_some_and(|resource| resource.spec.live);
                return Some(Request::Move { resource: name, to: to.clone(), live, forced_by: None });
            }
            Do::Relocate { id, to } => {
                return Some(Request::Move { resource: resource(id), to: to.clone(), live: false, forced_by: None });
            }
            Do::Maintenance { node, on } => Command::SetMaintenance { node: node.clone(), on: *on },
            Do::Disarm(Disarm::Freeze) => Command::Disarm { mode: DisarmMode::Freeze },
            Do::Disarm(Disarm::Ignore) => Command::Disarm { mode: DisarmMode::Ignore },
            Do::Arm => Command::Arm,
            Do::Lock { id } => Command::SetLock { resource: resource(id), reason: Some("backup".into()) },
            Do::Unlock { id } => Command::SetLock { resource: resource(id), reason: None },
            Do::PowerOn(_)
            | Do::PowerOff(_)
            | Do::Isolate(_)
            | Do::Rejoin(_)
            | Do::Cut(..)
            | Do::Heal(..)
            | Do::Freeze(_)
            | Do::Thaw(_)
            | Do::KillAgent(_)
            | Do::Shutdown(_)
            | Do::Reboot(_)
            | Do::RestartAgent(_)
            | Do::Fail { .. }
            | Do::Bmc { .. }
            | Do::Drift { .. }
            | Do::DiskStall { .. }
            | Do::LoseDisk(_) => return None,
        };
        Some(Request::Propose(command))
    }

    /// What runs uses what it declares.
    fn measure(&mut self) {
        for who in 1..self.world.machines().len() {
            let machine = &self.world.machines()[who];
            let usage = self
                .scenario
                .resources
                .iter()
                .map(|setup| (resource(&setup.id), setup.memory.unwrap_or(0)))
                .filter(|(name, _)| machine.runs(name))
                .map(|(name, memory)| (name, Usage { memory, milli_cpus: 0 }))
                .collect();
            self.world.tell_usage(who, usage);
        }
        self.cue_at(self.world.now() + MEASURED_EVERY, Cue::Measure);
    }

    // --- events

    fn happen(&mut self, place: usize) {
        let event = &self.scenario.events[place].what;
        let now = self.world.now();
        self.account.tell(now, What::Event { event: event.to_string() });
        match event {
            Do::PowerOn(name) => self.world.mains(self.who(name)),
            Do::PowerOff(name) => {
                self.account.strikes(now, name);
                self.world.fail_mains(self.who(name), false, None);
            }
            Do::Isolate(name) => {
                self.account.strikes(now, name);
                self.links.isolate(self.who(name));
                self.links.apply(&mut self.world);
            }
            Do::Rejoin(name) => {
                self.links.rejoin(self.who(name));
                self.links.apply(&mut self.world);
            }
            Do::Cut(one, other) => {
                self.account.strikes(now, one);
                self.account.strikes(now, other);
                self.links.cut(self.who(one), self.who(other));
                self.links.apply(&mut self.world);
            }
            Do::Heal(one, other) => {
                self.links.heal(self.who(one), self.who(other));
                self.links.apply(&mut self.world);
            }
            Do::Freeze(name) => {
                self.account.strikes(now, name);
                self.world.freeze(self.who(name));
            }
            Do::Thaw(name) => self.world.go_on(self.who(name)),
            Do::KillAgent(name) => {
                self.account.strikes(now, name);
                self.world.crash(self.who(name), RESTARTED_AFTER);
            }
            Do::Fail { id } => self.world.kill(&resource(id)),
            Do::Bmc { node, mode } => {
                self.world.set_bmc(self.who(node), bmc(*mode), None);
                if self.scenario.appliance && *mode != BmcSetup::Unreachable {
                    self.cue_at(now + PROVES_AGAIN_AFTER, Cue::Asks(Wish::Proven(node.clone())));
                }
            }
            Do::Drift { member, ppm } => self.world.slew(self.who(member), i64::from(*ppm)),
            Do::DiskStall { member, span } => self.world.stall(self.who(member), begin::nanos(*span)),
            Do::LoseDisk(name) => {
                self.account.strikes(now, name);
                self.world.lose_disk(self.who(name));
            }
            Do::Shutdown(name) => self.world.leave(self.who(name), Leave::PowerOff, LEAVES_WITHIN),
            Do::Reboot(name) => self.world.leave(self.who(name), Leave::Reboot, LEAVES_WITHIN),
            Do::RestartAgent(name) => self.world.leave(self.who(name), Leave::AgentRestart, LEAVES_WITHIN),
            Do::Set { .. }
            | Do::Add { .. }
            | Do::Remove { .. }
            | Do::Migrate { .. }
            | Do::Relocate { .. }
            | Do::Maintenance { .. }
            | Do::Disarm(_)
            | Do::Arm
            | Do::Lock { .. }
            | Do::Unlock { .. } => self.ask(Wish::Event(place)),
        }
    }
}

/// The name under which the cluster knows a resource.
fn resource(id: &ResourceId) -> ResourceName {
    ResourceName::new(&id.to_string()).expect("an id is a valid name")
}

fn bmc(setup: BmcSetup) -> BmcMode {
    match setup {
        BmcSetup::Good | BmcSetup::None => BmcMode::Works,
        BmcSetup::Unreachable => BmcMode::Unreachable,
        BmcSetup::Stuck => BmcMode::Stuck,
        BmcSetup::Slow(by) => BmcMode::Slow(begin::nanos(by)),
    }
}

#[cfg(test)]
mod tests;
