//! One run: a world, and the schedule by which things go wrong in it.

use std::collections::{BTreeMap, BTreeSet};

use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
use tiebreaker_pipeline::name::{ClusterName, MemberName, ResourceName};
use tiebreaker_pipeline::report::Capacity;
use tiebreaker_pipeline::resource::{Driver, Requested, ResourceSpec};
use tiebreaker_pipeline::state::{DeviceStatus, Role, State};
use tiebreaker_simulator::world::{
    BmcMode, Boot, DEVICES, Kind, MachineSetup, Mood, Next, SEC, Setup, Switches, Violation, Who, World,
};

use crate::planned::Shape;
use crate::schedule::{RESOURCES as RESOURCES_MAX, Schedule, Style};

/// How long after the end of all faults the cluster may take to be well again: the boot grace, the time in which an
/// unanswered power-off may land, the doubled waits before the lead goes back, and boots.
const WELL_WITHIN: u64 = 400 * SEC;
/// Names of the resources that schedules use.
const RESOURCES: [&str; RESOURCES_MAX] = ["web", "db", "mail", "files", "vip", "queue"];
/// Cues: each step of the schedule is its own number, then come these.
const HEAL: u64 = u64::MAX;
pub(crate) const LOOK: u64 = u64::MAX - 1;
/// Less the place of the machine that has joined.
pub(crate) const JOINED: u64 = u64::MAX - 2;
/// Machines at most, the appliance among them.
const MACHINES_MAX: u64 = 100;

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) schedule: Schedule,
    pub(crate) resources: Vec<ResourceName>,
    /// How often a machine has joined.
    pub(crate) joining: u64,
    /// Machines that lost their disk, and join anew when everything has healed.
    pub(crate) again: BTreeSet<Who>,
    pub(crate) over: bool,
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

pub(crate) fn specification(shape: Shape) -> ResourceSpec {
    let argv = |verb: &str| vec!["/opt/service".to_owned(), verb.to_owned()];
    let driver = if shape.received {
        Driver::Ocf { provider: "heartbeat".into(), agent: "Dummy".into(), params: BTreeMap::new() }
    } else {
        Driver::Command {
            start: argv("start"),
            stop: argv("stop"),
            status: argv("status"),
            migrate: Some(argv("migrate")),
        }
    };
    ResourceSpec {
        start_timeout_ms: 4_000,
        stop_timeout_ms: 3_000,
        monitor_every_ms: 1_000,
        monitor_timeout_ms: 800,
        migrate_timeout_ms: 5_000,
        live: shape.live,
        class: shape.class,
        order: shape.order,
        failback: shape.failback,
        max_restart: shape.tries.0,
        max_relocate: shape.tries.1,
        ..ResourceSpec::with_defaults(driver)
    }
}

/// What the appliance knows of a machine's devices.
pub(crate) fn devices(kind: Kind, proven: bool) -> Vec<DeviceStatus> {
    let count = usize::from(kind.bmc) + usize::from(kind.second);
    let status = |name: &&str| DeviceStatus { name: (*name).into(), kind: "ipmi".into(), proven, why: None };
    DEVICES[..count].iter().map(status).collect()
}

/// The state in which a schedule begins: everybody has joined, nobody is admitted.
fn first_state(schedule: &Schedule, names: &[MemberName], resources: &[ResourceName]) -> State {
    let cluster = ClusterName::new("home").expect("a valid name");
    let mut state = State::new(cluster, names[0].clone(), vec!["127.0.0.1:1".into()], "00".into());
    // Short, so that schedules see it.
    state.settings.takeback_s = Some(2);
    state.settings.profile = schedule.profile;
    state.settings.shutdown = schedule.shutdown;
    let mut apply = |command| {
        let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
        state.apply(1, entry).expect("the first state is consistent");
    };
    for (who, name) in names.iter().enumerate().take(names.len() - schedule.strangers).skip(1) {
        let (name, key) = (name.clone(), format!("{who:02}"));
        apply(Command::AddMember { name: name.clone(), role: Role::Node, addresses: vec![], key });
        if schedule.machines[who].bmc {
            apply(Command::SetDevices { node: name, devices: devices(schedule.machines[who], true) });
        }
    }
    for (name, shape) in resources.iter().zip(schedule.shapes).take(schedule.resources) {
        apply(Command::AddResource {
            name: name.clone(),
            spec: specification(shape),
            requested: Requested::Started,
            node: None,
        });
    }
    if schedule.all_vote {
        state.apply_voters(1, tiebreaker_pipeline::manager::wanted_voters(&state));
    }
    state
}

impl Run {
    pub(crate) fn new(schedule: Schedule, switches: Switches, trace: bool) -> Self {
        let names: Vec<MemberName> = (0..schedule.machines.len())
            .map(|who| if who == 0 { name("appliance") } else { name(&format!("node{who}")) })
            .collect();
        let resources: Vec<ResourceName> =
            RESOURCES.iter().map(|text| ResourceName::new(text).expect("a valid name")).collect();
        let members = names.len() - schedule.strangers;
        let machine = |(who, (name, kind)): (usize, (&MemberName, &_))| MachineSetup {
            name: name.clone(),
            kind: *kind,
            boot: Boot::Drawn,
            on: who < members,
            reboots: true,
            bmc: BmcMode::Works,
            starts: 0,
            capacity: Capacity::default(),
        };
        let setup = Setup {
            seed: schedule.seed,
            state: first_state(&schedule, &names, &resources),
            machines: names.iter().zip(&schedule.machines).enumerate().map(machine).collect(),
            switches,
            mood: match schedule.style {
                Style::Mixed | Style::OneCut => Mood::USUAL,
                Style::Scripted => Mood::GOOD,
            },
            devices_dawdle: schedule.style == Style::Mixed,
            slew_ppm: schedule.slew_ppm,
            recorded: trace,
        };
        let mut world = World::new(setup);
        for (step, (at, _)) in (0..).zip(&schedule.faults) {
            world.cue_at(*at, step);
        }
        world.cue_at(schedule.heal_at, HEAL);
        Self { world, schedule, resources, joining: 0, again: BTreeSet::new(), over: false }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(mut self) -> Outcome {
        while !self.over && self.world.violations().is_empty() {
            match self.world.next(self.schedule.heal_at + WELL_WITHIN) {
                Next::Step => {}
                Next::Cue(HEAL) => self.heal(),
                Next::Cue(LOOK) => self.look(),
                Next::Cue(cue) if cue > JOINED - MACHINES_MAX => {
                    self.joined(usize::try_from(JOINED - cue).expect("the place of a machine"));
                }
                Next::Cue(step) => self.strike(step),
                Next::TimeIsUp => self.not_well(),
            }
        }
        Outcome {
            violation: self.world.violations().first().cloned(),
            trace: self.world.take_records().iter().map(ToString::to_string).collect(),
            steps: self.world.steps(),
            virtual_ns: self.world.now(),
            fences: self.world.fences(),
            leases_lost: self.world.leases_lost(),
            recovered: self.world.recovered(),
        }
    }
}
