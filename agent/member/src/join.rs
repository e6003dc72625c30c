//! What a joiner and the appliance say to each other beyond the token and the certificate request.

use serde::{Deserialize, Serialize};
use tiebreaker_consensus::Snapshot;

/// Sent along by a joiner. CBOR.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JoinInfo {
    /// Where it will listen, `host:port`, best first. Empty for operators.
    pub addresses: Vec<String>,
}

/// What an accepted joiner gets. CBOR.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinGrant {
    /// Its certificate, DER.
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// For a node: its number and everything that the cluster had decided so far.
    pub member: Option<JoinedMember>,
}

/// What a joining node starts with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinedMember {
    /// Its number in consensus.
    pub raft_id: u64,
    /// The state to start from.
    pub snapshot: Snapshot,
}
