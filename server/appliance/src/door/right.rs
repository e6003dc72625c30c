//! Who may have whom fenced: the half of a Corosync cluster that has the vote of our QDevice service, whoever is not in that
//! half. Pure: what the service shows goes in, the answer and its words come out.

use std::collections::BTreeMap;

use tiebreaker_pipeline::name::MemberName;
use tiebreaker_qnetd::wire::{Algorithm, NodeId, Vote};
use tiebreaker_qnetd::{ClusterView, MemberView, Reason};

/// Whether a node may have another one fenced now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Right {
    /// It may, on behalf of these nodes, itself among them.
    Granted {
        /// They.
        partition: Vec<NodeId>,
    },
    /// Not while the other one is a member of its own partition: whom Corosync sees is not fenced.
    Member {
        /// In words.
        why: String,
    },
    /// That isn't decided yet.
    Open {
        /// What is waited for.
        why: String,
    },
    /// It may not.
    Refused {
        /// Why, and who has the vote.
        why: String,
    },
}

/// The nodes of a cluster, by the names that its configuration gives them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Names(pub(super) BTreeMap<MemberName, NodeId>);

impl Names {
    /// A node, for people.
    fn of(&self, node: NodeId) -> String {
        match self.0.iter().find(|(_, id)| **id == node) {
            Some((name, _)) => name.to_string(),
            None => format!("node {node}"),
        }
    }

    fn list(&self, nodes: &[NodeId]) -> String {
        if nodes.is_empty() {
            return "nobody".into();
        }
        nodes.iter().map(|node| self.of(*node)).collect::<Vec<_>>().join(", ")
    }

    /// The names of these nodes. Who has none is left out.
    pub(super) fn names(&self, nodes: &[NodeId]) -> Vec<MemberName> {
        self.0.iter().filter(|(_, id)| nodes.contains(id)).map(|(name, _)| name.clone()).collect()
    }
}

/// Whether `asker` may have `target` fenced, by what the service shows of their cluster (`None`: nothing, no node of it is
/// connected).
///
/// What counts is the vote of *this* partition. An ACK that `asker` was given while it still saw `target` says nothing, and the
/// service tells a new one only when those outside have let go of theirs.
pub(super) fn right(cluster: Option<&ClusterView>, asker: NodeId, target: NodeId, names: &Names) -> Right {
    let open = |why: String| Right::Open { why };
    let refused = |why: String| Right::Refused { why };
    let Some(cluster) = cluster else {
        return open("no node of the cluster is connected to the QDevice service".into());
    };
    match cluster.algorithm {
        Algorithm::FfSplit | Algorithm::Lms | Algorithm::TwoNodeLms => {}
        Algorithm::Test => {
            return refused(
                "its QDevice has the algorithm test, which says yes to every half: use ffsplit or lms".into(),
            );
        }
    }
    let Some(own) = cluster.members.iter().find(|member| member.node == asker) else {
        let why = format!("{} is not connected to the QDevice service", names.of(asker));
        return match holder(cluster, asker, target) {
            Some(holder) => refused(format!("{why}; {}", has_vote(holder, names))),
            None => open(why),
        };
    };
    if let Some(why) = &own.waiting {
        return open(format!("{} waits for its vote: {why}", names.of(asker)));
    }
    let reason = match &own.standing {
        Some((Vote::Ack, reason, _)) => reason,
        Some((_, reason, _)) => {
            let why = format!("{} has no vote ({reason})", names.of(asker));
            return match holder(cluster, asker, target) {
                Some(holder) => refused(format!("{why}; {}", has_vote(holder, names))),
                None => refused(why),
            };
        }
        None => return open(format!("{} was given no vote yet", names.of(asker))),
    };
    if own.membership.contains(&target) {
        let (target, asker) = (names.of(target), names.of(asker));
        return Right::Member {
            why: format!("{target} is a member of the partition of {asker}: whom Corosync sees is not fenced"),
        };
    }
    let fits = match reason {
        Reason::Chosen { partition, .. } => {
            let (mut chosen, mut members) = (partition.clone(), own.membership.clone());
            chosen.sort_unstable();
            members.sort_unstable();
            chosen == members || (cluster.algorithm != Algorithm::FfSplit && !chosen.contains(&target))
        }
        Reason::OnePartition | Reason::LastOne => true,
        Reason::AlwaysYes
        | Reason::ListsMissing
        | Reason::Unsettled(_)
        | Reason::OtherChosen { .. }
        | Reason::NoneChosen
        | Reason::AwaitingNack { .. }
        | Reason::Newcomer { .. }
        | Reason::FormerHolder { .. }
        | Reason::LostHolder { .. }
        | Reason::BothMembers => false,
    };
    if !fits {
        return open(format!("the vote of {} is of an earlier partition ({reason})", names.of(asker)));
    }
    if let Some(other) = holder(cluster, asker, target) {
        return open(format!("{} has not let go of its vote yet", names.of(other.node)));
    }
    Right::Granted { partition: own.membership.clone() }
}

/// A node outside of the asker's partition that may cast a vote: the target, or another that isn't seen.
fn holder(cluster: &ClusterView, asker: NodeId, target: NodeId) -> Option<&MemberView> {
    let seen = cluster.members.iter().find(|member| member.node == asker).map(|member| &member.membership[..]);
    let outside = |member: &&MemberView| {
        member.node != asker && (member.node == target || !seen.is_some_and(|seen| seen.contains(&member.node)))
    };
    let holds = |member: &&MemberView| matches!(member.standing, Some((Vote::Ack, ..)));
    cluster.members.iter().filter(outside).find(holds)
}

fn has_vote(holder: &MemberView, names: &Names) -> String {
    match &holder.standing {
        Some((_, reason, _)) if holder.waiting.is_none() => {
            format!("the half of {} has it ({reason})", names.list(&holder.membership))
        }
        Some(_) | None => format!("{} had it last", names.of(holder.node)),
    }
}

#[cfg(test)]
mod tests;
