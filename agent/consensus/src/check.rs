//! What a peer's message must satisfy before the library sees it: no input from a peer may reach one of its assertions,
//! because a panic ends the process.

use raft::{RawNode, StateRole};

use crate::log::Log;
use crate::stored::{MAX_NUMBER, follow_on};
use crate::{Body, Message, RaftId, StepError};

/// Checks `message` against the state of `node`.
pub(crate) fn check(node: &RawNode<Log>, from: RaftId, message: &Message) -> Result<(), StepError> {
    let raft = &node.raft;
    let malformed = |what| Err(StepError::Malformed { what });
    if !(1..MAX_NUMBER).contains(&message.term) {
        // The library takes a message without a term for one of its own.
        return malformed("term out of range");
    }
    let current = message.term == raft.term;
    let heeded = message.term >= raft.term;
    let leads = raft.state == StateRole::Leader;
    match &message.body {
        Body::Heartbeat { commit, .. } => {
            if current && leads {
                return malformed("two leaders in one term");
            }
            let last = raft.raft_log.last_index();
            if heeded && *commit > last {
                return Err(StepError::Amnesia { commit: *commit, last });
            }
        }
        Body::Append { index, log_term, commit, entries } => {
            if current && leads {
                return malformed("two leaders in one term");
            }
            if *index >= MAX_NUMBER || *commit >= MAX_NUMBER {
                return malformed("index out of range");
            }
            // Term 0 matches any index beyond the end of the log.
            if (*log_term == 0) != (*index == 0) || *log_term > message.term {
                return malformed("an append that rests on an impossible term");
            }
            if !follow_on(entries, *index, *log_term, message.term) {
                return malformed("an append with a gap, falling terms or an unsound entry");
            }
            let committed = raft.raft_log.committed;
            if heeded
                && let Some(entry) = entries.iter().find(|entry| {
                    entry.index <= committed
                        && raft.raft_log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term)
                })
            {
                return Err(StepError::Diverged { index: entry.index });
            }
        }
        Body::Snapshot(snapshot) => {
            if current && leads {
                return malformed("two leaders in one term");
            }
            if !snapshot.is_sound() || snapshot.term > message.term {
                return malformed("an unsound snapshot");
            }
        }
        Body::Appended { index, .. } => {
            if current && leads && *index > raft.raft_log.last_index() {
                return malformed("an acknowledgement of entries that were never sent");
            }
        }
        Body::AppendRefused { index, hint, hint_term, .. } => {
            if *index >= MAX_NUMBER || *hint >= MAX_NUMBER || *hint_term >= MAX_NUMBER {
                return malformed("index out of range");
            }
        }
        Body::RequestVote { index, log_term, commit, commit_term, .. } => {
            if [index, log_term, commit, commit_term].into_iter().any(|number| *number >= MAX_NUMBER) {
                return malformed("index out of range");
            }
        }
        Body::Vote { .. } | Body::HeartbeatResponse { .. } | Body::TimeoutNow | Body::Ack { .. } => {}
    }
    let answers = match &message.body {
        Body::Vote { .. } | Body::HeartbeatResponse { .. } | Body::Appended { .. } | Body::AppendRefused { .. } => true,
        Body::Heartbeat { .. }
        | Body::Append { .. }
        | Body::Snapshot(_)
        | Body::RequestVote { .. }
        | Body::TimeoutNow
        | Body::Ack { .. } => false,
    };
    if answers && raft.prs().get(from.0).is_none() {
        return Err(StepError::Stranger { from });
    }
    Ok(())
}
