//! The manager: a pure function of the replicated state, the nodes' reports and the time. It runs on the leader, inside
//! its quorum lease, and gives proposals; what it waits for, it says as data.

mod asked;
mod balance;
mod disarming;
mod memory;
mod nodes;
mod outlook;
mod probes;
mod round;
mod sight;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::fence::FenceId;
use crate::leader::Leases;
use crate::name::{MemberName, ResourceName, RuleName};
use crate::placement::choose::{Choice, Outcome};
use crate::report::Observed;
use crate::state::{Role, State};
use crate::time::Reading;
use round::Round;

pub use asked::AskError;
pub use memory::Memory;
pub use outlook::{Drain, DrainMove, Outlook};

/// A node that was admitted but not heard since this leader's process started gets this long to boot.
pub const BOOT_GRACE: Duration = Duration::from_secs(60);

/// So many resources are given a node in one look at most: a look has to be short, since leases are renewed in between. The
/// next one comes as soon as all of that is applied.
const PLACED_AT_ONCE: usize = 128;

/// What the manager waits for, or why it chose as it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Why {
    /// All is as wanted.
    #[error("it runs where it belongs")]
    Runs,
    /// It is stopped, as asked.
    #[error("it is stopped, as asked")]
    StoppedAsAsked,
    /// The owner works on it.
    #[error("{node} has it and says: {observed:?}")]
    AtWork {
        /// The owner.
        node: MemberName,
        /// What it sees.
        observed: Observed,
    },
    /// The owner hasn't applied the decision yet, or isn't heard.
    #[error(
        "waiting for {node} to report that it has applied the decision: its next renewal does; if none comes, `tiebreaker \
         status` shows since when {node} is not heard and why it gets no lease"
    )]
    WaitingForReport {
        /// Who.
        node: MemberName,
    },
    /// The owner is lost and being fenced.
    #[error("waiting for proof that {node} is off (fence {id}): {}", proof(node, last_failure.as_deref(), *suffices_in_s))]
    WaitingForFence {
        /// Who.
        node: MemberName,
        /// Its fence.
        id: FenceId,
        /// What its devices ran into last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_failure: Option<String>,
        /// So many seconds from now lease and watchdog have run out for certain, which is proof enough; `None` where they
        /// prove nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suffices_in_s: Option<u64>,
    },
    /// The owner is lost, and can't be fenced now.
    #[error("{node} is lost and can't be fenced now: {why}")]
    CannotFence {
        /// Who.
        node: MemberName,
        /// Why.
        why: String,
    },
    /// A new resource must be proven stopped on every node.
    #[error(
        "new: waiting until {node} has said whether it runs there already: bring {node} back, or `tiebreaker fence {node}`, \
         which proves that it doesn't; one that never came up can be removed (`tiebreaker member remove {node}`)"
    )]
    WaitingForProbe {
        /// Who.
        node: MemberName,
    },
    /// A new resource's probe told nothing on a node.
    #[error(
        "new: {node} can't tell whether it runs there already: {why}; as soon as its probe there tells running or stopped it \
         goes on by itself"
    )]
    ProbeUnknown {
        /// Who.
        node: MemberName,
        /// What its probe ran into.
        why: String,
    },
    /// It runs on several nodes already.
    #[error("new: it runs on {first} and on {second} already: stop it on one of them")]
    RunsTwice {
        /// One.
        first: MemberName,
        /// The other.
        second: MemberName,
    },
    /// No node may have it.
    #[error("no node can take it: {}", .why.join("; "))]
    NoNode {
        /// Why not, node by node.
        why: Vec<String>,
    },
    /// A decision is on its way through the log.
    #[error("a decision is on its way through the log")]
    Deciding,
    /// It runs, and stays where it is though another node is preferred.
    #[error("it runs; {why}")]
    Stays {
        /// Why it stays.
        why: String,
    },
    /// It moves live.
    #[error("it moves live from {from} to {to}: {why}")]
    Moving {
        /// From where.
        from: MemberName,
        /// To where.
        to: MemberName,
        /// Why.
        #[serde(default)]
        why: String,
    },
    /// It runs, and shall move as soon as that is possible.
    #[error("it runs, and shall move: {why}")]
    MoveWaits {
        /// Why it shall move, and what is in the way.
        why: String,
    },
    /// It runs, and shall move, and its live moves fail.
    #[error(
        "it runs, and shall move, but its live move to {to} has failed {times} time(s) in a row: {why}; {}",
        next_try(resource, *again_in_s)
    )]
    MoveFailed {
        /// The resource.
        resource: ResourceName,
        /// Where the last one should have gone.
        to: MemberName,
        /// How many have failed.
        times: u32,
        /// What went wrong with the last one.
        why: String,
        /// When the next one is tried; `None` if none is.
        again_in_s: Option<u64>,
    },
    /// Others have waited for it for long enough.
    #[error("{waits}; what starts after it waits for it no longer")]
    PassedOver {
        /// What it waits for itself.
        waits: Box<Why>,
    },
    /// Something else has to run first.
    #[error("waiting for its turn: {after} has to run first")]
    WaitingForTurn {
        /// What it waits for.
        after: ResourceName,
    },
    /// So many are given a node before it that it has to wait for the next look.
    #[error("waiting for its turn: {first} others are given a node first")]
    WaitingForOthers {
        /// How many.
        first: usize,
    },
    /// Its node said that it goes, and comes back.
    #[error(
        "frozen: {node} said that it is about to {how}; it starts again when {node} is back, or `tiebreaker resource relocate` moves it"
    )]
    Frozen {
        /// Which node.
        node: MemberName,
        /// How it goes.
        how: crate::report::Leave,
    },
    /// An operator has locked it.
    #[error("locked: {reason}")]
    Locked {
        /// Why.
        reason: String,
    },
    /// The cluster has nothing to do with it.
    #[error("the cluster has nothing to do with it, as asked")]
    Ignored,
    /// The cluster doesn't act.
    #[error("the cluster is {state}: nothing is started, stopped or moved; `tiebreaker arm` ends that")]
    Disarmed {
        /// disarming, disarmed or arming.
        state: String,
    },
    /// The cluster is about to be disarmed, as soon as what is under way is over.
    #[error(
        "the cluster is disarming, and waits for {}; `tiebreaker arm` calls the disarming off",
        .waits.join("; and for ")
    )]
    Disarming {
        /// What is waited for, each with what can be done about it.
        waits: Vec<String>,
    },
    /// It was given up.
    #[error(
        "it was given up: {why}; `tiebreaker resource set {resource} --state disabled` clears that, then started tries again"
    )]
    Error {
        /// The resource.
        resource: ResourceName,
        /// What went wrong.
        why: String,
    },
}

