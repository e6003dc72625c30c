//! Who holds a cluster's vote, as it is kept on disk: a server that crashed knows afterwards who may still cast it.
//!
//! Who is cut off from a server learns of its end late, and casts its vote until then. Another process would otherwise
//! take those that come to it for all there are.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{id::ClusterName, wire::NodeId};

/// The partition that was given the vote last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Its nodes, sorted.
    pub nodes: Vec<NodeId>,
    /// Those of its nodes that the vote may have gone on to since, sorted: who was still connected when another left. None, if it
    /// can't have.
    #[serde(default)]
    pub heirs: Vec<NodeId>,
    /// For how long at most one of them casts the vote of a server that fell silent.
    pub believes: Duration,
}

impl Holder {
    /// Whether whoever reads this after a crash reckons with another one's partition, too: then nobody has to wait until the other
    /// is kept.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.partitions().any(|nodes| nodes == other.nodes) && self.believes >= other.believes
    }

    /// The partitions that may have the vote: one, or two.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &[NodeId]> {
        let heirs = Some(self.heirs.as_slice()).filter(|heirs| !heirs.is_empty());
        [self.nodes.as_slice()].into_iter().chain(heirs)
    }
}

/// What the processes before this one have given to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// The last holder of each cluster's vote.
    pub holders: BTreeMap<ClusterName, Holder>,
    /// Whether there are no others. If not, anybody may hold the vote of a cluster that isn't named.
    pub whole: bool,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { holders: BTreeMap::new(), whole: true }
    }
}

/// How long a client with this heartbeat interval casts its vote after the server answered it last: the next echo is sent
/// one interval after the one that was answered, and missed one interval later.
pub(crate) fn believes(heartbeat: Duration) -> Duration {
    heartbeat.saturating_mul(2) + LATE
}

/// A client on a busy machine looks at its timers late.
const LATE: Duration = Duration::from_secs(1);
