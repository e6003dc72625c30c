//! The QDevice service: Corosync's stock clients get their vote here. What is decided, the crate `tiebreaker-qnetd`
//! decides; here are the sockets, TLS, certificates and the clock.
//!
//! It stands beside the cluster service and shares nothing with it: its own port, its own authority, its own task.

pub mod adopt;
mod connection;
mod control;
mod engine;
mod events;
mod follow;
mod handover;
mod holders;
mod invite;
mod kept;
mod metrics;
mod pki;
mod poll;
mod questions;
mod records;
mod settings;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod tls;

pub use control::{ControlSettings, ControlSocket, OnShutdown};
pub use engine::Engine;
pub use events::Events;
pub use follow::follow;
pub use handover::Arrived;
pub use holders::HolderFile;
pub use invite::{Invitations, InvitedAlgorithm};
pub use metrics::serve as serve_metrics;
pub use pki::{Pki, PkiError};
pub use questions::Questions;
pub use settings::{RawQdevice, Settings};
pub use status::table;
pub use store::Folder;