/// What the proof of a fence is waiting for, and what else would do.
fn proof(node: &MemberName, last_failure: Option<&str>, suffices_in_s: Option<u64>) -> String {
    let blocks = last_failure.map_or_else(|| "no device has proven it yet".to_owned(), ToOwned::to_owned);
    match suffices_in_s {
        Some(0) => format!("{blocks}; the lease arithmetic suffices now"),
        Some(left) => format!("{blocks}; in {left} s the lease arithmetic suffices"),
        None => format!(
            "{blocks}; its watchdog proves nothing, so only a device or your word can: once it is off for certain, \
             `tiebreaker fence confirm {node}`"
        ),
    }
}

fn next_try(resource: &ResourceName, again_in_s: Option<u64>) -> String {
    match again_in_s {
        Some(seconds) => format!("the next try is in {seconds} s"),
        None => format!(
            "it was given up: `tiebreaker resource migrate {resource} NODE` tries once more, `tiebreaker resource relocate \
             {resource} NODE` stops it here and starts it there"
        ),
    }
}

impl Why {
    /// It runs where it may stay, for the reason that a choice gave.
    fn stays(choice: &Choice) -> Self {
        match &choice.outcome {
            Outcome::StaysWithoutFailback { .. } => Self::Stays { why: choice.outcome.to_string() },
            Outcome::Stays { .. }
            | Outcome::Home { .. }
            | Outcome::Only { .. }
            | Outcome::Best { .. }
            | Outcome::Next { .. }
            | Outcome::Nowhere => Self::Runs,
        }
    }
}

