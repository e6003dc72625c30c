//! A cluster that doesn't act, and what it takes to act again.

use super::*;
use crate::fixture::at;
use crate::leader::Leases;
use crate::state::{Arming, DisarmMode};

/// `web` runs on a, and the cluster is disarmed.
fn disarmed() -> Lead {
    let mut lead = settled();
    lead.log.must(Command::Disarm { mode: DisarmMode::Freeze });
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert_eq!(lead.obey(), [Command::Disarmed]);
    lead
}

/// The same, on its way back; nobody has said anything since.
fn arming() -> Lead {
    let mut lead = disarmed();
    lead.log.must(Command::Arm);
    lead
}

fn since(lead: &Lead) -> u64 {
    let Arming::Arming { since, .. } = lead.log.state.settings.arming else { panic!("it is not being armed") };
    since
}

#[test]
fn disarming_waits_until_nothing_is_under_way() {
    let mut lead = settled();
    lead.log.must(lead.log.release(Some("b"), MoveReason::Failed { why: "it died".into() }));
    lead.log.must(Command::Disarm { mode: DisarmMode::Freeze });
    tell(&mut lead, Observed::Stopping, Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("b"), "what is under way is finished");
    assert_eq!(lead.proposals(), [Command::Disarmed]);
}

#[test]
fn disarming_says_what_it_waits_for_and_an_operators_word_lets_it_go_on() {
    let mut lead = settled();
    lead.log.must(Log::fence("a", 1));
    lead.log.must(Command::Disarm { mode: DisarmMode::Freeze });
    let plan = lead.plan();
    assert_eq!(plan.proposals, []);
    let [waits] = plan.disarming.as_slice() else { panic!("{:?}", plan.disarming) };
    assert!(waits.contains("evidence that a is fenced (fence 1)"), "{waits}");
    assert!(waits.contains("`tiebreaker fence confirm a`"), "{waits}");
    let said = lead.why().to_string();
    assert!(said.contains(waits) && said.contains("`tiebreaker arm` calls the disarming off"), "{said}");

    lead.log.must(Log::fenced(1));
    let plan = lead.plan();
    assert!(plan.disarming[0].contains("no power-off of a can land any more"), "{:?}", plan.disarming);
    lead.log.must(Log::closed(1));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("b"), "what is under way is finished");
    assert_eq!(lead.proposals(), [Command::Disarmed]);
}

#[test]
fn disarming_that_waits_can_be_called_off() {
    let mut lead = settled();
    lead.log.must(Log::fence("a", 1));
    lead.log.must(Command::Disarm { mode: DisarmMode::Freeze });
    lead.log.must(Command::Arm);
    assert_eq!(lead.log.state.settings.arming, Arming::Armed);
    assert_eq!(lead.plan().disarming, Vec::<String>::new());
}

#[test]
fn what_can_be_nowhere_holds_the_disarming_with_its_reason() {
    let mut lead = settled();
    lead.log.must(Command::SetMaintenance { node: member("b"), on: true });
    lead.log.must(Log::fence("a", 1));
    lead.log.must(Command::Disarm { mode: DisarmMode::Freeze });
    lead.log.must(Log::fenced(1));
    lead.log.must(Log::closed(1));
    lead.hear_that("b", Observed::Stopped);
    let plan = lead.plan();
    assert_eq!(plan.proposals, []);
    assert!(plan.disarming[0].contains("b is in maintenance"), "{:?}", plan.disarming);
    lead.log.must(Log::set_web(Requested::Stopped));
    assert_eq!(lead.proposals(), [Command::Disarmed]);
}

#[test]
fn who_went_while_disarmed_keeps_the_cluster_disarmed_until_it_is_back() {
    let mut lead = disarmed();
    lead.log.must(Log::leave("a", crate::report::Leave::PowerOff));
    // Its agent has gone; whether the machine is down yet, nobody knows.
    lead.log.must(Command::Arm);
    lead.hear_that("b", Observed::Stopped);
    lead.obey();
    assert!(lead.log.unbound("a").is_some(), "who goes isn't bound again");
    lead.pass(ms(2_000));
    lead.hear_that("b", Observed::Stopped);
    lead.obey();
    assert!(matches!(lead.log.state.settings.arming, Arming::Disarmed { .. }));
}

