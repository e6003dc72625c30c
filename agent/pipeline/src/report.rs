//! What a node and the leader say to each other to renew a lease, and the report that a renewal carries.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

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
}

impl Observed {
    /// True when a probe proved that it doesn't run and nothing is in flight.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        match self {
            Self::Stopped | Self::Failed { .. } => true,
            Self::Running | Self::Starting | Self::Stopping | Self::Unknown { .. } | Self::StopFailed { .. } => false,
        }
    }
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
    /// Another boot of "the same" machine holds a live grant.
    #[error("another machine holds a live grant under this name: is this a cloned disk?")]
    Twin,
    /// Not a member of the cluster.
    #[error("this node is not a member of the cluster any more")]
    NotAMember,
}
