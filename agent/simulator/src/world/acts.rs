//! What can be done to a world from outside, and what takes itself back after a while.

use std::collections::BTreeMap;

use tiebreaker_member::core::{Request, RequestId};
use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::node;
use tiebreaker_pipeline::report::{Leave, Usage};

use super::bmc::BmcMode;
use super::dice::{MS, SEC};
use super::event::{Event, Relief};
use super::machine::{Power, Who};
use super::workload::{Failing, Mood};
use super::{Record, World};

impl World {
    /// Nothing from one machine arrives at the other, for so long.
    pub fn cut(&mut self, from: Who, to: Who, for_ns: u64) {
        self.network.cut(from, to);
        self.after(for_ns, Event::Relief(Relief::Link { from, to }));
    }

    /// The direct link between two machines works or doesn't, both ways, from now on.
    pub fn set_link(&mut self, one: Who, other: Who, works: bool) {
        self.network.set(one, other, works);
        self.network.set(other, one, works);
    }

    /// Messages take from `least_ns` to `most_ns`, for so long.
    pub fn slow_down(&mut self, from: Who, to: Who, (least_ns, most_ns): (u64, u64), for_ns: u64) {
        self.network.set_slow(from, to, Some((least_ns, most_ns)));
        self.after(for_ns, Event::Relief(Relief::Speed { from, to }));
    }

    /// Of a thousand messages so many are lost, for so long.
    pub fn lose_messages(&mut self, from: Who, to: Who, permille: u64, for_ns: u64) {
        self.network.set_loss(from, to, permille);
        self.after(for_ns, Event::Relief(Relief::Loss { from, to }));
    }

    /// The agent or daemon dies after so many further actions.
    pub fn crash_after(&mut self, who: Who, actions: u32) {
        if let Some(process) = &mut self.machines[who].process {
            process.dies_after = Some(actions);
        }
    }

    /// The agent or daemon is stopped (SIGSTOP) for so long; what it started runs on.
    pub fn stop_for(&mut self, who: Who, for_ns: u64) {
        if self.stop(who) {
            let stops = self.machines[who].stops;
            self.say(who, || format!("its process is stopped for {} ms", for_ns / MS));
            self.after(for_ns.min(600 * SEC), Event::Relief(Relief::Continue { who, stops }));
        }
    }

    /// The agent or daemon is stopped (SIGSTOP) until [`World::go_on`].
    pub fn freeze(&mut self, who: Who) {
        if self.stop(who) {
            self.say(who, || "its process is stopped".into());
        }
    }

    /// The disk is gone, and with it all that this member knew: its process dies and can't start again.
    pub fn lose_disk(&mut self, who: Who) {
        self.say(who, || "loses its disk".into());
        self.crash(who, SEC);
        self.machines[who].disk.lose();
    }

    /// What the programs of a resource do wrong from now on.
    pub fn set_failing(&mut self, resource: ResourceName, failing: Failing) {
        self.failing.insert(resource, failing);
    }

    /// The next pet of its watchdog is held up by a stop of the process, for so long.
    pub fn stop_in_pet(&mut self, who: Who, for_ns: u64) {
        if let Some(process) = &mut self.machines[who].process {
            process.stop_in_pet = Some(for_ns);
        }
    }

    /// The mains fail, and those of its BMC if that hangs on the same supply. For so long, or until [`World::mains`].
    pub fn fail_mains(&mut self, who: Who, bmc: bool, for_ns: Option<u64>) {
        self.machines[who].mains = false;
        self.machines[who].devices[0].powered = !bmc;
        self.power_off(who, "its power fails");
        if let Some(for_ns) = for_ns {
            self.after(for_ns, Event::Relief(Relief::Mains { who }));
        }
    }

    /// The mains are there again, and the machine boots.
    pub fn mains(&mut self, who: Who) {
        self.machines[who].mains = true;
        self.machines[who].devices[0].powered = true;
        self.power_on(who);
    }

    /// The machine resets, if it is up.
    pub fn reset_machine(&mut self, who: Who) {
        if self.machines[who].power == Power::Up {
            self.reset(who, "resets");
        }
    }

    /// Somebody switches a machine off, reboots it, or restarts its agent, in good order: the agent is told, and waited
    /// for, for so long at most.
    pub fn leave(&mut self, who: Who, how: Leave, within_ns: u64) {
        let machine = &mut self.machines[who];
        if machine.power != Power::Up || (how == Leave::AgentRestart && machine.process.is_none()) {
            return;
        }
        machine.leaving = Some(how);
        machine.leaves += 1;
        let leaves = machine.leaves;
        let instance = machine.instance();
        self.say(who, || format!("is asked to {how}"));
        self.after(within_ns, Event::Relief(Relief::Patience { who, leaves }));
        match instance {
            Some(instance) => self.dispatch(Event::Told { who, instance, event: node::Event::Leaving(how) }),
            // No agent runs that could be waited for.
            None => self.go(who),
        }
    }

    /// Whoever was to go goes.
    pub(super) fn go(&mut self, who: Who) {
        match self.machines[who].leaving.take() {
            Some(Leave::AgentRestart) => self.crash(who, SEC),
            Some(Leave::Reboot) => self.reboot(who),
            Some(Leave::PowerOff) => self.power_off(who, "switches off"),
            None => {}
        }
    }

    /// A node has measured what its resources use.
    pub fn tell_usage(&mut self, who: Who, usage: BTreeMap<ResourceName, Usage>) {
        if let Some(instance) = self.machines[who].instance() {
            self.dispatch(Event::Told { who, instance, event: node::Event::Used(usage) });
        }
    }

