//! The heart of Tiebreaker, sans-IO: the replicated state and its judge, leases on both sides, the manager, and the
//! executor's decisions.
//!
//! Nothing here sleeps, reads a clock, draws a random number or touches a file: time and events come in, actions come
//! out, and the same input gives the same output on every machine. The shells around it own sockets, clocks and disks
//! and decide nothing.
//!
//! Start reading at [`state::State`], then [`command::Command`] and the judge, then [`manager::manage`].

pub mod command;
pub mod decision;
pub mod fence;
pub mod fencer;
#[cfg(test)]
mod fixture;
mod judge;
pub mod leader;
pub mod level;
pub mod manager;
pub mod name;
pub mod node;
pub mod placement;
pub mod planner;
pub mod profile;
pub mod report;
pub mod resource;
pub mod rules;
pub mod state;
pub mod time;

pub use judge::TakeoverError;
