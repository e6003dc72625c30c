//! What a program on the same machine asks a daemon through its Unix socket, and what the daemon answers. CBOR, one
//! request and one reply per exchange. Over TLS an operator sends a bare [`Request`] instead: its certificate names the
//! cluster.

mod devices;
mod fencing;

use serde::{Deserialize, Serialize};

pub use devices::{
    DeviceReport, DeviceRequest, DeviceTrial, DrillReport, DrillState, DrillTimes, Hidden, SecretsReport,
    SecretsRequest,
};
pub use fencing::{FenceAnswer, FenceAsk, FenceNode, FenceRequest, FenceShown, FenceStage, FencedCluster, FencedNode};

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
        /// `node`, `operator` or `fence-client`.
        kind: String,
        /// How long it is good for, in seconds.
        ttl_s: u64,
    },
    /// The clusters that the daemon serves.
    Clusters,
    /// The appliance's QDevice service: who is connected, and who has which vote and why.
    Qdevice,
    /// A line with which a node sets its QDevice client up.
    QdeviceInvite {
        /// The Corosync cluster.
        cluster: String,
        /// `ffsplit` or `lms`.
        algorithm: String,
        /// Where the nodes reach the appliance, a name or an address; `None`: the first of its configured addresses.
        host: Option<String>,
        /// How long it is good for, in seconds.
        ttl_s: u64,
    },
    /// Power devices.
    Devices {
        /// Of which cluster; may be left out where the daemon serves one cluster.
        cluster: Option<String>,
        /// What.
        request: DeviceRequest,
    },
    /// The secrets of power devices.
    Secrets(SecretsRequest),
    /// Everything that a backup holds. Only who may read the daemon's own files may ask.
    Backup,
    /// The Corosync clusters whose nodes the appliance fences.
    Fenced,
    /// Holds the switching of power in such a cluster. The answer shows it.
    FencedHold {
        /// Which.
        cluster: String,
        /// Why.
        reason: Option<String>,
    },
    /// Ends a hold of such a cluster. The answer shows it.
    FencedRelease {
        /// Which.
        cluster: String,
    },
    /// What happened in the QDevice service.
    QdeviceEvents {
        /// The run of the daemon that `after` is of.
        run: Option<u64>,
        /// Only events of a higher number.
        after: u64,
        /// Where there are none, waits so long for one, in seconds; at most [`QDEVICE_EVENTS_WAIT_S`].
        wait_s: u64,
    },
}

/// The longest time that a request for events waits, in seconds.
pub const QDEVICE_EVENTS_WAIT_S: u64 = 30;

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
    /// An invitation.
    QdeviceInvitation {
        /// The line for the node's shell. It holds a secret until it is used.
        command: String,
        /// When it ends, seconds since 1970.
        expires: u64,
    },
    /// Power devices.
    Devices {
        /// They.
        reports: Vec<DeviceReport>,
    },
    /// What trying a new device showed.
    Tried(Box<DeviceTrial>),
    /// A drill.
    Drill(DrillReport),
    /// What is known of the secrets.
    Secrets(SecretsReport),
    /// What a backup holds, in plain text: to be sealed before it is written anywhere.
    Backup {
        /// JSON.
        #[serde(with = "serde_bytes")]
        plain: Vec<u8>,
    },
    /// The Corosync clusters whose nodes the appliance fences.
    Fenced {
        /// By name.
        clusters: Vec<FencedCluster>,
    },
    /// Events, oldest first.
    QdeviceEvents {
        /// This run of the daemon: numbers begin anew with each.
        run: u64,
        /// They.
        events: Vec<QdeviceEvent>,
        /// How many that were asked for are forgotten already.
        missed: u64,
    },
    /// Not done.
    Refused {
        /// Why, and the way out.
        why: String,
    },
}