#[test]
fn while_disarmed_nobody_is_fenced_for_being_lost_and_nothing_is_moved() {
    let mut lead = disarmed();
    lead.log.must(Command::SetMaintenance { node: member("b"), on: true });
    lead.pass(ms(86_400_000));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    assert!(matches!(lead.why(), Why::Disarmed { .. }));
}

#[test]
fn a_fence_that_was_asked_for_while_disarmed_is_not_proven_by_time() {
    let mut lead = disarmed();
    lead.log.must(Log::fence("a", 1));
    lead.pass(ms(86_400_000));
    assert_eq!(lead.proposals(), []);
}

#[test]
fn the_cluster_acts_again_when_every_node_keeps_its_promise() {
    let mut lead = arming();
    tell(&mut lead, Observed::Running, Observed::Stopped);
    let bound = lead.obey();
    assert!(matches!(bound.as_slice(), [Command::Bind { .. }, Command::Bind { .. }]), "{bound:?}");
    assert_eq!(lead.proposals(), [Command::Armed { since: since(&lead) }]);
}

#[test]
fn one_node_that_isnt_armed_yet_keeps_the_cluster_waiting() {
    let mut lead = arming();
    lead.hear_that("b", Observed::Stopped);
    let mut unarmed = report(lead.log.state.applied, Some(Observed::Running));
    unarmed.armed = false;
    lead.hear("a", unarmed);
    lead.obey();
    assert!(lead.log.unbound("a").is_some() && lead.log.unbound("b").is_none());
    assert_eq!(lead.proposals(), []);
}

#[test]
fn one_node_that_cant_arm_disarms_all_again() {
    let mut lead = arming();
    lead.hear_that("b", Observed::Stopped);
    let mut stuck = report(lead.log.state.applied, Some(Observed::Running));
    (stuck.armed, stuck.trouble) = (false, Some("it is stuck".into()));
    lead.hear("a", stuck);
    lead.obey();
    assert!(matches!(lead.log.state.settings.arming, Arming::Disarmed { .. }));
    assert!(lead.log.unbound("b").is_some());
}

#[test]
fn one_node_that_falls_silent_disarms_all_again() {
    let mut lead = arming();
    lead.pass(ms(2_000));
    lead.hear_that("b", Observed::Stopped);
    assert!(lead.proposals().iter().any(|command| matches!(command, Command::ArmingFailed { .. })));
}

#[test]
fn a_new_leader_gives_the_nodes_time_to_speak_before_it_calls_the_arming_off() {
    let log = arming().log;
    let mut lead = Lead::new(log);
    (lead.now, lead.leases) = (at(200_000), Leases::start(at(200_000), 3, &lead.log.state));
    assert_eq!(lead.proposals(), []);
    lead.pass(ms(2_000));
    assert!(matches!(lead.proposals().as_slice(), [Command::ArmingFailed { .. }]));
}

#[test]
fn arming_is_refused_while_a_node_isnt_heard_or_cant_be_guarded() {
    let mut lead = disarmed();
    assert_eq!(lead.view().may_be_armed(), Ok(()));
    let mut stuck = report(lead.log.state.applied, Some(Observed::Running));
    stuck.trouble = Some("it is stuck".into());
    lead.hear("a", stuck);
    assert!(lead.view().may_be_armed().is_err());
    lead.pass(ms(2_000));
    let AskError::NotReady { faults } = lead.view().may_be_armed().unwrap_err() else { panic!("it isn't ready") };
    assert!(faults[0].starts_with("a is not heard: bring it back, or `tiebreaker fence a`"), "{faults:?}");
    assert!(faults.len() == 2 && faults[1].starts_with("b is not heard"), "{faults:?}");
}

#[test]
fn what_an_ignoring_cluster_forgot_is_adopted_where_it_runs() {
    let mut lead = settled();
    lead.log.disarm(DisarmMode::Ignore);
    lead.log.must(Command::Arm);
    // It was moved by hand meanwhile.
    tell(&mut lead, Observed::Stopped, Observed::Running);
    lead.obey();
    lead.obey();
    assert_eq!(lead.log.state.settings.arming, Arming::Armed);
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
}
