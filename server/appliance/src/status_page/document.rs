//! What there is to see, as data. Programs rely on it: keys are added and never change their meaning.

use serde::Serialize;
use tiebreaker_member::ask::{FenceStage, FencedCluster, QdeviceCluster};
use tiebreaker_member::core::Status;
use tiebreaker_pipeline::state::Role;

use super::machine::Machine;
use crate::http::{Answer, StatusCode};

/// The appliance at a glance. Times are milliseconds since 1970 by its clock, or spans.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Document {
    /// The appliance's name.
    pub(super) name: String,
    /// The program's version.
    pub(super) version: &'static str,
    /// When this was seen.
    pub(super) now_ms: u64,
    /// When the daemon was started.
    pub(super) since_ms: u64,
    /// How long that is ago, whatever was done to the clock since.
    pub(super) up_s: u64,
    /// Addresses of this machine, those that lead out of it.
    pub(super) addresses: Vec<String>,
    /// Its name on its own network, if it answers for one.
    pub(super) mdns_name: Option<String>,
    /// Where members are told to find it.
    pub(super) members_find_it_at: Vec<String>,
    /// Its own clusters.
    pub(super) clusters: Vec<ClusterSeen>,
    /// Corosync clusters whose nodes it fences.
    pub(super) corosync: Vec<FencedSeen>,
    /// Corosync clusters that get their vote here; absent where none is served.
    pub(super) qdevice: Option<Vec<QdeviceSeen>>,
    /// What process 1 of the image knows; absent without it.
    pub(super) machine: Option<Machine>,
    /// Seconds since the machine's start: `machine.clock.answered_at_s` counts from there.
    pub(super) boot_s: u64,
}

/// A cluster of Tiebreaker's own.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct ClusterSeen {
    /// Its name.
    pub(super) name: String,
    /// What its member on this appliance says; absent where it doesn't run or doesn't answer.
    pub(super) answer: Option<ClusterAnswer>,
}

/// What a member says of its cluster.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct ClusterAnswer {
    /// Who leads.
    pub(super) leader: Option<String>,
    /// Votes that are cast.
    pub(super) votes_cast: usize,
    /// Votes there are.
    pub(super) votes: usize,
    /// Members.
    pub(super) members: Vec<MemberSeen>,
    /// Whether an operator holds the switching of power.
    pub(super) power_held: bool,
    /// Fences that are not over.
    pub(super) fences_open: usize,
    /// How many things somebody should look at; `tiebreaker status` tells which.
    pub(super) alarms: usize,
}

/// A member of a cluster.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct MemberSeen {
    /// Its name.
    pub(super) name: String,
    /// `appliance` or `node`.
    pub(super) part: &'static str,
    /// Whether it has a vote.
    pub(super) votes: bool,
    /// In one word, as `tiebreaker status` has it.
    pub(super) state: String,
}

/// A Corosync cluster whose nodes are fenced from here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FencedSeen {
    /// Its name.
    pub(super) name: String,
    /// Whether an operator holds the switching of power.
    pub(super) power_held: bool,
    /// Fences that are not over.
    pub(super) fences_open: usize,
    /// Its nodes.
    pub(super) nodes: Vec<FencedNodeSeen>,
}

/// One of its nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FencedNodeSeen {
    /// Its name.
    pub(super) name: String,
    /// Whether it could be fenced.
    pub(super) proven: bool,
}

/// A Corosync cluster that gets its vote here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct QdeviceSeen {
    /// Its name.
    pub(super) name: String,
    /// How its vote is decided.
    pub(super) algorithm: String,
    /// Its connected nodes.
    pub(super) nodes: Vec<QdeviceNodeSeen>,
}

/// One of its nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct QdeviceNodeSeen {
    /// Its number.
    pub(super) node: u32,
    /// `ACK` or `NACK`; absent before the first.
    pub(super) vote: Option<String>,
    /// Why it has that, or why it waits.
    pub(super) why: Option<String>,
    /// Since when.
    pub(super) since_ms: Option<u64>,
    /// Whether its Corosync says that it has quorum.
    pub(super) quorate: Option<bool>,
}

impl Document {
    /// It as JSON.
    pub(super) fn answer(&self) -> Answer {
        let mut body = serde_json::to_string(self).expect("every key is text, and every number is finite");
        body.push('\n');
        Answer { status: StatusCode::OK, kind: "application/json", body }
    }
}

impl ClusterAnswer {
    /// What may be told of a status.
    pub(super) fn of(status: &Status) -> Self {
        let members = status.members.iter().map(|member| MemberSeen {
            name: member.name.to_string(),
            part: match member.role {
                Role::Appliance => "appliance",
                Role::Node => "node",
            },
            votes: member.voter,
            state: member.state.clone(),
        });
        Self {
            leader: status.leader.as_ref().map(ToString::to_string),
            votes_cast: status.votes.0,
            votes: status.votes.1,
            members: members.collect(),
            power_held: status.settings.hold.is_some(),
            fences_open: status.fences.iter().filter(|fence| fence.fence.is_open()).count(),
            alarms: status.alarms.len(),
        }
    }

    /// Whether somebody leads, and enough hear each other.
    pub(super) fn has_majority(&self) -> bool {
        self.leader.is_some() && self.votes_cast * 2 > self.votes
    }
}

impl From<&FencedCluster> for FencedSeen {
    fn from(cluster: &FencedCluster) -> Self {
        let open = |stage: FenceStage| match stage {
            FenceStage::Cutting | FenceStage::Restoring => true,
            FenceStage::Over => false,
        };
        let fences = cluster.nodes.iter().filter_map(|node| node.fence.as_ref());
        Self {
            name: cluster.name.clone(),
            power_held: cluster.hold.is_some(),
            fences_open: fences.filter(|fence| open(fence.stage)).count(),
            nodes: cluster
                .nodes
                .iter()
                .map(|node| FencedNodeSeen { name: node.name.clone(), proven: node.proven })
                .collect(),
        }
    }
}

impl From<QdeviceCluster> for QdeviceSeen {
    fn from(cluster: QdeviceCluster) -> Self {
        let nodes = cluster.nodes.into_iter().map(|node| QdeviceNodeSeen {
            node: node.node,
            vote: node.vote,
            why: node.waits.or(node.why),
            since_ms: node.since_ms,
            quorate: node.quorate,
        });
        Self { name: cluster.name, algorithm: cluster.algorithm, nodes: nodes.collect() }
    }
}
