//! A member's process around the core: starts, crashes, messages, the disk, and what the core asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use tiebreaker_consensus::{Config as RaftConfig, Raft, Rank};
use tiebreaker_member::core::{Action, Core, CoreConfig, Message, Moment};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::node::{self, Node, NodeConfig};
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::report::WatchdogPromise;
use tiebreaker_pipeline::state::State;

use super::dice::MS;
use super::event::{Cargo, Event, Parcel};
use super::machine::{Boot, Heard, Power, Process, Who};
use super::network::{DEAD_AFTER, HEARD_WITHIN, PING_EVERY};
use super::watchdog::Petter;
use super::{Record, World};

/// Wake-ups in a row without anything that was due: the core waits for a time that has passed.
const SPINS_MAX: u32 = 50;

impl World {
    /// The service manager starts the agent or daemon.
    pub(crate) fn start(&mut self, who: Who, epoch: u64) {
        let count = self.machines.len();
        let machine = &mut self.machines[who];
        if machine.epoch != epoch || machine.power != Power::Up || machine.process.is_some() {
            return;
        }
        machine.starts += 1;
        let now = self.now;
        let moment = machine.moment(now);
        let stored = machine.disk.stored.clone();
        let last_index = stored.last_index();
        let Some(snapshot) = &stored.snapshot else {
            return self.say(who, || "has no store any more: it has to be joined anew".into());
        };
        let state = match State::decode(&snapshot.state) {
            Ok(mut state) => {
                state.applied = snapshot.index;
                state
            }
            Err(error) => return self.violated("start", format!("the stored state can't be read: {error}")),
        };
        // As the member's shell does: what a voter promised was counted in ticks of a profile that may have changed.
        let tick = Profile::ALL.into_iter().map(Profile::tick).max().unwrap_or_default();
        let rank = Rank::new(2, 3).expect("two is below three");
        let seed = self.dice.next();
        #[allow(unused_mut, reason = "mutation builds set the rules")]
        let mut config = RaftConfig::new(machine.raft_id, rank, seed, tick);
        #[cfg(feature = "mutations")]
        {
            config.rules = self.switches.consensus;
        }
        let raft = match Raft::new(config, stored, moment.now) {
            Ok(raft) => raft,
            Err(error) => return self.violated("start", format!("what a crash left can't be started from: {error}")),
        };
        let rules = self.switches.pipeline;
        let armed = machine.dog.is_armed();
        // What the device runs at is what this boot has promised, until it is disarmed.
        let factor = if self.switches.shell.device_at_half_the_promise { 2 } else { 1 };
        let promised = if armed {
            Duration::from_nanos(machine.dog.timeout() * factor)
        } else {
            state.settings.profile.watchdog()
        };
        if armed && !self.switches.shell.descriptor_is_kept {
            machine.dog.pet(now);
        }
        let node = (who != 0).then(|| {
            let watchdog = machine.kind.watchdog.map(|trust| WatchdogPromise {
                driver: "simulated".into(),
                promised_ms: u64::try_from(promised.as_millis()).unwrap_or(u64::MAX),
                trust,
            });
            let config = NodeConfig {
                name: machine.name.clone(),
                incarnation: machine.starts,
                boot: machine.boot_id(),
                watchdog,
                machine: Some(format!("machine-{who}")),
                armed,
                capacity: machine.capacity,
                booted_in_ms: match machine.boots {
                    Boot::Drawn => None,
                    Boot::Takes(span) => Some(span / MS),
                },
                rules,
            };
            Node::new(moment.now, config)
        });
        let core = Core::new(
            moment,
            CoreConfig {
                name: machine.name.clone(),
                raft_id: machine.raft_id,
                raft,
                state,
                last_index,
                node,
                fences: who == 0,
                rules,
            },
        );
        let instance = self.next_instance;
        self.next_instance += 1;
        let petter = Petter { runs: armed, lease_end: None };
        machine.process = Some(Process {
            core,
            instance,
            wake_at: None,
            woken: false,
            spins: 0,
            heard: vec![Heard { echo: now, direct: 0, any: 0, without_gap_since: now }; count],
            petter,
            promised,
            stop_in_pet: None,
            dies_after: None,
            leases_lost: 0,
            leads: None,
        });
        let starts = machine.starts;
        let timeout = machine.dog.timeout();
        let ping = self.dice.below(PING_EVERY);
        self.after(ping, Event::Ping { who, instance });
        if who != 0 {
            let kill = self.dice.between(20 * MS, 300 * MS);
            self.after(kill, Event::LeftoversKilled { who, instance });
            if armed {
                self.after(Petter::interval(timeout), Event::Check { who, instance });
            }
        }
        self.say(who, || format!("its process starts, for the {starts}. time"));
        self.settle(who);
    }

