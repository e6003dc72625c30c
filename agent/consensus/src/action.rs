//! What consensus asks for, and what it knows.

use tiebreaker_pipeline::time::Reading;

use crate::{Batch, Membership, Message, RaftId, Snapshot};

/// One committed entry, as the state machine sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What it carries.
    pub payload: Payload,
}

/// What a committed entry carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Nothing for the state machine: a leader's first entry, or the first half of a change of several members.
    Empty,
    /// A command as it was proposed.
    Command(Vec<u8>),
    /// The membership that holds from here on.
    Membership(Membership),
}

/// Something for the shell (or the core above) to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Hand a message to a member. Losing it is allowed.
    Send {
        /// The member that it is for.
        to: RaftId,
        /// The message.
        message: Message,
    },
    /// Make this batch durable, in the order of the numbers, then say `persisted(number)`.
    Persist(Batch),
    /// Apply these entries to the state machine, in order, then say `applied` with the last one's index.
    Apply(Vec<Committed>),
    /// Replace the whole state machine by this snapshot (it is durable already).
    Restore(Snapshot),
    /// A read asked for by `read(id)` may be answered once the state machine has applied `index`.
    ReadReady {
        /// The number given to `read`.
        id: u64,
        /// The index that must have been applied.
        index: u64,
    },
    /// The read can't be answered: the lead was lost, or no majority confirmed it within one election timeout.
    ReadFailed {
        /// The number given to `read`.
        id: u64,
    },
    /// A member needs a snapshot newer than the one kept here: call `compact` with the state as applied now.
    SnapshotWanted,
}

/// Who leads, as far as this member knows, and what that is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// This member's part in it.
    pub role: Role,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// A member's part in a term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Leads.
    Leader {
        /// The end of the quorum lease: `None` while the gate is shut or the lease has run out. It ends as soon as
        /// either clock reaches it.
        lease_until: Option<Reading>,
    },
    /// Follows.
    Follower {
        /// The leader, if one is known. Hearing a leader is no proof of a quorum.
        leader: Option<RaftId>,
    },
    /// Asks for votes.
    Candidate,
}
