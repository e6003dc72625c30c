//! Carries out the steps of a schedule, and takes them back.

use tiebreaker_member::core::Request;
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::fence::Progress;
use tiebreaker_pipeline::resource::{MoveReason, Requested};
use tiebreaker_pipeline::state::DeviceStatus;

use crate::bmc::BmcMode;
use crate::dice::{MS, SEC};
use crate::event::{Event, Relief};
use crate::fault::{Fault, Scripts, Who};
use crate::machine::{Halt, Power};
use crate::schedule::Style;
use crate::workload::Mood;
use crate::world::{World, specification};

/// After everything has healed, all is looked at this often.
const LOOK_EVERY: u64 = SEC;

impl World {
    pub(crate) fn strike(&mut self, index: usize) {
        let fault = self.schedule.faults[index].1.clone();
        self.note(|| format!("FAULT {}", told(&fault)));
        match fault {
            Fault::Cut { from, to, both, for_ns } => {
                self.cut(from, to, for_ns);
                if both {
                    self.cut(to, from, for_ns);
                }
            }
            Fault::Isolate { who, for_ns } => {
                for other in (0..self.machines.len()).filter(|other| *other != who) {
                    self.cut(who, other, for_ns);
                    self.cut(other, who, for_ns);
                }
            }
            Fault::Slow { from, to, least_ns, most_ns, for_ns } => {
                self.network.set_slow(from, to, Some((least_ns, most_ns)));
                self.after(for_ns, Event::Relief(Relief::Speed { from, to }));
            }
            Fault::Lossy { from, to, permille, for_ns } => {
                self.network.set_loss(from, to, permille);
                self.after(for_ns, Event::Relief(Relief::Loss { from, to }));
            }
            Fault::Crash { who, back_ns, after_actions: 0 } => self.crash(who, back_ns),
            Fault::Crash { who, after_actions, .. } => {
                if let Some(process) = &mut self.machines[who].process {
                    process.dies_after = Some(after_actions);
                }
            }
            Fault::Stop { who, for_ns } => self.stop(who, for_ns),
            Fault::StopInPet { who, for_ns } => {
                if let Some(process) = &mut self.machines[who].process {
                    process.stop_in_pet = Some(for_ns);
                }
            }
            Fault::Pause { who, for_ns } => self.halt(who, Halt::Paused, for_ns),
            Fault::Suspend { who, for_ns } => self.halt(who, Halt::Suspended, for_ns),
            Fault::Hang { who, for_ns } => self.halt(who, Halt::Hung, for_ns),
            Fault::PowerCut { who, for_ns, bmc } => {
                self.machines[who].mains = false;
                self.machines[who].bmc_has_power = !bmc;
                self.power_off(who, "its power fails");
                self.after(for_ns, Event::Relief(Relief::Mains { who }));
            }
            Fault::Reset { who } => {
                if self.machines[who].power == Power::Up {
                    self.reset(who, "resets");
                }
            }
            Fault::Stall { who, for_ns } => {
                let until = self.now + for_ns;
                self.machines[who].disk.stall(until);
            }
            Fault::Slew { who, ppm } => {
                let now = self.now;
                self.machines[who].clock.slew(now, ppm);
                self.bound(who);
                if let Some(process) = &mut self.machines[who].process {
                    process.wake_at = Some(now);
                }
            }
            Fault::Dies { resource } => {
                let name = self.resources[resource].clone();
                for who in 0..self.machines.len() {
                    if self.machines[who].workloads.die(&name) {
                        self.say(who, || format!("{name} dies"));
                    }
                }
            }
            Fault::Bmc { who, mode, for_ns } => {
                let changes = self.machines[who].bmc.set(mode);
                self.after(for_ns, Event::Relief(Relief::Bmc { who, changes }));
            }
            Fault::Scripts { who, mood, for_ns } => {
                let machine = &mut self.machines[who];
                machine.moods += 1;
                machine.mood = match mood {
                    Scripts::Bad => Mood::BAD,
                    Scripts::Slow => Mood::SLOW,
                };
                let moods = machine.moods;
                self.after(for_ns, Event::Relief(Relief::Mood { who, moods }));
            }
            Fault::Add { resource, runs_on } => {
                let name = self.resources[resource].clone();
                // In a scene it may be on its way out.
                if self.watch.committed.resources.contains_key(&name) && self.schedule.style != Style::Scripted {
                    return;
                }
                // What is already running was started by hand, once.
                let runs = self.machines.iter().any(|machine| machine.workloads.is_alive(&name));
                // Nobody starts things by hand on a node that isn't in service.
                if let Some(who) = runs_on
                    && !runs
                    && self.machines[who].power == Power::Up
                    && self.watch.committed.in_service(&self.machines[who].name)
                {
                    self.machines[who].workloads.start_by_hand(&name);
                }
                let requested = Requested::Started;
                self.ask(Request::Propose(Command::AddResource { name, spec: specification(), requested, node: None }));
            }
            Fault::Set { resource, started } => {
                let name = self.resources[resource].clone();
                let requested = if started { Requested::Started } else { Requested::Stopped };
                self.ask(Request::Propose(Command::SetResource { name, spec: None, requested }));
            }
            Fault::Move { resource, to } => {
                let name = self.resources[resource].clone();
                let Some(resource) = self.watch.committed.resources.get(&name) else { return };
                let to = Some(self.machines[to].name.clone());
                let (generation, why) = (resource.generation, MoveReason::Asked);
                self.ask(Request::Propose(Command::Release { resource: name, generation, to, why }));
            }
            Fault::Enable { who, resource } => {
                let name = self.resources[resource].clone();
                self.machines[who].enabled.insert(name);
            }
            Fault::Drop { resource } => {
                let name = self.resources[resource].clone();
                self.ask(Request::Propose(Command::RemoveResource { name }));
            }
            Fault::Fence { who } => {
                let node = self.machines[who].name.clone();
                self.ask(Request::Fence { node, by: "op".into() });
            }
            Fault::Confirm { who } => {
                // The operator stands before the machine: it is off, and the fence is open.
                let machine = &self.machines[who];
                let wanted = self
                    .watch
                    .committed
                    .open_fence(&machine.name)
                    .filter(|(_, fence)| fence.progress == Progress::Wanted)
                    .map(|(id, _)| id);
                if let (Power::Off, Some(id)) = (machine.power, wanted) {
                    let node = machine.name.clone();
                    self.ask(Request::Confirm { node, id, by: "op".into() });
                }
            }
            Fault::Profile(profile) => self.ask(Request::Propose(Command::SetProfile { profile })),
            Fault::Remove { who } => {
                let name = self.machines[who].name.clone();
                self.ask(Request::Remove { name });
            }
            Fault::Proven { who, proven } => {
                let node = self.machines[who].name.clone();
                let device = DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven, why: None };
                self.ask_at(0, Request::Propose(Command::SetDevices { node, devices: vec![device] }));
            }
        }
    }

    fn cut(&mut self, from: Who, to: Who, for_ns: u64) {
        self.network.cut(from, to);
        self.after(for_ns, Event::Relief(Relief::Link { from, to }));
    }

    /// An operator asks some member that is up.
    fn ask(&mut self, request: Request) {
        let up: Vec<Who> = (0..self.machines.len())
            .filter(|who| self.machines[*who].process.is_some() && self.machines[*who].moves())
            .collect();
        if up.is_empty() {
            return;
        }
        let who = up[self.dice.index(up.len())];
        self.ask_at(who, request);
    }

    /// Somebody asks this member, if it is up.
    fn ask_at(&mut self, who: Who, request: Request) {
        if !self.machines[who].moves() {
            return;
        }
        let id = self.next_request();
        self.say(who, || format!("is asked: {request:?}"));
        self.enter(who, |core, moment| core.request(moment, id, request));
    }

    pub(crate) fn relieve(&mut self, relief: Relief) {
        if self.healed {
            return;
        }
        match relief {
            Relief::Link { from, to } => self.network.mend(from, to),
            Relief::Speed { from, to } => self.network.set_slow(from, to, None),
            Relief::Loss { from, to } => self.network.set_loss(from, to, 0),
            Relief::Continue { who, stops } => {
                if self.machines[who].stops == stops {
                    self.go_on(who);
                }
            }
            Relief::Resume { who, halts } => {
                if self.machines[who].halts == halts {
                    self.resume(who);
                }
            }
            Relief::Mains { who } => {
                self.machines[who].mains = true;
                self.machines[who].bmc_has_power = true;
                self.power_on(who);
            }
            Relief::Bmc { who, changes } => {
                let bmc = &mut self.machines[who].bmc;
                if bmc.changes == changes {
                    bmc.set(BmcMode::Works);
                }
            }
            Relief::Mood { who, moods } => {
                let usual = self.usual_mood();
                let machine = &mut self.machines[who];
                if machine.moods == moods {
                    machine.mood = usual;
                }
            }
        }
    }

    /// Everything works again from here on.
    pub(crate) fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.healed = true;
        self.network.heal();
        for who in 0..self.machines.len() {
            self.machines[who].mains = true;
            self.machines[who].bmc_has_power = true;
            self.machines[who].bmc.set(BmcMode::Works);
            self.machines[who].disk.heal();
            self.machines[who].enabled.clear();
            self.machines[who].mood = Mood::GOOD;
            if let Some(process) = &mut self.machines[who].process {
                process.dies_after = None;
                process.stop_in_pet = None;
            }
            self.resume(who);
            self.go_on(who);
            if self.machines[who].power == Power::Off {
                let after = self.dice.between(100 * MS, 5 * SEC);
                self.after(after, Event::PowerOn { who });
            }
        }
        self.after(LOOK_EVERY, Event::Look);
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
