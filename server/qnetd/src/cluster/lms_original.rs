//! lms as the original does it, defects included, for who wants exactly that: it judges a client by what was known
//! before its message, waits a quarter of a heartbeat for the rest, mistakes the nominated node, and takes no notice of
//! who leaves.

use std::time::Instant;

use super::{Answer, Cluster, Output, lms::partitions, member::LastResult};
use crate::{
    reason::{ChosenBy, Reason, Unsettled},
    wire::{NodeId, RingId, TieBreaker, Vote},
};

impl Cluster {
    /// The vote of a client that says that it is in `ring`.
    pub(super) fn lms_original(&mut self, node: NodeId, ring: RingId) -> Answer {
        let (vote, reason, keep) = self.lms_original_verdict(node, ring);
        let Some(member) = self.members.get_mut(&node) else { return (Vote::NoChange, None) };
        if keep {
            member.last_result = match vote {
                Vote::Ack => LastResult::Ack,
                Vote::Nack => LastResult::Nack,
                Vote::WaitForReply | Vote::AskLater | Vote::NoChange => LastResult::Wait,
            };
        }
        let after = (vote == Vote::WaitForReply).then_some(member.heartbeat / 4);
        let client = member.client;
        self.outputs.push(Output::Timer { client, after });
        (vote, Some(reason))
    }

    pub(super) fn lms_original_timer(&mut self, now: Instant, node: NodeId) {
        let Some(member) = self.members.get(&node) else { return };
        let ring = member.ring;
        let answer = self.lms_original(node, ring);
        let (vote, reason) = self.lms_original_held_up(now, node, answer);
        match vote {
            Vote::Ack | Vote::Nack => {
                self.push(now, node, vote, reason.unwrap_or(Reason::ListsMissing));
            }
            Vote::WaitForReply | Vote::AskLater | Vote::NoChange => {}
        }
    }

    /// Not even the original's lms may give a vote away that somebody still casts who can't be told. The client is judged
    /// again as whenever it waits.
    pub(super) fn lms_original_held_up(&mut self, now: Instant, node: NodeId, answer: Answer) -> Answer {
        if answer.0 != Vote::Ack {
            return answer;
        }
        let Some(reason) = self.unheard_against(now, node) else { return answer };
        if let Some(member) = self.members.get_mut(&node) {
            member.last_result = LastResult::Wait;
        }
        (Vote::WaitForReply, Some(reason))
    }

    fn lms_original_verdict(&self, node: NodeId, ring: RingId) -> (Vote, Reason, bool) {
        let Some(member) = self.members.get(&node) else { return (Vote::NoChange, Reason::ListsMissing, false) };
        for (other, peer) in self.members.iter().filter(|(other, _)| **other != node) {
            let shared = member.membership.contains(*other) || peer.membership.contains(node);
            if shared && peer.ring != ring {
                let why = Unsettled::Ring { one: node, other: *other };
                return (Vote::WaitForReply, Reason::Unsettled(why), true);
            }
        }
        let partitions = partitions(&self.members);
        match partitions.len() {
            0 => return (Vote::WaitForReply, Reason::Unsettled(Unsettled::NoRing), true),
            1 => return (Vote::Ack, Reason::OnePartition, true),
            _ => {}
        }
        if member.last_result == LastResult::Nothing
            && let Some(holder) = self.holder_elsewhere(ring)
        {
            return (Vote::Nack, Reason::Newcomer { holder }, false);
        }
        let single = |value: &dyn Fn(&super::lms::Partition) -> i64| {
            let best = partitions.iter().map(value).max()?;
            let mut all = partitions.iter().filter(|partition| value(partition) == best);
            all.next().filter(|_| all.next().is_none())
        };
        let (winner, by) = if let Some(partition) = single(&|partition| partition.score) {
            (Some(partition.ring), ChosenBy::Score)
        } else if let Some(partition) = single(&|partition| partition.size()) {
            (Some(partition.ring), ChosenBy::Size)
        } else {
            let (preferred, its_ring) = self.lms_original_preferred(node);
            (if preferred == node { Some(ring) } else { Some(its_ring) }, ChosenBy::TieBreaker)
        };
        let nodes = |ring: Option<RingId>| {
            let found = partitions.iter().find(|partition| Some(partition.ring) == ring);
            found.map(|partition| partition.nodes.clone()).unwrap_or_default()
        };
        if winner == Some(ring) {
            (Vote::Ack, Reason::Chosen { partition: nodes(winner), by }, true)
        } else {
            (Vote::Nack, Reason::OtherChosen { partition: nodes(winner), by }, true)
        }
    }

    /// The node that wins a tie, and its ring as the original finds it.
    fn lms_original_preferred(&self, asking: NodeId) -> (NodeId, RingId) {
        /// The original looks for the lowest id below this one.
        const NONE: NodeId = NodeId(0x7fff_ffff);
        let found = match self.tie_breaker {
            TieBreaker::Lowest => self.members.iter().next().filter(|(node, _)| **node < NONE),
            TieBreaker::Highest => self.members.iter().next_back().filter(|(node, _)| **node > NodeId(0)),
            // It compares the asking client instead of the others, and so ends with the last one's ring.
            TieBreaker::Node(node) => {
                let last = self.members.iter().next_back().filter(|_| node == asking);
                return (node, last.map(|(_, member)| member.ring).unwrap_or_default());
            }
        };
        let nobody = match self.tie_breaker {
            TieBreaker::Lowest => NONE,
            TieBreaker::Highest | TieBreaker::Node(_) => NodeId(0),
        };
        found.map_or((nobody, RingId::default()), |(node, member)| (*node, member.ring))
    }
}
