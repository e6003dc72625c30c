//! The takeover of a lone member: what the state becomes when an operator gives up everybody else.
//!
//! No entry of the log does this, because no majority is left that could commit one: the member's stopped daemon is
//! given this state as its new beginning. It rests on nothing but the operator's word that all others are off.

use crate::decision::Decision;
use crate::fence::{Evidence, Fence, FenceId, FenceReason, Progress};
use crate::name::MemberName;
use crate::resource::Phase;
use crate::state::{Parted, State};

/// Numbers that a takeover skips: members that joined after what this one knows have some of them, and none may be
/// given out again.
const NUMBERS_SKIPPED: u64 = 1024;

/// Why a member can't take its cluster over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The state doesn't know it under this number.
    #[error(
        "{name} is no member of {cluster} under the number {raft_id}, as far as its own store says: it was removed, and \
         can take nothing over. Way out: join again"
    )]
    NoMember {
        /// Who.
        name: MemberName,
        /// Its number.
        raft_id: u64,
        /// Of which cluster.
        cluster: String,
    },
    /// Nobody else is a member.
    #[error("{name} is the only member: there is nobody to take the cluster over from. Start its daemon")]
    Alone {
        /// Who.
        name: MemberName,
    },
}

impl State {
    /// Makes `me` the only member, at `index`, by the word of `by` that all others are off and stay off: a new epoch,
    /// everybody else out for good, their lives over, their resources free. Says who is out.
    ///
    /// # Errors
    /// [`TakeoverError`]; then nothing has changed.
    pub fn take_over(
        &mut self,
        index: u64,
        at_ms: u64,
        me: &MemberName,
        raft_id: u64,
        by: &str,
    ) -> Result<Vec<MemberName>, TakeoverError> {
        if self.members.get(me).is_none_or(|member| member.raft_id != raft_id) {
            let cluster = self.cluster.to_string();
            return Err(TakeoverError::NoMember { name: me.clone(), raft_id, cluster });
        }
        let others: Vec<MemberName> = self.members.keys().filter(|name| *name != me).cloned().collect();
        if others.is_empty() {
            return Err(TakeoverError::Alone { name: me.clone() });
        }
        self.applied = index;
        self.newest_ms = self.newest_ms.max(at_ms);
        self.epoch += 1;
        let (by, epoch) = (by.to_owned(), self.epoch);
        let taken = Decision::TakenOver { by: by.clone(), member: me.clone(), epoch, without: others.clone() };
        self.say(at_ms, taken);
        for other in &others {
            self.end_by_word(at_ms, other, &by);
            self.part(other);
        }
        // A fence of this very node was nobody's to finish: its agent starts as a new life and adopts what runs here.
        if self.open_fence(me).is_some() {
            self.end_by_word(at_ms, me, &by);
        }
        self.next_raft_id = self.next_raft_id.saturating_add(NUMBERS_SKIPPED);
        self.voters = [raft_id].into();
        self.settings.fewer_votes = None;
        Ok(others)
    }

    /// Ends a node's life, and whatever fence of it is open, with the operator's word for evidence.
    fn end_by_word(&mut self, at_ms: u64, node: &MemberName, by: &str) {
        if !self.nodes.contains_key(node) {
            return;
        }
        let id = match self.open_fence(node) {
            Some((id, _)) => Some(id),
            None => self.life(node).cloned().map(|life| {
                let id = FenceId(self.next_fence);
                self.next_fence += 1;
                let fence = Fence {
                    node: node.clone(),
                    incarnation: life.incarnation,
                    boot: life.boot,
                    reason: FenceReason::Asked { by: by.to_owned() },
                    progress: Progress::Wanted,
                    wanted_at: self.applied,
                    last_failure: None,
                };
                self.fences.insert(id, fence);
                id
            }),
        };
        if let Some(id) = id {
            // Either may be done already, which is as good.
            let _ = self.fenced(at_ms, id, Evidence::Operator { by: by.to_owned() });
            let _ = self.close(at_ms, id);
        }
        // Without a life it can still own what waits for it, and nobody will ever run it there again.
        self.free_all_of(at_ms, node, false, false);
        let left: Vec<_> = self.owned_by(node).cloned().collect();
        for name in left {
            self.decide(&name, Phase::Free { from: node.clone() });
        }
    }

