//! Carries out the steps of a schedule.

use tiebreaker_member::core::Request;
use tiebreaker_pipeline::command::{Command, Setting};
use tiebreaker_pipeline::fence::Progress;
use tiebreaker_pipeline::resource::{MoveReason, Requested};
use tiebreaker_pipeline::state::{FewerVotes, Role};
use tiebreaker_simulator::world::{Failing, Halt, MS, Mood, Power, SEC, WALL_MS, Who};

use crate::fault::{Fault, Scripts};
use crate::run::{JOINED, LOOK, Run, devices, specification};
use crate::schedule::Style;

/// After everything has healed, all is looked at this often.
pub(crate) const LOOK_EVERY: u64 = SEC;

impl Run {
    pub(crate) fn strike(&mut self, step: u64) {
        let fault = usize::try_from(step).ok().and_then(|step| self.schedule.faults.get(step));
        let Some((_, fault)) = fault.cloned() else { return };
        let world = &mut self.world;
        world.note(|| format!("FAULT {}", told(&fault)));
        match fault {
            Fault::Cut { from, to, both, for_ns } => {
                world.cut(from, to, for_ns);
                if both {
                    world.cut(to, from, for_ns);
                }
            }
            Fault::Isolate { who, for_ns } => {
                for other in (0..world.machines().len()).filter(|other| *other != who) {
                    world.cut(who, other, for_ns);
                    world.cut(other, who, for_ns);
                }
            }
            Fault::Slow { from, to, least_ns, most_ns, for_ns } => {
                world.slow_down(from, to, (least_ns, most_ns), for_ns);
            }
            Fault::Lossy { from, to, permille, for_ns } => world.lose_messages(from, to, permille, for_ns),
            Fault::Crash { who, back_ns, after_actions: 0 } => world.crash(who, back_ns),
            Fault::Crash { who, after_actions, .. } => world.crash_after(who, after_actions),
            Fault::Stop { who, for_ns } => world.stop_for(who, for_ns),
            Fault::StopInPet { who, for_ns } => world.stop_in_pet(who, for_ns),
            Fault::Pause { who, for_ns } => world.halt(who, Halt::Paused, for_ns),
            Fault::Suspend { who, for_ns } => world.halt(who, Halt::Suspended, for_ns),
            Fault::Hang { who, for_ns } => world.halt(who, Halt::Hung, for_ns),
            Fault::PowerCut { who, for_ns, bmc } => world.fail_mains(who, bmc, Some(for_ns)),
            Fault::Reset { who } => world.reset_machine(who),
            Fault::Stall { who, for_ns } => world.stall(who, for_ns),
            Fault::Slew { who, ppm } => world.slew(who, ppm),
            Fault::Dies { resource } => world.kill(&self.resources[resource]),
            Fault::Bmc { who, second, mode, for_ns } => world.set_device(who, usize::from(second), mode, Some(for_ns)),
            Fault::SlowWatchdog { who, most_ns } => world.slow_watchdog(who, most_ns),
            Fault::Miswire { who, other, for_ns } => world.miswire(who, other, for_ns),
            Fault::Copy { of, to } => world.copy_disk(of, to),
            Fault::Scripts { who, mood, for_ns } => {
                let mood = match mood {
                    Scripts::Bad => Mood::BAD,
                    Scripts::Slow => Mood::SLOW,
                };
                world.set_mood(who, mood, for_ns);
            }
            Fault::Add { resource, runs_on } => self.add(resource, runs_on),
            Fault::Set { resource, requested } => {
                let name = self.resources[resource].clone();
                self.ask(Request::Propose(Command::SetResource { name, spec: None, requested }));
            }
            Fault::Lock { resource, on } => {
                let name = self.resources[resource].clone();
                self.ask(Request::Propose(Command::SetLock {
                    resource: name,
                    reason: on.then(|| "backup".to_owned()),
                }));
            }
            Fault::Send { resource, to, live } => {
                // An operator moves what is there, and not to where it is.
                let state = world.committed();
                let nth = resource % state.resources.len().max(1);
                let Some((name, resource)) = state.resources.iter().nth(nth) else { return };
                let there = |to: &Who| resource.phase.owner() == Some(world.machines()[*to].name());
                let others = (1..world.machines().len()).filter(|to| world.is_current(*to));
                let to = Some(to).filter(|to| !there(to)).or_else(|| others.into_iter().find(|to| !there(to)));
                let Some(to) = to.map(|to| world.machines()[to].name().clone()) else { return };
                // What can't move live is stopped here and started there.
                let (live, resource) = (live && resource.spec.live, name.clone());
                self.ask(Request::Move { resource, to, live, forced_by: None });
            }
            Fault::MovesFail { resource, times } => {
                let nth = resource % world.committed().resources.len().max(1);
                let Some(name) = world.committed().resources.keys().nth(nth).cloned() else { return };
                world.set_failing(name, Failing { moves: times, ..Failing::default() });
            }
            Fault::Maintenance { who, on, force } => {
                let command = Command::SetMaintenance { node: world.machines()[who].name().clone(), on };
                self.ask(if force { Request::Force { command, by: "op".into() } } else { Request::Propose(command) });
            }
            Fault::Leave { who, how, within_ns } => world.leave(who, how, within_ns),
            Fault::PowerOn { who } => {
                // Nobody switches on by hand what the cluster is just switching off.
                if world.committed().open_fence(world.machines()[who].name()).is_none() {
                    world.power_on(who);
                }
            }
            Fault::Disarm(mode) => self.ask(Request::Propose(Command::Disarm { mode })),
            Fault::Arm => self.ask(Request::Propose(Command::Arm)),
            Fault::Policy(policy) => self.ask(Request::Propose(Command::Set(Setting::Shutdown(policy)))),
            Fault::Delay { class, seconds } => {
                self.ask(Request::Propose(Command::Set(Setting::OrderDelay { class, seconds })));
            }
            Fault::Tolerate(failures) => self.ask(Request::Propose(Command::Set(Setting::Tolerate(failures)))),
            Fault::Join { who } => self.join(who),
            Fault::FewerVotes { who, for_ns } => {
                let without = [world.machines()[who].name().clone()].into();
                let until_ms = WALL_MS + (world.now() + for_ns) / MS;
                let fewer = Some(FewerVotes { without, until_ms });
                self.ask(Request::Propose(Command::Set(Setting::FewerVotes(fewer))));
            }
            Fault::Move { resource, to } => {
                let name = self.resources[resource].clone();
                let Some(resource) = world.committed().resources.get(&name) else { return };
                let to = Some(world.machines()[to].name().clone());
                let (generation, why) = (resource.generation, MoveReason::Asked);
                self.ask(Request::Propose(Command::Release { resource: name, generation, to, why }));
            }
            Fault::Enable { who, resource } => world.enable(who, &self.resources[resource]),
            Fault::Drop { resource } => {
                let name = self.resources[resource].clone();
                self.ask(Request::Propose(Command::RemoveResource { name }));
            }
            Fault::Fence { who } => {
                let node = world.machines()[who].name().clone();
                self.ask(Request::Fence { node, by: "op".into() });
            }
            Fault::Confirm { who } => {
                // The operator stands before the machine: it is off, and the fence is open.
                let machine = &world.machines()[who];
                let wanted = world
                    .committed()
                    .open_fence(machine.name())
                    .filter(|(_, fence)| fence.progress == Progress::Wanted)
                    .map(|(id, _)| id);
                if let (Power::Off, Some(id)) = (machine.power(), wanted) {
                    let node = machine.name().clone();
                    self.ask(Request::Confirm { node, id, by: "op".into() });
                }
            }
            Fault::Profile(profile) => self.ask(Request::Propose(Command::SetProfile { profile })),
            Fault::Remove { who } => {
                let name = world.machines()[who].name().clone();
                self.ask(Request::Remove { name, forced_by: None });
            }
            Fault::Proven { who, proven } => {
                let node = world.machines()[who].name().clone();
                let devices = devices(self.schedule.machines[who], proven);
                world.ask_at(0, Request::Propose(Command::SetDevices { node, devices }));
            }
        }
    }

