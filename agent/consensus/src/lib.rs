//! Raft behind a narrow trait, sans-IO: the shell owns sockets, clocks and disks and decides nothing.
//!
//! [`Raft`] drives the `raft` library's `RawNode` and implements [`Consensus`]. What is ours around it: elections by
//! rank, the quorum lease, the silence of a restarted voter, the order of persistence and sending, and the checks that
//! keep a peer's message from ever reaching an assertion of the library. Messages and stored records are types of this
//! crate; nothing here parses protobuf.
//!
//! It isn't a network, a disk or a clock: every call brings its own [`Reading`], every effect leaves as an
//! [`Action`], and the same calls give the same actions.
//!
//! [`Reading`]: tiebreaker_pipeline::time::Reading

mod action;
mod check;
mod config;
mod consensus;
mod convert;
mod error;
mod lease;
mod log;
mod membership;
mod message;
mod promise;
mod raft;
mod random;
mod ready;
mod stored;

pub use action::{Action, Committed, Leadership, Payload, Role};
#[cfg(feature = "mutations")]
pub use config::Rules;
pub use config::{Config, ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS, PROMISE_TICKS, Rank, SILENCE_TICKS};
pub use consensus::Consensus;
pub use error::{
    ChangeError, CompactError, ProposeError, ReadError, StartError, StepError, StoredError, TransferError,
};
pub use membership::{Membership, RaftId};
pub use message::{Body, MESSAGE_VERSION, Message};
pub use promise::{Forgotten, Promise};
pub use raft::{MAX_COMMAND_BYTES, MAX_READS, MAX_STATE_BYTES, Raft};
pub use stored::{Batch, Entry, EntryPayload, HardState, Snapshot, SnapshotWrite, Stored, bootstrap};
