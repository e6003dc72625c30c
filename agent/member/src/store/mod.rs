//! Term, vote, log and snapshot in one file per cluster.
//!
//! What `write` has returned from is durable. A file is opened only as a state that was once written whole; everything
//! else is refused, because a member that forgot its vote or its log can undo what the cluster acknowledged.

mod error;
mod raft_store;
mod record;
mod sectors;

pub use error::StoreError;
pub use raft_store::{Aside, RaftStore};
