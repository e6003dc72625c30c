//! What a member decides, sans-IO: consensus, the state that it carries, and this member's parts in it (leader, node,
//! fencer) put together.
//!
//! The shell around it owns sockets, clocks and disks and decides nothing; the fault simulator runs this very code.

mod clocks;
mod copies;
mod journal;
mod kept;
mod leading;
mod message;
mod met;
mod parting;
mod powered;
mod recall;
mod replicas;
mod requests;
mod status;
mod trouble;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tiebreaker_consensus::{
    Action as RaftAction, Batch, Committed, Consensus, Leadership, Payload, Raft, RaftId, Rank, Role as RaftRole,
    Snapshot, StepError,
};
use tiebreaker_pipeline::command::{Command, Entry};
use tiebreaker_pipeline::fencer::{self, Fencer};
use tiebreaker_pipeline::leader::Leases;
use tiebreaker_pipeline::level::{Level, TooOld};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::node::{self, Node};
use tiebreaker_pipeline::report::{Answer, LeaseVerdict, Refusal, Renew};
use tiebreaker_pipeline::rules::Rules;
use tiebreaker_pipeline::state::{Role, State};
use tiebreaker_pipeline::time::Reading;

use clocks::Clocks;
use copies::{Copies, Stranger};
use journal::Journal;
pub use journal::{Deed, JOURNAL_MAX, JournalLine};
use kept::Kept;
use leading::{Flaps, Leading};
pub use message::{Message, Origin, Reply, Request};
use met::Met;
use powered::PowerOns;
use recall::Recall;
use replicas::Replicas;
use requests::AskedMove;
pub use status::{FenceStatus, MemberStatus, ResourceStatus, RuleStatus, Status, Surroundings, unproven};
use trouble::Troubles;

/// A request that was passed on to the leader is given up after this long.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// A move waits so long for its turn: less than whoever passed it on waits for the answer.
const MOVE_WITHIN: Duration = Duration::from_secs(4);
/// Requests under way at most.
const ASKED_MAX: usize = 1024;
/// Members that are not known yet, at most: all that a cluster can have. Each bears a certificate.
const NEWCOMERS_MAX: usize = 64;
/// The log is compacted after so many entries.
const COMPACT_EVERY: u64 = 1000;

/// A moment: both lease clocks, and the wall clock for people and certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The clocks that decide.
    pub now: Reading,
    /// Milliseconds since 1970 by the wall clock. Decides nothing.
    pub wall_ms: u64,
}

/// Names a request of the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// Something for the shell to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Hand a message to a member. Losing it is allowed.
    Send {
        /// To whom.
        to: MemberName,
        /// What.
        message: Message,
        /// Over every path, not only the best.
        everywhere: bool,
    },
    /// Make this batch durable, then say [`Core::persisted`].
    Persist(Batch),
    /// An action of the node's side; renewals never come this way.
    Node(node::Action),
    /// Work a power device.
    Device {
        /// Names the command.
        token: u64,
        /// Whose device.
        node: MemberName,
        /// Which one.
        device: String,
        /// What to do.
        command: fencer::DeviceCommand,
    },
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// The replicated state has changed: look at members, settings and the timeline.
    Changed,
    /// The cluster goes on without this member: its store must never be used again. What is still to be done comes after.
    SetAside {
        /// Who says so, and what that means.
        why: String,
    },
    /// This member can't go on under its number and must stop: the reason, with the way out.
    Stop {
        /// Why.
        why: String,
        /// It has forgotten what it once told its peers, so its store must never be used again.
        forgot: bool,
    },
}

/// Who waits for an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asker {
    /// The shell.
    Shell(RequestId),
    /// Another member, under its own name for the request.
    Member(MemberName, u64),
    /// This member's fencer, which waits to read.
    FencerRead(u64),
    /// This member's fencer, which proposes again by itself.
    Nobody,
}

/// A request that went to another member.
#[derive(Clone, Debug)]
struct Asked {
    asker: Asker,
    of: MemberName,
    until: Reading,
}

/// What a member is started with.
pub struct CoreConfig {
    /// Its name.
    pub name: MemberName,
    /// Its number.
    pub raft_id: RaftId,
    /// Consensus, recovered from the store.
    pub raft: Raft,
    /// The state of the stored snapshot: the log after it is applied again.
    pub state: State,
    /// The last index of the stored log.
    pub last_index: u64,
    /// The node's side, on nodes.
    pub node: Option<Node>,
    /// True on the appliance, which works the devices.
    pub fences: bool,
    /// Which rules hold.
    pub rules: Rules,
}

