//! Fences: the record of making certain that a node runs nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::level::Level;
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

/// What stands behind the word of a device that reads off, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffSign {
    /// A BMC, which knows the state of its own machine.
    Bmc,
    /// A meter: every feed is cut, and what still flows is too little to run on.
    Meter,
    /// The machine's power LED, which is dark.
    Led,
    /// A relay that says that it is open, with nothing measured behind it.
    Relay,
    /// A program of somebody else, whatever that asked.
    Program,
}

impl fmt::Display for OffSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bmc => "its BMC says so",
            Self::Meter => "the supply is cut and measured",
            Self::Led => "its power LED is dark",
            Self::Relay => "the supply's relay says so, nothing is measured",
            Self::Program => "a fence agent says so",
        })
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
    /// Every feed of its supply was cut, and its meter showed twice, freshly, that nothing runs on it.
    SupplyCut {
        /// The device.
        device: String,
    },
    /// The power LED was sensed dark twice, freshly.
    LedOff {
        /// The device.
        device: String,
    },
    /// A later boot reported that it has applied this fence and runs nothing.
    NewBoot {
        /// The boot that reported.
        boot: String,
    },
    /// The relay of its supply said twice, freshly, that it is open. Nothing was measured: that this relay cuts this node's
    /// power, and all of it, is what an operator's drill has shown once.
    SupplySwitched {
        /// The device.
        device: String,
    },
    /// A fence agent of somebody else said off twice, freshly.
    ProgramOff {
        /// The device.
        device: String,
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
    /// The evidence that two fresh reads of off give.
    #[must_use]
    pub const fn read_off(sign: OffSign, device: String) -> Self {
        match sign {
            OffSign::Bmc => Self::BmcOff { device },
            OffSign::Meter => Self::SupplyCut { device },
            OffSign::Led => Self::LedOff { device },
            OffSign::Relay => Self::SupplySwitched { device },
            OffSign::Program => Self::ProgramOff { device },
        }
    }

    /// Whether it is the word of a power device: that may be another machine's, and what it reads says that nothing at all
    /// runs.
    #[must_use]
    pub const fn is_of_a_device(&self) -> bool {
        match self {
            Self::BmcOff { .. }
            | Self::SupplyCut { .. }
            | Self::LedOff { .. }
            | Self::SupplySwitched { .. }
            | Self::ProgramOff { .. } => true,
            Self::NewBoot { .. } | Self::WatchdogTime { .. } | Self::Operator { .. } => false,
        }
    }

    /// The feature level from which on every member can read it.
    #[must_use]
    pub const fn known_from(&self) -> Level {
        match self {
            Self::BmcOff { .. } | Self::NewBoot { .. } | Self::WatchdogTime { .. } | Self::Operator { .. } => {
                Level::FIRST
            }
            Self::SupplyCut { .. } | Self::LedOff { .. } | Self::SupplySwitched { .. } | Self::ProgramOff { .. } => {
                Level::SUPPLIES_PROVE
            }
        }
    }

    /// The grade in one word, for people and machines.
    #[must_use]
    pub const fn grade(&self) -> &'static str {
        match self {
            Self::BmcOff { .. } => "bmc-off",
            Self::SupplyCut { .. } => "supply-cut",
            Self::LedOff { .. } => "led-off",
            Self::NewBoot { .. } => "new-boot",
            Self::SupplySwitched { .. } => "supply-switched",
            Self::ProgramOff { .. } => "program-off",
            Self::WatchdogTime { .. } => "watchdog-time",
            Self::Operator { .. } => "operator",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BmcOff { device } => write!(f, "the BMC behind {device:?} read off twice"),
            Self::SupplyCut { device } => {
                write!(f, "{device:?} has cut the supply and measured twice that nothing runs on it")
            }
            Self::LedOff { device } => write!(f, "the power LED that {device:?} senses was dark twice"),
            Self::SupplySwitched { device } => {
                write!(f, "the relay of {device:?} said twice that it is open, nothing was measured")
            }
            Self::ProgramOff { device } => write!(f, "the fence agent of {device:?} said off twice"),
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
