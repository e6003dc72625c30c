//! Scenarios: who takes part, what is to run, and what happens when.

mod check;
mod event;
mod file;
mod mistake;
mod shape;
mod table;
mod tree;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::profile::Profile;

pub use event::{Disarm, Do, Usage};
pub use file::{Format, ScenarioError};
pub use mistake::{Mistake, Mistakes};

/// The name by which events mean the appliance.
pub const APPLIANCE: &str = "appliance";
/// Events at most: more than anybody writes by hand, and few enough to hold.
pub const EVENTS_MAX: usize = 10_000;
/// Rules at most.
pub const RULES_MAX: usize = tiebreaker_pipeline::placement::rule::RULES_MAX;
/// The longest scenario.
pub const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A scenario that makes sense: every name in it is somebody's, and nothing in it contradicts itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The times that the cluster lives by.
    pub profile: Profile,
    /// There is an appliance; else the nodes alone vote.
    pub appliance: bool,
    /// How nodes are chosen.
    pub placement: Placement,
    /// Resources that move live are moved by themselves to even out the load.
    pub rebalance: bool,
    /// What a planned shutdown of a node means for its resources.
    pub shutdown_policy: ShutdownPolicy,
    /// How many node failures shall be tolerable; `None` where nobody has said.
    pub tolerate: Option<u32>,
    /// Planned moves under way at once; `None` for the usual number.
    pub moves: Option<u32>,
    /// From one order of a class to the next, in seconds.
    pub order_delay_s: Vec<(Class, u32)>,
    /// How long it lasts.
    pub duration: Duration,
    /// The nodes, in the order of the file.
    pub nodes: Vec<NodeSetup>,
    /// The resources at the start, in the order of the file.
    pub resources: Vec<ResourceSetup>,
    /// The rules, in the order of the file.
    pub rules: Vec<RuleSetup>,
    /// What happens, by time; at the same time in the order of the file.
    pub events: Vec<Event>,
}

/// How nodes are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// Fewest resources, then the name.
    #[default]
    Basic,
    /// By declared CPU and memory.
    Static,
    /// By measured CPU and memory.
    Dynamic,
}

/// What a planned shutdown of a node means for its resources.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ShutdownPolicy {
    /// A reboot freezes them, a shutdown lets others take them.
    #[default]
    Conditional,
    /// They wait for the node.
    Freeze,
    /// Others take them.
    Failover,
    /// They are moved away first.
    Migrate,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSetup {
    /// Its name.
    pub name: MemberName,
    /// It is on when the scenario begins.
    pub on: bool,
    /// Memory in bytes; `None` is unlimited.
    pub memory: Option<u64>,
    /// CPUs; `None` is unlimited.
    pub cpus: Option<u32>,
    /// Its BMC.
    pub bmc: BmcSetup,
    /// It has a watchdog that was once seen to reset it.
    pub watchdog: bool,
    /// It boots after a reset; else it stays off.
    pub reboots: bool,
    /// From power to a running agent.
    pub boot: Duration,
    /// It is in maintenance when the scenario begins.
    pub maintenance: bool,
}

/// A BMC, and how it behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BmcSetup {
    /// It does what it is told.
    Good,
    /// There is none.
    None,
    /// Nothing reaches it.
    Unreachable,
    /// It takes every command and carries none out.
    Stuck,
    /// It answers, and switches, so long after it was told.
    Slow(Duration),
}

/// The name of a resource: `vm:101`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ResourceId {
    kind: ResourceKind,
    name: String,
}

/// What a resource is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ResourceKind {
    /// A container: stopped and started.
    Container,
    /// Anything else: stopped and started.
    Service,
    /// A virtual machine: can migrate live.
    Machine,
}

/// What an operator wants of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Requested {
    /// Keep it running.
    #[default]
    Started,
    /// Keep it stopped, but placed and recovered.
    Stopped,
    /// Stopped, and nothing is fenced for it.
    Disabled,
    /// Not managed.
    Ignored,
}

/// How much a resource is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Class {
    /// Always recovered.
    #[default]
    Protected,
    /// Once everything protected runs, one attempt.
    BestEffort,
    /// Never recovered.
    Unprotected,
}

/// A resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceSetup {
    /// Its name.
    pub id: ResourceId,
    /// Where it is configured.
    pub node: MemberName,
    /// What is wanted.
    pub state: Requested,
    /// How much it is worth.
    pub class: Class,
    /// Its place in the order of starts.
    pub order: u32,
    /// Memory in bytes; `None` counts as nothing.
    pub memory: Option<u64>,
    /// Processors in thousandths; `None` where nothing is declared.
    pub milli_cpus: Option<u32>,
    /// It can migrate live.
    pub live: bool,
    /// The only nodes that can run it; all, if empty.
    pub only_on: BTreeSet<MemberName>,
    /// Restarts on the same node before it is moved.
    pub max_restart: u32,
    /// Moves after failures before it is given up.
    pub max_relocate: u32,
    /// It goes back to a better node when that is there again.
    pub failback: bool,
    /// What its programs do wrong.
    pub fails: Fails,
}

/// What the programs of a resource do wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fails {
    /// So many starts fail before one succeeds.
    pub start: u32,
    /// So many migrations fail before one succeeds.
    pub migrate: u32,
    /// Every stop fails.
    pub stop: bool,
    /// On these nodes alone; everywhere if empty.
    pub only_on: BTreeSet<MemberName>,
}

/// A rule of placement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleSetup {
    /// Which resources it is about.
    pub resources: BTreeSet<ResourceId>,
    /// What it says.
    pub kind: RuleKind,
}

/// What a rule says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleKind {
    /// They run on these nodes, those of the highest priority first.
    NodeAffinity {
        /// Priorities by node.
        nodes: BTreeMap<MemberName, u32>,
        /// Nowhere else.
        strict: bool,
    },
    /// They run on the same node.
    Together,
    /// They run on different nodes.
    Apart,
}

/// Something that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub what: Do,
}

impl ResourceId {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// The part after the colon.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ResourceKind::Container => "ct",
            ResourceKind::Service => "service",
            ResourceKind::Machine => "vm",
        };
        f.pad(&format!("{kind}:{}", self.name))
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Ignored => "ignored",
        })
    }
}

impl fmt::Display for BmcSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::None => f.write_str("none"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Stuck => f.write_str("stuck"),
            Self::Slow(by) => write!(f, "slow:{}", units::Span(*by)),
        }
    }
}

#[cfg(test)]
mod tests;