/// A member.
pub struct Core {
    name: MemberName,
    raft_id: RaftId,
    raft: Raft,
    state: State,
    leading: Option<Leading>,
    node: Option<Node>,
    fencer: Option<Fencer>,
    flaps: Flaps,
    hears: BTreeSet<MemberName>,
    met: Met,
    compacted: u64,
    next_ask: u64,
    /// Requests that went to the leader: who waits, and until when.
    asked: BTreeMap<u64, Asked>,
    /// Moves that wait for what was decided before them to be applied: who asks, and until when.
    moves_asked: VecDeque<(Asker, AskedMove, Reading)>,
    /// Requests of other members that came lately, oldest first.
    heard_asks: VecDeque<(MemberName, u64, Request, Reading)>,
    /// Proposals of this leader by ticket.
    tickets: BTreeMap<u128, (Asker, Reading)>,
    next_ticket: u64,
    reads: BTreeMap<u64, Asker>,
    next_read: u64,
    /// Reads of the fencer that wait until an index is applied.
    read_waits: Vec<(u64, u64)>,
    recall: Recall,
    replicas: Replicas,
    /// The highest feature level that this program knows.
    level: Level,
    /// Members that this one has not heard of yet, by number: see [`Core::heeds`].
    newcomers: BTreeMap<u64, MemberName>,
    troubles: Troubles,
    clocks: Clocks,
    copies: Copies,
    surroundings: Surroundings,
    journal: Journal,
    kept: Kept,
    power_ons: PowerOns,
    /// The last batch for the disk, and the last that is durable.
    last_batch: u64,
    durable: u64,
    /// The agent may go as soon as this batch is durable.
    goes_after: Option<u64>,
    rank: Option<Rank>,
    tick: Duration,
    stopped: bool,
    /// The cluster goes on without this member: why it stops as soon as nothing runs here any more.
    parting: Option<String>,
    actions: VecDeque<Action>,
    rules: Rules,
}

impl Core {
    /// A starting member.
    #[must_use]
    pub fn new(moment: Moment, config: CoreConfig) -> Self {
        let CoreConfig { name, raft_id, raft, state, last_index, node, fences, rules } = config;
        let state = state.with_rules(rules);
        // Answers to an earlier process of this member, and its commands in the log, must not be taken for this one's.
        let first = moment.now.boottime_ns.max(1);
        let mut core = Self {
            name,
            raft_id,
            raft,
            compacted: state.applied,
            state,
            leading: None,
            node,
            fencer: fences.then(|| Fencer::new(last_index, rules)),
            flaps: Flaps::default(),
            hears: BTreeSet::new(),
            met: Met::new(moment.now),
            next_ask: first,
            asked: BTreeMap::new(),
            moves_asked: VecDeque::new(),
            heard_asks: VecDeque::new(),
            tickets: BTreeMap::new(),
            next_ticket: first,
            reads: BTreeMap::new(),
            next_read: 1,
            read_waits: Vec::new(),
            recall: Recall::start(moment.now, first),
            replicas: Replicas::default(),
            level: Level::KNOWN,
            newcomers: BTreeMap::new(),
            troubles: Troubles::default(),
            clocks: Clocks::default(),
            copies: Copies::default(),
            surroundings: Surroundings::default(),
            journal: Journal::default(),
            kept: Kept::default(),
            power_ons: PowerOns::default(),
            last_batch: 0,
            durable: 0,
            goes_after: None,
            rank: None,
            tick: Duration::ZERO,
            stopped: false,
            parting: None,
            actions: VecDeque::new(),
            rules,
        };
        core.journal.write(moment.wall_ms, Deed::Up);
        core.count_answers();
        core.follow_settings();
        core.advance(moment);
        core
    }

