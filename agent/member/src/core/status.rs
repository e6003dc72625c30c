//! The cluster at a glance, as the leader sees it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tiebreaker_consensus::Role as RaftRole;
use tiebreaker_pipeline::fence::{Fence, FenceId};
use tiebreaker_pipeline::leader::Leases;
use tiebreaker_pipeline::manager::{Outlook, Plan, Why};
use tiebreaker_pipeline::name::{ClusterName, MemberName, ResourceName, RuleName};
use tiebreaker_pipeline::placement::rule::{PlacementRule, RuleKind};
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::report::{Capacity, Observed, Usage, WatchdogPromise};
use tiebreaker_pipeline::resource::{Phase, Requested, ResourceSpec, Shown};
use tiebreaker_pipeline::state::{Arming, DeviceStatus, Leaving, Role, Settings, State};
use tiebreaker_pipeline::time::Reading;

/// The cluster at a glance. Times are milliseconds from now; what only a leader knows is absent without one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterName,
    /// Who answers.
    pub answered_by: MemberName,
    /// Who leads, as far as that member knows.
    pub leader: Option<MemberName>,
    /// The term.
    pub term: u64,
    /// What is left of the leader's quorum lease.
    pub quorum_lease_ms: Option<u64>,
    /// The log index applied.
    pub applied: u64,
    /// The log index committed.
    pub commit: u64,
    /// The profile.
    pub profile: Profile,
    /// Votes that are cast, as far as whoever answers hears, and votes expected.
    pub votes: (usize, usize),
    /// Members.
    pub members: Vec<MemberStatus>,
    /// Resources.
    pub resources: Vec<ResourceStatus>,
    /// Open fences.
    pub fences: Vec<FenceStatus>,
    /// Settings of the cluster.
    pub settings: Settings,
    /// Placement rules.
    pub rules: Vec<RuleStatus>,
    /// How many node failures the cluster survives now; only a leader knows.
    pub outlook: Option<Outlook>,
    /// What somebody should look at.
    pub alarms: Vec<String>,
}

/// What the daemon around a member knows and the cluster doesn't: it stands in the status that this member answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// What somebody should look at.
    pub alarms: Vec<String>,
    /// When power devices were proven last, by node and name.
    pub proven: BTreeMap<(MemberName, String), Reading>,
    /// How long each of them gets to read off before the node's next one follows, in milliseconds.
    pub off_within_ms: BTreeMap<(MemberName, String), u64>,
}

/// What to say of a power device that isn't proven. `unprotectable`: nothing else could prove a fence of its node.
#[must_use]
pub fn unproven(node: &MemberName, device: &DeviceStatus, unprotectable: bool) -> String {
    let why = device.why.as_deref().unwrap_or("not tried yet");
    let so = if unprotectable {
        format!("nothing could prove a fence of {node}, so it counts for no failure that the cluster survives")
    } else {
        format!("a fence of {node} rests on what else there is")
    };
    format!("the power device {} of {node} is not proven ({why}): {so}", device.name)
}

/// A placement rule at a glance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its name.
    pub name: RuleName,
    /// The rule.
    pub rule: PlacementRule,
    /// Why it has no effect, if it has none.
    pub fault: Option<String>,
    /// Nodes that it names and that aren't in the cluster: it holds for the others.
    #[serde(default)]
    pub strangers: Vec<MemberName>,
}

/// A member at a glance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: MemberName,
    /// Its part.
    pub role: Role,
    /// Its number in consensus.
    pub raft_id: u64,
    /// It votes.
    pub voter: bool,
    /// online, maintenance, unknown (not heard, or not back yet since it was fenced), fence, gone, or waiting for its first
    /// admission.
    pub state: String,
    /// Since when it was last heard.
    pub heard_ms: Option<u64>,
    /// What is left of the lease that it was granted.
    pub lease_ms: Option<u64>,
    /// Why it got no lease.
    pub refused: Option<String>,
    /// The admitted incarnation.
    pub incarnation: Option<u64>,
    /// The admitted boot.
    pub boot: Option<String>,
    /// The watchdog that it promised.
    pub watchdog: Option<WatchdogPromise>,
    /// Whether that is armed.
    pub armed: Option<bool>,
    /// How many of its leases have run out since its agent started.
    pub leases_lost: Option<u64>,
    /// Its power-fencing devices.
    pub devices: Vec<DeviceStatus>,
    /// Milliseconds since each of them was proven last; known to the appliance alone, where it leads or answers itself.
    #[serde(default)]
    pub proven_ms: BTreeMap<String, u64>,
    /// How long each of them gets to read off before the node's next one follows, in milliseconds; known like that.
    #[serde(default)]
    pub off_within_ms: BTreeMap<String, u64>,
    /// Why it may not have protected resources.
    pub unprotectable: Option<String>,
    /// Addresses.
    pub addresses: Vec<String>,
    /// An operator wants it empty.
    #[serde(default)]
    pub maintenance: bool,
    /// How it goes, and what happens to its resources meanwhile, if it has said that it goes.
    #[serde(default)]
    pub leaving: Option<Leaving>,
    /// What it has to give.
    #[serde(default)]
    pub capacity: Capacity,
    /// The longest of its last boots, in milliseconds; zero if that is not known.
    #[serde(default)]
    pub boot_ms: u64,
}