    fn add(&mut self, resource: usize, runs_on: Option<Who>) {
        let world = &mut self.world;
        let name = self.resources[resource].clone();
        // In a scene it may be on its way out.
        if world.committed().resources.contains_key(&name) && self.schedule.style != Style::Scripted {
            return;
        }
        // What is already running was started by hand, once.
        let runs_on_machine = |who: Who| world.machines()[who].is_alive(&name);
        let runs = (0..world.machines().len()).any(runs_on_machine);
        // Where the cluster can't look, the operator did: on a machine that was removed it is stopped before it comes here.
        if (1..world.machines().len()).any(|who| runs_on_machine(who) && !world.is_current(who)) {
            return;
        }
        // Nobody starts things by hand on a node that isn't in service.
        if let Some(who) = runs_on
            && !runs
            && world.machines()[who].power() == Power::Up
            && world.committed().in_service(world.machines()[who].name())
        {
            world.start_by_hand(who, &name);
        }
        let (spec, requested) = (specification(self.schedule.shapes[resource]), Requested::Started);
        self.ask(Request::Propose(Command::AddResource { name, spec, requested, node: None }));
    }

    /// A machine joins with an empty disk: the appliance makes it a member, and hands over what it needs to begin.
    pub(crate) fn join(&mut self, who: Who) {
        let world = &mut self.world;
        let name = world.machines()[who].name().clone();
        // Whoever has copied a disk doesn't join the copy under the same name as well.
        if world.committed().members.contains_key(&name) || world.is_of_copies(who) {
            return;
        }
        self.joining += 1;
        // A key of its own each time, as a wiped machine makes itself a new one.
        let key = format!("{who:02}{}", self.joining);
        let command = Command::AddMember { name, role: Role::Node, addresses: vec![], key };
        if world.ask_at(0, Request::Propose(command)).is_some() {
            let at = world.now() + SEC;
            world.cue_at(at, JOINED - who as u64);
        }
    }

    /// The appliance hands a new member over what it begins with, as soon as it knows of it.
    pub(crate) fn joined(&mut self, who: Who) {
        let world = &mut self.world;
        let name = world.machines()[who].name().clone();
        if world.committed().members.contains_key(&name) && !world.is_current(who) && !world.take_in(who) {
            let at = world.now() + SEC;
            world.cue_at(at, JOINED - who as u64);
        }
    }

    /// An operator asks somebody who is up, if anybody is.
    fn ask(&mut self, request: Request) {
        let _ = self.world.ask(request);
    }

    /// Everything works again from here on.
    pub(crate) fn heal(&mut self) {
        self.world.heal();
        let after = self.world.now() + LOOK_EVERY;
        self.world.cue_at(after, LOOK);
    }
}

fn told(fault: &Fault) -> String {
    let text = format!("{fault:?}");
    // Nanoseconds are for machines.
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("_ns: ") {
        let (head, tail) = rest.split_at(at);
        let tail = &tail[5..];
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let ms = tail[..digits].parse::<u64>().map_or(0, |ns| ns / MS);
        out.push_str(head);
        out.push_str(": ");
        out.push_str(&format!("{ms} ms"));
        rest = &tail[digits..];
    }
    out.push_str(rest);
    out
}
