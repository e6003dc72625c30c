//! The member: our rules around the library's `RawNode`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use raft::eraftpb::{ConfState, Message as PbMessage, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use tiebreaker_pipeline::time::Reading;

use crate::check::check;
use crate::config::{ELECTION_TICKS, HEARTBEAT_TICKS, PROMISE_TICKS, Rules, SILENCE_TICKS};
use crate::convert;
use crate::lease::QuorumLease;
use crate::log::Log;
use crate::promise::AtStart;
use crate::random::Random;
use crate::ready::Outstanding;
use crate::{
    Action, Body, ChangeError, CompactError, Config, Consensus, Forgotten, HardState, Leadership, MESSAGE_VERSION,
    Membership, Message, Promise, ProposeError, RaftId, Rank, ReadError, Role, Snapshot, SnapshotWrite, StartError,
    StepError, Stored, TransferError,
};

/// The largest command that is taken: commands are decisions, not data.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;
/// The largest state of a snapshot: it crosses in one message.
pub const MAX_STATE_BYTES: usize = 8 * 1024 * 1024;
/// The most reads that may wait at once.
pub const MAX_READS: usize = 1024;

/// Bytes of entries in one append, unless a single entry is larger.
const MAX_APPEND_BYTES: u64 = 256 * 1024;
/// Appends on their way to one peer.
const MAX_APPENDS_IN_FLIGHT: usize = 64;
/// Proposed and not yet committed.
const MAX_UNCOMMITTED_BYTES: u64 = 4 * 1024 * 1024;
/// Handed out to be applied in one action.
const MAX_APPLY_BYTES: u64 = 1024 * 1024;
/// A snapshot without an answer counts as lost after this; a second copy does no harm.
const SNAPSHOT_TICKS: u64 = SILENCE_TICKS;
/// No promise of a peer is worth more than this, whatever length of tick it claims.
const MAX_TICK_NS: u64 = 10_000_000_000;

#[derive(Debug)]
struct Transfer {
    to: RaftId,
    until_tick: u64,
}

#[derive(Debug)]
struct PendingRead {
    id: u64,
    until_tick: u64,
}

/// Our [`Consensus`].
pub struct Raft {
    pub(crate) id: RaftId,
    rank: Rank,
    pub(crate) tick: Duration,
    pub(crate) rules: Rules,
    pub(crate) node: RawNode<Log>,
    random: Random,
    /// The election timeout in force, in ticks. The library would draw its own from the thread's generator.
    timeout: u64,
    pub(crate) now: Reading,
    next_tick: Reading,
    ticks: u64,
    /// Until both clocks say so, this voter is silent: it may have promised its vote before it restarted.
    silent_until: Reading,
    /// Until both clocks say so, this voter's acknowledgement binds its vote.
    promised_until: Reading,
    pub(crate) lease: Option<QuorumLease>,
    transfer: Option<Transfer>,
    reads: BTreeMap<u64, PendingRead>,
    next_read: u64,
    /// When the last snapshot went to a peer that hasn't answered.
    pub(crate) snapshots_sent: BTreeMap<RaftId, u64>,
    pub(crate) outstanding: VecDeque<Outstanding>,
    pub(crate) next_batch: u64,
    /// The hard state in the last batch.
    pub(crate) written: HardState,
    /// The last durable hard state.
    pub(crate) durable: HardState,
    /// The last index acknowledged to the leader of a term, and that term.
    pub(crate) acknowledged: (u64, u64),
    at_start: AtStart,
    /// The last index handed out to be applied or restored.
    pub(crate) handed_out: u64,
    pub(crate) membership: Membership,
    /// The membership from each index on, since the snapshot; `None` while it is in transition.
    pub(crate) history: BTreeMap<u64, Option<Membership>>,
    /// The sets of voters of which each must give a majority: two while the membership is in transition.
    pub(crate) majorities: Vec<BTreeSet<RaftId>>,
    /// The term and whether this member led in it, when last looked at.
    was: (u64, bool),
    pub(crate) actions: VecDeque<Action>,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("id", &self.id)
            .field("leadership", &self.leadership(self.now))
            .field("membership", &self.membership)
            .finish_non_exhaustive()
    }
}

