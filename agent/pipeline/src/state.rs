//! The replicated state: small, explicit, versioned, and the same on every member that has applied the same log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decision::{Decision, LogLine};
use crate::fence::{Fence, FenceId};
use crate::name::{ClusterName, MemberName, ResourceName};
use crate::profile::Profile;
use crate::report::{Trust, WatchdogPromise};
use crate::resource::Resources;
use crate::rules::Rules;

/// The version of the encoded state.
pub const STATE_VERSION: u32 = 1;
/// Lines of the timeline that the state keeps.
pub const LOG_MAX: usize = 500;
/// Closed fences that the state remembers.
pub const CLOSED_FENCES_MAX: usize = 32;
/// Members at most.
pub const MEMBERS_MAX: usize = 65;
/// Resources at most.
pub const RESOURCES_MAX: usize = 2_000;
/// Power-fencing devices of a node at most.
pub const DEVICES_MAX: usize = 16;
/// Addresses of a member at most.
pub const ADDRESSES_MAX: usize = 16;
/// How long the appliance has to be well before it leads again, where nothing else is set, in seconds.
pub const TAKEBACK_S: u64 = 60;
/// Operators at most.
pub const OPERATORS_MAX: usize = 64;

/// A member's part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The deciding machine; runs no workloads.
    Appliance,
    /// Runs workloads.
    Node,
}

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its number in consensus; a member that comes back under its old name gets a new one.
    pub raft_id: u64,
    /// Its part.
    pub role: Role,
    /// Where it listens, `host:port`, best first.
    pub addresses: Vec<String>,
    /// SHA-256 of its public key, in hex.
    pub key: String,
}

/// A node's admitted incarnation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// Which start of the agent.
    pub incarnation: u64,
    /// On which boot.
    pub boot: String,
    /// The promise that holds while it lasts.
    pub watchdog: Option<WatchdogPromise>,
    /// The machine's UUID, if it has one.
    #[serde(default)]
    pub machine: Option<String>,
    /// The log index of its admission.
    pub since: u64,
}

/// A power-fencing device as the appliance knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name, unique per node.
    pub name: String,
    /// Its kind, for instance `ipmi`.
    pub kind: String,
    /// It let us in with the right to switch, and read on while the node renewed.
    pub proven: bool,
    /// What is wrong, if anything.
    pub why: Option<String>,
}

/// What the state holds of a node beyond its membership.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeState {
    /// Its admitted life; `None` before the first admission and after a fence.
    pub life: Option<Life>,
    /// The highest incarnation that was ever admitted.
    pub last_incarnation: u64,
    /// The log index at which its last fence was closed; zero if it never was fenced.
    pub closed_at: u64,
    /// Its power-fencing devices.
    pub devices: Vec<DeviceStatus>,
}

/// Settings of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The profile that is wanted.
    pub profile: Profile,
    /// Other profiles that some life may still run by: the longest of all counts.
    pub unsettled: BTreeSet<Profile>,
    /// The log index of the last change of profile.
    pub profile_since: u64,
    /// A node that leads hands over to the appliance after this many seconds of its good health; [`TAKEBACK_S`] if unset.
    #[serde(default)]
    pub takeback_s: Option<u64>,
}

impl Settings {
    /// How long the appliance has to be well before it leads again.
    #[must_use]
    pub fn takeback(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.takeback_s.unwrap_or(TAKEBACK_S))
    }
}

/// Everything that the members agree on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The cluster.
    pub cluster: ClusterName,
    /// The log index that this state stands at.
    pub applied: u64,
    /// The newest wall clock seen in the log, milliseconds since 1970.
    pub newest_ms: u64,
    /// Members by name.
    pub members: BTreeMap<MemberName, Member>,
    /// Members that were removed, by their last number: their certificates are refused.
    pub removed: BTreeMap<MemberName, u64>,
    /// The number that the next member gets.
    pub next_raft_id: u64,
    /// The numbers of those who vote.
    pub voters: BTreeSet<u64>,
    /// Operators' keys (SHA-256, hex) by name.
    pub operators: BTreeMap<String, String>,
    /// Nodes by name.
    pub nodes: BTreeMap<MemberName, NodeState>,
    /// Resources by name.
    pub resources: Resources,
    /// The generation that the next decision about a resource gets.
    pub next_generation: u64,
    /// Open fences and the last closed ones.
    pub fences: BTreeMap<FenceId, Fence>,
    /// The number that the next fence gets.
    pub next_fence: u64,
    /// Settings.
    pub settings: Settings,
    /// The timeline, oldest first.
    pub log: VecDeque<LogLine>,
    /// Which rules hold; not part of the state.
    #[serde(skip)]
    pub(crate) rules: Rules,
}

/// Why an encoded state can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not our encoding.
    #[error("the state can't be decoded: {0}")]
    Decode(#[from] ciborium::de::Error<std::io::Error>),
    /// A newer version's state.
    #[error("the state has version {found}, this member knows {STATE_VERSION}: update this member")]
    Version {
        /// Its version.
        found: u32,
    },
}