    /// The disk writes nothing for so long.
    pub fn stall(&mut self, who: Who, for_ns: u64) {
        let until = self.now + for_ns;
        self.machines[who].disk.stall(until);
    }

    /// A time daemon slews CLOCK_BOOTTIME, parts per million.
    pub fn slew(&mut self, who: Who, ppm: i64) {
        let now = self.now;
        self.machines[who].clock.slew(now, ppm);
        self.bound(who);
        if let Some(process) = &mut self.machines[who].process {
            process.wake_at = Some(now);
        }
    }

    /// A resource dies, wherever it runs.
    pub fn kill(&mut self, resource: &ResourceName) {
        for who in 0..self.machines.len() {
            if self.machines[who].workloads.die(resource) {
                self.record(Some(who), || Record::Dies(resource.clone()));
            }
        }
    }

    /// A BMC behaves like this, for so long or from now on.
    pub fn set_bmc(&mut self, who: Who, mode: BmcMode, for_ns: Option<u64>) {
        self.set_device(who, 0, mode, for_ns);
    }

    /// A power device, by its place in [`super::DEVICES`], behaves like this, for so long or from now on.
    pub fn set_device(&mut self, who: Who, device: usize, mode: BmcMode, for_ns: Option<u64>) {
        let changes = self.machines[who].devices[device].set(mode);
        if let Some(for_ns) = for_ns {
            self.after(for_ns, Event::Relief(Relief::Bmc { who, device, changes }));
        }
    }

    /// The service manager takes up to so long to arm or disarm the watchdog, until everything heals.
    pub fn slow_watchdog(&mut self, who: Who, most_ns: u64) {
        self.machines[who].dog_takes = most_ns;
    }

    /// The BMC of a machine is really that of another one, for so long.
    pub fn miswire(&mut self, who: Who, other: Who, for_ns: u64) {
        self.machines[who].devices[0].wired_to = Some(other);
        self.after(for_ns, Event::Relief(Relief::Wires { who }));
    }

    /// The programs of a machine behave like this, for so long.
    pub fn set_mood(&mut self, who: Who, mood: Mood, for_ns: u64) {
        let machine = &mut self.machines[who];
        machine.moods += 1;
        machine.mood = mood;
        let moods = machine.moods;
        self.after(for_ns, Event::Relief(Relief::Mood { who, moods }));
    }

    /// Somebody starts a resource by hand.
    pub fn start_by_hand(&mut self, who: Who, resource: &ResourceName) {
        self.machines[who].workloads.start_by_hand(resource);
    }

    /// A machine starts this resource at boot from now on, against all advice.
    pub fn enable(&mut self, who: Who, resource: &ResourceName) {
        self.machines[who].enabled.insert(resource.clone());
    }

    /// An operator asks some member that is up; `None` where nobody is.
    pub fn ask(&mut self, request: Request) -> Option<RequestId> {
        let up: Vec<Who> = (0..self.machines.len())
            .filter(|who| self.machines[*who].process.is_some() && self.machines[*who].moves() && self.is_current(*who))
            .collect();
        if up.is_empty() {
            return None;
        }
        let who = up[self.dice.index(up.len())];
        self.ask_at(who, request)
    }

    /// Somebody asks this member, if it is up.
    pub fn ask_at(&mut self, who: Who, request: Request) -> Option<RequestId> {
        if !self.machines[who].moves() {
            return None;
        }
        let id = self.next_request();
        self.record(Some(who), || Record::Asked(Box::new(request.clone())));
        self.enter(who, |core, moment| core.request(moment, id, request));
        Some(id)
    }

    pub(super) fn relieve(&mut self, relief: Relief) {
        // People's patience ends all the same.
        if self.healed && !matches!(relief, Relief::Patience { .. }) {
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
            Relief::Mains { who } => self.mains(who),
            Relief::Bmc { who, device, changes } => {
                let device = &mut self.machines[who].devices[device];
                if device.changes == changes {
                    device.set(BmcMode::Works);
                }
            }
            Relief::Wires { who } => self.machines[who].devices[0].wired_to = None,
            Relief::Patience { who, leaves } => {
                if self.machines[who].leaves == leaves && self.machines[who].leaving.is_some() {
                    self.say(who, || "is waited for no longer".into());
                    self.go(who);
                }
            }
            Relief::Mood { who, moods } => {
                let usual = self.usual_mood;
                let machine = &mut self.machines[who];
                if machine.moods == moods {
                    machine.mood = usual;
                }
            }
        }
    }

    /// Everything works from here on, and programs behave.
    pub fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.healed = true;
        self.network.heal();
        self.switch_copies_off();
        for who in 0..self.machines.len() {
            self.machines[who].mains = true;
            for device in &mut self.machines[who].devices {
                (device.powered, device.wired_to) = (true, None);
                device.set(BmcMode::Works);
            }
            self.machines[who].disk.heal();
            self.machines[who].enabled.clear();
            self.machines[who].mood = Mood::GOOD;
            self.machines[who].dog_takes = 20 * MS;
            self.failing.clear();
            if let Some(process) = &mut self.machines[who].process {
                process.dies_after = None;
                process.stop_in_pet = None;
            }
            self.resume(who);
            self.go_on(who);
            if self.machines[who].power == Power::Off && self.machines[who].disk.stored.snapshot.is_some() {
                let after = self.dice.between(100 * MS, 5 * SEC);
                self.after(after, Event::PowerOn { who });
            }
        }
    }
}
