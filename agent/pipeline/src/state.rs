//! The replicated state: small, explicit, versioned, and the same on every member that has applied the same log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decision::{Decision, LogLine};
use crate::fence::{Fence, FenceId};
use crate::level::Level;
use crate::name::{ClusterName, MemberName, ResourceName};
use crate::placement::rule::PlacementRules;
use crate::placement::score::Scoring;
use crate::profile::Profile;
use crate::report::{Capacity, Leave, Trust, WatchdogPromise};
use crate::resource::{Class, Resources};
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
/// Characters of an operator's reason at most.
pub const REASON_MAX: usize = 200;
/// Operators at most.
pub const OPERATORS_MAX: usize = 64;
/// Planned moves under way at once, where nothing else is set.
pub const MOVES: u32 = 4;
/// Planned moves under way at once, at most, unless it is forced: sshd drops connections from ten unauthenticated ones
/// on, and many live migrations take all of a link.
pub const MOVES_MAX: u32 = 8;
/// Failures are forgotten after so many seconds without one, where nothing else is set.
pub const FAILURES_AGE_S: u32 = 3_600;
/// The shortest time that can be set for that: a resource that fails at every start fails within a minute.
pub const FAILURES_AGE_MIN_S: u32 = 60;
/// The longest.
pub const FAILURES_AGE_MAX_S: u32 = 30 * 24 * 3_600;
/// Boots that are remembered by their longest never count as longer than this, in milliseconds.
pub const BOOT_MAX_MS: u64 = 30 * 60_000;

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

/// A member that a takeover left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parted {
    /// Its part.
    pub role: Role,
    /// Its last number.
    pub raft_id: u64,
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
    /// The log index from which its promise does not hold: until it has shown that it keeps it again, no evidence comes
    /// from its watchdog's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbound: Option<u64>,
}

impl Life {
    /// True where this life is certainly another machine's: both have a UUID, and not the same.
    #[must_use]
    pub fn is_of_another(&self, machine: Option<&String>) -> bool {
        self.machine.as_ref().zip(machine).is_some_and(|(mine, other)| mine != other)
    }
}

/// How a node goes, as the cluster has agreed to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leaving {
    /// Which start of the agent goes.
    pub incarnation: u64,
    /// How.
    pub how: Leave,
    /// What happens to its resources.
    pub policy: LeavePolicy,
    /// The log index of the agreement.
    pub since: u64,
}

/// What happens to the resources of a node that goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeavePolicy {
    /// They stay placed there, stopped if the machine goes, and start again when it is back.
    Freeze,
    /// They are stopped there and started elsewhere.
    Failover,
    /// They move away, live where they can, before the machine goes; and return if failback says so.
    Migrate,
}

/// What a planned shutdown means, cluster-wide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownPolicy {
    /// A reboot freezes, a power-off fails over.
    #[default]
    Conditional,
    /// Always freeze.
    Freeze,
    /// Always fail over.
    Failover,
    /// Always migrate.
    Migrate,
}

impl ShutdownPolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Conditional, Self::Freeze, Self::Failover, Self::Migrate];

    /// What happens to the resources of a node that goes like this.
    #[must_use]
    pub const fn on(self, how: Leave) -> LeavePolicy {
        match (self, how) {
            (_, Leave::AgentRestart) | (Self::Freeze, _) | (Self::Conditional, Leave::Reboot) => LeavePolicy::Freeze,
            (Self::Failover, _) | (Self::Conditional, Leave::PowerOff) => LeavePolicy::Failover,
            (Self::Migrate, _) => LeavePolicy::Migrate,
        }
    }

    /// The policy as operators write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Conditional => "conditional",
            Self::Freeze => "freeze",
            Self::Failover => "failover",
            Self::Migrate => "migrate",
        }
    }
}

/// What disarming means for the resources.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DisarmMode {
    /// They stay as they are: nothing starts, stops or moves them.
    Freeze,
    /// The cluster forgets where they are, and looks everywhere when it is armed again.
    Ignore,
}

/// Whether the cluster acts at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arming {
    /// It does.
    #[default]
    Armed,
    /// It finishes what is under way, and disarms then.
    Disarming {
        /// What it means for the resources.
        mode: DisarmMode,
    },
    /// It doesn't: no watchdog is armed, no lease is needed, nobody is fenced for being lost.
    Disarmed {
        /// What it means for the resources.
        mode: DisarmMode,
        /// The log index of it.
        since: u64,
    },
    /// Every node has to arm what it promised before the cluster acts again; if one can't, all disarm again.
    Arming {
        /// What held before.
        mode: DisarmMode,
        /// The log index of it.
        since: u64,
    },
}

impl Arming {
    /// Whether nodes are bound by their leases: nothing runs without one.
    #[must_use]
    pub const fn binds(self) -> bool {
        match self {
            Self::Armed | Self::Disarming { .. } | Self::Arming { .. } => true,
            Self::Disarmed { .. } => false,
        }
    }

    /// Whether the manager decides about resources and lost nodes.
    #[must_use]
    pub const fn acts(self) -> bool {
        match self {
            Self::Armed | Self::Disarming { .. } => true,
            Self::Disarmed { .. } | Self::Arming { .. } => false,
        }
    }
}

impl std::fmt::Display for Arming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Armed => "armed",
            Self::Disarming { .. } => "disarming",
            Self::Disarmed { .. } => "disarmed",
            Self::Arming { .. } => "arming",
        })
    }
}

