//! The node's shell: operations, the watchdog and its petter.

use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::node::{self, OperationKind};
use tiebreaker_pipeline::resource::Phase;
use tiebreaker_pipeline::time::Reading;

use super::dice::MS;
use super::event::Event;
use super::machine::{Power, Who};
use super::watchdog::Petter;
use super::workload::{End, Mood, Order, Sent, Target};
use super::{Record, World};

impl World {
    pub(crate) fn node_action(&mut self, who: Who, action: node::Action) {
        let Some(instance) = self.machines[who].instance() else { return };
        match action {
            // The core sends renewals itself.
            node::Action::Renew { .. } => {}
            node::Action::Extend(end) => self.extend(who, end),
            node::Action::Arm => {
                let after = self.dice.between(MS, self.machines[who].dog_takes);
                self.after(after, Event::Arm { who, instance });
            }
            node::Action::Disarm => {
                let after = self.dice.between(MS, self.machines[who].dog_takes);
                self.after(after, Event::Disarm { who, instance });
            }
            node::Action::Begin { id, resource, kind, spec, target } => {
                if matches!(kind, OperationKind::Start | OperationKind::Receive) {
                    self.look_at_start(who, &resource);
                }
                let epoch = self.machines[who].epoch;
                let target = target.and_then(|machine| {
                    let epoch = self.machines[self.who(&machine)?].epoch;
                    Some(Target { machine, epoch })
                });
                let machine = &mut self.machines[who];
                let fails = self.failing.get_mut(&resource).is_some_and(|failing| failing.fails_next(who, kind));
                let mood = match (fails, self.healed) {
                    (true, _) => Mood::HOPELESS,
                    (false, true) => Mood::GOOD,
                    (false, false) => machine.mood,
                };
                let order =
                    Order { instance, id, resource: resource.clone(), kind, spec: &spec, target, now: self.now };
                let course = machine.workloads.begin(&mut self.dice, mood, order);
                self.after(course.effect_in, Event::Effect { who, epoch, key: course.key });
                self.after(course.ends_in, Event::End { who, epoch, key: course.key });
                if kind != OperationKind::Probe {
                    self.record(Some(who), || Record::Begins { resource, kind });
                }
            }
            node::Action::Cancel(id) => {
                let machine = &self.machines[who];
                if let Some(key) = machine.workloads.key_of(instance, id) {
                    let epoch = machine.epoch;
                    let after = self.dice.between(0, 30 * MS);
                    self.after(after, Event::Kill { who, epoch, key });
                    self.record(Some(who), || Record::Cancels(id));
                }
            }
            node::Action::MayGo => {
                self.say(who, || "may go".to_owned());
                self.go(who);
            }
            node::Action::StartAnew => {
                self.say(who, || "learns that its life has ended and makes way for a new agent".to_owned());
                let back = self.dice.between(200 * MS, 2_000 * MS);
                self.crash(who, back);
            }
            node::Action::ResetParted => self.violated("parted", "nobody takes a cluster over here".to_owned()),
            node::Action::ResetSelf(id) => {
                self.say(who, || format!("learns of its own fence {id}"));
                self.reset(who, "resets itself");
            }
        }
    }

    pub(crate) fn take_effect(&mut self, who: Who, epoch: u64, key: u64) {
        if self.machines[who].epoch != epoch {
            return;
        }
        let ready: Vec<_> = self
            .machines
            .iter()
            .enumerate()
            .filter(|(to, machine)| {
                let linked = !self.network.is_cut(who, *to) && !self.network.is_cut(*to, who);
                machine.power == Power::Up && machine.halted.is_none() && linked
            })
            .map(|(_, machine)| Target { machine: machine.name.clone(), epoch: machine.epoch })
            .collect();
        if let Some(Sent { resource, to, began }) = self.machines[who].workloads.send(key, |to| ready.contains(to))
            && let Some(to) = self.who(&to)
        {
            self.machines[to].workloads.receive(resource.clone());
            if !self.is_protected(&resource) {
                self.machines[to].workloads.set_managed(&resource, false);
            }
            self.say(who, || format!("{resource} has moved live"));
            self.look_at_running(to, &resource);
            self.look_at_arrival(who, to, &resource, began);
            return;
        }
        if let Some(resource) = self.machines[who].workloads.take_effect(key) {
            // What was taken out of protection during its start is left as it is.
            if !self.is_protected(&resource) {
                self.machines[who].workloads.set_managed(&resource, false);
            }
            self.record(Some(who), || Record::Runs(resource.clone()));
            self.look_at_running(who, &resource);
        }
    }

    /// Whether the cluster answers for it: it was neither removed nor is it ignored.
    pub(crate) fn is_protected(&self, resource: &ResourceName) -> bool {
        let known = self.watch.committed.resources.get(resource);
        known.is_some_and(|resource| resource.phase != Phase::Ignored)
    }

    pub(crate) fn end_operation(&mut self, who: Who, epoch: u64, key: u64) {
        if self.machines[who].epoch == epoch {
            let end = self.machines[who].workloads.end(key);
            self.tell_end(who, end);
        }
    }