impl std::fmt::Debug for LocalReply {
    /// A token is a secret, and a backup is full of them, so they are never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(reply) => f.debug_tuple("Cluster").field(reply).finish(),
            Self::Token { expires, created, .. } => {
                f.debug_struct("Token").field("expires", expires).field("created", created).finish_non_exhaustive()
            }
            Self::Clusters { names } => f.debug_struct("Clusters").field("names", names).finish(),
            Self::Qdevice { clusters } => f.debug_struct("Qdevice").field("clusters", clusters).finish(),
            Self::QdeviceInvitation { expires, .. } => {
                f.debug_struct("QdeviceInvitation").field("expires", expires).finish_non_exhaustive()
            }
            Self::Devices { reports } => f.debug_struct("Devices").field("reports", reports).finish(),
            Self::Tried(trial) => f.debug_tuple("Tried").field(trial).finish(),
            Self::Drill(report) => f.debug_tuple("Drill").field(report).finish(),
            Self::Secrets(report) => f.debug_tuple("Secrets").field(report).finish(),
            Self::Backup { .. } => f.debug_struct("Backup").finish_non_exhaustive(),
            Self::Fenced { clusters } => f.debug_struct("Fenced").field("clusters", clusters).finish(),
            Self::QdeviceEvents { run, events, missed } => f
                .debug_struct("QdeviceEvents")
                .field("run", run)
                .field("events", events)
                .field("missed", missed)
                .finish(),
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

/// Something that happened in the QDevice service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QdeviceEvent {
    /// Counted from 1 in each run of the daemon.
    pub number: u64,
    /// When, milliseconds since 1970, by the appliance's clock.
    pub at_ms: u64,
    /// Whether a person should look.
    pub warning: bool,
    /// What it was.
    #[serde(flatten)]
    pub what: QdeviceHappening,
    /// The same in a sentence.
    pub text: String,
}

/// What can happen there. Names of clusters have what is not printable ASCII escaped; nodes are Corosync's numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum QdeviceHappening {
    /// The service begins.
    Started {
        /// Nodes that the former process handed over, connections and all.
        kept: usize,
    },
    /// Who had the votes before is not known: nodes that don't see all others wait for a while.
    HoldersUnknown {
        /// Why.
        why: String,
    },
    /// Who gets a vote can't be put on the disk, so nobody gets one in place of others.
    HoldersNotKept {
        /// Why.
        why: String,
    },
    /// A node has connected and joined its cluster.
    NodeJoined {
        /// The cluster.
        cluster: String,
        /// The node.
        node: u32,
        /// Where it comes from.
        address: String,
    },
    /// A node has gone, or was dropped.
    NodeLeft {
        /// The cluster.
        cluster: String,
        /// The node.
        node: u32,
        /// Why.
        why: String,
    },
    /// A node's vote is another.
    VoteMoved {
        /// The cluster.
        cluster: String,
        /// The node.
        node: u32,
        /// `ACK`, `NACK`, or nothing before the first.
        from: Option<String>,
        /// `ACK` or `NACK`.
        to: String,
        /// Why.
        why: String,
    },
    /// Another partition has the vote.
    PartitionChosen {
        /// The cluster.
        cluster: String,
        /// The partition's nodes; none has the vote if it is empty.
        nodes: Vec<u32>,
        /// What decided.
        why: String,
    },
    /// Two halves were equal, and a tie-breaker decided: nothing but the settings speaks for the winner.
    TieBroken {
        /// The cluster.
        cluster: String,
        /// The winner's nodes.
        nodes: Vec<u32>,
        /// What decided.
        why: String,
    },
    /// Somebody names a cluster that isn't served.
    UnknownCluster {
        /// The name.
        cluster: String,
        /// Where it comes from.
        address: String,
    },
    /// A connection was closed before it joined a cluster.
    TurnedAway {
        /// Where it came from.
        address: String,
        /// Why.
        why: String,
    },
    /// A client was told an error. The stock client ends with most of them.
    Refused {
        /// Where it comes from.
        address: String,
        /// The error.
        why: String,
    },
    /// A certificate ends soon, or has ended.
    CertificateEnds {
        /// Whose: the authority's, or a cluster's.
        cluster: Option<String>,
        /// Where it was shown.
        address: Option<String>,
        /// When, milliseconds since 1970.
        ends_ms: u64,
    },
    /// The appliance's clock can't be right, or jumped.
    ClockWrong {
        /// By how many seconds it jumped; `None`: it shows a time before this software was written.
        jumped_s: Option<i64>,
    },
    /// A node was invited, or an invited node got its certificate.
    Invited {
        /// The cluster.
        cluster: String,
        /// Where the node that got its certificate comes from.
        address: Option<String>,
    },
}
