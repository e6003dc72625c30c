//! Commands: everything that can change the replicated state.
//!
//! A command may commit late, twice, or under another leader than the one that proposed it. So each one names the
//! incarnation, generation or fence that it rests on, and `apply` voids it when that has changed.

use serde::{Deserialize, Serialize};

use crate::fence::{Evidence, FenceId, FenceReason};
use crate::name::{MemberName, ResourceName};
use crate::profile::Profile;
use crate::report::WatchdogPromise;
use crate::resource::{MoveReason, Requested, ResourceSpec};
use crate::state::{DeviceStatus, Role};

/// The version of [`Entry`]'s encoding.
pub const ENTRY_VERSION: u32 = 1;

/// A command as the log holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// [`ENTRY_VERSION`].
    pub version: u32,
    /// Names the proposal, so that who asked learns what became of it. Zero when nobody asked.
    pub ticket: u128,
    /// The proposer's wall clock, milliseconds since 1970: for people and for the floor of certificate checks alone.
    pub at_ms: u64,
    /// The command.
    pub command: Command,
}

/// What is to change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A machine joins, or an existing member's addresses change.
    AddMember {
        /// Its name.
        name: MemberName,
        /// Its part.
        role: Role,
        /// Where it listens, `host:port`, best first.
        addresses: Vec<String>,
        /// SHA-256 of its public key, in hex: the only key that speaks for this name from now on.
        key: String,
    },
    /// A member leaves; its certificate is refused from now on.
    RemoveMember {
        /// Whom.
        name: MemberName,
        /// Under which number.
        raft_id: u64,
    },
    /// An operator's key may speak to the members.
    AddOperator {
        /// Its name.
        name: String,
        /// SHA-256 of its public key, in hex.
        key: String,
    },
    /// An operator's certificate is refused from now on.
    RemoveOperator {
        /// Its name.
        name: String,
    },
    /// A life begins.
    Admit {
        /// Whose.
        node: MemberName,
        /// Which start of the agent.
        incarnation: u64,
        /// On which boot.
        boot: String,
        /// The promise that holds while it lasts.
        watchdog: Option<WatchdogPromise>,
        /// The machine's UUID, if it has one.
        #[serde(default)]
        machine: Option<String>,
        /// The newest closed fence of the node that its report had applied; zero if none.
        closed: u64,
    },
    /// A resource comes under protection.
    AddResource {
        /// Its name.
        name: ResourceName,
        /// Its configuration.
        spec: ResourceSpec,
        /// What is wanted of it.
        requested: Requested,
    },
    /// A resource's request or configuration changes; also clears its error.
    SetResource {
        /// Its name.
        name: ResourceName,
        /// The new configuration, if it changes.
        spec: Option<ResourceSpec>,
        /// What is wanted of it.
        requested: Requested,
    },
    /// A resource leaves protection. It is left as it is.
    RemoveResource {
        /// Its name.
        name: ResourceName,
    },
    /// The owner must stop a resource and say so.
    Release {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
        /// Where it shall go, if that is settled.
        to: Option<MemberName>,
        /// Why.
        why: MoveReason,
    },
    /// A resource gets an owner.
    Assign {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
        /// The new owner.
        to: MemberName,
        /// Its life when that was decided.
        incarnation: u64,
    },
    /// A resource is given up until an operator sets it anew.
    GiveUp {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
        /// Why.
        why: String,
    },
    /// A node shall be fenced.
    FenceWanted {
        /// Whom.
        node: MemberName,
        /// Which life.
        incarnation: u64,
        /// Why.
        reason: FenceReason,
    },
    /// A fence is proven.
    Fenced {
        /// Which.
        id: FenceId,
        /// How.
        evidence: Evidence,
    },
    /// A device failed; the fence stays open.
    FenceFailed {
        /// Which.
        id: FenceId,
        /// What happened.
        why: String,
    },
    /// No command of this fence can still land.
    Closed {
        /// Which.
        id: FenceId,
    },
    /// What the appliance knows about a node's power-fencing devices.
    SetDevices {
        /// Whose.
        node: MemberName,
        /// All of them.
        devices: Vec<DeviceStatus>,
    },
    /// Another profile.
    SetProfile {
        /// Which.
        profile: Profile,
    },
    /// How long the appliance has to be well before it leads again.
    SetTakeback {
        /// In seconds.
        seconds: u64,
    },
    /// Every life has applied the last change of profile: the shorter times hold.
    SettleProfile {
        /// The profile that was settled on.
        profile: Profile,
        /// The log index of that change.
        since: u64,
    },
}

/// Why a command was void.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Void {
    /// What it rests on has changed since.
    #[error("the decision that this rested on has changed since: look at `status` and ask again")]
    Outdated,
    /// The name is taken.
    #[error("{name:?} exists already: choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// Nothing of that name.
    #[error("there is no {name:?}: `status` lists what there is")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A fence of the node is open.
    #[error("fence {id} of {node} is open: it has to be closed first")]
    FenceOpen {
        /// The open fence.
        id: FenceId,
        /// Whose.
        node: MemberName,
    },
    /// The node has no admitted life.
    #[error("{node} has no admitted life: it runs nothing that this cluster gave it")]
    NotAdmitted {
        /// Whose.
        node: MemberName,
    },
    /// Fencing the node would leave no majority in service.
    #[error("fencing {node} would leave {left} of {voters} voters in service, which is no majority")]
    NoMajorityLeft {
        /// Whom.
        node: MemberName,
        /// How many would be left.
        left: usize,
        /// Of how many.
        voters: usize,
    },
    /// The fence is not open any more, or was never.
    #[error("fence {id} is not open")]
    FenceNotOpen {
        /// Which.
        id: FenceId,
    },
    /// The node still owns resources.
    #[error("{node} still owns {resource}: move its resources away, or fence it, then remove it")]
    StillOwns {
        /// Who.
        node: MemberName,
        /// What.
        resource: ResourceName,
    },
    /// The specification is wrong.
    #[error("{why}")]
    BadSpec {
        /// What.
        why: String,
    },
    /// A bound of the replicated state is reached.
    #[error("the cluster holds {most} {what} at most")]
    Full {
        /// What.
        what: String,
        /// How many.
        most: usize,
    },
    /// The entry comes from a newer version.
    #[error("this entry has version {version}, which this member doesn't know: update it")]
    Version {
        /// Its version.
        version: u32,
    },
}
