//! From a case to a scenario and what is expected of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::command::Command;
use crate::expected::Expected;
use crate::fault::{Requested, named};
use crate::memory::{Beginning, beginning};
use crate::published::{Case, CaseError, Hardware, Rule, Service};
use crate::scenario::{Event, Fails, Node, Resource, Rule as ScenarioRule, Scenario, seconds};
use crate::schedule::Schedule;

/// With fewer nodes than this no majority of them survives the loss of one, and the appliance has to vote.
const NODES_THAT_VOTE_ALONE: usize = 3;
/// Their nodes are there in the round in which they get power.
const BOOT_S: u32 = 2;
/// Their defaults.
const MAX_RESTART: u32 = 1;
const MAX_RELOCATE: u32 = 1;
const FAILBACK: u32 = 1;
/// More starts than any of them tries.
const FOR_GOOD: u32 = 1_000;
/// Locks that a recovery removes, because what held them died with the node. One without a kind is a backup's.
const STALE_LOCKS: [&str; 9] =
    ["backup", "clone", "migrate", "mounted", "rollback", "snapshot", "snapshot-delete", "suspended", "suspending"];

/// What becomes of a case.
#[derive(Clone, PartialEq, Debug)]
pub enum Conversion {
    /// A scenario.
    Converted(Box<Converted>),
    /// Nothing, and why.
    LeftOut(LeftOut),
}

/// A scenario and what is expected of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Converted {
    /// The scenario.
    pub scenario: Scenario,
    /// What has to come of it.
    pub expected: Expected,
    /// Where the scenario says something else than the case, for people.
    pub notes: Vec<String>,
}

/// Why a case is left out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LeftOut {
    /// It is about the scores of their load scheduling.
    LoadScheduling,
    /// It breaks their cluster file system.
    ConfigFilesystem,
    /// It upgrades groups to rules.
    GroupMigration,
    /// It lets their daemons skip rounds.
    SkippedRounds,
    /// It moves a resource by hand without telling the manager; three of these end with one that runs on two nodes.
    ManualMove {
        /// Which.
        resource: String,
    },
    /// Its memory places a resource elsewhere than the configuration: it was moved behind the manager's back.
    MovedBehind {
        /// Which.
        resource: String,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadScheduling => f.write_str("it is about the scores of load scheduling"),
            Self::ConfigFilesystem => f.write_str("it breaks the cluster file system"),
            Self::GroupMigration => f.write_str("it upgrades groups to rules"),
            Self::SkippedRounds => f.write_str("it lets daemons skip rounds"),
            Self::ManualMove { resource } => write!(f, "it moves {resource} behind the manager's back"),
            Self::MovedBehind { resource } => {
                write!(f, "{resource} was moved behind the manager's back before it begins")
            }
        }
    }
}

/// Converts a case, or says why it is left out.
///
/// # Errors
/// If the case says something that this program doesn't know.
pub fn convert(case: &Case) -> Result<Conversion, CaseError> {
    if let Some(reason) = left_out_as_configured(case) {
        return Ok(Conversion::LeftOut(reason));
    }
    let schedule = Schedule::of(case)?;
    if let Some(reason) = schedule.commands().find_map(|(_, command)| left_out_by(command)) {
        return Ok(Conversion::LeftOut(reason));
    }
    let beginning = match beginning(case, &schedule)? {
        Ok(beginning) => beginning,
        Err(reason) => return Ok(Conversion::LeftOut(reason)),
    };
    let expected = Expected::of(case, &schedule, &beginning)?;
    let mut events = Events::new(case, &beginning);
    for (at, command) in schedule.commands() {
        events.add(at, command).map_err(|text| case.unknown("the resource", &text))?;
    }
    for (at, command) in beginning.moves() {
        events.add(at, &command).map_err(|text| case.unknown("the resource", &text))?;
    }
    let mut notes = beginning.notes.clone();
    let mut resources = Vec::new();
    for (sid, service) in &case.services {
        let mut resource = resource(case, sid, service)?;
        if beginning.given_up.contains(sid) {
            resource.fail_for_good(Vec::new());
        }
        if let Some(kind) = events.kept_locks.get(sid) {
            notes.push(format!("{sid}'s lock {kind} survives a recovery: it can't be started on any other node"));
            let others = case.hardware.keys().filter(|node| **node != service.node);
            resource.fail_for_good(others.cloned().collect());
        }
        resources.push(resource);
    }
    let scenario = Scenario {
        profile: "balanced",
        appliance: case.hardware.len() < NODES_THAT_VOTE_ALONE,
        placement: "basic",
        shutdown_policy: case.datacenter.ha.shutdown_policy.clone().unwrap_or_else(|| "conditional".to_owned()),
        duration: seconds(schedule.end_s + beginning.shift_s),
        node: case.hardware.iter().map(|(name, hardware)| node(name, hardware, &beginning)).collect(),
        resource: resources,
        rule: case.rules.iter().map(|each| rule(case, each)).collect::<Result<_, _>>()?,
        event: events.list,
    };
    Ok(Conversion::Converted(Box::new(Converted { scenario, expected, notes })))
}

