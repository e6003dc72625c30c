//! A cluster in virtual time: all machines, the links between them, and the queue of what is going to happen.
//!
//! What is real: the core of every member (consensus, the replicated state and its judge, leases, manager, executor's
//! decisions, the appliance's fencing). What is modelled: networks, disks, clocks, power, watchdogs, BMCs, the programs
//! that start and stop things, and everything that goes wrong with them. One seed gives one run, always the same; the
//! invariants are checked at each step that could break them.
//!
//! Whoever drives a world puts cues into its queue, calls [`World::next`] until time is up, and does what it wants done at
//! each cue.

mod acts;
mod bmc;
mod clock;
mod copies;
mod dice;
mod disk;
mod event;
mod executor;
mod hard_rules;
mod invariants;
mod join;
mod machine;
mod network;
mod power;
mod process;
mod queue;
mod record;
mod rules;
mod watchdog;
mod workload;

use std::collections::BTreeMap;

use tiebreaker_consensus::{Membership, RaftId, Stored, bootstrap};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::state::State;

use disk::Disk;
use event::Event;
use invariants::Watch;
use network::Network;
use queue::Queue;
use watchdog::Watchdog;

pub use bmc::{BmcMode, DEVICES};
pub use dice::{Dice, MS, SEC, US};
pub use invariants::Violation;
pub use machine::{Boot, Halt, Kind, Machine, MachineSetup, Power, WALL_MS, Who};
pub use record::{Entry, Record};
pub use rules::{ShellRules, Switches};
pub use workload::{Failing, Mood};

/// What a world begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed of all chance.
    pub seed: u64,
    /// The replicated state that every member's store holds: everybody has joined, nobody is admitted.
    pub state: State,
    /// The machines. The first one is the appliance, whether or not it is a member.
    pub machines: Vec<MachineSetup>,
    /// The safety rules that hold.
    pub switches: Switches,
    /// How programs behave while nothing makes them misbehave.
    pub mood: Mood,
    /// Devices take long to answer now and then.
    pub devices_dawdle: bool,
    /// How far time daemons slew the clock of a machine that boots, parts per million.
    pub slew_ppm: i64,
    /// What happens is recorded.
    pub recorded: bool,
}

/// A cluster in virtual time. Times are nanoseconds since its beginning.
pub struct World {
    now: u64,
    queue: Queue<Event>,
    machines: Vec<Machine>,
    network: Network,
    dice: Dice,
    switches: Switches,
    usual_mood: Mood,
    devices_dawdle: bool,
    slew_ppm: i64,
    failing: BTreeMap<ResourceName, Failing>,
    records: Option<Vec<Entry>>,
    watch: Watch,
    next_instance: u64,
    next_request: u64,
    healed: bool,
    steps: u64,
}

/// What came next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Something of the world's own.
    Step,
    /// A cue of who drives it.
    Cue(u64),
    /// Nothing until the time that was given.
    TimeIsUp,
}

