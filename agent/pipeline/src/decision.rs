//! The timeline: what the cluster decided, in order, for people who ask "what happened at three in the morning?".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Setting;
use crate::fence::{Evidence, FenceId, FenceReason};
use crate::level::Level;
use crate::name::{MemberName, ResourceName, RuleName};
use crate::profile::Profile;
use crate::report::Leave;
use crate::resource::{Again, FailedMoves, MoveReason, Requested};
use crate::state::{Arming, LeavePolicy};

/// One line of the timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// The log index of the command that caused it.
    pub index: u64,
    /// The proposer's wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What was decided.
    pub decision: Decision,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Decision {
    /// A member came.
    Joined {
        /// Who.
        name: MemberName,
    },
    /// Every member knows a higher feature level, which holds from then on.
    LevelRaised {
        /// Which.
        level: Level,
    },
    /// A member left.
    Removed {
        /// Who.
        name: MemberName,
    },
    /// An operator's key was admitted.
    OperatorAdded {
        /// Who.
        name: String,
    },
    /// An operator's key was refused from then on.
    OperatorRemoved {
        /// Who.
        name: String,
    },
    /// Who votes has changed.
    VotersChanged {
        /// The voters' names.
        voters: Vec<String>,
    },
    /// A life began.
    Admitted {
        /// Whose.
        node: MemberName,
        /// Which start of the agent.
        incarnation: u64,
        /// The boot was another one before.
        new_boot: bool,
    },
    /// A resource came under protection.
    ResourceAdded {
        /// Which.
        resource: ResourceName,
    },
    /// A resource was set.
    ResourceSet {
        /// Which.
        resource: ResourceName,
        /// What is wanted of it now.
        requested: Requested,
    },
    /// A resource left protection.
    ResourceRemoved {
        /// Which.
        resource: ResourceName,
    },
    /// A resource has to leave its node.
    Released {
        /// Which.
        resource: ResourceName,
        /// From where.
        node: MemberName,
        /// Why.
        why: MoveReason,
    },
    /// A resource got an owner.
    Assigned {
        /// Which.
        resource: ResourceName,
        /// To whom.
        node: MemberName,
        /// From a node that was fenced.
        recovered_from: Option<MemberName>,
    },
    /// A resource was given up.
    GivenUp {
        /// Which.
        resource: ResourceName,
        /// Why.
        why: String,
    },
    /// A fence began.
    FenceWanted {
        /// Its number.
        id: FenceId,
        /// Whom.
        node: MemberName,
        /// Why.
        reason: FenceReason,
    },
    /// A fence is proven.
    Fenced {
        /// Its number.
        id: FenceId,
        /// Whom.
        node: MemberName,
        /// How.
        evidence: Evidence,
    },
    /// A device failed.
    FenceFailed {
        /// The fence's number.
        id: FenceId,
        /// Whom.
        node: MemberName,
        /// What happened.
        why: String,
    },
    /// A fence is over; the node may come back.
    FenceClosed {
        /// Its number.
        id: FenceId,
        /// Whom.
        node: MemberName,
    },
    /// The power-fencing devices of a node changed.
    Devices {
        /// Whose.
        node: MemberName,
        /// How many are proven.
        proven: usize,
        /// Of how many.
        of: usize,
    },
    /// Another profile.
    ProfileSet {
        /// Which.
        profile: Profile,
    },
    /// A node goes, and said so beforehand.
    Leaving {
        /// Who.
        node: MemberName,
        /// How.
        how: Leave,
        /// What happens to its resources.
        policy: LeavePolicy,
    },
    /// A node has gone in good order.
    Left {
        /// Who.
        node: MemberName,
    },
    /// A node went into maintenance, or came out of it.
    Maintenance {
        /// Which.
        node: MemberName,
        /// Into?
        on: bool,
    },
    /// A resource moves live.
    Migrating {
        /// Which.
        resource: ResourceName,
        /// From where.
        from: MemberName,
        /// To where.
        to: MemberName,
        /// Why.
        why: MoveReason,
    },
    /// A live move has failed: the resource stays where it was.
    MoveFailed {
        /// Which.
        resource: ResourceName,
        /// Where it is.
        from: MemberName,
        /// The failure, and how many there were before it.
        failed: FailedMoves,
    },
    /// A resource was locked or unlocked.
    Lock {
        /// Which.
        resource: ResourceName,
        /// Why it is locked; `None` when it was unlocked.
        reason: Option<String>,
    },
    /// The life of the node that had a locked resource is over, and its lock with it: it is recovered like any other.
    LockDropped {
        /// Which.
        resource: ResourceName,
        /// On which node it was locked.
        node: MemberName,
        /// Why it was locked.
        reason: String,
    },
    /// A placement rule was set or removed.
    Rule {
        /// Which.
        name: RuleName,
        /// It holds from now on.
        set: bool,
    },
    /// A setting changed.
    Set {
        /// To what.
        setting: Setting,
    },
    /// The cluster was disarmed or armed, or is on its way.
    Arming {
        /// What holds now.
        arming: Arming,
        /// Why it could not be armed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// An operator went on though it breaks the plan.
    Forced {
        /// Who.
        by: String,
        /// What was done.
        done: String,
        /// What it breaks.
        breaks: String,
    },
    /// An operator made a member the only one, and gave up all others.
    TakenOver {
        /// Who.
        by: String,
        /// Which member is left.
        member: MemberName,
        /// The epoch from here on.
        epoch: u64,
        /// Who is out.
        without: Vec<MemberName>,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { name } => write!(f, "{name} joined"),
            Self::LevelRaised { level } => write!(f, "the feature level is {level}: every member knows it"),
            Self::Removed { name } => write!(f, "{name} was removed"),
            Self::OperatorAdded { name } => write!(f, "operator {name} was admitted"),
            Self::OperatorRemoved { name } => write!(f, "operator {name} was removed"),
            Self::VotersChanged { voters } => write!(f, "the voters are {}", voters.join(", ")),
            Self::Admitted { node, incarnation, new_boot } => {
                let boot = if *new_boot { "a new boot" } else { "the same boot" };
                write!(f, "{node} was admitted as incarnation {incarnation}, {boot}")
            }
            Self::ResourceAdded { resource } => write!(f, "{resource} came under protection"),
            Self::ResourceSet { resource, requested } => write!(f, "{resource} was set to {requested}"),
            Self::ResourceRemoved { resource } => write!(f, "{resource} left protection"),
            Self::Released { resource, node, why } => write!(f, "{resource} has to leave {node}: {why}"),
            Self::Assigned { resource, node, recovered_from } => match recovered_from {
                Some(from) => write!(f, "{resource} is placed on {node}, recovered from {from}"),
                None => write!(f, "{resource} is placed on {node}"),
            },
            Self::GivenUp { resource, why } => write!(f, "{resource} was given up: {why}"),
            Self::FenceWanted { id, node, reason } => write!(f, "fence {id}: {node} shall be fenced: {reason}"),
            Self::Fenced { id, node, evidence } => write!(f, "fence {id}: {node} is fenced: {evidence}"),
            Self::FenceFailed { id, node, why } => write!(f, "fence {id}: a device of {node} failed: {why}"),
            Self::FenceClosed { id, node } => write!(f, "fence {id}: closed, {node} may come back"),
            Self::Devices { node, proven, of } => write!(f, "{proven} of {of} power devices of {node} are proven"),
            Self::ProfileSet { profile } => write!(f, "the profile is {profile}"),
            Self::Leaving { node, how, policy } => {
                let resources = match policy {
                    LeavePolicy::Freeze => "its resources wait for it",
                    LeavePolicy::Failover => "its resources fail over",
                    LeavePolicy::Migrate => "its resources move away first",
                };
                write!(f, "{node} is about to {how}: {resources}")
            }
            Self::Left { node } => write!(f, "{node} has gone in good order and runs nothing"),
            Self::Maintenance { node, on: true } => write!(f, "{node} is in maintenance"),
            Self::Maintenance { node, on: false } => write!(f, "{node} is out of maintenance"),
            Self::Migrating { resource, from, to, why } => {
                write!(f, "{resource} moves live from {from} to {to}: {why}")
            }
            Self::MoveFailed { resource, from, failed } => {
                let FailedMoves { times, to, why, at_ms } = failed;
                write!(
                    f,
                    "the live move of {resource} from {from} to {to} has failed, {times} in a row by now: {why}"
                )?;
                match failed.again(*at_ms) {
                    Again::Now | Again::In(_) => Ok(()),
                    Again::Never => f.write_str("; it isn't tried again by itself"),
                }
            }
            Self::Lock { resource, reason: Some(reason) } => write!(f, "{resource} was locked: {reason}"),
            Self::Lock { resource, reason: None } => write!(f, "{resource} was unlocked"),
            Self::LockDropped { resource, node, reason } => write!(
                f,
                "the lock of {resource} is off, since nothing runs on {node} any more: it was locked for {reason:?}"
            ),
            Self::Rule { name, set: true } => write!(f, "the rule {name} was set"),
            Self::Rule { name, set: false } => write!(f, "the rule {name} was removed"),
            Self::Set { setting } => write!(f, "a setting was changed: {setting}"),
            Self::Arming { arming, why: None } => write!(f, "the cluster is {arming}"),
            Self::Arming { arming, why: Some(why) } => write!(f, "the cluster is {arming} again: {why}"),
            Self::Forced { by, done, breaks } => write!(f, "{by} forced it: {done}; {breaks}"),
            Self::TakenOver { by, member, epoch, without } => {
                let without: Vec<&str> = without.iter().map(MemberName::as_str).collect();
                let without = without.join(", ");
                write!(
                    f,
                    "{by} took the cluster over with {member} alone, epoch {epoch}: {without} are out for good, and what \
                     they acknowledged without {member} is lost"
                )
            }
        }
    }
}