/// A resource at a glance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: ResourceName,
    /// How it is operated.
    pub spec: ResourceSpec,
    /// What is wanted.
    pub requested: Requested,
    /// Its state in one word.
    pub state: Shown,
    /// Where it stands.
    pub phase: Phase,
    /// The node that may run it.
    pub node: Option<MemberName>,
    /// What that node last saw.
    pub observed: Option<Observed>,
    /// Why it stands so.
    pub why: String,
    /// The node that it left for maintenance or a shutdown.
    #[serde(default)]
    pub home: Option<MemberName>,
    /// Why an operator has locked it.
    #[serde(default)]
    pub locked: Option<String>,
    /// What it was measured to use where it runs, on the average of the last minute; absent where that is not known.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// A fence at a glance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FenceStatus {
    /// Its number.
    pub id: FenceId,
    /// The record.
    pub fence: Fence,
    /// When the watchdog's time will have passed at the latest.
    pub silent_in_ms: Option<u64>,
}

/// What a status is made from.
pub(super) struct Glance<'a> {
    pub me: &'a MemberName,
    pub state: &'a State,
    pub now: Reading,
    pub term: u64,
    pub commit: u64,
    pub role: RaftRole,
    pub leases: Option<&'a Leases>,
    /// Whom this member hears lately, by any path.
    pub hears: &'a BTreeSet<MemberName>,
    pub plan: &'a Plan,
    pub outlook: Option<&'a Outlook>,
    pub alarms: Vec<String>,
    pub surroundings: &'a Surroundings,
}

/// The nodes that a rule names and the cluster doesn't have.
fn strangers(state: &State, rule: &PlacementRule) -> Vec<MemberName> {
    match &rule.kind {
        RuleKind::NodeAffinity { nodes, .. } => {
            nodes.keys().filter(|node| !state.nodes.contains_key(*node)).cloned().collect()
        }
        RuleKind::Together | RuleKind::Apart => Vec::new(),
    }
}

