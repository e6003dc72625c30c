//! Real programs for the tests: ours (the daemons and the operator's command) and other people's (`ipmi_sim`, `sushy-emulator`), how they
//! are started, asked, cut off from each other and ended.
//!
//! Everything runs on loopback or in network namespaces of the test's own, and ends with the value that started it.

mod appliance;
mod ask;
mod avahi;
mod cluster;
mod corosync;
pub mod fence_agent;
mod fenced;
pub mod ipmi_sim;
mod machine;
mod network;
mod node;
mod pairing;
pub mod plug;
pub mod process;
mod program;
mod qdevice_client;
mod qdevice_host;
mod qnetd;
mod service_manager;
mod soak;
pub mod sushy;
mod systemd;
mod tool;
mod traces;
mod virtual_machine;
mod vote_cluster;
mod wait;
mod wall_clock;
mod workload;

pub use appliance::Appliance;
pub use ask::{Look, Operator};
pub use avahi::Avahi;
pub use cluster::{Cluster, SOON};
pub use corosync::{CorosyncNode, Quorum, QuorumWatch, mounted};
pub use fenced::{Fenced, FencedMachine};
pub use machine::Machine;
pub use network::{Network, require_root};
pub use node::{Node, Supervised};
pub use pairing::{Listens, Pairing};
pub use program::{Program, Ran, loopback, run};
pub use qdevice_client::QdeviceClient;
pub use qdevice_host::{Behind, PASSWORD, QdeviceHost};
pub use qnetd::{Original, Peer};
pub use service_manager::ServiceManager;
pub use soak::{Soak, Soaked};
pub use systemd::Systemd;
pub use tool::tool;
pub use traces::Traces;
pub use virtual_machine::VirtualMachine;
pub use vote_cluster::{Certificate, VoteCluster, alone_with_the_vote, alone_without, whole};
pub use wait::until;
pub use wall_clock::WallClock;
pub use workload::{Run, Workload, command_spec};
