//! The connected nodes of one cluster, and who of them has the vote.

mod ffsplit;
mod lms;
mod lms_original;
mod member;
mod two_node;
mod unheard;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub(crate) use member::{Member, NodeList};
use serde::{Deserialize, Serialize};
pub(crate) use unheard::{SavedUnheard, Unheard};

use self::member::{Holds, LastResult};
use crate::{
    holder::Holder,
    id::ClientId,
    reason::{ChosenBy, Reason},
    wire::{Algorithm, ErrorCode, Fields, Heuristics, ListKind, NodeId, RingId, TieBreaker, Vote},
};

/// What a cluster wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Send a VOTE_INFO.
    Vote { client: ClientId, seq: u32, ring: RingId, vote: Vote },
    /// Call [`Cluster::timer`] for this client after that time, or not any more.
    Timer { client: ClientId, after: Option<Duration> },
    /// Another node no longer sees this client: is it there?
    Doubt { client: ClientId, ring: RingId },
    /// A client's ACK or NACK is another than before.
    Moved { node: NodeId, from: Option<Vote>, to: Vote, reason: Reason },
    /// Keep who is given the vote, before anybody is told.
    Hold(Holder),
    /// Keep to whom else the vote may go next, when there is time.
    Expect(Holder),
    /// Another partition has the vote.
    Chosen { partition: Vec<NodeId>, by: ChosenBy },
}

/// Which part of ffsplit's work is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
enum Phase {
    #[default]
    Idle,
    Unsettled,
    SendingNacks,
    SendingAcks,
}

/// One cluster; it exists while a client of it is connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) algorithm: Algorithm,
    pub(crate) tie_breaker: TieBreaker,
    /// Boxed: the map keeps room for more nodes than a cluster mostly has.
    pub(crate) members: BTreeMap<NodeId, Box<Member>>,
    lms_as_original: bool,
    /// ffsplit: the nodes of the partition chosen last, and why.
    chosen: NodeList,
    phase: Phase,
    /// Who was given the vote last, as it is kept.
    holder: Option<Holder>,
    #[serde(skip)]
    pub(crate) unheard: Option<Box<Unheard>>,
    #[serde(skip)]
    outputs: Vec<Output>,
}

impl Cluster {
    /// `holder` is who has the vote according to what is kept, and `unheard` who may cast it without being connected.
    pub(crate) fn new(
        algorithm: Algorithm,
        tie_breaker: TieBreaker,
        lms_as_original: bool,
        holder: Option<Holder>,
        unheard: Option<Box<Unheard>>,
    ) -> Self {
        Self {
            algorithm,
            tie_breaker,
            members: BTreeMap::new(),
            lms_as_original,
            chosen: NodeList::default(),
            phase: Phase::Idle,
            holder,
            unheard,
            outputs: Vec::new(),
        }
    }

    /// Whether a client may join.
    pub(crate) fn check(&self, node: NodeId, algorithm: Algorithm, tie_breaker: TieBreaker) -> Result<(), ErrorCode> {
        if tie_breaker != self.tie_breaker {
            return Err(ErrorCode::TieBreakerDiffers);
        }
        if algorithm != self.algorithm {
            return Err(ErrorCode::AlgorithmDiffers);
        }
        if self.members.contains_key(&node) {
            return Err(ErrorCode::DuplicateNodeId);
        }
        Ok(())
    }

    /// Takes a client in that [`Cluster::check`] has let through; `since` is when this process began, if another one may
    /// have given votes before.
    pub(crate) fn join(&mut self, node: NodeId, mut member: Member, since: Option<Instant>) {
        // Of lms a client keeps its vote when it loses the server while it has quorum and waits for all.
        if self.came_back(node, member.heartbeat, since) && self.algorithm == Algorithm::Lms && !self.lms_as_original {
            member.holds = Holds::Ack;
        }
        self.members.insert(node, Box::new(member));
    }

    /// Whether lms works with the original's defects.
    pub(crate) fn lms_as_original(&self) -> bool {
        self.lms_as_original
    }

    /// Whom nobody needs any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What is to be done since the last call.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// A node list: runs the algorithm, keeps the list unless that refuses it, and gives the vote to reply with.
    pub(crate) fn list(
        &mut self,
        now: Instant,
        node: NodeId,
        kind: ListKind,
        fields: &Fields,
    ) -> Result<Vote, ErrorCode> {
        let list = NodeList::new(&fields.nodes);
        let answer = match kind {
            ListKind::InitialConfig | ListKind::ChangedConfig => {
                self.config(now, node, kind == ListKind::InitialConfig, list, fields.config_version)
            }
            ListKind::Membership => {
                let ring = fields.ring.ok_or(ErrorCode::MissingOption)?;
                let answer = self.membership(now, node, list, ring, fields.heuristics);
                if answer.is_ok() {
                    self.doubt(node);
                }
                answer
            }
            ListKind::Quorum => {
                let answer = match self.algorithm {
                    Algorithm::Test | Algorithm::FfSplit | Algorithm::TwoNodeLms => Ok((Vote::NoChange, None)),
                    Algorithm::Lms => Ok(self.lms(now, node)),
                };
                if let Some(member) = self.members.get_mut(&node) {
                    member.quorate = fields.quorate;
                }
                answer
            }
        };
        self.reply(now, node, answer)
    }