impl Raft {
    /// Resumes from what was stored: always as a follower, whatever it was before.
    ///
    /// # Errors
    /// The configuration or the stored state is no good.
    pub fn new(config: Config, stored: Stored, now: Reading) -> Result<Self, StartError> {
        stored.check()?;
        if config.id.0 == 0 {
            return Err(StartError::BadId { id: config.id });
        }
        if config.tick.is_zero() {
            return Err(StartError::NoTick);
        }
        let rules = config.rules();
        let written = stored.hard_state;
        let applied = stored.snapshot_index();
        let at_start = AtStart::of(&stored);
        let membership = stored.snapshot.as_ref().map(|snapshot| snapshot.membership.clone()).unwrap_or_default();
        let log = Log::new(
            convert::hard_state_to_pb(written),
            stored.snapshot.map(convert::snapshot_to_pb).unwrap_or_default(),
            stored.entries.into_iter().map(convert::entry_to_pb).collect(),
        );
        let library = raft::Config {
            id: config.id.0,
            election_tick: ELECTION_TICKS as usize,
            heartbeat_tick: HEARTBEAT_TICKS as usize,
            applied,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_inflight_msgs: MAX_APPENDS_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: ELECTION_TICKS as usize,
            max_election_tick: SILENCE_TICKS as usize,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_APPLY_BYTES,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&library, log, &logger).map_err(|error| StartError::Refused { reason: error.to_string() })?;
        let mut raft = Self {
            id: config.id,
            rank: config.rank,
            tick: config.tick,
            rules,
            was: (node.raft.term, false),
            node,
            random: Random::new(config.seed ^ config.id.0.rotate_left(32)),
            timeout: ELECTION_TICKS,
            now,
            next_tick: now.after(config.tick),
            ticks: 0,
            silent_until: now.after(config.tick * SILENCE_TICKS as u32),
            promised_until: now,
            lease: None,
            transfer: None,
            reads: BTreeMap::new(),
            next_read: 1,
            snapshots_sent: BTreeMap::new(),
            outstanding: VecDeque::new(),
            next_batch: 1,
            written,
            durable: written,
            acknowledged: (0, 0),
            at_start,
            handed_out: applied,
            majorities: vec![membership.voters.clone()],
            membership,
            history: BTreeMap::new(),
            actions: VecDeque::new(),
        };
        raft.draw_timeout();
        raft.pump();
        Ok(raft)
    }

