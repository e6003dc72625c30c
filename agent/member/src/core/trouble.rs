//! A full disk, here and at others: what this member still does, and what `status` says.
//!
//! Nothing leaves before it is durable, so a member whose disk takes nothing votes for nobody and acknowledges no entry.
//! What needs no disk goes on: it follows the leader's heartbeats and renews its lease; as a leader it grants leases, but
//! hands the lead over as soon as a majority without it is well.

use std::collections::BTreeMap;
use std::time::Duration;

use tiebreaker_consensus::{Body, Consensus, RaftId, Role as RaftRole};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::time::Reading;

use super::{Core, Message, Moment};

/// A member in trouble says so this often, and looks whether it can hand the lead over.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// Others' trouble is forgotten after this long without a word of it.
const FORGET_AFTER: Duration = Duration::from_secs(4);
/// Characters of a trouble that are kept.
const WORDS_MAX: usize = 300;

/// Trouble with disks.
#[derive(Default)]
pub(super) struct Troubles {
    own: Option<Own>,
    others: BTreeMap<MemberName, (String, Reading)>,
}

struct Own {
    what: String,
    next: Reading,
}

impl Troubles {
    /// What is wrong with this member's disk.
    pub(super) fn own(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.what.as_str())
    }

    pub(super) fn next(&self) -> Option<Reading> {
        self.own.as_ref().map(|own| own.next)
    }

    pub(super) fn alarms(&self, me: &MemberName, now: Reading) -> Vec<String> {
        let own = self.own.as_ref().map(|own| (me, &own.what));
        let others = self.others.iter().filter(move |(_, (_, until))| !now.reached_on_either(*until));
        own.into_iter()
            .chain(others.map(|(name, (what, _))| (name, what)))
            .map(|(name, what)| format!("{name}: {what}; until then it votes for nobody and takes no change"))
            .collect()
    }
}

/// Whether a message can be taken in without writing and without an answer that would have to wait for the disk. A change
/// of term is written too, but there are few of those.
pub(super) const fn needs_no_disk(body: &Body) -> bool {
    match body {
        Body::Heartbeat { .. }
        | Body::HeartbeatResponse { .. }
        | Body::Appended { .. }
        | Body::AppendRefused { .. }
        | Body::Vote { .. }
        | Body::Ack { .. } => true,
        Body::Append { .. } | Body::Snapshot(_) | Body::RequestVote { .. } | Body::TimeoutNow => false,
    }
}

impl Core {
    /// The disk is full (what of it, with the way out), or has room again. What it was given before is still to be made
    /// durable, in order.
    pub fn disk_full(&mut self, moment: Moment, what: Option<String>) {
        self.troubles.own = what.map(|what| Own { what, next: moment.now });
        self.settle(moment);
    }

    /// Another member says that its disk is full.
    pub(super) fn trouble(&mut self, moment: Moment, from: &MemberName, what: &str) {
        let members = &self.state.members;
        self.troubles.others.retain(|name, _| members.contains_key(name));
        if members.contains_key(from) {
            let what = what.chars().take(WORDS_MAX).collect();
            self.troubles.others.insert(from.clone(), (what, moment.now.after(FORGET_AFTER)));
        }
    }

    /// While the disk is full: says so, and hands over.
    pub(super) fn mind_full_disk(&mut self, moment: Moment) {
        let Some(own) = &mut self.troubles.own else { return };
        if !moment.now.reached_on_either(own.next) {
            return;
        }
        own.next = moment.now.after(SAY_EVERY);
        let what = own.what.clone();
        let others: Vec<MemberName> = self.state.members.keys().filter(|name| **name != self.name).cloned().collect();
        for to in others {
            self.send(&to, Message::Trouble { what: what.clone() }, false);
        }
        if matches!(self.raft.leadership(moment.now).role, RaftRole::Leader { .. }) {
            self.hand_over(moment);
        }
    }

    /// Hands the lead to the voter that is closest to the end of the log, if a majority is well without this one. Else it
    /// is better to lead on: leases are granted without a disk, and nobody else could be elected.
    pub(super) fn hand_over(&mut self, moment: Moment) {
        let voters = &self.raft.membership().voters;
        let is_well = |id: &RaftId| {
            self.state.member_by_id(id.0).is_some_and(|(name, _)| {
                let troubled = self.troubles.others.get(name);
                self.hears.contains(name)
                    && self.replicas.odd(name).is_none()
                    && troubled.is_none_or(|(_, until)| moment.now.reached_on_either(*until))
            })
        };
        let well: Vec<RaftId> = voters.iter().filter(|id| **id != self.raft_id && is_well(id)).copied().collect();
        if well.len() <= voters.len() / 2 {
            return;
        }
        let closest = well.into_iter().filter_map(|id| Some((self.raft.behind(id)?, id))).min();
        if let Some((_, to)) = closest {
            // Refused while one is on its way: the next look tries again.
            let _ = self.raft.transfer(moment.now, to);
        }
    }
}
