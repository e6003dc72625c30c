//! The hand-made mapping between our types and the library's, in both directions. Nothing is parsed as protobuf, and a
//! message of ours can't express what a peer must not send.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry as PbEntry, EntryType, HardState as PbHardState,
    Message as PbMessage, MessageType, Snapshot as PbSnapshot,
};

use crate::{Body, Entry, EntryPayload, HardState, MESSAGE_VERSION, Membership, Message, RaftId, Snapshot};

/// What the library writes into vote requests that a transfer caused.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

pub(crate) fn hard_state_to_pb(ours: HardState) -> PbHardState {
    PbHardState { term: ours.term, vote: ours.vote.map_or(0, |id| id.0), commit: ours.commit, ..PbHardState::default() }
}

pub(crate) fn hard_state_from_pb(pb: &PbHardState) -> HardState {
    HardState { term: pb.term, vote: (pb.vote != 0).then_some(RaftId(pb.vote)), commit: pb.commit }
}

/// A membership as the context of an entry: the number of voters, the voters, the learners.
pub(crate) fn membership_to_context(membership: &Membership) -> Vec<u8> {
    let count = membership.voters.len() as u64;
    std::iter::once(count)
        .chain(membership.voters.iter().chain(&membership.learners).map(|id| id.0))
        .flat_map(u64::to_le_bytes)
        .collect()
}

fn membership_from_context(context: &[u8]) -> Option<Membership> {
    let (words, rest) = context.as_chunks::<8>();
    let mut numbers = words.iter().map(|word| u64::from_le_bytes(*word));
    let count = usize::try_from(numbers.next()?).ok()?;
    if !rest.is_empty() || count > words.len() - 1 {
        return None;
    }
    let voters = numbers.by_ref().take(count).map(RaftId).collect();
    Some(Membership { voters, learners: numbers.map(RaftId).collect() })
}

pub(crate) fn entry_to_pb(ours: Entry) -> PbEntry {
    let mut pb = PbEntry { index: ours.index, term: ours.term, ..PbEntry::default() };
    match ours.payload {
        EntryPayload::Empty => {}
        EntryPayload::Command(bytes) => pb.data = bytes.into(),
        EntryPayload::Change(membership) => {
            pb.set_entry_type(EntryType::EntryConfChangeV2);
            pb.context = membership_to_context(&membership).into();
        }
        EntryPayload::Settle => pb.set_entry_type(EntryType::EntryConfChangeV2),
    }
    pb
}

/// The payload of an entry of the log. An entry of a change holds the library's own encoding as well, on the member that
/// proposed it: it isn't carried, since the context says the same.
pub(crate) fn payload_from_pb(pb: &PbEntry) -> EntryPayload {
    match pb.get_entry_type() {
        EntryType::EntryNormal if pb.data.is_empty() => EntryPayload::Empty,
        EntryType::EntryNormal => EntryPayload::Command(pb.data.to_vec()),
        EntryType::EntryConfChangeV2 if pb.context.is_empty() => EntryPayload::Settle,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryPayload::Change(
            membership_from_context(&pb.context).expect("the context was written by this module, in this process"),
        ),
    }
}

pub(crate) fn entry_from_pb(pb: &PbEntry) -> Entry {
    Entry { index: pb.index, term: pb.term, payload: payload_from_pb(pb) }
}

pub(crate) fn conf_state(membership: &Membership) -> ConfState {
    let mut pb = ConfState::default();
    pb.set_voters(membership.voters.iter().map(|id| id.0).collect());
    pb.set_learners(membership.learners.iter().map(|id| id.0).collect());
    pb
}

pub(crate) fn membership_from_conf_state(pb: &ConfState) -> Membership {
    Membership {
        voters: pb.get_voters().iter().copied().map(RaftId).collect(),
        learners: pb.get_learners().iter().copied().map(RaftId).collect(),
    }
}

/// The change that leads from one membership to another, in the order of the ids; `None` if they are equal.
pub(crate) fn change_between(from: &Membership, to: &Membership) -> Option<ConfChangeV2> {
    let mut changes = Vec::new();
    let mut push = |id: RaftId, change: ConfChangeType| {
        let mut single = ConfChangeSingle { node_id: id.0, ..ConfChangeSingle::default() };
        single.set_change_type(change);
        changes.push(single);
    };
    for id in to.voters.difference(&from.voters) {
        push(*id, ConfChangeType::AddNode);
    }
    for id in to.learners.difference(&from.learners) {
        push(*id, ConfChangeType::AddLearnerNode);
    }
    for id in from.voters.union(&from.learners).filter(|id| !to.contains(**id)) {
        push(*id, ConfChangeType::RemoveNode);
    }
    if changes.is_empty() {
        return None;
    }
    let mut pb = ConfChangeV2::default();
    pb.set_changes(changes.into());
    Some(pb)
}

