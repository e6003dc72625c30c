//! The hard rules of placement: what is kept apart, where a strict rule allows a resource, and memory. They are checked
//! where a resource is given a node, by the state in which that was applied, and from the operator's rules themselves, not
//! from what the manager makes of them.

use std::collections::BTreeSet;

use tiebreaker_pipeline::decision::{Decision, LogLine};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::placement::judge::judge_rules;
use tiebreaker_pipeline::placement::rule::RuleKind;
use tiebreaker_pipeline::resource::{Phase, Requested, Resource};
use tiebreaker_pipeline::state::State;

use super::World;

/// Where a resource takes room and is in the way of others: on both ends of a move.
fn seats(resource: &Resource) -> impl Iterator<Item = &MemberName> {
    let counts = resource.requested == Requested::Started;
    let (first, second) = match &resource.phase {
        Phase::Placed { node } | Phase::Error { node: Some(node), .. } => (Some(node), None),
        Phase::Releasing { node, to, .. } => (Some(node), to.as_ref()),
        Phase::Migrating { from, to, .. } => (Some(from), Some(to)),
        Phase::New | Phase::Free { .. } | Phase::Error { node: None, .. } | Phase::Ignored => (None, None),
    };
    [first, second].into_iter().flatten().filter(move |_| counts)
}

fn sits_on(state: &State, resource: &ResourceName, node: &MemberName) -> bool {
    state.resources.get(resource).is_some_and(|resource| seats(resource).any(|seat| seat == node))
}

/// The node that a decision gives a resource, by the state that it led to.
fn given<'a>(state: &'a State, decision: &'a Decision) -> Option<(&'a ResourceName, &'a MemberName)> {
    match decision {
        Decision::Assigned { resource, node, .. } => Some((resource, node)),
        Decision::Migrating { resource, to, .. } => Some((resource, to)),
        Decision::Released { resource, .. } => Some((resource, state.resources.get(resource)?.phase.bound_for()?)),
        _ => None,
    }
}

/// True for what changes the rules, or what they are held against: it makes no earlier decision wrong.
const fn moves_the_goal(decision: &Decision) -> bool {
    matches!(
        decision,
        Decision::Rule { .. }
            | Decision::ResourceSet { .. }
            | Decision::ResourceAdded { .. }
            | Decision::Admitted { .. }
            | Decision::Joined { .. }
            | Decision::Removed { .. }
    )
}

/// Which hard rule is broken by a resource on a node, in words.
fn broken(state: &State, resource: &ResourceName, node: &MemberName) -> Option<String> {
    let names: BTreeSet<MemberName> = state.nodes.keys().cloned().collect();
    let (_, faults) = judge_rules(&state.placement_rules, &names);
    let holds = state.placement_rules.iter().filter(|(name, rule)| {
        !rule.disabled_by_operator && !faults.contains_key(*name) && rule.resources.contains(resource)
    });
    for (name, rule) in holds {
        match &rule.kind {
            RuleKind::Apart => {
                let mut others = rule.resources.iter().filter(|other| *other != resource);
                if let Some(other) = others.find(|other| sits_on(state, other, node)) {
                    return Some(format!("the rule {name} keeps it apart from {other}, which is there"));
                }
            }
            RuleKind::NodeAffinity { nodes, strict: true } if !nodes.contains_key(node) => {
                return Some(format!("the strict rule {name} doesn't name that node"));
            }
            RuleKind::NodeAffinity { .. } | RuleKind::Together => {}
        }
    }
    let memory = |resource: &Resource| resource.spec.memory.unwrap_or(0);
    let has = state.nodes.get(node).and_then(|node| node.capacity.memory)?;
    let there = state.resources.values().filter(|resource| seats(resource).any(|seat| seat == node));
    let promised = there.map(memory).fold(0_u64, u64::saturating_add);
    let brings = state.resources.get(resource).is_some_and(|resource| memory(resource) > 0);
    (brings && promised > has).then(|| format!("{promised} bytes are promised there, and it has {has}"))
}

