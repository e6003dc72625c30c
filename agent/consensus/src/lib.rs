//! Raft behind a narrow trait, sans-IO: the shell owns sockets, clocks and disks and decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::time::Reading;

/// The number of a voter or learner. Never zero, never used twice in the life of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RaftId(pub u64);

/// Who votes, who only listens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Members whose acknowledgement counts.
    pub voters: BTreeSet<RaftId>,
    /// Members that receive the log and don't count.
    pub learners: BTreeSet<RaftId>,
}

/// One committed entry that carries something for the state machine.
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
    /// Nothing: a leader's first entry.
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
    Send { to: RaftId, message: Message },
    /// Make this batch durable, in the order of the numbers, then say `persisted(number)`.
    Persist(Batch),
    /// Apply these entries to the state machine, in order.
    Apply(Vec<Committed>),
    /// Replace the whole state machine by this snapshot (it is durable already).
    Restore(Snapshot),
    /// A read asked for by `read(id)` may be answered once the state machine has applied `index`.
    ReadReady { id: u64, index: u64 },
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
    /// Leads. `lease_until` is the end of the quorum lease: `None` while the gate is shut.
    Leader { lease_until: Option<Reading> },
    /// Follows `leader`, if it knows one.
    Follower { leader: Option<RaftId> },
    /// Asks for votes.
    Candidate,
}

pub struct Message;
pub struct Batch;
pub struct Snapshot;

/// The narrow door to consensus.
pub trait Consensus {
    /// Runs the ticks that are due at `now`; after a pause they are skipped, not caught up.
    fn advance(&mut self, now: Reading);
    fn step(&mut self, now: Reading, from: RaftId, message: Message) -> Result<(), ()>;
    fn propose(&mut self, command: Vec<u8>) -> Result<(), ()>;
    fn change_members(&mut self, members: Membership) -> Result<(), ()>;
    fn transfer(&mut self, now: Reading, to: RaftId) -> Result<(), ()>;
    fn read(&mut self, id: u64) -> Result<(), ()>;
    fn persisted(&mut self, now: Reading, number: u64);
    /// The state machine has applied everything up to `index`; opens the quorum-lease gate once an entry of the own term is among it.
    fn applied(&mut self, index: u64);
    fn compact(&mut self, index: u64, state: Vec<u8>) -> Result<(), ()>;
    fn set_tick(&mut self, tick: Duration);
    fn leadership(&self, now: Reading) -> Leadership;
    fn membership(&self) -> Membership;
    fn poll_action(&mut self) -> Option<Action>;
    fn poll_timeout(&self) -> Option<Reading>;
}