pub(crate) fn snapshot_to_pb(ours: Snapshot) -> PbSnapshot {
    let mut pb = PbSnapshot { data: ours.state.into(), ..PbSnapshot::default() };
    let metadata = pb.mut_metadata();
    metadata.index = ours.index;
    metadata.term = ours.term;
    metadata.set_conf_state(conf_state(&ours.membership));
    pb
}

pub(crate) fn snapshot_from_pb(pb: &PbSnapshot) -> Snapshot {
    let metadata = pb.get_metadata();
    Snapshot {
        index: metadata.index,
        term: metadata.term,
        membership: membership_from_conf_state(metadata.get_conf_state()),
        state: pb.data.to_vec(),
    }
}

/// A message of the library as ours; `None` for what never leaves a member.
pub(crate) fn message_from_pb(pb: &PbMessage) -> Option<Message> {
    let body = match pb.get_msg_type() {
        MessageType::MsgHeartbeat => Body::Heartbeat { commit: pb.commit, context: pb.context.to_vec() },
        MessageType::MsgHeartbeatResponse => {
            Body::HeartbeatResponse { commit: pb.commit, context: pb.context.to_vec() }
        }
        MessageType::MsgAppend => Body::Append {
            index: pb.index,
            log_term: pb.log_term,
            commit: pb.commit,
            entries: pb.get_entries().iter().map(entry_from_pb).collect(),
        },
        MessageType::MsgAppendResponse if pb.reject => {
            Body::AppendRefused { index: pb.index, commit: pb.commit, hint: pb.reject_hint, hint_term: pb.log_term }
        }
        MessageType::MsgAppendResponse => Body::Appended { index: pb.index, commit: pb.commit },
        MessageType::MsgSnapshot => Body::Snapshot(snapshot_from_pb(pb.get_snapshot())),
        kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => Body::RequestVote {
            pre: kind == MessageType::MsgRequestPreVote,
            transfer: pb.context == TRANSFER_CONTEXT,
            index: pb.index,
            log_term: pb.log_term,
            commit: pb.commit,
            commit_term: pb.commit_term,
        },
        kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => Body::Vote {
            pre: kind == MessageType::MsgRequestPreVoteResponse,
            granted: !pb.reject,
            commit: pb.commit,
            commit_term: pb.commit_term,
        },
        MessageType::MsgTimeoutNow => Body::TimeoutNow,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => return None,
    };
    Some(Message { version: MESSAGE_VERSION, term: pb.term, number: 0, body })
}

/// Our message as the library's; `None` for an acknowledgement, which is ours alone.
pub(crate) fn message_to_pb(from: RaftId, to: RaftId, ours: Message) -> Option<PbMessage> {
    let mut pb = PbMessage { from: from.0, to: to.0, term: ours.term, ..PbMessage::default() };
    match ours.body {
        Body::Heartbeat { commit, context } => {
            pb.set_msg_type(MessageType::MsgHeartbeat);
            pb.commit = commit;
            pb.context = context.into();
        }
        Body::HeartbeatResponse { commit, context } => {
            pb.set_msg_type(MessageType::MsgHeartbeatResponse);
            pb.commit = commit;
            pb.context = context.into();
        }
        Body::Append { index, log_term, commit, entries } => {
            pb.set_msg_type(MessageType::MsgAppend);
            pb.index = index;
            pb.log_term = log_term;
            pb.commit = commit;
            pb.set_entries(entries.into_iter().map(entry_to_pb).collect());
        }
        Body::Appended { index, commit } => {
            pb.set_msg_type(MessageType::MsgAppendResponse);
            pb.index = index;
            pb.commit = commit;
        }
        Body::AppendRefused { index, commit, hint, hint_term } => {
            pb.set_msg_type(MessageType::MsgAppendResponse);
            pb.reject = true;
            pb.index = index;
            pb.commit = commit;
            pb.reject_hint = hint;
            pb.log_term = hint_term;
        }
        Body::Snapshot(snapshot) => {
            pb.set_msg_type(MessageType::MsgSnapshot);
            pb.set_snapshot(snapshot_to_pb(snapshot));
        }
        Body::RequestVote { pre, transfer, index, log_term, commit, commit_term } => {
            pb.set_msg_type(if pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote });
            if transfer {
                pb.context = TRANSFER_CONTEXT.to_vec().into();
            }
            pb.index = index;
            pb.log_term = log_term;
            pb.commit = commit;
            pb.commit_term = commit_term;
        }
        Body::Vote { pre, granted, commit, commit_term } => {
            pb.set_msg_type(if pre {
                MessageType::MsgRequestPreVoteResponse
            } else {
                MessageType::MsgRequestVoteResponse
            });
            pb.reject = !granted;
            pb.commit = commit;
            pb.commit_term = commit_term;
        }
        Body::TimeoutNow => pb.set_msg_type(MessageType::MsgTimeoutNow),
        Body::Ack { .. } => return None,
    }
    Some(pb)
}