    /// The same with another highest feature level, that of an older or newer version. What its node tells is the node's.
    #[must_use]
    pub const fn knowing(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// This member's name.
    #[must_use]
    pub const fn name(&self) -> &MemberName {
        &self.name
    }

    /// The applied state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The node's side.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Who leads, as far as this member knows.
    #[must_use]
    pub fn leadership(&self, now: Reading) -> Leadership {
        self.raft.leadership(now)
    }

    /// The lease table, while this member leads.
    #[must_use]
    pub fn leases(&self) -> Option<&Leases> {
        self.leading.as_ref().map(|leading| &leading.leases)
    }

    /// True while the fencer works a device of this node.
    #[must_use]
    pub fn fences(&self, node: &MemberName) -> bool {
        self.fencer.as_ref().is_some_and(|fencer| fencer.works_on(node))
    }

    /// A snapshot that holds everything applied so far, for a machine that joins.
    #[must_use]
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        self.compact();
        self.raft.snapshot()
    }

    /// Looks at the time.
    pub fn advance(&mut self, moment: Moment) {
        if self.parting.is_none() {
            self.raft.advance(moment.now);
        }
        self.settle(moment);
    }

    /// Takes a message; `from` is who the link says it is.
    pub fn message(&mut self, moment: Moment, from: &MemberName, message: Message) {
        if self.stopped || self.parting.is_some() {
            return;
        }
        match message {
            Message::Consensus { from: claimed, promise, message } => {
                if self.heeds(from, claimed) {
                    self.remember(RaftId(claimed), promise);
                    if !self.recall.has(from) {
                        self.send_recall(from);
                    } else if self.troubles.own().is_some() && !trouble::needs_no_disk(&message.body) {
                        // It is repeated once there is room.
                    } else if let Err(error) = self.raft.step(moment.now, RaftId(claimed), message) {
                        self.refused(&error);
                    }
                }
            }
            Message::Recall { id, from: claimed } => {
                if self.heeds(from, claimed) {
                    self.note_start(moment, from, id);
                    self.recall(from, RaftId(claimed), id);
                }
            }
            Message::Recalled { id, promise } => self.recalled(from, id, promise),
            Message::Trouble { what } => self.trouble(moment, from, &what),
            Message::Clock(fault) => self.clock_of(moment, from, fault),
            Message::JournalNotKept { what } => self.journal_of(moment, from, &what),
            Message::Mark { index, digest } => self.marked(from, index, digest),
            Message::Renew(renew) => {
                let leadership = self.raft.leadership(moment.now);
                self.follow_leadership(moment, &leadership);
                let answer = self.answer(moment, from, renew);
                self.send(from, Message::Answer(answer), true);
            }
            Message::Answer(answer) => self.answered(moment, answer),
            // It comes by every path that works: the first copy counts.
            Message::Ask { id, request } if self.is_heard_again(moment.now, from, id, &request) => {}
            Message::Ask { id, request } => {
                let asker = Asker::Member(from.clone(), id);
                let permitted = match self.state.members.get(from).map(|member| member.role) {
                    Some(Role::Appliance) => request.permitted(Origin::Appliance),
                    Some(Role::Node) => request.permitted(Origin::Node),
                    None => Err(format!("{} has not heard yet that {from} is a member: ask again", self.name)),
                };
                match permitted {
                    Ok(()) => self.ask(moment, asker, request, false),
                    Err(why) => self.tell(moment, asker, Reply::Refused { why }),
                }
            }
            Message::Told { id, reply } => {
                // Only the member that was asked can answer.
                if self.asked.get(&id).is_some_and(|asked| asked.of == *from)
                    && let Some(asked) = self.asked.remove(&id)
                {
                    self.tell(moment, asked.asker, reply);
                }
            }
        }
        self.settle(moment);
    }

    /// Whether `claimed` may be the number of `name`. The certificate proves it; here it matters whether this member
    /// knows better. A number that it has not seen given out belongs to a newcomer of whom it has yet to hear: refusing
    /// that one could leave the cluster without a leader, and consensus is safe with whomever it talks to. Every lower
    /// number without a member was removed.
    fn heeds(&mut self, name: &MemberName, claimed: u64) -> bool {
        if claimed < self.state.next_raft_id {
            return self.state.members.get(name).is_some_and(|member| member.raft_id == claimed);
        }
        if self.newcomers.len() >= NEWCOMERS_MAX && !self.newcomers.contains_key(&claimed) {
            return false;
        }
        self.newcomers.insert(claimed, name.clone());
        true
    }

