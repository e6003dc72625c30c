//! Power: devices that switch it, resets, boots, and machines that stand still.

use tiebreaker_pipeline::fence::OffSign;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::MemberName;

use super::World;
use super::bmc::{BmcMode, DEVICES, word};
use super::clock::Clock;
use super::dice::{MS, SEC};
use super::event::{Event, Relief};
use super::machine::{Boot, Halt, Power, Who};

/// The appliance gives up a command to a device after this long.
const COMMAND_WITHIN: u64 = 10 * SEC;

/// What the simulated devices, BMCs, answer.
const IS_OFF: DeviceResult = DeviceResult::IsOff { sign: OffSign::Bmc };

impl World {
    // --- the appliance's devices

    pub(crate) fn work_device(
        &mut self,
        who: Who,
        token: u64,
        (node, device): (&MemberName, &str),
        command: DeviceCommand,
    ) {
        let (Some(node), Some(instance)) = (self.who(node), self.machines[who].instance()) else { return };
        let Some(device) = DEVICES.iter().position(|name| *name == device) else { return };
        if command != DeviceCommand::Look {
            let name = self.machines[node].name.clone();
            self.say(who, || format!("tells the {} of {name}: {}", DEVICES[device], word(command)));
        }
        let after = self.dice.between(MS, 30 * MS);
        self.after(after, Event::Command { node, device, token, instance, command });
    }

    pub(crate) fn device_command(
        &mut self,
        (owner, device): (Who, usize),
        token: u64,
        instance: u64,
        command: DeviceCommand,
    ) {
        let bmc = self.machines[owner].devices[device];
        let node = bmc.wired_to.unwrap_or(owner);
        let answer_in = if self.devices_dawdle && self.dice.one_in(10) {
            self.dice.between(500 * MS, 2 * SEC)
        } else {
            self.dice.between(10 * MS, 300 * MS)
        };
        let unanswered = || DeviceResult::Unanswered { why: "no answer within 2 s".into() };
        if let BmcMode::Slow(by) = bmc.mode {
            return self.slow_device((owner, device), (token, instance), command, by);
        }
        if !bmc.powered || bmc.mode == BmcMode::Unreachable {
            return self.after(2 * SEC, Event::Device { instance, token, result: unanswered() });
        }
        let silent = matches!(bmc.mode, BmcMode::Queues | BmcMode::Mute);
        let done = match command {
            DeviceCommand::Look if self.machines[node].power == Power::Off => IS_OFF,
            DeviceCommand::Look => DeviceResult::IsOn,
            DeviceCommand::Off => {
                match bmc.mode {
                    BmcMode::Works | BmcMode::Mute => self.off_by_command(owner, node),
                    BmcMode::Queues => {
                        let after = self.dice.between(SEC, 20 * SEC);
                        self.after(after, Event::LateOff { node: owner, device, offs: None });
                    }
                    BmcMode::Lags => {
                        let after = self.dice.between(500 * MS, 5 * SEC);
                        let offs = Some(self.machines[node].offs);
                        self.after(after, Event::LateOff { node: owner, device, offs });
                    }
                    BmcMode::Stuck | BmcMode::Unreachable | BmcMode::Slow(_) => {}
                }
                DeviceResult::Taken
            }
            DeviceCommand::On => {
                if bmc.mode != BmcMode::Stuck {
                    let after = self.dice.between(10 * MS, 500 * MS);
                    self.after(after, Event::PowerOn { who: node });
                }
                DeviceResult::Taken
            }
        };
        if silent {
            self.after(2 * SEC, Event::Device { instance, token, result: unanswered() });
        } else {
            self.after(answer_in, Event::Device { instance, token, result: done });
        }
    }

    /// A device that is slow at everything: what a look tells was true when it was asked.
    fn slow_device(
        &mut self,
        (owner, device): (Who, usize),
        (token, instance): (u64, u64),
        command: DeviceCommand,
        by: u64,
    ) {
        let bmc = self.machines[owner].devices[device];
        if !bmc.powered {
            return;
        }
        let node = bmc.wired_to.unwrap_or(owner);
        let result = match command {
            DeviceCommand::Look if self.machines[node].power == Power::Off => IS_OFF,
            DeviceCommand::Look => DeviceResult::IsOn,
            DeviceCommand::Off => {
                self.after(by, Event::LateOff { node: owner, device, offs: None });
                DeviceResult::Taken
            }
            DeviceCommand::On => {
                self.after(by, Event::PowerOn { who: node });
                DeviceResult::Taken
            }
        };
        let (after, result) = if by < COMMAND_WITHIN {
            (by, result)
        } else {
            let why = format!("no answer within {} s", COMMAND_WITHIN / SEC);
            (COMMAND_WITHIN, DeviceResult::Unanswered { why })
        };
        self.after(after, Event::Device { instance, token, result });
    }

    pub(crate) fn device_result(&mut self, token: u64, result: DeviceResult) {
        self.enter(0, |core, moment| core.device_done(moment, token, result));
    }

    pub(crate) fn late_off(&mut self, (owner, device): (Who, usize), offs: Option<u64>) {
        let bmc = self.machines[owner].devices[device];
        let node = bmc.wired_to.unwrap_or(owner);
        if bmc.powered && offs.is_none_or(|offs| self.machines[node].offs == offs) {
            self.off_by_command(owner, node);
        }
    }

