//! The fault simulator: a whole cluster in one thread and in virtual time, over the code that really decides.
//!
//! What is real: the core of every member (consensus, the replicated state and its judge, leases, manager, executor's
//! decisions, the appliance's fencing). What is modelled: networks, disks, clocks, power, watchdogs, BMCs, the programs
//! that start and stop things, operators, and everything that goes wrong with them. One seed gives one run, always the
//! same; after each step the invariants are checked, and after everything has healed, that the cluster gets well.
//!
//! It isn't a test of sockets, files or threads: those have tests of their own.
//!
//! Start reading at `world`, then `schedule` and `invariants`.

mod bmc;
mod clock;
mod dice;
mod disk;
mod event;
mod executor;
mod fault;
mod invariants;
mod liveness;
mod machine;
mod mutations;
mod network;
mod power;
mod process;
mod queue;
mod rules;
mod scenes;
mod schedule;
mod search;
mod strike;
mod trace;
mod watchdog;
mod workload;
mod world;

pub use bmc::BmcMode;
pub use fault::{Fault, Scripts, Who};
pub use invariants::Violation;
pub use machine::Kind;
pub use mutations::{Known, Masked, Verdict, known, masked, prove, prove_masked};
pub use rules::{ShellRules, Switches};
pub use schedule::{Schedule, Style};
pub use search::{Found, Until, run, search};
pub use world::Outcome;
