//! What happened: for the log, alerts and the event stream.

use std::net::SocketAddr;

use crate::{
    id::ClusterName,
    reason::{ChosenBy, Reason},
    wire::{ErrorCode, NodeId, Vote},
};

/// What the end of a connection tells of the peer. A stock client lets go of its vote before it takes its leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ending {
    /// It took its leave; in plain text, its system closed the connection, which may mean that, too.
    #[error("the connection ended")]
    Farewell,
    /// Its system closed the connection without a farewell: its process was killed, and is soon started again if it runs
    /// under a service manager. Its Corosync counts the last vote meanwhile.
    #[error("the connection ended without a farewell")]
    Killed,
    /// The network broke it: the peer may know of nothing.
    #[error("the network broke the connection")]
    Broken,
}

/// Why the server closes a connection, or lost it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseReason {
    /// It ended, in this way.
    #[error("{0}")]
    Gone(Ending),
    /// No message for so long that the peer counts as dead.
    #[error("no message in the dead-peer time")]
    Dead,
    /// Another node no longer sees it, and it gave no sign of life.
    #[error("another node no longer sees it and it does not answer")]
    Silent,
    /// It doesn't read what is sent.
    #[error("it does not read its messages")]
    SlowReader,
    /// There are too many connections.
    #[error("too many connections")]
    TooManyClients,
    /// There are too many from its address.
    #[error("too many connections from this address")]
    TooManyFromAddress,
    /// There are too many that have not joined.
    #[error("too many connections that have not joined a cluster")]
    TooManyStrangers,
    /// It joined no cluster in time.
    #[error("it has not joined a cluster in time")]
    NeverJoined,
    /// It names a cluster that isn't served here.
    #[error("its cluster {0} is not served here: add it to the configuration if it should be")]
    UnknownCluster(ClusterName),
    /// It shows no certificate, or one of another cluster.
    #[error("its certificate does not name cluster {0}")]
    WrongCertificate(ClusterName),
    /// It wants TLS, which its cluster doesn't have.
    #[error("it wants TLS, which is off for its cluster")]
    NoTlsHere,
    /// It speaks plain text, which its cluster isn't allowed any more.
    #[error("plain text is not allowed any more for its cluster {0}")]
    PlainText(ClusterName),
    /// It introduced itself twice: the certificate was checked for the first time only.
    #[error("it introduced itself a second time")]
    SecondIntroduction,
}

/// Something that a person may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A node has joined.
    Joined {
        /// Its cluster.
        cluster: ClusterName,
        /// The node.
        node: NodeId,
        /// Where it comes from.
        address: SocketAddr,
    },
    /// A node has gone.
    Left {
        /// Its cluster.
        cluster: ClusterName,
        /// The node.
        node: NodeId,
        /// Why.
        why: CloseReason,
    },
    /// A connection ended before it had joined a cluster, by the server's will.
    TurnedAway {
        /// Where it came from.
        address: SocketAddr,
        /// Why.
        why: CloseReason,
    },
    /// A client was told an error; the stock client ends when it gets most of them.
    Refused {
        /// Where it comes from.
        address: SocketAddr,
        /// The error.
        code: ErrorCode,
    },
    /// A node's ACK or NACK is another than before.
    Moved {
        /// Its cluster.
        cluster: ClusterName,
        /// The node.
        node: NodeId,
        /// What it had.
        from: Option<Vote>,
        /// What it has.
        to: Vote,
        /// Why.
        reason: Reason,
    },
    /// Another partition has the vote; none if it is empty.
    Chosen {
        /// The cluster.
        cluster: ClusterName,
        /// The partition's nodes.
        partition: Vec<NodeId>,
        /// What decided.
        by: ChosenBy,
    },
}
