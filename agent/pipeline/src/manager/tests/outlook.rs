//! Maintenance, votes, and what the cluster survives.

use super::*;
use crate::command::Setting;
use crate::fixture::web;
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
