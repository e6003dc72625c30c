//! A cluster in virtual time: all machines, the links between them, and the queue of what is going to happen.

use tiebreaker_consensus::{Membership, RaftId, Stored, bootstrap};
use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
use tiebreaker_pipeline::name::{ClusterName, MemberName, ResourceName};
use tiebreaker_pipeline::resource::{Driver, Requested, ResourceSpec};
use tiebreaker_pipeline::state::{DeviceStatus, Role, State};

use crate::clock::Clock;
use crate::dice::{Dice, MS, SEC};
use crate::disk::Disk;
use crate::event::Event;
use crate::fault::Who;
use crate::invariants::{Violation, Watch};
use crate::machine::{Halt, Kind, Machine, Power};
use crate::network::Network;
use crate::queue::Queue;
use crate::rules::Switches;
use crate::schedule::{Schedule, Style};
use crate::trace::Trace;
use crate::watchdog::Watchdog;
use crate::workload::{Mood, Workloads};

/// How long after the end of all faults the cluster may take to be well again: the boot grace, the time in which an
/// unanswered power-off may land, the doubled waits before the lead goes back, and boots.
const WELL_WITHIN: u64 = 400 * SEC;
/// Names of the resources that schedules use.
const RESOURCES: [&str; 6] = ["web", "db", "mail", "files", "vip", "queue"];

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) queue: Queue<Event>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) network: Network,
    pub(crate) dice: Dice,
    pub(crate) schedule: Schedule,
    pub(crate) switches: Switches,
    pub(crate) trace: Trace,
    pub(crate) watch: Watch,
    pub(crate) resources: Vec<ResourceName>,
    pub(crate) next_instance: u64,
    pub(crate) next_request: u64,
    pub(crate) healed: bool,
    pub(crate) over: bool,
    pub(crate) steps: u64,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first invariant that was broken.
    pub violation: Option<Violation>,
    /// What happened, if a trace was asked for.
    pub trace: Vec<String>,
    /// Events handled.
    pub steps: u64,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
    /// Fences begun.
    pub fences: usize,
    /// Leases that ran out.
    pub leases_lost: u64,
    /// Resources recovered from a fenced node.
    pub recovered: usize,
}

fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a valid name")
}

pub(crate) fn specification() -> ResourceSpec {
    let argv = |verb: &str| vec!["/opt/service".to_owned(), verb.to_owned()];
    let driver = Driver::Command {
        start: argv("start"),
        stop: argv("stop"),
        status: argv("status"),
        migrate: Some(argv("migrate")),
    };
    ResourceSpec {
        start_timeout_ms: 4_000,
        stop_timeout_ms: 3_000,
        monitor_every_ms: 1_000,
        monitor_timeout_ms: 800,
        ..ResourceSpec::with_defaults(driver)
    }
}

/// The state in which a schedule begins: everybody has joined, nobody is admitted.
fn first_state(schedule: &Schedule, names: &[MemberName], resources: &[ResourceName]) -> State {
    let cluster = ClusterName::new("home").expect("a valid name");
    let mut state = State::new(cluster, names[0].clone(), vec!["127.0.0.1:1".into()], "00".into());
    // Short, so that schedules see it.
    state.settings.takeback_s = Some(2);
    state.settings.profile = schedule.profile;
    let mut apply = |command| {
        let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
        state.apply(1, entry).expect("the first state is consistent");
    };
    for (who, name) in names.iter().enumerate().skip(1) {
        let (name, key) = (name.clone(), format!("{who:02}"));
        apply(Command::AddMember { name: name.clone(), role: Role::Node, addresses: vec![], key });
        if schedule.machines[who].bmc {
            let device = DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven: true, why: None };
            apply(Command::SetDevices { node: name, devices: vec![device] });
        }
    }
    for name in &resources[..schedule.resources] {
        apply(Command::AddResource {
            name: name.clone(),
            spec: specification(),
            requested: Requested::Started,
            node: None,
        });
    }
    if schedule.all_vote {
        state.apply_voters(1, tiebreaker_pipeline::manager::wanted_voters(&state));
    }
    state
}