    /// The newest snapshot, for the reply to a joiner; `None` on a joiner itself.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = self.node.store().newest_snapshot();
        (!snapshot.is_empty()).then(|| convert::snapshot_from_pb(snapshot))
    }

    /// The last index in the log, durable or not.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Whether a change of the members is in this leader's log, or may be, that is not wholly applied: until then it isn't
    /// certain whose majority will commit what is proposed now.
    #[must_use]
    pub fn is_changing_members(&self) -> bool {
        self.node.raft.has_pending_conf() || self.majorities.len() > 1
    }

    /// How many entries `peer` is behind the end of this leader's log, as far as it has acknowledged; `None` while another
    /// member leads, or for somebody who is no member.
    #[must_use]
    pub fn behind(&self, peer: RaftId) -> Option<u64> {
        let matched = self.leads().then(|| self.node.raft.prs().get(peer.0)).flatten()?.matched;
        Some(self.last_index().saturating_sub(matched))
    }

    /// Entries and states kept behind the snapshot: how much a compaction would drop.
    #[must_use]
    pub fn applied_since_snapshot(&self) -> u64 {
        self.node.raft.raft_log.applied.saturating_sub(self.node.store().newest_snapshot().get_metadata().index)
    }

    /// What this member holds durably and has told its peers, or is about to: it goes with each of its messages.
    #[must_use]
    pub fn promise(&self) -> Promise {
        let HardState { term, vote, .. } = self.durable;
        let log = &self.node.raft.raft_log;
        let index = if self.leads() && self.node.raft.term == term {
            log.persisted
        } else if self.acknowledged.0 == term {
            self.acknowledged.1
        } else {
            0
        };
        // Compacted entries have no term any more; a promise of one says nothing that a peer could hold against it.
        match log.term(index) {
            Ok(log_term) if log_term != 0 => Promise { term, vote, index, log_term },
            Ok(_) | Err(_) => Promise { term, vote, index: 0, log_term: 0 },
        }
    }

    /// Compares what a peer remembers of this member with what the store held when this member started. Only a promise of
    /// an earlier process may be given: this one's own go beyond that.
    ///
    /// # Errors
    /// The store has lost something that was reported as written: this member must never vote or acknowledge again under
    /// its number.
    pub fn remembers(&self, told: Promise) -> Result<(), Forgotten> {
        self.at_start.knew(told)
    }

    pub(crate) fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn leader(&self) -> Option<RaftId> {
        let leader = self.node.raft.leader_id;
        (leader != 0).then_some(RaftId(leader))
    }

    fn draw_timeout(&mut self) {
        let (from, to) = self.rank.timeouts();
        self.timeout = self.random.between(from, to);
    }

    /// Clocks never run backwards here, even if a caller mixes its readings up.
    fn observe(&mut self, now: Reading) {
        self.now = self.now.later_of(now);
    }

    fn is_silent(&self) -> bool {
        self.rules.silence() && !self.now.reached_on_both(self.silent_until)
    }

    fn is_promised(&self) -> bool {
        !self.now.reached_on_both(self.promised_until)
    }

    fn is_sole_voter(&self) -> bool {
        self.majorities.iter().all(|voters| voters.len() == 1 && voters.contains(&self.id))
    }

    /// True while this member must not campaign. Its own vote counts like any other, so what binds the one binds the
    /// other. And with a write outstanding the library must not start: it asserts that a new leader's log is durable.
    fn is_held_back(&self) -> bool {
        !self.outstanding.is_empty() || (!self.is_sole_voter() && (self.is_silent() || self.is_promised()))
    }

    /// Takes note of a change of term or role: at the begin of a lead the lease starts afresh, at its end all that hung
    /// on it falls.
    pub(crate) fn note_change(&mut self) {
        let is = (self.node.raft.term, self.leads());
        if is == self.was {
            return;
        }
        self.was = is;
        self.transfer = None;
        self.snapshots_sent.clear();
        for read in std::mem::take(&mut self.reads).into_values() {
            self.actions.push_back(Action::ReadFailed { id: read.id });
        }
        self.lease = is.1.then(|| QuorumLease::new(is.0, self.now));
        if let Some(lease) = &mut self.lease
            && !self.rules.own_term()
        {
            lease.open();
        }
        self.draw_timeout();
    }

    pub(crate) fn read_is_ready(&mut self, context: &[u8], index: u64) {
        let Ok(key) = context.try_into().map(u64::from_le_bytes) else { return };
        if let Some(read) = self.reads.remove(&key) {
            self.actions.push_back(Action::ReadReady { id: read.id, index });
        }
    }

    pub(crate) const fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Takes over the voters of `conf`, the library's view after a change.
    pub(crate) fn set_majorities(&mut self, conf: &ConfState) {
        let set = |ids: &[u64]| ids.iter().copied().map(RaftId).collect::<BTreeSet<_>>();
        self.majorities = vec![set(conf.get_voters())];
        if !conf.get_voters_outgoing().is_empty() {
            self.majorities.push(set(conf.get_voters_outgoing()));
        }
        // A leader that lost its vote must not lead on: the library would look for its own progress and not find it.
        if self.leads() && !self.majorities.iter().any(|voters| voters.contains(&self.id)) {
            self.step_down();
        }
    }

    fn step_down(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
        self.note_change();
    }

    fn run_tick(&mut self) {
        self.ticks += 1;
        if !self.leads() {
            let held = self.is_held_back();
            let sole = self.is_sole_voter();
            let elapsed = &mut self.node.raft.election_elapsed;
            if held {
                // Held at the start of the ranges, so that after a common silence the ranks still go one by one.
                *elapsed = (*elapsed).min(ELECTION_TICKS as usize - 2);
            } else if sole {
                // There is nobody to wait for.
                *elapsed = SILENCE_TICKS as usize;
            }
        }
        self.node.raft.set_randomized_election_timeout(self.timeout as usize);
        let led = self.leads();
        if self.node.tick() && !led {
            // It campaigned: the next try gets another timeout.
            self.draw_timeout();
        }
        self.note_change();
        if self.leads() {
            self.run_leader_tick();
        }
        let ticks = self.ticks;
        let late: Vec<u64> =
            self.reads.iter().filter(|(_, read)| ticks >= read.until_tick).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(read) = self.reads.remove(&key) {
                self.actions.push_back(Action::ReadFailed { id: read.id });
            }
        }
        self.pump();
    }

    fn run_leader_tick(&mut self) {
        if let Some(lease) = &self.lease {
            let heard = lease.quorum_heard(self.id, &self.majorities);
            if self.now.reached_on_either(heard.after(self.tick * ELECTION_TICKS as u32)) {
                return self.step_down();
            }
        }
        if self.transfer.as_ref().is_some_and(|transfer| self.ticks >= transfer.until_tick) {
            return self.lead_in_a_new_term();
        }
        let waits_for_snapshot = |node: &RawNode<Log>, id: &RaftId| {
            node.raft.prs().get(id.0).is_some_and(|peer| peer.state == raft::ProgressState::Snapshot)
        };
        self.snapshots_sent.retain(|id, _| waits_for_snapshot(&self.node, id));
        let ticks = self.ticks;
        let lost: Vec<RaftId> = self
            .snapshots_sent
            .iter()
            .filter(|(_, sent)| ticks >= **sent + SNAPSHOT_TICKS)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.snapshots_sent.remove(&id);
            self.node.report_snapshot(id.0, SnapshotStatus::Failure);
        }
    }

    /// The transfer came to nothing. Its gate stays shut for this term, and without a lease no node gets a grant: so this
    /// member asks for a new term at once, as the target would have.
    fn lead_in_a_new_term(&mut self) {
        let term = self.node.raft.term;
        self.step_down();
        if self.is_held_back() {
            return;
        }
        let mut now = PbMessage { from: self.id.0, to: self.id.0, term, ..PbMessage::default() };
        now.set_msg_type(MessageType::MsgTimeoutNow);
        // The library refuses this message only for reasons that leave a follower, which will campaign in its time.
        let _ = self.node.raft.step(now);
        self.note_change();
    }

    /// True if a request for this member's vote must not even be heard.
    fn drops_vote_request(&self, transfer: bool) -> bool {
        // A joiner has no term yet, and the library asserts that every answer has one.
        self.node.raft.term == 0 || self.is_silent() || (!transfer && self.is_promised())
    }

    fn drops_timeout_now(&self, from: RaftId, term: u64) -> bool {
        term != self.node.raft.term || self.leader() != Some(from) || self.is_silent() || !self.outstanding.is_empty()
    }

    /// Acknowledges a leader's message, and binds the vote that the acknowledgement promises.
    fn acknowledge(&mut self, leader: RaftId, number: u64) {
        self.promised_until = self.promised_until.later_of(self.now.after(self.tick * PROMISE_TICKS as u32));
        let tick_ns = u64::try_from(self.tick.as_nanos()).unwrap_or(u64::MAX);
        let message = Message {
            version: MESSAGE_VERSION,
            term: self.node.raft.term,
            number: 0,
            body: Body::Ack { number, tick_ns },
        };
        self.actions.push_back(Action::Send { to: leader, message });
    }
}

