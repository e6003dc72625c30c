//! Maintenance, votes, and what the cluster survives.

use super::*;
use crate::command::Setting;
use crate::fixture::web;
use crate::placement::rule::PlacementRule;
use crate::resource::Phase;
use crate::state::FewerVotes;

fn maintenance(node: &str, on: bool) -> Command {
    Command::SetMaintenance { node: member(node), on }
}

/// `web` runs on a, and fits on one node at a time.
fn guarded() -> Lead {
    let mut lead = settled();
    lead.log.must(Command::Set(Setting::Tolerate(Some(1))));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    lead
}

#[test]
fn maintenance_empties_a_node_and_failback_brings_home_what_left() {
    let mut lead = settled();
    let mut spec = spec();
    spec.failback = true;
    lead.log.must(Command::SetResource { name: web(), spec: Some(spec), requested: Requested::Started });
    lead.log.must(maintenance("a", true));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::Release { why: MoveReason::Maintenance, .. }]));
    assert_eq!(lead.log.web().home, Some(member("a")));
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("b"));
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.proposals(), [], "not while a is in maintenance");
    lead.log.must(maintenance("a", false));
    tell(&mut lead, Observed::Stopped, Observed::Running);
    lead.obey();
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("a"));
    assert_eq!(lead.log.web().home, None, "it is home");
}

#[test]
fn without_failback_what_left_stays_away() {
    let mut lead = settled();
    lead.log.must(maintenance("a", true));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    lead.obey();
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    lead.obey();
    lead.log.must(maintenance("a", false));
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.proposals(), []);
    assert_eq!(lead.log.phase(), &Phase::Placed { node: member("b") });
}

#[test]
fn what_nobody_else_can_have_stays_where_it_runs() {
    let mut lead = settled();
    for node in ["a", "b"] {
        lead.log.must(maintenance(node, true));
    }
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    assert!(matches!(lead.why(), Why::MoveWaits { .. }));
}

#[test]
fn only_so_many_planned_moves_are_under_way_at_once() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Command::Set(Setting::Moves { most: Some(2), force: false }));
    let names: Vec<_> = (0..4).map(|n| crate::name::ResourceName::new(&format!("r{n}")).unwrap()).collect();
    for name in &names {
        log.must(Command::AddResource { name: name.clone(), spec: spec(), requested: Requested::Started, node: None });
        let generation = log.state.resources[name].generation;
        log.must(Command::Assign { resource: name.clone(), generation, to: member("a"), incarnation: 1 });
    }
    log.must(maintenance("a", true));
    let mut lead = Lead::new(log);
    for (node, seen) in [("a", Observed::Running), ("b", Observed::Stopped)] {
        let mut report = report(lead.log.state.applied, None);
        report.resources = names.iter().map(|name| (name.clone(), seen.clone())).collect();
        lead.hear(node, report);
    }
    assert_eq!(lead.obey().len(), 2);
    assert_eq!(lead.proposals(), [], "those two first");
}

#[test]
fn one_failure_of_two_nodes_is_survived_with_the_appliances_vote_alone() {
    let lead = guarded();
    let cluster = lead.view().planned();
    let up = lead.view().outlook(&cluster, true);
    assert_eq!((up.tolerable, up.alarm()), (Some(1), None));
    let down = lead.view().outlook(&cluster, false);
    assert_eq!(down.tolerable, Some(0));
    assert!(down.alarm().is_some_and(|alarm| alarm.contains("appliance")), "{down:?}");
}

#[test]
fn what_would_break_the_goal_is_named_and_what_wouldnt_passes() {
    let mut lead = guarded();
    let breaks = lead.view().breaks(&maintenance("b", true)).expect("a would have nobody left");
    assert!(breaks.contains("of 2 nodes in service 1 would be left while b is in maintenance"), "{breaks}");
    assert!(breaks.contains("so for every maintenance here") && breaks.contains("web"), "{breaks}");
    assert_eq!(lead.view().breaks(&maintenance("b", false)), None);
    assert_eq!(lead.view().breaks(&Log::set_web(Requested::Stopped)), None);
    lead.log.must(Command::Set(Setting::Tolerate(None)));
    assert_eq!(lead.view().breaks(&maintenance("b", true)), None, "without a goal nothing breaks it");
}

