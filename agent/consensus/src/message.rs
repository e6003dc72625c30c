//! What members say to each other. These are wire types: their encoding is pinned by a golden test.

use serde::{Deserialize, Serialize};

use crate::{Entry, Snapshot};

/// The version of [`Message`] that this build speaks.
pub const MESSAGE_VERSION: u8 = 1;

/// A message between two members. Who sent it is what the link says, never what a message claims.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// [`MESSAGE_VERSION`] of the sender.
    pub version: u8,
    /// The sender's term (of a pre-vote, the term that it would ask for).
    pub term: u64,
    /// The leader's own number for this message, to be acknowledged by [`Body::Ack`]; zero if it wants none.
    pub number: u64,
    /// What is said.
    pub body: Body,
}

/// What is said. There is no proposal, forwarded read or transfer request in it: those never come from a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Body {
    /// The leader lives.
    Heartbeat {
        /// What the receiver may commit.
        commit: u64,
        /// Names the read that this heartbeat confirms, if any.
        #[serde(with = "serde_bytes")]
        context: Vec<u8>,
    },
    /// The answer to a heartbeat. It promises nothing and doesn't wait for a disk.
    HeartbeatResponse {
        /// What the sender has committed.
        commit: u64,
        /// The heartbeat's context.
        #[serde(with = "serde_bytes")]
        context: Vec<u8>,
    },
    /// Entries for the log.
    Append {
        /// The index of the entry before the first.
        index: u64,
        /// That entry's term.
        log_term: u64,
        /// What the leader has committed.
        commit: u64,
        /// The entries, without a gap.
        entries: Vec<Entry>,
    },
    /// Entries are durable at the sender.
    Appended {
        /// The last index that matches the leader's log.
        index: u64,
        /// What the sender has committed.
        commit: u64,
    },
    /// The append didn't fit the sender's log.
    AppendRefused {
        /// The index that the append rested on.
        index: u64,
        /// What the sender has committed.
        commit: u64,
        /// Where to try next.
        hint: u64,
        /// The sender's term at `hint`.
        hint_term: u64,
    },
    /// A snapshot for a member that the log doesn't reach any more.
    Snapshot(Snapshot),
    /// May I lead?
    RequestVote {
        /// Only asking: nobody's term changes.
        pre: bool,
        /// The leader itself asked for this election, so the promise to it doesn't stand against it.
        transfer: bool,
        /// The candidate's last index.
        index: u64,
        /// Its term.
        log_term: u64,
        /// What the candidate has committed.
        commit: u64,
        /// The term of that entry.
        commit_term: u64,
    },
    /// The answer.
    Vote {
        /// Answers a pre-vote.
        pre: bool,
        /// The vote is given.
        granted: bool,
        /// What the voter has committed (with a refusal).
        commit: u64,
        /// The term of that entry.
        commit_term: u64,
    },
    /// The leader hands over: start an election now.
    TimeoutNow,
    /// The message `number` of the leader of this term was stepped, and from then on the sender keeps its vote to itself
    /// for [`crate::PROMISE_TICKS`] of its own ticks.
    Ack {
        /// The acknowledged number.
        number: u64,
        /// The length of the sender's tick.
        tick_ns: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntryPayload, Membership, RaftId};

    #[test]
    fn the_encoding_is_pinned() {
        let membership = Membership::of_voters([RaftId(1), RaftId(2)]);
        let entries = vec![
            Entry { index: 5, term: 2, payload: EntryPayload::Command(vec![1, 2]) },
            Entry { index: 6, term: 2, payload: EntryPayload::Change(membership.clone()) },
        ];
        let bodies = [
            Body::Heartbeat { commit: 3, context: vec![9] },
            Body::Append { index: 4, log_term: 1, commit: 3, entries },
            Body::Snapshot(Snapshot { index: 4, term: 1, membership, state: vec![8] }),
            Body::RequestVote { pre: true, transfer: false, index: 4, log_term: 1, commit: 3, commit_term: 1 },
            Body::TimeoutNow,
            Body::Ack { number: 7, tick_ns: 62_500_000 },
        ];
        let mut text = String::new();
        for body in bodies {
            let message = Message { version: MESSAGE_VERSION, term: 2, number: 1, body };
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &message).expect("encodes");
            text.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
            text.push('\n');
            assert_eq!(cbor4ii::serde::from_slice::<Message>(bytes.as_slice()).expect("decodes"), message);
        }
        assert_eq!(text, include_str!("../tests/golden/messages-v1.hex"));
    }
}
