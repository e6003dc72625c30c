//! From a scenario to the world that it begins with.
//!
//! A scenario begins with a cluster that has run before and was switched off: every node was admitted in an earlier life,
//! and every resource is placed where it is configured. So a node that never comes up is one that has to be fenced, and
//! nobody starts elsewhere what it may be running.

use std::time::Duration;

use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
use tiebreaker_pipeline::manager::wanted_voters;
use tiebreaker_pipeline::name::{ClusterName, MemberName, RuleName};
use tiebreaker_pipeline::placement::rule::{PlacementRule, RuleKind as PlacementKind};
use tiebreaker_pipeline::placement::score::Scoring;
use tiebreaker_pipeline::report::{Capacity, Trust, WatchdogPromise};
use tiebreaker_pipeline::resource::{self, Driver, Phase, ResourceSpec};
use tiebreaker_pipeline::state::{self, DeviceStatus, Life, Role, State};

use crate::scenario::{
    APPLIANCE, BmcSetup, Class, NodeSetup, Placement, Requested, ResourceId, ResourceKind, ResourceSetup, RuleKind,
    RuleSetup, Scenario, ShutdownPolicy,
};
use crate::world::{Boot, Failing, Kind, MS, MachineSetup, Mood, SEC, Setup, Switches, World};

/// The seed of all chance: the same file gives the same run.
const SEED: u64 = 1;
/// From power to the appliance's daemon.
const APPLIANCE_BOOTS_IN: u64 = 20 * SEC;

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn setup(scenario: &Scenario) -> Setup {
    let appliance = MachineSetup {
        name: appliance(),
        kind: Kind::APPLIANCE,
        boot: Boot::Takes(APPLIANCE_BOOTS_IN),
        on: scenario.appliance,
        reboots: true,
        bmc: crate::world::BmcMode::Works,
        starts: 0,
        capacity: Capacity::default(),
    };
    let nodes = scenario.nodes.iter().map(|node| MachineSetup {
        name: node.name.clone(),
        kind: Kind {
            watchdog: node.watchdog.then_some(Trust::Drilled),
            bmc: node.bmc != BmcSetup::None,
            second: false,
            pausable: false,
        },
        boot: Boot::Takes(nanos(node.boot)),
        on: node.on,
        reboots: node.reboots,
        bmc: super::bmc(node.bmc),
        // In its earlier life.
        starts: 1,
        capacity: capacity(node),
    });
    Setup {
        seed: SEED,
        state: state(scenario),
        machines: std::iter::once(appliance).chain(nodes).collect(),
        switches: Switches::default(),
        mood: Mood::GOOD,
        devices_dawdle: false,
        slew_ppm: 0,
        recorded: true,
    }
}

/// What its programs do wrong.
pub(super) fn fail(world: &mut World, resource: &ResourceSetup) {
    let fails = &resource.fails;
    let only_on = fails.only_on.iter().filter_map(|node| world.who(node)).collect();
    let failing = Failing { starts: fails.start, moves: fails.migrate, stops: fails.stop, only_on };
    world.set_failing(super::resource(&resource.id), failing);
}

fn appliance() -> MemberName {
    MemberName::new(APPLIANCE).expect("a valid name")
}

fn state(scenario: &Scenario) -> State {
    let cluster = ClusterName::new("scenario").expect("a valid name");
    let mut state = State::new(cluster, appliance(), vec!["127.0.0.1:1".into()], "00".into());
    state.settings.profile = scenario.profile;
    state.settings.placement = match scenario.placement {
        Placement::Basic => Scoring::Basic,
        Placement::Static => Scoring::Static,
        Placement::Dynamic => Scoring::Dynamic,
    };
    state.settings.rebalance = scenario.rebalance;
    state.settings.shutdown = match scenario.shutdown_policy {
        ShutdownPolicy::Conditional => state::ShutdownPolicy::Conditional,
        ShutdownPolicy::Freeze => state::ShutdownPolicy::Freeze,
        ShutdownPolicy::Failover => state::ShutdownPolicy::Failover,
        ShutdownPolicy::Migrate => state::ShutdownPolicy::Migrate,
    };
    state.settings.tolerate = scenario.tolerate;
    state.settings.moves = scenario.moves;
    state.settings.order_delay_s = scenario.order_delay_s.iter().map(|(of, delay)| (class(*of), *delay)).collect();
    if !scenario.appliance {
        state.members.clear();
        state.voters.clear();
    }
    for (nth, node) in scenario.nodes.iter().enumerate() {
        let (name, key) = (node.name.clone(), format!("{:02}", nth + 1));
        apply(&mut state, Command::AddMember { name: name.clone(), role: Role::Node, addresses: vec![], key });
        if let Some(device) = device(node).filter(|_| scenario.appliance) {
            apply(&mut state, Command::SetDevices { node: name, devices: vec![device] });
        }
        if let Some(place) = state.nodes.get_mut(&node.name) {
            place.life = Some(earlier_life(scenario, node));
            place.last_incarnation = 1;
            place.capacity = capacity(node);
            place.boot_ms = nanos(node.boot) / MS;
            place.maintenance = node.maintenance;
        }
    }
    for resource in &scenario.resources {
        let (name, requested) = (super::resource(&resource.id), requested(resource.state));
        let (spec, node) = (specification(resource), Some(resource.node.clone()));
        apply(&mut state, Command::AddResource { name: name.clone(), spec, requested, node });
        if let Some(placed) = state.resources.get_mut(&name)
            && requested != resource::Requested::Ignored
        {
            placed.phase = Phase::Placed { node: resource.node.clone() };
            placed.home = None;
        }
    }
    for (nth, rule) in (1..).zip(&scenario.rules) {
        let name = RuleName::new(&format!("rule{nth}")).expect("a valid name");
        apply(&mut state, Command::SetRule { name, rule: placement_rule(rule) });
    }
    // What led here is not part of the story.
    state.log.clear();
    let voters = wanted_voters(&state);
    state.voters = voters;
    state
}

