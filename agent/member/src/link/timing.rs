//! Times and bounds of the link layer.

use std::time::Duration;

/// Largest member message, and largest part of a reply: 8 MiB. It travels in fragments.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Largest message in the urgent lane: 64 KiB. It travels in one piece, ahead of everything else.
pub const MAX_URGENT: usize = 64 << 10;

/// Largest request of a client: 1 MiB.
pub const MAX_REQUEST: usize = 1 << 20;

/// TCP connect, TLS handshake and greeting must be done in this time, on both sides.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// Between the starts of tries at a member's several addresses.
pub(crate) const STAGGER: Duration = Duration::from_millis(150);

/// First and longest pause between tries to connect.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A connection's unread answer (a refusal) gets this long to arrive before the socket is closed for good.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// A joiner sends its request within this time.
pub(crate) const JOIN_SEND: Duration = Duration::from_secs(10);

/// A join is answered within this time: it may have to wait for a commit.
pub(crate) const JOIN_ANSWER: Duration = Duration::from_secs(30);

/// Joiners at once.
pub(crate) const MAX_JOINS: usize = 8;

/// Handshakes at once, and from one address.
pub(crate) const MAX_PENDING: usize = 128;
pub(crate) const MAX_PENDING_PER_IP: usize = 32;

/// Clients with open requests at once, in one cluster.
pub(crate) const MAX_REQUESTS: usize = 64;

/// Streams that one member splices for others at once, in one cluster.
pub(crate) const MAX_RELAYS: usize = 256;

/// A spliced stream that carried nothing for so long is dead: live ones carry pings several times a second.
pub(crate) const RELAY_IDLE: Duration = Duration::from_secs(10);

/// A client connection on which nothing was heard for so long is closed.
pub(crate) const CLIENT_IDLE: Duration = Duration::from_secs(30);

/// While a request is being answered, both sides hear something this often, and give up after the second time.
pub(crate) const REQUEST_PING: Duration = Duration::from_secs(1);
pub(crate) const REQUEST_DEAD: Duration = Duration::from_secs(10);

/// How a connection between members is watched. Both ends ping on their own; nothing here must agree between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between pings. The peer answers each at once.
    pub ping: Duration,
    /// A path whose newest answered ping was sent longer ago than this is not trusted alone: what is sent goes over
    /// another path (too).
    pub fresh: Duration,
    /// A connection that brought no byte for this long is closed.
    pub dead: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { ping: Duration::from_millis(250), fresh: Duration::from_millis(600), dead: Duration::from_secs(2) }
    }
}
