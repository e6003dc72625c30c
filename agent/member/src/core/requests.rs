//! Requests: dealt with here where this member leads, passed on to the leader elsewhere, and always answered.

use tiebreaker_consensus::{Consensus, Role as RaftRole};
use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry, Void};
use tiebreaker_pipeline::fence::Evidence;
use tiebreaker_pipeline::fencer;
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::manager::{AskError, Plan, View, Why};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::node::Node;
use tiebreaker_pipeline::state::Role;
use tiebreaker_pipeline::time::Reading;

use super::status::{self, Status};
use super::{ASK_WITHIN, ASKED_MAX, Action, Asked, Asker, Core, MOVE_WITHIN, Message, Moment, Reply, Request};

/// What would break the plan, and that there is a way.
fn or_force(breaks: &str) -> String {
    format!("{breaks}; `--force` does it all the same, and the timeline keeps that")
}

/// A move that an operator asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AskedMove {
    resource: ResourceName,
    to: MemberName,
    live: bool,
    forced_by: Option<String>,
}

/// Why a move doesn't begin.
#[derive(Debug, thiserror::Error)]
enum NoMove {
    #[error("the lead has changed before the move began: ask again")]
    LeadHasChanged,
    #[error("the move has not begun within 4 s, because other decisions were on their way: ask again")]
    Deciding,
    #[error(transparent)]
    Refused(AskError),
}

impl NoMove {
    /// True where the move only has to wait.
    const fn ends_by_itself(&self) -> bool {
        match self {
            Self::Deciding | Self::Refused(AskError::NotItsTurn { .. }) => true,
            Self::LeadHasChanged
            | Self::Refused(
                AskError::Move(_)
                | AskError::NotNow { .. }
                | AskError::NotLive { .. }
                | AskError::NotOnline { .. }
                | AskError::NotReady { .. },
            ) => false,
        }
    }
}

impl Core {
    /// Deals with a request: here where this member leads, else by the leader.
    pub(super) fn ask(&mut self, moment: Moment, asker: Asker, request: Request, pass_on: bool) {
        let request = match request {
            Request::Journal { of, last } => return self.ask_journal(moment, asker, of, last, pass_on),
            other => other,
        };
        let leadership = self.raft.leadership(moment.now);
        match leadership.role {
            RaftRole::Leader { .. } => self.decide(moment, asker, request),
            RaftRole::Follower { leader: Some(leader) } if pass_on => {
                let to = self.state.member_by_id(leader.0).map(|(name, _)| name.clone());
                match to {
                    Some(to) => self.pass_on(moment, asker, &to, request),
                    None => {
                        self.tell(moment, asker, Reply::NoLeader { why: "the leader is not known here yet".into() })
                    }
                }
            }
            RaftRole::Follower { .. } | RaftRole::Candidate => self.leaderless(moment, asker, request),
        }
    }

    fn pass_on(&mut self, moment: Moment, asker: Asker, to: &MemberName, request: Request) {
        if self.asked.len() >= ASKED_MAX {
            let why = "too many requests are under way: try again".to_owned();
            return self.tell(moment, asker, Reply::Refused { why });
        }
        let id = self.next_ask;
        self.next_ask += 1;
        self.asked.insert(id, Asked { asker, of: to.clone(), until: moment.now.after(ASK_WITHIN) });
        self.send(to, Message::Ask { id, request }, true);
    }

    /// A journal is its member's own: it answers itself, and nobody for it.
    fn ask_journal(&mut self, moment: Moment, asker: Asker, of: MemberName, last: usize, pass_on: bool) {
        if of == self.name {
            let lines = self.journal.last(last);
            return self.tell(moment, asker, Reply::Journal { lines });
        }
        if !self.state.members.contains_key(&of) {
            return self.tell(moment, asker, Reply::Void { why: Void::Unknown { name: of.to_string() } });
        }
        if !pass_on || !self.hears.contains(&of) {
            let why = format!("{} doesn't hear {of} at the moment", self.name);
            return self.tell(moment, asker, Reply::NotHeard { why });
        }
        self.pass_on(moment, asker, &of.clone(), Request::Journal { of, last });
    }

