//! What the library wants done, in the order in which it may be done: durable first, said later.

use raft::eraftpb::{ConfChangeV2, Entry as PbEntry, Message as PbMessage, MessageType};

use crate::convert;
use crate::stored::{Batch, EntryPayload, HardState, SnapshotWrite};
use crate::{Action, Body, Committed, Entry, Membership, Payload, Raft, RaftId};

/// A batch on its way to the disk, and what waits for it.
pub(crate) struct Outstanding {
    pub(crate) number: u64,
    /// The library's number of the last `Ready` that this batch covers.
    ready: u64,
    /// The hard state that is durable with it, if it holds one.
    hard_state: Option<HardState>,
    /// A snapshot from the leader that the state machine takes over once it is durable.
    restore: Option<crate::Snapshot>,
    messages: Vec<PbMessage>,
}

impl Raft {
    /// Carries out all that the library has ready.
    pub(crate) fn pump(&mut self) {
        while self.node.has_ready() {
            self.take_ready();
        }
        if self.node.store().take_wanted() && self.leads() {
            self.actions.push_back(Action::SnapshotWanted);
        }
    }

    fn take_ready(&mut self) {
        let mut ready = self.node.ready();
        self.note_change();
        for read in ready.take_read_states() {
            self.read_is_ready(&read.request_ctx, read.index);
        }
        let mut messages = ready.take_messages();
        messages.extend(ready.take_persisted_messages());
        let entries = ready.take_entries();
        let committed = ready.take_committed_entries();
        let number = ready.number();

        let mut write = None;
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.adopt(&snapshot);
            write = Some(SnapshotWrite::Replace(convert::snapshot_from_pb(&snapshot)));
            self.node.mut_store().replace(snapshot);
        }
        let stored: Vec<Entry> = entries.iter().map(convert::entry_from_pb).collect();
        self.node.mut_store().append(entries);

