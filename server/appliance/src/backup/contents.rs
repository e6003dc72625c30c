//! What a backup holds. The plain text is JSON, as that of the secrets: with the passphrase and the `age` program a person can
//! read it without this one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state::State;

/// The layout. It is raised with every change that an older program would take for something else.
pub(crate) const FORMAT: u32 = 1;

/// All of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contents {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// What may be shown.
    pub(crate) manifest: Manifest,
    /// The authority's key and certificate, PEM.
    pub(super) authority: String,
    /// `server.toml`.
    pub(super) settings: String,
    /// Files in the data folder that `server.toml` names, by their names there.
    pub(super) files: BTreeMap<String, String>,
    /// The secrets of power devices, with the recovery keys to which they are sealed.
    pub(super) secrets: Option<serde_json::Value>,
    /// The QDevice authority's key and certificate, PEM.
    pub(super) qdevice_authority: Option<String>,
    /// What is kept of the Corosync clusters that are fenced from here, without fences and proofs.
    pub(super) doors: BTreeMap<ClusterName, serde_json::Value>,
}

/// What is told of a backup. There is no secret in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The version of the program that made it.
    pub(crate) product: String,
    /// When, milliseconds since 1970, by the appliance's clock.
    pub(crate) made_ms: u64,
    /// The appliance's name.
    pub(crate) name: MemberName,
    /// The authority's fingerprint.
    pub(crate) fingerprint: String,
    /// The clusters.
    pub(crate) clusters: Vec<BackedCluster>,
    /// The Corosync clusters that are fenced from here.
    pub(crate) corosync: Vec<ClusterName>,
    /// Whether it serves QDevice clients.
    pub(crate) qdevice: bool,
    /// For which power devices there are secrets.
    pub(crate) secrets: Vec<String>,
    /// Files that `server.toml` names and that are not in the backup, because they lie elsewhere or can't be read.
    pub(crate) left_out: Vec<String>,
}

impl Manifest {
    /// Whether Corosync clusters rest on it: their nodes can't find out that there are two of it.
    pub(crate) fn serves_corosync(&self) -> bool {
        self.qdevice || !self.corosync.is_empty()
    }
}

/// One cluster, as far as the appliance has to know it to come back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackedCluster {
    /// Its name.
    pub(crate) name: ClusterName,
    /// The number under which the appliance was a member. It is never used again.
    pub(crate) number: u64,
    /// The newest time in the cluster's log, milliseconds since 1970: what a board without a clock goes by.
    pub(crate) newest_ms: u64,
    /// The nodes, and where they listen.
    pub(crate) nodes: BTreeMap<MemberName, Vec<String>>,
}

impl BackedCluster {
    /// By the applied state; without one nothing is known but the number.
    pub(super) fn new(name: &ClusterName, number: u64, state: Option<&State>) -> Self {
        let nodes = state.map(|state| {
            let nodes = state.members.iter().filter(|(name, _)| state.nodes.contains_key(*name));
            nodes.map(|(name, member)| (name.clone(), member.addresses.clone())).collect()
        });
        Self {
            name: name.clone(),
            number,
            newest_ms: state.map_or(0, |state| state.newest_ms),
            nodes: nodes.unwrap_or_default(),
        }
    }
}