    pub(crate) fn kill_operation(&mut self, who: Who, epoch: u64, key: u64) {
        if self.machines[who].epoch == epoch {
            let end = self.machines[who].workloads.kill(key);
            self.tell_end(who, end);
        }
    }

    fn tell_end(&mut self, who: Who, end: Option<(u64, tiebreaker_pipeline::name::ResourceName, End)>) {
        let Some((instance, resource, end)) = end else { return };
        let event = match end {
            End::Ended(id, kind, outcome) => {
                self.record(Some(who), || Record::Ended { resource, kind, id, outcome: outcome.clone() });
                node::Event::Ended(id, outcome)
            }
            End::Probed(id, found) => node::Event::Probed(id, found),
        };
        // Who began it may be dead or stopped by now.
        self.dispatch(Event::Told { who, instance, event });
    }

    // --- the watchdog

    fn extend(&mut self, who: Who, end: Reading) {
        let first = self.machines[who].process.as_mut().is_some_and(|process| {
            let had = process.petter.lease_end.is_some();
            process.petter.lease_end = Some(end);
            !had
        });
        let machine = &mut self.machines[who];
        machine.lease_end = Some(machine.lease_end.map_or(end, |old| old.later_of(end)));
        machine.lease_over_at = machine.lease_over_at.max(machine.clock.when_either(self.now, end));
        if first {
            self.say(who, || "has a lease".into());
        }
        self.bound(who);
    }

    /// When everything must be gone from this machine, by its own clocks as they run now.
    pub(crate) fn bound(&mut self, who: Who) {
        let now = self.now;
        let machine = &mut self.machines[who];
        let (Some(end), Some(process), true) = (machine.lease_end, &machine.process, machine.is_trusted()) else {
            return;
        };
        let promised = u64::try_from(process.promised.as_nanos()).unwrap_or(u64::MAX);
        machine.gone_by = Some(machine.clock.when_either(now, end) + promised + promised / 100 + 50 * MS);
    }

    pub(crate) fn lease_holds(&self, reading: Reading, end: Reading) -> bool {
        if self.switches.pipeline.lease_ends_on_either_clock() {
            !reading.reached_on_either(end)
        } else {
            reading.boottime_ns < end.boottime_ns
        }
    }

    fn petter_lease_holds(&self, who: Who) -> bool {
        let machine = &self.machines[who];
        let end = machine.process.as_ref().and_then(|process| process.petter.lease_end);
        end.is_some_and(|end| self.lease_holds(machine.clock.reading(self.now), end))
    }

    pub(crate) fn arm(&mut self, who: Who) {
        // Nobody opens the device without a lease.
        let result = if self.petter_lease_holds(who) {
            let now = self.now;
            let half = if self.switches.shell.device_at_half_the_promise { 2 } else { 1 };
            let machine = &mut self.machines[who];
            let Some(process) = &mut machine.process else { return };
            let timeout = u64::try_from(process.promised.as_nanos()).unwrap_or(u64::MAX) / half;
            machine.dog.arm(now, timeout);
            let instance = process.instance;
            if !process.petter.runs {
                process.petter.runs = true;
                self.after(Petter::interval(timeout), Event::Check { who, instance });
            }
            self.say(who, || "its watchdog is armed".into());
            Ok(())
        } else {
            Err("there is no lease any more".to_owned())
        };
        self.enter(who, |core, moment| core.node_event(moment, node::Event::Armed(result)));
    }

    pub(crate) fn disarm(&mut self, who: Who) {
        let machine = &mut self.machines[who];
        machine.dog.disarm();
        if let Some(process) = &mut machine.process {
            process.petter.runs = false;
        }
        self.say(who, || "its watchdog is disarmed".into());
        self.enter(who, |core, moment| core.node_event(moment, node::Event::Disarmed(Ok(()))));
    }

    pub(crate) fn check(&mut self, who: Who) {
        let now = self.now;
        let holds = self.petter_lease_holds(who);
        let machine = &mut self.machines[who];
        let interval = Petter::interval(machine.dog.timeout());
        let Some(process) = &mut machine.process else { return };
        let instance = process.instance;
        if !process.petter.runs {
            return;
        }
        if !holds {
            return self.after(interval, Event::Check { who, instance });
        }
        if let Some(for_ns) = process.stop_in_pet.take() {
            // SIGSTOP comes right here: the lease was valid, the pet comes later.
            self.stop_for(who, for_ns);
            return self.dispatch(Event::Pet { who, instance });
        }
        machine.dog.pet(now);
        self.after(interval, Event::Check { who, instance });
    }

    pub(crate) fn pet(&mut self, who: Who) {
        let now = self.now;
        let machine = &mut self.machines[who];
        machine.dog.pet(now);
        let interval = Petter::interval(machine.dog.timeout());
        if let Some(instance) = machine.instance() {
            self.after(interval, Event::Check { who, instance });
        }
    }

    pub(crate) fn watchdog_fires(&mut self, who: Who) {
        self.reset(who, "its watchdog resets it");
    }

    /// SIGSTOP; true if there was a process.
    pub fn stop(&mut self, who: Who) -> bool {
        let machine = &mut self.machines[who];
        if machine.process.is_none() {
            return false;
        }
        machine.stopped = true;
        machine.stops += 1;
        true
    }
}
