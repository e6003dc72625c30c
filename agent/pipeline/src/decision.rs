//! The timeline: what the cluster decided, in order, for people who ask "what happened at three in the morning?".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fence::{Evidence, FenceId, FenceReason};
use crate::name::{MemberName, ResourceName};
use crate::profile::Profile;
use crate::resource::{MoveReason, Requested};

/// One line of the timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// The log index of the command that caused it.
    pub index: u64,
    /// The proposer's wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What was decided.
    pub decision: Decision,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Decision {
    /// A member came.
    Joined {
        /// Who.
        name: MemberName,
    },
    /// A member left.
    Removed {
        /// Who.
        name: MemberName,
    },
    /// An operator's key was admitted.
    OperatorAdded {
        /// Who.
        name: String,
    },
    /// An operator's key was refused from then on.
    OperatorRemoved {
        /// Who.
        name: String,
    },
    /// Who votes has changed.
    VotersChanged {
        /// The voters' names.
        voters: Vec<String>,
    },
    /// A life began.
    Admitted {
        /// Whose.
        node: MemberName,
        /// Which start of the agent.
        incarnation: u64,
        /// The boot was another one before.
        new_boot: bool,
    },
    /// A resource came under protection.
    ResourceAdded {
        /// Which.
        resource: ResourceName,
    },
    /// A resource was set.
    ResourceSet {
        /// Which.
        resource: ResourceName,
        /// What is wanted of it now.
        requested: Requested,
    },
    /// A resource left protection.
    ResourceRemoved {
        /// Which.
        resource: ResourceName,
    },
    /// A resource has to leave its node.
    Released {
        /// Which.
        resource: ResourceName,
        /// From where.
        node: MemberName,
        /// Why.
        why: MoveReason,
    },
    /// A resource got an owner.
    Assigned {
        /// Which.
        resource: ResourceName,
        /// To whom.
        node: MemberName,
        /// From a node that was fenced.
        recovered_from: Option<MemberName>,
    },
    /// A resource was given up.
    GivenUp {
        /// Which.
        resource: ResourceName,
        /// Why.
        why: String,
    },
    /// A fence began.
    FenceWanted {
        /// Its number.
        id: FenceId,
        /// Whom.
        node: MemberName,
        /// Why.
        reason: FenceReason,
    },
    /// A fence is proven.
    Fenced {
        /// Its number.
        id: FenceId,
        /// Whom.
        node: MemberName,
        /// How.
        evidence: Evidence,
    },
    /// A device failed.
    FenceFailed {
        /// The fence's number.
        id: FenceId,
        /// Whom.
        node: MemberName,
        /// What happened.
        why: String,
    },
    /// A fence is over; the node may come back.
    FenceClosed {
        /// Its number.
        id: FenceId,
        /// Whom.
        node: MemberName,
    },
    /// The power-fencing devices of a node changed.
    Devices {
        /// Whose.
        node: MemberName,
        /// How many are proven.
        proven: usize,
        /// Of how many.
        of: usize,
    },
    /// Another profile.
    ProfileSet {
        /// Which.
        profile: Profile,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { name } => write!(f, "{name} joined"),
            Self::Removed { name } => write!(f, "{name} was removed"),
            Self::OperatorAdded { name } => write!(f, "operator {name} was admitted"),
            Self::OperatorRemoved { name } => write!(f, "operator {name} was removed"),
            Self::VotersChanged { voters } => write!(f, "the voters are {}", voters.join(", ")),
            Self::Admitted { node, incarnation, new_boot } => {
                let boot = if *new_boot { "a new boot" } else { "the same boot" };
                write!(f, "{node} was admitted as incarnation {incarnation}, {boot}")
            }
            Self::ResourceAdded { resource } => write!(f, "{resource} came under protection"),
            Self::ResourceSet { resource, requested } => match requested {
                Requested::Started => write!(f, "{resource} was set to started"),
                Requested::Stopped => write!(f, "{resource} was set to stopped"),
            },
            Self::ResourceRemoved { resource } => write!(f, "{resource} left protection"),
            Self::Released { resource, node, why } => match why {
                MoveReason::Failed { why } => write!(f, "{resource} has to leave {node}: {why}"),
                MoveReason::Asked => write!(f, "{resource} has to leave {node}: an operator asked for it"),
            },
            Self::Assigned { resource, node, recovered_from } => match recovered_from {
                Some(from) => write!(f, "{resource} is placed on {node}, recovered from {from}"),
                None => write!(f, "{resource} is placed on {node}"),
            },
            Self::GivenUp { resource, why } => write!(f, "{resource} was given up: {why}"),
            Self::FenceWanted { id, node, reason } => write!(f, "fence {id}: {node} shall be fenced: {reason}"),
            Self::Fenced { id, node, evidence } => write!(f, "fence {id}: {node} is fenced: {evidence}"),
            Self::FenceFailed { id, node, why } => write!(f, "fence {id}: a device of {node} failed: {why}"),
            Self::FenceClosed { id, node } => write!(f, "fence {id}: closed, {node} may come back"),
            Self::Devices { node, proven, of } => write!(f, "{proven} of {of} power devices of {node} are proven"),
            Self::ProfileSet { profile } => write!(f, "the profile is {profile}"),
        }
    }
}
