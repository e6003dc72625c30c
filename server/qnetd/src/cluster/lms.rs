//! lms: last man standing. The largest partition of connected nodes keeps the vote, down to a single node.
//!
//! Every input is judged with what it brought, and for all clients at once: whose vote changes by another's message or
//! departure is told at once. As in ffsplit, whoever loses is told first, and nobody gets a vote while somebody who shall
//! not have it may still cast one.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Answer, Cluster, Member,
    member::{Holds, LastResult},
};
use crate::{
    reason::{ChosenBy, Reason, Unsettled},
    wire::{Heuristics, NodeId, RingId, TieBreaker, Vote},
};

/// Connected nodes of one ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Partition {
    pub(super) ring: RingId,
    pub(super) nodes: Vec<NodeId>,
    pub(super) score: i64,
}

impl Partition {
    pub(super) fn size(&self) -> i64 {
        i64::try_from(self.nodes.len()).unwrap_or(i64::MAX)
    }
}

/// The rings that clients are in, in the order of their lowest nodes; who has told none is left out.
pub(super) fn partitions(members: &BTreeMap<NodeId, Box<Member>>) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = Vec::new();
    for (node, member) in members.iter().filter(|(_, member)| member.ring.seq != 0) {
        let score = match member.heuristics {
            Heuristics::Pass => 2,
            Heuristics::Undefined => 1,
            Heuristics::Fail => 0,
        };
        match partitions.iter_mut().find(|partition| partition.ring == member.ring) {
            Some(partition) => {
                partition.nodes.push(*node);
                partition.score += score;
            }
            None => partitions.push(Partition { ring: member.ring, nodes: vec![*node], score }),
        }
    }
    partitions
}

/// What a client shall have.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Ack(Reason),
    /// Whether it counts as a vote of this client's own: a newcomer's doesn't.
    Nack(Reason, LastResult),
    Wait(Unsettled),
}

impl Cluster {
    /// Judges all clients and tells who is to be told; gives the reply to the one that asks, if one does.
    pub(super) fn lms_settle(&mut self, now: Instant, asking: Option<NodeId>) -> Answer {
        let verdicts = self.lms_verdicts();
        let mut answer = (Vote::NoChange, None);
        for (node, verdict) in &verdicts {
            let Some(member) = self.members.get_mut(node) else { continue };
            let asks = asking == Some(*node);
            match verdict {
                Verdict::Nack(reason, result) => {
                    member.last_result = *result;
                    let known = member.waiting.is_none()
                        && member.standing.as_ref().is_some_and(|(vote, _, _)| *vote == Vote::Nack);
                    match member.holds {
                        Holds::Ack => {
                            let seq = self.push(now, *node, Vote::Nack, reason.clone());
                            if let Some(member) = self.members.get_mut(node) {
                                member.holds = Holds::LettingGo(seq);
                            }
                        }
                        // The VOTE_INFO under way named the old ring: once more for the new one.
                        Holds::LettingGo(_) if asks => {
                            let seq = self.push(now, *node, Vote::Nack, reason.clone());
                            if let Some(member) = self.members.get_mut(node) {
                                member.holds = Holds::LettingGo(seq);
                            }
                        }
                        Holds::Nothing if asks => answer = (Vote::Nack, Some(reason.clone())),
                        Holds::Nothing if !known => {
                            self.push(now, *node, Vote::Nack, reason.clone());
                        }
                        Holds::LettingGo(_) | Holds::Nothing => {}
                    }
                }
                Verdict::Wait(why) => {
                    let reason = Reason::Unsettled(*why);
                    if asks {
                        answer = (Vote::WaitForReply, Some(reason));
                    } else {
                        member.waiting = Some(reason);
                    }
                }
                Verdict::Ack(_) => {}
            }
        }
        let blocking = self.blocking(&verdicts);
        for (node, verdict) in verdicts {
            let Verdict::Ack(reason) = verdict else { continue };
            let Some(member) = self.members.get_mut(&node) else { continue };
            let asks = asking == Some(node);
            if !blocking.is_empty() {
                let reason = Reason::AwaitingNack { from: blocking.clone() };
                if asks {
                    answer = (Vote::WaitForReply, Some(reason));
                } else {
                    member.waiting = Some(reason);
                }
                continue;
            }
            let has = member.holds == Holds::Ack && member.waiting.is_none();
            if !has && let Some(reason) = self.unheard_against(now, node) {
                if asks {
                    answer = (Vote::WaitForReply, Some(reason));
                } else if let Some(member) = self.members.get_mut(&node) {
                    member.waiting = Some(reason);
                }
                continue;
            }
            let Some(member) = self.members.get_mut(&node) else { continue };
            member.holds = Holds::Ack;
            member.last_result = LastResult::Ack;
            if asks {
                answer = (Vote::Ack, Some(reason));
            } else if !has {
                self.push(now, node, Vote::Ack, reason);
            }
        }
        answer
    }