impl State {
    /// The state of a new cluster, whose only member is the appliance under number 1.
    #[must_use]
    pub fn new(cluster: ClusterName, appliance: MemberName, addresses: Vec<String>, key: String) -> Self {
        let member = Member { raft_id: 1, role: Role::Appliance, addresses, key };
        Self {
            version: STATE_VERSION,
            cluster,
            applied: 0,
            newest_ms: 0,
            members: BTreeMap::from([(appliance, member)]),
            removed: BTreeMap::new(),
            next_raft_id: 2,
            voters: BTreeSet::from([1]),
            operators: BTreeMap::new(),
            nodes: BTreeMap::new(),
            resources: BTreeMap::new(),
            next_generation: 1,
            fences: BTreeMap::new(),
            next_fence: 1,
            settings: Settings::default(),
            log: VecDeque::new(),
            rules: Rules::ALL,
        }
    }

    /// The same new cluster with another first number. An appliance that lost its disk founds the cluster anew under a
    /// number that nobody ever had, so members of the lost one never take it for its former self.
    #[must_use]
    pub fn founded_as(mut self, raft_id: u64) -> Self {
        for member in self.members.values_mut() {
            member.raft_id = raft_id;
        }
        self.voters = BTreeSet::from([raft_id]);
        self.next_raft_id = raft_id + 1;
        self
    }

    /// The same state under other rules: for mutation runs.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Encodes the state for a snapshot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("writing to memory can't fail, and every field is encodable");
        bytes
    }

    /// Reads an encoded state.
    ///
    /// # Errors
    /// [`StateError`] where the bytes are no state or a newer version's.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let state: Self = ciborium::from_reader(bytes)?;
        if state.version > STATE_VERSION {
            return Err(StateError::Version { found: state.version });
        }
        Ok(state)
    }

    /// SHA-256 over the encoded state: equal on all members that stand at the same index.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }

    /// The member of a number.
    #[must_use]
    pub fn member_by_id(&self, raft_id: u64) -> Option<(&MemberName, &Member)> {
        self.members.iter().find(|(_, member)| member.raft_id == raft_id)
    }

    /// The appliance.
    #[must_use]
    pub fn appliance(&self) -> Option<&MemberName> {
        self.members.iter().find(|(_, member)| member.role == Role::Appliance).map(|(name, _)| name)
    }

    /// The open fence of a node.
    #[must_use]
    pub fn open_fence(&self, node: &MemberName) -> Option<(FenceId, &Fence)> {
        self.fences.iter().find(|(_, fence)| fence.node == *node && fence.is_open()).map(|(id, fence)| (*id, fence))
    }

    /// The admitted life of a node.
    #[must_use]
    pub fn life(&self, node: &MemberName) -> Option<&Life> {
        self.nodes.get(node).and_then(|state| state.life.as_ref())
    }

    /// True when a member counts as in service: the appliance, and nodes with a life and no open fence.
    #[must_use]
    pub fn in_service(&self, name: &MemberName) -> bool {
        match self.members.get(name).map(|member| member.role) {
            Some(Role::Appliance) => true,
            Some(Role::Node) => self.life(name).is_some() && self.open_fence(name).is_none(),
            None => false,
        }
    }

    /// How many voters would be in service without `node`, and how many voters there are.
    #[must_use]
    pub fn voters_left_without(&self, node: &MemberName) -> (usize, usize) {
        let left = self
            .members
            .iter()
            .filter(|(name, member)| self.voters.contains(&member.raft_id) && *name != node && self.in_service(name))
            .count();
        (left, self.voters.len())
    }

    /// The resources that a node may be running by this state.
    pub fn owned_by<'a>(&'a self, node: &'a MemberName) -> impl Iterator<Item = &'a ResourceName> {
        self.resources.iter().filter(move |(_, r)| r.phase.owner() == Some(node)).map(|(name, _)| name)
    }

    /// Why a node may not be given protected resources; `None` where it may.
    #[must_use]
    pub fn unprotectable(&self, node: &MemberName) -> Option<String> {
        let Some(state) = self.nodes.get(node) else {
            return Some(format!("{node} is not a node"));
        };
        if state.devices.iter().any(|device| device.proven) {
            return None;
        }
        let power = match state.devices.first() {
            None => "it has no power-fencing device".to_owned(),
            Some(device) => format!(
                "its power-fencing device {} is unproven ({})",
                device.name,
                device.why.as_deref().unwrap_or("not tried yet")
            ),
        };
        match state.life.as_ref().map(|life| life.watchdog.as_ref()) {
            None => Some(format!("{node} is not in service")),
            Some(Some(promise)) if promise.trust != Trust::Unproven => None,
            Some(Some(promise)) => Some(format!(
                "{power}, and its watchdog {:?} is not proven: add a device, drill the watchdog, or accept it by name",
                promise.driver
            )),
            Some(None) => Some(format!("{power} and no watchdog: add one of the two")),
        }
    }

    /// The longest lease and watchdog time that any life may still run by.
    #[must_use]
    pub fn longest_lease(&self) -> std::time::Duration {
        let settings = &self.settings;
        if self.rules.longer_times_hold() {
            settings.unsettled.iter().fold(settings.profile.lease(), |most, other| most.max(other.lease()))
        } else {
            settings.profile.lease()
        }
    }

    /// The longest quorum lease that any member may still run by.
    #[must_use]
    pub fn longest_quorum_lease(&self) -> std::time::Duration {
        let settings = &self.settings;
        settings.unsettled.iter().fold(settings.profile.quorum_lease(), |most, other| most.max(other.quorum_lease()))
    }

    pub(crate) fn say(&mut self, at_ms: u64, decision: Decision) {
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(LogLine { index: self.applied, at_ms, decision });
    }
}

#[cfg(test)]
mod tests;
