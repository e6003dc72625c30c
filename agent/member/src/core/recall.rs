//! What the members told each other, and what a starting member asks them before it takes part (row 52 of docs/safety.md).
//!
//! A card that lies about flushing makes a member forget votes and acknowledgements, and only its peers can know. So
//! each remembers, in memory, the greatest promise of every other; and a starting member asks them all.
//!
//! The rule: **consensus between two members begins when the one that started has the other's answer**, message by
//! message and in both directions. Nothing is promised to anybody who could know better, and since nothing new was told
//! to a peer before it answered, its answer is about earlier processes alone, however late it comes.
//!
//! Nobody waits for a peer that is down. A leader's entries and heartbeats need the leader's answer only: after an outage
//! of one election timeout, and losing power takes longer, whoever leads has a majority without this member, so a
//! promise to anybody newer can't exist. Votes and candidacies are held back for that timeout anyway (row 17), which
//! every peer that is up has to answer in. What a peer knows that isn't reached by then is learned when it is, and ends
//! this member's part at that moment. Peers forget with their process: when all lose power at once nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tiebreaker_consensus::{Promise, RaftId};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::time::Reading;

use super::{Core, Message};

/// While peers are expected to be up, they are asked this often: links come up one after the other.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// For so long after the start.
const EXPECTED_WITHIN: Duration = Duration::from_secs(3);
/// Later, those that still haven't answered are asked this often.
const ASK_SELDOM: Duration = Duration::from_secs(1);
/// Promises kept at most: twice as many as a cluster has members. Those of members that are known go last.
const KEPT_MAX: usize = 128;

/// What was heard and what was asked.
pub(super) struct Recall {
    /// Names this process's question, so that no answer to an earlier one counts.
    id: u64,
    started: Reading,
    next: Reading,
    /// Who has answered.
    answered: BTreeSet<MemberName>,
    /// Every other member is among them.
    by_all: bool,
    /// The greatest promise of each member.
    heard: BTreeMap<RaftId, Promise>,
}

impl Recall {
    pub(super) const fn start(now: Reading, id: u64) -> Self {
        Self { id, started: now, next: now, answered: BTreeSet::new(), by_all: false, heard: BTreeMap::new() }
    }

    /// True once consensus with `peer` may begin.
    pub(super) fn has(&self, peer: &MemberName) -> bool {
        self.answered.contains(peer)
    }
}

impl Core {
    /// Asks whoever hasn't answered yet, when it is time.
    pub(super) fn ask_what_was_told(&mut self, now: Reading) {
        if !now.reached_on_either(self.recall.next) {
            return;
        }
        let early = now.since_at_most(self.recall.started) < EXPECTED_WITHIN;
        self.recall.next = now.after(if early { ASK_EVERY } else { ASK_SELDOM });
        let silent: Vec<MemberName> =
            self.state.members.keys().filter(|name| **name != self.name && !self.recall.has(name)).cloned().collect();
        for peer in silent {
            self.send_recall(&peer);
        }
    }

    /// When to ask next, while somebody hasn't answered.
    pub(super) fn next_recall(&self) -> Option<Reading> {
        (!self.recall.by_all).then_some(self.recall.next)
    }

    /// Somebody has answered, or the members have changed.
    pub(super) fn count_answers(&mut self) {
        self.recall.by_all = self.state.members.keys().all(|name| *name == self.name || self.recall.has(name));
    }

    pub(super) fn send_recall(&mut self, to: &MemberName) {
        let message = Message::Recall { id: self.recall.id, from: self.raft_id.0 };
        self.send(to, message, true);
    }

    /// Remembers what the member of this number promised.
    pub(super) fn remember(&mut self, id: RaftId, promise: Promise) {
        let heard = &mut self.recall.heard;
        if !heard.contains_key(&id) && heard.len() >= KEPT_MAX {
            let known = |id: &RaftId| self.state.member_by_id(id.0).is_some();
            let Some(least) = heard.keys().find(|id| !known(id)).copied() else { return };
            heard.remove(&least);
        }
        heard.entry(id).and_modify(|before| *before = before.and(promise)).or_insert(promise);
    }

    /// A member has started and asks what it told this one.
    pub(super) fn recall(&mut self, from: &MemberName, who: RaftId, id: u64) {
        let promise = self.recall.heard.get(&who).copied();
        self.send(from, Message::Recalled { id, promise }, true);
        if !self.recall.has(from) {
            self.send_recall(from);
        }
    }

    /// A peer says what this member told it before it started.
    pub(super) fn recalled(&mut self, from: &MemberName, id: u64, promise: Option<Promise>) {
        // A second answer may hold what this process has told meanwhile.
        if id != self.recall.id || self.recall.has(from) {
            return;
        }
        if let Some(promise) = promise
            && let Err(forgotten) = self.raft.remembers(promise)
        {
            self.step_aside(&format!("amnesia: {from} remembers of this member that {forgotten}"), true);
            return;
        }
        // Nothing waits here for it: consensus repeats what was lost.
        if self.recall.answered.len() >= KEPT_MAX {
            let members = &self.state.members;
            self.recall.answered.retain(|name| members.contains_key(name));
        }
        self.recall.answered.insert(from.clone());
        self.count_answers();
    }
}
