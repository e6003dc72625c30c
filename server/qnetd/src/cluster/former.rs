//! After a crash: whoever held the vote then, and has not come back, may still cast it.
//!
//! Of a partition one node of which has moved on, nothing is to be feared: Corosync's membership ended for the others,
//! too, and with it their vote. So only those wait who have nothing to do with the former holders, and only until these
//! have missed the server, or come.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Cluster, Output, member::NodeList};
use crate::{
    holder::{Holder, believes},
    reason::Reason,
    wire::{Algorithm, NodeId},
};

/// Who they were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FormerHolder {
    /// The partition; unknown if what was kept of it is damaged.
    nodes: Option<Vec<NodeId>>,
    /// Those who have come since: who connects anew casts no vote of the old connection.
    back: BTreeSet<NodeId>,
}

/// They, and until when they may cast.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    pub(crate) holder: FormerHolder,
    pub(crate) until: Instant,
}

impl Former {
    /// A holder that is known; `since` is when this process began.
    pub(crate) fn known(holder: &Holder, since: Instant) -> Self {
        let until = since + holder.believes;
        Self { holder: FormerHolder { nodes: Some(holder.nodes.clone()), back: BTreeSet::new() }, until }
    }

    /// Somebody may have held the vote. How long that one believes is judged by those who come.
    pub(crate) fn unknown(since: Instant) -> Self {
        Self { holder: FormerHolder { nodes: None, back: BTreeSet::new() }, until: since }
    }

    fn includes(&self, node: NodeId) -> bool {
        self.holder.nodes.as_ref().is_none_or(|nodes| nodes.contains(&node))
    }

    /// Those who may cast while a partition must not; `None` if it need not wait.
    fn against(&self, partition: &NodeList, configured: &NodeList) -> Option<Vec<NodeId>> {
        let away = |nodes: &[NodeId]| -> Vec<NodeId> {
            let away = nodes.iter().filter(|node| !self.holder.back.contains(node) && !partition.contains(**node));
            away.copied().collect()
        };
        match &self.holder.nodes {
            Some(nodes) if nodes.iter().any(|node| partition.contains(*node)) => None,
            Some(nodes) => Some(away(nodes)).filter(|away| !away.is_empty()),
            None if configured.is_empty() => Some(Vec::new()),
            None => Some(away(configured.as_slice())).filter(|away| !away.is_empty()),
        }
    }
}

impl Cluster {
    /// A node has come, with this heartbeat interval; `since` is when the process began. Tells whether it may have cast a
    /// vote until now.
    pub(super) fn came_back(&mut self, node: NodeId, heartbeat: Duration, since: Option<Instant>) -> bool {
        let Some(former) = &mut self.former else { return false };
        if let (None, Some(since)) = (&former.holder.nodes, since) {
            former.until = former.until.max(since + believes(heartbeat));
        }
        let held = former.includes(node);
        former.holder.back.insert(node);
        held
    }

    /// Why a node must not have the vote that it would get; it is judged again when the time is over.
    pub(super) fn former_holder_against(&mut self, now: Instant, node: NodeId) -> Option<Reason> {
        let former = self.former.as_ref()?;
        let member = self.members.get(&node)?;
        let left = former.until.saturating_duration_since(now);
        if left.is_zero() {
            self.former = None;
            return None;
        }
        let nodes = former.against(&member.membership, &member.config)?;
        self.outputs.push(Output::Timer { client: member.client, after: Some(left) });
        Some(Reason::FormerHolder { nodes })
    }

    /// A node is about to be given the vote: that is to be kept before. From then on this process's own votes count, and
    /// no former one's.
    pub(super) fn hold(&mut self, node: NodeId) {
        if self.algorithm == Algorithm::Test {
            return;
        }
        self.former = None;
        let Some(member) = self.members.get(&node) else { return };
        let mut nodes = member.membership.sorted().to_vec();
        nodes.dedup();
        if let Err(place) = nodes.binary_search(&node) {
            nodes.insert(place, node);
        }
        let there = nodes.iter().filter_map(|node| self.members.get(node));
        let mut longest = there.map(|member| believes(member.heartbeat)).max().unwrap_or_default();
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.nodes == nodes) {
            longest = longest.max(holder.believes);
        }
        let holder = Some(Holder { nodes, believes: longest });
        if holder != self.holder {
            self.holder.clone_from(&holder);
            self.outputs.extend(holder.map(Output::Hold));
        }
    }
}
