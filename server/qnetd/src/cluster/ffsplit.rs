//! ffsplit: one half of a cluster that split evenly gets the vote, and never both.
//!
//! Decides as the original does. Whoever loses is told first, and the winners get their vote only when all losers have
//! confirmed, or are gone.

use std::time::Instant;

use super::{
    Answer, Cluster, Output, Phase,
    member::{Member, NodeList, Pending},
};
use crate::{
    reason::{ChosenBy, Reason, Unsettled},
    wire::{Heuristics, NodeId, TieBreaker, Vote},
};

/// Whose message, or departure, makes us decide.
#[derive(Clone, Copy)]
struct Subject {
    node: NodeId,
    leaves: bool,
    /// What it says of its checks now; [`Member::heuristics`] still is what it said before.
    heuristics: Heuristics,
}

/// A client whose partition may be chosen.
#[derive(Clone, Copy)]
struct Candidate<'c> {
    node: NodeId,
    member: &'c Member,
    connected: usize,
    score: i64,
}

impl Cluster {
    pub(super) fn ffsplit(&mut self, now: Instant, node: NodeId, heuristics: Heuristics) -> Answer {
        self.decide(now, Subject { node, leaves: false, heuristics })
    }

    pub(super) fn ffsplit_leave(&mut self, now: Instant, node: NodeId) {
        let Some(member) = self.members.get(&node) else { return };
        let heuristics = member.heuristics;
        let _nobody_is_answered = self.decide(now, Subject { node, leaves: true, heuristics });
    }

    /// Decides once more, without a message.
    pub(super) fn ffsplit_again(&mut self, now: Instant, node: NodeId) {
        let Some(member) = self.members.get(&node) else { return };
        let heuristics = member.heuristics;
        let _nobody_is_answered = self.decide(now, Subject { node, leaves: false, heuristics });
    }

    pub(super) fn ffsplit_confirmed(&mut self, now: Instant, node: NodeId, seq: u32) {
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.vote_info_seq != seq {
            return;
        }
        member.pending = Pending::Nothing;
        match self.phase {
            Phase::Idle | Phase::Unsettled => {}
            Phase::SendingNacks => {
                if !self.any_pending(Pending::Nack) {
                    self.send_acks(now, None);
                }
            }
            Phase::SendingAcks => {
                if !self.any_pending(Pending::Ack) {
                    self.phase = Phase::Idle;
                }
            }
        }
    }

    fn decide(&mut self, now: Instant, subject: Subject) -> Answer {
        self.phase = Phase::Unsettled;
        if let Err(why) = self.settled(subject) {
            return (Vote::WaitForReply, Some(Reason::Unsettled(why)));
        }
        let choice = self.choose(subject);
        if let Some((node, _)) = choice
            && let Some(reason) = self.unheard_against(now, node)
        {
            let partition = self.members.get(&node).map(|member| member.membership.clone()).unwrap_or_default();
            for (_, member) in self.members.iter_mut().filter(|(node, _)| partition.contains(**node)) {
                member.waiting = Some(reason.clone());
            }
            return (Vote::WaitForReply, Some(reason));
        }
        let (chosen, by) = match choice {
            Some((node, by)) => (self.members.get(&node).map(|member| member.membership.clone()), by),
            None => (None, ChosenBy::Majority),
        };
        let chosen = chosen.unwrap_or_default();
        let partition = chosen.as_slice().to_vec();
        if chosen != self.chosen {
            self.outputs.push(Output::Chosen { partition: partition.clone(), by });
        }
        let loser = if chosen.is_empty() {
            Reason::NoneChosen
        } else {
            Reason::OtherChosen { partition: partition.clone(), by }
        };
        let mut nacks = Vec::new();
        for (node, member) in &mut self.members {
            let wins = chosen.contains(*node);
            member.pending = match (subject.leaves && *node == subject.node, wins) {
                (true, _) => Pending::Nothing,
                (false, true) => Pending::Ack,
                (false, false) => Pending::Nack,
            };
            match member.pending {
                Pending::Nothing => {}
                Pending::Nack => nacks.push(*node),
                Pending::Ack => member.waiting = Some(Reason::Chosen { partition: partition.clone(), by }),
            }
        }
        self.chosen = chosen;
        self.phase = Phase::SendingNacks;
        for node in &nacks {
            self.push(now, *node, Vote::Nack, loser.clone());
        }
        if nacks.is_empty() {
            self.send_acks(now, Some(by));
        } else {
            for member in self.members.values_mut().filter(|member| member.pending == Pending::Ack) {
                member.waiting = Some(Reason::AwaitingNack { from: nacks.clone() });
                member.won_by = Some(by);
            }
        }
        (Vote::NoChange, None)
    }

