//! Failure cases that Proxmox publishes for its HA manager, turned into scenarios of ours, and their outcomes beside ours.
//!
//! The cases are other people's and stay outside this tree: `TIEBREAKER_CASES` names the folder where they lie. A case
//! is a list of commands with the outcome that its authors expect. [`convert`] makes a scenario of it and says what is
//! expected, or why the case is left out. [`compare`] holds what a simulator answered against that, in three tiers:
//! safety, outcome, and how long each recovery took. [`Suite`] runs all of them and judges the whole.
//!
//! This crate simulates nothing: whoever runs a suite brings the simulator, a function from a scenario's JSON to the
//! JSON of its outcome.

mod command;
mod convert;
mod differences;
mod expected;
mod fault;
mod memory;
mod output;
mod published;
mod recovery;
mod scenario;
mod schedule;
mod suite;
mod table;
mod verdict;

pub use convert::{Conversion, Converted, LeftOut, convert};
pub use differences::{DIFFERENCES, Explained};
pub use expected::{Expected, ExpectedResource, State};
pub use output::OutputError;
pub use published::{CASES_VARIABLE, Case, CaseError, Outcome, load};
pub use recovery::{Recovery, Took, Untimed};
pub use scenario::Scenario;
pub use suite::{BoxError, Run, Simulate, Suite};
pub use verdict::{Difference, Timing, Verdict, compare};

#[cfg(test)]
mod tests;
