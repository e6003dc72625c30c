//! A connected node of a cluster.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    id::ClientId,
    reason::{ChosenBy, Reason},
    wire::{Heuristics, NodeId, NodeInfo, RingId, Vote},
};

/// A list of nodes, as it was sent. Two are equal when they name the same nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeList {
    sent: Box<[NodeId]>,
    /// Where they were sent in another order: stock clients send them sorted.
    sorted: Option<Box<[NodeId]>>,
}

impl PartialEq for NodeList {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl NodeList {
    pub(crate) fn new(nodes: &[NodeInfo]) -> Self {
        let sent: Box<[NodeId]> = nodes.iter().map(|info| info.node).collect();
        let sorted = (!sent.is_sorted()).then(|| {
            let mut sorted = sent.clone();
            sorted.sort_unstable();
            sorted
        });
        Self { sent, sorted }
    }

    pub(super) fn sorted(&self) -> &[NodeId] {
        self.sorted.as_ref().unwrap_or(&self.sent)
    }

    /// How many entries, as the original counts: doubled nodes twice.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.sorted().binary_search(&node).is_ok()
    }

    pub(super) fn contains_all(&self, other: &Self) -> bool {
        other.sorted().iter().all(|node| self.contains(*node))
    }

    pub(super) fn lowest(&self) -> Option<NodeId> {
        self.sorted().first().copied()
    }

    pub(super) fn highest(&self) -> Option<NodeId> {
        self.sorted().last().copied()
    }

    /// In the order in which they were sent.
    pub(crate) fn as_slice(&self) -> &[NodeId] {
        &self.sent
    }
}

/// A vote that ffsplit has still to send, or to hear confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum Pending {
    #[default]
    Nothing,
    Nack,
    Ack,
}

/// What lms and 2nodelms last said to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum LastResult {
    #[default]
    Nothing,
    Ack,
    Nack,
    Wait,
}

/// Whether a client may be casting a vote of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum Holds {
    /// It was never given one, or has confirmed that it let go.
    #[default]
    Nothing,
    /// It was given one.
    Ack,
    /// It was given one, and was told to let go by the VOTE_INFO of this number.
    LettingGo(u32),
}

/// A connected node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) client: ClientId,
    pub(crate) address: SocketAddr,
    pub(crate) heartbeat: Duration,
    pub(crate) keep_active: bool,
    pub(crate) ring: RingId,
    pub(crate) config: NodeList,
    pub(crate) config_version: Option<u64>,
    pub(crate) membership: NodeList,
    pub(crate) quorate: Option<bool>,
    pub(crate) heuristics: Heuristics,
    pub(crate) membership_heuristics: Heuristics,
    pub(crate) regular_heuristics: Heuristics,
    /// The last vote on the wire.
    pub(crate) last_vote: Option<Vote>,
    /// The last ACK or NACK on the wire, why, and since when it is the same.
    #[serde(skip)]
    pub(crate) standing: Option<(Vote, Reason, Instant)>,
    /// ffsplit: what decided in its favour, while it waits for the others to let go.
    pub(super) won_by: Option<ChosenBy>,
    /// Why something else is awaited.
    pub(crate) waiting: Option<Reason>,
    pub(super) pending: Pending,
    pub(super) last_result: LastResult,
    pub(super) holds: Holds,
    /// The number of the last VOTE_INFO.
    pub(super) vote_info_seq: u32,
}

impl Member {
    pub(crate) fn new(client: ClientId, address: SocketAddr, heartbeat: Duration, ring: RingId, keep: bool) -> Self {
        Self {
            client,
            address,
            heartbeat,
            keep_active: keep,
            ring,
            config: NodeList::default(),
            config_version: None,
            membership: NodeList::default(),
            quorate: None,
            heuristics: Heuristics::Undefined,
            membership_heuristics: Heuristics::Undefined,
            regular_heuristics: Heuristics::Undefined,
            last_vote: None,
            standing: None,
            won_by: None,
            waiting: Some(Reason::ListsMissing),
            pending: Pending::Nothing,
            last_result: LastResult::Nothing,
            holds: Holds::Nothing,
            vote_info_seq: 0,
        }
    }

    /// Notes a vote that goes on the wire. Gives the former ACK or NACK if this one is another.
    pub(super) fn told(&mut self, now: Instant, vote: Vote, reason: Reason) -> Option<Option<Vote>> {
        self.last_vote = Some(vote);
        match vote {
            Vote::Ack | Vote::Nack => {
                self.waiting = None;
                let before = self.standing.as_ref().map(|(vote, _, _)| *vote);
                let since = match &self.standing {
                    Some((same, _, since)) if *same == vote => *since,
                    Some(_) | None => now,
                };
                self.standing = Some((vote, reason, since));
                (before != Some(vote)).then_some(before)
            }
            Vote::AskLater | Vote::WaitForReply => {
                self.waiting = Some(reason);
                None
            }
            Vote::NoChange => None,
        }
    }
}
