//! Whether a level that failed took the power of another node: then nothing more is switched for that fence.
//!
//! A level that reads off is judged by the leader. One that switched something and then failed says nothing, and the next level
//! would follow; so who was up when a fence first switched anything has to be up whenever it does so again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::fence::FenceId;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::State;

/// Who was up when each open fence first switched something.
#[derive(Clone, Default)]
pub(crate) struct Witnesses(Arc<Mutex<BTreeMap<FenceId, Seen>>>);

struct Seen {
    /// The level that was told first.
    level: String,
    up: BTreeSet<MemberName>,
}

impl Witnesses {
    /// Before a level of this node is told "off": why nothing may be switched, if another node fell silent with the power.
    pub(crate) fn doubt(&self, member: &MemberHandle, node: &MemberName, level: &str) -> Option<String> {
        let state = member.state();
        let state = state.borrow();
        self.missing(&state, |other| member.hears(other), node, level)
    }

    fn missing(
        &self,
        state: &State,
        hears: impl Fn(&MemberName) -> bool,
        node: &MemberName,
        level: &str,
    ) -> Option<String> {
        let (id, _) = state.open_fence(node)?;
        let mut fences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fences.retain(|id, _| state.fences.get(id).is_some_and(tiebreaker_pipeline::fence::Fence::is_open));
        let seen = fences.entry(id).or_insert_with(|| {
            let up = state.nodes.keys().filter(|other| *other != node && state.in_service(other) && hears(other));
            Seen { level: level.to_owned(), up: up.cloned().collect() }
        });
        let missing = seen.up.iter().find(|other| state.nodes.contains_key(*other) && !hears(other))?;
        Some(format!(
            "{missing} has not been heard since {} was told: that may have taken the power of {missing} instead of that of {node}. \
             Nothing more is touched until it is heard again; look at both, then `tiebreaker fence confirm {node}` if {node} is off",
            seen.level
        ))
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
    use tiebreaker_pipeline::fence::FenceReason;
    use tiebreaker_pipeline::report::Capacity;
    use tiebreaker_pipeline::state::Role;

    use super::*;

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    /// Three nodes are up, and node1 is to be fenced.
    fn fencing() -> State {
        let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        let mut tell = |command| {
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1, command };
            state.apply(state.applied + 1, entry).unwrap();
        };
        for node in ["node1", "node2", "node3"] {
            tell(Command::AddMember { name: name(node), role: Role::Node, addresses: Vec::new(), key: node.into() });
            tell(Command::Admit {
                node: name(node),
                incarnation: 1,
                boot: node.into(),
                watchdog: None,
                machine: None,
                closed: 0,
                capacity: Capacity::default(),
                booted_in_ms: 0,
            });
        }
        let reason = FenceReason::Lost { silent_ms: 2_000 };
        tell(Command::FenceWanted { node: name("node1"), incarnation: 1, reason });
        state
    }

    #[test]
    fn row_44_after_a_level_that_took_another_nodes_power_no_other_level_is_touched() {
        let (witnesses, state) = (Witnesses::default(), fencing());
        let all = |_: &MemberName| true;
        let without_2 = |other: &MemberName| *other != name("node2");
        let ask = |hears: &dyn Fn(&MemberName) -> bool, level| witnesses.missing(&state, hears, &name("node1"), level);
        assert_eq!(ask(&all, "psu-a+psu-b"), None);
        assert_eq!(ask(&all, "bmc"), None, "everybody is still up");
        for level in ["bmc", "psu-a+psu-b"] {
            let why = ask(&without_2, level).unwrap();
            assert!(why.starts_with("node2 has not been heard since psu-a+psu-b was told"), "{why}");
            assert!(why.contains("fence confirm node1"), "{why}");
        }
        assert_eq!(ask(&all, "bmc"), None, "it is heard again");
    }

    #[test]
    fn who_was_away_before_is_no_witness_and_each_fence_has_its_own() {
        let (witnesses, mut state) = (Witnesses::default(), fencing());
        let without_2 = |other: &MemberName| *other != name("node2");
        assert_eq!(witnesses.missing(&state, without_2, &name("node1"), "bmc"), None);
        assert_eq!(witnesses.missing(&state, without_2, &name("node1"), "plug"), None, "it was away before");
        let nobody = |_: &MemberName| false;
        assert!(witnesses.missing(&state, nobody, &name("node1"), "plug").is_some());
        let fence = state.fences.remove(&FenceId(1)).unwrap();
        state.fences.insert(FenceId(2), fence);
        assert_eq!(witnesses.missing(&state, nobody, &name("node1"), "bmc"), None, "another fence");
    }
}
