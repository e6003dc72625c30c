//! `tiebreaker-server`: the appliance's daemon.
//!
//! It wires the parts together and owns sockets, clocks and files: one certificate authority, one listening port for all
//! clusters, one member of consensus per cluster, the power devices of the nodes, and the local control socket. What it
//! does is decided in the crates below it. Beside all that stands the QDevice service for Corosync clusters (`qdevice`).
//! LEDs, a button and a watchdog of its own (`board`) go by what it answers itself.

mod asked;
mod audit;
mod backup;
mod board;
mod brake;
pub mod cli;
mod cluster;
mod config;
mod corosync;
mod daemon;
mod desk;
mod device_config;
mod devices;
mod door;
mod drill;
mod enrol;
mod fence_watch;
mod figures;
mod hardening;
mod http;
mod joins;
mod layout;
mod level;
mod local;
mod mdns;
mod notify;
#[cfg(test)]
mod plan_tests;
mod proofs;
mod qdevice;
mod recipe;
mod rejoin;
mod secrets;
mod status_page;
mod stopped;
mod sys;
mod times;
mod witnesses;
