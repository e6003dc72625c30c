//! What a program on the same machine asks a daemon through its Unix socket, and what the daemon answers. CBOR, one
//! request and one reply per exchange. Over TLS an operator sends a bare [`Request`] instead: its certificate names the
//! cluster.

use serde::{Deserialize, Serialize};

use crate::core::{Reply, Request};

/// A request through the local socket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalRequest {
    /// For a cluster; may be left out where the daemon serves one cluster.
    Cluster {
        /// Which.
        cluster: Option<String>,
        /// What.
        request: Box<Request>,
    },
    /// A token to join a cluster; the appliance creates the cluster where it is new.
    CreateToken {
        /// Which cluster.
        cluster: String,
        /// `node` or `operator`.
        kind: String,
        /// How long it is good for, in seconds.
        ttl_s: u64,
    },
    /// The clusters that the daemon serves.
    Clusters,
    /// The appliance's QDevice service: who is connected, and who has which vote and why.
    Qdevice,
}

/// The answer through the local socket.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalReply {
    /// The cluster's.
    Cluster(Reply),
    /// A token. It is a secret until it is used.
    Token {
        /// To be typed or pasted.
        token: String,
        /// When it ends, seconds since 1970.
        expires: u64,
        /// The cluster was new.
        created: bool,
    },
    /// The clusters.
    Clusters {
        /// Their names.
        names: Vec<String>,
    },
    /// The QDevice service's clusters.
    Qdevice {
        /// By name.
        clusters: Vec<QdeviceCluster>,
    },
    /// Not done.
    Refused {
        /// Why, and the way out.
        why: String,
    },
}

impl std::fmt::Debug for LocalReply {
    /// A token is a secret, so it is never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(reply) => f.debug_tuple("Cluster").field(reply).finish(),
            Self::Token { expires, created, .. } => {
                f.debug_struct("Token").field("expires", expires).field("created", created).finish_non_exhaustive()
            }
            Self::Clusters { names } => f.debug_struct("Clusters").field("names", names).finish(),
            Self::Qdevice { clusters } => f.debug_struct("Qdevice").field("clusters", clusters).finish(),
            Self::Refused { why } => f.debug_struct("Refused").field("why", why).finish(),
        }
    }
}

/// A Corosync cluster that gets its vote from the appliance's QDevice service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QdeviceCluster {
    /// Its name; what is not printable ASCII is escaped.
    pub name: String,
    /// How its vote is decided.
    pub algorithm: String,
    /// Who wins a tie.
    pub tie_breaker: String,
    /// Whether a tie goes to the side that had the vote before.
    pub keep_active: bool,
    /// Its connected nodes, by number.
    pub nodes: Vec<QdeviceNode>,
}

/// A connected node of such a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QdeviceNode {
    /// Its number.
    pub node: u32,
    /// Where it comes from.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Its ring, as Corosync writes it.
    pub ring: String,
    /// The nodes that it sees.
    pub sees: Vec<u32>,
    /// The nodes that it has configured.
    pub configured: Vec<u32>,
    /// Whether its Corosync says that it has quorum.
    pub quorate: Option<bool>,
    /// `ACK` or `NACK`, whichever it was told last.
    pub vote: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// Since when, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Why it casts nothing until it is told more.
    pub waits: Option<String>,
}