impl Consensus for Raft {
    fn advance(&mut self, now: Reading) {
        self.observe(now);
        if !self.now.reached_on_either(self.next_tick) {
            return;
        }
        let late = self.now.since_at_most(self.next_tick);
        let next = if late < self.tick { self.tick - late } else { self.tick };
        self.next_tick = self.now.after(next);
        self.run_tick();
    }

    fn step(&mut self, now: Reading, from: RaftId, message: Message) -> Result<(), StepError> {
        self.observe(now);
        if message.version != MESSAGE_VERSION {
            return Err(StepError::Version { version: message.version });
        }
        if from == self.id {
            return Err(StepError::FromSelf);
        }
        check(&self.node, from, &message)?;
        let Message { term, number, .. } = message;
        let leads_us = match &message.body {
            Body::Ack { number, tick_ns } => {
                if let Some(lease) = &mut self.lease
                    && lease.term() == term
                {
                    let theirs = Duration::from_nanos((*tick_ns).min(MAX_TICK_NS));
                    lease.acknowledged(from, *number, theirs, self.tick, self.now, self.rules.send_time());
                }
                return Ok(());
            }
            Body::RequestVote { transfer, .. } => {
                if self.drops_vote_request(*transfer) {
                    return Ok(());
                }
                if let Some(lease) = &mut self.lease
                    && *transfer
                    && term > lease.term()
                    && self.rules.shut_gate()
                {
                    lease.shut();
                }
                false
            }
            Body::TimeoutNow => {
                if self.drops_timeout_now(from, term) {
                    return Ok(());
                }
                false
            }
            Body::Heartbeat { .. } | Body::Append { .. } | Body::Snapshot(_) => true,
            Body::HeartbeatResponse { .. } | Body::Appended { .. } | Body::AppendRefused { .. } | Body::Vote { .. } => {
                false
            }
        };
        let Some(pb) = convert::message_to_pb(from, self.id, message) else { return Ok(()) };
        if self.node.step(pb).is_err() {
            return Err(StepError::Malformed { what: "refused by the consensus library" });
        }
        self.note_change();
        if leads_us && number != 0 && self.node.raft.term == term && self.leader() == Some(from) {
            self.acknowledge(from, number);
        }
        self.pump();
        Ok(())
    }