    /// Without a leader, what can be read here is still told, and says so.
    fn leaderless(&mut self, moment: Moment, asker: Asker, request: Request) {
        let reply = match request {
            Request::Status => Reply::Status(Box::new(self.status(moment))),
            Request::Log { last } => Reply::Log { lines: self.log(last) },
            Request::State => Reply::State { bytes: self.state.encode() },
            Request::Propose(_)
            | Request::Force { .. }
            | Request::Drain { .. }
            | Request::Fence { .. }
            | Request::Confirm { .. }
            | Request::Remove { .. }
            | Request::Move { .. }
            | Request::Why { .. }
            | Request::Journal { .. }
            | Request::RenewCertificate { .. }
            | Request::ReadIndex => Reply::NoLeader {
                why: "no member leads: a majority of the voters must be up and reach each other".into(),
            },
        };
        self.tell(moment, asker, reply);
    }

    fn decide(&mut self, moment: Moment, asker: Asker, request: Request) {
        match request {
            Request::Propose(command) => {
                let may = self.is_known(&command).and_then(|()| self.may_be_asked(moment, &command));
                match may.and_then(|()| self.is_proof(moment, &command)) {
                    Ok(()) => self.propose(moment, asker, command),
                    Err(why) => self.tell(moment, asker, Reply::Refused { why }),
                }
            }
            Request::Force { command, by } => self.force(moment, asker, command, by),
            Request::Drain { node } if !self.state.nodes.contains_key(&node) => {
                let why = format!("the cluster has no node {node}: `tiebreaker status` lists its members");
                self.tell(moment, asker, Reply::Refused { why });
            }
            Request::Drain { node } => {
                let drain = self.view(moment).map(|view| view.drain(&node));
                let just_begun = || Reply::NoLeader { why: "this leader has just begun: try again".into() };
                self.tell(moment, asker, drain.map_or_else(just_begun, Reply::Drain));
            }
            Request::State => {
                let bytes = self.state.encode();
                self.tell(moment, asker, Reply::State { bytes });
            }
            Request::Move { resource, to, live, forced_by } => {
                self.ask_move(moment, asker, AskedMove { resource, to, live, forced_by });
            }
            Request::Fence { node, by } => match self.fence_command(&node, by) {
                Ok(command) => {
                    if let (Some(leading), Command::FenceWanted { node, incarnation, .. }) =
                        (&mut self.leading, &command)
                    {
                        leading.leases.condemn(moment.now, node, *incarnation);
                    }
                    self.propose(moment, asker, command);
                }
                Err(why) => self.tell(moment, asker, Reply::Void { why }),
            },
            Request::Confirm { node, id, by } => match self.state.open_fence(&node) {
                Some((open, _)) if open == id => {
                    let evidence = Evidence::Operator { by };
                    self.propose(moment, asker, Command::Fenced { id, evidence });
                }
                Some((open, _)) => {
                    let why = format!("fence {id} of {node} is over, fence {open} is open now: look at {node} again");
                    self.tell(moment, asker, Reply::Refused { why });
                }
                None => {
                    let why = format!("no fence of {node} is open: there is nothing to confirm");
                    self.tell(moment, asker, Reply::Refused { why });
                }
            },
            Request::Remove { name, forced_by } => match self.removal(moment, &name) {
                Ok(command) => self.propose_unless_it_breaks(moment, asker, vec![command], forced_by),
                Err(reply) => self.tell(moment, asker, reply),
            },
            Request::Status => {
                let status = self.status(moment);
                self.tell(moment, asker, Reply::Status(Box::new(status)));
            }
            Request::Log { last } => {
                let lines = self.log(last);
                self.tell(moment, asker, Reply::Log { lines });
            }
            Request::Why { resource } => {
                let why = self.leading.as_ref().and_then(|leading| leading.plan.why.get(&resource)).cloned();
                let reply = match why {
                    Some(why) => Reply::Why { why },
                    None if self.state.resources.contains_key(&resource) => Reply::Why { why: Why::Deciding },
                    None => Reply::Void { why: Void::Unknown { name: resource.to_string() } },
                };
                self.tell(moment, asker, reply);
            }
            Request::Journal { of, last } => self.ask_journal(moment, asker, of, last, false),
            Request::RenewCertificate { .. } => {
                let why = "certificates come from the appliance: ask it".to_owned();
                self.tell(moment, asker, Reply::Refused { why });
            }
            Request::ReadIndex => {
                let id = self.next_read;
                self.next_read += 1;
                match self.raft.read(id) {
                    Ok(()) => {
                        self.reads.insert(id, asker);
                    }
                    Err(error) => self.tell(moment, asker, Reply::NoLeader { why: error.to_string() }),
                }
            }
        }
    }

