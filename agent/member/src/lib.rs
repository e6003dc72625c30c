//! What every member of a cluster runs around the deciding crates: who is who, how members reach each other, what is
//! kept on disk, and the loop that joins them.
//!
//! * `identity`: the certificate authority, certificates, join tokens, and how a peer is judged.
//! * `link`: one mutual-TLS port per member, urgent and bulk lanes, relay through a third member, requests and joins.
//! * `wire`: the frames that cross the links.
//!
//! Nothing here decides anything about the cluster: messages are opaque bytes to the links, and the deciding crates do
//! no I/O.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that can't go on shall fail"))]

pub mod ask;
pub mod core;
pub mod errors;
mod identity;
pub mod join;
mod link;
pub mod program;
pub mod rejoin;
mod renewal;
pub mod runtime;
pub mod service_manager;
pub mod store;
pub mod takeover;
mod wire;

pub use identity::{
    Ca, CaCertificate, CaError, CaFingerprint, CertFault, ClusterName, DEFAULT_TOKEN_TTL, EARLIEST_PLAUSIBLE,
    FileError, Identity, IdentityError, KeyError, Keypair, LEAF_VALIDITY, MemberName, NameError, PeerCert, PeerId,
    Redeemed, Role, Roster, Serial, Subject, SystemClock, TimeFloor, Token, TokenBook, TokenBookError, TokenParseError,
    TokenRefusal, TokenSecret, TokenView, TrustedTime, WallClock, read_guarded, read_private, replace_private,
    request_key, signing_time, trusted_seconds,
};
pub use link::{
    Acceptor, Address, AddressError, Attempts, Client, Incoming, JoinAsk, JoinReply, JoinRequest, Joined, Lane,
    LinkConfig, LinkError, Links, LocalAccess, LocalSocket, MAX_MESSAGE, MAX_REQUEST, MAX_URGENT, MemberEntry, Parts,
    PathState, Payload, PeerPaths, PeerTable, Reply, ReplyError, Requester, Route, Sent, Timing, Via, join,
};
pub use renewal::{Renewal, RenewalError, ask_for_renewal, renew_if_due};
pub use wire::{
    Decoder, Frame, FrameError, Hello, JoinFrame, MIN_VERSION, PROTOCOL_VERSION, Purpose, RefuseCode, encode,
};

pub mod clock;
