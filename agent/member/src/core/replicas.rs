//! The copies of the replicated state: whether each member made the same of the log, and what happens where one didn't.
//!
//! Now and then every member marks its state, by a digest at a log index, and tells the voters. Where the marks of one
//! index differ, some member has a fault in its memory, its disk or its program. Who is in the minority can't be trusted
//! with anything: it gets no lease, it leads nobody, it works no device, and its reports decide nothing. Where no majority
//! says which copy is right, nothing is decided at all; what runs goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tiebreaker_consensus::{Consensus, Role as RaftRole};
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::State;
use tiebreaker_pipeline::time::Reading;

use super::{Core, Message, Moment};

/// A state is marked each time that the log has grown by so many entries.
const MARK_EVERY: u64 = 64;
/// It is marked as well when nothing was applied for this long, and its newest mark is told this often.
const QUIET: Duration = Duration::from_secs(10);
/// Marks that are kept of each member.
const MARKS_MAX: usize = 16;
/// A leader that has diverged tries this often to hand over.
const HAND_OVER_EVERY: Duration = Duration::from_secs(1);

/// A member's marks by log index, and the number under which it told them: who comes back under an old name is another.
#[derive(Clone, Debug, Default)]
struct Marks {
    raft_id: u64,
    by_index: BTreeMap<u64, u64>,
}

impl Marks {
    fn note(&mut self, index: u64, digest: u64) -> bool {
        let new = self.by_index.insert(index, digest) != Some(digest);
        while self.by_index.len() > MARKS_MAX {
            self.by_index.pop_first();
        }
        new
    }
}

/// What the comparison has shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Judgement {
    /// Whose newest mark that can be compared differs from the majority's, and at which index.
    odd: BTreeMap<MemberName, u64>,
    /// Members that differ with no majority on either side, and at which index.
    split: Option<(u64, BTreeSet<MemberName>)>,
}

/// What this member knows of the copies.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    marks: BTreeMap<MemberName, Marks>,
    judgement: Judgement,
    /// Where the state stood at the last look, and since when.
    stood: (u64, Reading),
    tell_at: Reading,
    hand_over_at: Reading,
}

impl Replicas {
    /// Where a member's copy was seen to differ from the majority's.
    pub(super) fn odd(&self, name: &MemberName) -> Option<u64> {
        self.judgement.odd.get(name).copied()
    }

    /// True where copies differ and nobody knows which one is right.
    pub(super) const fn is_split(&self) -> bool {
        self.judgement.split.is_some()
    }

    /// Takes a mark; true if it is news.
    fn note(&mut self, state: &State, name: &MemberName, index: u64, digest: u64) -> bool {
        let Some(raft_id) = state.members.get(name).map(|member| member.raft_id) else { return false };
        let marks = self.marks.entry(name.clone()).or_default();
        if marks.raft_id != raft_id {
            *marks = Marks { raft_id, by_index: BTreeMap::new() };
        }
        marks.note(index, digest)
    }

    /// Compares what each member marked last with what others marked at the same index.
    fn judge(&mut self, state: &State) {
        self.marks.retain(|name, marks| state.members.get(name).is_some_and(|m| m.raft_id == marks.raft_id));
        let mut judgement = Judgement::default();
        for (name, marks) in &self.marks {
            let told_by =
                |index: u64| self.marks.iter().filter_map(move |(who, m)| Some((who, *m.by_index.get(&index)?)));
            let compared = marks.by_index.iter().rev().find(|(index, _)| told_by(**index).count() > 1);
            let Some((index, digest)) = compared else { continue };
            let all = told_by(*index).count();
            let same = told_by(*index).filter(|(_, other)| other == digest).count();
            if same * 2 > all {
                continue;
            }
            let most = told_by(*index).map(|(_, of)| told_by(*index).filter(|(_, other)| *other == of).count()).max();
            if most.unwrap_or(0) * 2 > all {
                judgement.odd.insert(name.clone(), *index);
            } else {
                judgement.split = Some((*index, told_by(*index).map(|(who, _)| who.clone()).collect()));
            }
        }
        self.judgement = judgement;
    }

