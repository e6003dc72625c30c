//! So many placements in one look and no more: where everything ends up doesn't depend on how many that are, but for what
//! is unprotected. That waits for nobody's start, and yet is given a node after all others that may have one.

use std::collections::BTreeMap;

use super::*;
use crate::command::Setting;
use crate::fixture::driver;
use crate::name::ResourceName;
use crate::placement::fixture::{Dice, GIB, NAMES, random_rules, res, rules};
use crate::placement::score::Scoring;
use crate::report::Report;
use crate::resource::{Class, Phase, ResourceSpec};
use crate::state::Role;

/// A random cluster with resources of which nobody knows anything yet.
fn random(case: u64) -> (Lead, Dice) {
    let mut dice = Dice(case.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let nodes = 1 + dice.roll(5);
    let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
    let mut log = Log::new(Rules::ALL);
    for name in &names {
        log.must(Log::add(name, Role::Node));
        let Command::Admit { node, incarnation, boot, watchdog, machine, closed, booted_in_ms, .. } =
            Log::admit(name, 1, &format!("boot-{name}1"), 0)
        else {
            panic!("an admission")
        };
        let memory = (dice.roll(4) > 0).then(|| (4 + dice.roll(20)) * GIB);
        let capacity = Capacity { memory, milli_cpus: Some(8_000 * (1 + dice.roll(3))) };
        let admit = Command::Admit { node, incarnation, boot, watchdog, machine, closed, capacity, booted_in_ms };
        log.must(admit);
    }
    let voters = wanted_voters(&log.state);
    log.state.apply_voters(log.state.applied + 1, voters);
    let scoring = Scoring::ALL[usize::try_from(dice.roll(3)).unwrap()];
    log.must(Command::Set(Setting::Placement(scoring)));
    let unprotected = dice.yes();
    for name in NAMES.iter().map(ToString::to_string).chain((0..dice.roll(14)).map(|n| format!("vm:{n}"))) {
        let (class, orders) = match (unprotected, dice.roll(3)) {
            (true, 0) => (Class::Unprotected, 1),
            (true, _) => (Class::Protected, 1),
            (false, 0) => (Class::BestEffort, 2),
            (false, _) => (Class::Protected, 2),
        };
        let spec = ResourceSpec {
            memory: (dice.roll(4) > 0).then(|| dice.roll(6) * GIB),
            milli_cpus: (dice.roll(4) > 0).then(|| 500 * dice.roll(5)),
            class,
            order: u32::try_from(dice.roll(orders)).unwrap(),
            ..ResourceSpec::with_defaults(driver("web"))
        };
        let add = Command::AddResource { name: res(&name), spec, requested: Requested::Started, node: None };
        log.must(add);
    }
    let list = random_rules(&mut dice, nodes);
    let list: Vec<_> = list.iter().map(|(name, rule)| (name.as_str(), rule.clone())).collect();
    for (name, rule) in rules(&list) {
        // Some name too few, or what can't be: the judge refuses these.
        let _ = log.apply(Command::SetRule { name, rule });
    }
    (Lead::new(log), dice)
}

/// Each node runs what is placed on it.
fn reports(lead: &mut Lead) {
    let state = lead.log.state.clone();
    for node in state.nodes.keys() {
        let seen = |resource: &crate::resource::Resource| match resource.phase.owner() == Some(node) {
            true => Observed::Running,
            false => Observed::Stopped,
        };
        let resources = state.resources.iter().map(|(name, resource)| (name.clone(), seen(resource))).collect();
        lead.hear(node.as_str(), Report { resources, ..report(state.applied, None) });
    }
}

/// Looks until nothing is left to do. Of what is proposed only the first so many come into the log before the next look.
fn end(mut lead: Lead, at_once: usize, applied: impl Fn(usize) -> usize) -> BTreeMap<ResourceName, Phase> {
    for round in 0..400 {
        lead.pass(ms(100));
        reports(&mut lead);
        let plan = look(&lead.view(), at_once);
        lead.memory = plan.memory.clone();
        let given = plan.proposals.iter().filter(|command| matches!(command, Command::Assign { .. })).count();
        assert!(given <= at_once, "{given} of {at_once}");
        if plan.proposals.is_empty() {
            let waits = plan.why.values().any(|why| matches!(why, Why::WaitingForOthers { .. } | Why::Deciding));
            assert!(!waits, "{:?}", plan.why);
            return lead.log.state.resources.into_iter().map(|(name, resource)| (name, resource.phase)).collect();
        }
        for command in plan.proposals.into_iter().take(applied(round)) {
            lead.log.must(command);
        }
    }
    panic!("it never rests")
}

#[test]
fn few_at_once_end_up_where_all_at_once_do() {
    let (mut placed, mut not) = (0, 0);
    for case in 1..=300 {
        let (lead, mut dice) = random(case);
        let all = end(lead.clone(), usize::MAX, |_| usize::MAX);
        let (few, late) = (1 + dice.roll(5), 1 + dice.roll(4));
        let few = end(lead, usize::try_from(few).unwrap(), |round| {
            // Of some looks all comes into the log before the next one, of others a part.
            if round % 3 == 0 { usize::MAX } else { usize::try_from(late).unwrap() }
        });
        assert_eq!(few, all, "case {case}");
        placed += all.values().filter(|phase| phase.owner().is_some()).count();
        not += all.values().filter(|phase| phase.owner().is_none()).count();
    }
    assert!(placed > 2_000 && not > 100, "{placed} {not}");
}

#[test]
fn what_has_to_wait_for_the_next_look_says_so() {
    let (lead, _) = random(1);
    let mut lead = lead;
    reports(&mut lead);
    let plan = look(&lead.view(), 2);
    assert!(plan.why.values().any(|why| *why == Why::WaitingForOthers { first: 2 }), "{:?}", plan.why);
}

#[test]
fn nothing_is_placed_and_nothing_moves_while_a_decision_that_changes_the_picture_is_on_its_way() {
    let (mut placed, mut moved) = (0, 0);
    for case in 1..=40 {
        let (mut lead, _) = random(case);
        lead.pass(ms(100));
        reports(&mut lead);
        let is_choice = |command: &Command| {
            matches!(command, Command::Assign { .. } | Command::Release { .. } | Command::Migrate { .. })
        };
        placed += lead.proposals().iter().filter(|command| is_choice(command)).count();
        lead.settled = false;
        assert!(!lead.proposals().iter().any(is_choice), "case {case}");
        lead.settled = true;
        for _ in 0..20 {
            lead.obey();
            lead.pass(ms(100));
            reports(&mut lead);
        }
        let empty = lead.log.state.nodes.keys().next().unwrap().clone();
        lead.log.must(Command::SetMaintenance { node: empty, on: true });
        moved += lead.proposals().iter().filter(|command| is_choice(command)).count();
        lead.settled = false;
        assert!(!lead.proposals().iter().any(is_choice), "case {case}");
    }
    assert!(placed > 200 && moved > 20, "{placed} {moved}");
}