    fn config(
        &mut self,
        now: Instant,
        node: NodeId,
        initial: bool,
        list: NodeList,
        version: Option<u64>,
    ) -> Result<Answer, ErrorCode> {
        match self.algorithm {
            Algorithm::Test | Algorithm::Lms => {}
            Algorithm::FfSplit => {
                if !list.contains(node) {
                    return Err(ErrorCode::InvalidConfigList);
                }
            }
            Algorithm::TwoNodeLms => {
                if list.len() != 2 {
                    return Err(ErrorCode::UnsupportedAlgorithm);
                }
            }
        }
        let Some(member) = self.members.get_mut(&node) else { return Ok((Vote::NoChange, None)) };
        member.config = list;
        member.config_version = version;
        let (early, heuristics) = (initial || member.membership.is_empty(), member.heuristics);
        Ok(match self.algorithm {
            Algorithm::Test | Algorithm::TwoNodeLms | Algorithm::Lms => (Vote::NoChange, None),
            Algorithm::FfSplit if early => (Vote::AskLater, Some(Reason::ListsMissing)),
            Algorithm::FfSplit => self.ffsplit(now, node, heuristics),
        })
    }

    fn membership(
        &mut self,
        now: Instant,
        node: NodeId,
        list: NodeList,
        ring: RingId,
        heuristics: Heuristics,
    ) -> Result<Answer, ErrorCode> {
        if self.algorithm == Algorithm::FfSplit && !list.contains(node) {
            return Err(ErrorCode::InvalidMembershipList);
        }
        // The original's lms judges a new list by what it knew before.
        let early = (self.algorithm == Algorithm::Lms && self.lms_as_original).then(|| self.lms_original(node, ring));
        let Some(member) = self.members.get_mut(&node) else { return Ok((Vote::NoChange, None)) };
        member.membership = list;
        member.ring = ring;
        let answer = match (self.algorithm, early) {
            (_, Some(answer)) => self.lms_original_held_up(now, node, answer),
            (Algorithm::Test, None) => (Vote::Ack, Some(Reason::AlwaysYes)),
            (Algorithm::FfSplit, None) if member.config.is_empty() => (Vote::AskLater, Some(Reason::ListsMissing)),
            // Others' scores still count what this client said of its checks before: so does the original.
            (Algorithm::FfSplit, None) => self.ffsplit(now, node, heuristics),
            (Algorithm::TwoNodeLms, None) => self.two_node(now, node, heuristics),
            (Algorithm::Lms, None) => {
                member.heuristics = heuristics;
                self.lms(now, node)
            }
        };
        if let Some(member) = self.members.get_mut(&node) {
            member.membership_heuristics = heuristics;
            member.heuristics = heuristics;
        }
        Ok(answer)
    }

    /// The client asks for its vote.
    pub(crate) fn ask(&mut self, now: Instant, node: NodeId) -> Result<Vote, ErrorCode> {
        let answer = match self.algorithm {
            Algorithm::Test => Ok((Vote::Ack, Some(Reason::AlwaysYes))),
            Algorithm::FfSplit => Err(ErrorCode::UnsupportedByAlgorithm),
            Algorithm::TwoNodeLms => Ok(self.two_node_again(node)),
            Algorithm::Lms => Ok(self.lms(now, node)),
        };
        self.reply(now, node, answer)
    }

    /// The client's checks have another result.
    pub(crate) fn heuristics(&mut self, now: Instant, node: NodeId, result: Heuristics) -> Result<Vote, ErrorCode> {
        let known = self.members.get(&node).is_some_and(|m| !m.config.is_empty() && !m.membership.is_empty());
        let answer = match self.algorithm {
            Algorithm::Test | Algorithm::TwoNodeLms => (Vote::NoChange, None),
            Algorithm::FfSplit if known => self.ffsplit(now, node, result),
            Algorithm::FfSplit => (Vote::AskLater, Some(Reason::ListsMissing)),
            Algorithm::Lms => {
                if !self.lms_as_original
                    && let Some(member) = self.members.get_mut(&node)
                {
                    member.heuristics = result;
                    self.lms_settle(now, None);
                }
                (Vote::NoChange, None)
            }
        };
        if let Some(member) = self.members.get_mut(&node) {
            member.regular_heuristics = result;
            member.heuristics = result;
        }
        self.reply(now, node, Ok(answer))
    }

