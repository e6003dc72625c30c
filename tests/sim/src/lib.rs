//! The fault simulator: whole clusters in one thread and in virtual time, over the code that really decides.
//!
//! The world that it breaks is `tiebreaker_simulator::world`. Here are the schedules: everything that goes wrong in a run,
//! and what operators do meanwhile, drawn from one seed. One seed gives one run, always the same; after each step the
//! invariants are checked, and after everything has healed, that the cluster gets well.
//!
//! It isn't a test of sockets, files or threads: those have tests of their own.
//!
//! Start reading at `run`, then `schedule`; the invariants are the world's own.

mod fault;
mod liveness;
mod mutations;
mod planned;
mod run;
mod scenes;
mod schedule;
mod search;
mod strike;

pub use fault::{Fault, Scripts};
pub use mutations::{Known, Masked, Verdict, known, masked, prove, prove_masked};
pub use planned::Shape;
pub use run::Outcome;
pub use schedule::{Draw, Schedule, Style};
pub use search::{Found, Until, run, search};
pub use tiebreaker_simulator::world::{BmcMode, Kind, ShellRules, Switches, Violation, Who};
