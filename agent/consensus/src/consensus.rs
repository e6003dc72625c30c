//! The narrow door.

use std::time::Duration;

use tiebreaker_pipeline::time::Reading;

use crate::{
    Action, ChangeError, CompactError, Leadership, Membership, Message, ProposeError, RaftId, Rank, ReadError,
    StepError, TransferError,
};

/// Consensus as the core above sees it. After any call, drain [`Consensus::poll_action`].
pub trait Consensus {
    /// Runs the tick that is due at `now`, if one is; after a pause ticks are skipped, not caught up.
    fn advance(&mut self, now: Reading);

    /// Takes a message from a peer. `from` is who the link says it is.
    ///
    /// # Errors
    /// The message was refused and changed nothing. [`StepError::Amnesia`] means that this member has forgotten what
    /// it once told the leader: it must rejoin under a new id.
    fn step(&mut self, now: Reading, from: RaftId, message: Message) -> Result<(), StepError>;

    /// Proposes a command, on the leader only. It may commit late, under another leader, or never.
    ///
    /// # Errors
    /// The command was not taken.
    fn propose(&mut self, command: Vec<u8>) -> Result<(), ProposeError>;

    /// Proposes a new membership, on the leader only.
    ///
    /// # Errors
    /// The change was not taken, because of what the variant says.
    fn change_members(&mut self, members: Membership) -> Result<(), ChangeError>;

    /// Hands the lead to `to`. The quorum lease shuts first and stays shut for the rest of the term.
    ///
    /// # Errors
    /// The transfer was not begun, and the lease is untouched.
    fn transfer(&mut self, now: Reading, to: RaftId) -> Result<(), TransferError>;

    /// Asks for a linearizable read; ends in `ReadReady` or `ReadFailed`.
    ///
    /// # Errors
    /// The read was not begun.
    fn read(&mut self, id: u64) -> Result<(), ReadError>;

    /// Every batch up to `number` is durable.
    fn persisted(&mut self, now: Reading, number: u64);

    /// The state machine has applied everything up to `index`; opens the quorum-lease gate once an entry of the own
    /// term is among it.
    fn applied(&mut self, index: u64);

    /// Replaces the log up to `index` (which was applied) by the `state` as of then.
    ///
    /// # Errors
    /// Nothing was compacted.
    fn compact(&mut self, index: u64, state: Vec<u8>) -> Result<(), CompactError>;

    /// Sets the length of a tick; counts never change.
    fn set_tick(&mut self, tick: Duration);

    /// Sets this member's place in the order of elections.
    fn set_rank(&mut self, rank: Rank);

    /// Who leads at `now`, and what that is worth.
    fn leadership(&self, now: Reading) -> Leadership;

    /// The membership in force, as applied here.
    fn membership(&self) -> &Membership;

    /// The next thing to do.
    fn poll_action(&mut self) -> Option<Action>;

    /// When to call `advance` next: as soon as either clock reaches it.
    fn poll_timeout(&self) -> Option<Reading>;
}
