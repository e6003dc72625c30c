//! Resources: what an operator asks for, and where the cluster has put it.

mod failed;
mod shown;
mod spec;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{MemberName, ResourceName};

pub use failed::{Again, FailedMoves, MOVE_PAUSE, MOVE_TRIES};
pub use shown::Shown;
pub use spec::{Class, DRIVER_MAX, Driver, ResourceSpec, SpecError};

/// What an operator wants of a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requested {
    /// Keep it running.
    #[default]
    Started,
    /// Keep it stopped, but placed: the loss of its node moves it, stopped.
    Stopped,
    /// Stop it and leave it alone: nothing is fenced for it, and its error is over.
    Disabled,
    /// The cluster has nothing to do with it and doesn't look whether it runs.
    Ignored,
}

impl Requested {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Started, Self::Stopped, Self::Disabled, Self::Ignored];

    /// The request as operators write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Ignored => "ignored",
        }
    }
}

impl std::fmt::Display for Requested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for Requested {
    type Err = RequestedError;
    fn from_str(text: &str) -> Result<Self, RequestedError> {
        Self::ALL.into_iter().find(|requested| requested.word() == text).ok_or_else(|| RequestedError(text.to_owned()))
    }
}

/// A text that names no state to ask for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no state {0:?} to ask for: use started, stopped, disabled or ignored")]
pub struct RequestedError(pub String);

/// Why a resource leaves its node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveReason {
    /// It failed there more often than `max_restart` allows.
    Failed {
        /// What the node reported.
        why: String,
    },
    /// An operator asked for it.
    Asked,
    /// The node is being emptied for maintenance.
    Maintenance,
    /// The node is shutting down.
    Shutdown,
    /// A better node can have it, in the manager's words.
    Better {
        /// Why the other one is better.
        why: String,
    },
}

impl std::fmt::Display for MoveReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { why } | Self::Better { why } => f.write_str(why),
            Self::Asked => f.write_str("an operator asked for it"),
            Self::Maintenance => f.write_str("the node is in maintenance"),
            Self::Shutdown => f.write_str("the node is shutting down"),
        }
    }
}

/// Where a resource stands. Whoever owns it by this state may be running it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Just added, or managed again: every node is asked whether it runs there already.
    New,
    /// It belongs on `node`, which runs it or keeps it stopped, as requested.
    Placed {
        /// The owner.
        node: MemberName,
    },
    /// `node` must stop it and say so before anyone else may have it.
    Releasing {
        /// The owner until it has reported the stop.
        node: MemberName,
        /// Where it shall go, if that is settled.
        to: Option<MemberName>,
        /// Why.
        why: MoveReason,
    },
    /// It moves live. Both nodes own it until one reports it gone, or is fenced.
    Migrating {
        /// From where.
        from: MemberName,
        /// To where.
        to: MemberName,
        /// Why.
        why: MoveReason,
    },
    /// Proven to run nowhere: its owner was fenced, or has left in good order.
    Free {
        /// The node that had it.
        from: MemberName,
    },
    /// Given up until an operator disables it. The owner, if any, may still run it.
    Error {
        /// The owner.
        node: Option<MemberName>,
        /// What went wrong.
        why: String,
    },
    /// Nobody's business, as an operator asked.
    Ignored,
}

impl Phase {
    /// The node that the resource belongs to by this phase: while it moves live, the one that it moves from.
    #[must_use]
    pub fn owner(&self) -> Option<&MemberName> {
        match self {
            Self::Placed { node } | Self::Releasing { node, .. } | Self::Migrating { from: node, .. } => Some(node),
            Self::Error { node, .. } => node.as_ref(),
            Self::New | Self::Free { .. } | Self::Ignored => None,
        }
    }

    /// The node that may have it as well: the one that it moves to live.
    #[must_use]
    pub const fn second_owner(&self) -> Option<&MemberName> {
        match self {
            Self::Migrating { to, .. } => Some(to),
            Self::New
            | Self::Placed { .. }
            | Self::Releasing { .. }
            | Self::Free { .. }
            | Self::Error { .. }
            | Self::Ignored => None,
        }
    }

    /// Where it is bound for, if it is on a move whose end is settled.
    #[must_use]
    pub const fn bound_for(&self) -> Option<&MemberName> {
        match self {
            Self::Migrating { to, .. } | Self::Releasing { to: Some(to), .. } => Some(to),
            Self::Releasing { to: None, .. }
            | Self::New
            | Self::Placed { .. }
            | Self::Free { .. }
            | Self::Error { .. }
            | Self::Ignored => None,
        }
    }

    /// A move that an operator, maintenance, or a better node has asked for: so many may be under way at once.
    #[must_use]
    pub const fn is_planned_move(&self) -> bool {
        match self {
            Self::Releasing { why, .. } | Self::Migrating { why, .. } => match why {
                MoveReason::Failed { .. } => false,
                MoveReason::Asked | MoveReason::Maintenance | MoveReason::Shutdown | MoveReason::Better { .. } => true,
            },
            Self::New | Self::Placed { .. } | Self::Free { .. } | Self::Error { .. } | Self::Ignored => false,
        }
    }

    /// Whether a node may be running the resource by this phase.
    #[must_use]
    pub fn is_owned_by(&self, node: &MemberName) -> bool {
        self.owner() == Some(node) || self.second_owner() == Some(node)
    }
}

/// A resource as the replicated state holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resource {
    /// Its configuration.
    pub spec: ResourceSpec,
    /// What the operator wants.
    pub requested: Requested,
    /// Where it stands.
    pub phase: Phase,
    /// Counts every change of phase or request, over all resources: names one decision for good.
    pub generation: u64,
    /// The log index of that decision. A report counts only when its node had applied it.
    pub since: u64,
    /// Moves after failures so far.
    pub relocations: u32,
    /// Nodes on which it failed since an operator last set it, or since failures were last forgotten; with the
    /// proposer's wall clock, milliseconds since 1970.
    pub failed_on: BTreeMap<MemberName, u64>,
    /// Its owner may adopt it, but not start it before its turn has come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Somebody has set it to started, and nobody has looked yet whether it may start where it is placed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// The node that it left for maintenance or a shutdown, and returns to if failback says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<MemberName>,
    /// Where it was, or shall be, when it comes under management; until it is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<MemberName>,
    /// An operator's lock, with its reason: the cluster neither starts, stops nor moves it meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// Its live moves that failed in a row, if the last one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_failed: Option<FailedMoves>,
    /// It has come live from there, where it is proven to be gone, and its owner has to finish the move before anything
    /// else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<MemberName>,
}

impl Resource {
    /// Whether the loss of its node is to be answered by a fence: somebody wants it elsewhere then.
    #[must_use]
    pub const fn is_fenced_for(&self) -> bool {
        let wanted = match self.requested {
            Requested::Started | Requested::Stopped => true,
            Requested::Disabled | Requested::Ignored => false,
        };
        let recovered = match self.spec.class {
            Class::Protected | Class::BestEffort => true,
            Class::Unprotected => false,
        };
        let in_order = match self.phase {
            Phase::Error { .. } => false,
            Phase::New
            | Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }
            | Phase::Ignored => true,
        };
        wanted && recovered && in_order
    }
}

/// Resources by name.
pub type Resources = BTreeMap<ResourceName, Resource>;