/// What the manager wants done, and why it waits elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// To be proposed.
    pub proposals: Vec<Command>,
    /// Per resource, what holds or what it waits for.
    pub why: BTreeMap<ResourceName, Why>,
    /// Per node that is lost and not fenced, the reason.
    pub unfenced: BTreeMap<MemberName, String>,
    /// Per placement rule without effect, the reason.
    pub rule_faults: BTreeMap<RuleName, String>,
    /// What disarming waits for, each with what can be done about it.
    pub disarming: Vec<String>,
    /// For the next look.
    pub memory: Memory,
}

/// Everything that the manager looks at.
pub struct View<'a> {
    /// The replicated state.
    pub state: &'a State,
    /// The lease table.
    pub leases: &'a Leases,
    /// Now, on the leader's clocks.
    pub now: Reading,
    /// When the leader's own process started, or heard a majority again after everybody had lost their power.
    pub started: Reading,
    /// Whom that process has heard since then, in whatever term: they have booted.
    pub met: &'a BTreeSet<MemberName>,
    /// The leader's wall clock, milliseconds since 1970: for what people set an end to, never for safety.
    pub wall_ms: u64,
    /// What the last look handed on.
    pub memory: &'a Memory,
    /// Nothing of this leader's is on its way through the log that changes what a choice rests on. Otherwise the state says
    /// less than is decided: what is chosen by it could break a rule together with what is to come, and `apply`, which sees
    /// both, judges by no rule.
    pub settled: bool,
}

/// One look at the cluster.
#[must_use]
pub fn manage(view: &View<'_>) -> Plan {
    look(view, PLACED_AT_ONCE)
}

fn look(view: &View<'_>, placed_at_once: usize) -> Plan {
    let mut plan = Plan::default();
    for node in view.state.nodes.keys() {
        view.node(node, &mut plan);
    }
    view.profile(&mut plan);
    view.arming(&mut plan);
    view.votes(&mut plan);
    Round::new(view, placed_at_once, &mut plan).look();
    view.disarming(&mut plan);
    plan
}

/// The voters that the cluster should have: the appliance alone while fewer than two nodes have joined, since two voters
/// are worse than one; else the appliance and two nodes, or four from five nodes on. Nodes that vote already keep voting.
///
/// Without an appliance an odd number of nodes votes, five at most. Votes that aren't expected for a while are left out.
#[must_use]
pub fn wanted_voters(state: &State) -> BTreeSet<u64> {
    let left_out = |name: &MemberName| state.settings.fewer_votes.as_ref().is_some_and(|f| f.without.contains(name));
    let of = |role: Role| {
        let members = state.members.iter().filter(move |(name, member)| member.role == role && !left_out(name));
        members.map(|(name, member)| (name, member.raft_id))
    };
    let mut nodes: Vec<(&MemberName, u64)> = of(Role::Node).collect();
    let want = match (state.appliance(), nodes.len()) {
        (Some(_), 0 | 1) => usize::from(state.settings.fewer_votes.is_some()),
        (Some(_), 2..=4) => 2,
        (Some(_), _) => 4,
        (None, 0..=2) => 1,
        (None, 3 | 4) => 3,
        (None, _) => 5,
    };
    nodes.sort_by_key(|(name, id)| (!state.voters.contains(id), !state.in_service(name), *id));
    of(Role::Appliance).map(|(_, id)| id).chain(nodes.into_iter().take(want).map(|(_, id)| id)).collect()
}

#[cfg(test)]
mod tests;