    /// What the manager sees at this moment, where this member leads.
    fn view(&self, moment: Moment) -> Option<View<'_>> {
        let leading = self.leading.as_ref()?;
        Some(View {
            state: &self.state,
            leases: &leading.leases,
            now: moment.now,
            started: self.met.since,
            met: &self.met.who,
            wall_ms: moment.wall_ms,
            memory: &leading.plan.memory,
            settled: self.state.applied >= leading.settles_at,
        })
    }

    /// Refuses what an operator asks for and the cluster can't do as it stands, or what would break the plan.
    fn may_be_asked(&self, moment: Moment, command: &Command) -> Result<(), String> {
        let Some(view) = self.view(moment) else { return Ok(()) };
        self.can_be_done(&view, command).map_err(|error| error.to_string())?;
        match view.breaks(command) {
            Some(breaks) => Err(or_force(&breaks)),
            None => Ok(()),
        }
    }

    /// Nothing goes into the log that some member can't read.
    fn is_known(&self, command: &Command) -> Result<(), String> {
        if command.known_from() <= self.state.level {
            return Ok(());
        }
        Err("a member runs an older version, which doesn't know what that means: update all of them first".to_owned())
    }

    /// A device that reads off is a proof only where the rest of what this leader hears agrees.
    fn is_proof(&mut self, moment: Moment, command: &Command) -> Result<(), String> {
        let Command::Fenced { id, evidence } = command else { return Ok(()) };
        if !evidence.is_of_a_device() {
            return Ok(());
        }
        let leading = self.leading.as_mut().ok_or("this leader has just begun: it has heard nobody yet")?;
        leading.leases.power_proves(moment.now, &self.state, *id).map_err(|doubt| doubt.to_string())
    }

    fn can_be_done(&self, view: &View<'_>, command: &Command) -> Result<(), AskError> {
        match command {
            Command::SetMaintenance { node, on: true } => view.may_be_emptied(node),
            Command::Arm => view.may_be_armed(),
            _ => Ok(()),
        }
    }

    /// Does what would break the plan, and keeps who insisted. What the cluster can't do at all isn't forced.
    fn force(&mut self, moment: Moment, asker: Asker, command: Command, by: String) {
        if let Err(why) = self.is_known(&command) {
            return self.tell(moment, asker, Reply::Refused { why });
        }
        let Some(view) = self.view(moment) else {
            return self.tell(moment, asker, Reply::NoLeader { why: "this leader has just begun: try again".into() });
        };
        if let Err(error) = self.can_be_done(&view, &command) {
            return self.tell(moment, asker, Reply::Refused { why: error.to_string() });
        }
        if let Some(breaks) = view.breaks(&command) {
            let forced = Command::Forced { by, done: command.describe(), breaks };
            self.propose(moment, Asker::Nobody, forced);
        }
        self.propose(moment, asker, command);
    }

    /// A move waits until what was decided before it has been applied: rules and memory are judged by that.
    fn ask_move(&mut self, moment: Moment, asker: Asker, asked: AskedMove) {
        if self.moves_asked.len() >= ASKED_MAX {
            let reply = self.not_yet("too many moves are waiting: try again".to_owned());
            return self.tell(moment, asker, reply);
        }
        self.moves_asked.push_back((asker, asked, moment.now.after(MOVE_WITHIN)));
    }

    /// Begins the moves that were asked for and whose turn has come; true if it did something. It comes before the manager's
    /// own look, which would give the picture no rest while there is much to place.
    pub(super) fn begin_moves(&mut self, moment: Moment) -> bool {
        let leads = matches!(self.raft.leadership(moment.now).role, RaftRole::Leader { .. });
        let mut busy = false;
        while let Some((_, asked, until)) = self.moves_asked.front() {
            let over = moment.now.reached_on_either(*until);
            let commands = if leads { self.commands_of(moment, asked) } else { Err(NoMove::LeadHasChanged) };
            if !over && commands.as_ref().is_err_and(NoMove::ends_by_itself) {
                break;
            }
            let Some((asker, asked, _)) = self.moves_asked.pop_front() else { break };
            busy = true;
            match commands {
                // Who asked doesn't wait any more.
                Ok(_) if over => {
                    let reply = self.not_yet(NoMove::Deciding.to_string());
                    self.tell(moment, asker, reply);
                }
                Ok(commands) => self.propose_unless_it_breaks(moment, asker, commands, asked.forced_by),
                Err(no @ NoMove::LeadHasChanged) => self.tell(moment, asker, Reply::NoLeader { why: no.to_string() }),
                Err(no) if no.ends_by_itself() => {
                    let reply = self.not_yet(no.to_string());
                    self.tell(moment, asker, reply);
                }
                Err(no @ (NoMove::Deciding | NoMove::Refused(_))) => {
                    self.tell(moment, asker, Reply::Refused { why: no.to_string() });
                }
            }
        }
        busy
    }

    /// The answer to what may be asked again as it is. An older member, which may be the one to hand it on, can't read it.
    fn not_yet(&self, why: String) -> Reply {
        if self.state.level >= Level::STARTS_ARE_LOOKED_AT { Reply::NotYet { why } } else { Reply::Refused { why } }
    }

    /// The commands of a move whose turn has come.
    fn commands_of(&self, moment: Moment, asked: &AskedMove) -> Result<Vec<Command>, NoMove> {
        let view = self.view(moment).ok_or(NoMove::LeadHasChanged)?;
        if !view.settled {
            return Err(NoMove::Deciding);
        }
        view.moving(&asked.resource, &asked.to, asked.live).map_err(NoMove::Refused)
    }

    /// Proposes commands that come together, unless they break the plan and nobody insists; the answer is that of the last.
    fn propose_unless_it_breaks(
        &mut self,
        moment: Moment,
        asker: Asker,
        mut commands: Vec<Command>,
        forced_by: Option<String>,
    ) {
        if let Some(breaks) = self.view(moment).and_then(|view| view.break_together(&commands)) {
            let Some(by) = forced_by else {
                return self.tell(moment, asker, Reply::Refused { why: or_force(&breaks) });
            };
            let done = commands.iter().map(Command::describe).collect::<Vec<_>>().join(", ");
            self.propose(moment, Asker::Nobody, Command::Forced { by, done, breaks });
        }
        let Some(last) = commands.pop() else { return };
        for command in commands {
            self.propose(moment, Asker::Nobody, command);
        }
        self.propose(moment, asker, last);
    }

    fn fence_command(&self, node: &MemberName, by: String) -> Result<Command, Void> {
        if !self.state.nodes.contains_key(node) {
            return Err(Void::Unknown { name: node.to_string() });
        }
        let Some(life) = self.state.life(node) else {
            return Err(Void::NotAdmitted { node: node.clone() });
        };
        let (left, voters) = self.state.voters_left_without(node);
        if left * 2 <= voters {
            return Err(Void::NoMajorityLeft { node: node.clone(), left, voters });
        }
        let reason = tiebreaker_pipeline::fence::FenceReason::Asked { by };
        Ok(Command::FenceWanted { node: node.clone(), incarnation: life.incarnation, reason })
    }

    /// Removing a member that is away needs evidence like a fence.
    fn removal(&self, moment: Moment, name: &MemberName) -> Result<Command, Reply> {
        let Some(member) = self.state.members.get(name) else {
            return Err(Reply::Void { why: Void::Unknown { name: name.to_string() } });
        };
        if member.role == Role::Appliance {
            let why = format!("{name} is the appliance: restore or replace it, it can't be removed");
            return Err(Reply::Refused { why });
        }
        let heard = self.leases().is_some_and(|leases| leases.is_heard(&self.state, name, moment.now));
        if self.state.life(name).is_some() && !heard {
            let why = format!(
                "{name} is away and may still run resources: fence it first (`tiebreaker fence {name}`), or confirm \
                 that it is off (`tiebreaker fence confirm {name}`)"
            );
            return Err(Reply::Refused { why });
        }
        Ok(Command::RemoveMember { name: name.clone(), raft_id: member.raft_id })
    }

    pub(super) fn propose(&mut self, moment: Moment, asker: Asker, command: Command) {
        let ticket = (u128::from(self.raft_id.0) << 64) | u128::from(self.next_ticket);
        self.next_ticket += 1;
        let entry = Entry { version: ENTRY_VERSION, ticket, at_ms: moment.wall_ms, command };
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &entry)
            .expect("writing to memory can't fail, and every field is encodable");
        let is_fence = matches!(entry.command, Command::FenceWanted { .. });
        let changes_the_picture = entry.command.changes_the_picture();
        let proposed = match self.troubles.own() {
            Some(what) => Err(format!("{} leads and can't write: {what}", self.name)),
            // A fence is judged by who votes where it stands in the log, and must still leave a majority when it is worked.
            None if is_fence && self.raft.is_changing_members() => {
                Err("who votes is just being changed, and nobody is fenced meanwhile: ask again in a second".into())
            }
            None => self.raft.propose(bytes).map_err(|error| error.to_string()),
        };
        // What never came near the log can't commit later: a life whose fence was not even proposed goes on.
        if let (Err(_), Command::FenceWanted { node, incarnation, .. }, Some(leading)) =
            (&proposed, &entry.command, &mut self.leading)
        {
            leading.leases.pardon(node, *incarnation);
        }
        match proposed {
            Ok(()) => {
                let last_index = self.raft.last_index();
                if let Some(leading) = self.leading.as_mut().filter(|_| changes_the_picture) {
                    leading.settles_at = last_index;
                }
                if asker != Asker::Nobody {
                    self.tickets.insert(ticket, (asker, moment.now.after(ASK_WITHIN)));
                }
            }
            Err(why) => self.tell(moment, asker, Reply::Refused { why }),
        }
    }

    pub(super) fn tell(&mut self, moment: Moment, asker: Asker, reply: Reply) {
        match asker {
            Asker::Shell(request) => self.actions.push_back(Action::Reply { request, reply }),
            Asker::Member(name, id) => self.send(&name, Message::Told { id, reply }, true),
            Asker::FencerRead(token) => match reply {
                Reply::ReadIndex { index } if index > self.state.applied => self.read_waits.push((index, token)),
                reply => {
                    let ok = matches!(reply, Reply::ReadIndex { .. });
                    if let Some(fencer) = &mut self.fencer {
                        fencer.handle(moment.now, &self.state, fencer::Event::ReadDone(token, ok));
                    }
                }
            },
            Asker::Nobody => {}
        }
    }

    /// True for another copy of a request that came already. A member that has restarted may use a number again, but not
    /// for the same request within the time in which that is answered.
    pub(super) fn is_heard_again(&mut self, now: Reading, from: &MemberName, id: u64, request: &Request) -> bool {
        self.heard_asks.retain(|(.., until)| !now.reached_on_either(*until));
        if self.heard_asks.iter().any(|(name, known, same, _)| name == from && *known == id && same == request) {
            return true;
        }
        if self.heard_asks.len() >= ASKED_MAX {
            self.heard_asks.pop_front();
        }
        self.heard_asks.push_back((from.clone(), id, request.clone(), now.after(ASK_WITHIN)));
        false
    }

    pub(super) fn give_up_waiting(&mut self, moment: Moment) {
        let over = |until: &Reading| moment.now.reached_on_either(*until);
        if self.asked.is_empty() && self.tickets.is_empty() {
            return;
        }
        let asked: Vec<u64> = self.asked.iter().filter(|(_, asked)| over(&asked.until)).map(|(id, _)| *id).collect();
        let tickets: Vec<u128> = self.tickets.iter().filter(|(_, (_, until))| over(until)).map(|(id, _)| *id).collect();
        let mut lost: Vec<Asker> =
            asked.iter().filter_map(|id| self.asked.remove(id)).map(|asked| asked.asker).collect();
        lost.extend(tickets.iter().filter_map(|id| self.tickets.remove(id)).map(|(asker, _)| asker));
        for asker in lost {
            let why = "no answer within 5 s: the change may still be carried out, look at `status`".to_owned();
            self.tell(moment, asker, Reply::NoLeader { why });
        }
    }

    fn log(&self, last: usize) -> Vec<tiebreaker_pipeline::decision::LogLine> {
        let skip = self.state.log.len().saturating_sub(last);
        self.state.log.iter().skip(skip).cloned().collect()
    }

    fn status(&self, moment: Moment) -> Status {
        let leadership = self.raft.leadership(moment.now);
        let none = Plan::default();
        status::Glance {
            me: &self.name,
            state: &self.state,
            now: moment.now,
            term: leadership.term,
            commit: leadership.commit,
            role: leadership.role,
            leases: self.leases(),
            hears: &self.hears,
            plan: self.leading.as_ref().map_or(&none, |leading| &leading.plan),
            outlook: self.leading.as_ref().and_then(|leading| leading.outlook.as_ref()).map(|(_, _, outlook)| outlook),
            alarms: self.alarms(moment.now),
            surroundings: &self.surroundings,
        }
        .status()
    }

    fn alarms(&self, now: Reading) -> Vec<String> {
        let mut alarms = self.troubles.alarms(&self.name, now);
        alarms.extend(self.clocks.alarms(&self.name, now));
        alarms.extend(self.kept.alarms(&self.name, now));
        alarms.extend(self.replicas.alarms());
        alarms.extend(self.copies.alarms(&self.state, now));
        alarms.extend(self.waiting_votes());
        alarms.extend(self.surroundings.alarms.iter().cloned());
        if let Some(appliance) = self.state.appliance()
            && self.leading.is_some()
            && *appliance != self.name
            && !self.hears.contains(appliance)
        {
            alarms.push(format!(
                "the appliance {appliance} is not heard: its vote doesn't count, and nobody works the power devices; bring it \
                 back, or look at its link"
            ));
        }
        if let Some(leases) = self.leases() {
            alarms.extend(leases.doubts(now, &self.state).iter().map(ToString::to_string));
        }
        if self.state.nodes.len() < 2 {
            alarms.push(format!(
                "{} node(s) in the cluster: nothing can be recovered elsewhere, so nothing is protected",
                self.state.nodes.len()
            ));
        }
        let alone = self.state.voters.first().filter(|_| self.state.voters.len() == 1);
        if let Some((name, _)) = alone.and_then(|id| self.state.member_by_id(*id)) {
            match self.state.appliance() {
                Some(appliance) if appliance == name => {
                    alarms.push("the appliance alone votes: its loss stops the cluster".to_owned());
                }
                Some(_) | None => alarms.push(format!("{name} alone votes: its loss stops the cluster")),
            }
        }
        let promised = u64::try_from(self.state.settings.profile.watchdog().as_millis()).unwrap_or(u64::MAX);
        for (node, state) in &self.state.nodes {
            if let Some(watchdog) = state.life.as_ref().and_then(|life| life.watchdog.as_ref())
                && watchdog.promised_ms != promised
            {
                alarms.push(format!(
                    "the watchdog of {node} still promises {} s, of an earlier profile: restart its agent",
                    watchdog.promised_ms / 1000
                ));
            }
        }
        if let Some(node) = self.node.as_ref().and_then(Node::guard_trouble) {
            alarms.push(format!("the watchdog of {}: {node}", self.name));
        }
        alarms
    }
}
