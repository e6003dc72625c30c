//! Nodes that may cast a vote although their connection is no more: they don't know that yet, or not their Corosync.
//!
//! That is so after a crash of the server, which closes connections without a word to who is cut off, and of a holder that
//! fell silent: the server gives it up before it gives the server up. Nobody outside of such a node's partition gets the
//! vote before the node is back or has let go by itself. Of a partition one node of which has moved on, nothing is to be
//! feared: Corosync's membership ended for the others, too, and with it their vote.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Cluster, Output,
    member::{Holds, Member, NodeList, Pending},
};
use crate::{
    holder::{Holder, believes},
    reason::Reason,
    wire::{Algorithm, NodeId, Vote},
};

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Caster {
    /// The partition that it was given the vote with, sorted; each that it may have been.
    partitions: Vec<Vec<NodeId>>,
    /// When it has let go by itself.
    until: Instant,
    /// Whether a process before this one gave it the vote.
    before: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unheard {
    casters: BTreeMap<NodeId, Caster>,
    /// After a crash of which nothing is known it may be any node but those that have come since.
    anybody: Option<(BTreeSet<NodeId>, Instant)>,
}

/// The same on its way to the next process, with what is left of times.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedUnheard {
    casters: Vec<(NodeId, Vec<Vec<NodeId>>, Duration, bool)>,
    anybody: Option<(BTreeSet<NodeId>, Duration)>,
}

/// Why a partition must wait.
struct Against {
    nodes: Vec<NodeId>,
    until: Instant,
    before: bool,
}

impl Unheard {
    /// Those to whom a process before this one gave the vote; `since` is when this process began.
    pub(crate) fn known(holder: &Holder, since: Instant) -> Self {
        let until = since + holder.believes;
        let caster = |node: &NodeId| {
            let partitions = holder.partitions().filter(|nodes| nodes.contains(node)).map(<[_]>::to_vec).collect();
            (*node, Caster { partitions, until, before: true })
        };
        Self { casters: holder.nodes.iter().map(caster).collect(), anybody: None }
    }

    /// Somebody may have held the vote. How long that one believes is judged by those who come.
    pub(crate) fn unknown(since: Instant) -> Self {
        Self { casters: BTreeMap::new(), anybody: Some((BTreeSet::new(), since)) }
    }

    pub(crate) fn save(&self, now: Instant) -> SavedUnheard {
        let left = |until: &Instant| until.saturating_duration_since(now);
        let casters = self.casters.iter();
        let caster =
            |(node, caster): (&NodeId, &Caster)| (*node, caster.partitions.clone(), left(&caster.until), caster.before);
        let anybody = self.anybody.as_ref().map(|(back, until)| (back.clone(), left(until)));
        SavedUnheard { casters: casters.map(caster).collect(), anybody }
    }

    /// Goes on with what another process knew.
    pub(crate) fn restore(saved: SavedUnheard, now: Instant) -> Self {
        let caster = |(node, partitions, left, before)| (node, Caster { partitions, until: now + left, before });
        let anybody = saved.anybody.map(|(back, left)| (back, now + left));
        Self { casters: saved.casters.into_iter().map(caster).collect(), anybody }
    }

    /// When there are none any more.
    pub(crate) fn until(&self) -> Option<Instant> {
        let anybody = self.anybody.as_ref().map(|(_, until)| *until);
        self.casters.values().map(|caster| caster.until).chain(anybody).max()
    }

    /// A node has come: who connects anew casts no vote of the old connection. Tells whether it may have cast one until now.
    fn came_back(&mut self, node: NodeId, heartbeat: Duration, since: Option<Instant>) -> bool {
        let known = self.casters.remove(&node).is_some();
        let Some((back, until)) = &mut self.anybody else { return known };
        if let Some(since) = since {
            *until = (*until).max(since + believes(heartbeat));
        }
        back.insert(node) || known
    }

    /// Those who may cast while a partition must not; `None` if it need not wait.
    fn against(&self, partition: &NodeList, configured: &NodeList, now: Instant) -> Option<Against> {
        let meets = |nodes: &Vec<NodeId>| nodes.iter().any(|node| partition.contains(*node));
        let moved_on = |caster: &Caster| caster.partitions.iter().all(meets);
        let mut against: Option<Against> = None;
        for (node, caster) in &self.casters {
            if partition.contains(*node) || moved_on(caster) || caster.until <= now {
                continue;
            }
            let all = against.get_or_insert(Against { nodes: Vec::new(), until: caster.until, before: true });
            all.nodes.push(*node);
            all.until = all.until.max(caster.until);
            all.before &= caster.before;
        }
        if let Some((back, until)) = self.anybody.as_ref().filter(|(_, until)| *until > now) {
            let away = configured.as_slice().iter();
            let mut away = away.filter(|node| !back.contains(node) && !partition.contains(**node)).peekable();
            if configured.is_empty() || away.peek().is_some() {
                let all = against.get_or_insert(Against { nodes: Vec::new(), until: *until, before: true });
                all.nodes.extend(away);
                all.until = all.until.max(*until);
            }
        }
        against
    }

