//! What a node and the leader say to each other to renew a lease, and the report that a renewal carries.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::level::Level;
use crate::name::{MemberName, ResourceName};

/// How far a watchdog may be believed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Seen to reset this very machine in a drill.
    Drilled,
    /// Accepted by name by an operator, though weaker: a lower grade, shown for as long as it holds.
    Accepted,
    /// There, but not believed: no evidence comes from it.
    Unproven,
}

/// A node's standing promise: nothing protected runs there unless this watchdog is armed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchdogPromise {
    /// The driver's own name for itself.
    pub driver: String,
    /// Whatever the node ran is gone this long after its lease, in milliseconds.
    pub promised_ms: u64,
    /// How far to believe it.
    pub trust: Trust,
}

/// What a node last saw of a resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// A probe said stopped, and nothing is in flight.
    Stopped,
    /// A probe said running.
    Running,
    /// A start is in flight. Counts as running.
    Starting,
    /// A stop is in flight. Counts as running.
    Stopping,
    /// Nobody knows. Counts as running.
    Unknown {
        /// Why.
        why: String,
    },
    /// A probe said stopped, and the node has used up its restarts.
    Failed {
        /// What failed.
        why: String,
    },
    /// A stop was tried and the resource still runs, or may. Counts as running.
    StopFailed {
        /// What failed.
        why: String,
    },
    /// It is being moved live to another node. Counts as running.
    Moving,
    /// A probe said stopped, and the live move of this decision had said that it succeeded: it is gone from here, and its
    /// target may have to finish the move.
    Sent,
    /// It runs: the live move of this decision is over and has not moved it.
    MoveFailed {
        /// What failed.
        why: String,
    },
}

impl Observed {
    /// True when a probe proved that it doesn't run and nothing is in flight.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        match self {
            Self::Stopped | Self::Failed { .. } | Self::Sent => true,
            Self::Running
            | Self::Starting
            | Self::Stopping
            | Self::Unknown { .. }
            | Self::StopFailed { .. }
            | Self::Moving
            | Self::MoveFailed { .. } => false,
        }
    }

    /// True while an operation is under way that changes what runs.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        match self {
            Self::Starting | Self::Stopping | Self::Moving => true,
            Self::Running
            | Self::Stopped
            | Self::Sent
            | Self::Failed { .. }
            | Self::Unknown { .. }
            | Self::StopFailed { .. }
            | Self::MoveFailed { .. } => false,
        }
    }

    /// True when a probe proved that it runs, and nothing is in flight.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        match self {
            Self::Running | Self::MoveFailed { .. } => true,
            Self::Stopped
            | Self::Sent
            | Self::Failed { .. }
            | Self::Starting
            | Self::Stopping
            | Self::Unknown { .. }
            | Self::StopFailed { .. }
            | Self::Moving => false,
        }
    }
}

/// How a node's agent says that it is about to go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leave {
    /// The agent alone restarts: what runs goes on running, without it and without a watchdog.
    AgentRestart,
    /// The machine restarts.
    Reboot,
    /// The machine switches off.
    PowerOff,
}

impl std::fmt::Display for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AgentRestart => "restart its agent",
            Self::Reboot => "reboot",
            Self::PowerOff => "switch off",
        })
    }
}

/// What a node has to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Memory for resources, in bytes; `None` where nobody said: then it counts as unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processors, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milli_cpus: Option<u64>,
}

impl Capacity {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// What a resource was measured to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Memory, in bytes.
    pub memory: u64,
    /// Processors, in thousandths.
    pub milli_cpus: u64,
}

/// A node's report, as of its applied index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The highest log index that the node has applied.
    pub applied: u64,
    /// Every resource in that state, as the node last saw it.
    pub resources: BTreeMap<ResourceName, Observed>,
    /// The members that the node has heard from lately, by any path.
    pub hears: BTreeSet<MemberName>,
    /// Whether the watchdog is armed now.
    pub armed: bool,
    /// How often a lease has run out since the agent started: nothing decides by it, people and benchmarks count by it.
    #[serde(default)]
    pub leases_lost: u64,
    /// The node is about to go, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leave>,
    /// Why its watchdog can't be armed or disarmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What its resources were measured to use lately.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usage: BTreeMap<ResourceName, Usage>,
}

impl Report {
    /// True when every resource that the node knows is proven not to run there.
    #[must_use]
    pub fn runs_nothing(&self) -> bool {
        self.resources.values().all(Observed::is_stopped)
    }
}

/// A node asks for its lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// Counts the renewals of one incarnation.
    pub seq: u64,
    /// The highest term that the node has seen.
    pub term: u64,
    /// Which start of the agent this is, counted on the node's disk.
    pub incarnation: u64,
    /// The kernel's boot id.
    pub boot: String,
    /// The promise; `None` on a node without a watchdog.
    pub watchdog: Option<WatchdogPromise>,
    /// The machine's own UUID (DMI), by which a BMC is known to be this machine's; `None` where it has none.
    #[serde(default)]
    pub machine: Option<String>,
    /// What the node has to give.
    #[serde(default, skip_serializing_if = "Capacity::is_unknown")]
    pub capacity: Capacity,
    /// Milliseconds from this boot's power-on to its first agent, where this agent is that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_in_ms: Option<u64>,
    /// The highest feature level that the node's program knows.
    #[serde(default, skip_serializing_if = "Level::is_first")]
    pub level: Level,
    /// What the node sees.
    pub report: Report,
}

/// The leader's answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The renewal that is answered.
    pub seq: u64,
    /// Its incarnation.
    pub incarnation: u64,
    /// The answering member's term.
    pub term: u64,
    /// What it says.
    pub verdict: LeaseVerdict,
}

/// What the answer to a renewal says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseVerdict {
    /// Run resources until the send time of your renewal plus `ttl_ms`.
    Granted {
        /// Length of the lease, milliseconds.
        ttl_ms: u64,
        /// What the leader had committed: act only once you have applied it.
        commit: u64,
    },
    /// No lease now.
    Refused {
        /// Why not.
        why: Refusal,
    },
    /// Ask somebody else.
    NotLeader {
        /// Whom, if the answering member knows.
        leader: Option<MemberName>,
    },
}

/// Why a node gets no lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The leader can't prove its majority at this moment.
    #[error("the leader can't prove its majority at the moment")]
    NoQuorumLease,
    /// This life isn't admitted yet.
    #[error("this start of the agent is not admitted yet")]
    NotAdmitted,
    /// A fence of this node is open or proposed.
    #[error("a fence of this node is open")]
    Condemned,
    /// A later start of the agent is admitted.
    #[error("a later start of this node's agent is admitted: this one is outdated")]
    Outdated,
    /// Another boot of "the same" machine holds a live grant, or another machine is admitted.
    #[error(
        "another machine is admitted under this name: is this a cloned disk? A machine that replaces another gets in once \
         that one is fenced"
    )]
    Twin,
    /// Its program is older than what the cluster has agreed on.
    #[error(
        "the cluster has committed the feature level {committed}, and this node's program knows {known} at most: update it"
    )]
    TooOld {
        /// What the cluster has committed.
        committed: Level,
        /// What the node knows.
        known: Level,
    },
    /// Its copy of the replicated state is not that of the majority.
    #[error(
        "this node's copy of the cluster's state differs from the majority's at log index {index}: nothing that it would do \
         by it can be trusted"
    )]
    Diverged {
        /// Where that was seen.
        index: u64,
    },
    /// Not a member of the cluster.
    #[error("this node is not a member of the cluster any more")]
    NotAMember,
}
