//! The hard rules of placement: what is kept apart, where a strict rule or a resource's storage allows it, what belongs
//! together, and memory. They are checked where a resource is given a node, and where one that was set to started is let
//! start, by the state in which that was applied, and from the operator's rules themselves, not
//! from what the manager makes of them.

use std::collections::BTreeSet;

use tiebreaker_pipeline::decision::{Decision, LogLine};
use tiebreaker_pipeline::name::{MemberName, ResourceName, RuleName};
use tiebreaker_pipeline::placement::judge::judge_rules;
use tiebreaker_pipeline::placement::rule::RuleKind;
use tiebreaker_pipeline::resource::{Phase, Requested, Resource};
use tiebreaker_pipeline::state::State;

use super::World;
use super::machine::Who;

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
    let storage = &state.resources.get(resource)?.spec.only_on;
    if !storage.is_empty() && !storage.contains(node) {
        return Some("its storage is not there".to_owned());
    }
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

/// The node where a resource should have gone instead, since what it belongs with is there and nowhere else. Only where no
/// rule sends the bundle to nodes: a preferred one may take its first before the others follow.
fn company(state: &State, resource: &ResourceName, node: &MemberName) -> Option<(RuleName, MemberName)> {
    let names: BTreeSet<MemberName> = state.nodes.keys().cloned().collect();
    let (rules, faults) = judge_rules(&state.placement_rules, &names);
    let bundle = rules.bundle(resource);
    let failed = &state.resources.get(resource)?.failed_on;
    if bundle.iter().any(|member| rules.node_rule(member).is_some() || rules.apart_from(member).next().is_some()) {
        return None;
    }
    let holds = state.placement_rules.iter().find(|(name, rule)| {
        rule.kind == RuleKind::Together
            && !rule.disabled_by_operator
            && !faults.contains_key(*name)
            && rule.resources.contains(resource)
    });
    let mut at = BTreeSet::new();
    for peer in bundle.iter().filter(|peer| **peer != resource).filter_map(|peer| state.resources.get(*peer)) {
        match (&peer.phase, peer.requested) {
            (Phase::Placed { node }, Requested::Started) if !peer.held => {
                at.insert(node);
            }
            (Phase::Placed { .. }, Requested::Stopped | Requested::Disabled) => {}
            // Where that one will be isn't settled.
            _ => return None,
        }
    }
    let storage = &state.resources.get(resource)?.spec.only_on;
    let mut at = at.into_iter();
    match (at.next(), at.next()) {
        (Some(at), None) if at != node && (storage.is_empty() || storage.contains(at)) && !failed.contains_key(at) => {
            holds.map(|(name, _)| (name.clone(), at.clone()))
        }
        (Some(_) | None, _) => None,
    }
}

/// True for a node that takes resources, as far as the log says.
fn takes(state: &State, node: &MemberName) -> bool {
    let known = state.nodes.get(node).is_some_and(|node| !node.maintenance && node.leaving.is_none());
    known && state.in_service(node) && state.unprotectable(node).is_none()
}

/// The state by which something that was set to started was let start, if nothing has changed since by which it would be
/// judged otherwise. What waits as well takes no room.
fn let_start(state: &State, resource: &ResourceName, node: &MemberName) -> Option<State> {
    let known = state.resources.get(resource)?;
    // It was set to started after it had been set to something else: it was let go since, and neither given a node nor
    // booted under.
    let about = |decision: &Decision| match decision {
        Decision::ResourceSet { resource: about, requested } => (about == resource).then_some(Some(*requested)),
        Decision::Assigned { resource: about, .. } => (about == resource).then_some(None),
        Decision::Admitted { node: about, .. } => (about == node).then_some(None),
        _ => None,
    };
    let mut last = state.log.iter().rev().filter_map(|line| about(&line.decision));
    let fresh = last.next() == Some(Some(Requested::Started))
        && last.next().flatten().is_some_and(|before| before != Requested::Started);
    let moved = state.log.iter().any(|line| line.index > known.since && moves_the_goal(&line.decision));
    if !fresh || moved || known.phase != (Phase::Placed { node: node.clone() }) {
        return None;
    }
    let mut begun = state.clone();
    begun.resources.retain(|name, other| name == resource || !other.fresh);
    Some(begun)
}