    /// A partition gets the vote. Of those who may cast a vote, only who is in the very same one may do so still, and who
    /// has nothing to do with it.
    fn superseded(&mut self, by: &[NodeId]) {
        if let Some((back, until)) = self.anybody.take() {
            let caster = Caster { partitions: vec![by.to_vec()], until, before: true };
            for node in by.iter().filter(|node| !back.contains(node)) {
                self.casters.entry(*node).or_insert_with(|| caster.clone());
            }
        }
        let moved_on = |nodes: &Vec<NodeId>| nodes != by && nodes.iter().any(|node| by.contains(node));
        self.casters.retain(|_, caster| {
            caster.partitions.retain(|nodes| !moved_on(nodes));
            !caster.partitions.is_empty()
        });
    }
}

impl Cluster {
    /// A node has come, with this heartbeat interval; `since` is when the process began. Tells whether it may have cast a
    /// vote until now.
    pub(super) fn came_back(&mut self, node: NodeId, heartbeat: Duration, since: Option<Instant>) -> bool {
        self.unheard.as_mut().is_some_and(|unheard| unheard.came_back(node, heartbeat, since))
    }

    /// A node that is about to leave goes on casting, until then at most, if it casts a vote at all.
    pub(super) fn goes_unheard(&mut self, node: NodeId, until: Instant) {
        let Some(member) = self.members.get(&node) else { return };
        let given = self.holder.as_ref().map(|holder| &holder.nodes).filter(|nodes| nodes.contains(&node));
        if !self.may_cast(member, given.is_some()) {
            return;
        }
        let partition = given.cloned().unwrap_or_else(|| with(member.membership.sorted(), node));
        let caster = Caster { partitions: vec![partition], until, before: false };
        self.unheard.get_or_insert_default().casters.insert(node, caster);
    }

    /// Whether a connected node may cast a vote; `given` tells whether its partition was given it last.
    fn may_cast(&self, member: &Member, given: bool) -> bool {
        match self.algorithm {
            Algorithm::Test => false,
            Algorithm::FfSplit => {
                let refused = member.standing.as_ref().is_some_and(|(vote, _, _)| *vote == Vote::Nack);
                let let_go = refused && member.pending == Pending::Nothing;
                given && !let_go
            }
            Algorithm::Lms if !self.lms_as_original => member.holds != Holds::Nothing,
            Algorithm::TwoNodeLms | Algorithm::Lms => given,
        }
    }

    /// Why a node must not have the vote that it would get; it is judged again when the time is over.
    pub(super) fn unheard_against(&mut self, now: Instant, node: NodeId) -> Option<Reason> {
        let unheard = self.unheard.as_ref()?;
        let member = self.members.get(&node)?;
        if unheard.until().is_none_or(|until| until <= now) {
            self.unheard = None;
            return None;
        }
        let Against { nodes, until, before } = unheard.against(&member.membership, &member.config, now)?;
        let after = Some(until.saturating_duration_since(now));
        self.outputs.push(Output::Timer { client: member.client, after });
        Some(if before { Reason::FormerHolder { nodes } } else { Reason::LostHolder { nodes } })
    }

    /// A node is about to be given the vote: that is to be kept before.
    pub(super) fn hold(&mut self, node: NodeId) {
        if self.algorithm == Algorithm::Test {
            return;
        }
        let Some(member) = self.members.get(&node) else { return };
        let nodes = with(member.membership.sorted(), node);
        if let Some(unheard) = &mut self.unheard {
            unheard.superseded(&nodes);
        }
        let there = nodes.iter().filter_map(|node| self.members.get(node));
        let mut longest = there.map(|member| believes(member.heartbeat)).max().unwrap_or_default();
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.nodes == nodes) {
            longest = longest.max(holder.believes);
        }
        let expected = self.holder.as_ref().filter(|holder| holder.nodes == nodes).map(|holder| &holder.heirs);
        let left = nodes.iter().any(|node| !self.members.contains_key(node));
        let heirs = expected.filter(|_| left).cloned().unwrap_or_default();
        let holder = Some(Holder { nodes, heirs, believes: longest });
        if holder != self.holder {
            self.holder.clone_from(&holder);
            self.outputs.extend(holder.map(Output::Hold));
        }
    }

    /// A node has left: the rest of its partition may have the vote next. Where that is kept by then, they don't wait for it.
    ///
    /// What is expected already stays: of a process before this one nobody knows whether it has come true.
    pub(super) fn expect_heirs(&mut self, left: NodeId) {
        let Some(holder) = self.holder.as_mut().filter(|holder| holder.nodes.contains(&left)) else { return };
        let there = holder.nodes.iter().filter(|node| self.members.contains_key(node));
        let heirs: Vec<NodeId> = there.copied().collect();
        if holder.heirs.is_empty() && !heirs.is_empty() {
            holder.heirs = heirs;
            self.outputs.push(Output::Expect(holder.clone()));
        }
    }
}

/// A sorted list without doubles, and with this node.
fn with(sorted: &[NodeId], node: NodeId) -> Vec<NodeId> {
    let mut nodes = sorted.to_vec();
    nodes.dedup();
    if let Err(place) = nodes.binary_search(&node) {
        nodes.insert(place, node);
    }
    nodes
}