impl World {
    pub(crate) fn new(schedule: Schedule, switches: Switches, trace: bool) -> Self {
        let mut dice = Dice::new(schedule.seed ^ 0x005e_ed0f_7e57);
        let names: Vec<MemberName> = (0..schedule.machines.len())
            .map(|who| if who == 0 { name("appliance") } else { name(&format!("node{who}")) })
            .collect();
        let resources: Vec<ResourceName> =
            RESOURCES.iter().map(|text| ResourceName::new(text).expect("a valid name")).collect();
        let state = first_state(&schedule, &names, &resources);
        let voters = state.voters.iter().copied().map(RaftId).collect();
        let learners =
            state.members.values().map(|m| m.raft_id).filter(|id| !state.voters.contains(id)).map(RaftId).collect();
        let stored = bootstrap(Membership { voters, learners }, state.encode());
        let machines: Vec<Machine> = names
            .iter()
            .zip(&schedule.machines)
            .map(|(name, kind)| machine(name, *kind, &state, &stored, &mut dice))
            .collect();
        let network = Network::new(machines.len(), &mut dice);
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            machines,
            network,
            dice,
            schedule,
            switches,
            trace: Trace::new(trace),
            watch: Watch::new(state),
            resources,
            next_instance: 1,
            next_request: 1,
            healed: false,
            over: false,
            steps: 0,
        };
        for who in 0..world.machines.len() {
            world.machines[who].mood = world.usual_mood();
            let after = world.dice.between(0, 200 * MS);
            world.queue.push(after, Event::Booted { who, epoch: 0 });
        }
        for (index, (at, _)) in world.schedule.faults.iter().enumerate() {
            world.queue.push(*at, Event::Fault(index));
        }
        world.queue.push(world.schedule.heal_at, Event::Heal);
        world
    }

    /// How programs behave while nothing makes them misbehave.
    pub(crate) const fn usual_mood(&self) -> Mood {
        match self.schedule.style {
            Style::Mixed | Style::OneCut => Mood::USUAL,
            Style::Scripted => Mood::GOOD,
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(mut self) -> Outcome {
        while !self.over && self.watch.violation.is_none() {
            self.step();
        }
        Outcome {
            violation: self.watch.violation,
            trace: self.trace.into_lines(),
            steps: self.steps,
            virtual_ns: self.now,
            fences: self.watch.fences,
            leases_lost: self.watch.leases_lost,
            recovered: self.watch.recovered,
        }
    }

    /// The next thing that happens: an event, or a timer of a machine.
    fn step(&mut self) {
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
        if at == u64::MAX || at > self.schedule.heal_at + WELL_WITHIN {
            self.now = self.schedule.heal_at + WELL_WITHIN;
            self.not_well();
            return;
        }
        self.now = self.now.max(at);
        self.steps += 1;
        match timer {
            Some((who, Timer::Wake)) => self.wake(who),
            Some((who, Timer::Fires)) => self.watchdog_fires(who),
            Some((who, Timer::Gone)) => self.must_be_gone(who),
            None => {
                if let Some(event) = self.queue.pop() {
                    self.dispatch(event);
                }
            }
        }
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
            Event::Command { node, token, instance, command } => self.device_command(node, token, instance, command),
            Event::LateOff { node, offs } => self.late_off(node, offs),
            Event::Device { token, result, .. } => self.device_result(token, result),
            Event::PowerOn { who } => self.power_on(who),
            Event::Fault(index) => self.strike(index),
            Event::Relief(relief) => self.relieve(relief),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    pub(crate) fn after(&mut self, span: u64, event: Event) {
        self.queue.push(self.now + span, event);
    }

    pub(crate) fn who(&self, name: &MemberName) -> Option<Who> {
        self.machines.iter().position(|machine| machine.name == *name)
    }

    pub(crate) fn next_request(&mut self) -> tiebreaker_member::core::RequestId {
        self.next_request += 1;
        tiebreaker_member::core::RequestId(self.next_request)
    }

    pub(crate) fn say(&mut self, who: Who, what: impl FnOnce() -> String) {
        if self.trace.on {
            self.trace.say(self.now, &self.machines[who].name, what);
        }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        self.trace.say(self.now, &"*", what);
    }
}

#[derive(Clone, Copy)]
enum Timer {
    Wake,
    Fires,
    Gone,
}

fn machine(name: &MemberName, kind: Kind, state: &State, stored: &Stored, dice: &mut Dice) -> Machine {
    let raft_id = RaftId(state.members[name].raft_id);
    Machine {
        name: name.clone(),
        raft_id,
        kind,
        clock: Clock::new(0, 0, 0, 0),
        power: Power::Booting,
        mains: true,
        off_by_fence: false,
        offs: 0,
        boot: 0,
        ended_by_fence: None,
        enabled: std::collections::BTreeSet::new(),
        epoch: 0,
        halted: None,
        halted_at: 0,
        halts: 0,
        frozen: std::collections::VecDeque::new(),
        process: None,
        starts: 0,
        stopped: false,
        stops: 0,
        held: std::collections::VecDeque::new(),
        disk: Disk::new(stored.clone(), dice),
        dog: Watchdog::new(dice),
        workloads: Workloads::default(),
        mood: Mood::USUAL,
        moods: 0,
        bmc: crate::bmc::Bmc::new(),
        bmc_has_power: true,
        lease_end: None,
        lease_over_at: 0,
        gone_by: None,
    }
}
