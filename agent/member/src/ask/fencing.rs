//! What a node of a Corosync cluster asks the appliance through its fence agent. CBOR over TLS: which node of which cluster
//! asks, its certificate says.

use std::fmt;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::state::Hold;

/// A request of a fence agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FenceRequest {
    /// The DMI UUID of the machine that asks, where it has one: by that a BMC is told from another machine's.
    pub machine: Option<String>,
    /// What is asked.
    pub ask: FenceAsk,
}

/// What is asked. Nodes are named as the appliance's configuration names them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceAsk {
    /// The nodes that can be fenced. No device is asked.
    List,
    /// The same with the power state of each, read now.
    States,
    /// The power state of one, read now.
    State {
        /// Whose.
        node: String,
    },
    /// Whether each node could be fenced, by the last proofs of its devices.
    Monitor,
    /// Cut a node's power. Who asks a second time joins what is under way, and gets its result.
    Off {
        /// Whose.
        node: String,
        /// Give it back afterwards. The answer comes once the power was seen cut.
        then_on: bool,
        /// An answer is wanted within this time; the fence goes on after it.
        within_ms: u64,
    },
    /// Give a node power.
    On {
        /// Which.
        node: String,
        /// As with [`FenceAsk::Off`].
        within_ms: u64,
    },
    /// A new certificate for the key in a request, DER.
    Renew {
        /// It.
        #[serde(with = "serde_bytes")]
        csr: Vec<u8>,
    },
}

/// One node, as a fence agent is told of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FenceNode {
    /// Its name.
    pub name: String,
    /// Its number in corosync.conf.
    pub id: u32,
    /// Whether it has power, where that was read.
    pub on: Option<bool>,
    /// Why it could not be read.
    pub fault: Option<String>,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceAnswer {
    /// The nodes.
    Nodes {
        /// They, by name.
        nodes: Vec<FenceNode>,
    },
    /// A power state.
    State {
        /// Whether the node has power.
        on: bool,
    },
    /// It is so: the power was seen cut twice, or given; or every node could be fenced.
    Done {
        /// How that is known, in words.
        how: String,
    },
    /// It is under way and goes on. Nothing is certain yet.
    Working {
        /// How far it is, in words.
        what: String,
    },
    /// The appliance refuses; nothing was done.
    Refused {
        /// Why, in words.
        why: String,
    },
    /// It was tried and is not certain.
    Failed {
        /// Why, in words.
        why: String,
    },
    /// A new certificate, DER.
    Certificate {
        /// It.
        #[serde(with = "serde_bytes")]
        der: Vec<u8>,
    },
}

/// A Corosync cluster whose nodes the appliance fences, as its operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FencedCluster {
    /// Its name here.
    pub name: String,
    /// Its name in corosync.conf, whose vote decides; `None`: it is trusted without one.
    pub qdevice: Option<String>,
    /// Its nodes, by name.
    pub nodes: Vec<FencedNode>,
    /// That no power device of it is told to switch anything, and who wants that.
    #[serde(default)]
    pub hold: Option<Hold>,
}

/// One of its nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FencedNode {
    /// Its name.
    pub name: String,
    /// Its number in corosync.conf.
    pub id: u32,
    /// Whether it has a certificate with which it may ask.
    pub enrolled: bool,
    /// Whether it could be fenced, by the last proofs of its devices.
    pub proven: bool,
    /// Why not, device by device; or what is wrong with one of several.
    pub faults: Vec<String>,
    /// The fence that is under way or was last.
    pub fence: Option<FenceShown>,
}

/// A fence of a Corosync cluster's node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FenceShown {
    /// Its number, of this cluster.
    pub number: u64,
    /// Which node asked first.
    pub by: String,
    /// When, milliseconds since 1970.
    pub begun_ms: u64,
    /// How it stands.
    pub stage: FenceStage,
    /// In words.
    pub how: String,
}

/// How a fence stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceStage {
    /// The power is being cut.
    Cutting,
    /// The power was seen cut, and is being given back.
    Restoring,
    /// It is over.
    Over,
}

impl fmt::Display for FenceStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cutting => "its power is being cut",
            Self::Restoring => "its power is being given back",
            Self::Over => "over",
        })
    }
}
