//! The node's agent.
//!
//! It keeps resources running on its node while it holds a lease, and sees to it that nothing runs there afterwards:
//! the executor's operations and drivers, the watchdog and the thread that pets it, and the supervisor that stands in
//! for a service manager and a watchdog device where there is neither.
//!
//! It decides nothing about the cluster: placements, leases and fencing come from `tiebreaker-pipeline` through
//! `tiebreaker-member`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
pub mod cli;
mod config;
pub mod drivers;
mod executor;
mod guard;
mod join;
mod machine;
pub mod operation;
mod processes;
pub mod supervisor;
mod sys;
pub mod usage;
pub mod watchdog;

pub use processes::{KillError, kill_descendants, kill_tree};