        let state = convert::hard_state_from_pb(&self.node.raft.hard_state());
        let voted = (state.term, state.vote) != (self.written.term, self.written.vote);
        // A commit index alone isn't worth a write: it is a lower bound, and the leader will tell it again.
        if voted || write.is_some() || !stored.is_empty() {
            self.persist(write, stored, number);
        } else if let Some(last) = self.outstanding.back_mut() {
            last.ready = number;
        }
        self.node.advance_append_async(ready);
        for message in messages {
            self.dispatch(message);
        }
        if self.outstanding.is_empty() {
            self.node.on_persist_ready(number);
        }
        if !committed.is_empty() {
            self.hand_out(&committed);
        }
    }

    /// Hands a batch out. The commit index goes with it, since it is never less than what was applied.
    pub(crate) fn persist(&mut self, snapshot: Option<SnapshotWrite>, entries: Vec<Entry>, ready: u64) {
        let state: HardState = convert::hard_state_from_pb(&self.node.raft.hard_state());
        let hard_state = (state != self.written).then_some(state);
        let voted = (state.term, state.vote) != (self.written.term, self.written.vote);
        let changes_members = entries.iter().any(|entry| match entry.payload {
            EntryPayload::Change(_) | EntryPayload::Settle => true,
            EntryPayload::Empty | EntryPayload::Command(_) => false,
        });
        let number = self.next_batch;
        self.next_batch += 1;
        self.written = state;
        let restore = match &snapshot {
            Some(SnapshotWrite::Replace(snapshot)) => Some(snapshot.clone()),
            Some(SnapshotWrite::Compact(_)) | None => None,
        };
        // A compaction comes between two of the library's turns: it must not take back the number of an earlier one.
        self.outstanding.push_back(Outstanding { number, ready, hard_state, restore, messages: Vec::new() });
        let two_phase = voted || snapshot.is_some() || changes_members;
        self.actions.push_back(Action::Persist(Batch { number, hard_state, snapshot, entries, two_phase }));
    }

    /// Sends a message, or keeps it until what it rests on is durable.
    fn dispatch(&mut self, message: PbMessage) {
        let from_leader = matches!(
            message.get_msg_type(),
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot | MessageType::MsgTimeoutNow
        );
        // A leader replicates while it writes itself. But a sole voter leads before its own vote is durable.
        let may_leave = message.get_msg_type() == MessageType::MsgHeartbeatResponse
            || (from_leader && self.durable.term >= message.term);
        match self.outstanding.back_mut() {
            Some(batch) if !may_leave => batch.messages.push(message),
            Some(_) | None => self.send(&message),
        }
    }

    fn send(&mut self, pb: &PbMessage) {
        debug_assert!(convert::survives(pb), "a message that our types can't carry: {pb:?}");
        let Some(mut message) = convert::message_from_pb(pb) else { return };
        let to = RaftId(pb.to);
        let kind = pb.get_msg_type();
        let numbered = matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
        if let Some(lease) = &mut self.lease
            && numbered
            && lease.term() == message.term
        {
            message.number = lease.number(to, self.now, self.tick);
        }
        if let Body::Appended { index, .. } = message.body {
            let (term, last) = self.acknowledged;
            self.acknowledged = (message.term, if term == message.term { last.max(index) } else { index });
        }
        if kind == MessageType::MsgSnapshot {
            self.snapshots_sent.insert(to, self.ticks());
        }
        self.actions.push_back(Action::Send { to, message });
    }

    /// The library first, then what waited: a peer's answer may come before this call returns.
    pub(crate) fn batch_is_durable(&mut self, batch: Outstanding) {
        if let Some(state) = batch.hard_state {
            self.durable = state;
        }
        if batch.ready != 0 {
            self.node.on_persist_ready(batch.ready);
        }
        if let Some(snapshot) = batch.restore {
            let log = &self.node.raft.raft_log;
            if snapshot.index > log.applied && snapshot.index <= log.committed.min(log.persisted) {
                self.node.advance_apply_to(snapshot.index);
            }
            self.actions.push_back(Action::Restore(snapshot));
        }
        for message in batch.messages {
            self.send(&message);
        }
    }

    /// Takes over the membership of a snapshot from the leader.
    fn adopt(&mut self, snapshot: &raft::eraftpb::Snapshot) {
        let metadata = snapshot.get_metadata();
        self.handed_out = metadata.index;
        self.membership = convert::membership_from_conf_state(metadata.get_conf_state());
        self.history.clear();
        self.set_majorities(metadata.get_conf_state());
    }

    fn hand_out(&mut self, entries: &[PbEntry]) {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let payload = match convert::payload_from_pb(entry) {
                EntryPayload::Empty => Payload::Empty,
                EntryPayload::Command(bytes) => Payload::Command(bytes),
                EntryPayload::Change(target) => self.change(entry.index, &target),
                EntryPayload::Settle => self.apply_change(entry.index, &ConfChangeV2::default()),
            };
            committed.push(Committed { index: entry.index, term: entry.term, payload });
            self.handed_out = entry.index;
        }
        self.actions.push_back(Action::Apply(committed));
    }

    fn change(&mut self, index: u64, target: &Membership) -> Payload {
        match convert::change_between(&self.membership, target) {
            Some(change) => self.apply_change(index, &change),
            None => Payload::Empty,
        }
    }

    /// Applies a committed change. One that doesn't fit the present membership is void: every member sees the same log and
    /// judges the same.
    fn apply_change(&mut self, index: u64, change: &ConfChangeV2) -> Payload {
        let Ok(conf) = self.node.apply_conf_change(change) else { return Payload::Empty };
        self.set_majorities(&conf);
        if !conf.get_voters_outgoing().is_empty() {
            self.history.insert(index, None);
            return Payload::Empty;
        }
        self.membership = convert::membership_from_conf_state(&conf);
        self.history.insert(index, Some(self.membership.clone()));
        Payload::Membership(self.membership.clone())
    }
}