#[test]
fn a_lost_node_lowers_what_can_still_fail() {
    let mut lead = guarded();
    lead.pass(ms(2_000));
    lead.hear_that("a", Observed::Running);
    let outlook = lead.view().outlook(&lead.view().planned(), true);
    assert_eq!(outlook.tolerable, Some(0));
    assert!(outlook.alarm().is_some());
}

#[test]
fn a_drain_is_shown_with_what_is_in_its_way() {
    let mut lead = guarded();
    let drain = lead.view().drain(&member("a"));
    assert_eq!(drain.moves.iter().map(|one| one.to.clone()).collect::<Vec<_>>(), [Some(member("b"))]);
    lead.log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
    let drain = lead.view().drain(&member("a"));
    assert!(drain.moves.is_empty() && drain.conflicts.iter().any(|conflict| conflict.contains("backup")), "{drain:?}");
}

#[test]
fn votes_that_were_left_out_are_expected_again_in_time() {
    let mut lead = settled();
    let until_ms = lead.log.state.newest_ms + 60_000;
    let fewer = FewerVotes { without: BTreeSet::from([member("b")]), until_ms };
    lead.log.must(Command::Set(Setting::FewerVotes(Some(fewer))));
    let id = lead.log.state.members[&member("b")].raft_id;
    assert!(!wanted_voters(&lead.log.state).contains(&id));
    lead.wall_ms = until_ms - 1;
    assert_eq!(lead.proposals(), []);
    lead.wall_ms = until_ms;
    assert_eq!(lead.obey(), [Command::Set(Setting::FewerVotes(None))]);
    assert!(wanted_voters(&lead.log.state).contains(&id));
    assert_eq!(lead.proposals(), [], "once");
}

#[test]
fn without_an_appliance_the_manager_closes_fences_itself() {
    let closes = |lead: &mut Lead| {
        lead.log.must(Log::fence("a", 1));
        lead.log.must(Log::fenced(1));
        lead.hear_that("b", Observed::Stopped);
        lead.proposals().iter().any(|command| matches!(command, Command::Closed { .. }))
    };
    assert!(!closes(&mut settled()), "the appliance says when no command can land any more");
    let mut lead = settled();
    lead.log.must(Command::RemoveMember { name: member("pi"), raft_id: 1 });
    let index = lead.log.state.applied + 1;
    lead.log.state.apply_voters(index, BTreeSet::from([3]));
    assert!(closes(&mut lead));
}

/// A node with so much memory.
fn admitted(log: &mut Log, node: &str, memory: u64) {
    log.must(Log::add(node, crate::state::Role::Node));
    let Command::Admit { node, incarnation, boot, watchdog, machine, closed, booted_in_ms, .. } =
        Log::admit(node, 1, &format!("boot-{node}1"), 0)
    else {
        panic!("an admission")
    };
    let capacity = Capacity { memory: Some(memory), milli_cpus: None };
    log.must(Command::Admit { node, incarnation, boot, watchdog, machine, closed, capacity, booted_in_ms });
}

/// A resource that needs so much memory, on a node.
fn put(log: &mut Log, name: &str, memory: u64, on: &str) -> crate::name::ResourceName {
    let name = crate::name::ResourceName::new(name).unwrap();
    let mut spec = spec();
    spec.memory = Some(memory);
    log.must(Command::AddResource { name: name.clone(), spec, requested: Requested::Started, node: None });
    let generation = log.state.resources[&name].generation;
    log.must(Command::Assign { resource: name.clone(), generation, to: member(on), incarnation: 1 });
    name
}