    pub(super) fn lms_confirmed(&mut self, now: Instant, node: NodeId, seq: u32) {
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.holds == Holds::LettingGo(seq) {
            member.holds = Holds::Nothing;
            self.lms_settle(now, None);
        }
    }

    /// Those who may still cast a vote that others shall have.
    fn blocking(&self, verdicts: &BTreeMap<NodeId, Verdict>) -> Vec<NodeId> {
        let holders = self.members.iter().filter(|(_, member)| member.holds != Holds::Nothing);
        let losing = holders.filter(|(node, _)| !matches!(verdicts.get(node), Some(Verdict::Ack(_))));
        losing.map(|(node, _)| *node).collect()
    }

    fn lms_verdicts(&self) -> BTreeMap<NodeId, Verdict> {
        let partitions = partitions(&self.members);
        let winner = self.lms_winner(&partitions);
        let verdict = |node: &NodeId, member: &Member| {
            let verdict = match self.lms_unsettled(*node, member) {
                Some(why) => Verdict::Wait(why),
                None if partitions.len() == 1 => Verdict::Ack(Reason::OnePartition),
                None => match winner {
                    Some((chosen, by)) if chosen.ring == member.ring => {
                        Verdict::Ack(Reason::Chosen { partition: chosen.nodes.clone(), by })
                    }
                    Some((chosen, by)) => self.lms_loser(member, chosen, by),
                    None => Verdict::Nack(Reason::NoneChosen, LastResult::Nack),
                },
            };
            (*node, verdict)
        };
        self.members.iter().map(|(node, member)| verdict(node, member)).collect()
    }

    fn lms_loser(&self, member: &Member, chosen: &Partition, by: ChosenBy) -> Verdict {
        let new = member.last_result == LastResult::Nothing;
        match self.holder_elsewhere(member.ring) {
            Some(holder) if new => Verdict::Nack(Reason::Newcomer { holder }, LastResult::Nothing),
            Some(_) | None => {
                Verdict::Nack(Reason::OtherChosen { partition: chosen.nodes.clone(), by }, LastResult::Nack)
            }
        }
    }

    /// Whether a client's partition is not yet known: it and another one don't tell the same of each other.
    fn lms_unsettled(&self, node: NodeId, member: &Member) -> Option<Unsettled> {
        if member.ring.seq == 0 || member.membership.is_empty() {
            return Some(Unsettled::NoRing);
        }
        let others = self.members.iter().filter(|(other, _)| **other != node);
        others.into_iter().find_map(|(other, peer)| {
            let (sees, seen) = (member.membership.contains(*other), peer.membership.contains(node));
            if member.ring != peer.ring {
                (sees || seen).then_some(Unsettled::Ring { one: node, other: *other })
            } else {
                // Of who has told its ring and not yet its members nothing can be said.
                let told = !peer.membership.is_empty();
                (told && !(sees && seen)).then_some(Unsettled::Members { one: node, other: *other })
            }
        })
    }

    /// The partition that has the vote when there are several. One in which all are new doesn't take it from one that
    /// has it.
    fn lms_winner<'p>(&self, partitions: &'p [Partition]) -> Option<(&'p Partition, ChosenBy)> {
        let result = |node: &NodeId| self.members.get(node).map(|member| member.last_result).unwrap_or_default();
        let holds = |partition: &&Partition| partition.nodes.iter().any(|node| result(node) == LastResult::Ack);
        let all_new = |partition: &&Partition| partition.nodes.iter().all(|node| result(node) == LastResult::Nothing);
        let held = partitions.iter().any(|partition| holds(&partition));
        let able: Vec<&Partition> = partitions.iter().filter(|partition| !(held && all_new(partition))).collect();
        if let [only] = able[..] {
            return Some((only, ChosenBy::OthersNew));
        }
        let single = |value: &dyn Fn(&Partition) -> i64| {
            let best = able.iter().map(|partition| value(partition)).max()?;
            let mut all = able.iter().filter(|partition| value(partition) == best);
            all.next().copied().filter(|_| all.next().is_none())
        };
        if let Some(partition) = single(&|partition| partition.score) {
            return Some((partition, ChosenBy::Score));
        }
        if let Some(partition) = single(&|partition| partition.size()) {
            return Some((partition, ChosenBy::Size));
        }
        let mut nodes = able.iter().flat_map(|partition| partition.nodes.iter().copied());
        let preferred = match self.tie_breaker {
            TieBreaker::Lowest => nodes.min(),
            TieBreaker::Highest => nodes.max(),
            TieBreaker::Node(preferred) => nodes.find(|node| *node == preferred),
        }?;
        let chosen = able.iter().copied().find(|partition| partition.nodes.contains(&preferred))?;
        Some((chosen, ChosenBy::TieBreaker))
    }
}
