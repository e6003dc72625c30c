//! 2nodelms: last man standing for clusters of two nodes.

use std::time::Instant;

use super::{Answer, Cluster, member::LastResult};
use crate::{
    reason::{ChosenBy, Reason},
    wire::{Heuristics, NodeId, TieBreaker, Vote},
};

impl Cluster {
    /// Judges a membership list that was just stored; `heuristics` came with it.
    pub(super) fn two_node(&mut self, now: Instant, node: NodeId, heuristics: Heuristics) -> Answer {
        let Some(member) = self.members.get(&node) else { return (Vote::NoChange, None) };
        if member.last_result == LastResult::Nothing
            && let Some(holder) = self.holder_elsewhere(member.ring)
        {
            // Not kept: whoever never had a vote stays new.
            return (Vote::Nack, Some(Reason::Newcomer { holder }));
        }
        let (wins, reason) = self.two_node_verdict(node, heuristics);
        let held_up = if wins { self.unheard_against(now, node) } else { None };
        let Some(member) = self.members.get_mut(&node) else { return (Vote::NoChange, None) };
        if let Some(reason) = held_up {
            member.last_result = LastResult::Wait;
            return (Vote::WaitForReply, Some(reason));
        }
        member.last_result = if wins { LastResult::Ack } else { LastResult::Nack };
        (if wins { Vote::Ack } else { Vote::Nack }, Some(reason))
    }

    /// The time of a holder that isn't there is over: whoever waited for that is judged again.
    pub(super) fn two_node_timer(&mut self, now: Instant, node: NodeId) {
        let Some(member) = self.members.get(&node) else { return };
        if member.last_result != LastResult::Wait {
            return;
        }
        let heuristics = member.membership_heuristics;
        if let (vote @ (Vote::Ack | Vote::Nack), reason) = self.two_node(now, node, heuristics) {
            self.push(now, node, vote, reason.unwrap_or(Reason::ListsMissing));
        }
    }

    fn two_node_verdict(&self, node: NodeId, heuristics: Heuristics) -> (bool, Reason) {
        let Some(member) = self.members.get(&node) else { return (false, Reason::ListsMissing) };
        if member.membership.len() == 2 {
            return (true, Reason::BothMembers);
        }
        let others = || self.members.iter().filter(|(other, _)| **other != node);
        let Some((_, last)) = others().next_back() else { return (true, Reason::LastOne) };
        let verdict = |wins: bool, by| {
            let reason = if wins {
                Reason::Chosen { partition: vec![node], by }
            } else {
                Reason::OtherChosen { partition: others().map(|(other, _)| *other).collect(), by }
            };
            (wins, reason)
        };
        if heuristics != last.heuristics {
            return verdict(heuristics > last.heuristics, ChosenBy::Score);
        }
        let preferred = match self.tie_breaker {
            TieBreaker::Lowest => self.members.keys().next().copied(),
            TieBreaker::Highest => self.members.keys().next_back().copied(),
            TieBreaker::Node(preferred) => Some(preferred),
        };
        verdict(preferred == Some(node), ChosenBy::TieBreaker)
    }

    /// The last result once more.
    pub(super) fn two_node_again(&self, node: NodeId) -> Answer {
        let Some(member) = self.members.get(&node) else { return (Vote::NoChange, None) };
        let reason = member.standing.as_ref().map_or(Reason::ListsMissing, |(_, reason, _)| reason.clone());
        let vote = match member.last_result {
            LastResult::Nothing | LastResult::Wait => Vote::AskLater,
            LastResult::Ack => Vote::Ack,
            LastResult::Nack => Vote::Nack,
        };
        (vote, Some(reason))
    }
}