/// Voters that are left out for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FewerVotes {
    /// Whose votes aren't expected.
    pub without: BTreeSet<MemberName>,
    /// Until then, milliseconds since 1970.
    pub until_ms: u64,
}

/// The switching of power is held: the appliance reads and proves its devices, and tells none of them to switch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Who holds it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Since when, by the proposer's wall clock, milliseconds since 1970.
    pub at_ms: u64,
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { by, reason, .. } = self;
        match reason {
            Some(reason) => write!(f, "held by {by}: {reason}"),
            None => write!(f, "held by {by}"),
        }
    }
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
    /// An operator wants it empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
    /// It goes, and the cluster knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// What it has to give, as it said when it was last admitted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub capacity: Capacity,
    /// The longest of its last boots, from power to a running agent, in milliseconds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub boot_ms: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// Whether the cluster acts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub arming: Arming,
    /// What a planned shutdown means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shutdown: ShutdownPolicy,
    /// How nodes are compared where the rules leave a choice.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Scoring,
    /// Resources move by themselves to even out the load; never with the basic placement.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rebalance: bool,
    /// How many node failures the cluster shall be able to lose; an alarm says when it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerate: Option<u32>,
    /// Planned moves under way at once; [`MOVES`] if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<u32>,
    /// Seconds from the start of one order to the start of the next, by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub order_delay_s: BTreeMap<Class, u32>,
    /// Votes that aren't expected for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewer_votes: Option<FewerVotes>,
    /// Failures are forgotten after so many seconds without one; [`FAILURES_AGE_S`] if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures_age_s: Option<u32>,
    /// No power device is told to switch anything, for as long as this stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

impl Settings {
    /// Failures are forgotten after so long without one.
    #[must_use]
    pub fn failures_age(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.failures_age_s.unwrap_or(FAILURES_AGE_S).into())
    }

    /// How many planned moves may be under way at once.
    #[must_use]
    pub fn moves_at_once(&self) -> usize {
        usize::try_from(self.moves.unwrap_or(MOVES)).unwrap_or(usize::MAX)
    }

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
    /// The feature level that the members have agreed on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub level: Level,
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
    /// Grows with each takeover of a lone member: members of different epochs don't talk to each other.
    #[serde(default, skip_serializing_if = "is_default")]
    pub epoch: u64,
    /// Members that takeovers left behind: their certificates are refused, and they are told why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parted: BTreeMap<MemberName, Parted>,
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
    /// Placement rules by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub placement_rules: PlacementRules,
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
    Decode(#[from] cbor4ii::serde::DecodeError<std::convert::Infallible>),
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
            level: Level::KNOWN,
            cluster,
            applied: 0,
            newest_ms: 0,
            members: BTreeMap::from([(appliance, member)]),
            removed: BTreeMap::new(),
            epoch: 0,
            parted: BTreeMap::new(),
            next_raft_id: 2,
            voters: BTreeSet::from([1]),
            operators: BTreeMap::new(),
            nodes: BTreeMap::new(),
            resources: BTreeMap::new(),
            placement_rules: PlacementRules::new(),
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
        cbor4ii::serde::to_writer(&mut bytes, self)
            .expect("writing to memory can't fail, and every field is encodable");
        bytes
    }

    /// Reads an encoded state.
    ///
    /// # Errors
    /// [`StateError`] where the bytes are no state or a newer version's.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let state: Self = cbor4ii::serde::from_slice(bytes)?;
        if state.version > STATE_VERSION {
            return Err(StateError::Version { found: state.version });
        }
        Ok(state)
    }

    /// Part of the SHA-256 over what decides, which is all but the timeline: equal on all members that stand at the same
    /// index, if each made the same of the log.
    #[must_use]
    pub fn mark(&mut self) -> u64 {
        let log = std::mem::take(&mut self.log);
        let digest = self.digest();
        self.log = log;
        u64::from_be_bytes(*digest.first_chunk().expect("a digest is longer than that"))
    }

    /// SHA-256 over the encoded state: equal on all members that stand at the same index.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }

    /// The member of a number.
    #[must_use]
    #[inline]
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
    #[inline]
    pub fn open_fence(&self, node: &MemberName) -> Option<(FenceId, &Fence)> {
        self.fences.iter().find(|(_, fence)| fence.node == *node && fence.is_open()).map(|(id, fence)| (*id, fence))
    }

    /// The admitted life of a node.
    #[must_use]
    #[inline]
    pub fn life(&self, node: &MemberName) -> Option<&Life> {
        self.nodes.get(node).and_then(|state| state.life.as_ref())
    }

    /// True when a member counts as in service: the appliance, and nodes with a life and no open fence.
    #[must_use]
    #[inline]
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
        self.resources.iter().filter(move |(_, r)| r.phase.is_owned_by(node)).map(|(name, _)| name)
    }

    /// How many planned moves are under way.
    #[must_use]
    pub fn moves_under_way(&self) -> usize {
        self.resources.values().filter(|resource| resource.phase.is_planned_move()).count()
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
        let power = || match state.devices.first() {
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
                "{}, and its watchdog {:?} is not proven: add a device, drill the watchdog, or accept it by name",
                power(),
                promise.driver
            )),
            Some(None) => Some(format!("{} and no watchdog: add one of the two", power())),
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