    /// Kills what earlier agents of this boot left running, and tells the new one.
    pub(crate) fn leftovers_killed(&mut self, who: Who) {
        let Some(instance) = self.machines[who].instance() else { return };
        if self.switches.shell.leftovers_are_killed && self.switches.pipeline.operations_in_flight_count() {
            let killed = self.machines[who].workloads.kill_leftovers(instance);
            if killed > 0 {
                self.say(who, || format!("{killed} operation(s) of an earlier agent are killed"));
            }
        }
        self.enter(who, |core, moment| core.node_event(moment, node::Event::LeftoversKilled));
    }

    /// The agent or daemon dies, and is started again after so long; its workloads and operations don't die.
    pub fn crash(&mut self, who: Who, back: u64) {
        let now = self.now;
        let machine = &mut self.machines[who];
        if machine.process.take().is_none() {
            return;
        }
        machine.held.clear();
        machine.stopped = false;
        machine.stops += 1;
        let lost = machine.disk.crash(&mut self.dice);
        if !self.switches.shell.descriptor_is_kept {
            machine.dog.pet(now);
        }
        let epoch = machine.epoch;
        self.say(who, || format!("its process dies, {lost} batch(es) unwritten"));
        self.after(back, Event::Start { who, epoch });
    }

    /// A deadline of the core has come.
    pub(crate) fn wake(&mut self, who: Who) {
        if let Some(process) = &mut self.machines[who].process {
            process.woken = true;
        }
        self.enter(who, |core, moment| core.advance(moment));
    }

    /// Calls the core and carries out what it asks for.
    pub(crate) fn enter(&mut self, who: Who, call: impl FnOnce(&mut Core, Moment)) {
        let moment = self.machines[who].moment(self.now);
        if let Some(process) = &mut self.machines[who].process {
            call(&mut process.core, moment);
            self.settle(who);
        }
    }

    fn settle(&mut self, who: Who) {
        loop {
            let Some(process) = &mut self.machines[who].process else { return };
            let Some(action) = process.core.poll_action() else { break };
            if let Some(left) = &mut process.dies_after {
                if *left == 0 {
                    let back = self.dice.between(200 * MS, 2000 * MS);
                    return self.crash(who, back);
                }
                *left -= 1;
            }
            self.carry_out(who, action);
        }
        let now = self.now;
        let machine = &mut self.machines[who];
        let reading = machine.clock.reading(now);
        let Some(process) = &mut machine.process else { return };
        let woken = std::mem::take(&mut process.woken);
        let deadline = process.core.poll_timeout();
        process.wake_at = deadline.map(|deadline| match (reading.reached_on_either(deadline), woken) {
            (false, _) => {
                process.spins = 0;
                machine.clock.when_either_from(now, reading, deadline)
            }
            (true, false) => now,
            (true, true) => {
                process.spins += 1;
                now + MS
            }
        });
        if process.spins > SPINS_MAX {
            return self.violated("spin", format!("{} waits for a time that has passed", self.machines[who].name));
        }
        self.after_step(who, reading);
    }

    fn carry_out(&mut self, who: Who, action: Action) {
        match action {
            Action::Send { to, message, everywhere } => {
                self.look_at_sending(who, &to, &message);
                if let Some(to) = self.route(who, &to)
                    && to != who
                {
                    self.send(who, to, message, everywhere);
                }
            }
            Action::Persist(batch) => {
                let machine = &mut self.machines[who];
                let at = machine.disk.write(self.now, &mut self.dice, batch);
                if let Some(instance) = machine.instance() {
                    self.queue.push(at, Event::Durable { who, instance });
                }
            }
            Action::Node(action) => self.node_action(who, action),
            Action::Device { token, node, device, command } => self.work_device(who, token, (&node, &device), command),
            Action::Reply { request, reply } => self.record(Some(who), || Record::Answered { request, reply }),
            Action::Changed => self.observe(who),
            Action::SetAside { why } => self.violated("parted", why),
            Action::Stop { why, .. } if self.machines[who].was_copied => self.set_aside(who, &why),
            Action::Stop { why, .. } => self.violated("stop", format!("{} must stop: {why}", self.machines[who].name)),
        }
    }