    fn name_of(&self, id: RaftId) -> Option<&MemberName> {
        self.state.member_by_id(id.0).map(|(name, _)| name).or_else(|| self.newcomers.get(&id.0))
    }

    /// A batch is durable.
    pub fn persisted(&mut self, moment: Moment, number: u64) {
        if self.parting.is_none() {
            self.raft.persisted(moment.now, number);
        }
        self.durable = number;
        self.settle(moment);
        self.may_go();
    }

    /// Lets the agent go once everything applied is on the disk. The commit index alone is never written, so the next
    /// agent would not know at first that this one went in good order, and would stop what it left running.
    fn let_go(&mut self, moment: Moment) {
        self.compact();
        self.drain_raft(moment);
        self.goes_after = Some(self.last_batch);
        self.may_go();
    }

    fn may_go(&mut self) {
        if self.goes_after.is_some_and(|batch| self.durable >= batch) {
            self.goes_after = None;
            self.actions.push_back(Action::Node(node::Action::MayGo));
        }
    }

    /// Takes a request of an operator; it ends in one [`Action::Reply`].
    pub fn request(&mut self, moment: Moment, id: RequestId, request: Request) {
        match &self.parting {
            Some(why) => {
                let reply = Reply::Refused { why: why.clone() };
                self.tell(moment, Asker::Shell(id), reply);
            }
            None => self.ask(moment, Asker::Shell(id), request, true),
        }
        self.settle(moment);
    }

    /// Takes an event of the node's executor or watchdog.
    pub fn node_event(&mut self, moment: Moment, event: node::Event) {
        self.journal.event(moment.wall_ms, &event);
        if let Some(node) = &mut self.node {
            node.handle(moment.now, &self.state, event);
        }
        self.settle(moment);
    }

    /// A power device has answered.
    pub fn device_done(&mut self, moment: Moment, token: u64, result: fencer::DeviceResult) {
        self.journal.device_done(moment.wall_ms, token, &result);
        self.power_ons.done(moment.now, token, &result);
        if let Some(fencer) = &mut self.fencer
            && self.parting.is_none()
        {
            fencer.handle(moment.now, &self.state, fencer::Event::CommandDone(token, result));
        }
        self.settle(moment);
    }

    /// What the daemon knows beside the cluster; it decides nothing.
    pub fn surrounded(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
    }