impl World {
    /// What was set to started doesn't start where a hard rule forbids it.
    pub(super) fn look_at_fresh_start(&mut self, who: Who, resource: &ResourceName) {
        let node = self.machines[who].name.clone();
        let Some(state) = let_start(&self.watch.committed, resource, &node) else { return };
        if let Some(how) = broken(&state, resource, &node) {
            self.violated("hard rules", format!("{resource} starts on {node}: {how}"));
        }
    }

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
            let assigned = matches!(line.decision, Decision::Assigned { .. });
            if let Some((rule, at)) = company(state, resource, node).filter(|_| assigned && !lives)
                && takes(state, &at)
                && takes(before, &at)
                && self.who(&at).is_some_and(|who| self.leader_hears(who))
            {
                found.push(format!("{resource} is given {node}: by the rule {rule} it belongs with what is on {at}"));
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
        let mut elsewhere = state(None);
        let two = elsewhere.resources.get_mut(&resource("two")).expect("it is there");
        two.spec.only_on = [node("n2")].into();
        assert!(says(&elsewhere, "n1").contains("its storage is not there"));
        assert_eq!(says(&elsewhere, "n2"), "");
        let mut small = state(None);
        small.nodes.get_mut(&node("n1")).expect("it is there").capacity.memory = Some(11);
        assert!(says(&small, "n1").contains("12 bytes are promised there, and it has 11"));
        small.resources.get_mut(&resource("one")).expect("it is there").requested = Requested::Stopped;
        assert_eq!(says(&small, "n1"), "", "what is stopped takes no room");
    }

    #[test]
    fn what_belongs_with_something_that_has_settled_is_seen_to_go_elsewhere() {
        let goes = |state: &State, to: &str| company(state, &resource("two"), &node(to)).map(|(_, at)| at);
        let tied = state(Some(RuleKind::Together));
        assert_eq!(goes(&tied, "n2"), Some(node("n1")));
        assert_eq!(goes(&tied, "n1"), None);
        assert_eq!(goes(&state(None), "n2"), None);
        let mut failed = state(Some(RuleKind::Together));
        let two = failed.resources.get_mut(&resource("two")).expect("it is there");
        two.failed_on.insert(node("n1"), 1);
        assert_eq!(goes(&failed, "n2"), None, "it may leave where it failed");
        let mut moving = state(Some(RuleKind::Together));
        let one = moving.resources.get_mut(&resource("one")).expect("it is there");
        one.phase = Phase::Releasing { node: node("n1"), to: None, why: MoveReason::Asked };
        assert_eq!(goes(&moving, "n2"), None, "where that one will be isn't settled");
    }

    #[test]
    fn a_start_is_judged_by_the_state_in_which_it_was_let_go() {
        let mut state = state(Some(RuleKind::Apart));
        let apply = |state: &mut State, index, command| {
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
            state.apply(index, entry).expect("it can be applied");
        };
        let admit = Command::Admit {
            node: node("n1"),
            incarnation: 1,
            boot: "boot".into(),
            watchdog: None,
            machine: None,
            closed: 0,
            capacity: tiebreaker_pipeline::report::Capacity::default(),
            booted_in_ms: 0,
        };
        apply(&mut state, 2, admit);
        let put = |state: &mut State, name: &str, fresh| {
            let one = state.resources.get_mut(&resource(name)).expect("it is there");
            (one.phase, one.fresh) = (Phase::Placed { node: node("n1") }, fresh);
        };
        put(&mut state, "one", false);
        put(&mut state, "two", false);
        for (index, requested) in [(3, Requested::Stopped), (4, Requested::Started)] {
            apply(&mut state, index, Command::SetResource { name: resource("two"), spec: None, requested });
        }
        let judged = |state: &State| {
            let begun = let_start(state, &resource("two"), &node("n1"))?;
            broken(&begun, &resource("two"), &node("n1"))
        };
        let generation = state.resources[&resource("two")].generation;
        apply(&mut state, 5, Command::Go { resource: resource("two"), generation });
        assert!(judged(&state).is_some_and(|how| how.contains("apart from one")));
        put(&mut state, "one", true);
        assert_eq!(judged(&state), None, "that one waits as well");
        put(&mut state, "one", false);
        let rule = PlacementRule {
            resources: [resource("one"), resource("two")].into(),
            kind: RuleKind::Apart,
            disabled_by_operator: false,
        };
        apply(&mut state, 6, Command::SetRule { name: RuleName::new("late").expect("a valid name"), rule });
        assert_eq!(judged(&state), None, "the rule came when it had been let go");
    }
}