fn apply(state: &mut State, command: Command) {
    let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
    state.apply(1, entry).expect("what a scenario begins with is consistent");
}

fn earlier_life(scenario: &Scenario, node: &NodeSetup) -> Life {
    let promised_ms = u64::try_from(scenario.profile.watchdog().as_millis()).unwrap_or(u64::MAX);
    let watchdog =
        node.watchdog.then(|| WatchdogPromise { driver: "simulated".into(), promised_ms, trust: Trust::Drilled });
    Life { incarnation: 1, boot: format!("{}-0", node.name), watchdog, machine: None, since: 1, unbound: None }
}

fn capacity(node: &NodeSetup) -> Capacity {
    Capacity { memory: node.memory, milli_cpus: node.cpus.map(|cpus| u64::from(cpus) * 1000) }
}

fn placement_rule(rule: &RuleSetup) -> PlacementRule {
    let kind = match &rule.kind {
        RuleKind::NodeAffinity { nodes, strict } => {
            PlacementKind::NodeAffinity { nodes: nodes.clone(), strict: *strict }
        }
        RuleKind::Together => PlacementKind::Together,
        RuleKind::Apart => PlacementKind::Apart,
    };
    PlacementRule { resources: rule.resources.iter().map(super::resource).collect(), kind, disabled_by_operator: false }
}

/// The appliance has looked at the device before: it believes what let it in.
fn device(node: &NodeSetup) -> Option<DeviceStatus> {
    let (proven, why) = match node.bmc {
        BmcSetup::None => return None,
        BmcSetup::Good | BmcSetup::Stuck | BmcSetup::Slow(_) => (true, None),
        BmcSetup::Unreachable => (false, Some("nothing answers".to_owned())),
    };
    Some(DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven, why })
}

/// What is wanted.
pub(super) const fn requested(state: Requested) -> resource::Requested {
    match state {
        Requested::Started => resource::Requested::Started,
        Requested::Stopped => resource::Requested::Stopped,
        Requested::Disabled => resource::Requested::Disabled,
        Requested::Ignored => resource::Requested::Ignored,
    }
}

/// A resource without any wishes.
pub(super) fn usual_specification(id: &ResourceId) -> ResourceSpec {
    live_or_not(id.kind() == ResourceKind::Machine)
}

fn live_or_not(live: bool) -> ResourceSpec {
    let argv = |verb: &str| vec!["/opt/service".to_owned(), verb.to_owned()];
    let driver = Driver::Command {
        start: argv("start"),
        stop: argv("stop"),
        status: argv("status"),
        migrate: live.then(|| argv("migrate")),
    };
    ResourceSpec { live, ..ResourceSpec::with_defaults(driver) }
}

fn specification(resource: &ResourceSetup) -> ResourceSpec {
    ResourceSpec {
        max_restart: resource.max_restart,
        max_relocate: resource.max_relocate,
        class: class(resource.class),
        order: resource.order,
        memory: resource.memory,
        failback: resource.failback,
        milli_cpus: resource.milli_cpus.map(u64::from),
        only_on: resource.only_on.clone(),
        ..live_or_not(resource.live)
    }
}

const fn class(class: Class) -> resource::Class {
    match class {
        Class::Protected => resource::Class::Protected,
        Class::BestEffort => resource::Class::BestEffort,
        Class::Unprotected => resource::Class::Unprotected,
    }
}
