//! What one can see: a copy of the state, for people and their tools.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, Member},
    id::ClusterName,
    reason::Reason,
    wire::{Algorithm, Heuristics, NodeId, RingId, TieBreaker, Vote},
};

/// A cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterView {
    /// Its name.
    pub name: ClusterName,
    /// How its vote is decided.
    pub algorithm: Algorithm,
    /// Who wins a tie.
    pub tie_breaker: TieBreaker,
    /// Whether all its nodes want a tie to go to the side that had the vote before.
    pub keep_active: bool,
    /// Its connected nodes, by number.
    pub members: Vec<MemberView>,
}

/// A connected node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The time between its echoes.
    pub heartbeat: Duration,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether its certificate was checked.
    pub verified: bool,
    /// The version of its corosync.conf.
    pub config_version: Option<u64>,
    /// The nodes that it has configured.
    pub configured: Vec<NodeId>,
    /// The nodes that it sees.
    pub membership: Vec<NodeId>,
    /// The membership's name.
    pub ring: RingId,
    /// Whether its Corosync says that it has quorum.
    pub quorate: Option<bool>,
    /// The latest result of its checks.
    pub heuristics: Heuristics,
    /// The result at the last membership change.
    pub membership_heuristics: Heuristics,
    /// The result of the last periodic check.
    pub regular_heuristics: Heuristics,
    /// The vote that was sent last.
    pub last_vote: Option<Vote>,
    /// ACK or NACK, whichever was sent last, why, and since when.
    pub standing: Option<(Vote, Reason, Instant)>,
    /// Why it waits for another.
    pub waiting: Option<Reason>,
}

impl ClusterView {
    pub(crate) fn new(name: &ClusterName, cluster: &Cluster, tls: impl Fn(&Member) -> (bool, bool)) -> Self {
        let members = cluster.members.iter().map(|(node, member)| {
            let (tls, verified) = tls(member);
            MemberView {
                node: *node,
                address: member.address,
                heartbeat: member.heartbeat,
                tls,
                verified,
                config_version: member.config_version,
                configured: member.config.as_slice().to_vec(),
                membership: member.membership.as_slice().to_vec(),
                ring: member.ring,
                quorate: member.quorate,
                heuristics: member.heuristics,
                membership_heuristics: member.membership_heuristics,
                regular_heuristics: member.regular_heuristics,
                last_vote: member.last_vote,
                standing: member.standing.clone(),
                waiting: member.waiting.clone(),
            }
        });
        Self {
            name: name.clone(),
            algorithm: cluster.algorithm,
            tie_breaker: cluster.tie_breaker,
            keep_active: cluster.members.values().all(|member| member.keep_active),
            members: members.collect(),
        }
    }
}