/// a and b of 4 and c of 3; `big` of 4 on a, `small` of 1 on c.
fn packed() -> (Lead, crate::name::ResourceName, crate::name::ResourceName) {
    let mut log = Log::new(Rules::ALL);
    for (node, memory) in [("a", 4), ("b", 4), ("c", 3)] {
        admitted(&mut log, node, memory);
    }
    let voters = wanted_voters(&log.state);
    log.state.apply_voters(log.state.applied + 1, voters);
    let (big, small) = (put(&mut log, "big", 4, "a"), put(&mut log, "small", 1, "c"));
    let mut lead = Lead::new(log);
    for (node, runs) in [("a", Some(&big)), ("b", None), ("c", Some(&small))] {
        let seen = |name| if Some(name) == runs { Observed::Running } else { Observed::Stopped };
        let resources = [&big, &small].map(|name| (name.clone(), seen(name))).into();
        let applied = lead.log.state.applied;
        lead.hear(node, crate::report::Report { resources, ..report(applied, None) });
    }
    (lead, big, small)
}

#[test]
fn a_move_that_leaves_no_room_for_a_failure_is_told_apart_from_one_that_does() {
    let (mut lead, big, small) = packed();
    let to_b = |lead: &Lead, name| lead.view().moving(name, &member("b"), false).unwrap();
    let commands = to_b(&lead, &small);
    assert_eq!(lead.view().break_together(&commands), None, "without a goal nothing breaks it");
    lead.log.must(Command::Set(Setting::Tolerate(Some(1))));
    let breaks = lead.view().break_together(&to_b(&lead, &small)).expect("big would have nowhere to go");
    assert!(breaks.contains("big") && breaks.contains('a'), "{breaks}");
    assert_eq!(lead.view().break_together(&to_b(&lead, &big)), None);
}

#[test]
fn a_drain_shows_the_order_in_which_the_manager_begins() {
    let (mut lead, big, _) = packed();
    let late = put(&mut lead.log, "late", 1, "a");
    let mut spec = lead.log.state.resources[&big].spec.clone();
    (spec.order, spec.memory) = (5, Some(1));
    lead.log.must(Command::SetResource { name: big.clone(), spec: Some(spec), requested: Requested::Started });
    let shown: Vec<_> = lead.view().drain(&member("a")).moves.into_iter().map(|step| step.resource).collect();
    assert_eq!(shown, [late.clone(), big.clone()]);
    lead.log.must(maintenance("a", true));
    let resources = [&big, &late].map(|name| (name.clone(), Observed::Running)).into();
    let applied = lead.log.state.applied;
    lead.hear("a", crate::report::Report { resources, ..report(applied, None) });
    for node in ["b", "c"] {
        lead.hear(node, report(applied, None));
    }
    let begun: Vec<_> = lead
        .proposals()
        .into_iter()
        .filter_map(|command| match command {
            Command::Release { resource, .. } => Some(resource),
            _ => None,
        })
        .collect();
    assert_eq!(begun, shown);
}

#[test]
fn a_drain_that_the_manager_can_only_half_make_says_how_it_is_made_by_hand() {
    let mut log = Log::new(Rules::ALL);
    for (node, memory) in [("a", 8), ("b", 4), ("c", 3)] {
        admitted(&mut log, node, memory);
    }
    let (first, second) = (put(&mut log, "first", 3, "a"), put(&mut log, "second", 4, "a"));
    let mut lead = Lead::new(log);
    let applied = lead.log.state.applied;
    for node in ["a", "b", "c"] {
        lead.hear(node, report(applied, None));
    }
    let drain = lead.view().drain(&member("a"));
    let to: Vec<_> = drain.moves.iter().map(|step| (&step.resource, step.to.clone())).collect();
    assert_eq!(to, [(&first, Some(member("b"))), (&second, None)]);
    let by_hand = drain.conflicts.iter().find(|said| said.contains("by hand")).expect("both fit elsewhere");
    assert!(by_hand.contains("second to b") && by_hand.contains("first to c"), "{by_hand}");
}

