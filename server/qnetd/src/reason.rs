//! Why a client has the vote that it has: data, so that a person can be told.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::NodeId;

/// Why a vote was given, refused or is still awaited.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// The algorithm `test` says yes to everybody.
    AlwaysYes,
    /// The client has not yet told which nodes are configured, or which it sees.
    ListsMissing,
    /// The clients' views don't fit together yet.
    Unsettled(Unsettled),
    /// The client is in the partition that has the vote.
    Chosen {
        /// The partition's nodes.
        partition: Vec<NodeId>,
        /// What decided.
        by: ChosenBy,
    },
    /// The vote went to another partition.
    OtherChosen {
        /// That partition's nodes.
        partition: Vec<NodeId>,
        /// What decided.
        by: ChosenBy,
    },
    /// No partition can have the vote: none is large enough, or none is preferred.
    NoneChosen,
    /// The client has won; these must first confirm that they have let go of their vote, or be gone.
    AwaitingNack {
        /// They.
        from: Vec<NodeId>,
    },
    /// The client is new, and nodes that it doesn't see hold the vote already.
    Newcomer {
        /// One of them.
        holder: NodeId,
    },
    /// Others had the vote when the server ended before its last start, and may cast it until they have missed the server.
    FormerHolder {
        /// Those of them who have not come back; nobody knows who they are if there are none.
        nodes: Vec<NodeId>,
    },
    /// Others had the vote and were lost without a farewell: they may cast it until they have missed the server.
    LostHolder {
        /// Those of them who have not come back.
        nodes: Vec<NodeId>,
    },
    /// All connected nodes see each other: Corosync itself decides.
    OnePartition,
    /// Both nodes of two see each other.
    BothMembers,
    /// No other node is connected.
    LastOne,
}

/// What keeps the clients' views from fitting together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unsettled {
    /// Two clients know different configured nodes.
    Config {
        /// One client.
        one: NodeId,
        /// The other.
        other: NodeId,
    },
    /// A client counts another as a member that is in another ring.
    Ring {
        /// The client.
        one: NodeId,
        /// The other.
        other: NodeId,
    },
    /// Two clients share a ring and differ about its members.
    Members {
        /// The client.
        one: NodeId,
        /// The other.
        other: NodeId,
    },
    /// The client has not told its ring.
    NoRing,
}

/// What decided between partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChosenBy {
    /// It holds more than half of the configured nodes.
    Majority,
    /// No other partition was there to compare with.
    Alone,
    /// More connected nodes and passed checks, less failed ones.
    Score,
    /// More connected nodes.
    Size,
    /// It had the vote before.
    KeptActive,
    /// It holds the preferred node.
    TieBreaker,
    /// The others have only just come.
    OthersNew,
}

struct List<'n>(&'n [NodeId]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no node"),
            [one] => write!(f, "node {one}"),
            [first, rest @ ..] => {
                write!(f, "nodes {first}")?;
                rest.iter().try_for_each(|node| write!(f, ", {node}"))
            }
        }
    }
}

/// A clause that goes after "ACK: " or "NACK: ".
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlwaysYes => f.write_str("the algorithm gives it to everybody"),
            Self::ListsMissing => f.write_str("the node has not told yet which nodes are configured and which it sees"),
            Self::Unsettled(why) => why.fmt(f),
            Self::Chosen { partition, by } => write!(f, "the partition of {} has the vote: {by}", List(partition)),
            Self::OtherChosen { partition, by } => {
                write!(f, "the other partition, {}, has the vote: {by}", List(partition))
            }
            Self::NoneChosen => f.write_str("no partition can have the vote"),
            Self::AwaitingNack { from } => {
                write!(f, "won, but {} must first confirm the loss of its vote or be gone", List(from))
            }
            Self::Newcomer { holder } => write!(f, "the node is new and node {holder}, which it doesn't see, has it"),
            Self::FormerHolder { nodes } if nodes.is_empty() => {
                f.write_str("somebody may still cast the vote that was given before the server's last start")
            }
            Self::FormerHolder { nodes } => {
                write!(f, "{} had the vote before the server's last start and may still cast it", List(nodes))
            }
            Self::LostHolder { nodes } => {
                write!(f, "{} had the vote, was lost without a farewell and may still cast it", List(nodes))
            }
            Self::OnePartition => f.write_str("all connected nodes see each other"),
            Self::BothMembers => f.write_str("both nodes see each other"),
            Self::LastOne => f.write_str("no other node is connected"),
        }
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { one, other } => write!(f, "nodes {one} and {other} have different configurations"),
            Self::Ring { one, other } => write!(f, "node {one} counts on node {other}, which is in another ring"),
            Self::Members { one, other } => write!(f, "nodes {one} and {other} differ about who is a member"),
            Self::NoRing => f.write_str("the node has not told its ring"),
        }
    }
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Majority => "it is the majority",
            Self::Alone => "no other is connected",
            Self::Score => "more connected nodes and passed checks",
            Self::Size => "more connected nodes",
            Self::KeptActive => "it had the vote before",
            Self::TieBreaker => "tie-breaker",
            Self::OthersNew => "the others are new",
        })
    }
}