fn left_out_as_configured(case: &Case) -> Option<LeftOut> {
    let loads = !case.datacenter.crs.is_empty() || case.static_stats.is_some() || case.dynamic_stats.is_some();
    let groups = !case.groups.is_empty()
        || case.services.values().any(|service| service.group.is_some())
        || case.hardware.values().any(|node| node.version.is_some());
    if loads {
        Some(LeftOut::LoadScheduling)
    } else if groups {
        Some(LeftOut::GroupMigration)
    } else {
        None
    }
}

fn left_out_by(command: &Command) -> Option<LeftOut> {
    match command {
        Command::SkipRound => Some(LeftOut::SkippedRounds),
        Command::ConfigFilesystem => Some(LeftOut::ConfigFilesystem),
        Command::Load => Some(LeftOut::LoadScheduling),
        Command::Version => Some(LeftOut::GroupMigration),
        Command::ManualMove(sid) => Some(LeftOut::ManualMove { resource: sid.clone() }),
        Command::Power { .. }
        | Command::Network { .. }
        | Command::Delay(_)
        | Command::Reboot(_)
        | Command::Shutdown(_)
        | Command::RestartAgent(_)
        | Command::StartAgent
        | Command::Maintenance { .. }
        | Command::Disarm(_)
        | Command::Arm
        | Command::Request { .. }
        | Command::Add { .. }
        | Command::Remove(_)
        | Command::Migrate { .. }
        | Command::Relocate { .. }
        | Command::Lock { .. }
        | Command::Unlock(_) => None,
    }
}

/// A node whose watchdog resets it stays off with theirs until it is powered on, which also ends its isolation. Ours
/// boots, isolated for just as long; it is the isolation that keeps it away.
fn node(name: &str, hardware: &Hardware, beginning: &Beginning) -> Node {
    Node {
        name: name.to_owned(),
        power: if beginning.all_on || hardware.power == "on" { "on" } else { "off" },
        memory: hardware.maxmem.map(|bytes| format!("{bytes}B")),
        cpus: hardware.maxcpu,
        bmc: "none",
        watchdog: "good",
        after_reset: "reboot",
        boot: seconds(BOOT_S),
    }
}

fn resource(case: &Case, sid: &str, service: &Service) -> Result<Resource, CaseError> {
    let named = named(sid).ok_or_else(|| case.unknown("the resource", sid))?;
    let state = match &service.state {
        None => Requested::Disabled,
        Some(text) => Requested::parse(text).ok_or_else(|| case.unknown("the state", text))?,
    };
    Ok(Resource {
        id: named.id,
        node: service.node.clone(),
        state: state.word(),
        max_restart: service.max_restart.unwrap_or(MAX_RESTART),
        max_relocate: service.max_relocate.unwrap_or(MAX_RELOCATE),
        failback: service.failback.unwrap_or(FAILBACK) != 0,
        fails: named.fails,
    })
}

impl Resource {
    fn fail_for_good(&mut self, only_on: Vec<String>) {
        self.fails = Fails { start: FOR_GOOD, only_on, ..Fails::default() };
        self.max_restart = 0;
        self.max_relocate = 0;
    }
}

fn rule(case: &Case, rule: &Rule) -> Result<ScenarioRule, CaseError> {
    let resources: Vec<String> = rule
        .resources
        .split(',')
        .map(|sid| named(sid).map(|named| named.id).ok_or_else(|| case.unknown("the resource", sid)))
        .collect::<Result<_, _>>()?;
    match (rule.kind.as_str(), rule.affinity.as_deref(), &rule.nodes) {
        ("node-affinity", None, Some(nodes)) => Ok(ScenarioRule::NodeAffinity {
            resources,
            nodes: nodes
                .split(',')
                .map(|node| priority(node).ok_or_else(|| case.unknown("the node of a rule", node)))
                .collect::<Result<_, _>>()?,
            strict: rule.strict.as_deref() == Some("1"),
        }),
        ("resource-affinity", Some("positive"), None) => Ok(ScenarioRule::Together { resources }),
        ("resource-affinity", Some("negative"), None) => Ok(ScenarioRule::Apart { resources }),
        _ => Err(case.unknown("the rule", &rule.id)),
    }
}