#[test]
fn an_operators_move_waits_for_its_turn_like_a_drains() {
    let (mut lead, _, small) = packed();
    let to_b = |lead: &Lead, name| lead.view().moving(name, &member("b"), false);
    lead.log.must(Command::Set(Setting::Moves { most: Some(1), force: false }));
    let [first] = to_b(&lead, &small).unwrap().try_into().unwrap();
    lead.log.must(first);
    let not_yet = AskError::NotItsTurn { under_way: 1, most: 1, takes: 1 };
    let other = put(&mut lead.log, "other", 1, "a");
    assert_eq!(lead.view().moving(&other, &member("c"), false), Err(not_yet));
    lead.log.must(Command::Set(Setting::Moves { most: Some(2), force: false }));
    assert!(lead.view().moving(&other, &member("c"), false).is_ok());
}

#[test]
fn what_belongs_together_counts_as_many_and_still_gets_its_turn() {
    let (mut lead, _, small) = packed();
    let other = put(&mut lead.log, "other", 1, "c");
    let kind = crate::placement::rule::RuleKind::Together;
    let rule = PlacementRule { kind, resources: [small.clone(), other].into(), disabled_by_operator: false };
    lead.log.must(Command::SetRule { name: crate::name::RuleName::new("both").unwrap(), rule });
    lead.log.must(Command::Set(Setting::Moves { most: Some(1), force: false }));
    let to_b = |lead: &Lead| lead.view().moving(&small, &member("b"), false);
    assert_eq!(to_b(&lead).unwrap().len(), 2, "nothing else is under way");
    let third = put(&mut lead.log, "third", 1, "c");
    let generation = lead.log.state.resources[&third].generation;
    let why = MoveReason::Asked;
    lead.log.must(Command::Release { resource: third, generation, to: None, why });
    lead.log.must(Command::Set(Setting::Moves { most: Some(2), force: false }));
    assert_eq!(to_b(&lead), Err(AskError::NotItsTurn { under_way: 1, most: 2, takes: 2 }));
}

#[test]
fn without_a_goal_it_alarms_when_nothing_more_may_fail_and_something_could() {
    let (lead, ..) = packed();
    let planned = lead.view().planned();
    assert_eq!(lead.view().outlook(&planned, true).alarm(), None);
    let down = lead.view().outlook(&planned, false).alarm().expect("without the appliance nothing may fail");
    assert!(down.contains("no node failure is tolerable now: the appliance is down"), "{down}");
    let mut meant = lead.clone();
    meant.log.must(Command::Set(Setting::Tolerate(Some(0))));
    assert_eq!(meant.view().outlook(&planned, false).alarm(), None, "somebody said that this is meant to be so");
    // Two nodes without an appliance have one vote and never survive a failure: there is nothing to bring back.
    let mut log = Log::new(Rules::ALL);
    for node in ["a", "b"] {
        admitted(&mut log, node, 4);
    }
    let voters = wanted_voters(&log.state);
    log.state.apply_voters(log.state.applied + 1, voters);
    log.must(Command::RemoveMember { name: member("pi"), raft_id: 1 });
    let voters = wanted_voters(&log.state);
    log.state.apply_voters(log.state.applied + 1, voters);
    put(&mut log, "web", 1, "a");
    let mut lead = Lead::new(log);
    tell(&mut lead, Observed::Running, Observed::Stopped);
    let outlook = lead.view().outlook(&lead.view().planned(), true);
    assert_eq!((outlook.tolerable, outlook.alarm()), (Some(0), None));
}

#[test]
fn without_a_goal_it_alarms_when_not_even_now_everything_fits() {
    let (mut lead, ..) = packed();
    let name = crate::name::ResourceName::new("huge").unwrap();
    let mut huge = spec();
    huge.memory = Some(100);
    lead.log.must(Command::AddResource { name, spec: huge, requested: Requested::Started, node: None });
    let outlook = lead.view().outlook(&lead.view().planned(), true);
    assert_eq!(outlook.tolerable, None);
    assert!(outlook.alarm().is_some_and(|alarm| alarm.contains("not even now does everything protected fit")));
}
