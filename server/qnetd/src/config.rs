//! What an operator may set, and the bounds that hold in any case.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    id::ClusterName,
    wire::{MAX_MESSAGE, TlsSupport},
};

/// Whether a cluster's nodes speak TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// They must.
    #[default]
    Required,
    /// They choose.
    Optional,
    /// They can't.
    Off,
}

impl TlsMode {
    pub(crate) fn advertised(self) -> TlsSupport {
        match self {
            Self::Required => TlsSupport::Required,
            Self::Optional => TlsSupport::Supported,
            Self::Off => TlsSupport::Unsupported,
        }
    }
}

/// Which clusters are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Clusters {
    /// Any, as the original does.
    Any(TlsMode),
    /// These; who names another is not answered.
    Named(BTreeMap<ClusterName, TlsMode>),
    /// These, and under TLS any other whose nodes show a certificate that names it: what the authority has signed is
    /// served, without a list beside it.
    Certified(BTreeMap<ClusterName, TlsMode>),
}

impl Clusters {
    /// How a cluster is served, if it is.
    pub(crate) fn mode(&self, name: &ClusterName) -> Option<TlsMode> {
        match self {
            Self::Any(mode) => Some(*mode),
            Self::Named(clusters) => clusters.get(name).copied(),
            Self::Certified(clusters) => Some(clusters.get(name).copied().unwrap_or(TlsMode::Required)),
        }
    }

    /// What holds before a client has named its cluster.
    pub(crate) fn unnamed(&self) -> TlsMode {
        match self {
            Self::Any(mode) => *mode,
            Self::Named(_) | Self::Certified(_) => TlsMode::Required,
        }
    }
}

/// How many, and how much of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections in all.
    pub clients: usize,
    /// Connections from one address.
    pub clients_per_address: usize,
    /// Connections that have not joined a cluster yet, in all: a handshake costs more than a member.
    pub strangers: usize,
    /// Of those, from one address: one alone must not keep all others out.
    pub strangers_per_address: usize,
    /// Bytes in a message of one that has not joined, header included. The stock client's are shorter than 300.
    pub stranger_message: usize,
    /// Messages that wait to be written to one client; with one more it is dropped.
    pub queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 10_000,
            clients_per_address: 1_000,
            strangers: 512,
            strangers_per_address: 128,
            stranger_message: 4096,
            queued: 32,
        }
    }
}

/// The service's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Which clusters are served.
    pub clusters: Clusters,
    /// Whether a client under TLS must show a certificate that names its cluster; it must in any case where certificates
    /// say which clusters are served.
    pub client_cert_required: bool,
    /// Bounds.
    pub limits: Limits,
    /// The shortest heartbeat interval that a client may ask for.
    pub heartbeat_min: Duration,
    /// The longest.
    pub heartbeat_max: Duration,
    /// A client is dropped after this many thousandths of its heartbeat interval without a message; `None`: never.
    pub dead_after_permille: Option<u32>,
    /// A client that has not joined a cluster in this time is dropped, whatever it sends: a place among the strangers must
    /// not be held for ever. `None`: only the dead-peer time counts, as with the original.
    pub join_within: Option<Duration>,
    /// Whether a tie goes to the side that had the vote before, where a client doesn't say.
    pub keep_active: bool,
    /// A client that another node no longer sees is asked for a sign of life, and dropped without one in this time;
    /// `None`: only the dead-peer time counts, as with the original.
    pub answer_within: Option<Duration>,
    /// lms with the original's defects.
    pub lms_as_original: bool,
}

impl Config {
    /// The settings of the original, for these clusters, but with quick detection of silent peers and lms mended.
    #[must_use]
    pub fn new(clusters: Clusters) -> Self {
        Self {
            clusters,
            client_cert_required: true,
            limits: Limits::default(),
            heartbeat_min: Duration::from_secs(1),
            heartbeat_max: Duration::from_secs(120),
            dead_after_permille: Some(1500),
            join_within: Some(JOIN_WITHIN),
            keep_active: false,
            answer_within: Some(ANSWER_WITHIN),
            lms_as_original: false,
        }
    }

    /// As the original in all that can be observed.
    #[must_use]
    pub fn as_original(clusters: Clusters) -> Self {
        let limits = Limits { stranger_message: MAX_MESSAGE, ..Limits::default() };
        Self { answer_within: None, join_within: None, lms_as_original: true, limits, ..Self::new(clusters) }
    }

    /// Whether a client under TLS must show a certificate.
    pub(crate) fn certificate_needed(&self) -> bool {
        match self.clusters {
            Clusters::Any(_) | Clusters::Named(_) => self.client_cert_required,
            Clusters::Certified(_) => true,
        }
    }

    pub(crate) fn dead_after(&self, heartbeat: Duration) -> Option<Duration> {
        self.dead_after_permille.map(|permille| heartbeat.saturating_mul(permille) / 1000)
    }
}

/// The stock client answers within a millisecond; one lost packet is sent again after a fifth of a second, twice lost
/// after three.
const ANSWER_WITHIN: Duration = Duration::from_millis(750);

/// The stock client joins in three round trips and one TLS handshake, and gives up after 8 seconds itself.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