    fn propose(&mut self, command: Vec<u8>) -> Result<(), ProposeError> {
        if command.is_empty() {
            return Err(ProposeError::Empty);
        }
        if command.len() > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge { len: command.len(), max: MAX_COMMAND_BYTES });
        }
        if !self.leads() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if self.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        self.node.propose(Vec::new(), command).map_err(|_| ProposeError::Busy)?;
        self.pump();
        Ok(())
    }

    fn change_members(&mut self, members: Membership) -> Result<(), ChangeError> {
        if !members.is_sound() {
            return Err(ChangeError::Unsound);
        }
        if !self.leads() {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        }
        if self.transfer.is_some() {
            return Err(ChangeError::Transferring);
        }
        if self.is_changing_members() {
            // The library would answer Ok and propose an empty entry instead.
            return Err(ChangeError::Pending);
        }
        if !members.voters.contains(&self.id) {
            return Err(ChangeError::RemovesLeader);
        }
        let change = convert::change_between(&self.membership, &members).ok_or(ChangeError::Unchanged)?;
        self.node
            .propose_conf_change(convert::membership_to_context(&members), change)
            .map_err(|_| ChangeError::Busy)?;
        self.pump();
        Ok(())
    }

    fn transfer(&mut self, now: Reading, to: RaftId) -> Result<(), TransferError> {
        self.observe(now);
        if !self.leads() {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if to == self.id {
            return Err(TransferError::ToSelf);
        }
        if !self.membership.voters.contains(&to) || !self.majorities.iter().all(|voters| voters.contains(&to)) {
            return Err(TransferError::NotVoter { to });
        }
        if let Some(transfer) = &self.transfer {
            return Err(TransferError::Transferring { to: transfer.to });
        }
        if let Some(lease) = &mut self.lease
            && self.rules.shut_gate()
        {
            lease.shut();
        }
        self.transfer = Some(Transfer { to, until_tick: self.ticks + ELECTION_TICKS });
        self.node.transfer_leader(to.0);
        self.pump();
        Ok(())
    }

    fn read(&mut self, id: u64) -> Result<(), ReadError> {
        if !self.leads() {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        if !self.node.raft.commit_to_current_term() {
            // The library would drop it without a word.
            return Err(ReadError::TooNew);
        }
        if self.reads.values().any(|read| read.id == id) {
            return Err(ReadError::Duplicate { id });
        }
        if self.reads.len() >= MAX_READS {
            return Err(ReadError::Busy);
        }
        let key = self.next_read;
        self.next_read += 1;
        self.reads.insert(key, PendingRead { id, until_tick: self.ticks + ELECTION_TICKS });
        self.node.read_index(key.to_le_bytes().to_vec());
        self.pump();
        Ok(())
    }

    fn persisted(&mut self, now: Reading, number: u64) {
        self.observe(now);
        while self.outstanding.front().is_some_and(|batch| batch.number <= number) {
            if let Some(batch) = self.outstanding.pop_front() {
                self.batch_is_durable(batch);
            }
        }
        self.pump();
    }

    fn applied(&mut self, index: u64) {
        let index = index.min(self.handed_out);
        let log = &self.node.raft.raft_log;
        if index > log.applied && index <= log.committed.min(log.persisted) {
            self.node.advance_apply_to(index);
        }
        if let Some(lease) = &mut self.lease
            && self.node.raft.apply_to_current_term()
        {
            lease.open();
        }
        self.pump();
    }

    fn compact(&mut self, index: u64, state: Vec<u8>) -> Result<(), CompactError> {
        if state.len() > MAX_STATE_BYTES {
            return Err(CompactError::TooLarge { len: state.len(), max: MAX_STATE_BYTES });
        }
        let metadata = self.node.store().newest_snapshot().get_metadata();
        let (first, applied) = (metadata.index, self.node.raft.raft_log.applied);
        let term = match self.node.raft.raft_log.term(index) {
            Ok(term) if index > first && index <= applied && term != 0 => term,
            Ok(_) | Err(_) => return Err(CompactError::OutOfRange { index, first, applied }),
        };
        let membership = match self.history.range(..=index).next_back() {
            Some((_, Some(membership))) => membership.clone(),
            Some((_, None)) => return Err(CompactError::InTransition { index }),
            None => convert::membership_from_conf_state(metadata.get_conf_state()),
        };
        self.history = self.history.split_off(&(index + 1));
        let snapshot = Snapshot { index, term, membership, state };
        self.node.mut_store().compact(convert::snapshot_to_pb(snapshot.clone()));
        self.persist(Some(SnapshotWrite::Compact(snapshot)), Vec::new(), 0);
        Ok(())
    }

    fn set_tick(&mut self, tick: Duration) {
        if tick.is_zero() || tick == self.tick {
            return;
        }
        self.tick = tick;
        self.next_tick = self.next_tick.earlier_of(self.now.after(tick));
    }

    fn set_rank(&mut self, rank: Rank) {
        if rank != self.rank {
            self.rank = rank;
            self.draw_timeout();
        }
    }

    fn leadership(&self, now: Reading) -> Leadership {
        let now = self.now.later_of(now);
        let lease_until = || {
            self.lease
                .as_ref()
                .and_then(|lease| lease.until(self.id, &self.majorities, now, self.tick, self.rules.either_clock()))
        };
        let role = match self.node.raft.state {
            StateRole::Leader => Role::Leader { lease_until: lease_until() },
            StateRole::Follower => Role::Follower { leader: self.leader() },
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        Leadership { term: self.node.raft.term, role, commit: self.node.raft.raft_log.committed }
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Reading> {
        Some(self.next_tick)
    }
}