impl World {
    /// A world at its beginning: what is switched on is about to start.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup { seed, state, machines, switches, mood, devices_dawdle, slew_ppm, recorded } = setup;
        let mut dice = Dice::new(seed ^ 0x005e_ed0f_7e57);
        let voters = state.voters.iter().copied().map(RaftId).collect();
        let learners =
            state.members.values().map(|m| m.raft_id).filter(|id| !state.voters.contains(id)).map(RaftId).collect();
        let stored = bootstrap(Membership { voters, learners }, state.encode());
        let on: Vec<bool> = machines.iter().map(|machine| machine.on).collect();
        let machines: Vec<Machine> = machines
            .into_iter()
            .map(|setup| {
                // Who is no member has no number and nothing on its disk.
                let member = state.members.get(&setup.name);
                let raft_id = RaftId(member.map_or(0, |member| member.raft_id));
                let stored = if member.is_some() { stored.clone() } else { Stored::default() };
                let disk = Disk::new(stored, &mut dice);
                Machine::new(setup, raft_id, mood, disk, Watchdog::new(&mut dice))
            })
            .collect();
        let network = Network::new(machines.len(), &mut dice);
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            machines,
            network,
            dice,
            switches,
            usual_mood: mood,
            devices_dawdle,
            slew_ppm,
            failing: BTreeMap::new(),
            records: recorded.then(Vec::new),
            watch: Watch::new(state),
            next_instance: 1,
            next_request: 1,
            healed: false,
            steps: 0,
        };
        for (who, _) in on.into_iter().enumerate().filter(|(_, on)| *on) {
            let after = world.dice.between(0, 200 * MS);
            world.queue.push(after, Event::Booted { who, epoch: 0 });
        }
        world
    }

    /// Virtual time so far.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Events so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The machines.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The furthest state that any member has applied.
    #[must_use]
    pub const fn committed(&self) -> &State {
        &self.watch.committed
    }

    /// Chance: whoever drives the world draws from the same dice.
    pub const fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// Puts a cue into the queue.
    pub fn cue_at(&mut self, at: u64, cue: u64) {
        self.queue.push(at, Event::Cue(cue));
    }

    /// Lets the next thing happen: an event, or a timer of a machine.
    pub fn next(&mut self, until: u64) -> Next {
        let mut at = self.queue.next_at().unwrap_or(u64::MAX);
        let mut timer = None;
        for (who, machine) in self.machines.iter().enumerate() {
            let wake = machine.process.as_ref().and_then(|process| process.wake_at).filter(|_| machine.moves());
            let stands = matches!(machine.halted, Some(Halt::Paused | Halt::Suspended));
            let fires = machine.dog.fires_at.filter(|_| !stands);
            for (due, which) in [(wake, Timer::Wake), (fires, Timer::Fires), (machine.gone_by, Timer::Gone)] {
                if let Some(due) = due
                    && due < at
                {
                    at = due;
                    timer = Some((who, which));
                }
            }
        }
        if at > until || at == u64::MAX {
            self.now = until;
            return Next::TimeIsUp;
        }
        self.now = self.now.max(at);
        self.steps += 1;
        match timer {
            Some((who, Timer::Wake)) => self.wake(who),
            Some((who, Timer::Fires)) => self.watchdog_fires(who),
            Some((who, Timer::Gone)) => self.must_be_gone(who),
            None => match self.queue.pop() {
                Some(Event::Cue(cue)) => return Next::Cue(cue),
                Some(event) => self.dispatch(event),
                None => {}
            },
        }
        Next::Step
    }

    /// Lets an event happen, or puts it aside while its machine or process stands still.
    pub(crate) fn dispatch(&mut self, event: Event) {
        if let Some(who) = event.on_machine()
            && self.machines[who].halted.is_some()
        {
            self.machines[who].frozen.push_back(event);
            return;
        }
        if let Some((who, instance)) = event.in_process() {
            let machine = &mut self.machines[who];
            if machine.instance() != Some(instance) {
                return;
            }
            if machine.stopped {
                machine.held.push_back(event);
                return;
            }
        }
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(parcel) => self.arrive(parcel),
            Event::Hop { relay, parcel, .. } => self.forward(relay, parcel),
            Event::Ping { who, .. } => self.ping(who),
            Event::Durable { who, .. } => self.durable(who),
            Event::Told { who, event, .. } => self.enter(who, |core, moment| core.node_event(moment, event)),
            Event::LeftoversKilled { who, .. } => self.leftovers_killed(who),
            Event::Arm { who, .. } => self.arm(who),
            Event::Disarm { who, .. } => self.disarm(who),
            Event::Check { who, .. } => self.check(who),
            Event::Pet { who, .. } => self.pet(who),
            Event::Effect { who, epoch, key } => self.take_effect(who, epoch, key),
            Event::End { who, epoch, key } => self.end_operation(who, epoch, key),
            Event::Kill { who, epoch, key } => self.kill_operation(who, epoch, key),
            Event::Booted { who, epoch } => self.booted(who, epoch),
            Event::Start { who, epoch } => self.start(who, epoch),
            Event::Command { node, device, token, instance, command } => {
                self.device_command((node, device), token, instance, command);
            }
            Event::LateOff { node, device, offs } => self.late_off((node, device), offs),
            Event::Device { token, result, .. } => self.device_result(token, result),
            Event::PowerOn { who } => self.power_on(who),
            Event::Relief(relief) => self.relieve(relief),
            // Cues never get here: they are handed out.
            Event::Cue(_) => {}
        }
    }

    pub(crate) fn after(&mut self, span: u64, event: Event) {
        self.queue.push(self.now + span, event);
    }

    /// The place of a machine.
    #[must_use]
    pub fn who(&self, name: &MemberName) -> Option<Who> {
        self.machines.iter().position(|machine| machine.name == *name)
    }

    pub(crate) fn next_request(&mut self) -> tiebreaker_member::core::RequestId {
        self.next_request += 1;
        tiebreaker_member::core::RequestId(self.next_request)
    }
}

#[derive(Clone, Copy)]
enum Timer {
    Wake,
    Fires,
    Gone,
}
