//! Carries out the steps of a schedule.

use tiebreaker_member::core::Request;
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::fence::Progress;
use tiebreaker_pipeline::resource::{MoveReason, Requested};
use tiebreaker_pipeline::state::DeviceStatus;
use tiebreaker_simulator::world::{Halt, MS, Mood, Power, SEC, Who};

use crate::fault::{Fault, Scripts};
use crate::run::{LOOK, Run, specification};
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
            Fault::Bmc { who, mode, for_ns } => world.set_bmc(who, mode, Some(for_ns)),
            Fault::Scripts { who, mood, for_ns } => {
                let mood = match mood {
                    Scripts::Bad => Mood::BAD,
                    Scripts::Slow => Mood::SLOW,
                };
                world.set_mood(who, mood, for_ns);
            }
            Fault::Add { resource, runs_on } => self.add(resource, runs_on),
            Fault::Set { resource, started } => {
                let name = self.resources[resource].clone();
                let requested = if started { Requested::Started } else { Requested::Stopped };
                self.ask(Request::Propose(Command::SetResource { name, spec: None, requested }));
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
                self.ask(Request::Remove { name });
            }
            Fault::Proven { who, proven } => {
                let node = world.machines()[who].name().clone();
                let device = DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven, why: None };
                world.ask_at(0, Request::Propose(Command::SetDevices { node, devices: vec![device] }));
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
        let runs = world.machines().iter().any(|machine| machine.is_alive(&name));
        // Nobody starts things by hand on a node that isn't in service.
        if let Some(who) = runs_on
            && !runs
            && world.machines()[who].power() == Power::Up
            && world.committed().in_service(world.machines()[who].name())
        {
            world.start_by_hand(who, &name);
        }
        let requested = Requested::Started;
        self.ask(Request::Propose(Command::AddResource { name, spec: specification(), requested, node: None }));
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
