//! What a member does while it leads: leases, the manager's proposals, who votes, and handing the lead to the appliance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tiebreaker_consensus::{Consensus, Leadership, Membership, RaftId, Role as RaftRole};
use tiebreaker_pipeline::command::{Command, Setting};
use tiebreaker_pipeline::fence::FenceId;
use tiebreaker_pipeline::leader::Leases;
use tiebreaker_pipeline::manager::{Outlook, Plan, View, manage, wanted_voters};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::planner::Cluster;
use tiebreaker_pipeline::state::{Role, State};
use tiebreaker_pipeline::time::Reading;

use super::{Asker, Core, Moment};

/// The manager looks at the cluster this often when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many failures the cluster survives is asked this often.
const OUTLOOK_EVERY: Duration = Duration::from_secs(1);
/// A proposal that was neither applied nor voided is made again after this long.
const PROPOSE_AGAIN: Duration = Duration::from_secs(1);
/// A learner this close to the end of the log may be given a vote.
const CAUGHT_UP: u64 = 200;
/// The wait before the lead goes back to the appliance doubles at most so often.
const FLAPS_MAX: u32 = 6;
/// The appliance's flapping is forgotten after this long without any.
const FLAPS_AGE: Duration = Duration::from_secs(3600);

/// How often the appliance was lost lately, on this member's own account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flaps {
    count: u32,
    last: Option<Reading>,
    /// The appliance's last start, by the name of its question.
    start: Option<u64>,
}

impl Flaps {
    fn note(&mut self, now: Reading) {
        if self.last.is_some_and(|last| now.since_at_least(last) > FLAPS_AGE) {
            self.count = 0;
        }
        self.count = (self.count + 1).min(FLAPS_MAX);
        self.last = Some(now);
    }

    /// The first loss waits the plain time, each further one twice as long.
    fn factor(self) -> u32 {
        2_u32.pow(self.count.saturating_sub(1))
    }
}

/// What a proposal is about, so that it isn't made twice at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    Life(MemberName, u64),
    FenceOf(MemberName, u64),
    Fence(FenceId),
    Resource(ResourceName, u64),
    Profile,
    Failures(ResourceName, u64),
    Promise(MemberName, u64),
    Going(MemberName, u64, bool),
    Arming,
    Votes,
    Level,
}

/// A leader's memory of one term.
pub(super) struct Leading {
    pub leases: Leases,
    pub plan: Plan,
    /// How many failures the cluster survives, and the picture that this was asked about.
    pub outlook: Option<(Cluster, bool, Outlook)>,
    pub next: Reading,
    /// What changes the picture that choices rest on is in the log up to here; what is applied may not be as far.
    pub settles_at: u64,
    outlook_next: Reading,
    voters_seen: usize,
    pending: BTreeMap<Subject, Reading>,
    appliance_well_since: Option<Reading>,
}

impl Leading {
    fn start(now: Reading, term: u64, state: &State, last_index: u64) -> Self {
        Self {
            leases: Leases::start(now, term, state),
            plan: Plan::default(),
            outlook: None,
            next: now,
            // It may have proposed before its quorum lease opened.
            settles_at: last_index,
            outlook_next: now,
            voters_seen: 0,
            pending: BTreeMap::new(),
            appliance_well_since: None,
        }
    }

    /// Something was applied: what was waited for may have come.
    pub fn look_again(&mut self, now: Reading) {
        self.next = self.next.earlier_of(now);
    }

    /// True for a proposal that isn't under way already.
    fn is_due(&mut self, now: Reading, command: &Command) -> bool {
        let Some(subject) = subject(command) else { return true };
        if self.pending.get(&subject).is_some_and(|until| !now.reached_on_either(*until)) {
            return false;
        }
        self.pending.insert(subject, now.after(PROPOSE_AGAIN));
        true
    }
}

/// What the manager's proposals are about.
fn subject(command: &Command) -> Option<Subject> {
    Some(match command {
        Command::Admit { node, incarnation, .. } => Subject::Life(node.clone(), *incarnation),
        Command::FenceWanted { node, incarnation, .. } => Subject::FenceOf(node.clone(), *incarnation),
        Command::Fenced { id, .. } | Command::FenceFailed { id, .. } | Command::Closed { id } => Subject::Fence(*id),
        Command::Release { resource, generation, .. }
        | Command::Assign { resource, generation, .. }
        | Command::Migrate { resource, generation, .. }
        | Command::CallOff { resource, generation, .. }
        | Command::Arrive { resource, generation, .. }
        | Command::Go { resource, generation }
        | Command::GiveUp { resource, generation, .. } => Subject::Resource(resource.clone(), *generation),
        Command::SetProfile { .. } | Command::SettleProfile { .. } => Subject::Profile,
        Command::Forget { resource, generation } => Subject::Failures(resource.clone(), *generation),
        Command::Bind { node, since, .. } => Subject::Promise(node.clone(), *since),
        Command::Leave { node, incarnation, .. } | Command::Left { node, incarnation, .. } => {
            Subject::Going(node.clone(), *incarnation, matches!(command, Command::Left { .. }))
        }
        Command::Disarm { .. }
        | Command::Disarmed
        | Command::Arm
        | Command::Armed { .. }
        | Command::ArmingFailed { .. } => Subject::Arming,
        Command::Set(Setting::FewerVotes(None)) => Subject::Votes,
        Command::RaiseLevel { .. } => Subject::Level,
        Command::AddMember { .. }
        | Command::RemoveMember { .. }
        | Command::AddOperator { .. }
        | Command::RemoveOperator { .. }
        | Command::AddResource { .. }
        | Command::SetResource { .. }
        | Command::RemoveResource { .. }
        | Command::SetTakeback { .. }
        | Command::SetMaintenance { .. }
        | Command::SetLock { .. }
        | Command::SetRule { .. }
        | Command::RemoveRule { .. }
        | Command::Set(_)
        | Command::Forced { .. }
        | Command::SetDevices { .. } => return None,
    })
}

