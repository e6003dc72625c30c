//! The sections `[corosync.NAME]` of `server.toml`: Corosync clusters whose nodes are fenced by this appliance.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_qnetd::wire::NodeId;

use super::right::Names;
use crate::config::ClusterConfig;
use crate::device_config::RawDevice;
use crate::qdevice::Settings as QdeviceSettings;
use crate::recipe::Recipe;

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDoor {
    /// Its `cluster_name` in corosync.conf; its name here, if it is left out.
    qdevice: Option<String>,
    /// It has no QDevice: whichever of its nodes asks first is believed.
    #[serde(default)]
    trusted: bool,
    prove_every_s: Option<u64>,
    /// Its nodes: their `name` and `nodeid` in corosync.conf.
    nodes: BTreeMap<String, u32>,
    #[serde(default)]
    pub(crate) devices: Vec<RawDevice>,
}

/// What is configured for one Corosync cluster.
#[derive(Clone, Debug)]
pub(crate) struct DoorSettings {
    /// Whose vote decides; `None`: whoever asks first is believed.
    pub(crate) qdevice: Option<String>,
    /// Its nodes.
    pub(super) names: Names,
    /// Their power devices, and how often they are proven.
    pub(crate) devices: ClusterConfig,
}

impl RawDoor {
    /// Checks the section; its devices were checked already.
    ///
    /// # Errors
    /// Names the place and the way out.
    pub(crate) fn check(
        &self,
        cluster: &ClusterName,
        devices: Vec<Recipe>,
        prove_every: Option<Duration>,
        votes: Option<&QdeviceSettings>,
    ) -> Result<DoorSettings> {
        let mut names = BTreeMap::new();
        let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
        for (name, id) in &self.nodes {
            let node = MemberName::new(name).context("nodes")?;
            if *id == 0 {
                bail!("nodes: {name} = 0: a nodeid in corosync.conf is 1 or more");
            }
            if let Some(other) = owners.insert(*id, name) {
                bail!("nodes: {other} and {name} have the same nodeid {id}: take them from corosync.conf");
            }
            names.insert(node, NodeId(*id));
        }
        if names.len() < 2 {
            bail!("nodes: name all of the cluster's nodes with their nodeid of corosync.conf, pve1 = 1 and so on");
        }
        if let Some(stray) = devices.iter().find(|device| !names.contains_key(&device.node)) {
            bail!("devices {:?}: {} is none of the cluster's nodes", stray.name, stray.node);
        }
        let qdevice = match (self.trusted, &self.qdevice) {
            (true, Some(_)) => bail!("trusted and qdevice: give one of them; with a QDevice its vote decides"),
            (true, None) => None,
            (false, name) => {
                let name = name.clone().unwrap_or_else(|| cluster.to_string());
                if !votes.is_some_and(|votes| votes.serves(&name)) {
                    bail!(
                        "nobody decides which half of the cluster may fence the other: add [qdevice.clusters.{name:?}], or \
                         qdevice = \"NAME\" if it has another name in corosync.conf, or, for a cluster without a QDevice, trusted = true"
                    );
                }
                Some(name)
            }
        };
        let devices = ClusterConfig { prove_every, devices, ..ClusterConfig::default() };
        Ok(DoorSettings { qdevice, names: Names(names), devices })
    }

    /// How often its devices are proven, in seconds.
    pub(crate) fn prove_every_s(&self) -> Option<u64> {
        self.prove_every_s
    }
}

impl DoorSettings {
    /// Whether a node is one of the cluster's.
    pub(crate) fn has(&self, node: &MemberName) -> bool {
        self.names.0.contains_key(node)
    }
}
