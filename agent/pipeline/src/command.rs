//! Commands: everything that can change the replicated state.
//!
//! A command may commit late, twice, or under another leader than the one that proposed it. So each one names the
//! incarnation, generation or fence that it rests on, and `apply` voids it when that has changed.

use serde::{Deserialize, Serialize};

use crate::fence::{Evidence, FenceId, FenceReason};
use crate::level::Level;
use crate::name::{MemberName, ResourceName, RuleName};
use crate::placement::rule::PlacementRule;
use crate::placement::score::Scoring;
use crate::profile::Profile;
use crate::report::{Capacity, Leave, WatchdogPromise};
use crate::resource::{Class, MoveReason, Requested, ResourceSpec};
use crate::state::{DeviceStatus, DisarmMode, FewerVotes, Role, ShutdownPolicy};

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
    /// Every admitted member knows a higher feature level: it holds from here on.
    RaiseLevel {
        /// The level that was committed when that was decided.
        from: Level,
        /// The new one.
        to: Level,
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
        /// What the node has to give.
        #[serde(default, skip_serializing_if = "is_default")]
        capacity: Capacity,
        /// How long its machine took to boot, milliseconds; zero if that is not known.
        #[serde(default, skip_serializing_if = "is_default")]
        booted_in_ms: u64,
    },
    /// A life whose promise was suspended keeps it again: its watchdog is armed, or nothing runs.
    Bind {
        /// Whose.
        node: MemberName,
        /// Which start of the agent.
        incarnation: u64,
        /// The log index from which the promise was suspended.
        since: u64,
    },
    /// A node goes, and says so beforehand.
    Leave {
        /// Who.
        node: MemberName,
        /// Which start of its agent.
        incarnation: u64,
        /// How.
        how: Leave,
    },
    /// A node that goes runs nothing any more: its life is over, in good order.
    Left {
        /// Who.
        node: MemberName,
        /// Which start of its agent.
        incarnation: u64,
        /// The log index at which its going was agreed to.
        since: u64,
    },
    /// A node shall be empty, or may be used again.
    SetMaintenance {
        /// Which.
        node: MemberName,
        /// Empty?
        on: bool,
    },
    /// A resource comes under protection.
    AddResource {
        /// Its name.
        name: ResourceName,
        /// Its configuration.
        spec: ResourceSpec,
        /// What is wanted of it.
        requested: Requested,
        /// Where it shall be first, if that is possible.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<MemberName>,
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
    /// A resource moves live; both nodes own it until that is over.
    Migrate {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
        /// To where.
        to: MemberName,
        /// That node's life when that was decided.
        incarnation: u64,
        /// Why.
        why: MoveReason,
    },
    /// A live move is called off: its source sends nothing more, and its target has to look afresh.
    CallOff {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
        /// Why.
        why: String,
    },
    /// A live move has succeeded at its source, where the resource is proven to be gone: it belongs to its target, which
    /// finishes the move.
    Arrive {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
        /// The target's life when that was decided.
        incarnation: u64,
    },
    /// Its owner may start a resource: its turn has come; or the next step of a live move; or its end.
    Go {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
    },
    /// The failures of a resource are old enough to be forgotten.
    Forget {
        /// Which.
        resource: ResourceName,
        /// The decision that this one rests on.
        generation: u64,
    },
    /// An operator locks a resource, or takes the lock off.
    SetLock {
        /// Which.
        resource: ResourceName,
        /// Why it is locked; `None` unlocks it.
        reason: Option<String>,
    },
    /// A placement rule is set anew.
    SetRule {
        /// Its name.
        name: RuleName,
        /// The rule.
        rule: PlacementRule,
    },
    /// A placement rule ends.
    RemoveRule {
        /// Its name.
        name: RuleName,
    },
    /// A setting of the cluster.
    Set(Setting),
    /// The cluster shall stop acting, as soon as nothing is under way.
    Disarm {
        /// What that means for the resources.
        mode: DisarmMode,
    },
    /// Nothing is under way any more: the cluster doesn't act from now on.
    Disarmed,
    /// The cluster shall act again.
    Arm,
    /// Every node keeps its promise again: the cluster acts from now on.
    Armed {
        /// The log index of `Arm`.
        since: u64,
    },
    /// A node can't keep its promise: all disarm again.
    ArmingFailed {
        /// The log index of `Arm`.
        since: u64,
        /// What is in the way.
        why: String,
    },
    /// An operator went on though it breaks the plan: for the record.
    Forced {
        /// Who.
        by: String,
        /// What was done.
        done: String,
        /// What it breaks.
        breaks: String,
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

impl Command {
    /// The same command, signed by who really asks: what a client writes about itself is no signature.
    #[must_use]
    pub fn signed(self, by: &str) -> Self {
        match self {
            Self::Set(Setting::Hold { reason, .. }) => Self::Set(Setting::Hold { by: by.to_owned(), reason }),
            Self::Set(Setting::Release { .. }) => Self::Set(Setting::Release { by: by.to_owned() }),
            other => other,
        }
    }

    /// The feature level from which on every member can read it: below that a member that can't would make nothing of an entry
    /// of which the others make something.
    #[must_use]
    pub const fn known_from(&self) -> Level {
        match self {
            Self::Set(Setting::Hold { .. } | Setting::Release { .. }) => Level::POWER_CAN_BE_HELD,
            Self::Set(Setting::FailuresAge(_)) => Level::STARTS_ARE_LOOKED_AT,
            Self::Fenced { evidence, .. } => evidence.known_from(),
            _ => Level::FIRST,
        }
    }

    /// Whether it may change what the choice of a node rests on: where resources count, what they and the nodes have, and
    /// the placement rules. `apply` looks at none of that, so nothing is chosen while such a command is on its way.
    #[must_use]
    pub const fn changes_the_picture(&self) -> bool {
        match self {
            Self::AddMember { .. }
            | Self::RemoveMember { .. }
            | Self::Admit { .. }
            | Self::AddResource { .. }
            | Self::SetResource { .. }
            | Self::RemoveResource { .. }
            | Self::Release { .. }
            | Self::Migrate { .. }
            | Self::Assign { .. }
            | Self::Arrive { .. }
            | Self::SetMaintenance { .. }
            | Self::SetRule { .. }
            | Self::RemoveRule { .. } => true,
            Self::AddOperator { .. }
            | Self::RemoveOperator { .. }
            | Self::SetTakeback { .. }
            | Self::SetProfile { .. }
            | Self::SettleProfile { .. }
            | Self::SetDevices { .. }
            | Self::RaiseLevel { .. }
            | Self::CallOff { .. }
            | Self::Go { .. }
            | Self::Forget { .. }
            | Self::GiveUp { .. }
            | Self::SetLock { .. }
            | Self::Set(_)
            | Self::Disarm { .. }
            | Self::Disarmed
            | Self::Arm
            | Self::Armed { .. }
            | Self::ArmingFailed { .. }
            | Self::Forced { .. }
            | Self::FenceWanted { .. }
            | Self::Fenced { .. }
            | Self::FenceFailed { .. }
            | Self::Closed { .. }
            | Self::Bind { .. }
            | Self::Leave { .. }
            | Self::Left { .. } => false,
        }
    }

    /// What an operator has asked for, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::AddResource { name, requested, .. } => format!("{name} was added, {requested}"),
            Self::SetResource { name, requested, .. } => format!("{name} was set, {requested}"),
            Self::SetMaintenance { node, on: true } => format!("{node} went into maintenance"),
            Self::RemoveMember { name, .. } => format!("{name} was removed"),
            Self::SetRule { name, .. } => format!("the rule {name} was set"),
            Self::Release { resource, to: Some(to), .. } => format!("{resource} was relocated to {to}"),
            Self::Migrate { resource, to, .. } => format!("{resource} was migrated to {to}"),
            _ => "the cluster was changed".to_owned(),
        }
    }
}