/// `node1:2`, or `node1` for priority 0.
fn priority(text: &str) -> Option<(String, u32)> {
    let (node, priority) = text.split_once(':').unwrap_or((text, "0"));
    Some((node.to_owned(), priority.parse().ok()?))
}

/// Events in the making, with what has to be known of the nodes to make the next.
struct Events {
    list: Vec<Event>,
    shift_s: u32,
    off: BTreeSet<String>,
    isolated: BTreeSet<String>,
    /// Resources with a lock that a recovery doesn't remove, and its kind.
    kept_locks: BTreeMap<String, String>,
}

impl Events {
    fn new(case: &Case, beginning: &Beginning) -> Self {
        let off = case.hardware.iter().filter(|(_, node)| node.power == "off");
        let cut = case.hardware.iter().filter(|(_, node)| node.power == "on" && node.network == "off");
        let isolated: BTreeSet<String> = cut.map(|(name, _)| name.clone()).collect();
        let mut list = beginning.events.clone();
        list.extend(isolated.iter().map(|name| Event { at: seconds(0), what: format!("isolate {name}") }));
        Self {
            list,
            shift_s: beginning.shift_s,
            off: off.map(|(name, _)| name.clone()).collect(),
            isolated,
            kept_locks: BTreeMap::new(),
        }
    }

    /// Adds a command; the error is a resource's name that isn't understood.
    fn add(&mut self, at: u32, command: &Command) -> Result<(), String> {
        let id = |sid: &str| named(sid).map(|named| named.id).ok_or_else(|| sid.to_owned());
        match command {
            Command::Power { node, on: true } => {
                self.rejoin(at, node);
                if self.off.remove(node) {
                    self.push(at, format!("power-on {node}"));
                }
            }
            Command::Power { node, on: false } => {
                if self.off.insert(node.clone()) {
                    self.push(at, format!("power-off {node}"));
                }
            }
            Command::Network { node, on: true } => self.rejoin(at, node),
            Command::Network { node, on: false } => {
                if self.isolated.insert(node.clone()) {
                    self.push(at, format!("isolate {node}"));
                }
            }
            Command::Reboot(node) => self.push(at, format!("reboot {node}")),
            Command::Shutdown(node) => {
                self.off.insert(node.clone());
                self.push(at, format!("shutdown {node}"));
            }
            Command::RestartAgent(node) => self.push(at, format!("restart-agent {node}")),
            Command::Maintenance { node, on } => {
                let switch = if *on { "on" } else { "off" };
                self.push(at, format!("maintenance {node} {switch}"));
            }
            Command::Disarm(mode) => self.push(at, format!("disarm {mode}")),
            Command::Arm => self.push(at, "arm".to_owned()),
            Command::Request { sid, state } => self.push(at, format!("set {} state={}", id(sid)?, state.word())),
            Command::Add { sid, node, state } => self.push(at, format!("add {} {node} {}", id(sid)?, state.word())),
            Command::Remove(sid) => self.push(at, format!("remove {}", id(sid)?)),
            Command::Migrate { sid, to } => self.push(at, format!("migrate {} {to}", id(sid)?)),
            Command::Relocate { sid, to } => self.push(at, format!("relocate {} {to}", id(sid)?)),
            Command::Lock { sid, kind: Some(kind) } if !STALE_LOCKS.contains(&kind.as_str()) => {
                self.kept_locks.insert(sid.clone(), kind.clone());
            }
            Command::Lock { sid, .. } => self.push(at, format!("lock {}", id(sid)?)),
            Command::Unlock(sid) => self.push(at, format!("unlock {}", id(sid)?)),
            // These say nothing of their own, or lead to the case being left out.
            Command::Delay(_)
            | Command::StartAgent
            | Command::ManualMove(_)
            | Command::SkipRound
            | Command::ConfigFilesystem
            | Command::Load
            | Command::Version => {}
        }
        Ok(())
    }

    fn rejoin(&mut self, at: u32, node: &str) {
        if self.isolated.remove(node) {
            self.push(at, format!("rejoin {node}"));
        }
    }

    fn push(&mut self, at: u32, what: String) {
        self.list.push(Event { at: seconds(at + self.shift_s), what });
    }
}

#[cfg(test)]
mod tests;