impl Core {
    /// Starts and ends leading as consensus says. Leading begins when the quorum lease first opens in a term.
    pub(super) fn follow_leadership(&mut self, moment: Moment, leadership: &Leadership) {
        match leadership.role {
            RaftRole::Leader { lease_until } => {
                let term = leadership.term;
                let same = self.leading.as_ref().is_some_and(|leading| leading.leases.term() == term);
                if !same {
                    let last_index = self.raft.last_index();
                    self.leading = lease_until.map(|_| Leading::start(moment.now, term, &self.state, last_index));
                }
            }
            RaftRole::Follower { .. } | RaftRole::Candidate => self.leading = None,
        }
    }

    /// One look of the leader; true if it did something.
    pub(super) fn lead(&mut self, moment: Moment) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        if !moment.now.reached_on_either(leading.next) {
            return false;
        }
        let RaftRole::Leader { lease_until } = self.raft.leadership(moment.now).role else { return false };
        let in_quorum = lease_until.is_some_and(|until| !moment.now.reached_on_either(until));
        leading.next = moment.now.after(LOOK_EVERY);
        if !in_quorum && self.rules.grants_need_the_quorum_lease() {
            return false;
        }
        if self.replicas.odd(&self.name).is_some() || self.replicas.is_split() {
            leading.plan = Plan::default();
            return false;
        }
        let memory = std::mem::take(&mut leading.plan.memory);
        let view = View {
            state: &self.state,
            leases: &leading.leases,
            now: moment.now,
            started: self.met.since,
            met: &self.met.who,
            wall_ms: moment.wall_ms,
            memory: &memory,
            settled: self.state.applied >= leading.settles_at,
        };
        leading.plan = manage(&view);
        let due = moment.now.reached_on_either(leading.outlook_next);
        if due {
            leading.outlook_next = moment.now.after(OUTLOOK_EVERY);
            let planned = view.planned();
            let voters = self.state.voters.len();
            let appliance_is_up = self
                .state
                .appliance()
                .is_none_or(|appliance| *appliance == self.name || self.hears.contains(appliance));
            // It is asked anew only when something has changed that it depends on.
            let known = leading.voters_seen == voters
                && leading.outlook.as_ref().is_some_and(|(cluster, up, outlook)| {
                    *cluster == planned && *up == appliance_is_up && outlook.goal == self.state.settings.tolerate
                });
            if !known {
                let outlook = view.outlook(&planned, appliance_is_up);
                leading.voters_seen = voters;
                leading.outlook = Some((planned, appliance_is_up, outlook));
            }
        }
        let mut proposals = std::mem::take(&mut leading.plan.proposals);
        proposals.extend(view.raised_level(&self.name, self.level));
        let mut busy = false;
        for command in proposals {
            let Some(leading) = &mut self.leading else { break };
            if !leading.is_due(moment.now, &command) {
                continue;
            }
            if let Command::FenceWanted { node, incarnation, .. } = &command {
                // From here on this life gets no grant, whatever becomes of the proposal.
                leading.leases.condemn(moment.now, node, *incarnation);
            }
            busy = true;
            self.propose(moment, Asker::Nobody, command);
        }
        if self.troubles.own().is_none() {
            self.mind_membership(moment);
            self.mind_takeback(moment);
        }
        busy
    }

    /// New members listen first; who votes changes only with everybody concerned in service and no fence open.
    fn mind_membership(&mut self, moment: Moment) {
        let now_in = self.raft.membership();
        let wanted = wanted_voters(&self.state);
        let is_in = |id: RaftId| now_in.voters.contains(&id) || now_in.learners.contains(&id);
        let settled = self.state.members.len() == now_in.voters.len() + now_in.learners.len()
            && self.state.members.values().all(|member| is_in(RaftId(member.raft_id)));
        if settled && wanted.iter().eq(now_in.voters.iter().map(|id| &id.0)) {
            return;
        }
        let wanted: BTreeSet<RaftId> = wanted.into_iter().map(RaftId).collect();
        let all: BTreeSet<RaftId> = self.state.members.values().map(|member| RaftId(member.raft_id)).collect();
        let mut voters: BTreeSet<RaftId> = now_in.voters.intersection(&all).copied().collect();
        // What is in the log and not applied yet may be a fence as well.
        let fencing = self.raft.last_index() > self.state.applied
            || self.state.fences.values().any(tiebreaker_pipeline::fence::Fence::is_open);
        let commit = self.raft.leadership(moment.now).commit;
        let fit = wanted.difference(&now_in.voters).all(|id| {
            now_in.learners.contains(id)
                && self.state.member_by_id(id.0).is_some_and(|(name, member)| match member.role {
                    // It renews no lease: its link speaks for it, and what it has acknowledged.
                    Role::Appliance => {
                        self.hears.contains(name)
                            && self.replicas.odd(name).is_none()
                            && self.raft.behind(*id).is_some_and(|behind| behind <= CAUGHT_UP)
                    }
                    Role::Node => self.leases().is_some_and(|leases| {
                        leases.is_heard(&self.state, name, moment.now)
                            && leases.report(&self.state, name).is_some_and(|r| r.applied + CAUGHT_UP >= commit)
                    }),
                })
        });
        if fencing && voters != now_in.voters {
            return;
        }
        if fit && !fencing && wanted.contains(&self.raft_id) {
            voters = wanted;
        }
        let learners = all.difference(&voters).copied().collect();
        let wanted = Membership { voters, learners };
        if wanted != *now_in {
            // Refused while an earlier change is on its way: the next look asks again.
            let _ = self.raft.change_members(wanted);
        }
    }

    /// On the leader: that who votes is to change, and for which fence that waits.
    pub(super) fn waiting_votes(&self) -> Option<String> {
        self.leading.as_ref()?;
        let wanted = wanted_voters(&self.state);
        if wanted.iter().eq(self.raft.membership().voters.iter().map(|id| &id.0)) {
            return None;
        }
        let (id, fence) = self.state.fences.iter().find(|(_, fence)| fence.is_open())?;
        let node = &fence.node;
        Some(format!(
            "who votes is to change, and that waits until fence {id} of {node} is closed: look at its power devices, or \
             give your word that it runs nothing (`tiebreaker fence confirm {node}`)"
        ))
    }

    /// A member has started again. If that is the appliance, it has to be well for as long as after any other loss: it is
    /// silent at first, and a transfer to it would fail.
    pub(super) fn note_start(&mut self, moment: Moment, who: &MemberName, question: u64) {
        if self.state.appliance() == Some(who)
            && self.flaps.start.replace(question) != Some(question)
            && let Some(leading) = &mut self.leading
            && leading.appliance_well_since.take().is_some()
        {
            self.flaps.note(moment.now);
        }
    }

    /// A node that leads hands over to the appliance once that has been well for long enough.
    fn mind_takeback(&mut self, moment: Moment) {
        let Some(appliance) = self.state.appliance().cloned() else { return };
        let is_me = appliance == self.name;
        let busy = self.state.fences.values().any(tiebreaker_pipeline::fence::Fence::is_open);
        let id = self.state.members.get(&appliance).map(|member| (member.role, RaftId(member.raft_id)));
        let Some((Role::Appliance, id)) = id else { return };
        let well = self.hears.contains(&appliance) && self.replicas.odd(&appliance).is_none();
        let takeback = self.state.settings.takeback();
        let Some(leading) = &mut self.leading else { return };
        if is_me || !well {
            if leading.appliance_well_since.take().is_some() && !is_me {
                self.flaps.note(moment.now);
            }
            return;
        }
        let since = *leading.appliance_well_since.get_or_insert(moment.now);
        let wait = takeback * self.flaps.factor();
        // A transfer shuts the quorum lease until the appliance has acknowledged the rest, and costs an election if that
        // takes longer than an election timeout: with a disk that is stuck or full it always would.
        let close = self.raft.behind(id) == Some(0);
        if moment.now.since_at_least(since) >= wait && !busy && close && self.raft.transfer(moment.now, id).is_ok() {
            leading.appliance_well_since = Some(moment.now);
            self.flaps.note(moment.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_62_the_wait_before_the_lead_goes_back_doubles_with_each_loss_and_is_forgotten_later() {
        let mut flaps = Flaps::default();
        let at = |seconds: u64| Reading::both(seconds * 1_000_000_000);
        assert_eq!(flaps.factor(), 1);
        let factors: Vec<u32> = (0..8)
            .map(|turn| {
                flaps.note(at(turn * 60));
                flaps.factor()
            })
            .collect();
        assert_eq!(factors, [1, 2, 4, 8, 16, 32, 32, 32]);
        flaps.note(at(8 * 3600));
        assert_eq!(flaps.factor(), 1);
    }
}