fn ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Glance<'_> {
    pub(super) fn status(self) -> Status {
        let state = self.state;
        let (leader, lease) = match self.role {
            RaftRole::Leader { lease_until } => {
                (Some(self.me.clone()), lease_until.map(|until| ms(self.now.left_until(until))))
            }
            RaftRole::Follower { leader } => {
                (leader.and_then(|id| state.member_by_id(id.0)).map(|(name, _)| name.clone()), None)
            }
            RaftRole::Candidate => (None, None),
        };
        let votes_in_service = state
            .members
            .iter()
            .filter(|(name, member)| {
                state.voters.contains(&member.raft_id) && state.in_service(name) && self.is_heard(name)
            })
            .count();
        let members: Vec<MemberStatus> = state.members.keys().map(|name| self.member(name)).collect();
        let resources = state
            .resources
            .iter()
            .map(|(name, resource)| {
                let node = resource.phase.owner().cloned();
                let report = node.as_ref().and_then(|node| self.leases.and_then(|l| l.report(state, node)));
                let observed = report.and_then(|report| report.resources.get(name));
                let fencing = node.as_ref().is_some_and(|node| state.open_fence(node).is_some());
                let frozen = match self.plan.why.get(name) {
                    Some(Why::Frozen { .. } | Why::Disarmed { .. } | Why::Disarming { .. }) => true,
                    Some(_) | None => !state.settings.arming.acts(),
                };
                ResourceStatus {
                    state: Shown::of(resource, observed, fencing, frozen),
                    name: name.clone(),
                    spec: resource.spec.clone(),
                    requested: resource.requested,
                    phase: resource.phase.clone(),
                    observed: observed.cloned(),
                    home: resource.home.clone(),
                    locked: resource.locked.clone(),
                    usage: report.and_then(|report| report.usage.get(name)).copied(),
                    node,
                    why: self
                        .plan
                        .why
                        .get(name)
                        .map_or_else(|| "no leader has looked at it".into(), ToString::to_string),
                }
            })
            .collect();
        let fences = state
            .fences
            .iter()
            .filter(|(_, fence)| fence.is_open())
            .map(|(id, fence)| {
                let promise = state.life(&fence.node).and_then(|life| life.watchdog.as_ref());
                let silent_from =
                    promise.and_then(|promise| self.leases.and_then(|l| l.silent_from(state, &fence.node, promise)));
                let silent_in_ms = silent_from.map(|from| ms(self.now.left_until(from)));
                FenceStatus { id: *id, fence: fence.clone(), silent_in_ms }
            })
            .collect();
        let mut alarms = self.alarms.clone();
        alarms.extend(self.plan.unfenced.iter().map(|(node, why)| format!("{node} is lost and not fenced: {why}")));
        alarms.extend(self.outlook.and_then(Outlook::alarm));
        if state.settings.arming != Arming::Armed {
            alarms.push(format!(
                "the cluster is {}: nothing is protected; `tiebreaker arm` ends that",
                state.settings.arming
            ));
        }
        for (name, node) in &state.nodes {
            let lacks = state.unprotectable(name).is_some();
            alarms.extend(node.devices.iter().filter(|d| !d.proven).map(|device| unproven(name, device, lacks)));
        }
        alarms.extend(state.settings.hold.as_ref().map(|hold| {
            format!(
                "the switching of power is {hold}: no device is told to switch anything; `tiebreaker fence release` ends that"
            )
        }));
        alarms.extend(self.plan.disarming.iter().map(|what| format!("disarming waits for {what}")));
        let rules: Vec<RuleStatus> = state
            .placement_rules
            .iter()
            .map(|(name, rule)| RuleStatus {
                name: name.clone(),
                rule: rule.clone(),
                fault: self.plan.rule_faults.get(name).cloned(),
                strangers: strangers(state, rule),
            })
            .collect();
        alarms.extend(rules.iter().filter(|rule| !rule.strangers.is_empty() && !rule.rule.disabled_by_operator).map(
            |rule| {
                let names: Vec<&str> = rule.strangers.iter().map(MemberName::as_str).collect();
                format!(
                    "the placement rule {} names {}, not a node of this cluster: let it join, or write the rule anew without it",
                    rule.name,
                    names.join(", ")
                )
            },
        ));
        alarms.extend(
            self.plan
                .rule_faults
                .iter()
                .map(|(name, fault)| format!("the placement rule {name} has no effect: {fault}")),
        );
        Status {
            cluster: state.cluster.clone(),
            answered_by: self.me.clone(),
            leader,
            term: self.term,
            quorum_lease_ms: lease,
            applied: state.applied,
            commit: self.commit,
            profile: state.settings.profile,
            votes: (votes_in_service, state.voters.len()),
            members,
            resources,
            fences,
            settings: state.settings.clone(),
            rules,
            outlook: self.outlook.cloned(),
            alarms,
        }
    }

    /// Whether whoever answers hears a member, or is it.
    fn is_heard(&self, name: &MemberName) -> bool {
        name == self.me
            || self.hears.contains(name)
            || self.leases.is_some_and(|leases| leases.is_heard(self.state, name, self.now))
    }

    fn member(&self, name: &MemberName) -> MemberStatus {
        let state = self.state;
        let member = state.members.get(name);
        let role = member.map_or(Role::Node, |member| member.role);
        let node = state.nodes.get(name);
        let life = state.life(name);
        let view = self.leases.and_then(|leases| leases.node(name));
        let report = self.leases.and_then(|leases| leases.report(state, name));
        let heard = self.leases.is_some_and(|leases| leases.is_heard(state, name, self.now));
        let word = match role {
            Role::Appliance if self.is_heard(name) => "online",
            Role::Appliance => "unknown",
            Role::Node if state.open_fence(name).is_some() => "fence",
            Role::Node if life.is_none() && node.is_some_and(|node| node.leaving.is_some()) => "gone",
            // What was fenced has been a member before: it isn't awaited for the first time.
            Role::Node if life.is_none() && node.is_some_and(|node| node.closed_at > 0) => "unknown",
            Role::Node if life.is_none() => "waiting",
            Role::Node if heard && node.is_some_and(|node| node.maintenance) => "maintenance",
            Role::Node if heard => "online",
            Role::Node => "unknown",
        };
        MemberStatus {
            name: name.clone(),
            role,
            raft_id: member.map_or(0, |member| member.raft_id),
            voter: member.is_some_and(|member| state.voters.contains(&member.raft_id)),
            state: word.to_owned(),
            heard_ms: view.filter(|view| view.heard_once).map(|view| ms(self.now.since_at_least(view.heard))),
            lease_ms: view.map(|view| ms(self.now.left_until(view.granted_until))),
            refused: view.and_then(|view| view.refused.as_ref()).map(ToString::to_string),
            incarnation: life.map(|life| life.incarnation),
            boot: life.map(|life| life.boot.clone()),
            watchdog: life.and_then(|life| life.watchdog.clone()),
            armed: report.map(|report| report.armed),
            leases_lost: report.map(|report| report.leases_lost),
            devices: node.map(|node| node.devices.clone()).unwrap_or_default(),
            proven_ms: self
                .surroundings
                .proven
                .iter()
                .filter(|((node, _), _)| node == name)
                .map(|((_, device), at)| (device.clone(), ms(self.now.since_at_most(*at))))
                .collect(),
            off_within_ms: self
                .surroundings
                .off_within_ms
                .iter()
                .filter(|((node, _), _)| node == name)
                .map(|((_, device), within)| (device.clone(), *within))
                .collect(),
            unprotectable: node.and_then(|_| state.unprotectable(name)),
            addresses: member.map(|member| member.addresses.clone()).unwrap_or_default(),
            maintenance: node.is_some_and(|node| node.maintenance),
            leaving: node.and_then(|node| node.leaving.clone()),
            capacity: node.map(|node| node.capacity).unwrap_or_default(),
            boot_ms: node.map_or(0, |node| node.boot_ms),
        }
    }
}
