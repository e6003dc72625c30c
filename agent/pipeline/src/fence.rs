//! Fences: the record of making certain that a node runs nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::MemberName;

/// The number of a fence. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FenceId(pub u64);

impl fmt::Display for FenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a node is fenced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceReason {
    /// It renewed nothing for too long.
    Lost {
        /// Milliseconds since its last renewal when the fence was proposed.
        silent_ms: u64,
    },
    /// An operator asked for it.
    Asked {
        /// Who.
        by: String,
    },
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { silent_ms } => write!(f, "not heard for {}.{:03} s", silent_ms / 1000, silent_ms % 1000),
            Self::Asked { by } => write!(f, "asked for by {by}"),
        }
    }
}

/// Why we believe that a node is fenced, best first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The BMC read off twice, freshly.
    BmcOff {
        /// The device.
        device: String,
    },
    /// A later boot reported that it has applied this fence and runs nothing.
    NewBoot {
        /// The boot that reported.
        boot: String,
    },
    /// The lease ended and the watchdog's promised time passed.
    WatchdogTime {
        /// Milliseconds since the end of the last possible lease.
        waited_ms: u64,
    },
    /// An operator's word for this fence.
    Operator {
        /// Who.
        by: String,
    },
}

impl Evidence {
    /// The grade in one word, for people and machines.
    #[must_use]
    pub const fn grade(&self) -> &'static str {
        match self {
            Self::BmcOff { .. } => "bmc-off",
            Self::NewBoot { .. } => "new-boot",
            Self::WatchdogTime { .. } => "watchdog-time",
            Self::Operator { .. } => "operator",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BmcOff { device } => write!(f, "the BMC behind {device:?} read off twice"),
            Self::NewBoot { boot } => write!(f, "boot {boot} reported in and runs nothing"),
            Self::WatchdogTime { waited_ms } => {
                write!(f, "its lease ended and its watchdog's time passed ({waited_ms} ms)")
            }
            Self::Operator { by } => write!(f, "the word of {by}"),
        }
    }
}

/// How far a fence has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Committed; nothing proven yet.
    Wanted,
    /// Proven: the node's resources are free.
    Fenced {
        /// The proof.
        evidence: Evidence,
    },
    /// No command of this fence can still land: the node may be admitted again.
    Closed {
        /// The proof.
        evidence: Evidence,
    },
}

/// One fence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fence {
    /// Whom.
    pub node: MemberName,
    /// Which life of it.
    pub incarnation: u64,
    /// That life's boot.
    pub boot: String,
    /// Why.
    pub reason: FenceReason,
    /// How far.
    pub progress: Progress,
    /// The log index of `FenceWanted`.
    pub wanted_at: u64,
    /// The last failure that a device reported.
    pub last_failure: Option<String>,
}

impl Fence {
    /// True until `Closed`.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        match self.progress {
            Progress::Wanted | Progress::Fenced { .. } => true,
            Progress::Closed { .. } => false,
        }
    }
}
