//! The values inside options.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node's number in corosync.conf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one membership of Corosync: who leads it, and a number that only grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct RingId {
    /// Its leader.
    pub node: NodeId,
    /// Its number; 0 before there was any.
    pub seq: u64,
}

/// As Corosync's own tools write it.
impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.node.0, self.seq)
    }
}

/// What the server thinks of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsSupport {
    /// It has none.
    Unsupported,
    /// It leaves the choice to the client.
    Supported,
    /// It serves nobody without.
    Required,
}

/// How a vote is decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Algorithm {
    /// Everybody always gets the vote.
    Test,
    /// One half of a cluster that split evenly gets it.
    FfSplit,
    /// Last man standing for two nodes.
    TwoNodeLms,
    /// Last man standing.
    Lms,
}

impl Algorithm {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Test, Self::FfSplit, Self::TwoNodeLms, Self::Lms];

    /// The algorithm with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Test => 0,
            Self::FfSplit => 1,
            Self::TwoNodeLms => 2,
            Self::Lms => 3,
        }
    }
}

/// Which node's side wins when nothing else tells two halves apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TieBreaker {
    /// The lowest node id.
    Lowest,
    /// The highest node id.
    Highest,
    /// This one.
    Node(NodeId),
}

/// What a list of nodes is a list of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListKind {
    /// Configured nodes, sent once after INIT.
    InitialConfig,
    /// Configured nodes, after a reload.
    ChangedConfig,
    /// Members of the sender's partition.
    Membership,
    /// What the sender's Corosync decided.
    Quorum,
}

/// A node's state in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeState {
    /// It is in the partition.
    Member,
    /// It isn't.
    Dead,
    /// It leaves.
    Leaving,
}

/// An entry in a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// The node; never 0.
    pub node: NodeId,
    /// Its data center, if set (never 0).
    pub data_center: Option<u32>,
    /// Its state, if set.
    pub state: Option<NodeState>,
}

impl NodeInfo {
    /// A node of which no more is said.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self { node, data_center: None, state: None }
    }
}

/// A vote, as the client shall cast it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Vote {
    /// Cast it.
    Ack,
    /// Don't.
    Nack,
    /// Cast nothing and ask later.
    AskLater,
    /// Cast nothing until told.
    WaitForReply,
    /// Go on as before.
    NoChange,
}

/// As the original's tools write it.
impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::AskLater => "Ask later",
            Self::WaitForReply => "Wait for reply",
            Self::NoChange => "No change",
        })
    }
}

/// The result of a client's own checks; the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum Heuristics {
    /// They failed.
    Fail,
    /// There are none.
    #[default]
    Undefined,
    /// They passed.
    Pass,
}