    fn off_by_command(&mut self, owner: Who, node: Who) {
        if self.machines[node].power == Power::Off {
            return;
        }
        if owner != node {
            // Whoever wired it so has switched this machine off, not the cluster: what counts is what it takes for proven.
            return self.power_off(node, "another machine's device switches it off");
        }
        self.look_at_power_off(node);
        if self.machines[node].power == Power::Up {
            self.machines[node].ended_by_fence = Some(self.machines[node].boot_id());
        }
        self.power_off(node, "its BMC switches it off");
        self.machines[node].off_by_fence = true;
        self.look_at_majority();
    }

    // --- machines

    /// Everything that ran is gone.
    fn die(&mut self, who: Who) {
        let machine = &mut self.machines[who];
        machine.epoch += 1;
        machine.process = None;
        machine.stopped = false;
        machine.stops += 1;
        machine.held.clear();
        machine.halted = None;
        machine.paused_until = None;
        machine.halts += 1;
        machine.frozen.clear();
        machine.disk.crash(&mut self.dice);
        machine.leaving = None;
        machine.dog.disarm();
        machine.workloads.die_all();
        machine.lease_end = None;
        machine.lease_over_at = 0;
        machine.gone_by = None;
    }

    pub(crate) fn power_off(&mut self, who: Who, why: &str) {
        self.say(who, || why.to_owned());
        self.die(who);
        self.machines[who].power = Power::Off;
        self.machines[who].offs += 1;
    }

    pub(crate) fn reset(&mut self, who: Who, why: &str) {
        if !self.machines[who].reboots {
            return self.power_off(who, why);
        }
        self.say(who, || why.to_owned());
        self.die(who);
        self.begin_boot(who);
    }

    /// As its software wants it, so it comes back whatever follows a reset.
    pub(super) fn reboot(&mut self, who: Who) {
        self.say(who, || "reboots".into());
        self.die(who);
        self.begin_boot(who);
    }

    fn begin_boot(&mut self, who: Who) {
        let machine = &mut self.machines[who];
        machine.power = Power::Booting;
        let epoch = machine.epoch;
        let after = match machine.boots {
            Boot::Takes(span) => span,
            Boot::Drawn if who == 0 => self.dice.between(2 * SEC, 8 * SEC),
            Boot::Drawn => self.dice.between(5 * SEC, 30 * SEC),
        };
        self.after(after, Event::Booted { who, epoch });
    }

    /// Somebody switches it on.
    pub fn power_on(&mut self, who: Who) {
        let machine = &mut self.machines[who];
        if machine.power == Power::Off && machine.mains {
            machine.off_by_fence = false;
            self.say(who, || "power comes on".into());
            self.begin_boot(who);
        }
    }

    pub(crate) fn booted(&mut self, who: Who, epoch: u64) {
        let now = self.now;
        let machine = &mut self.machines[who];
        if machine.epoch != epoch || machine.power != Power::Booting {
            return;
        }
        machine.power = Power::Up;
        machine.boot += 1;
        let enabled = machine.enabled.clone();
        enabled.iter().for_each(|resource| machine.workloads.start_by_hand(resource));
        let raw_ppm = i64::try_from(self.dice.below(200)).expect("small") - 100;
        let slew = if self.dice.one_in(3) { self.slew_ppm } else { 0 };
        let slew = if self.dice.one_in(2) { slew } else { -slew };
        machine.clock = Clock::new(now, self.dice.between(2 * SEC, 20 * SEC), slew, raw_ppm);
        let boot = machine.boot;
        let after = match machine.boots {
            Boot::Takes(_) => 0,
            Boot::Drawn => self.dice.between(50 * MS, 500 * MS),
        };
        self.after(after, Event::Start { who, epoch });
        self.say(who, || format!("is up: boot {boot}"));
    }

    // --- standing still

    /// A whole machine stands still for so long. One that hangs is reset then.
    pub fn halt(&mut self, who: Who, halt: Halt, for_ns: u64) {
        let now = self.now;
        let machine = &mut self.machines[who];
        if machine.power != Power::Up || machine.halted.is_some() {
            return;
        }
        machine.halted = Some(halt);
        machine.halted_at = now;
        machine.halts += 1;
        match halt {
            Halt::Paused => machine.clock.pause(now),
            Halt::Suspended => machine.clock.suspend(now),
            Halt::Hung => {}
        }
        let halts = machine.halts;
        self.say(who, || format!("stands still: {halt:?} for {} ms", for_ns / MS));
        self.after(for_ns, Event::Relief(Relief::Resume { who, halts }));
    }

    pub(crate) fn resume(&mut self, who: Who) {
        let now = self.now;
        let machine = &mut self.machines[who];
        let Some(halt) = machine.halted else { return };
        if halt == Halt::Hung {
            return self.reset(who, "somebody resets it");
        }
        machine.halted = None;
        if halt == Halt::Paused {
            machine.paused_until = Some(now);
        }
        machine.clock.resume(now);
        machine.dog.stood_still(now - machine.halted_at);
        let frozen = std::mem::take(&mut machine.frozen);
        if let Some(process) = &mut machine.process {
            process.wake_at = Some(now);
        }
        self.say(who, || "goes on".into());
        for event in frozen {
            self.queue.push(now, event);
        }
    }

    /// SIGCONT.
    pub fn go_on(&mut self, who: Who) {
        let now = self.now;
        let machine = &mut self.machines[who];
        if !machine.stopped {
            return;
        }
        machine.stopped = false;
        let held = std::mem::take(&mut machine.held);
        if let Some(process) = &mut machine.process {
            process.wake_at = Some(now);
        }
        self.say(who, || "its process goes on".into());
        for event in held {
            self.queue.push(now, event);
        }
    }
}