/// A setting of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// What a planned shutdown means.
    Shutdown(ShutdownPolicy),
    /// How nodes are compared.
    Placement(Scoring),
    /// Whether the load is evened out by itself.
    Rebalance(bool),
    /// How many node failures the cluster shall be able to lose; `None` for no goal.
    Tolerate(Option<u32>),
    /// Planned moves under way at once.
    Moves {
        /// How many; `None` for the usual number.
        most: Option<u32>,
        /// Also above [`crate::state::MOVES_MAX`].
        force: bool,
    },
    /// Seconds between two orders of a class.
    OrderDelay {
        /// Which class.
        class: Class,
        /// How long, in seconds.
        seconds: u32,
    },
    /// Votes that aren't expected for a while; `None` ends that.
    FewerVotes(Option<FewerVotes>),
    /// Failures are forgotten after so many seconds without one; `None` for the usual time.
    FailuresAge(Option<u32>),
    /// From now on no power device is told to switch anything.
    Hold {
        /// Who says so.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Power devices may be told to switch again.
    Release {
        /// Who says so.
        by: String,
    },
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shutdown(policy) => write!(f, "a planned shutdown means {}", policy.word()),
            Self::Placement(mode) => write!(f, "placement is {mode}"),
            Self::Rebalance(true) => f.write_str("the load is evened out by itself"),
            Self::Rebalance(false) => f.write_str("nothing moves by itself to even out the load"),
            Self::Tolerate(Some(failures)) => write!(f, "{failures} node failure(s) shall be tolerable"),
            Self::Tolerate(None) => f.write_str("no number of node failures is demanded to be tolerable"),
            Self::Moves { most: Some(most), .. } => write!(f, "{most} planned move(s) at once"),
            Self::Moves { most: None, .. } => f.write_str("the usual number of planned moves at once"),
            Self::OrderDelay { class, seconds } => write!(f, "{seconds} s between the orders of {class} resources"),
            Self::FewerVotes(Some(fewer)) => {
                let without: Vec<&str> = fewer.without.iter().map(MemberName::as_str).collect();
                write!(f, "the votes of {} are not expected for a while", without.join(", "))
            }
            Self::FailuresAge(Some(seconds)) => write!(f, "failures are forgotten after {seconds} s"),
            Self::FailuresAge(None) => f.write_str("failures are forgotten after the usual time"),
            Self::FewerVotes(None) => f.write_str("all votes are expected again"),
            Self::Hold { by, reason: Some(reason) } => write!(f, "{by} holds the switching of power: {reason}"),
            Self::Hold { by, reason: None } => write!(f, "{by} holds the switching of power"),
            Self::Release { by } => write!(f, "{by} released the switching of power"),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// The cluster needs this member's vote to go on without it.
    #[error(
        "without {node} only {left} of {voters} voters are in service, which is no majority: bring back another voter, or \
         expect all votes again, and remove {node} then"
    )]
    VoteNeeded {
        /// Whose.
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
    /// It was given up, and nobody has said yet that it may be tried again.
    #[error(
        "{resource} is in error ({why}): look into it, then `tiebreaker resource set {resource} --state disabled`, and \
         start it again after that"
    )]
    InError {
        /// Which.
        resource: ResourceName,
        /// Why.
        why: String,
    },
    /// It is locked.
    #[error("{resource} is locked ({reason}): unlock it first, with `tiebreaker resource unlock {resource}`")]
    Locked {
        /// Which.
        resource: ResourceName,
        /// Why.
        reason: String,
    },
    /// The cluster is armed already, or disarmed already, or on its way.
    #[error("the cluster is {state}: nothing to do")]
    Arming {
        /// armed, disarming, disarmed or arming.
        state: String,
    },
    /// The cluster doesn't act.
    #[error("the cluster is disarmed: `tiebreaker arm` first")]
    NotArmed,
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