impl World {
    /// Nothing is given a node where a hard rule forbids it. What runs there already is only found there.
    pub(super) fn look_at_hard_rules(&mut self, before: &State, lines: &[LogLine]) {
        let settled_after = lines.iter().filter(|line| moves_the_goal(&line.decision)).map(|line| line.index).max();
        let state = &self.watch.committed;
        let mut found = Vec::new();
        for line in lines.iter().filter(|line| settled_after.is_none_or(|index| line.index > index)) {
            let Some((resource, node)) = given(state, &line.decision) else { continue };
            if !sits_on(state, resource, node) || sits_on(before, resource, node) {
                continue;
            }
            let lives = self.machines.iter().any(|m| m.name == *node && m.workloads.is_alive(resource));
            if let Some(how) = broken(state, resource, node).filter(|_| !lives) {
                found.push(format!("{resource} is given {node}: {how}"));
            }
        }
        for what in found {
            self.violated("hard rules", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
    use tiebreaker_pipeline::name::{ClusterName, RuleName};
    use tiebreaker_pipeline::placement::rule::PlacementRule;
    use tiebreaker_pipeline::resource::{Driver, MoveReason, ResourceSpec};
    use tiebreaker_pipeline::state::Role;

    use super::*;

    fn node(text: &str) -> MemberName {
        MemberName::new(text).expect("a valid name")
    }

    fn resource(text: &str) -> ResourceName {
        ResourceName::new(text).expect("a valid name")
    }

    /// Two nodes of 10 bytes; `one` of 6 on n1, `two` of 6 on its way from n2 to n1.
    fn state(kind: Option<RuleKind>) -> State {
        let cluster = ClusterName::new("home").expect("a valid name");
        let mut state = State::new(cluster, node("pi"), vec!["pi:1".into()], "00".into());
        let mut apply = |command| {
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
            state.apply(1, entry).expect("it can be applied");
        };
        for name in ["n1", "n2"] {
            apply(Command::AddMember { name: node(name), role: Role::Node, addresses: vec![], key: name.into() });
        }
        let argv = || vec!["/opt/x".to_owned()];
        let driver = Driver::Command { start: argv(), stop: argv(), status: argv(), migrate: None };
        for name in ["one", "two"] {
            let spec = ResourceSpec { memory: Some(6), ..ResourceSpec::with_defaults(driver.clone()) };
            apply(Command::AddResource { name: resource(name), spec, requested: Requested::Started, node: None });
        }
        if let Some(kind) = kind {
            let resources = [resource("one"), resource("two")].into();
            let rule = PlacementRule { resources, kind, disabled_by_operator: false };
            apply(Command::SetRule { name: RuleName::new("rule").expect("a valid name"), rule });
        }
        let mut put = |name: &str, phase| state.resources.get_mut(&resource(name)).expect("it is there").phase = phase;
        put("one", Phase::Placed { node: node("n1") });
        put("two", Phase::Releasing { node: node("n2"), to: Some(node("n1")), why: MoveReason::Asked });
        state
    }

    fn says(state: &State, on: &str) -> String {
        broken(state, &resource("two"), &node(on)).unwrap_or_default()
    }

    #[test]
    fn each_hard_rule_is_seen_to_be_broken_and_only_where_it_is() {
        assert_eq!(says(&state(None), "n1"), "");
        assert!(says(&state(Some(RuleKind::Apart)), "n1").contains("apart from one"));
        assert_eq!(says(&state(Some(RuleKind::Apart)), "n2"), "");
        let strict = |strict| RuleKind::NodeAffinity { nodes: BTreeMap::from([(node("n2"), 1)]), strict };
        assert!(says(&state(Some(strict(true))), "n1").contains("doesn't name that node"));
        assert_eq!(says(&state(Some(strict(true))), "n2"), "");
        assert_eq!(says(&state(Some(strict(false))), "n1"), "");
        let mut small = state(None);
        small.nodes.get_mut(&node("n1")).expect("it is there").capacity.memory = Some(11);
        assert!(says(&small, "n1").contains("12 bytes are promised there, and it has 11"));
        small.resources.get_mut(&resource("one")).expect("it is there").requested = Requested::Stopped;
        assert_eq!(says(&small, "n1"), "", "what is stopped takes no room");
    }
}
