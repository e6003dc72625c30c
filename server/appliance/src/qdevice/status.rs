//! What one can see of the votes, for programs and for people.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tiebreaker_member::ask::{QdeviceCluster, QdeviceNode};
use tiebreaker_qnetd::wire::{Algorithm, NodeId, TieBreaker};
use tiebreaker_qnetd::{ClusterView, MemberView};

/// A cluster as it is told through the control socket.
pub fn cluster(view: &ClusterView, now: Instant) -> QdeviceCluster {
    let algorithm = match view.algorithm {
        Algorithm::Test => "test",
        Algorithm::FfSplit => "ffsplit",
        Algorithm::TwoNodeLms => "2nodelms",
        Algorithm::Lms => "lms",
    };
    let tie_breaker = match view.tie_breaker {
        TieBreaker::Lowest => "lowest node id".to_owned(),
        TieBreaker::Highest => "highest node id".to_owned(),
        TieBreaker::Node(node) => format!("node {node}"),
    };
    QdeviceCluster {
        name: view.name.to_string(),
        algorithm: algorithm.into(),
        tie_breaker,
        keep_active: view.keep_active,
        nodes: view.members.iter().map(|member| node(member, now)).collect(),
    }
}

fn node(member: &MemberView, now: Instant) -> QdeviceNode {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let wall = |since: Instant| {
        let then = SystemTime::now().checked_sub(now.saturating_duration_since(since))?;
        u64::try_from(then.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    };
    let standing = member.standing.as_ref();
    QdeviceNode {
        node: member.node.0,
        address: member.address.to_string(),
        tls: member.tls,
        ring: member.ring.to_string(),
        sees: numbers(&member.membership),
        configured: numbers(&member.configured),
        quorate: member.quorate,
        vote: standing.map(|(vote, _, _)| vote.to_string()),
        why: standing.map(|(_, reason, _)| reason.to_string()),
        since_ms: standing.and_then(|(_, _, since)| wall(*since)),
        waits: member.waiting.as_ref().map(ToString::to_string),
    }
}

/// The clusters for a person; `now` in seconds since 1970.
pub fn table(clusters: &[QdeviceCluster], now: u64) -> String {
    let mut out = String::new();
    if clusters.is_empty() {
        out.push_str("No node is connected.\n");
    }
    for cluster in clusters {
        let keeps = if cluster.keep_active { ", but who had the vote keeps it" } else { "" };
        let _ = writeln!(
            out,
            "cluster {}: {}, a tie goes to the {}{keeps}",
            cluster.name, cluster.algorithm, cluster.tie_breaker
        );
        for node in &cluster.nodes {
            let tls = if node.tls { "TLS" } else { "plain text" };
            let sees: Vec<String> = node.sees.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                out,
                "  node {} from {}, {tls}: sees {} in ring {}",
                node.node,
                node.address,
                sees.join(","),
                node.ring
            );
            if let (Some(vote), Some(why), Some(since)) = (&node.vote, &node.why, node.since_ms) {
                let _ = writeln!(out, "    {vote} for {} s: {why}", now.saturating_sub(since / 1000));
            }
            if let Some(waits) = &node.waits {
                let _ = writeln!(out, "    waits: {waits}");
            }
        }
    }
    out
}
