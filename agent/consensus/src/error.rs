//! Refusals, one enum per door.

use thiserror::Error;

use crate::RaftId;

/// A message was refused; nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StepError {
    /// The sender speaks another version.
    #[error("message of version {version} from a member that speaks another protocol")]
    Version {
        /// Its version.
        version: u8,
    },
    /// The leader knows that this member had an entry which it no longer has.
    #[error(
        "amnesia: the leader commits index {commit}, which this member once acknowledged, but its log ends at {last}; \
         it must rejoin under a new id"
    )]
    Amnesia {
        /// What the leader commits.
        commit: u64,
        /// Where our log ends.
        last: u64,
    },
    /// The leader's entries contradict entries that are committed here.
    #[error("divergence: the leader's entry {index} contradicts a committed one of this member")]
    Diverged {
        /// The index that contradicts.
        index: u64,
    },
    /// The message can't come from a sound member.
    #[error("malformed message: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An answer came from somebody who is no member.
    #[error("answer from {from:?}, which is no member")]
    Stranger {
        /// Who sent it.
        from: RaftId,
    },
    /// The message claims to be from this member itself.
    #[error("message from this member's own id: two members share an id")]
    FromSelf,
}

/// A command was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProposeError {
    /// Another member leads, or none.
    #[error("this member doesn't lead (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<RaftId>,
    },
    /// The lead is being handed over.
    #[error("the lead is being handed to another member")]
    Transferring,
    /// Too much is proposed and not yet committed.
    #[error("too many proposals wait to be committed")]
    Busy,
    /// An empty command has no meaning.
    #[error("an empty command")]
    Empty,
    /// The command is too large.
    #[error("a command of {len} bytes, more than {max}")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// A change of membership was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ChangeError {
    /// Another member leads, or none.
    #[error("this member doesn't lead (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<RaftId>,
    },
    /// The lead is being handed over.
    #[error("the lead is being handed to another member")]
    Transferring,
    /// An earlier change isn't finished, or this leader is so new that one may be pending.
    #[error("an earlier change of membership isn't finished")]
    Pending,
    /// It is the membership already.
    #[error("this is the membership already")]
    Unchanged,
    /// No voters, a zero id, or a member that is both voter and learner.
    #[error("a membership needs voters, no zero id, and nobody in it twice")]
    Unsound,
    /// The leader would lose its own vote: it must hand over first.
    #[error("the leader can't take its own vote away: transfer the lead first")]
    RemovesLeader,
    /// Too much is proposed and not yet committed.
    #[error("too many proposals wait to be committed")]
    Busy,
}

/// A transfer was not begun.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TransferError {
    /// Another member leads, or none.
    #[error("this member doesn't lead (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<RaftId>,
    },
    /// A transfer to oneself silently aborts a running one in the library.
    #[error("this member leads already")]
    ToSelf,
    /// The target doesn't vote.
    #[error("{to:?} is no voter")]
    NotVoter {
        /// The target.
        to: RaftId,
    },
    /// A transfer is running.
    #[error("a transfer to {to:?} is running")]
    Transferring {
        /// Its target.
        to: RaftId,
    },
}

/// A read was not begun.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    /// Another member leads, or none.
    #[error("this member doesn't lead (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<RaftId>,
    },
    /// This leader hasn't committed an entry of its own term yet.
    #[error("this leader is too new: nothing of its own term is committed yet")]
    TooNew,
    /// A read of this number is running.
    #[error("read {id} is running already")]
    Duplicate {
        /// The number.
        id: u64,
    },
    /// Too many reads are running.
    #[error("too many reads wait for an answer")]
    Busy,
}

/// The log was not compacted.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CompactError {
    /// Nothing there to compact, or it is compacted already.
    #[error("index {index} is outside of ({first}, {applied}]: it isn't applied, or compacted already")]
    OutOfRange {
        /// The index asked for.
        index: u64,
        /// The index of the present snapshot.
        first: u64,
        /// The last applied index.
        applied: u64,
    },
    /// A change of several members was half done at that index: compact a later one.
    #[error("the membership was in transition at index {index}")]
    InTransition {
        /// The index asked for.
        index: u64,
    },
    /// The state is too large for a message.
    #[error("a state of {len} bytes, more than {max}")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// What is stored isn't a state in which a member can have stopped.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StoredError {
    /// The term is absurd.
    #[error("term {term} is out of range")]
    TermOutOfRange {
        /// The term.
        term: u64,
    },
    /// The snapshot is unsound or newer than the term.
    #[error("the snapshot at index {index} of term {term} is unsound or newer than the stored term")]
    UnsoundSnapshot {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The log has a gap, falling terms, or an unsound entry.
    #[error("the log after index {after} has a gap, falling terms or an unsound entry")]
    BrokenLog {
        /// The snapshot's index.
        after: u64,
    },
    /// The commit index lies outside of the log.
    #[error("commit index {commit} lies outside of the log, {first} to {last}")]
    CommitOutOfRange {
        /// The commit index.
        commit: u64,
        /// The snapshot's index.
        first: u64,
        /// The last entry's index.
        last: u64,
    },
    /// A vote for the id zero.
    #[error("the stored vote is for the id zero, which nobody has")]
    VoteForNobody,
}

/// A member can't start.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StartError {
    /// The id is zero or absurd.
    #[error("{id:?} is no id of a member")]
    BadId {
        /// The id.
        id: RaftId,
    },
    /// The tick is zero.
    #[error("a tick of no length")]
    NoTick,
    /// What is stored doesn't fit together.
    #[error("the stored state can't be resumed")]
    Stored(#[from] StoredError),
    /// The library refused.
    #[error("the consensus library refused the stored state: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
}
