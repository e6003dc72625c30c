//! A restored appliance asks to be let in again: what this member has seen of the former one, and the answer.

use std::collections::{BTreeMap, BTreeSet};

use tiebreaker_consensus::Role as RaftRole;
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{Role, State};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Member, moment};
use crate::core::{Reply, Request};
use crate::join::JoinedMember;
use crate::link;
use crate::rejoin::{RejoinAnswer, RejoinAsk, Seen, Verdict, alive, judge};

/// Since when nobody has heard the appliance, as seen by this member while it leads.
#[derive(Debug, Default)]
pub(super) struct Silence {
    heard_by: Option<MemberName>,
    /// Whose silence, and from when on. Absent while it is heard, or another member leads.
    since: Option<(u64, Instant)>,
}

impl Silence {
    /// Somebody hears it, or nobody does. `number` is that of the appliance; without one there is nothing to wait for.
    fn note(&mut self, now: Instant, number: Option<u64>, leads: bool, heard_by: Option<MemberName>) {
        self.since = match (number, self.since) {
            (Some(_), _) if !leads || heard_by.is_some() => None,
            (Some(number), Some((same, since))) if same == number => Some((number, since)),
            (Some(number), _) => Some((number, now)),
            (None, _) => None,
        };
        self.heard_by = heard_by;
    }
}

impl Member {
    /// Looks who hears the appliance: this member, or a node that renews with it.
    pub(super) fn note_appliance(&mut self, heard: &BTreeSet<MemberName>) {
        let state = self.core.state();
        let appliance = state.appliance();
        let hears = |name: &MemberName| -> Option<MemberName> {
            if heard.contains(name) || name == self.core.name() {
                return Some(self.core.name().clone());
            }
            let leases = self.core.leases()?;
            let says =
                |node: &&MemberName| leases.report(state, node).is_some_and(|report| report.hears.contains(name));
            state.nodes.keys().find(says).cloned()
        };
        let number = appliance.and_then(|name| state.members.get(name)).map(|member| member.raft_id);
        let (leads, heard_by) = (self.core.leases().is_some(), appliance.and_then(hears));
        self.silence.note(Instant::now(), number, leads, heard_by);
    }

    /// Answers a restored appliance.
    pub(super) fn rejoin(&mut self, bytes: &[u8], reply: link::Reply) {
        let ask: RejoinAsk = match cbor4ii::serde::from_slice(bytes) {
            Ok(ask) => ask,
            Err(error) => {
                let text =
                    format!("what the restored appliance asks can't be decoded ({error}): install the same release");
                // It may have gone.
                tokio::spawn(async move { reply.fail(text).await });
                return;
            }
        };
        let answer = self.judge_rejoining(&ask);
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &answer)
            .expect("writing to memory can't fail, and every field is encodable");
        // It may have gone, and asks again.
        tokio::spawn(async move { reply.only(bytes).await });
    }

    fn judge_rejoining(&mut self, ask: &RejoinAsk) -> RejoinAnswer {
        let state = self.core.state();
        let role = self.core.leadership(moment().now).role;
        if !matches!(role, RaftRole::Leader { .. }) || self.core.leases().is_none() {
            let leader = match role {
                RaftRole::Follower { leader: Some(id) } => state.member_by_id(id.0).map(|(name, _)| name.clone()),
                RaftRole::Leader { .. } => Some(self.core.name().clone()),
                RaftRole::Follower { leader: None } | RaftRole::Candidate => None,
            };
            if let Some(twin) = alive(state, self.silence.heard_by.as_ref(), ask) {
                return twin;
            }
            return RejoinAnswer::NotLeader { leader, nodes: nodes_of(state) };
        }
        let silent = self.silence.since.map(|(_, since)| since.elapsed()).unwrap_or_default();
        let seen = Seen { state, heard_by: self.silence.heard_by.as_ref(), silent };
        match judge(seen, ask) {
            Verdict::Answer(answer) => answer,
            Verdict::Joined(raft_id) => self.joined(ask, raft_id),
            Verdict::Propose(commands) => {
                info!(appliance = %ask.name, "an appliance that was restored from a backup is let in under a new number");
                for command in commands {
                    self.propose_for_appliance(command, ask);
                }
                RejoinAnswer::Wait { why: "the cluster is taking it in".to_owned() }
            }
        }
    }

    /// What it starts from, as any joiner.
    fn joined(&mut self, ask: &RejoinAsk, raft_id: u64) -> RejoinAnswer {
        let holds = |state: State| state.members.get(&ask.name).is_some_and(|member| member.raft_id == raft_id);
        let snapshot = self.core.snapshot();
        match snapshot.filter(|snapshot| State::decode(&snapshot.state).is_ok_and(holds)) {
            Some(snapshot) => RejoinAnswer::Joined(JoinedMember { raft_id, snapshot }),
            None => RejoinAnswer::Wait { why: "the cluster's state can't be handed over just now".to_owned() },
        }
    }

    fn propose_for_appliance(&mut self, command: Command, ask: &RejoinAsk) {
        // Who is gone tolerates nothing: that the goal for failures is not met meanwhile is noted in the timeline, and no reason.
        let request = match command {
            command @ Command::RemoveMember { .. } => {
                Request::Force { command, by: format!("the restored appliance {}", ask.name) }
            }
            command => Request::Propose(command),
        };
        let (answer, answered) = oneshot::channel();
        self.request(request, answer);
        tokio::spawn(async move {
            match answered.await {
                Ok(Reply::Done { .. }) | Err(_) => {}
                Ok(other) => warn!(answer = ?other, "a step of taking the restored appliance in failed; it asks again"),
            }
        });
    }
}

fn nodes_of(state: &State) -> BTreeMap<MemberName, Vec<String>> {
    let nodes = state.members.iter().filter(|(_, member)| member.role == Role::Node);
    nodes.map(|(name, member)| (name.clone(), member.addresses.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn row_51_the_certificate_of_a_removed_appliance_is_refused() {
        use crate::identity::{PeerCert, Serial, Subject};
        let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        state.removed.insert("pi".parse().unwrap(), 7);
        let table = super::super::peer_table(&state);
        let refuses = |uri: &str| {
            let subject = Subject::from_uri(uri).unwrap();
            let serial = Serial::from_bytes([1; 16]);
            table.roster.was_removed(&PeerCert { subject, serial, key: String::new(), not_before: 0, not_after: 1 })
        };
        assert!(refuses("tiebreaker://home/appliance/pi?id=7"), "it would speak in the name of its successor");
        assert!(!refuses("tiebreaker://home/appliance/pi?id=8"));
        assert!(!refuses("tiebreaker://home/authority/pi"));
    }

    #[test]
    fn silence_is_counted_of_one_number_by_one_leader_and_ends_with_the_first_word() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let node: MemberName = "n2".parse().unwrap();
        let mut silence = Silence::default();
        silence.note(at(0), Some(7), true, None);
        silence.note(at(5), Some(7), true, None);
        assert_eq!(silence.since, Some((7, at(0))));
        silence.note(at(6), Some(7), true, Some(node.clone()));
        assert_eq!((silence.since, &silence.heard_by), (None, &Some(node)));
        silence.note(at(7), Some(7), true, None);
        assert_eq!((silence.since, &silence.heard_by), (Some((7, at(7))), &None));
        silence.note(at(8), Some(9), true, None);
        assert_eq!(silence.since, Some((9, at(8))), "another one's silence is its own");
        silence.note(at(9), Some(9), false, None);
        assert_eq!(silence.since, None, "who doesn't lead isn't told what the nodes hear");
    }
}
