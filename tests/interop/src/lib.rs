//! Real programs for the tests: ours (the daemons and the operator's command) and other people's (`ipmi_sim`, `sushy-emulator`), how they
//! are started, asked, cut off from each other and ended.
//!
//! Everything runs on loopback or in network namespaces of the test's own, and ends with the value that started it.

mod appliance;
mod ask;
mod cluster;
mod corosync;
pub mod ipmi_sim;
mod machine;
mod network;
mod node;
mod program;
mod qnetd;
pub mod sushy;
mod tool;
mod wait;
mod workload;

pub use appliance::Appliance;
pub use ask::{Look, Operator};
pub use cluster::{Cluster, SOON};
pub use corosync::{CorosyncNode, Quorum};
pub use machine::Machine;
pub use network::{Network, require_root};
pub use node::{Node, Supervised};
pub use program::{Program, Ran, loopback, run};
pub use qnetd::{Original, Peer};
pub use tool::tool;
pub use wait::until;
pub use workload::{Run, Workload, command_spec};
