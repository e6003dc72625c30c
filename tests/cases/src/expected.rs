//! What has to come of a scenario, from what comes of the case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::command::Command;
use crate::fault::{Requested, named};
use crate::memory::Beginning;
use crate::published::{Case, CaseError};
use crate::recovery::{Recovery, recoveries};
use crate::schedule::Schedule;

/// What is expected.
#[derive(Clone, PartialEq, Debug)]
pub struct Expected {
    /// The case.
    pub case: String,
    /// Each resource, by its name with us.
    pub resources: BTreeMap<String, ExpectedResource>,
    /// The nodes that are fenced.
    pub fenced: BTreeSet<String>,
    /// Each node that has power in the end, and whether it is in maintenance.
    pub maintenance: BTreeMap<String, bool>,
    /// The recoveries, in order.
    pub recoveries: Vec<Recovery>,
}

/// What is expected of a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedResource {
    /// Its state.
    pub state: State,
    /// The node where it belongs.
    pub node: String,
    /// Where it runs.
    pub running_on: BTreeSet<String>,
}

/// A final state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// The manager's word for it, the same with both.
    Is(String),
    /// Disabled, which theirs calls stopped once it is.
    Disabled,
    /// Left alone.
    Ignored,
    /// The manager doesn't know it any more.
    Removed,
}

impl State {
    /// Whether ours is the same; `None` is a resource that isn't there.
    #[must_use]
    pub fn accepts(&self, ours: Option<&str>) -> bool {
        match self {
            // Theirs says started of what was given to a node, whether it runs there or not; ours only of what runs. Where
            // it runs is compared by itself.
            Self::Is(state) if state == "started" => matches!(ours, Some("started" | "request_start")),
            Self::Is(state) => ours == Some(state),
            Self::Disabled => matches!(ours, Some("stopped" | "disabled")),
            Self::Ignored => ours == Some("ignored"),
            Self::Removed => matches!(ours, None | Some("removed")),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(state) => f.write_str(state),
            Self::Disabled => f.write_str("stopped (disabled)"),
            Self::Ignored => f.write_str("ignored"),
            Self::Removed => f.write_str("removed"),
        }
    }
}

impl Expected {
    pub(crate) fn of(case: &Case, schedule: &Schedule, beginning: &Beginning) -> Result<Self, CaseError> {
        let outcome = &case.outcome;
        let wanted = wanted(case, schedule)?;
        let mut resources = BTreeMap::new();
        for (sid, requested) in wanted {
            let id = named(sid).ok_or_else(|| case.unknown("the resource", sid))?.id;
            let state = match (outcome.final_crm_state.get(sid).map(String::as_str), requested) {
                (Some("stopped"), Some(Requested::Disabled)) => State::Disabled,
                (Some(state), Some(_)) => State::Is(state.to_owned()),
                (None, Some(Requested::Ignored)) => State::Ignored,
                (None, None) => State::Removed,
                (None, Some(Requested::Started | Requested::Stopped | Requested::Disabled)) | (Some(_), None) => {
                    return Err(case.unknown("the outcome of", sid));
                }
            };
            let node = outcome.final_location.get(sid).ok_or_else(|| case.unknown("the final node of", sid))?;
            let running = outcome.final_running.get(sid).into_iter().flatten().cloned();
            let resource = ExpectedResource { state, node: node.clone(), running_on: running.collect() };
            resources.insert(id, resource);
        }
        let powered = outcome
            .final_node_state
            .iter()
            .filter(|(node, _)| outcome.final_power.get(*node).is_some_and(|power| power == "on"));
        Ok(Self {
            case: case.name.clone(),
            resources,
            fenced: outcome
                .fence_ack_order
                .iter()
                .filter(|node| !beginning.forgotten.contains(*node))
                .cloned()
                .collect(),
            maintenance: powered.map(|(node, state)| (node.clone(), state == "maintenance")).collect(),
            recoveries: recoveries(case, schedule, beginning.shift_s)?,
        })
    }
}

/// What is requested of each resource in the end; `None` if it was removed.
fn wanted<'a>(case: &'a Case, schedule: &'a Schedule) -> Result<BTreeMap<&'a str, Option<Requested>>, CaseError> {
    let mut wanted = BTreeMap::new();
    for (sid, service) in &case.services {
        let state = match &service.state {
            None => Requested::Disabled,
            Some(text) => Requested::parse(text).ok_or_else(|| case.unknown("the state", text))?,
        };
        wanted.insert(sid.as_str(), Some(state));
    }
    for (_, command) in schedule.commands() {
        match command {
            Command::Request { sid, state } | Command::Add { sid, state, .. } => {
                wanted.insert(sid.as_str(), Some(*state));
            }
            Command::Remove(sid) => {
                wanted.insert(sid.as_str(), None);
            }
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
            | Command::Migrate { .. }
            | Command::Relocate { .. }
            | Command::Lock { .. }
            | Command::Unlock(_)
            | Command::ManualMove(_)
            | Command::SkipRound
            | Command::ConfigFilesystem
            | Command::Load
            | Command::Version => {}
        }
    }
    Ok(wanted)
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.case)?;
        for (id, resource) in &self.resources {
            let running =
                if resource.running_on.is_empty() { "nowhere".to_owned() } else { names(&resource.running_on) };
            writeln!(f, "  {id}: {} on {}, runs {running}", resource.state, resource.node)?;
        }
        writeln!(f, "  fenced: {}", if self.fenced.is_empty() { "nobody".to_owned() } else { names(&self.fenced) })?;
        for (node, _) in self.maintenance.iter().filter(|(_, on)| **on) {
            writeln!(f, "  {node}: in maintenance")?;
        }
        for recovery in &self.recoveries {
            writeln!(f, "  {recovery}")?;
        }
        Ok(())
    }
}

/// Names with spaces between them.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}