/// True if `pb` survives the way over our types and back. Asserted in every debug build for every message that is sent.
pub(crate) fn survives(pb: &PbMessage) -> bool {
    let mut expected = pb.clone();
    for entry in expected.mut_entries().iter_mut() {
        if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
            entry.data.clear();
        }
    }
    // The order of ids in a membership is that of a hash table and means nothing.
    if expected.get_msg_type() == MessageType::MsgSnapshot {
        let conf = conf_state(&membership_from_conf_state(pb.get_snapshot().get_metadata().get_conf_state()));
        expected.mut_snapshot().mut_metadata().set_conf_state(conf);
    }
    message_from_pb(pb).and_then(|ours| message_to_pb(RaftId(pb.from), RaftId(pb.to), ours)).as_ref() == Some(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let mut membership = Membership::of_voters([RaftId(1), RaftId(2)]);
        membership.learners.insert(RaftId(u64::MAX));
        membership
    }

    fn bodies() -> Vec<Body> {
        let payloads = [
            EntryPayload::Empty,
            EntryPayload::Command(vec![0, 1, 255]),
            EntryPayload::Change(membership()),
            EntryPayload::Settle,
        ];
        let entries = payloads.into_iter().zip(5..).map(|(payload, index)| Entry { index, term: 3, payload }).collect();
        let snapshot = Snapshot { index: 9, term: 2, membership: membership(), state: vec![7; 5] };
        let mut bodies = vec![
            Body::Heartbeat { commit: 4, context: vec![1, 2] },
            Body::HeartbeatResponse { commit: 4, context: Vec::new() },
            Body::Append { index: 4, log_term: 2, commit: 3, entries },
            Body::Appended { index: 8, commit: 4 },
            Body::AppendRefused { index: 8, commit: 4, hint: 6, hint_term: 2 },
            Body::Snapshot(snapshot),
            Body::TimeoutNow,
        ];
        for flags in 0..4 {
            let (pre, other) = (flags & 1 == 1, flags & 2 == 2);
            bodies.push(Body::RequestVote { pre, transfer: other, index: 8, log_term: 3, commit: 4, commit_term: 2 });
            bodies.push(Body::Vote { pre, granted: other, commit: 4, commit_term: 2 });
        }
        bodies
    }

    #[test]
    fn every_message_maps_equal_both_ways() {
        for body in bodies() {
            let ours = Message { version: MESSAGE_VERSION, term: 3, number: 0, body };
            let pb = message_to_pb(RaftId(1), RaftId(2), ours.clone()).expect("known to the library");
            assert_eq!((pb.from, pb.to, pb.term), (1, 2, 3));
            assert!(survives(&pb), "{pb:?}");
            assert_eq!(message_from_pb(&pb), Some(ours));
        }
    }

    #[test]
    fn what_is_local_to_a_member_has_no_mapping() {
        for kind in [MessageType::MsgPropose, MessageType::MsgHup, MessageType::MsgReadIndex] {
            let mut pb = PbMessage::default();
            pb.set_msg_type(kind);
            assert_eq!(message_from_pb(&pb), None);
        }
        let ack = Message { version: 1, term: 3, number: 0, body: Body::Ack { number: 1, tick_ns: 1 } };
        assert_eq!(message_to_pb(RaftId(1), RaftId(2), ack), None);
    }

    #[test]
    fn hard_states_and_memberships_map_equal_both_ways() {
        for vote in [None, Some(RaftId(3))] {
            let ours = HardState { term: 5, vote, commit: 2 };
            assert_eq!(hard_state_from_pb(&hard_state_to_pb(ours)), ours);
        }
        assert_eq!(membership_from_conf_state(&conf_state(&membership())), membership());
        assert_eq!(membership_from_context(&membership_to_context(&membership())), Some(membership()));
        assert_eq!(membership_from_context(&[1, 2, 3]), None);
        assert_eq!(membership_from_context(&9_u64.to_le_bytes()), None);
    }

    #[test]
    fn a_change_names_only_what_differs() {
        let to = {
            let mut to = Membership::of_voters([RaftId(1), RaftId(u64::MAX)]);
            to.learners.insert(RaftId(2));
            to
        };
        let change = change_between(&membership(), &to).expect("differs");
        let singles: Vec<_> = change.get_changes().iter().map(|c| (c.node_id, c.get_change_type())).collect();
        assert_eq!(singles, [(u64::MAX, ConfChangeType::AddNode), (2, ConfChangeType::AddLearnerNode)]);
        assert_eq!(change_between(&to, &to), None);
    }
}