    /// The client has taken a VOTE_INFO.
    pub(crate) fn confirmed(&mut self, now: Instant, node: NodeId, seq: u32) {
        match self.algorithm {
            Algorithm::Test | Algorithm::TwoNodeLms => {}
            Algorithm::FfSplit => self.ffsplit_confirmed(now, node, seq),
            Algorithm::Lms => {
                if !self.lms_as_original {
                    self.lms_confirmed(now, node, seq);
                }
            }
        }
    }

    /// A timer of [`Output::Timer`] has run out.
    pub(crate) fn timer(&mut self, now: Instant, node: NodeId) {
        match self.algorithm {
            Algorithm::Lms if self.lms_as_original => self.lms_original_timer(now, node),
            Algorithm::Test => {}
            Algorithm::FfSplit => self.ffsplit_again(now, node),
            Algorithm::TwoNodeLms => self.two_node_timer(now, node),
            Algorithm::Lms => {
                self.lms_settle(now, None);
            }
        }
    }

    /// A client is gone, and the others' votes follow from it. `casts_until` is when a vote that it had has ended for it,
    /// if it may not know that it is gone.
    pub(crate) fn leave(&mut self, now: Instant, node: NodeId, casts_until: Option<Instant>) {
        if let Some(until) = casts_until {
            self.goes_unheard(node, until);
        }
        // ffsplit counts the leaving client among the connected ones once more: so does the original.
        if self.algorithm == Algorithm::FfSplit {
            self.ffsplit_leave(now, node);
        }
        self.members.remove(&node);
        if self.algorithm == Algorithm::Lms && !self.lms_as_original {
            self.lms_settle(now, None);
        }
        self.expect_heirs(node);
    }

    fn lms(&mut self, now: Instant, node: NodeId) -> Answer {
        if self.lms_as_original {
            let ring = self.members.get(&node).map(|member| member.ring).unwrap_or_default();
            let answer = self.lms_original(node, ring);
            self.lms_original_held_up(now, node, answer)
        } else {
            self.lms_settle(now, Some(node))
        }
    }

    /// Notes what is replied.
    fn reply(&mut self, now: Instant, node: NodeId, answer: Result<Answer, ErrorCode>) -> Result<Vote, ErrorCode> {
        let (vote, reason) = answer?;
        if vote == Vote::Ack {
            self.hold(node);
        }
        self.told(now, node, vote, reason.unwrap_or(Reason::ListsMissing));
        Ok(vote)
    }

    fn told(&mut self, now: Instant, node: NodeId, vote: Vote, reason: Reason) {
        let Some(member) = self.members.get_mut(&node) else { return };
        if let Some(from) = member.told(now, vote, reason.clone()) {
            self.outputs.push(Output::Moved { node, from, to: vote, reason });
        }
    }

    /// Sends a vote that nobody asked for. Gives its number.
    fn push(&mut self, now: Instant, node: NodeId, vote: Vote, reason: Reason) -> u32 {
        if vote == Vote::Ack {
            self.hold(node);
        }
        let Some(member) = self.members.get_mut(&node) else { return 0 };
        member.vote_info_seq = member.vote_info_seq.wrapping_add(1);
        let (client, seq, ring) = (member.client, member.vote_info_seq, member.ring);
        self.outputs.push(Output::Vote { client, seq, ring, vote });
        self.told(now, node, vote, reason);
        seq
    }

    /// Whoever is connected, but no longer seen by the sender of a membership list, may have lost its power.
    fn doubt(&mut self, by: NodeId) {
        let Some(seer) = self.members.get(&by) else { return };
        let doubted = self.members.iter().filter(|(node, member)| {
            **node != by && !seer.membership.contains(**node) && member.membership.contains(by)
        });
        let outputs = doubted.map(|(_, member)| Output::Doubt { client: member.client, ring: member.ring });
        let outputs: Vec<Output> = outputs.collect();
        self.outputs.extend(outputs);
    }

    /// Connected nodes with another ring that hold the vote, for who has none yet.
    fn holder_elsewhere(&self, ring: RingId) -> Option<NodeId> {
        let mut others = self.members.iter();
        let found = others.find(|(_, other)| other.ring != ring && other.last_result == LastResult::Ack);
        found.map(|(node, _)| *node)
    }
}

/// What to reply, and why; no reason where nothing changes.
type Answer = (Vote, Option<Reason>);
