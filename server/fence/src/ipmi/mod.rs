//! IPMI v2.0 over LAN (RMCP+): a codec that knows no I/O, the client's side as state machines, and the client.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod crypto;
pub(crate) mod error;
pub(crate) mod login;
pub(crate) mod message;
pub(crate) mod packet;
pub(crate) mod rakp;
pub(crate) mod sealed;
pub(crate) mod session;