    pub(crate) fn durable(&mut self, who: Who) {
        let now = self.now;
        let Some(instance) = self.machines[who].instance() else { return };
        match self.machines[who].disk.flush(now) {
            Ok(Some(number)) => self.enter(who, |core, moment| core.persisted(moment, number)),
            Ok(None) => {}
            Err(until) => self.queue.push(until, Event::Durable { who, instance }),
        }
    }

    // --- links

    fn relay_for(&self, from: Who, to: Who) -> Option<Who> {
        let process = self.machines[from].process.as_ref()?;
        (0..self.machines.len())
            .filter(|who| *who != from && *who != to && self.machines[*who].process.is_some())
            .max_by_key(|who| (process.heard[*who].echo + DEAD_AFTER > self.now, std::cmp::Reverse(*who)))
    }

    fn send(&mut self, from: Who, to: Who, message: Message, everywhere: bool) {
        let fresh = self.machines[from]
            .process
            .as_ref()
            .is_some_and(|process| self.now.saturating_sub(process.heard[to].echo) <= DEAD_AFTER);
        let relay = if everywhere || !fresh { self.relay_for(from, to) } else { None };
        let cargo = Cargo::Message(Box::new(message));
        match relay {
            None => self.post(from, to, cargo, None),
            Some(relay) => {
                if everywhere {
                    self.post(from, to, cargo.clone(), None);
                }
                self.post(from, to, cargo, Some(relay));
            }
        }
    }

    fn post(&mut self, from: Who, to: Who, cargo: Cargo, relay: Option<Who>) {
        let Some(instance) = self.machines[to].instance() else { return };
        let sender = (self.machines[from].name.clone(), self.machines[from].raft_id);
        let parcel = Parcel { from, sender, to, instance, cargo, relayed: relay.is_some() };
        match relay {
            None => self.hand_over(from, to, Event::Arrive(parcel)),
            Some(relay) => {
                let Some(relay_instance) = self.machines[relay].instance() else { return };
                self.hand_over(from, relay, Event::Hop { relay, relay_instance, parcel });
            }
        }
    }

    fn hand_over(&mut self, from: Who, to: Who, event: Event) {
        let (first, second) = self.network.carry(from, to, &mut self.dice);
        if let Some(delay) = second {
            self.after(delay, event.clone());
        }
        if let Some(delay) = first {
            self.after(delay, event);
        }
    }

    pub(crate) fn forward(&mut self, relay: Who, parcel: Parcel) {
        self.hand_over(relay, parcel.to, Event::Arrive(parcel));
    }

    pub(crate) fn arrive(&mut self, parcel: Parcel) {
        let Parcel { from, sender: (sender, number), to, cargo, relayed, .. } = parcel;
        let now = self.now;
        // A removed member's certificate is refused.
        let refused = self.machines[to]
            .core()
            .is_none_or(|core| core.state().removed.get(&sender).is_some_and(|upto| number.0 <= *upto));
        if refused {
            return;
        }
        let Some(process) = &mut self.machines[to].process else { return };
        let heard = &mut process.heard[from];
        if now.saturating_sub(heard.any) > HEARD_WITHIN {
            heard.without_gap_since = now;
        }
        heard.any = now;
        if !relayed {
            heard.direct = now;
        }
        match cargo {
            Cargo::Ping { hears_you } => {
                if hears_you && !relayed {
                    heard.echo = now;
                }
            }
            Cargo::Message(message) => {
                self.enter(to, |core, moment| core.message(moment, &sender, *message));
            }
        }
    }

    pub(crate) fn ping(&mut self, who: Who) {
        let now = self.now;
        let Some(process) = &self.machines[who].process else { return };
        let instance = process.instance;
        let mut hears: BTreeSet<MemberName> = BTreeSet::new();
        let mut paths = Vec::with_capacity(self.machines.len());
        let lately = |at: u64, within: u64| at > 0 && now - at <= within;
        for (other, heard) in process.heard.iter().enumerate() {
            if other != who && lately(heard.any, HEARD_WITHIN) {
                hears.insert(self.machines[other].name.clone());
            }
            paths.push((lately(heard.echo, DEAD_AFTER), lately(heard.direct, DEAD_AFTER)));
        }
        for (other, (works, hears_you)) in paths.into_iter().enumerate() {
            if other == who {
                continue;
            }
            self.post(who, other, Cargo::Ping { hears_you }, None);
            if !works && let Some(relay) = self.relay_for(who, other) {
                self.post(who, other, Cargo::Ping { hears_you }, Some(relay));
            }
        }
        self.after(PING_EVERY, Event::Ping { who, instance });
        self.enter(who, |core, moment| core.hears(moment, hears));
    }
}