    pub(super) fn alarms(&self) -> Vec<String> {
        let odd = self.judgement.odd.iter().map(|(name, index)| {
            format!(
                "the copy of the cluster's state on {name} differs from the majority's at log index {index}: it gets no \
                 lease, leads nobody and works no device. Way out: restart its daemon, which applies the log anew; if this \
                 comes again, fence it (`tiebreaker fence {name}`), remove it, wipe its data folder and join again. Keep a \
                 copy of that folder: this is a fault in its memory, its disk or its program"
            )
        });
        let split = self.judgement.split.iter().map(|(index, members)| {
            let names: Vec<&str> = members.iter().map(MemberName::as_str).collect();
            format!(
                "the copies of the cluster's state on {} differ at log index {index}, and no majority says which one is \
                 right: nothing is started, moved or fenced, and what runs goes on. Way out: bring the other members back, \
                 or restart these daemons one after the other, which applies the log anew",
                names.join(" and ")
            )
        });
        odd.chain(split).collect()
    }
}

impl Core {
    /// Marks the state where all members mark it. Called at each entry applied.
    pub(super) fn mark_now_and_then(&mut self) {
        if self.state.applied.is_multiple_of(MARK_EVERY) {
            self.mark();
        }
    }

    fn mark(&mut self) {
        if self.state.level < Level::FAILED_MOVES_COUNT {
            return;
        }
        let (index, digest) = (self.state.applied, self.state.mark());
        let me = self.name.clone();
        if self.replicas.note(&self.state, &me, index, digest) {
            self.replicas.tell_at = Reading::default();
            self.replicas.judge(&self.state);
        }
    }

    /// A snapshot has taken the place of what was applied: what was marked before says nothing of it.
    pub(super) fn forget_own_marks(&mut self) {
        self.replicas.marks.remove(&self.name);
        self.replicas.judge(&self.state);
    }

    /// Another member tells a mark.
    pub(super) fn marked(&mut self, from: &MemberName, index: u64, digest: u64) {
        if self.replicas.note(&self.state, from, index, digest) {
            self.replicas.judge(&self.state);
        }
    }

    /// Marks a state that stands, tells the newest mark, and acts on what the comparison has shown.
    pub(super) fn mind_replicas(&mut self, moment: Moment) {
        let now = moment.now;
        if self.replicas.stood.0 != self.state.applied {
            self.replicas.stood = (self.state.applied, now);
        }
        let own = self.replicas.marks.get(&self.name).and_then(|marks| marks.by_index.last_key_value());
        let marked = own.is_some_and(|(index, _)| *index == self.state.applied);
        if !marked && now.since_at_least(self.replicas.stood.1) >= QUIET {
            self.mark();
        }
        if now.reached_on_either(self.replicas.tell_at) {
            self.replicas.tell_at = now.after(QUIET);
            self.tell_mark();
        }
        let leads = matches!(self.raft.leadership(now).role, RaftRole::Leader { .. });
        if leads && self.is_odd() && now.reached_on_either(self.replicas.hand_over_at) {
            self.replicas.hand_over_at = now.after(HAND_OVER_EVERY);
            self.hand_over(moment);
        }
        if let Some(leading) = &mut self.leading {
            leading.leases.distrust(&self.replicas.judgement.odd);
        }
    }

    fn tell_mark(&mut self) {
        let own = self.replicas.marks.get(&self.name).and_then(|marks| marks.by_index.last_key_value());
        let Some((index, digest)) = own.map(|(index, digest)| (*index, *digest)) else { return };
        let voters: Vec<MemberName> = self
            .state
            .members
            .iter()
            .filter(|(name, member)| **name != self.name && self.state.voters.contains(&member.raft_id))
            .map(|(name, _)| name.clone())
            .collect();
        for to in voters {
            self.send(&to, Message::Mark { index, digest }, false);
        }
    }

    /// True while this member's copy of the state is known to be wrong.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.replicas.odd(&self.name).is_some()
    }

    /// True while nothing may be decided or switched here: this copy is wrong, or nobody knows which one is.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.is_odd() || self.replicas.is_split()
    }
}
