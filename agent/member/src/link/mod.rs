//! Links between members: one TLS port each, requests and joins through the same port, relay through a third member.

mod acceptor;
mod address;
mod client;
mod connection;
mod dial;
mod dialer;
mod error;
mod incoming;
mod lanes;
mod links;
mod local;
mod paths;
mod relay;
mod request;
mod serve;
mod shared;
mod table;
mod timing;
mod tls;

pub use acceptor::Acceptor;
pub use address::{Address, AddressError};
pub use client::{Client, JoinAsk, Joined, Parts, join};
pub use error::{Attempts, LinkError};
pub use incoming::{Incoming, JoinReply, JoinRequest, Payload, Reply, ReplyError, Requester, Via};
pub use links::{Lane, LinkConfig, Links, PathState, PeerPaths, Route, Sent};
pub use local::{LocalAccess, LocalSocket};
pub use table::{MemberEntry, PeerTable};
pub use timing::{MAX_MESSAGE, MAX_REQUEST, MAX_URGENT, Timing};