    fn send_acks(&mut self, now: Instant, by: Option<ChosenBy>) {
        self.phase = Phase::SendingAcks;
        let winners = self.members.iter().filter(|(_, member)| member.pending == Pending::Ack);
        let winners: Vec<(NodeId, ChosenBy)> =
            winners.map(|(node, member)| (*node, by.or(member.won_by).unwrap_or(ChosenBy::Alone))).collect();
        if winners.is_empty() {
            self.phase = Phase::Idle;
        }
        let partition = self.chosen.as_slice().to_vec();
        for (node, by) in winners {
            self.push(now, node, Vote::Ack, Reason::Chosen { partition: partition.clone(), by });
        }
    }

    fn any_pending(&self, what: Pending) -> bool {
        self.members.values().any(|member| member.pending == what)
    }

    /// Whether all clients know the same configuration, and all that count on each other tell the same.
    fn settled(&self, subject: Subject) -> Result<(), Unsettled> {
        let gone = |node: NodeId| subject.leaves && node == subject.node;
        let staying = || self.members.iter().filter(move |(node, _)| !gone(**node));
        for (one, member) in staying() {
            for (other, peer) in staying() {
                if one != other && !peer.config.contains_all(&member.config) {
                    return Err(Unsettled::Config { one: *one, other: *other });
                }
            }
        }
        for (one, member) in staying() {
            for (other, peer) in staying().filter(|(other, _)| member.membership.contains(**other)) {
                if member.ring != peer.ring {
                    return Err(Unsettled::Ring { one: *one, other: *other });
                }
                if !peer.membership.contains_all(&member.membership) {
                    return Err(Unsettled::Members { one: *one, other: *other });
                }
            }
        }
        Ok(())
    }

    /// The client whose partition gets the vote, and what decided.
    fn choose(&self, subject: Subject) -> Option<(NodeId, ChosenBy)> {
        let mut best: Option<(Candidate<'_>, ChosenBy)> = None;
        for (node, member) in &self.members {
            if subject.leaves && *node == subject.node {
                continue;
            }
            let candidate = self.candidate(subject, *node, member);
            let (wins, by) = self.compare(candidate, best.map(|(best, _)| best));
            best = match best {
                None if wins => Some((candidate, by)),
                None => None,
                Some((before, _)) if before.member.membership != member.membership && wins => Some((candidate, by)),
                Some((_, so_far)) if wins => Some((candidate, so_far)),
                // What beat the candidate beat its partition, if it is another one that could have won.
                Some((before, _)) if before.member.membership != member.membership && by != ChosenBy::Majority => {
                    Some((before, by))
                }
                Some(as_before) => Some(as_before),
            };
        }
        best.map(|(best, by)| (best.node, by))
    }

    fn candidate<'c>(&'c self, subject: Subject, node: NodeId, member: &'c Member) -> Candidate<'c> {
        let mut candidate = Candidate { node, member, connected: 0, score: 0 };
        for id in member.membership.as_slice() {
            // The leaving client counts here, as it does for the original.
            let Some(peer) = self.members.get(id) else { continue };
            let own = *id == node && node == subject.node;
            candidate.connected += 1;
            candidate.score += match if own { subject.heuristics } else { peer.heuristics } {
                Heuristics::Pass => 2,
                Heuristics::Undefined => 1,
                Heuristics::Fail => 0,
            };
        }
        candidate
    }

    /// Whether a candidate is better than the best so far, and what told them apart.
    fn compare(&self, candidate: Candidate<'_>, best: Option<Candidate<'_>>) -> (bool, ChosenBy) {
        let (configured, members) = (candidate.member.config.len(), candidate.member.membership.len());
        let half = configured / 2;
        if members > half {
            return (true, ChosenBy::Majority);
        }
        if configured % 2 != 0 || members < half {
            return (false, ChosenBy::Majority);
        }
        let (score, connected) = best.map_or((0, 0), |best| (best.score, best.connected));
        let by = |what| if best.is_some() { what } else { ChosenBy::Alone };
        if candidate.score != score {
            return (candidate.score > score, by(ChosenBy::Score));
        }
        if candidate.connected != connected {
            return (candidate.connected > connected, by(ChosenBy::Size));
        }
        if let Some(best) = best
            && self.members.values().all(|member| member.keep_active)
        {
            let (ours, theirs) = (self.chosen.contains(candidate.node), self.chosen.contains(best.node));
            if ours != theirs {
                return (ours, ChosenBy::KeptActive);
            }
        }
        (self.preferred(candidate.member), ChosenBy::TieBreaker)
    }

    /// Whether the preferred node is in a client's partition. Without a configuration there is none.
    fn preferred(&self, member: &Member) -> bool {
        let config: &NodeList = &member.config;
        let preferred = match self.tie_breaker {
            TieBreaker::Lowest => config.lowest(),
            TieBreaker::Highest => config.highest(),
            TieBreaker::Node(node) => Some(node),
        };
        preferred.is_some_and(|node| member.membership.contains(node))
    }
}