    /// The members heard lately, by any path.
    pub fn hears(&mut self, moment: Moment, hears: BTreeSet<MemberName>) {
        let votes = |name: &&MemberName| {
            self.state.members.get(*name).is_some_and(|member| self.state.voters.contains(&member.raft_id))
        };
        let heard = hears.iter().filter(|name| **name != self.name).chain([&self.name]).filter(votes).count();
        self.met.hear(moment.now, &hears, heard * 2 > self.state.voters.len());
        if self.hears != hears {
            self.hears.clone_from(&hears);
            if let Some(node) = &mut self.node {
                node.handle(moment.now, &self.state, node::Event::Hears(hears));
            }
        }
        self.settle(moment);
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Core::advance`] next: as soon as either clock reaches it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Reading> {
        if self.parting.is_some() {
            return self.node.as_ref().and_then(Node::poll_timeout);
        }
        let asked = {
            let asked = self.asked.values().map(|asked| asked.until);
            let moves = self.moves_asked.iter().map(|(_, _, until)| *until);
            asked.chain(self.tickets.values().map(|(_, until)| *until)).chain(moves).reduce(Reading::earlier_of)
        };
        [
            self.raft.poll_timeout(),
            self.node.as_ref().and_then(Node::poll_timeout),
            self.fencer.as_ref().and_then(Fencer::poll_timeout),
            self.leading.as_ref().map(|leading| leading.next),
            asked,
            self.next_recall(),
            self.troubles.next(),
        ]
        .into_iter()
        .flatten()
        .reduce(Reading::earlier_of)
    }

    fn refused(&mut self, error: &StepError) {
        match error {
            StepError::Amnesia { .. } | StepError::Diverged { .. } => self.step_aside(&error.to_string(), true),
            StepError::FromSelf => self.step_aside(&error.to_string(), false),
            StepError::Version { .. } | StepError::Malformed { .. } | StepError::Stranger { .. } => {}
        }
    }

    /// This member takes part no more.
    fn step_aside(&mut self, what: &str, forgot: bool) {
        if !self.stopped {
            self.stopped = true;
            let why = format!("{what}; remove this member, wipe its data folder and join again");
            self.actions.push_back(Action::Stop { why, forgot });
        }
    }

    /// A program that doesn't know what the others make of the log must not go on with it.
    fn mind_level(&mut self) {
        let (committed, known) = (self.state.level, self.level);
        if committed > known && !self.stopped {
            self.stopped = true;
            let why = TooOld { committed, known }.to_string();
            self.actions.push_back(Action::Stop { why, forgot: false });
        }
    }

    /// Carries out what consensus asks for and lets every part look at the result, until nothing is left to do.
    fn settle(&mut self, moment: Moment) {
        self.mind_level();
        if self.stopped {
            return;
        }
        if self.parting.is_some() {
            return self.part(moment);
        }
        self.ask_what_was_told(moment.now);
        loop {
            self.drain_raft(moment);
            let leadership = self.raft.leadership(moment.now);
            self.follow_leadership(moment, &leadership);
            if let Some(node) = &mut self.node {
                node.saw_term(leadership.term);
                node.look(moment.now, &self.state);
            }
            let doubtful = self.is_doubtful();
            if let Some(fencer) = &mut self.fencer {
                if doubtful {
                    fencer.stand_down(self.state.applied);
                } else {
                    fencer.advance(moment.now, &self.state);
                }
            }
            let busy = self.drain_node(moment, &leadership);
            let busy = self.drain_fencer(moment) || busy;
            let busy = self.begin_moves(moment) || busy;
            let busy = self.lead(moment) || busy;
            self.give_up_waiting(moment);
            self.mind_full_disk(moment);
            self.mind_replicas(moment);
            if !busy {
                break;
            }
        }
        let has_lease = self.node.as_ref().is_some_and(|node| node.has_lease(moment.now));
        let leads = self.leading.as_ref().map(|leading| leading.leases.term());
        self.journal.stands(moment.wall_ms, has_lease, leads);
        // The parts above may have proposed: what consensus wants done for that goes out in the same turn.
        self.drain_raft(moment);
    }

    fn drain_raft(&mut self, moment: Moment) {
        while let Some(action) = self.raft.poll_action() {
            match action {
                RaftAction::Send { to, message } => {
                    if let Some(name) = self.name_of(to).cloned()
                        && self.recall.has(&name)
                    {
                        let promise = self.raft.promise();
                        let message = Message::Consensus { from: self.raft_id.0, promise, message };
                        self.send(&name, message, false);
                    }
                }
                RaftAction::Persist(batch) => {
                    self.last_batch = batch.number;
                    self.actions.push_back(Action::Persist(batch));
                }
                RaftAction::Apply(entries) => self.apply(moment, entries),
                RaftAction::Restore(snapshot) => self.restore(moment, &snapshot),
                RaftAction::ReadReady { id, index } => {
                    if let Some(asker) = self.reads.remove(&id) {
                        self.tell(moment, asker, Reply::ReadIndex { index });
                    }
                }
                RaftAction::ReadFailed { id } => {
                    if let Some(asker) = self.reads.remove(&id) {
                        self.tell(moment, asker, Reply::NoLeader { why: "the lead changed during the read".into() });
                    }
                }
                RaftAction::SnapshotWanted => self.compact(),
            }
        }
    }

    fn apply(&mut self, moment: Moment, entries: Vec<Committed>) {
        let suspended = self.suspended();
        for entry in entries {
            let index = entry.index;
            match entry.payload {
                Payload::Empty => self.state.apply_nothing(index),
                Payload::Membership(membership) => {
                    self.state.apply_voters(index, membership.voters.iter().map(|id| id.0).collect());
                }
                Payload::Command(bytes) => self.apply_command(moment, index, &bytes),
            }
            self.raft.applied(index);
            self.mind_level();
            if self.stopped {
                return;
            }
            self.mark_now_and_then();
            // Each part sees every state that the log went through: a fence must not hide behind its own end.
            if let Some(node) = &mut self.node {
                node.advance(moment.now, &self.state);
            }
            if let Some(fencer) = &mut self.fencer {
                fencer.advance(moment.now, &self.state);
            }
        }
        // The next agent of this boot finds what runs here without a watchdog: it has to know from its first moment that
        // this is agreed to, and no disk is sure to hold how far the log was committed.
        let newly = self.suspended().is_some_and(|since| suspended != Some(since));
        if newly || self.state.applied.saturating_sub(self.compacted) >= COMPACT_EVERY {
            self.compact();
        }
        self.after_change(moment);
    }

    /// Since when nobody believes this node's promise, if so.
    fn suspended(&self) -> Option<u64> {
        self.node.as_ref().and_then(|_| self.state.life(&self.name)).and_then(|life| life.unbound)
    }

    fn apply_command(&mut self, moment: Moment, index: u64, bytes: &[u8]) {
        let entry: Entry = match cbor4ii::serde::from_slice(bytes) {
            Ok(entry) => entry,
            Err(_) => {
                // Every member decodes the same bytes with the same result, so skipping is deterministic.
                self.state.apply_nothing(index);
                return;
            }
        };
        let ticket = entry.ticket;
        let pardon = match &entry.command {
            Command::FenceWanted { node, incarnation, .. } => Some((node.clone(), *incarnation)),
            _ => None,
        };
        let verdict = self.state.apply(index, entry);
        if let (Err(_), Some((node, incarnation)), Some(leading)) = (&verdict, pardon, &mut self.leading) {
            leading.leases.pardon(&node, incarnation);
        }
        if let Some(leading) = &mut self.leading {
            leading.look_again(moment.now);
        }
        if let Some((asker, _)) = self.tickets.remove(&ticket) {
            let reply = match verdict {
                Ok(()) => Reply::Done { index },
                Err(why) => Reply::Void { why },
            };
            self.tell(moment, asker, reply);
        }
    }

    fn restore(&mut self, moment: Moment, snapshot: &Snapshot) {
        match State::decode(&snapshot.state) {
            Ok(state) => {
                self.state = state.with_rules(self.rules);
                self.state.applied = snapshot.index;
                self.compacted = snapshot.index;
                self.forget_own_marks();
                self.after_change(moment);
            }
            Err(error) => {
                self.stopped = true;
                let why = format!("the leader's snapshot can't be used: {error}");
                self.actions.push_back(Action::Stop { why, forgot: false });
            }
        }
    }

    fn compact(&mut self) {
        // Refused while nothing is there to compact, or a change of members is half done: later is early enough.
        if self.raft.compact(self.state.applied, self.state.encode()).is_ok() {
            self.compacted = self.state.applied;
        }
    }

    fn after_change(&mut self, moment: Moment) {
        let resources = &self.state.resources;
        self.journal.forget(|name| resources.contains_key(name));
        let members = &self.state.members;
        self.power_ons.forget(|name| members.contains_key(name));
        let next = self.state.next_raft_id;
        self.newcomers.retain(|id, _| *id >= next);
        self.count_answers();
        self.follow_settings();
        let ready: Vec<u64> =
            self.read_waits.iter().filter(|(index, _)| *index <= self.state.applied).map(|(_, token)| *token).collect();
        self.read_waits.retain(|(index, _)| *index > self.state.applied);
        if let Some(fencer) = &mut self.fencer {
            for token in ready {
                fencer.handle(moment.now, &self.state, fencer::Event::ReadDone(token, true));
            }
        }
        if self.actions.back() != Some(&Action::Changed) {
            self.actions.push_back(Action::Changed);
        }
    }

    /// The profile's tick, and this voter's place in elections: the appliance first, then by number.
    fn follow_settings(&mut self) {
        let tick = self.state.settings.profile.tick();
        if tick != self.tick {
            self.tick = tick;
            self.raft.set_tick(tick);
        }
        let appliance = self.state.appliance().and_then(|name| self.state.members.get(name)).map(|m| m.raft_id);
        let mut voters: Vec<u64> = self.state.voters.iter().copied().collect();
        voters.sort_by_key(|id| (Some(*id) != appliance, *id));
        let of = voters.len().clamp(3, 8) as u64;
        let place = voters.iter().position(|id| *id == self.raft_id.0).map_or(of - 1, |place| place as u64);
        let rank = Rank::new(place.min(of - 1), of);
        if rank != self.rank
            && let Some(new) = rank
        {
            self.rank = rank;
            self.raft.set_rank(new);
        }
    }

    fn send(&mut self, to: &MemberName, message: Message, everywhere: bool) {
        self.actions.push_back(Action::Send { to: to.clone(), message, everywhere });
    }

    fn drain_fencer(&mut self, moment: Moment) -> bool {
        let mut busy = false;
        while let Some(action) = self.fencer.as_mut().and_then(Fencer::poll_action) {
            busy = true;
            match action {
                fencer::Action::Read(token) => {
                    self.ask(moment, Asker::FencerRead(token), Request::ReadIndex, true);
                }
                fencer::Action::Command { token, node, device, command, .. } => {
                    self.journal.device(moment.wall_ms, token, &node, &device, command);
                    self.power_ons.told(token, &node, command);
                    self.actions.push_back(Action::Device { token, node, device, command });
                }
                fencer::Action::Propose(command) => {
                    self.ask(moment, Asker::Nobody, Request::Propose(command), true);
                }
            }
        }
        busy
    }

    fn drain_node(&mut self, moment: Moment, leadership: &Leadership) -> bool {
        let mut busy = false;
        while let Some(action) = self.node.as_mut().and_then(Node::poll_action) {
            busy = true;
            self.journal.action(moment.wall_ms, &action);
            match action {
                node::Action::Renew { renew, everywhere } => self.send_renewal(moment, leadership, renew, everywhere),
                node::Action::MayGo => self.let_go(moment),
                node::Action::Extend(_)
                | node::Action::Arm
                | node::Action::Disarm
                | node::Action::Begin { .. }
                | node::Action::Cancel(_)
                | node::Action::StartAnew
                | node::Action::ResetParted
                | node::Action::ResetSelf(_) => self.actions.push_back(Action::Node(action)),
            }
        }
        busy
    }

    fn send_renewal(&mut self, moment: Moment, leadership: &Leadership, renew: Renew, everywhere: bool) {
        match leadership.role {
            RaftRole::Leader { .. } => {
                let me = self.name.clone();
                let answer = self.answer(moment, &me, renew);
                self.answered(moment, answer);
            }
            RaftRole::Follower { leader: Some(leader) } => {
                let to = self.name_of(leader).cloned();
                if let Some(to) = to {
                    self.send(&to, Message::Renew(renew), everywhere);
                }
            }
            // Whoever leads answers; the others say that they don't.
            RaftRole::Follower { leader: None } | RaftRole::Candidate => {
                let others: Vec<MemberName> = self.state.members.keys().filter(|m| **m != self.name).cloned().collect();
                for to in others {
                    self.send(&to, Message::Renew(renew.clone()), everywhere);
                }
            }
        }
    }

    fn answer(&mut self, moment: Moment, from: &MemberName, mut renew: Renew) -> Answer {
        let leadership = self.raft.leadership(moment.now);
        let leads = matches!(leadership.role, RaftRole::Leader { .. });
        let odd = self.is_odd();
        match (&mut self.leading, leadership.role) {
            (Some(leading), RaftRole::Leader { lease_until }) if leading.leases.term() == leadership.term && !odd => {
                self.power_ons.complete(moment.now, &mut renew, from);
                let stranger = Stranger::of(&self.state, from, &renew);
                let answer = leading.leases.renew(moment.now, &self.state, lease_until, leadership.commit, from, renew);
                self.copies.answered(moment.now, &self.state, from, stranger, &answer.verdict);
                answer
            }
            (_, role) => {
                let leader = match role {
                    RaftRole::Follower { leader: Some(id) } => self.state.member_by_id(id.0).map(|(n, _)| n.clone()),
                    RaftRole::Leader { .. } => leads.then(|| self.name.clone()),
                    RaftRole::Follower { leader: None } | RaftRole::Candidate => None,
                };
                let verdict = LeaseVerdict::NotLeader { leader };
                Answer { seq: renew.seq, incarnation: renew.incarnation, term: leadership.term, verdict }
            }
        }
    }

    fn answered(&mut self, moment: Moment, mut answer: Answer) {
        // Whoever leads may not know yet.
        if let Some(index) = self.replicas.odd(&self.name)
            && let LeaseVerdict::Granted { .. } = answer.verdict
        {
            answer.verdict = LeaseVerdict::Refused { why: Refusal::Diverged { index } };
        }
        if let Some(node) = &mut self.node {
            node.handle(moment.now, &self.state, node::Event::Answered(answer));
        }
    }
}

#[cfg(test)]
mod tests;
