//! What can go wrong on a link, in words that name fault and way out.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::{CaFingerprint, CertFault, MemberName};
use crate::wire::{FrameError, RefuseCode};

/// A failure of the link layer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The port can't be listened on.
    #[error("can't listen on {addr}: {}", bind_hint(source))]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// This process already serves the cluster.
    #[error("cluster '{0}' is already served on this port: give each cluster its own name")]
    AlreadyServed(crate::identity::ClusterName),
    /// No address to try.
    #[error("no address is known for {who}: name at least one")]
    NoAddress {
        /// Who was to be reached.
        who: String,
    },
    /// A host name has no address.
    #[error("can't find the host '{host}': check its spelling and the DNS, or give its IP address")]
    Resolve {
        /// The name.
        host: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// None of several addresses worked.
    #[error(
        "can't reach {who}: {attempts}; check that it runs, that the address is right, and that no firewall is between"
    )]
    Unreachable {
        /// Who was to be reached.
        who: String,
        /// What happened at each address.
        attempts: Attempts,
    },
    /// Nobody answered.
    #[error("{what} took longer than {after:?}: the other side is down, overloaded, or cut off")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// This side refuses the peer's certificate.
    #[error("refused to talk to {at}: {fault}")]
    PeerCertificate {
        /// Where the peer was met.
        at: String,
        /// Why.
        fault: CertFault,
    },
    /// The peer refuses this side's certificate.
    #[error("{at} refused this machine's certificate: {fault}")]
    OwnCertificate {
        /// Where the peer was met.
        at: String,
        /// Why.
        fault: CertFault,
    },
    /// The joiner's own refusal.
    #[error(
        "the appliance at {at} has another CA than the token pins ({pin}): check the address, or make a token on that appliance; nothing was sent to it"
    )]
    TokenPinsOtherCa {
        /// Where it was met.
        at: String,
        /// What the token says.
        pin: CaFingerprint,
    },
    /// The host doesn't serve the cluster.
    #[error("{at} doesn't serve cluster '{cluster}': check the address and the cluster's name")]
    NotServed {
        /// Where it was met.
        at: String,
        /// The cluster.
        cluster: crate::identity::ClusterName,
    },
    /// What answers isn't Tiebreaker.
    #[error("{at} doesn't speak Tiebreaker's protocol: check address and port")]
    NotTiebreaker {
        /// Where it was met.
        at: String,
    },
    /// The peer refused, and says why.
    #[error("{at} refused: {text}")]
    Refused {
        /// Where it was met.
        at: String,
        /// The reason, for programs.
        code: RefuseCode,
        /// The reason, for people.
        text: String,
    },
    /// The peer is in another epoch of the cluster.
    #[error("{at} refused: {text}")]
    OtherEpoch {
        /// Where it was met.
        at: String,
        /// Its epoch.
        epoch: u64,
        /// The reason, for people.
        text: String,
    },
    /// TLS failed for a reason of its own.
    #[error("the TLS connection with {at} failed")]
    Tls {
        /// Where the peer was met.
        at: String,
        /// The library's answer.
        #[source]
        source: rustls::Error,
    },
    /// The connection failed.
    #[error("the connection with {at} failed")]
    Io {
        /// Where the peer was met.
        at: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The peer sent something that it must not send.
    #[error("{at} broke the protocol")]
    Frame {
        /// Where the peer was met.
        at: String,
        /// What it sent.
        #[source]
        source: FrameError,
    },
    /// The other side ended the connection before it had answered.
    #[error(
        "{at} closed the connection before it answered: it was stopped, or this certificate may not do that; look at its log"
    )]
    Closed {
        /// Where the peer was met.
        at: String,
    },
    /// A request failed over there.
    #[error("{text}")]
    Failed {
        /// Why, in the other side's words.
        text: String,
    },
    /// The reply before is still under way on this connection.
    #[error("the reply before was not read to its end: open another connection")]
    Unfinished,
    /// A request or part larger than allowed.
    #[error("a message of {len} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The relay knows no way either.
    #[error("no other member can relay to '{0}' now")]
    NoRelay(MemberName),
    /// Another daemon has the local socket.
    #[error("another daemon already serves {path}: stop it first (systemctl status tells which)")]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Something that isn't a socket is in the way.
    #[error("{path} is not a socket: move it away, or configure another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The local socket can't be made or reached.
    #[error("can't {action} the socket {path}: {}", local_hint(source))]
    Local {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn bind_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses this port: stop it ('ss -ltnp' shows which), or configure another".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine doesn't have that address: configure one that it has".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE: configure a higher one".to_owned()
        }
        _ => error.to_string(),
    }
}

fn local_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no daemon runs here: start tiebreaker-agent or tiebreaker-server, or name a member's address".to_owned()
        }
        io::ErrorKind::PermissionDenied => "run as root, or as a member of the socket's group".to_owned(),
        _ => error.to_string(),
    }
}

/// What happened at each address that was tried.
#[derive(Debug)]
pub struct Attempts(pub Vec<(String, LinkError)>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (at, error)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            match error {
                LinkError::Io { source, .. } => write!(f, "{at}: {source}")?,
                other => write!(f, "{at}: {other}")?,
            }
        }
        Ok(())
    }
}