    fn part(&mut self, name: &MemberName) {
        let Some(member) = self.members.remove(name) else { return };
        self.nodes.remove(name);
        self.parted.insert(name.clone(), Parted { role: member.role, raft_id: member.raft_id });
        for resource in self.resources.values_mut() {
            if resource.home.as_ref() == Some(name) {
                resource.home = None;
            }
            resource.failed_on.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::fixture::{Log, member, spec, web};
    use crate::resource::{MoveReason, Requested};
    use crate::rules::Rules;
    use crate::state::{FewerVotes, Role};

    fn taken(log: &Log, me: &str) -> State {
        let mut state = log.state.clone();
        let number = state.members[&member(me)].raft_id;
        let others = state.take_over(state.applied + 1, 9_000_000, &member(me), number, "root").unwrap();
        assert_eq!(others.len(), log.state.members.len() - 1);
        state
    }

    #[test]
    fn row_66_what_the_others_ran_is_free_and_they_are_out_for_good() {
        let mut log = Log::placed(Rules::ALL);
        log.state.settings.fewer_votes = Some(FewerVotes { without: [member("pi")].into(), until_ms: 1 });
        let state = taken(&log, "b");
        assert_eq!((state.epoch, &state.voters), (1, &[3].into()));
        assert_eq!(state.members.keys().collect::<Vec<_>>(), [&member("b")]);
        assert_eq!(state.nodes.keys().collect::<Vec<_>>(), [&member("b")]);
        assert_eq!(state.resources[&web()].phase, Phase::Free { from: member("a") });
        assert_eq!(state.life(&member("b")), log.state.life(&member("b")), "its own life is its own");
        assert_eq!(state.settings.fewer_votes, None);
        assert_eq!(state.parted[&member("pi")], Parted { role: Role::Appliance, raft_id: 1 });
        assert_eq!(state.parted[&member("a")], Parted { role: Role::Node, raft_id: 2 });
        assert_eq!(state.next_raft_id, log.state.next_raft_id + NUMBERS_SKIPPED);
        assert_eq!((state.applied, state.newest_ms), (log.state.applied + 1, 9_000_000));
        let said: Vec<String> = state.log.iter().rev().take(3).rev().map(|line| line.decision.to_string()).collect();
        assert!(said[0].contains("root took the cluster over with b alone, epoch 1: a, pi are out"), "{said:?}");
        assert!(said[1].contains("a is fenced: the word of root") && said[2].contains("closed"), "{said:?}");
    }

    #[test]
    fn what_is_placed_here_stays_and_what_was_on_its_way_is_settled() {
        let kept = taken(&Log::placed(Rules::ALL), "a");
        assert_eq!(kept.resources[&web()].phase, Phase::Placed { node: member("a") });
        let mut log = Log::placed(Rules::ALL);
        log.state.resources.get_mut(&web()).unwrap().phase =
            Phase::Migrating { from: member("a"), to: member("b"), why: MoveReason::Asked };
        for me in ["a", "b"] {
            assert_eq!(taken(&log, me).resources[&web()].phase, Phase::Placed { node: member(me) }, "{me}");
        }
        assert_eq!(taken(&log, "pi").resources[&web()].phase, Phase::Free { from: member("b") });
    }

    #[test]
    fn nobody_who_is_out_keeps_anything() {
        // Disabled things stay placed after a fence, and what was given up may still be running where it was.
        let mut log = Log::placed(Rules::ALL);
        log.must(Log::set_web(Requested::Disabled));
        assert_eq!(taken(&log, "b").resources[&web()].phase, Phase::Free { from: member("a") });
        let mut log = Log::placed(Rules::ALL);
        log.must(log.give_up());
        assert!(matches!(taken(&log, "b").resources[&web()].phase, Phase::Error { node: None, .. }));
        let mut log = Log::placed(Rules::ALL);
        let web = log.state.resources.get_mut(&web()).unwrap();
        web.home = Some(member("a"));
        web.failed_on.insert(member("a"), 1);
        let state = taken(&log, "b");
        let web = &state.resources[&crate::fixture::web()];
        assert_eq!((&web.home, web.failed_on.len()), (&None, 0));
    }

    #[test]
    fn open_fences_are_closed_by_the_operators_word_also_its_own() {
        for (fenced, me) in [("a", "b"), ("a", "a")] {
            let mut log = Log::placed(Rules::ALL);
            log.must(Log::fence(fenced, 1));
            let state = taken(&log, me);
            let fence = state.fences.values().next().unwrap();
            assert!(
                matches!(&fence.progress, Progress::Closed { evidence: Evidence::Operator { by } } if by == "root")
            );
            assert_eq!(state.resources[&web()].phase, Phase::Free { from: member(fenced) }, "{me}");
        }
        let mut log = Log::placed(Rules::ALL);
        log.must(Log::fence("a", 1));
        log.must(Log::fenced(1));
        assert!(!taken(&log, "b").fences.values().any(Fence::is_open), "also one that is proven already");
    }

    #[test]
    fn a_node_that_was_fenced_itself_is_admitted_again_and_takes_what_is_free() {
        let mut log = Log::placed(Rules::ALL);
        log.must(Log::fence("a", 1));
        let mut log = Log { state: taken(&log, "a") };
        let closed = log.state.nodes[&member("a")].closed_at;
        log.must(Log::admit("a", 2, "boot-a1", closed));
        log.must(log.assign("a", 2));
        assert_eq!(log.phase(), &Phase::Placed { node: member("a") });
    }

    #[test]
    fn no_number_is_given_twice_though_others_joined_unknown_to_it() {
        let mut log = Log { state: taken(&Log::placed(Rules::ALL), "pi") };
        let unknown = log.state.next_raft_id - NUMBERS_SKIPPED;
        log.must(Log::add("a", Role::Node));
        assert!(log.state.members[&member("a")].raft_id > unknown + 65);
        assert_eq!(log.state.parted[&member("a")].raft_id, 2, "its old certificate stays refused");
        log.must(Command::AddResource {
            name: "x".parse().unwrap(),
            spec: spec(),
            requested: Requested::Started,
            node: None,
        });
        let again = taken(&log, "pi");
        assert_eq!((again.epoch, again.parted[&member("a")].raft_id), (2, log.state.members[&member("a")].raft_id));
    }

    #[test]
    fn who_was_removed_or_is_alone_takes_nothing_over() {
        let mut state = Log::placed(Rules::ALL).state;
        let before = state.clone();
        let refused = state.take_over(99, 1, &member("a"), 7, "root").unwrap_err();
        assert!(matches!(refused, TakeoverError::NoMember { raft_id: 7, .. }));
        let mut alone = Log::new(Rules::ALL).state;
        assert_eq!(alone.take_over(99, 1, &member("pi"), 1, "root"), Err(TakeoverError::Alone { name: member("pi") }));
        assert_eq!(state, before);
    }

    #[test]
    fn a_state_of_before_there_were_epochs_is_in_epoch_zero() {
        let state = Log::placed(Rules::ALL).state;
        let bytes = state.encode();
        let fields: std::collections::BTreeMap<String, serde::de::IgnoredAny> =
            cbor4ii::serde::from_slice(&bytes[..]).unwrap();
        assert!(!fields.contains_key("epoch") && !fields.contains_key("parted"), "the digest of old states is theirs");
        assert_eq!(State::decode(&bytes).unwrap().epoch, 0);
        let taken = taken(&Log::placed(Rules::ALL), "a");
        assert_eq!(State::decode(&taken.encode()).unwrap(), taken);
    }
}
