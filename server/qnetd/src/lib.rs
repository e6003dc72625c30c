//! The vote service that Corosync's QDevice clients speak to, without any I/O: what `corosync-qnetd` does, as a state
//! machine.
//!
//! [`Server`] is the door: events and the time go in ([`Server::handle`]), actions come out ([`Server::poll_action`]),
//! and [`Server::poll_timeout`] says when it wants to be called next. The shell owns sockets, TLS and the clock; it
//! decides nothing. Each vote keeps its reason as data ([`Reason`]), so that [`Server::clusters`] can show who holds
//! which vote, since when and why.
//!
//! [`wire`] is the codec, usable from either end. The algorithms are those of the original: `test`, `ffsplit`,
//! `2nodelms` and `lms`; ffsplit answers as the original does, byte for byte. lms is event-driven and has three defects
//! of the original mended; [`Config::lms_as_original`] brings them back.
//!
//! Not here: certificates (the shell tells which names a peer has proven), and the management socket.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that can't go on shall fail"))]

mod cluster;
mod config;
#[doc(hidden)]
pub mod fuzzing;
mod holder;
mod id;
mod notice;
mod reason;
mod server;
mod session;
mod timers;
mod view;
pub mod wire;

pub use config::{Clusters, Config, Limits, TlsMode};
pub use holder::{Holder, Remembered};
pub use id::{ClientId, ClusterName};
pub use notice::{CloseReason, Ending, Notice};
pub use reason::{ChosenBy, Reason, Unsettled};
pub use server::{Action, Event, PeerNames, Saved, Server, Unfit};
pub use view::{ClusterView, MemberView};
